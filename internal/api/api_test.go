package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"ghostlight/internal/event"
)

var update = flag.Bool("update", false, "write what was got into testdata")

// TestRequests shows requests of testdata/requests.txt with their answers:
// a line METHOD TARGET [HEADER: VALUE], then the body if there is one, ----, and
// the status, the headers of ours, and the body.
func TestRequests(t *testing.T) {
	s, _ := newServer(t, func(b *Backend) { b.SQL = fakeSQL })
	const path = "testdata/requests.txt"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for block := range strings.SplitSeq(string(text), "====\n") {
		input, want, found := strings.Cut(block, "----\n")
		if !found {
			t.Fatalf("a block without ----:\n%s", block)
		}
		line, body, _ := strings.Cut(input, "\n")
		words := strings.SplitN(line, " ", 3)
		var header []string
		if len(words) == 3 {
			name, value, _ := strings.Cut(words[2], ": ")
			header = []string{name, value}
		}
		w := ask(s, words[0], words[1], body, header...)
		var out strings.Builder
		fmt.Fprintln(&out, w.Code, w.Header().Get("Content-Type"))
		for _, name := range []string{"Ghostlight-Matched", "Ghostlight-Complete", "Ghostlight-Lost", "Allow"} {
			if v := w.Header().Get(name); v != "" {
				fmt.Fprintf(&out, "%s: %s\n", name, v)
			}
		}
		out.WriteString(strings.TrimSpace(w.Body.String()) + "\n")
		if out.String() != want && !*update {
			t.Errorf("%s\ngot:\n%s\nwant:\n%s", input, out.String(), want)
		}
		got = append(got, input+"----\n"+out.String())
	}
	if *update {
		if err := os.WriteFile(path, []byte(strings.Join(got, "====\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Every column that has a value in a record is in its JSON, under its name.
func TestRowsAreNested(t *testing.T) {
	s, _ := newServer(t)
	var answer struct {
		Flows []map[string]any `json:"flows"`
	}
	if err := json.Unmarshal(ask(s, "GET", "/api/v1/flows", "").Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	b := story()
	if len(answer.Flows) != len(b.Flows) {
		t.Fatalf("%d flows, want %d", len(answer.Flows), len(b.Flows))
	}
	table := s.schema(event.KindFlow).Table
	for _, c := range table.Columns {
		has := c.Int != nil && c.Int(b, 0) != event.Null || c.Append != nil && len(c.Append(nil, b, 0)) > 0
		if _, found := lookup(answer.Flows[0], c.Name); found != has {
			t.Errorf("%s: in JSON %v, in the record %v", c.Name, found, has)
		}
	}
}

func lookup(row map[string]any, name string) (any, bool) {
	var at any = row
	for key := range strings.SplitSeq(name, ".") {
		m, ok := at.(map[string]any)
		if !ok {
			return nil, false
		}
		if at, ok = m[key]; !ok {
			return nil, false
		}
	}
	return at, true
}

// More rows than are held in memory are streamed, and only the newest of them.
func TestManyRows(t *testing.T) {
	s, st := newServer(t)
	const more = maxHeld + 5000
	b := &event.Batch{}
	for i := range more {
		if b.Wall = now.UnixNano() - sec(40); len(b.Flows) == 256 {
			st.Append(b)
			b.Reset()
		}
		b.Flows = append(b.Flows, tcp(uint64(1000+i), 0, float64(i)/1e4, event.Outbound, "10.0.0.5:1", "10.0.0.7:2", nginx, nil))
		b.Flows[len(b.Flows)-1].Time = int64(i)
	}
	st.Append(b)
	for _, last := range []int{0, maxHeld + 1000} {
		w := ask(s, "GET", fmt.Sprintf("/api/v1/flows?last=%d&filter=port:2", last), "", "Accept", "application/x-ndjson")
		want := more
		if last > 0 {
			want = last
		}
		if n := bytes.Count(w.Body.Bytes(), []byte("\n")); n != want {
			t.Errorf("last=%d gives %d rows, want %d", last, n, want)
		}
		if m := w.Header().Get("Ghostlight-Matched"); m != fmt.Sprint(more) {
			t.Errorf("last=%d: matched %s, want %d", last, m, more)
		}
		lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
		var newest struct{ Flow struct{ ID int } }
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &newest); err != nil || newest.Flow.ID != 1000+more-1 {
			t.Errorf("last=%d: the last row is %v (%v)", last, newest, err)
		}
	}
}

// The tree has, of each process alive, the newest row; not the one that ended.
func TestTree(t *testing.T) {
	s, _ := newServer(t)
	for at, want := range map[string]string{
		"0s":                       "bash init nginx",
		"15s":                      "bash curl init nginx", // before the exit
		"2026-01-31T12:00:00.92Z":  "bash bash init nginx", // forked, not yet executed
		"2026-01-31T11:59:59Z":     "",
		"2026-01-31T12:00:00.000Z": "bash init nginx",
	} {
		names := namesOf(t, ask(s, "GET", "/api/v1/processes?at="+at, ""))
		if names != want {
			t.Errorf("at %s: %s, want %s", at, names, want)
		}
	}
	if names := namesOf(t, ask(s, "GET", "/api/v1/processes?filter=container:web", "")); names != "nginx" {
		t.Errorf("filtered: %s", names)
	}
}

// With checkpoints only the time of the last two is read: a process that
// vanished while nobody watched does not stay for ever.
func TestTreeReadsSinceCheckpoints(t *testing.T) {
	s, st := newServer(t, func(b *Backend) { b.Checkpoint = 10e9 })
	b := &event.Batch{Wall: now.UnixNano() - sec(60), Processes: []event.Process{process(55, event.Running, 1, initd)}}
	st.Append(b)
	if names := namesOf(t, ask(s, "GET", "/api/v1/processes", "")); names != "init" {
		t.Errorf("got %s", names)
	}
}

// Nor does one that vanished between two runs of the agent.
func TestTreeReadsSinceStart(t *testing.T) {
	s, st := newServer(t, func(b *Backend) {
		b.Status = func() Status { return Status{Started: now.Add(-10 * time.Second)} }
	})
	b := &event.Batch{Wall: now.UnixNano() - sec(60), Processes: []event.Process{process(51, event.Running, 1, initd)}}
	st.Append(b)
	if names := namesOf(t, ask(s, "GET", "/api/v1/processes", "")); names != "init" {
		t.Errorf("got %s", names)
	}
	if names := namesOf(t, ask(s, "GET", "/api/v1/processes?at=15s", "")); names != "bash curl init nginx" {
		t.Errorf("before the start: %s", names)
	}
}

func TestTreeDisorder(t *testing.T) {
	for name, c := range map[string]struct {
		old, next life
		follows   bool
	}{
		"later":                         {life{time: 1, start: 1}, life{time: 2, start: 1}, true},
		"exit told before the exec":     {life{time: 2, start: 1, exited: true}, life{time: 3, start: 1}, false},
		"exit of the one before":        {life{time: 2, start: 9}, life{time: 3, start: 1, exited: true}, false},
		"pid used again":                {life{time: 2, start: 1, exited: true}, life{time: 3, start: 9}, true},
		"after a reboot clocks restart": {life{time: 0, start: 9e12, exited: true}, life{time: sec(100), start: 7}, true},
	} {
		if got := c.next.follows(c.old); got != c.follows {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func namesOf(t *testing.T, w interface{ Result() *http.Response }) string {
	t.Helper()
	var answer struct {
		Processes []struct {
			Process struct{ Executable struct{ Name string } }
		}
		At       string
		Complete bool
	}
	body := readAll(t, w.Result().Body)
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.At == "" || !answer.Complete {
		t.Fatalf("%v: %s", err, body)
	}
	var names []string
	for _, p := range answer.Processes {
		names = append(names, p.Process.Executable.Name)
	}
	return sortedWords(names)
}
