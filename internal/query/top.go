package query

import (
	"context"
	"slices"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
)

// NewFilter returns a filter without conditions, for what builds its own.
func NewFilter(s *segment.Schema) *Filter { return &Filter{schema: s} }

// Span is a range of numbers, both ends included.
type Span struct{ Low, High int64 }

// Some is every number.
var Some = Span{event.Null + 1, 1<<63 - 1}

// AddSpans asks that a number column lies in one of the spans.
func (f *Filter) AddSpans(column int, negate bool, spans ...Span) {
	t := term{negate: negate}
	for _, s := range spans {
		t.tests = append(t.tests, test{column: column, low: s.Low, high: s.High})
	}
	f.terms = append([]term{t}, f.terms...)
}

// AddMatch asks that a string column's cell matches; an absent one is empty.
func (f *Filter) AddMatch(column int, negate bool, match func(cell []byte) bool) {
	f.terms = append(f.terms, term{negate: negate, tests: []test{{column: column, match: match}}})
}

// AddEqual asks that a string column's cell is want, which is not empty.
func (f *Filter) AddEqual(column int, want string) {
	match := func(cell []byte) bool { return string(cell) == want }
	f.terms = append(f.terms, term{tests: []test{{column: column, match: match, equal: []byte(want)}}})
}

// Top returns copies of the first n matching rows in the order of a number
// column; equal ones stay in the order they came, absent ones are the least.
func Top(ctx context.Context, s *store.Snapshot, r Request, column int, descending bool, n int) (Result, error) {
	schema := s.Schema(r.Kind)
	if schema == nil {
		return Result{}, ErrTable
	}
	sc := newScan(s, r)
	var best newest
	for k := range sc.sources {
		i := k
		if descending && column == schema.Time {
			i = len(sc.sources) - 1 - k // what is wanted is more likely at the end
		}
		e := sc.sources[i].Extent()
		if len(best) == n && column == schema.Time && !better(e, descending, best[0].time) {
			continue
		}
		picks, err := sc.next(ctx, sc.sources[i])
		if err != nil {
			return sc.result, err
		}
		if len(picks) == 0 {
			continue
		}
		v, err := sc.rows.Column(column)
		if err != nil {
			sc.unreadable(len(picks))
			continue
		}
		for _, row := range picks {
			rank := v.Ints[row]
			if !descending {
				rank = ^rank
			}
			if len(best) < n || rank >= best[0].time {
				best.offer(chosen{rank, -i, -row}, n)
			}
		}
	}
	slices.SortFunc(best, func(a, b chosen) int {
		if b.before(a) {
			return -1
		}
		return 1
	})
	for i := range best {
		best[i] = chosen{best[i].time, -best[i].source, -best[i].row}
	}
	g := newGathered(schema, len(best))
	if err := g.gather(ctx, sc, best); err != nil {
		return sc.result, err
	}
	sc.result.Rows = segment.NewRows(schema, g)
	return sc.result, nil
}

// better tells whether a run may have a row that ranks higher than the least.
func better(e segment.Extent, descending bool, least int64) bool {
	if descending {
		return e.Newest >= least
	}
	return ^e.Oldest >= least
}
