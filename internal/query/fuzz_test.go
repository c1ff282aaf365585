package query

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

// FuzzFilter parses arbitrary text, and runs what is a filter over a few rows.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"port:80,443 -service:x*", `command:"a b" tcp.rtt_ns>5ms`, "10.0.0.0/8 ::1", "-", "a:b:c", "bytes.sent>=-9223372036854775808", "attributes.x:*", "port:1-2-3", "source.port<-9223372036854775807",
		"status:5xx,error -status:ok", "slower:1ms faster=2s", "status:0x,999999999999xx", "trace:* route:/a/*"} {
		f.Add(s)
	}
	s := filled(f, 50)
	s.Append(&event.Batch{Wall: wall, Requests: []event.Request{{Family: event.HTTP, Status: 503, Error: "503", DurationNS: 5e6}, {Family: event.DB, Summary: "SELECT a"}}})
	snap := s.Snapshot()
	f.Cleanup(snap.Close)
	kinds := []event.Kind{event.KindFlow, event.KindRequest}
	f.Fuzz(func(t *testing.T, text string) {
		for _, k := range kinds {
			parseAndMatch(t, segment.NewRows(snap.Schema(k), snap.Sources(k)[0]), text)
		}
	})
}

func parseAndMatch(t *testing.T, rows *segment.Rows, text string) {
	schema := rows.Schema
	filter, err := Parse(schema, text)
	if err != nil {
		if syntax := err.(*SyntaxError); syntax.Offset < 0 || syntax.Offset > len(text) || syntax.Message == "" {
			t.Fatalf("%q: %+v", text, syntax)
		}
		return
	}
	picks, err := filter.Match(rows, nil)
	if err != nil || !slices.IsSorted(picks) || len(picks) > rows.Len {
		t.Fatalf("%q: %v %v", text, picks, err)
	}
	if again, err := Parse(schema, filter.String()); err != nil || len(again.terms) != len(filter.terms) {
		t.Fatalf("%q is not parsed again: %v", text, err)
	}
}

// TestHistogram compares quantiles with sorted values, and merging with adding.
func TestHistogram(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for round := range 200 {
		var h, a, b Histogram
		values := make([]int64, 1+r.IntN(3000))
		for i := range values {
			values[i] = int64(r.Uint64() >> (1 + r.IntN(63)))
			if round%3 == 0 && r.IntN(2) == 0 {
				values[i] = -values[i]
			}
			h.Add(values[i])
			if i%2 == 0 {
				a.Add(values[i])
			} else {
				b.Add(values[i])
			}
		}
		a.Merge(&b)
		slices.Sort(values)
		for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 1} {
			got, _ := h.Quantile(q)
			exact := values[max(1, int(math.Ceil(q*float64(len(values)))))-1]
			if diff := math.Abs(float64(got) - float64(exact)); diff > 0.032*math.Abs(float64(exact)) {
				t.Fatalf("q %g: %d, exactly %d", q, got, exact)
			}
			if merged, _ := a.Quantile(q); merged != got {
				t.Fatalf("q %g: merged %d, added %d", q, merged, got)
			}
		}
	}
	var h Histogram
	for _, v := range []int64{math.MaxInt64, math.MinInt64, 0, -1, 1} {
		h.Add(v)
	}
	if low, _ := h.Quantile(0); float64(low) > math.MinInt64*0.968 {
		t.Errorf("least: %d", low)
	}
	if high, _ := h.Quantile(1); high != math.MaxInt64 {
		t.Errorf("greatest: %d", high)
	}
}
