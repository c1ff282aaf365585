package api

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
)

// TraceDetail is everything that one request caused, as far as it was seen.
type TraceDetail struct {
	TraceID      string     `json:"trace_id"`
	Time         time.Time  `json:"time"` // when the first span began
	DurationNS   int64      `json:"duration_ns"`
	Spans        []Span     `json:"spans"` // a parent comes before its children, siblings in the order they began
	Services     []string   `json:"services"`
	CriticalPath []PathPart `json:"critical_path"`
	Complete     bool       `json:"complete"` // false where spans are missing or were not seen whole
}

// Span is a row of requests, as JSON, with its place in the trace.
type Span = json.RawMessage

// spanPlace is what a Span has beyond the row.
type spanPlace struct {
	Name     string `json:"name"`
	OffsetNS int64  `json:"offset_ns"` // from the beginning of the trace
	Depth    int    `json:"depth"`
	SelfNS   int64  `json:"self_ns"` // in which none of its children ran
	Critical bool   `json:"critical"`
	Orphan   bool   `json:"orphan,omitempty"` // its parent is not stored
}

// PathPart is time of the trace that would have to get shorter for the whole to
// do so, and the span that spent it.
type PathPart struct {
	SpanID string `json:"span_id"`
	FromNS int64  `json:"from_ns"`
	ToNS   int64  `json:"to_ns"`
}

const maxSpans = 5000 // of one trace

// lookBack is how long before the newest request of a trace the others are
// looked for: the second span of time if the first leaves parents missing.
var lookBack = [...]time.Duration{time.Minute, 10 * time.Minute}

// trace answers with one trace.
//
//	newest row of the id -> rows of the id before it -> tree -> critical path
func (s *Server) trace(w http.ResponseWriter, r *http.Request) error {
	sel, err := s.selection(r)
	if err != nil {
		return err
	}
	id := strings.ToLower(r.PathValue("id"))
	snapshot := s.Store.Snapshot()
	defer snapshot.Close()
	f := query.NewFilter(s.schema(event.KindRequest))
	f.AddEqual(s.schema(event.KindRequest).Index["trace.trace_id"], id)
	q := query.Request{Kind: event.KindRequest, Since: sel.since, Until: sel.until, Filter: f, Last: 1}
	found, err := query.Select(r.Context(), snapshot, q) // reads from the newest row back, and no further than it must
	if err != nil {
		return err
	}
	if found.Rows.Len == 0 {
		return wrong(http.StatusNotFound, "it may be older than what is kept; /api/v1/traces lists those that are there", "no request of trace %.80q is stored", id)
	}
	newest := found.Rows.Newest
	for _, back := range lookBack {
		q.Since, q.Until = max(sel.since, newest-int64(back)), newest+1
		t, err := gatherTrace(r.Context(), snapshot, q)
		if err != nil {
			return err
		}
		if back == lookBack[len(lookBack)-1] || q.Since == sel.since || !t.lacksParents() {
			return answer(w, t.detail(id))
		}
	}
	return nil
}

// spanTree is the spans of a trace.
type spanTree struct {
	rows     *segment.Rows
	schema   *segment.Schema
	spans    []spanNode // by time
	roots    []int
	order    []int // a parent before its children
	complete bool
}

type spanNode struct {
	id, parent string
	start, end int64
	isServer   bool
	children   []int
	spanPlace
	path []PathPart
}

// gatherTrace reads the rows of a trace, the first ones if there are too many.
func gatherTrace(ctx context.Context, snapshot *store.Snapshot, q query.Request) (*spanTree, error) {
	schema := snapshot.Schema(q.Kind)
	result, err := query.Top(ctx, snapshot, q, schema.Time, false, maxSpans)
	if err != nil {
		return nil, err
	}
	t := &spanTree{rows: result.Rows, schema: schema, complete: result.Complete && result.Matched <= maxSpans}
	t.read()
	t.link()
	for _, root := range t.roots {
		t.walk(root, 0)
	}
	t.measure()
	return t, nil
}

func (t *spanTree) read() {
	for i := range t.rows.Len {
		c := cells{t.rows, t.schema, i}
		start := c.number("time")
		n := spanNode{
			id: string(c.text("trace.span_id")), parent: string(c.text("trace.parent_span_id")),
			start: start, end: start + max(0, c.number("duration_ns")), isServer: string(c.text("role")) == event.Server.String(),
		}
		n.Name = spanName(func(column string) string { return string(c.text(column)) })
		t.complete = t.complete && c.number("complete") != 0
		t.spans = append(t.spans, n)
	}
}

// link finds each span's parent. Those without one are roots, and so is one of
// each circle, which only a wrong header can make.
func (t *spanTree) link() {
	byID := map[string]int{}
	for i, n := range t.spans {
		if _, taken := byID[n.id]; !taken && n.id != "" {
			byID[n.id] = i
		}
	}
	up := make([]int, len(t.spans))
	for i := range t.spans {
		n := &t.spans[i]
		parent, known := byID[n.parent]
		up[i] = -1
		switch {
		case known && parent != i:
			up[i] = parent
		case n.parent != "":
			n.Orphan = true
		}
	}
	for i := range t.spans {
		if circles(up, i) {
			up[i], t.spans[i].Orphan = -1, true
		}
		if up[i] < 0 {
			t.roots = append(t.roots, i)
		} else {
			t.spans[up[i]].children = append(t.spans[up[i]].children, i)
		}
	}
}

// circles tells whether a span is above itself.
func circles(up []int, i int) bool {
	at := up[i]
	for range up {
		if at < 0 {
			return false
		}
		if at == i {
			return true
		}
		at = up[at]
	}
	return false
}

func (t *spanTree) walk(i, depth int) {
	t.spans[i].Depth = depth
	t.order = append(t.order, i)
	for _, child := range t.spans[i].children {
		t.walk(child, depth+1)
	}
}

// lacksParents tells whether a span's parent is not there. That of the first
// span may lie on another host.
func (t *spanTree) lacksParents() bool {
	return slices.ContainsFunc(t.spans, func(n spanNode) bool { return n.Orphan })
}

// measure works out each span's own time, and the critical path of the first
// root.
func (t *spanTree) measure() {
	if len(t.spans) == 0 {
		return
	}
	begin := t.spans[0].start
	for i := range t.spans {
		n := &t.spans[i]
		n.OffsetNS = n.start - begin
		n.SelfNS = t.self(n)
	}
	root := t.roots[0]
	t.block(root, t.spans[root].start, t.spans[root].end)
	for i := range t.spans {
		t.spans[i].Critical = len(t.spans[i].path) > 0
	}
}

// self is the time in which no child of a span ran. Children are in the order
// they began.
func (t *spanTree) self(n *spanNode) int64 {
	busy, until := int64(0), n.start
	for _, i := range n.children {
		child := &t.spans[i]
		from, to := max(child.start, until), min(child.end, n.end)
		if to > from {
			busy += to - from
			until = to
		}
	}
	return n.end - n.start - busy
}

// block walks back from the moment a span had to be done. The child that ended
// last before it is what the span waited for; then the one that ended last
// before that one began, and so on. A child that went on longer held nobody up;
// but a server, the other end of the same exchange, may seem to end after its
// client, for it is told later that its bytes are on their way.
func (t *spanTree) block(i int, from, until int64) {
	n := &t.spans[i]
	from = max(from, n.start)
	children := slices.Clone(n.children)
	slices.SortStableFunc(children, func(a, b int) int { return -cmp.Compare(t.spans[a].end, t.spans[b].end) })
	for _, c := range children {
		child := &t.spans[c]
		end := child.end
		if !n.isServer && child.isServer {
			end = min(end, until)
		}
		if end > until || end <= from || child.start >= until {
			continue
		}
		t.spent(n, end, until)
		t.block(c, from, end)
		until = max(child.start, from)
	}
	t.spent(n, from, until)
}

func (t *spanTree) spent(n *spanNode, from, to int64) {
	if to > from {
		begin := t.spans[0].start
		n.path = append(n.path, PathPart{SpanID: n.id, FromNS: from - begin, ToNS: to - begin})
	}
}

// detail turns the tree into an answer.
func (t *spanTree) detail(id string) TraceDetail {
	begin := t.spans[0].start
	d := TraceDetail{TraceID: id, Time: time.Unix(0, begin).UTC(), Spans: []Span{}, Services: []string{}, CriticalPath: []PathPart{}, Complete: t.complete}
	for _, i := range t.order {
		n := &t.spans[i]
		d.DurationNS = max(d.DurationNS, n.end-begin)
		d.Spans = append(d.Spans, t.json(i))
		d.CriticalPath = append(d.CriticalPath, n.path...)
		if own := string(t.rows.Bytes(t.schema.Index["service.name"], i)); own != "" && !slices.Contains(d.Services, own) {
			d.Services = append(d.Services, own)
		}
		if n.Orphan && i != t.roots[0] {
			d.Complete = false
		}
	}
	slices.SortFunc(d.CriticalPath, func(a, b PathPart) int { return cmp.Compare(a.FromNS, b.FromNS) })
	return d
}

// json is the row with the span's place added to it.
func (t *spanTree) json(i int) Span {
	row := t.rows.AppendJSON(nil, i)
	place, _ := json.Marshal(t.spans[i].spanPlace) // it always can
	return append(append(row[:len(row)-1], ','), place[1:]...)
}

// statusOf is the protocol's own word for how a request went.
func statusOf(c cells) string {
	if c.has("http.response.status_code") {
		return strconv.FormatInt(c.number("http.response.status_code"), 10)
	}
	return firstOf(string(c.text("rpc.response.status_code")), string(c.text("db.response.status_code")), string(c.text("dns.response.code")))
}
