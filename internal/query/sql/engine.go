package sql

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
)

// Limits bound what one query may use. Zero values take the defaults.
type Limits struct {
	Time    time.Duration // default 10 s
	Scanned uint64        // rows looked at by SQLite; default 20 million
	Rows    int           // rows of the answer; default 10,000: what is more is cut, and the answer not complete
	Bytes   int           // text of the answer; default 16 MiB, cut likewise
	Groups  int           // groups kept in memory; default 50,000: more are sorted on disk by SQLite
	Queries int           // that run at a time; default 1, with four CPUs 2
}

func (l Limits) withDefaults() Limits {
	if l.Time <= 0 {
		l.Time = 10 * time.Second
	}
	if l.Scanned == 0 {
		l.Scanned = 20_000_000
	}
	if l.Rows <= 0 {
		l.Rows = 10_000
	}
	if l.Bytes <= 0 {
		l.Bytes = 16 << 20
	}
	if l.Groups <= 0 {
		l.Groups = 50_000
	}
	if l.Queries <= 0 {
		l.Queries = 1
		if runtime.NumCPU() >= 4 {
			l.Queries = 2
		}
	}
	return l
}

// Error is what is wrong with a statement, or that it met a limit.
type Error struct {
	Message string
	Hint    string // empty if there is none
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "; " + e.Hint
}

// Column is a column of an answer. Type is time (its values are RFC 3339
// text), duration (nanoseconds), integer, real, boolean or text.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Result is an answer without its rows.
type Result struct {
	Columns  []Column
	Rows     int
	Complete bool
	Scanned  uint64
	Duration time.Duration
	Plan     string // native or sqlite
}

// Engine answers statements over one store.
type Engine struct {
	store  *store.Store
	limits Limits
	turn   chan struct{}
	now    func() time.Time
	plain  bool // tests: never native
}

// New returns an engine.
func New(s *store.Store, l Limits) *Engine {
	l = l.withDefaults()
	return &Engine{store: s, limits: l, turn: make(chan struct{}, l.Queries), now: time.Now}
}

// Query answers one SELECT. columns is called once, before the first row; the
// values of a row are int64, float64, bool, string or nil and are valid during
// the call.
func (e *Engine) Query(ctx context.Context, statement string, columns func([]Column) error, row func(values []any) error) (*Result, error) {
	begun := e.now()
	ctx, cancel := context.WithTimeoutCause(ctx, e.limits.Time, &Error{
		Message: fmt.Sprintf("the query ran longer than %s", e.limits.Time), Hint: "ask for less: time > ago('15m'), or a filter",
	})
	defer cancel()
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	snap := e.store.Snapshot()
	defer snap.Close()
	q := &run{ctx: ctx, snap: snap, limits: e.limits, onColumns: columns, onRow: row, result: Result{Complete: true}}
	err := e.answer(q, statement, begun)
	q.result.Duration = e.now().Sub(begun)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return &q.result, nil
}

func (e *Engine) answer(q *run, statement string, begun time.Time) error {
	all, err := tokens(statement)
	if err != nil {
		return err
	}
	if err := readOnly(all); err != nil {
		return err
	}
	statement, err = rewrite(statement, all, namesOf(q.snap.Schemas()), begun.UnixNano())
	if err != nil {
		return err
	}
	all, err = tokens(statement)
	if err != nil {
		return err
	}
	if p := recognise(all, q.snap.Schemas()); p != nil && !e.plain {
		q.result.Plan = "native"
		err := q.native(p)
		if !errors.Is(err, query.ErrGroups) && !errors.Is(err, query.ErrOverflow) {
			return err
		}
		q.reset()
	}
	q.result.Plan = "sqlite"
	return q.sqlite(statement, all)
}

// readOnly refuses everything but one statement that reads.
func readOnly(all []token) error {
	first := all[0]
	if first.kind == end {
		return &Error{Message: "the statement is empty", Hint: "try: select * from flows order by time desc limit 10"}
	}
	if !first.is("select") && !first.is("with") && !first.is("values") && !first.is("explain") {
		return &Error{Message: fmt.Sprintf("only SELECT is possible, not %s", strings.ToUpper(first.text))}
	}
	for i, t := range all {
		if t.is(";") && all[i+1].kind != end {
			return &Error{Message: "one statement at a time, please"}
		}
	}
	return nil
}

// run is one query on its way.
type run struct {
	ctx       context.Context
	snap      *store.Snapshot
	limits    Limits
	onColumns func([]Column) error
	onRow     func([]any) error
	result    Result
	bytes     int
	err       error // of a scan inside of SQLite
}

func (q *run) reset() { q.result = Result{Complete: true} }

// errEnough ends a scan whose answer is as long as it may be.
var errEnough = errors.New("enough rows")

func (q *run) columns(c []Column) error {
	q.result.Columns = c
	if q.onColumns == nil {
		return nil
	}
	return q.onColumns(c)
}

// row hands out a row, or says that there are enough.
func (q *run) row(values []any) error {
	if q.result.Rows >= q.limits.Rows || q.bytes > q.limits.Bytes {
		q.result.Complete = false
		return errEnough
	}
	q.result.Rows++
	for i, v := range values {
		values[i] = q.output(i, v)
	}
	return q.onRow(values)
}

// output gives a value the form its column's type asks for.
func (q *run) output(i int, v any) any {
	switch v := v.(type) {
	case string:
		q.bytes += len(v)
	case []byte:
		q.bytes += len(v)
		return string(v)
	case int64:
		switch q.result.Columns[i].Type {
		case "time":
			return time.Unix(0, v).UTC().Format(time.RFC3339Nano)
		case "boolean":
			return v != 0
		}
	}
	return v
}

func typeName(t event.Type) string {
	switch t {
	case event.Time:
		return "time"
	case event.Duration:
		return "duration"
	case event.Int:
		return "integer"
	case event.Bool:
		return "boolean"
	}
	return "text"
}

// value is a cell as SQL has it: int64, string or nil. Lists and maps are JSON.
func value(r *segment.Rows, column, row int) any {
	t := r.Schema.Table.Columns[column].Type
	if segment.IsInt(t) {
		if n := r.Int(column, row); n != event.Null {
			return n
		}
		return nil
	}
	return textValue(t, r.Bytes(column, row))
}

func textValue(t event.Type, cell []byte) any {
	switch {
	case len(cell) == 0:
		return nil
	case t == event.Strings:
		return string(segment.AppendList(nil, cell))
	case t == event.Map:
		return string(segment.AppendMap(nil, cell))
	}
	return string(cell)
}
