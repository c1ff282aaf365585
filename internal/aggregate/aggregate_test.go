package aggregate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"ghostlight/internal/event"
)

// A bucket's bounds hold what is in it, exactly at the powers of two too.
func TestIndex(t *testing.T) {
	for _, v := range []float64{1e-9, 0.001, 0.5, 1, 1.0000001, 2, 3, 1000, math.Exp2(5.0 / 16)} {
		i := indexOf(v)
		low, high := math.Exp2(float64(i)/16), math.Exp2(float64(i+1)/16)
		if v <= low*(1-1e-12) || v > high*(1+1e-12) {
			t.Errorf("%v is in (%v, %v]", v, low, high)
		}
	}
}

func TestQuantile(t *testing.T) {
	h := newHistogram(HTTPServer)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var all []float64
	for range 20000 {
		ns := int64(math.Exp(r.Float64()*18)) + 1
		h.Add(ns)
		all = append(all, float64(ns)/1e9)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999} {
		want := all[int(math.Ceil(q*float64(len(all))))-1]
		if got := h.Quantile(q); math.Abs(got-want)/want > 0.0221 {
			t.Errorf("seed %d: quantile %v is %v, want %v", seed, q, got, want)
		}
	}
	var classic, exponential uint64
	for _, n := range h.Classic {
		classic += n
	}
	for _, n := range h.Buckets {
		exponential += n
	}
	if classic != h.Count || exponential+h.Zero != h.Count {
		t.Errorf("%d, %d and %d durations", h.Count, classic, exponential)
	}
}

func requests() *event.Batch {
	shop, db := &event.Who{Service: "shop"}, &event.Who{Service: "postgres"}
	return &event.Batch{Requests: []event.Request{
		{Family: event.HTTP, Role: event.Server, Protocol: "http", Operation: "GET", Route: "/a/{id}", Status: 200, DurationNS: 2e6, Who: shop},
		{Family: event.HTTP, Role: event.Server, Protocol: "http", Operation: "GET", Route: "/a/{id}", Status: 200, DurationNS: 4e6, Who: shop},
		{Family: event.HTTP, Role: event.Server, Protocol: "http", Operation: "GET", Route: "/a/{id}", Status: 500, Error: "500", DurationNS: 4e6, Who: shop},
		{Family: event.DB, Role: event.Client, Protocol: "postgresql", System: "postgresql", Operation: "SELECT", Target: "users", DurationNS: 1e6, Who: shop, Peer: db, Destination: netip.MustParseAddrPort("10.0.0.1:5432")},
		{Family: event.DB, Role: event.Server, Protocol: "postgresql", System: "postgresql", Operation: "SELECT", Target: "users", DurationNS: 1e6, Who: db, Peer: shop},
	}}
}

func TestTable(t *testing.T) {
	tab := New(100)
	tab.Add(requests())
	found := map[string]uint64{}
	for _, s := range tab.Series() {
		found[fmt.Sprintf("%s %s %s %s %d %s %d", Infos[s.Metric].Name, s.Service, s.Operation, s.Target, s.Status, s.Peer, s.Port)] = s.Durations.Count
	}
	want := map[string]uint64{
		"http.server.request.duration shop GET /a/{id} 200  0":               2,
		"http.server.request.duration shop GET /a/{id} 500  0":               1,
		"db.client.operation.duration shop SELECT users 0 postgres 5432":     1,
		"ghostlight.db.server.operation.duration postgres SELECT users 0  0": 1,
	}
	if len(found) != len(want) {
		t.Errorf("%v", found)
	}
	for k, n := range want {
		if found[k] != n {
			t.Errorf("%s: %d, want %d in %v", k, found[k], n, found)
		}
	}
	edges := map[Edge]uint64{}
	for _, c := range tab.Calls() {
		edges[c.Edge] = c.AtServer.Durations.Count<<16 | c.AtClient.Durations.Count<<8 | c.Side().Failed
	}
	if edges[Edge{"", "shop", "http", ""}] != 3<<16|1 || edges[Edge{"shop", "postgres", "postgresql", "database"}] != 1<<16|1<<8 || len(edges) != 2 {
		t.Errorf("%v", edges)
	}
}

// What a reader got does not change any more.
func TestCopies(t *testing.T) {
	tab := New(10)
	tab.Add(requests())
	series, calls := tab.Series(), tab.Calls()
	tab.Add(requests())
	var n, edges uint64
	for _, s := range series {
		for _, k := range s.Durations.Classic {
			n += k
		}
	}
	for _, c := range calls {
		for _, k := range c.AtServer.Durations.Buckets {
			edges += k
		}
	}
	if n != 5 || edges != 4 {
		t.Errorf("%d requests and %d calls in copies of 5 and 4", n, edges)
	}
}

// What is beyond the bound is counted, in one series for each metric.
func TestOverflow(t *testing.T) {
	tab := New(10)
	b := requests()
	b.Requests = b.Requests[:1]
	for i := range 50 {
		b.Requests[0].Route = fmt.Sprint("/", i)
		tab.Add(b)
	}
	var series, total, over uint64
	for _, s := range tab.Series() {
		series++
		total += s.Durations.Count
		if s.Overflow {
			over += s.Durations.Count
		}
	}
	if series != 11 || total != 50 || over != 40 {
		t.Errorf("%d series of %d requests, %d of them beyond", series, total, over)
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	tab, b := New(100), requests()
	tab.Add(b)
	if n := testing.AllocsPerRun(100, func() { tab.Add(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Nor beyond the bound.
func TestOverflowDoesNotAllocate(t *testing.T) {
	tab, b := New(1), requests()
	tab.Add(b)
	if n := testing.AllocsPerRun(100, func() { tab.Add(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	tab, batch := New(100), requests()
	for b.Loop() {
		tab.Add(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch.Requests)), "ns/request")
}
