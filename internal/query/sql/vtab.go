package sql

import (
	"database/sql/driver"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"modernc.org/sqlite/vtab"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
)

// module is one table for SQLite. It is bound to one query: to its snapshot,
// its context and its limits.
type module struct {
	q       *run
	schema  *segment.Schema
	collate bool // the statement names a collation: text is not compared here
}

// Declared types: names that give the affinity wanted and tell our own type.
var declared = map[event.Type]string{
	event.Int: "INTEGER", event.Time: "INT_TIME", event.Duration: "INT_DURATION", event.Bool: "INT_BOOLEAN",
	event.String: "TEXT", event.Strings: "TEXT", event.Map: "TEXT",
}

var typeOfDeclared = map[string]string{"INTEGER": "integer", "INT_TIME": "time", "INT_DURATION": "duration", "INT_BOOLEAN": "boolean", "TEXT": "text"}

func (m *module) Create(ctx vtab.Context, args []string) (vtab.Table, error) {
	return m.Connect(ctx, args)
}

func (m *module) Connect(ctx vtab.Context, _ []string) (vtab.Table, error) {
	columns := make([]string, len(m.schema.SQL))
	for i, name := range m.schema.SQL {
		columns[i] = strconv.Quote(name) + " " + declared[m.schema.Table.Columns[i].Type]
	}
	return &virtual{m}, ctx.Declare("CREATE TABLE x(" + strings.Join(columns, ", ") + ")")
}

type virtual struct{ *module }

func (t *virtual) Disconnect() error { return nil }
func (t *virtual) Destroy() error    { return nil }

// BestIndex takes the comparisons the store can make. SQLite checks each row
// again (Omit stays false), so that what is taken only has to let enough
// through: affinities, fractions and the like cannot make an answer wrong.
func (t *virtual) BestIndex(info *vtab.IndexInfo) error {
	var taken []string
	rows := 1e6
	for i := range info.Constraints {
		c := &info.Constraints[i]
		c.ArgIndex = -1
		if !c.Usable || !t.takes(c.Column, c.Op) {
			continue
		}
		c.ArgIndex = len(taken)
		taken = append(taken, fmt.Sprintf("%d:%d", c.Column, c.Op))
		if c.Op == vtab.OpEQ {
			rows /= 50
		} else {
			rows /= 3
		}
	}
	info.IdxStr = strings.Join(taken, " ")
	info.EstimatedRows = int64(max(rows, 1))
	info.EstimatedCost = 1e5 + rows // every scan costs, whatever it finds
	return nil
}

func (t *virtual) takes(column int, op vtab.ConstraintOp) bool {
	if column < 0 || column >= len(t.schema.SQL) {
		return false
	}
	switch op {
	case vtab.OpEQ:
		kind := t.schema.Table.Columns[column].Type
		return segment.IsInt(kind) || kind == event.String && !t.collate
	case vtab.OpGT, vtab.OpGE, vtab.OpLT, vtab.OpLE:
		return t.schema.IsInt(column)
	}
	return false
}

func (t *virtual) Open() (vtab.Cursor, error) { return &cursor{table: t}, nil }

// cursor goes over the rows of a table.
type cursor struct {
	table   *virtual
	scanner *query.Scanner
	rows    *segment.Rows
	picks   []int32
	at      int
	steps   int
	seen    uint64
	boxed   [][]driver.Value // by column and code: strings made once
}

// Filter begins a scan.
func (c *cursor) Filter(_ int, taken string, values []vtab.Value) error {
	schema := c.table.schema
	request := query.Request{Kind: schema.Table.Kind, Filter: query.NewFilter(schema)}
	nothing := false
	for i, one := range strings.Fields(taken) {
		if i >= len(values) {
			break
		}
		column, op, _ := strings.Cut(one, ":")
		n, _ := strconv.Atoi(column)
		code, _ := strconv.Atoi(op)
		nothing = nothing || !narrow(&request, schema, n, vtab.ConstraintOp(code), values[i])
	}
	c.rows, c.picks, c.at, c.seen = nil, nil, 0, 0
	if nothing {
		return nil
	}
	c.scanner = query.NewScanner(c.table.q.snap, request)
	return c.load()
}

var operators = map[vtab.ConstraintOp]string{vtab.OpEQ: "=", vtab.OpGT: ">", vtab.OpGE: ">=", vtab.OpLT: "<", vtab.OpLE: "<="}

// narrow adds a comparison to a request. It is false where no row can match.
func narrow(request *query.Request, schema *segment.Schema, column int, op vtab.ConstraintOp, v driver.Value) bool {
	if v == nil {
		return false // nothing equals NULL, nor is it more or less
	}
	if !schema.IsInt(column) {
		if s, ok := v.(string); ok && s != "" {
			request.Filter.AddEqual(column, s)
		}
		return true
	}
	n, ok := asNumber(v)
	if !ok {
		return true
	}
	span, _ := spanOf(operators[op], n)
	if column == schema.Time && span.Low <= span.High {
		request.Since = max(request.Since, span.Low)
		if span.High < 1<<63-1 && (request.Until == 0 || span.High+1 < request.Until) {
			request.Until = span.High + 1
		}
	}
	request.Filter.AddSpans(column, false, span)
	return true
}

// load reads the next run with matching rows.
func (c *cursor) load() error {
	q := c.table.q
	rows, picks, err := c.scanner.Next(q.ctx)
	if err != nil {
		return q.failed(err)
	}
	r := c.scanner.Result()
	q.result.Scanned += r.Scanned - c.seen
	q.result.Complete = q.result.Complete && r.Complete
	c.seen = r.Scanned
	if q.result.Scanned > q.limits.Scanned {
		return q.failed(&Error{
			Message: fmt.Sprintf("the query looked at more than %d rows", q.limits.Scanned),
			Hint:    "ask for a shorter time: time > ago('15m'); or make it a plain GROUP BY, which has no such limit",
		})
	}
	c.rows, c.picks, c.at = rows, picks, 0
	if c.boxed == nil {
		c.boxed = make([][]driver.Value, len(c.table.schema.SQL))
	}
	for i := range c.boxed {
		clear(c.boxed[i])
		c.boxed[i] = c.boxed[i][:0]
	}
	return nil
}

// failed keeps an error, whose text SQLite would lose.
func (q *run) failed(err error) error {
	if q.err == nil {
		q.err = err
	}
	return err
}

func (c *cursor) Next() error {
	if c.steps++; c.steps%1024 == 0 {
		if err := c.table.q.ctx.Err(); err != nil {
			return c.table.q.failed(err)
		}
		runtime.Gosched()
	}
	if c.at++; c.at < len(c.picks) {
		return nil
	}
	return c.load()
}

func (c *cursor) Eof() bool { return c.at >= len(c.picks) }

func (c *cursor) Rowid() (int64, error) {
	return int64(c.rows.Seq) + int64(c.picks[c.at]), nil
}

func (c *cursor) Close() error { return nil }

func (c *cursor) Column(i int) (vtab.Value, error) {
	row := int(c.picks[c.at])
	v, err := c.rows.Column(i)
	if err != nil {
		return nil, nil // unreadable cells are NULL
	}
	if v.Ints != nil {
		if n := v.Ints[row]; n != event.Null {
			return n, nil
		}
		return nil, nil
	}
	code := v.Codes[row]
	if code == 0 {
		return nil, nil
	}
	if len(c.boxed[i]) == 0 {
		c.boxed[i] = grown(c.boxed[i], v.Dict.Len())
	}
	if c.boxed[i][code] == nil {
		c.boxed[i][code] = textValue(c.table.schema.Table.Columns[i].Type, v.Dict.Cell(code))
	}
	return c.boxed[i][code], nil
}

func grown(s []driver.Value, n int) []driver.Value {
	if cap(s) < n {
		return make([]driver.Value, n)
	}
	s = s[:n]
	clear(s)
	return s
}
