package query

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"runtime"
	"slices"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
)

// Request says which rows are wanted.
type Request struct {
	Kind         event.Kind
	Since, Until int64   // Unix nanoseconds, since <= time < until; 0 is open
	Filter       *Filter // nil: all
	Last         int     // Select: at most so many, the newest; default 1000
	// Count makes Select count all matching rows, also those older than the
	// ones it returns. Without it Select stops where no newer row can be.
	Count bool
}

// Result is what was found.
type Result struct {
	Rows    *segment.Rows // Select: the newest ones, oldest first; copies that stay
	Matched uint64        // rows that match; where Select stopped early, those it saw
	Scanned uint64        // rows that were looked at
	Lost    uint64        // rows of the time range known to be missing
	// Complete is false where rows of the range are missing: lost before they
	// came to the store, unreadable, or gone by retention.
	Complete bool
}

// Each calls fn for the matching rows, run by run in the order they came. rows
// and picks are valid during the call.
func Each(ctx context.Context, s *store.Snapshot, r Request, fn func(rows *segment.Rows, picks []int32) error) (Result, error) {
	schema := s.Schema(r.Kind)
	if schema == nil {
		return Result{}, ErrTable
	}
	sc := newScan(s, r)
	for _, source := range sc.sources {
		picks, err := sc.next(ctx, source)
		if err != nil {
			return sc.result, err
		}
		if len(picks) == 0 {
			continue
		}
		if err := fn(sc.rows, picks); err != nil {
			return sc.result, err
		}
	}
	return sc.result, nil
}

// scan goes over the runs of rows of a request.
type scan struct {
	request Request
	sources []segment.Source
	rows    *segment.Rows
	matcher matcher
	picks   []int32
	result  Result
}

func newScan(s *store.Snapshot, r Request) *scan {
	sc := &scan{request: r, sources: s.Sources(r.Kind), rows: segment.NewRows(s.Schema(r.Kind), nil)}
	sc.result.Lost = lostIn(s, r)
	sc.result.Complete = sc.result.Lost == 0
	if len(sc.sources) > 0 {
		first := sc.sources[0].Extent()
		if first.Seq > 0 && r.Since > 0 && r.Since < first.Oldest {
			sc.result.Complete = false // retention took some of what was asked for
		}
	}
	return sc
}

// next gives the matching rows of a source. One that cannot be read counts as
// lost; the rest of the answer is still worth having.
func (sc *scan) next(ctx context.Context, source segment.Source) ([]int32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	runtime.Gosched() // a scan must not hold up the goroutine that appends
	e := source.Extent()
	if e.Newest < sc.request.Since || sc.request.Until != 0 && e.Oldest >= sc.request.Until {
		return nil, nil
	}
	sc.rows.Reset(source)
	sc.result.Scanned += uint64(e.Len)
	picks, err := sc.matcher.run(sc.request.Filter, sc.rows, sc.request.Since, sc.request.Until, sc.picks)
	if err != nil {
		sc.unreadable(e.Len)
		return nil, nil
	}
	sc.picks = picks
	sc.result.Matched += uint64(len(picks))
	return picks, nil
}

func (sc *scan) unreadable(rows int) {
	sc.result.Lost += uint64(rows)
	sc.result.Complete = false
}

// lostIn sums the losses recorded in the time range.
func lostIn(s *store.Snapshot, r Request) (lost uint64) {
	schema := s.Schema(event.KindLost)
	if schema == nil || r.Kind == event.KindLost {
		return 0
	}
	count, ok := schema.Index["lost.count"]
	if !ok {
		return 0
	}
	var m matcher
	rows := segment.NewRows(schema, nil)
	for _, source := range s.Sources(event.KindLost) {
		if e := source.Extent(); e.Newest < r.Since || r.Until != 0 && e.Oldest >= r.Until {
			continue
		}
		rows.Reset(source)
		picks, err := m.run(nil, rows, r.Since, r.Until, nil)
		if err != nil {
			continue
		}
		for _, row := range picks {
			lost += uint64(max(0, rows.Int(count, int(row))))
		}
	}
	return lost
}

// chosen is a row among the newest.
type chosen struct {
	time   int64
	source int
	row    int32
}

// newest is a heap with the oldest of the newest rows on top.
type newest []chosen

func (h newest) Len() int           { return len(h) }
func (h newest) Less(i, j int) bool { return h[i].before(h[j]) }
func (h newest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *newest) Push(x any)        { *h = append(*h, x.(chosen)) }
func (h *newest) Pop() any          { panic("query: nothing is popped") }

func (c chosen) before(d chosen) bool {
	if c.time != d.time {
		return c.time < d.time
	}
	return cmp.Or(cmp.Compare(c.source, d.source), cmp.Compare(c.row, d.row)) < 0
}

// offer keeps c if it is among the newest n.
func (h *newest) offer(c chosen, n int) {
	switch {
	case len(*h) < n:
		heap.Push(h, c)
	case (*h)[0].before(c):
		(*h)[0] = c
		heap.Fix(h, 0)
	}
}

// Select returns copies of the newest matching rows, oldest first. It reads
// from the newest run back, and only the columns of the filter until it knows
// the rows.
func Select(ctx context.Context, s *store.Snapshot, r Request) (Result, error) {
	schema := s.Schema(r.Kind)
	if schema == nil {
		return Result{}, ErrTable
	}
	if r.Last <= 0 {
		r.Last = 1000
	}
	sc := newScan(s, r)
	var best newest
	latest := newestUpTo(sc.sources)
	for i := len(sc.sources) - 1; i >= 0; i-- {
		full := len(best) == r.Last
		if full && !r.Count && latest[i] < best[0].time {
			break
		}
		if full && r.Count && sc.countOnly(sc.sources[i].Extent(), best[0].time) {
			continue
		}
		picks, err := sc.next(ctx, sc.sources[i])
		if err != nil {
			return sc.result, err
		}
		if len(picks) == 0 || full && sc.rows.Newest < best[0].time {
			continue
		}
		v, err := sc.rows.Column(schema.Time)
		if err != nil {
			sc.unreadable(len(picks))
			continue
		}
		for _, row := range picks {
			best.offer(chosen{v.Ints[row], i, row}, r.Last)
		}
	}
	slices.SortFunc(best, func(a, b chosen) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	g := newGathered(schema, len(best))
	if err := g.gather(ctx, sc, best); err != nil {
		return sc.result, err
	}
	if n := len(best); n > 0 {
		g.extent.Oldest, g.extent.Newest = best[0].time, best[n-1].time
	}
	sc.result.Rows = segment.NewRows(schema, g)
	return sc.result, nil
}

// countOnly counts a run that lies in the time range as a whole and matches
// without being read.
func (sc *scan) countOnly(e segment.Extent, oldest int64) bool {
	r := &sc.request
	if !r.Filter.Empty() || e.Newest >= oldest || e.Oldest < r.Since || r.Until != 0 && e.Newest >= r.Until {
		return false
	}
	sc.result.Matched += uint64(e.Len)
	return true
}

// newestUpTo tells for each run the newest time in it and all before it.
func newestUpTo(sources []segment.Source) []int64 {
	all := make([]int64, len(sources))
	for i, s := range sources {
		all[i] = s.Extent().Newest
		if i > 0 {
			all[i] = max(all[i], all[i-1])
		}
	}
	return all
}

// gathered is rows copied from several runs.
type gathered struct {
	schema *segment.Schema
	extent segment.Extent
	ints   [][]int64
	codes  [][]uint32
	dicts  []segment.Dict
	index  []map[string]uint32
}

func newGathered(s *segment.Schema, n int) *gathered {
	columns := len(s.Table.Columns)
	g := &gathered{schema: s, ints: make([][]int64, columns), codes: make([][]uint32, columns)}
	g.dicts, g.index = make([]segment.Dict, columns), make([]map[string]uint32, columns)
	g.extent.Len = n
	for i := range columns {
		if s.IsInt(i) {
			g.ints[i] = make([]int64, n)
			continue
		}
		g.codes[i] = make([]uint32, n)
		g.dicts[i].Ends = []uint32{0}
		g.index[i] = map[string]uint32{}
	}
	return g
}

func (g *gathered) Extent() segment.Extent { return g.extent }

func (g *gathered) Bounds(int) (low, high int64, ok bool) { return 0, 0, false }

func (g *gathered) Column(i int, _ *segment.Buffer) (segment.Vector, error) {
	return segment.Vector{Ints: g.ints[i], Codes: g.codes[i], Dict: g.dicts[i]}, nil
}

// gather copies the rows, one run after the other, to their places.
func (g *gathered) gather(ctx context.Context, sc *scan, rows []chosen) error {
	if len(rows) == 0 {
		return nil
	}
	places := make([]int, len(rows))
	for i := range places {
		places[i] = i
	}
	slices.SortFunc(places, func(a, b int) int {
		return cmp.Or(cmp.Compare(rows[a].source, rows[b].source), cmp.Compare(rows[a].row, rows[b].row))
	})
	for len(places) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		source := rows[places[0]].source
		n := 1
		for n < len(places) && rows[places[n]].source == source {
			n++
		}
		sc.rows.Reset(sc.sources[source])
		g.copy(sc.rows, rows, places[:n])
		if sc.rows.Err() != nil {
			sc.result.Complete = false
		}
		places = places[n:]
	}
	return nil
}

func (g *gathered) copy(from *segment.Rows, rows []chosen, places []int) {
	for i := range g.ints {
		v, _ := from.Column(i) // the error stays in from
		if g.ints[i] != nil {
			for _, p := range places {
				g.ints[i][p] = v.Ints[rows[p].row]
			}
			continue
		}
		codes := map[uint32]uint32{}
		for _, p := range places {
			code := v.Codes[rows[p].row]
			to, ok := codes[code]
			if !ok {
				to = g.code(i, v.Dict.Cell(code))
				codes[code] = to
			}
			g.codes[i][p] = to
		}
	}
}

func (g *gathered) code(column int, cell []byte) uint32 {
	if len(cell) == 0 {
		return 0
	}
	if code, ok := g.index[column][string(cell)]; ok {
		return code
	}
	d := &g.dicts[column]
	code := uint32(len(d.Ends))
	d.Data = append(d.Data, cell...)
	d.Ends = append(d.Ends, uint32(len(d.Data)))
	g.index[column][string(bytes.Clone(cell))] = code
	return code
}

// Scanner goes over the matching rows at the pace of its caller.
type Scanner struct {
	scan *scan
	at   int
}

// NewScanner returns a scanner of a request, nil if there is no such table.
func NewScanner(s *store.Snapshot, r Request) *Scanner {
	if s.Schema(r.Kind) == nil {
		return nil
	}
	return &Scanner{scan: newScan(s, r)}
}

// Next returns matching rows, valid until the next call; none at the end.
func (s *Scanner) Next(ctx context.Context) (*segment.Rows, []int32, error) {
	for s.at < len(s.scan.sources) {
		source := s.scan.sources[s.at]
		s.at++
		picks, err := s.scan.next(ctx, source)
		if err != nil || len(picks) > 0 {
			return s.scan.rows, picks, err
		}
	}
	return nil, nil, nil
}

// Result tells about the rows seen so far.
func (s *Scanner) Result() Result { return s.scan.result }
