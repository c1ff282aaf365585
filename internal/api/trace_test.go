package api

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"ghostlight/internal/event"
)

// readSpan is what a test looks at in a span.
type readSpan struct {
	Trace struct {
		SpanID string `json:"span_id"`
	}
	spanPlace
}

func readSpans(t *testing.T, d TraceDetail) (all []readSpan) {
	t.Helper()
	for _, raw := range d.Spans {
		var one readSpan
		if err := json.Unmarshal(raw, &one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

// The tree of a purchase, from curl down to the database, and where its time
// went.
func TestTrace(t *testing.T) {
	s, _ := newServer(t)
	d := get[TraceDetail](t, s, "/api/v1/trace/"+strings.Repeat("11", 16))
	var tree strings.Builder
	for _, n := range readSpans(t, d) {
		fmt.Fprintf(&tree, "%s%s %s at %g self %g critical %v orphan %v\n", strings.Repeat(" ", n.Depth), n.Trace.SpanID[15:], n.Name, ms(n.OffsetNS), ms(n.SelfNS), n.Critical, n.Orphan)
	}
	for _, p := range d.CriticalPath {
		fmt.Fprintf(&tree, "%s:%g-%g ", p.SpanID[15:], ms(p.FromNS), ms(p.ToNS))
	}
	const want = `1 GET /pay/{id} at 0 self 1 critical true orphan false
 2 GET /pay/{id} at 0.5 self 4 critical true orphan false
  3 GET /pay/{id} at 2 self 1 critical true orphan false
   4 GET /pay/{id} at 2.5 self 13 critical true orphan false
    6 GET at 5 self 0.8 critical true orphan false
     7 GET at 5 self 0.2 critical true orphan false
    5 SELECT orders at 10 self 30 critical true orphan false
1:0-0.5 2:0.5-2 3:2-2.5 4:2.5-5 7:5-5.2 6:5.2-6 4:6-10 5:10-40 4:40-46.5 3:46.5-47 2:47-49.5 1:49.5-50 `
	if tree.String() != want {
		t.Errorf("got\n%s\nwant\n%s", tree.String(), want)
	}
	if !d.Complete || d.DurationNS != 50e6 || strings.Join(d.Services, " ") != "curl nginx shop redis" {
		t.Errorf("%+v", d)
	}
	// Its first parent lies elsewhere.
	d = get[TraceDetail](t, s, "/api/v1/trace/"+strings.Repeat("22", 16))
	if n := readSpans(t, d); !n[0].Orphan || n[1].Orphan || !d.Complete || len(n) != 4 {
		t.Errorf("%+v", n)
	}
}

func ms(ns int64) float64 { return float64(ns) / 1e6 }

// Whatever the spans, each comes once, below its parent, and the critical path
// covers the first root's time without a gap and without an overlap.
func TestTraceOfAnything(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 3))
		s, _ := newServer(t, func(b *Backend) { b.Store = openStore(t) })
		b := &event.Batch{Wall: now.UnixNano() - sec(60)}
		n := 1 + random.IntN(40)
		for i := range n {
			role := event.Role(1 + random.IntN(2))
			r := web(exchange(random.Float64()*20, random.Float64()*5000, role, shop, nginx, "10.0.0.1:1", "10.0.0.2:2", 0x77, byte(i+1), byte(random.IntN(n+3))), "GET", "/", "/", 200)
			b.Requests = append(b.Requests, r)
		}
		s.Store.Append(b)
		d := get[TraceDetail](t, s, "/api/v1/trace/"+strings.Repeat("77", 16))
		seen := map[string]bool{}
		spans := readSpans(t, d)
		for i, one := range spans {
			seen[one.Trace.SpanID] = true
			if i > 0 && one.Depth > spans[i-1].Depth+1 || one.SelfNS < 0 {
				t.Errorf("seed %d: %+v after %+v", seed, one, spans[i-1])
			}
		}
		if len(seen) != n || len(spans) != n {
			t.Errorf("seed %d: %d spans of %d", seed, len(seen), n)
		}
		var root struct {
			DurationNS int64 `json:"duration_ns"`
		}
		json.Unmarshal(d.Spans[0], &root)
		at := spans[0].OffsetNS
		for _, p := range d.CriticalPath {
			if p.FromNS != at || p.ToNS <= p.FromNS {
				t.Fatalf("seed %d: the path has a gap at %d: %+v", seed, at, d.CriticalPath)
			}
			at = p.ToNS
		}
		if at != spans[0].OffsetNS+root.DurationNS {
			t.Errorf("seed %d: the path ends at %d of %d", seed, at, root.DurationNS)
		}
	}
}

// A trace with more spans than are held says so, and keeps the first ones.
func TestLargeTrace(t *testing.T) {
	s, _ := newServer(t, func(b *Backend) { b.Store = openStore(t) })
	b := &event.Batch{Wall: now.UnixNano() - sec(60)}
	for i := range maxSpans + 100 {
		r := web(exchange(1+float64(i)/1000, 1, event.Client, shop, nginx, "10.0.0.1:1", "10.0.0.2:2", 0x77, 0, 1), "GET", "/", "/", 200)
		r.Trace.Span[0], r.Trace.Span[1] = byte(i>>8), byte(i)
		if i == 0 {
			r.Trace.Span = [8]byte{7: 1}
			r.Trace.Parent = [8]byte{}
		}
		b.Requests = append(b.Requests, r)
	}
	s.Store.Append(b)
	d := get[TraceDetail](t, s, "/api/v1/trace/"+strings.Repeat("77", 16))
	if d.Complete || len(d.Spans) != maxSpans || readSpans(t, d)[0].Orphan {
		t.Errorf("complete %v, %d spans", d.Complete, len(d.Spans))
	}
}

// The newest traces are found wherever they lie; each comes once.
func TestTraces(t *testing.T) {
	s, _ := newServer(t)
	b := &event.Batch{Wall: now.UnixNano() - sec(60)}
	for i := range 300 {
		r := web(exchange(-3000+float64(i)*10, float64(i%7)+1, event.Server, shop, nil, "10.0.0.1:1", "10.0.0.2:2", 0, 1, 0), "GET", "/", "/", 200)
		r.Trace.ID = [16]byte{0xaa, byte(i >> 8), byte(i)}
		child := r
		child.Trace.Span[7], child.Trace.Parent[7], child.Role = 2, 1, event.Client
		b.Requests = append(b.Requests, child, r)
	}
	s.Store.Append(b)
	for _, n := range []int{1, 3, 40, 250} {
		all := get[Traces](t, s, fmt.Sprintf("/api/v1/traces?last=%d", n))
		if len(all.Traces) != n || !all.Complete || all.Traces[0].TraceID != strings.Repeat("22", 16) {
			t.Fatalf("last=%d gives %d: %+v", n, len(all.Traces), all.Traces[0])
		}
		for i, one := range all.Traces[1:] {
			if one.Time.After(all.Traces[i].Time) || one.Spans == 1 && i > 2 {
				t.Errorf("%+v after %+v", one, all.Traces[i])
			}
		}
	}
	slowest := get[Traces](t, s, "/api/v1/traces?sort=slowest&last=5&since=2h&filter=path:/")
	for _, one := range slowest.Traces {
		if one.DurationNS != 7e6 || one.Spans != 2 {
			t.Errorf("%+v", one)
		}
	}
	if len(slowest.Traces) != 5 {
		t.Errorf("%d", len(slowest.Traces))
	}
}
