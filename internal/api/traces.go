package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
)

// Traces is a list of traces.
type Traces struct {
	Traces   []TraceBrief `json:"traces"`
	Complete bool         `json:"complete"`
}

// TraceBrief is a trace in a line.
type TraceBrief struct {
	TraceID    string    `json:"trace_id"`
	Time       time.Time `json:"time"`
	DurationNS int64     `json:"duration_ns"`
	Root       TraceRoot `json:"root"`
	Services   []string  `json:"services"`
	Spans      int       `json:"spans"`
	Errors     int       `json:"errors"`   // spans that failed
	Inferred   bool      `json:"inferred"` // a parent was concluded, not told
	Complete   bool      `json:"complete"` // false where spans are missing or were not seen whole
}

// TraceRoot is the request that began a trace, or the first that was seen.
type TraceRoot struct {
	Service  string `json:"service"`
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Status   string `json:"status,omitempty"`
	Error    string `json:"error,omitempty"`
}

const (
	usualTraces   = 50
	maxTraces     = 1000
	maxListSpans  = 100000 // of all traces of a list together
	maxOfServices = 32     // names of a trace in a list
	// traceSlack is how far from the requests that match the others of their
	// traces are looked for.
	traceSlack = time.Minute
)

// The orders of a list of traces.
const (
	sortNewest  = "newest"
	sortSlowest = "slowest"
	sortErrors  = "errors"
)

// traces answers with the traces of which a request matches.
//
//	matching rows -> the best ids -> all rows of these ids -> one line each
func (s *Server) traces(w http.ResponseWriter, r *http.Request) error {
	sel, order, err := s.traceSelection(r)
	if err != nil {
		return err
	}
	q, err := s.request(event.KindRequest, sel)
	if err != nil {
		return err
	}
	if order == sortErrors {
		q.Filter.AddMatch(s.schema(q.Kind).Index["error.type"], false, func(cell []byte) bool { return len(cell) > 0 })
	}
	snapshot := s.Store.Snapshot()
	defer snapshot.Close()
	chosen, complete, err := chooseTraces(r.Context(), snapshot, q, order == sortSlowest, sel.last)
	if err != nil {
		return err
	}
	out, err := briefTraces(r.Context(), snapshot, chosen)
	if err != nil {
		return err
	}
	out.Complete = out.Complete && complete
	slices.SortFunc(out.Traces, func(a, b TraceBrief) int {
		if order == sortSlowest {
			return cmp.Or(-cmp.Compare(a.DurationNS, b.DurationNS), -a.Time.Compare(b.Time), cmp.Compare(a.TraceID, b.TraceID))
		}
		return cmp.Or(-a.Time.Compare(b.Time), cmp.Compare(a.TraceID, b.TraceID))
	})
	return answer(w, out)
}

func (s *Server) traceSelection(r *http.Request) (sel selection, order string, err error) {
	if sel, err = s.selection(r); err != nil {
		return sel, "", err
	}
	values, err := parseQuery(r)
	if err != nil {
		return sel, "", err
	}
	switch order = firstOf(values.Get("sort"), sortNewest); order {
	case sortNewest, sortErrors:
	case sortSlowest:
		sel = s.within(sel, requestWindow)
	default:
		return sel, "", wrong(http.StatusBadRequest, "write newest, slowest or errors", "sort: %.80q is no order", order)
	}
	if sel.until == 0 {
		sel.until = s.now().UnixNano()
	}
	switch {
	case sel.last < 0:
		sel.last = usualTraces
	case sel.last == 0:
		sel.last = maxTraces
	case sel.last > maxTraces:
		return sel, "", wrong(http.StatusBadRequest, "", "last: no more than %d traces at a time", maxTraces)
	}
	return sel, order, nil
}

// chosenTrace is an id, how much it is wanted, and when it was seen.
type chosenTrace struct {
	id            string
	score         int64
	oldest, until int64
}

// ranking keeps the ids with the highest scores. What it lets go can come back
// only with a score that is higher than all it has.
type ranking struct {
	n    int
	byID map[string]*chosenTrace
}

func (k *ranking) offer(id []byte, score, at, end int64) {
	c := k.byID[string(id)]
	if c == nil {
		c = &chosenTrace{id: string(id), score: score, oldest: at, until: end}
		k.byID[c.id] = c
		if len(k.byID) >= 4*k.n+64 {
			k.best()
		}
		return
	}
	c.score, c.oldest, c.until = max(c.score, score), min(c.oldest, at), max(c.until, end)
}

// best returns the best ones and lets go of the others.
func (k *ranking) best() []*chosenTrace {
	all := make([]*chosenTrace, 0, len(k.byID))
	for _, c := range k.byID {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *chosenTrace) int { return cmp.Or(-cmp.Compare(a.score, b.score), cmp.Compare(a.id, b.id)) })
	for _, c := range all[min(k.n, len(all)):] {
		delete(k.byID, c.id)
	}
	return all[:min(k.n, len(all))]
}

// firstLook is how far back the newest traces are looked for first; each time
// they are too few, it is so many times as far.
const (
	firstLook = 10 * time.Second
	lookMore  = 8
)

// chooseTraces finds the n traces with the newest or the slowest request that
// matches.
func chooseTraces(ctx context.Context, snapshot *store.Snapshot, q query.Request, slowest bool, n int) ([]*chosenTrace, bool, error) {
	oldest := q.Since
	if sources := snapshot.Sources(q.Kind); len(sources) > 0 {
		oldest = max(oldest, sources[0].Extent().Oldest)
	}
	for back := int64(firstLook); ; back *= lookMore {
		part := q
		if part.Since = q.Until - back; slowest || part.Since <= oldest || back > int64(1e18) {
			part.Since = q.Since
		}
		k := ranking{n: n, byID: map[string]*chosenTrace{}}
		result, err := query.Each(ctx, snapshot, part, func(rows *segment.Rows, picks []int32) error {
			c := cells{rows: rows, schema: rows.Schema}
			for _, i := range picks {
				c.row = int(i)
				id := c.text("trace.trace_id")
				if len(id) == 0 {
					continue
				}
				at, took := c.number("time"), max(0, c.number("duration_ns"))
				score := at
				if slowest {
					score = took
				}
				k.offer(id, score, at, at+took)
			}
			return nil
		})
		if err != nil || part.Since == q.Since || len(k.byID) >= n {
			return k.best(), result.Complete, err
		}
	}
}

// traceDraft is a trace being summed up.
type traceDraft struct {
	TraceBrief
	begin, end int64
	root       rootRank
	spans      map[string]struct{}
	parents    []string
	whole      bool
}

// rootRank orders spans by how much they look like a root.
type rootRank struct {
	hasParent   bool
	start, took int64
	set         bool
}

func (r rootRank) before(o rootRank) bool {
	if !o.set || r.hasParent != o.hasParent {
		return !o.set || !r.hasParent
	}
	return r.start < o.start || r.start == o.start && r.took > o.took
}

// briefTraces reads all rows of the chosen traces and sums them up.
func briefTraces(ctx context.Context, snapshot *store.Snapshot, chosen []*chosenTrace) (Traces, error) {
	out := Traces{Traces: []TraceBrief{}, Complete: true}
	if len(chosen) == 0 {
		return out, nil
	}
	drafts := map[string]*traceDraft{}
	from, until := chosen[0].oldest, chosen[0].until
	for _, c := range chosen {
		drafts[c.id] = &traceDraft{TraceBrief: TraceBrief{TraceID: c.id, Services: []string{}}, spans: map[string]struct{}{}, whole: true}
		from, until = min(from, c.oldest), max(until, c.until)
	}
	schema := snapshot.Schema(event.KindRequest)
	f := query.NewFilter(schema)
	f.AddMatch(schema.Index["trace.trace_id"], false, func(cell []byte) bool { return drafts[string(cell)] != nil })
	q := query.Request{Kind: event.KindRequest, Since: from - int64(traceSlack), Until: until + int64(traceSlack), Filter: f}
	spans := 0
	result, err := query.Each(ctx, snapshot, q, func(rows *segment.Rows, picks []int32) error {
		for _, i := range picks {
			if spans++; spans > maxListSpans {
				out.Complete = false
				return nil
			}
			c := cells{rows, schema, int(i)}
			drafts[string(c.text("trace.trace_id"))].add(c)
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	for _, d := range drafts {
		if d.Spans > 0 {
			out.Traces = append(out.Traces, d.finish())
		}
	}
	out.Complete = out.Complete && result.Complete
	return out, nil
}

func (d *traceDraft) add(c cells) {
	start, took := c.number("time"), max(0, c.number("duration_ns"))
	id, parent := c.text("trace.span_id"), c.text("trace.parent_span_id")
	d.spans[string(id)] = struct{}{}
	if len(parent) > 0 {
		d.parents = append(d.parents, string(parent))
	}
	if d.Spans == 0 || start < d.begin {
		d.begin = start
	}
	d.end = max(d.end, start+took)
	d.Spans++
	if len(c.text("error.type")) > 0 {
		d.Errors++
	}
	d.Inferred = d.Inferred || c.number("trace.inferred") != 0
	d.whole = d.whole && c.number("complete") != 0
	service := c.text("service.name")
	if len(service) > 0 && len(d.Services) < maxOfServices && !slices.Contains(d.Services, string(service)) {
		d.Services = append(d.Services, string(service))
	}
	if rank := (rootRank{len(parent) > 0, start, took, true}); rank.before(d.root) {
		d.root = rank
		d.Root = TraceRoot{
			Service: firstOf(string(service), string(c.text("process.executable.name"))), Protocol: string(c.text("protocol")),
			Name:   spanName(func(column string) string { return string(c.text(column)) }),
			Status: statusOf(c), Error: string(c.text("error.type")),
		}
	}
}

// finish completes the line. Beyond the first span's, a parent that is not there
// means that spans are missing.
func (d *traceDraft) finish() TraceBrief {
	missing := map[string]bool{}
	for _, parent := range d.parents {
		if _, there := d.spans[parent]; !there {
			missing[parent] = true
		}
	}
	allowed := 0
	if d.root.hasParent {
		allowed = 1
	}
	d.Complete = d.whole && len(missing) <= allowed
	d.Time, d.DurationNS = time.Unix(0, d.begin).UTC(), d.end-d.begin
	slices.Sort(d.Services)
	return d.TraceBrief
}
