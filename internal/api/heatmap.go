package api

import (
	"math/bits"
	"net/http"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
)

// Heatmap is how long the requests of each step of time took. All counts are
// exact.
type Heatmap struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	StepNS int64     `json:"step_ns"`
	// BoundsNS are what the durations of each row stay below. Each row begins
	// where the one before it ends; there are four to an octave.
	BoundsNS []int64    `json:"bounds_ns"`
	Counts   [][]uint32 `json:"counts"` // by step, then by row
	Errors   [][]uint32 `json:"errors"` // of these, those that failed
	Complete bool       `json:"complete"`
}

const (
	usualColumns = 120
	maxColumns   = 1000
	heatRows     = 4 * 64
)

// heat is a heatmap being counted.
type heat struct {
	span
	counts, errors [][heatRows]uint32
	low, high      int // rows in use
}

func (s *Server) heatmap(w http.ResponseWriter, r *http.Request) error {
	sel, err := s.selection(r)
	if err != nil {
		return err
	}
	columns, err := count("columns", r.URL.Query().Get("columns"), usualColumns)
	if err != nil {
		return err
	}
	if columns < 1 || columns > maxColumns {
		return wrong(http.StatusBadRequest, "", "columns: %d is not between 1 and %d", columns, maxColumns)
	}
	sel = s.within(sel, requestWindow)
	q, err := s.request(event.KindRequest, sel)
	if err != nil {
		return err
	}
	snapshot := s.Store.Snapshot()
	defer snapshot.Close()
	h := &heat{
		span:   span{from: sel.since, until: sel.until, steps: columns},
		counts: make([][heatRows]uint32, columns), errors: make([][heatRows]uint32, columns), low: heatRows,
	}
	broken := false
	result, err := query.Each(r.Context(), snapshot, q, func(rows *segment.Rows, picks []int32) error {
		h.add(rows, picks)
		broken = broken || rows.Err() != nil
		return nil
	})
	if err != nil {
		return err
	}
	return answer(w, h.finish(result.Complete && !broken))
}

func (h *heat) add(rows *segment.Rows, picks []int32) {
	times, _ := rows.Column(rows.Schema.Time) // the caller looks at the error
	took, _ := rows.Column(rows.Schema.Index["duration_ns"])
	failures, _ := rows.Column(rows.Schema.Index["error.type"])
	for _, i := range picks {
		step, row := h.at(times.Ints[i]), heatRow(took.Ints[i])
		h.counts[step][row]++
		if failures.Codes[i] != 0 {
			h.errors[step][row]++
		}
		h.low, h.high = min(h.low, row), max(h.high, row+1)
	}
}

// heatRow places a duration: four rows to an octave.
func heatRow(ns int64) int {
	u := uint64(max(4, ns))
	octave := bits.Len64(u) - 1
	return 4*octave + int(u>>(octave-2))&3
}

// heatBound is the least duration beyond a row.
func heatBound(row int) int64 {
	octave := row / 4
	return int64(min(uint64(5+row%4)<<(octave-2), 1<<63-1))
}

func (h *heat) finish(complete bool) Heatmap {
	out := Heatmap{
		From: time.Unix(0, h.from).UTC(), To: time.Unix(0, h.until).UTC(), StepNS: h.step(),
		BoundsNS: []int64{}, Counts: make([][]uint32, h.steps), Errors: make([][]uint32, h.steps), Complete: complete,
	}
	low := min(h.low, h.high)
	for row := low; row < h.high; row++ {
		out.BoundsNS = append(out.BoundsNS, heatBound(row))
	}
	for i := range h.counts {
		out.Counts[i], out.Errors[i] = h.counts[i][low:h.high], h.errors[i][low:h.high]
	}
	return out
}
