package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ghostlight/internal/config"
	"ghostlight/internal/event"
	"ghostlight/internal/store"
)

// stream is a follower's view: events as they come.
type stream struct {
	t  *testing.T
	in *bufio.Reader
}

func followAt(t *testing.T, client *http.Client, target string) stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	r, _ := http.NewRequestWithContext(ctx, "GET", "http://x"+target, nil)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != mediaSSE {
		t.Fatalf("%s %s: %s", resp.Status, resp.Header.Get("Content-Type"), readAll(t, resp.Body))
	}
	return stream{t, bufio.NewReader(resp.Body)}
}

// next returns the next event.
func (s stream) next() (name string, data map[string]any) {
	s.t.Helper()
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			s.t.Fatal(err)
		}
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "event: "); ok {
			name = text
		}
		if text, ok := strings.CutPrefix(line, "data: "); ok {
			if err := json.Unmarshal([]byte(text), &data); err != nil {
				s.t.Fatal(err)
			}
			return name, data
		}
	}
}

func (s stream) id() int {
	s.t.Helper()
	name, data := s.next()
	if name != "flow" {
		s.t.Fatalf("got %s %v", name, data)
	}
	id, _ := lookup(data, "flow.id")
	return int(id.(float64))
}

func someFlow(id uint64) *event.Batch {
	f := tcp(id, 30, 30, event.Outbound, "10.0.0.5:1", "10.0.0.7:2", nginx, nil)
	return &event.Batch{Wall: now.Add(-time.Minute).UnixNano(), Flows: []event.Flow{f}}
}

// A follower gets what was asked of the past, then all that comes, without a
// gap and nothing twice, whatever comes meanwhile.
func TestFollow(t *testing.T) {
	s, st := newServer(t)
	client := serve(t, s, Listen{Address: config.Off, Socket: filepath.Join(t.TempDir(), "g")})
	stop := make(chan struct{})
	done := make(chan struct{})
	const first, most = 100, 3000
	go func() { // ended by stop
		defer close(done)
		for id := uint64(first); id < first+most; id++ {
			st.Append(someFlow(id))
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Microsecond):
			}
		}
	}()
	defer func() { close(stop); <-done }()
	time.Sleep(10 * time.Millisecond)
	in := followAt(t, client, "/api/v1/flows?follow=true&last=100000&since=1h&filter=port:2")
	for want := first; want < first+500; want++ {
		if got := in.id(); got != want {
			t.Fatalf("got %d, want %d", got, want)
		}
	}
}

func TestFollowFromNow(t *testing.T) {
	s, st := newServer(t)
	client := serve(t, s, Listen{Address: config.Off, Socket: filepath.Join(t.TempDir(), "g")})
	in := followAt(t, client, "/api/v1/flows?follow=true&filter=-port:81")
	refused := someFlow(7)
	refused.Flows[0].Destination = story().Flows[2].Destination // port 81
	st.Append(refused)
	st.Append(someFlow(8))
	if got := in.id(); got != 8 {
		t.Errorf("got %d, want 8", got)
	}
	processes := followAt(t, client, "/api/v1/processes?events=true&follow=true")
	st.Append(&event.Batch{Wall: 1, Processes: []event.Process{process(1, event.Exec, 1, curl)}})
	if name, data := processes.next(); name != "process" || data["action"] != "exec" {
		t.Errorf("got %s %v", name, data)
	}
	status := followAt(t, client, "/api/v1/status?follow=true")
	for range 2 {
		if name, data := status.next(); name != "status" || data["version"] != "test" {
			t.Errorf("got %s %v", name, data)
		}
	}
}

// A reader that retention overtook is told how many rows it missed.
func TestOvertakenFollower(t *testing.T) {
	// Rows expire at once, so every sealed run is gone before a slow reader
	// comes to it.
	st, err := store.Open(t.TempDir(), event.Tables, store.Options{Now: func() time.Time { return now }, Retention: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	s, err := New(Backend{Store: st, Status: func() Status { return Status{} }, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	pipe, out := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", "/api/v1/flows?follow=true", nil)
	begun, ended := make(chan struct{}), make(chan struct{})
	go func() { // ended by cancel and closing the pipe
		defer close(ended)
		s.mux.ServeHTTP(&pipeWriter{w: out, header: http.Header{}, begun: begun}, r)
	}()
	defer func() { cancel(); pipe.Close(); <-ended }()
	defer time.AfterFunc(30*time.Second, func() { pipe.Close() }).Stop()
	<-begun
	in := stream{t, bufio.NewReader(pipe)}
	sent := uint64(0)
	b := &event.Batch{}
	send := func(n int) {
		for range n {
			sent++
			b.Reset()
			b.Wall = now.Add(-time.Hour).UnixNano()
			b.Flows = append(b.Flows, tcp(sent, 0, 0, event.Outbound, "10.0.0.5:1", "10.0.0.7:2", nginx, nil))
			st.Append(b)
		}
	}
	send(1)
	if got := in.id(); got != 1 { // it reads, then stalls: nobody reads the pipe
		t.Fatalf("got %d", got)
	}
	send(300000)
	waitFor(t, "the store to delete the oldest rows", func() bool {
		snapshot := st.Snapshot()
		defer snapshot.Close()
		sources := snapshot.Sources(event.KindFlow)
		return len(sources) == 0 || sources[0].Extent().Seq > 200000
	})
	seen, missed := uint64(1), uint64(0)
	send(1)
	for seen+missed < sent {
		name, data := in.next()
		switch name {
		case "flow":
			seen++
		case "lost":
			if data["stage"] != "cursor" {
				t.Errorf("lost %v", data)
			}
			missed += uint64(data["count"].(float64))
		}
	}
	if missed == 0 || seen+missed != sent {
		t.Errorf("seen %d, missed %d of %d", seen, missed, sent)
	}
}

// pipeWriter is a client as slow as its reader.
type pipeWriter struct {
	w      io.Writer
	header http.Header
	begun  chan struct{} // closed with the header, when rows are being followed
}

func (p *pipeWriter) Header() http.Header         { return p.header }
func (p *pipeWriter) WriteHeader(int)             { close(p.begun) }
func (p *pipeWriter) Write(b []byte) (int, error) { return p.w.Write(b) }
func (p *pipeWriter) Flush()                      {}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestInProcess(t *testing.T) {
	s, st := newServer(t)
	ctx, cancel := context.WithCancel(context.Background())
	client := &http.Client{Transport: s.InProcess(ctx)}
	in := followAt(t, client, "/api/v1/flows?follow=true&last=1")
	if got := in.id(); got != 4 {
		t.Errorf("got %d", got)
	}
	st.Append(someFlow(99))
	if got := in.id(); got != 99 {
		t.Errorf("got %d", got)
	}
	cancel()
	if _, err := client.Get("http://x/healthz"); err == nil {
		t.Error("it answers after its end")
	}
}

// Every route is described, and answers; every parameter that is described is
// taken.
func TestOpenAPI(t *testing.T) {
	s, _ := newServer(t, func(b *Backend) {
		b.SQL = fakeSQL
		b.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x 1\n") })
	})
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Parameters []struct{ Name, In string }
			Responses  map[string]struct {
				Content map[string]struct{ Schema map[string]any }
			}
		}
		Components struct{ Schemas map[string]any }
	}
	w := ask(s, "GET", "/api/v1/openapi.json", "")
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatal(doc.OpenAPI, err)
	}
	examples := map[string]string{"since": "1h", "until": "0s", "last": "1", "filter": "-pid:9", "at": "0s", "events": "true", "sql": "select+1", "limit": "5", "follow": "false",
		"columns": "3", "sort": "slowest", "id": strings.Repeat("11", 16), "name": "nginx"}
	described := 0
	for _, rt := range routes {
		op, ok := doc.Paths[rt.path][strings.ToLower(rt.method)]
		if !ok {
			t.Errorf("%s %s is not described", rt.method, rt.path)
			continue
		}
		described++
		target, body := rt.path+"?", ""
		if rt.body != nil {
			body = `{"sql": "select 1"}`
		}
		for _, p := range op.Parameters {
			switch {
			case p.In == "path":
				target = strings.Replace(target, "{"+p.Name+"}", examples[p.Name], 1)
			case p.Name != "at": // it excludes others
				target += p.Name + "=" + examples[p.Name] + "&"
			}
		}
		for media := range op.Responses["200"].Content {
			if media == mediaSSE {
				continue // TestFollow
			}
			w := ask(s, rt.method, strings.TrimSuffix(target, "&"), body, "Accept", media, "Content-Type", mediaJSON)
			if got, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";"); w.Code != 200 || got != media {
				t.Errorf("%s %s as %s: %d %s\n%s", rt.method, target, media, w.Code, got, w.Body)
			}
		}
	}
	for path, ops := range doc.Paths {
		described -= len(ops)
		_ = path
	}
	if described != 0 {
		t.Errorf("%d operations too many or few are described", -described)
	}
	// Every reference points to something.
	for _, piece := range strings.Split(w.Body.String(), `"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(piece, `"`)
		if doc.Components.Schemas[name] == nil {
			t.Errorf("%s is referred to and not there", name)
		}
	}
}

// What is cut off in the middle must not look whole.
func TestBrokenAnswerIsCutOff(t *testing.T) {
	s, _ := newServer(t, func(b *Backend) {
		b.SQL = func(_ context.Context, _ Question, head func([]AnswerColumn) error, row func([]any) error) (bool, AnswerStats, error) {
			head([]AnswerColumn{{"x", "string"}})
			for range 1000 {
				row([]any{strings.Repeat("x", 1000)})
			}
			return false, AnswerStats{}, fmt.Errorf("the disk broke")
		}
	})
	client := serve(t, s, Listen{Address: config.Off, Socket: filepath.Join(t.TempDir(), "g")})
	resp, err := client.Get("http://x/api/v1/query?sql=x")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("it looks whole")
	}
}
