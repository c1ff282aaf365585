package api

import (
	"math/rand/v2"
	"testing"
	"time"

	"ghostlight/internal/event"
)

// Every request is in the one cell where it belongs.
func TestHeatmap(t *testing.T) {
	s, _ := newServer(t)
	h := get[Heatmap](t, s, "/api/v1/heatmap?since=1m&columns=60")
	var counts, errors uint32
	for i := range h.Counts {
		if len(h.Counts[i]) != len(h.BoundsNS) || len(h.Errors[i]) != len(h.BoundsNS) {
			t.Fatalf("step %d has %d rows, want %d", i, len(h.Counts[i]), len(h.BoundsNS))
		}
		for row, n := range h.Counts[i] {
			counts += n
			errors += h.Errors[i][row]
			if h.Errors[i][row] > n {
				t.Errorf("more errors than requests at %d, %d", i, row)
			}
		}
	}
	if counts != uint32(len(exchanges())) || errors != 4 || !h.Complete || h.StepNS != 1e9 {
		t.Errorf("%d requests, %d errors, step %d", counts, errors, h.StepNS)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 10000 {
		ns := random.Int64N(1 << (3 + random.IntN(60)))
		row := heatRow(ns)
		if row >= heatRows || ns >= heatBound(row) || ns >= 8 && ns < heatBound(row-1) {
			t.Fatalf("%d ns is in row %d, which ends at %d", ns, row, heatBound(row))
		}
	}
	if empty := get[Heatmap](t, s, "/api/v1/heatmap?filter=path:/nowhere"); len(empty.BoundsNS) != 0 || len(empty.Counts) != usualColumns {
		t.Errorf("%+v", empty)
	}
}

// changing is half an hour of a shop, with something else going wrong from
// minutes ago on for each of its routes.
func changing(t *testing.T, slow, failing, busy float64) *Server {
	t.Helper()
	s, _ := newServer(t, func(b *Backend) { b.Store = openStore(t) })
	b := &event.Batch{Wall: now.UnixNano()}
	random := rand.New(rand.NewPCG(5, 6))
	add := func(at, took float64, path string, status int32) {
		b.Requests = append(b.Requests, web(exchange(at, took, event.Server, shop, nginx, "10.0.0.5:6001", "10.0.0.9:8080", 0, 0, 0), "GET", path, path, status))
		if len(b.Requests) == 512 {
			s.Store.Append(b)
			b.Requests = b.Requests[:0]
		}
	}
	for i := range 3600 {
		at := float64(i)/2 - 1800
		took, status := 5+4*random.Float64(), int32(200)
		if i%60 == 0 {
			took = 50 // a slow one now and then is as usual
		}
		if at > -60*slow {
			took *= 20
		}
		add(at, took, "/pay", 200)
		if at > -60*failing && i%4 == 0 {
			status = 500
		}
		add(at, 1, "/buy", status)
		if i%2 == 0 {
			add(at, 1, "/list", 200)
		}
		for range 5 {
			if at > -60*busy {
				add(at, 1, "/list", 200)
			}
		}
	}
	s.Store.Append(b)
	return s
}

// What changed is told with its numbers and since when; a calm host is calm.
func TestOverview(t *testing.T) {
	if calm := get[Overview](t, changing(t, 0, 0, 0), "/api/v1/overview"); len(calm.Changes) != 0 || len(calm.Services) != 1 || !calm.Complete {
		t.Errorf("%+v", calm)
	}
	o := get[Overview](t, changing(t, 10, 6, 5), "/api/v1/overview")
	if len(o.Changes) != 3 {
		t.Fatalf("%+v", o.Changes)
	}
	for i, c := range []struct {
		what, route             string
		before, now, most, more float64
		since                   time.Duration
	}{
		{changedErrors, "GET /buy", 0, 0.2, 0.01, 0.3, 6 * time.Minute},
		{changedLatency, "GET /pay", 45e6, 150e6, 55e6, 1100e6, 10 * time.Minute},
		{changedRate, "GET /list", 0.9, 10, 1.1, 12, 5 * time.Minute},
	} {
		got := o.Changes[i]
		late := got.Since.Sub(now.Add(-c.since)).Abs()
		if got.What != c.what || got.Route != c.route || got.Service != "shop" || got.Before < c.before || got.Before > c.most || got.Now < c.now || got.Now > c.more || late > 65*time.Second {
			t.Errorf("%+v\nwant %+v, since %v", got, c, now.Add(-c.since))
		}
		t.Log(got.Sentence)
	}
}
