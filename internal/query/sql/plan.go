package sql

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
)

// plan is a statement that can be worked out natively:
//
//	SELECT item, ... FROM table [WHERE cond AND ...] [GROUP BY key, ...] [ORDER BY item, ...] [LIMIT n [OFFSET m]]
type plan struct {
	schema  *segment.Schema
	request query.Request
	items   []item
	groups  bool // an item is a measure, or there is GROUP BY
	keys    []query.Key
	order   []order
	limit   int // -1: none
	offset  int
}

// item is one column of the answer.
type item struct {
	label   string
	typ     string
	column  int // of a key or plain column
	key     query.Key
	measure *query.Measure
	text    string // of the expression, to find it again in GROUP and ORDER BY
}

type order struct {
	item       int
	descending bool
}

// recogniser reads a statement and gives up, by bad, at the first thing it
// does not know: SQLite then answers. It is strict on purpose.
type recogniser struct {
	all    []token
	at     int
	bad    bool
	schema *segment.Schema
}

// recognise returns the native plan of a statement, nil if it has none.
func recognise(all []token, schemas []*segment.Schema) *plan {
	r := &recogniser{all: all}
	if !r.accept("select") || r.peek("distinct") || r.peek("all") {
		return nil
	}
	from := r.find("from")
	if from < 0 || from+1 >= len(all) {
		return nil
	}
	name, _ := all[from+1].name()
	for _, s := range schemas {
		if strings.EqualFold(s.Table.Name, name) {
			r.schema = s
		}
	}
	if r.schema == nil {
		return nil
	}
	p := &plan{schema: r.schema, limit: -1, request: query.Request{Kind: r.schema.Table.Kind, Filter: query.NewFilter(r.schema)}}
	p.items = r.items()
	r.expect("from")
	r.at++ // the table
	if r.accept("where") {
		r.conditions(p)
	}
	if r.accept("group") {
		r.expect("by")
		r.groupBy(p)
	}
	if r.accept("order") {
		r.expect("by")
		r.orderBy(p)
	}
	if r.accept("limit") {
		p.limit = r.count()
		if r.accept("offset") {
			p.offset = r.count()
		}
	}
	r.accept(";")
	if r.bad || r.now().kind != end || !p.sound() {
		return nil
	}
	return p
}

func (r *recogniser) now() token { return r.all[min(r.at, len(r.all)-1)] }

func (r *recogniser) peek(s string) bool { return r.now().is(s) }

func (r *recogniser) accept(s string) bool {
	if r.peek(s) {
		r.at++
		return true
	}
	return false
}

func (r *recogniser) expect(s string) { r.bad = r.bad || !r.accept(s) }

// find returns where a keyword is, outside of brackets.
func (r *recogniser) find(keyword string) int {
	depth := 0
	for i, t := range r.all {
		switch {
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		case depth == 0 && t.is(keyword):
			return i
		}
	}
	return -1
}

func (r *recogniser) count() int {
	t := r.now()
	r.at++
	n, err := strconv.Atoi(t.text)
	if t.kind != number || err != nil {
		r.bad = true
	}
	return n
}

// column reads the name of a column.
func (r *recogniser) column() int {
	t := r.now()
	r.at++
	name, ok := t.name()
	i, known := r.schema.Index[strings.ToLower(name)]
	if !ok || !known || strings.Contains(name, ".") {
		r.bad = true
		return 0
	}
	return i
}

func (r *recogniser) items() (items []item) {
	if r.accept("*") {
		for i := range r.schema.SQL {
			items = append(items, r.plain(i, r.schema.SQL[i]))
		}
		return items
	}
	for {
		from := r.at
		it := r.expression()
		if r.bad {
			return nil
		}
		it.text = r.textOf(from, r.at)
		it.label = it.text
		it.label = r.label(from)
		if r.accept("as") {
			name, ok := r.now().name()
			r.bad = r.bad || !ok
			it.label = name
			r.at++
		} else if name, ok := r.now().name(); ok && !keyword(name) {
			it.label = name
			r.at++
		}
		items = append(items, it)
		if !r.accept(",") {
			return items
		}
	}
}

// label is what SQLite calls an item without AS: the column's own name, or
// the expression as it is written.
func (r *recogniser) label(from int) string {
	if r.at == from+1 {
		if i, ok := r.schema.Index[strings.ToLower(r.all[from].text)]; ok {
			return r.schema.SQL[i]
		}
	}
	return r.written(from, r.at)
}

func (r *recogniser) plain(column int, label string) item {
	return item{label: label, typ: typeName(r.schema.Table.Columns[column].Type), column: column, key: query.Key{Column: column}, text: label}
}

// textOf is an expression in one form, whatever its blanks and case.
func (r *recogniser) textOf(from, until int) string {
	parts := make([]string, 0, until-from)
	for _, t := range r.all[from:until] {
		parts = append(parts, strings.ToLower(t.text))
	}
	return strings.Join(parts, " ")
}

// written is an expression as it stands, token by token.
func (r *recogniser) written(from, until int) string {
	var b strings.Builder
	for i := from; i < until; i++ {
		if i > from && r.all[i].from > r.all[i-1].until {
			b.WriteByte(' ')
		}
		t := r.all[i].text
		if r.all[i].kind == text {
			t = "'" + strings.ReplaceAll(t, "'", "''") + "'"
		}
		b.WriteString(t)
	}
	return b.String()
}

func keyword(s string) bool {
	switch strings.ToLower(s) {
	case "from", "where", "group", "order", "limit", "offset", "as", "having", "union", "except", "intersect", "window", "join", "left", "inner", "cross", "natural", "full", "right", "on", "using", "indexed", "not":
		return true
	}
	return false
}

// expression reads a column, a rounded column, or a measure.
func (r *recogniser) expression() item {
	t := r.now()
	if t.kind == word && r.at+1 < len(r.all) && r.all[r.at+1].is("(") {
		return r.call(strings.ToLower(t.text))
	}
	c := r.column()
	if r.bad {
		return item{}
	}
	it := r.plain(c, r.schema.SQL[c])
	if r.accept("/") {
		it.key.Divide = r.positive()
		it.typ = "integer"
		if r.accept("*") {
			if n := r.positive(); n == it.key.Divide {
				it.key.Multiply = n
			} else {
				r.bad = true
			}
		}
		r.bad = r.bad || !segment.IsInt(r.schema.Table.Columns[c].Type)
	}
	return it
}

func (r *recogniser) bucketType(c int) string {
	if t := r.schema.Table.Columns[c].Type; t == event.Time || t == event.Duration {
		return typeName(t)
	}
	return "integer"
}

func (r *recogniser) positive() int64 {
	t := r.now()
	r.at++
	n, err := strconv.ParseInt(t.text, 10, 64)
	if t.kind != number || err != nil || n <= 0 {
		r.bad = true
		return 1
	}
	return n
}

func (r *recogniser) call(name string) item {
	r.at += 2
	it := item{typ: "integer"}
	m := &query.Measure{}
	switch q, isShare := shares[name]; {
	case name == "count" && r.accept("*"):
		m.Function = query.CountRows
	case name == "bucket":
		return r.bucket()
	case name == "quantile":
		m.Function, m.Column = query.Quantile, r.column()
		r.expect(",")
		f, err := strconv.ParseFloat(r.now().text, 64)
		r.bad = r.bad || r.now().kind != number || err != nil || f < 0 || f > 1
		m.Quantile = f
		r.at++
	case isShare:
		m.Function, m.Column, m.Quantile = query.Quantile, r.column(), q
	default:
		function, ok := functions[name]
		r.bad = r.bad || !ok
		m.Function, m.Column = function, r.column()
	}
	r.expect(")")
	if r.bad {
		return it
	}
	t := r.schema.Table.Columns[m.Column].Type
	switch m.Function {
	case query.Min, query.Max:
		it.typ = typeName(t)
		r.bad = t == event.Strings || t == event.Map
	case query.Sum, query.Quantile, query.Avg:
		it.typ = resultType(m.Function, t)
		r.bad = !segment.IsInt(t)
	}
	it.measure = m
	return it
}

var functions = map[string]query.Function{"count": query.Count, "sum": query.Sum, "min": query.Min, "max": query.Max, "avg": query.Avg}

func resultType(f query.Function, t event.Type) string {
	switch {
	case f == query.Avg:
		return "real"
	case f == query.Quantile && (t == event.Time || t == event.Duration), f == query.Sum && t == event.Duration:
		return typeName(t)
	}
	return "integer"
}

// bucket reads bucket(column, 'width').
func (r *recogniser) bucket() item {
	c := r.column()
	r.expect(",")
	t := r.now()
	r.at++
	r.expect(")")
	width, ok := int64(0), false
	switch t.kind {
	case text:
		width, ok = Duration(t.text)
	case number:
		n, err := strconv.ParseInt(t.text, 10, 64)
		width, ok = n, err == nil
	}
	if r.bad = r.bad || !ok || width <= 0 || !segment.IsInt(r.schema.Table.Columns[c].Type); r.bad {
		return item{}
	}
	it := r.plain(c, "")
	it.typ = r.bucketType(c)
	it.key.Divide, it.key.Multiply = width, width
	return it
}

// reference finds the item that GROUP BY or ORDER BY names: by position, label
// or expression. -1 if it is none of them.
func (r *recogniser) reference(p *plan) int {
	from := r.at
	if t := r.now(); t.kind == number {
		r.at++
		n, err := strconv.Atoi(t.text)
		if err != nil || n < 1 || n > len(p.items) {
			r.bad = true
			return -1
		}
		return n - 1
	}
	if name, ok := r.now().name(); ok && !(r.at+1 < len(r.all) && r.all[r.at+1].is("(")) {
		_, isColumn := r.schema.Index[strings.ToLower(name)]
		for i := range p.items {
			// A label that is also a column means different things in GROUP BY and
			// ORDER BY: only where both are the same it is taken.
			if strings.EqualFold(p.items[i].label, name) && (!isColumn || p.items[i].text == strings.ToLower(name)) {
				if next := r.all[r.at+1]; !next.is("/") {
					r.at++
					return i
				}
			}
		}
	}
	it := r.expression()
	text := r.textOf(from, r.at)
	for i := range p.items {
		if p.items[i].text == text {
			for _, other := range p.items {
				if strings.EqualFold(other.label, text) && other.text != text {
					r.bad = true // shadowed by an alias
				}
			}
			return i
		}
	}
	if it.measure == nil && !r.bad {
		p.keys = append(p.keys, it.key) // a key that is not selected
		return -1
	}
	r.bad = true
	return -1
}

func (r *recogniser) groupBy(p *plan) {
	p.groups = true
	for {
		n := len(p.keys)
		i := r.reference(p)
		if r.bad {
			return
		}
		if i >= 0 {
			if p.items[i].measure != nil {
				r.bad = true
				return
			}
			p.keys = append(p.keys[:n], p.items[i].key)
		}
		if !r.accept(",") {
			return
		}
	}
}

func (r *recogniser) orderBy(p *plan) {
	for {
		n := len(p.keys)
		i := r.reference(p)
		if len(p.keys) > n { // not selected: only a plain query may order by it
			key := p.keys[n]
			p.keys = p.keys[:n]
			p.items = append(p.items, item{column: key.Column, key: key, label: "\x00"})
			i = len(p.items) - 1
			r.bad = r.bad || p.groups || key.Divide != 0
		}
		if r.bad || i < 0 {
			r.bad = true
			return
		}
		o := order{item: i}
		if r.accept("desc") {
			o.descending = true
		} else {
			r.accept("asc")
		}
		r.bad = r.bad || r.peek("nulls") || r.peek("collate")
		p.order = append(p.order, o)
		if !r.accept(",") {
			return
		}
	}
}

// sound tells whether the parts of a plan fit together.
func (p *plan) sound() bool {
	measures := 0
	for _, it := range p.items {
		if it.measure != nil {
			measures++
		}
	}
	if measures > 0 {
		p.groups = true
	}
	if !p.groups {
		return p.plainSound()
	}
	if len(p.keys) > 4 {
		return false
	}
	for _, k := range p.keys {
		if t := p.schema.Table.Columns[k.Column].Type; t == event.Strings || t == event.Map {
			return false
		}
	}
	for _, it := range p.items {
		if it.measure == nil && p.keyOf(it) < 0 {
			return false // SQLite would take it of any row
		}
	}
	return true
}

// plainSound allows no order, or one number column.
func (p *plan) plainSound() bool {
	for _, it := range p.items {
		if it.key.Divide != 0 {
			return false
		}
	}
	switch len(p.order) {
	case 0:
		return true
	case 1:
		return segment.IsInt(p.schema.Table.Columns[p.items[p.order[0].item].column].Type)
	}
	return false
}

func (p *plan) keyOf(it item) int {
	for i, k := range p.keys {
		if k == it.key {
			return i
		}
	}
	return -1
}

// conditions reads cond AND cond ... into the request.
func (r *recogniser) conditions(p *plan) {
	for {
		r.condition(p)
		if r.bad || !r.accept("and") {
			return
		}
	}
}

func (r *recogniser) condition(p *plan) {
	c := r.column()
	if r.bad {
		return
	}
	t := r.schema.Table.Columns[c].Type
	if r.accept("is") {
		absent := !r.accept("not")
		r.expect("null")
		r.presence(p, c, absent)
		return
	}
	if t == event.Strings || t == event.Map {
		r.bad = true // their values are JSON
		return
	}
	negate := r.accept("not")
	switch {
	case r.accept("in"):
		r.in(p, c, t, negate)
	case r.accept("between"):
		r.between(p, c, t, negate)
	case r.accept("like"):
		r.like(p, c, t, negate)
	case negate:
		r.bad = true
	default:
		r.compare(p, c, t)
	}
}

func (r *recogniser) presence(p *plan, c int, absent bool) {
	if segment.IsInt(r.schema.Table.Columns[c].Type) {
		p.request.Filter.AddSpans(c, absent, query.Some)
		return
	}
	p.request.Filter.AddMatch(c, absent, present)
}

func present(cell []byte) bool { return len(cell) > 0 }

// literal reads a number or text, with a sign.
func (r *recogniser) literal() (value any) {
	sign := ""
	if r.accept("-") {
		sign = "-"
	}
	t := r.now()
	r.at++
	switch t.kind {
	case text:
		if sign == "" {
			return t.text
		}
	case number:
		if n, err := strconv.ParseInt(sign+t.text, 10, 64); err == nil {
			return n
		}
		if f, err := strconv.ParseFloat(sign+t.text, 64); err == nil && !strings.HasPrefix(strings.ToLower(t.text), "0x") {
			return f
		}
	}
	r.bad = true
	return nil
}

func (r *recogniser) compare(p *plan, c int, t event.Type) {
	op := r.now().text
	if !comparison(r.now()) {
		r.bad = true
		return
	}
	r.at++
	v := r.literal()
	if r.bad {
		return
	}
	if !segment.IsInt(t) {
		s, ok := v.(string)
		match := textCompare(op, s)
		if r.bad = !ok || match == nil; !r.bad && s != "" && (op == "=" || op == "==") {
			p.request.Filter.AddEqual(c, s)
		} else if !r.bad {
			p.request.Filter.AddMatch(c, false, match)
		}
		return
	}
	n, ok := asNumber(v)
	if !ok {
		r.bad = true
		return
	}
	span, inverse := spanOf(op, n)
	if inverse {
		p.request.Filter.AddSpans(c, true, span)
		p.request.Filter.AddSpans(c, false, query.Some)
		return
	}
	r.narrow(p, c, span)
}

// narrow adds a span, of the time column as the request's range.
func (r *recogniser) narrow(p *plan, c int, s query.Span) {
	if c != r.schema.Time || s.Low > s.High {
		p.request.Filter.AddSpans(c, false, s)
		return
	}
	if s.Low > 0 {
		p.request.Since = max(p.request.Since, s.Low)
	}
	if s.High < math.MaxInt64 {
		if p.request.Until == 0 || s.High+1 < p.request.Until {
			p.request.Until = s.High + 1
		}
	}
	p.request.Filter.AddSpans(c, false, s) // for bounds at or below 0
}

// asNumber applies the affinity of a number column to a literal.
func asNumber(v any) (any, bool) {
	switch v := v.(type) {
	case int64, float64:
		return v, true
	case string:
		if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
			return n, true
		}
	}
	return nil, false
}

// spanOf returns the numbers for which "x op n" holds, or, inverse, does not.
// A fraction is rounded to the side that changes nothing.
func spanOf(op string, v any) (s query.Span, inverse bool) {
	low, high := int64(0), int64(0)
	switch v := v.(type) {
	case int64:
		low, high = v, v
	case float64:
		low, high = floorCeil(v)
	}
	whole := low == high
	s = query.Some
	switch op {
	case "=", "==", "<>", "!=":
		s = query.Span{Low: low, High: high}
		if !whole {
			s = query.Span{Low: 1, High: 0}
		}
		return s, op == "<>" || op == "!="
	case ">":
		s.Low = high
		if whole {
			s.Low = saturated(low, 1)
		}
		if whole && low == math.MaxInt64 {
			s.High = event.Null
		}
	case ">=":
		s.Low = high
	case "<":
		s.High = low
		if whole {
			s.High = saturated(high, -1)
		}
	case "<=":
		s.High = low
	}
	s.Low = max(s.Low, query.Some.Low)
	return s, false
}

func saturated(n, by int64) int64 {
	if by > 0 && n > math.MaxInt64-by || by < 0 && n < math.MinInt64-by {
		return n
	}
	return n + by
}

// floorCeil returns the whole numbers around f, inside of what a cell can be.
func floorCeil(f float64) (low, high int64) {
	clamp := func(f float64) int64 {
		switch {
		case f >= math.MaxInt64:
			return math.MaxInt64
		case f <= math.MinInt64:
			return math.MinInt64
		}
		return int64(f)
	}
	return clamp(math.Floor(f)), clamp(math.Ceil(f))
}

func textCompare(op, s string) func([]byte) bool {
	want := []byte(s)
	test := func(holds func(int) bool) func([]byte) bool {
		return func(cell []byte) bool { return len(cell) > 0 && holds(bytes.Compare(cell, want)) }
	}
	switch op {
	case "=", "==":
		return test(func(c int) bool { return c == 0 })
	case "<>", "!=":
		return test(func(c int) bool { return c != 0 })
	case ">":
		return test(func(c int) bool { return c > 0 })
	case ">=":
		return test(func(c int) bool { return c >= 0 })
	case "<":
		return test(func(c int) bool { return c < 0 })
	case "<=":
		return test(func(c int) bool { return c <= 0 })
	}
	return nil
}

func (r *recogniser) in(p *plan, c int, t event.Type, negate bool) {
	r.expect("(")
	var spans []query.Span
	texts := map[string]bool{}
	for !r.bad {
		v := r.literal()
		if r.bad {
			return
		}
		if segment.IsInt(t) {
			n, ok := asNumber(v)
			if r.bad = !ok; ok {
				s, _ := spanOf("=", n)
				spans = append(spans, s)
			}
		} else {
			s, ok := v.(string)
			r.bad = !ok
			texts[s] = true
		}
		if !r.accept(",") {
			break
		}
	}
	if r.expect(")"); r.bad {
		return
	}
	if segment.IsInt(t) {
		p.request.Filter.AddSpans(c, negate, spans...)
		if negate {
			p.request.Filter.AddSpans(c, false, query.Some)
		}
		return
	}
	p.request.Filter.AddMatch(c, false, func(cell []byte) bool { return len(cell) > 0 && texts[string(cell)] != negate })
}

func (r *recogniser) between(p *plan, c int, t event.Type, negate bool) {
	low := r.literal()
	r.expect("and")
	high := r.literal()
	if r.bad = r.bad || negate; r.bad {
		return
	}
	if !segment.IsInt(t) {
		a, ok := low.(string)
		b, ok2 := high.(string)
		if r.bad = !ok || !ok2; !r.bad {
			from, until := textCompare(">=", a), textCompare("<=", b)
			p.request.Filter.AddMatch(c, false, func(cell []byte) bool { return from(cell) && until(cell) })
		}
		return
	}
	a, ok := asNumber(low)
	b, ok2 := asNumber(high)
	if r.bad = !ok || !ok2; r.bad {
		return
	}
	from, _ := spanOf(">=", a)
	until, _ := spanOf("<=", b)
	r.narrow(p, c, query.Span{Low: from.Low, High: until.High})
}

func (r *recogniser) like(p *plan, c int, t event.Type, negate bool) {
	s, ok := r.literal().(string)
	if r.bad = r.bad || !ok || segment.IsInt(t) || r.peek("escape"); r.bad {
		return
	}
	for i := range len(s) {
		if s[i] >= 0x80 || s[i] == '_' {
			r.bad = true // characters, not bytes: SQLite knows
			return
		}
	}
	match := likeMatch(strings.ToLower(s))
	p.request.Filter.AddMatch(c, false, func(cell []byte) bool { return len(cell) > 0 && match(cell) != negate })
}

// likeMatch matches % for any text, whatever the case of ASCII letters.
func likeMatch(pattern string) func([]byte) bool {
	parts := strings.Split(pattern, "%")
	return func(cell []byte) bool {
		s := lowerASCII(cell)
		if len(parts) == 1 {
			return s == pattern
		}
		if !strings.HasPrefix(s, parts[0]) {
			return false
		}
		s = s[len(parts[0]):]
		last := len(parts) - 1
		for _, part := range parts[1:last] {
			i := strings.Index(s, part)
			if i < 0 {
				return false
			}
			s = s[i+len(part):]
		}
		return strings.HasSuffix(s, parts[last])
	}
}

func lowerASCII(b []byte) string {
	out := make([]byte, len(b))
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		out[i] = c
	}
	return string(out)
}
