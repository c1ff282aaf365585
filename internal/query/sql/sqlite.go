package sql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"modernc.org/sqlite"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
)

// Limits of SQLite itself (sqlite3_limit), by their numbers in sqlite3.h.
const (
	limitLength   = 0 // bytes of a value
	limitAttached = 7 // databases: none, so that no file is opened or made
	maxValueBytes = 1 << 20
)

// connector opens connections of one driver, which is one query's own.
type connector struct{ driver *sqlite.Driver }

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(":memory:") }
func (c connector) Driver() driver.Driver                        { return c.driver }

// sqlite lets SQLite answer. A private driver and an empty database in memory
// cost 0.1 ms and bind the tables to this query alone.
func (q *run) sqlite(statement string, all []token) error {
	d := &sqlite.Driver{}
	if err := q.register(d, all); err != nil {
		return err
	}
	db := sql.OpenDB(connector{d})
	defer db.Close()
	conn, err := db.Conn(q.ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := q.prepare(conn); err != nil {
		return err
	}
	if all[0].is("explain") {
		return q.direct(conn, statement, all)
	}
	return q.materialised(conn, statement, all)
}

// direct hands out rows as SQLite finds them.
func (q *run) direct(conn *sql.Conn, statement string, all []token) error {
	rows, err := conn.QueryContext(q.ctx, statement)
	if err != nil {
		return q.explain(err)
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return q.explain(err)
	}
	return q.read(rows, types, all)
}

// materialised puts the answer, which is bounded, into a table in memory
// first: the driver stops a statement at once when its time is over, but the
// rows after the first one only when they reach a table of ours, and a
// recursive one may never.
func (q *run) materialised(conn *sql.Conn, statement string, all []token) error {
	last := len(all) - 2
	if all[last].is(";") {
		last--
	}
	inner := "SELECT * FROM (" + statement[:all[last].until] + "\n) LIMIT "
	types, err := q.typesOf(conn, inner+"0")
	if err != nil {
		return q.explain(err)
	}
	if _, err := conn.ExecContext(q.ctx, fmt.Sprintf("CREATE TABLE ghost_answer AS %s%d", inner, q.limits.Rows+1)); err != nil {
		return q.explain(err)
	}
	rows, err := conn.QueryContext(q.ctx, "SELECT * FROM ghost_answer")
	if err != nil {
		return q.explain(err)
	}
	defer rows.Close()
	return q.read(rows, types, all)
}

// typesOf returns the columns of a statement that gives no row.
func (q *run) typesOf(conn *sql.Conn, statement string) ([]*sql.ColumnType, error) {
	rows, err := conn.QueryContext(q.ctx, statement)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	return rows.ColumnTypes()
}

func (q *run) register(d *sqlite.Driver, all []token) error {
	collate := false
	for _, t := range all {
		collate = collate || t.is("collate")
	}
	for _, s := range q.snap.Schemas() {
		if err := d.RegisterModule("ghost_"+s.Table.Name, &module{q, s, collate}); err != nil {
			return err
		}
	}
	for name, share := range shares {
		if err := d.RegisterFunction(name, aggregate(1, share)); err != nil {
			return err
		}
	}
	if err := d.RegisterFunction("quantile", aggregate(2, 0)); err != nil {
		return err
	}
	if err := d.RegisterDeterministicScalarFunction("bucket", 2, bucket); err != nil {
		return err
	}
	return d.RegisterDeterministicScalarFunction("rfc3339", 1, rfc3339)
}

func (q *run) prepare(conn *sql.Conn) error {
	for _, s := range q.snap.Schemas() {
		if _, err := conn.ExecContext(q.ctx, fmt.Sprintf("CREATE VIRTUAL TABLE %s USING ghost_%s()", s.Table.Name, s.Table.Name)); err != nil {
			return fmt.Errorf("make table %s: %w", s.Table.Name, err)
		}
	}
	if _, err := sqlite.Limit(conn, limitLength, maxValueBytes); err != nil {
		return err
	}
	_, err := sqlite.Limit(conn, limitAttached, 0)
	return err
}

// read hands out the rows. Types that SQLite does not know are those of the
// first row's values.
func (q *run) read(rows *sql.Rows, types []*sql.ColumnType, all []token) error {
	values := make([]any, len(types))
	pointers := make([]any, len(types))
	for i := range values {
		pointers[i] = &values[i]
	}
	told := false
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			return q.explain(err)
		}
		if !told {
			told = true
			if err := q.columns(q.columnsOf(types, values, all)); err != nil {
				return err
			}
		}
		if err := q.row(values); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil || told {
		return q.explain(err)
	}
	return q.columns(q.columnsOf(types, values, all))
}

func (q *run) columnsOf(types []*sql.ColumnType, first []any, all []token) []Column {
	columns := make([]Column, len(types))
	guessed := timeItems(all, namesOf(q.snap.Schemas()))
	for i, t := range types {
		columns[i] = Column{Name: t.Name(), Type: typeOfDeclared[t.DatabaseTypeName()]}
		if columns[i].Type == "" && len(guessed) == len(types) {
			columns[i].Type = guessed[i]
		}
		if columns[i].Type == "" {
			columns[i].Type = typeOfValue(first[i])
		}
	}
	return columns
}

func typeOfValue(v any) string {
	switch v.(type) {
	case int64:
		return "integer"
	case float64:
		return "real"
	}
	return "text"
}

// timeItems tells the types of the items of the outer SELECT that are a
// function of one column, which SQLite itself does not know.
func timeItems(all []token, n names) (types []string) {
	depth, start := 0, -1
	for i, t := range all {
		switch {
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		case depth == 0 && t.is("select"):
			types, start = nil, i+1
		case depth == 0 && start >= 0 && (t.is(",") || t.is("from") || t.kind == end):
			types = append(types, timeItem(all[start:i], n))
			if start = i + 1; !t.is(",") {
				return types
			}
		}
	}
	return types
}

func timeItem(item []token, n names) string {
	if len(item) < 4 || item[0].kind != word || !item[1].is("(") {
		return ""
	}
	name := strings.ToLower(item[0].text)
	if item[3].is(")") && (name == "count" || name == "avg") {
		return map[string]string{"count": "integer", "avg": "real"}[name]
	}
	_, isShare := shares[name]
	column := item[2]
	rest := item[3]
	if rest.is(".") && len(item) > 5 {
		column, rest = item[4], item[5]
	}
	known := name == "min" || name == "max" || name == "bucket" || name == "quantile" || isShare
	t, ok := n.column(column)
	switch {
	case ok && known && (rest.is(")") || rest.is(",")) && (t == event.Time || t == event.Duration), ok && name == "sum" && t == event.Duration:
		return typeName(t)
	case ok && rest.is(")") && (known || name == "sum") && segment.IsInt(t) && t != event.Bool:
		return "integer"
	case ok && (name == "min" || name == "max") && t == event.Bool && rest.is(")"):
		return typeName(t)
	}
	return ""
}

// explain gives an error the text it had before it went through SQLite, or a
// hint.
func (q *run) explain(err error) error {
	if err == nil {
		return nil
	}
	if q.err != nil {
		return q.err
	}
	if cause := q.ctx.Err(); cause != nil {
		return cause
	}
	message := err.Error()
	message = strings.TrimPrefix(message, "SQL logic error: ")
	if i := strings.LastIndex(message, " ("); i > 0 {
		message = message[:i]
	}
	e := &Error{Message: message}
	if name, ok := strings.CutPrefix(message, "no such column: "); ok {
		e.Hint = q.suggest(name)
	}
	if strings.HasPrefix(message, "no such table: ") {
		e.Hint = "the tables are " + strings.Join(q.tableNames(), ", ")
	}
	return e
}

func (q *run) tableNames() (all []string) {
	for _, s := range q.snap.Schemas() {
		all = append(all, s.Table.Name)
	}
	return all
}

func (q *run) suggest(name string) string {
	if underscored := strings.ReplaceAll(name, ".", "_"); underscored != name {
		if _, ok := namesOf(q.snap.Schemas())[underscored]; ok {
			return fmt.Sprintf("in SQL it is called %s", underscored)
		}
	}
	for _, s := range q.snap.Schemas() {
		for _, column := range s.SQL {
			if strings.HasSuffix(column, "_"+name) {
				return fmt.Sprintf("did you mean %s?", column)
			}
		}
	}
	return "see the columns at /api/v1/fields, with underscores for dots"
}

// shares are the quantile functions.
var shares = map[string]float64{"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}

// aggregate is a quantile as an aggregate function of SQLite, made of the same
// histogram as the native one.
func aggregate(args int32, share float64) *sqlite.FunctionImpl {
	return &sqlite.FunctionImpl{NArgs: args, Deterministic: true, MakeAggregate: func(sqlite.FunctionContext) (sqlite.AggregateFunction, error) {
		return &quantile{share: share}, nil
	}}
}

type quantile struct {
	share float64
	hist  query.Histogram
}

func (a *quantile) Step(_ *sqlite.FunctionContext, args []driver.Value) error {
	if len(args) == 2 {
		switch q := args[1].(type) {
		case float64:
			a.share = q
		case int64:
			a.share = float64(q)
		default:
			return errors.New("quantile(column, share): share is a number from 0 to 1")
		}
		if a.share < 0 || a.share > 1 {
			return errors.New("quantile(column, share): share is a number from 0 to 1")
		}
	}
	switch v := args[0].(type) {
	case nil:
		return nil
	case int64:
		a.hist.Add(v)
		return nil
	case float64:
		a.hist.Add(int64(v))
		return nil
	}
	return errors.New("quantiles are of numbers")
}

func (a *quantile) WindowInverse(*sqlite.FunctionContext, []driver.Value) error {
	return errors.New("quantiles cannot be used with a moving window")
}

func (a *quantile) WindowValue(*sqlite.FunctionContext) (driver.Value, error) {
	if v, ok := a.hist.Quantile(a.share); ok {
		return v, nil
	}
	return nil, nil
}

func (a *quantile) Final(*sqlite.FunctionContext) {}

// bucket rounds a number to a multiple of a width, towards zero.
func bucket(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
	var width int64
	switch w := args[1].(type) {
	case int64:
		width = w
	case string:
		width, _ = Duration(w)
	}
	if width <= 0 {
		return nil, errors.New("bucket(column, width): width is '1m' or a number above 0")
	}
	n, ok := args[0].(int64)
	if !ok {
		return nil, nil
	}
	return n / width * width, nil
}

// rfc3339 writes Unix nanoseconds for a person.
func rfc3339(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
	n, ok := args[0].(int64)
	if !ok {
		return nil, nil
	}
	return time.Unix(0, n).UTC().Format(time.RFC3339Nano), nil
}
