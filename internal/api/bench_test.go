package api

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"ghostlight/internal/event"
)

// million is a server over a million flows of the last hour.
func million(b *testing.B) *Server {
	s, st := newServer(b)
	batch := &event.Batch{Wall: now.Add(-time.Hour).UnixNano()}
	const rows = 1_000_000
	for i := range rows {
		at := float64(i) * 3590 / rows
		f := tcp(uint64(i), at, at+0.01, event.Outbound, "10.0.0.5:40000", "10.0.0.7:443", []*event.Who{curl, nginx, shell}[i%3], nil)
		f.Sent, f.Received = event.Count{Bytes: uint64(i % 5000), Packets: 3}, event.Count{Bytes: uint64(i % 70000), Packets: 4}
		f.TCP = event.TCPInfo{State: 7, CloseReason: event.FinSent, RTTNS: int64(20000 + i%9000)}
		if batch.Flows = append(batch.Flows, f); len(batch.Flows) == 256 || i == rows-1 {
			st.Append(batch)
			batch.Flows = batch.Flows[:0]
		}
	}
	b.ResetTimer()
	return s
}

func BenchmarkMillion(b *testing.B) {
	s := million(b)
	for _, target := range []string{
		"/api/v1/flows?since=1h&last=1000",
		"/api/v1/flows?since=1h&last=1000&filter=service:nginx+tcp.rtt_ns>28us",
		"/api/v1/flows?last=20&filter=verdict:error",
		"/api/v1/flows?since=1h&last=0",
		"/api/v1/map?since=1h",
		"/api/v1/map",
		"/api/v1/query?sql=" + url.QueryEscape("select service_name, count(*), sum(bytes_sent) from flows group by 1"),
	} {
		b.Run(strings.TrimPrefix(target, "/api/v1/"), func(b *testing.B) {
			for b.Loop() {
				w := &discard{httptest.NewRecorder(), 0}
				s.mux.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
				if w.Code != 200 || w.bytes < 50 {
					b.Fatal(w.Code, w.bytes, fmt.Sprint(w.Body))
				}
			}
		})
	}
}

// discard counts a body and lets go of it.
type discard struct {
	*httptest.ResponseRecorder
	bytes int
}

func (d *discard) Write(b []byte) (int, error) { d.bytes += len(b); return len(b), nil }

// Whatever the query string is, it is the client's mistake or an answer.
func FuzzRequest(f *testing.F) {
	for _, q := range []string{
		"since=1h&last=5", "filter=port:80+-service:curl+tcp.rtt_ns>5ms", "since=2026-01-31T12:00:00+01:00", "filter=%22", "last=0&until=1d",
		"filter=address:10.0.0.0/8", "at=15s", "events=true&filter=a*b", "filter=source.port>=1,2",
	} {
		for _, path := range []string{"flows", "processes", "map"} {
			f.Add(path, q)
		}
	}
	s, _ := newServer(f)
	f.Fuzz(func(t *testing.T, path, query string) {
		if strings.Contains(query, "follow") || path != "flows" && path != "processes" && path != "map" {
			return
		}
		r := httptest.NewRequest("GET", "/api/v1/"+path, nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		s.mux.ServeHTTP(w, r)
		if w.Code != 200 && w.Code != 400 {
			t.Errorf("%s?%s: %d %s", path, query, w.Code, w.Body)
		}
	})
}
