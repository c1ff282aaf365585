// Package query asks the store: a filter language for people, selections,
// groups and quantiles. What it cannot say is said in SQL, in package sql.
//
//	Parse -> Filter -> narrow the rows of each run, the cheapest test first -> Select, Each, Aggregate
package query

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

// SyntaxError says where a filter cannot be understood and what may be meant.
type SyntaxError struct {
	Offset  int // byte of the text
	Message string
	Hint    string // empty if there is none
}

func (e *SyntaxError) Error() string {
	text := fmt.Sprintf("filter, at %d: %s", e.Offset, e.Message)
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// Filter is a condition on the rows of one table. It never changes and may be
// used by many goroutines.
type Filter struct {
	schema *segment.Schema
	terms  []term
	text   string
}

// term holds if any of its tests does, or, negated, if none does.
type term struct {
	field  string // as it was written, to join equal ones
	negate bool
	tests  []test
}

// test is a condition on one column: a range of a number, or a match of a
// string.
type test struct {
	column    int
	low, high int64
	match     func(cell []byte) bool // nil: a number
	equal     []byte                 // where match is no more than equality: with what
}

// Aliases are the short names of the filter language, with the columns each
// one looks at: any of them may match. Those a table has not are left out.
var Aliases = map[string][]string{
	"service":   {"service.name", "peer.service.name"},
	"pid":       {"process.pid", "peer.pid"},
	"command":   {"process.executable.name"},
	"container": {"container.name", "container.id", "peer.container.name"},
	"address":   {"source.address", "destination.address"},
	"port":      {"source.port", "destination.port"},
	"transport": {"network.transport"},
	"peer":      {"peer.service.name", "peer.container.name"},
	"reason":    {"tcp.close_reason", "tcp.reset_reason", "drop.reason"},
	"state":     {"tcp.state"},
	"interface": {"network.interface.name"},
	"user":      {"process.user.id"},
	"rule":      {"alert.name"},
	"severity":  {"alert.severity"},
	"sensor":    {"lost.sensor"},
	"stage":     {"lost.stage"},
	"route":     {"http.route", "rpc.method"},
	"path":      {"url.path"},
	"method":    {"http.request.method"},
	"status":    {"http.response.status_code", "rpc.response.status_code", "db.response.status_code", "dns.response.code"},
	"operation": {"db.operation.name", "rpc.method", "messaging.operation.name", "dns.question.type"},
	"target":    {"db.collection.name", "messaging.destination.name", "dns.question.name"},
	"error":     {"error.type"},
	"trace":     {"trace.trace_id"},
	"span":      {"trace.span_id"},
	"slower":    {"duration_ns"}, // slower:100ms is duration_ns>=100ms
	"faster":    {"duration_ns"}, // faster:100ms is duration_ns<100ms
}

// limits are the short names that take a limit instead of a value.
var limits = map[string]string{"slower": ">=", "faster": "<"}

// outcomes are the words for a status that tell whether it went well, by what
// error.type has to match.
var outcomes = map[string]string{"error": "*", "ok": ""}

// wordColumns are where a bare word is looked for.
var wordColumns = []string{
	"process.executable.name", "service.name", "container.name", "source.address", "destination.address",
	"peer.service.name", "peer.container.name", "alert.name", "alert.message", "lost.stage", "lost.sensor",
	"url.path", "http.route", "rpc.method", "db.query.summary", "messaging.destination.name", "dns.question.name",
}

// Parse reads a filter for a table. The empty text matches every row.
func Parse(s *segment.Schema, text string) (*Filter, error) {
	p := parser{schema: s, text: text}
	f := &Filter{schema: s, text: text}
	for {
		p.blanks()
		if p.at >= len(text) {
			break
		}
		t, err := p.term()
		if err != nil {
			return nil, err
		}
		f.add(t)
	}
	// Numbers first: they are cheaper to read than strings.
	slices.SortStableFunc(f.terms, func(a, b term) int { return a.cost() - b.cost() })
	return f, nil
}

// String returns the text the filter was made of.
func (f *Filter) String() string { return f.text }

// Empty tells whether every row matches.
func (f *Filter) Empty() bool { return f == nil || len(f.terms) == 0 }

// add joins equal fields: the same field twice means either.
func (f *Filter) add(t term) {
	for i := range f.terms {
		if t.field != "" && !t.negate && f.terms[i].field == t.field && !f.terms[i].negate {
			f.terms[i].tests = append(f.terms[i].tests, t.tests...)
			return
		}
	}
	f.terms = append(f.terms, t)
}

func (t *term) cost() (n int) {
	for _, one := range t.tests {
		if n++; one.match != nil {
			n += 2
		}
	}
	return n
}

type parser struct {
	schema *segment.Schema
	text   string
	at     int
}

func (p *parser) fail(at int, hint, format string, args ...any) error {
	return &SyntaxError{Offset: at, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func (p *parser) blanks() {
	for p.at < len(p.text) && isBlank(p.text[p.at]) {
		p.at++
	}
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// term reads [-]field:value,..., [-]field>value or [-]word.
func (p *parser) term() (term, error) {
	var t term
	if p.text[p.at] == '-' {
		t.negate = true
		p.at++
	}
	start := p.at
	if p.at >= len(p.text) || isBlank(p.text[p.at]) {
		return t, p.fail(start, "write -field:value or -word", "nothing follows the minus")
	}
	if p.text[p.at] == '"' || p.text[p.at] == '\'' {
		return p.word(t)
	}
	for p.at < len(p.text) && !isBlank(p.text[p.at]) && !strings.ContainsRune(":<>=!\"'", rune(p.text[p.at])) {
		p.at++
	}
	name := p.text[start:p.at]
	// "::1" and "2001:db8::1" are words, not fields.
	if word := untilBlank(p.text[start:]); isAddress(word) {
		p.at = start
		return p.word(t)
	}
	op := p.operator()
	if op == "" {
		p.at = start
		return p.word(t)
	}
	columns, key, err := p.field(start, name)
	if err != nil {
		return t, err
	}
	if op == "!=" {
		t.negate = !t.negate
		op = ":"
	}
	if limit := limits[name]; limit != "" && op == ":" {
		op = limit
	}
	if op != ":" {
		return p.comparison(t, columns, op)
	}
	t.field = name
	return p.values(t, columns, key)
}

func untilBlank(s string) string {
	if i := strings.IndexFunc(s, func(r rune) bool { return r < 0x80 && isBlank(byte(r)) }); i >= 0 {
		return s[:i]
	}
	return s
}

func isAddress(s string) bool {
	if strings.Count(s, ":") < 2 {
		return false
	}
	if _, err := netip.ParsePrefix(s); err == nil {
		return true
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}

func (p *parser) operator() string {
	rest := p.text[p.at:]
	for _, op := range []string{">=", "<=", "!=", "==", ":", ">", "<", "="} {
		if strings.HasPrefix(rest, op) {
			p.at += len(op)
			if op == "=" || op == "==" {
				return ":"
			}
			return op
		}
	}
	return ""
}

// field finds the columns a name stands for, and the key of an attribute.
func (p *parser) field(at int, name string) (columns []int, key string, err error) {
	if i, ok := p.schema.Index[name]; ok {
		return []int{i}, "", nil
	}
	for _, full := range Aliases[name] {
		if i, ok := p.schema.Index[full]; ok {
			columns = append(columns, i)
		}
	}
	if len(columns) > 0 {
		return columns, "", nil
	}
	if key, ok := strings.CutPrefix(name, "attributes."); ok && key != "" {
		if i, ok := p.schema.Index["attributes"]; ok {
			return []int{i}, key, nil
		}
	}
	if name == "" {
		return nil, "", p.fail(at, "write field:value", "a field is missing")
	}
	return nil, "", p.fail(at, p.suggest(name), "%s have no field %q", p.schema.Table.Name, name)
}

// suggest names the fields that look like a wrong one.
func (p *parser) suggest(name string) string {
	best, least := "", 3+len(name)/4
	try := func(candidate string) {
		d := distance(name, candidate)
		if strings.HasSuffix(candidate, "."+name) || strings.HasPrefix(candidate, name+".") {
			d = 1
		}
		if d < least {
			best, least = candidate, d
		}
	}
	for _, c := range p.schema.Table.Columns {
		try(c.Name)
	}
	for alias, columns := range Aliases {
		for _, c := range columns {
			if _, ok := p.schema.Index[c]; ok {
				try(alias)
				break
			}
		}
	}
	if best == "" {
		return "see the fields of " + p.schema.Table.Name + " at /api/v1/fields"
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// distance is the number of edits between two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

func (p *parser) word(t term) (term, error) {
	start := p.at
	word, _, err := p.value(false)
	if err != nil {
		return t, err
	}
	if word == "" {
		return t, p.fail(start, "", "an empty word")
	}
	match := wordMatch(word)
	for _, name := range wordColumns {
		if i, ok := p.schema.Index[name]; ok {
			t.tests = append(t.tests, test{column: i, match: match})
		}
	}
	return t, nil
}

// wordMatch finds a bare word anywhere in a name, whatever its case; a network
// finds its addresses.
func wordMatch(word string) func([]byte) bool {
	if prefix, err := netip.ParsePrefix(word); err == nil {
		return networkMatch(prefix)
	}
	if strings.Contains(word, "*") {
		return globMatch(word)
	}
	lower := strings.ToLower(word)
	return func(cell []byte) bool { return strings.Contains(strings.ToLower(string(cell)), lower) }
}

// value reads one value, up to a blank or, in a list, a comma.
func (p *parser) value(list bool) (text string, quoted bool, err error) {
	start := p.at
	if p.at < len(p.text) && (p.text[p.at] == '"' || p.text[p.at] == '\'') {
		text, err = p.quotedText()
		return text, true, err
	}
	for p.at < len(p.text) && !isBlank(p.text[p.at]) && !(list && p.text[p.at] == ',') {
		p.at++
	}
	return p.text[start:p.at], false, nil
}

func (p *parser) quotedText() (string, error) {
	start, quote := p.at, p.text[p.at]
	var b strings.Builder
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == quote:
			p.at++
			return b.String(), nil
		case c == '\\' && p.at+1 < len(p.text):
			p.at++
			b.WriteByte(p.text[p.at])
		default:
			b.WriteByte(c)
		}
	}
	return "", p.fail(start, "", "the quote is not closed")
}

func (p *parser) values(t term, columns []int, key string) (term, error) {
	for {
		start := p.at
		text, quoted, err := p.value(true)
		if err != nil {
			return t, err
		}
		if text == "" && !quoted {
			return t, p.fail(start, `write "" for an empty value, * for any`, "a value is missing")
		}
		var first error
		some := false
		if pattern, ok := outcomes[text]; ok && !quoted && t.field == "status" {
			if c, ok := p.schema.Index["error.type"]; ok {
				match := stringMatch(&p.schema.Table.Columns[c], pattern, false)
				t.tests, some = append(t.tests, test{column: c, match: match}), true
			}
		}
		for _, c := range columns {
			one, err := p.equal(start, c, key, text, quoted)
			if err == nil {
				t.tests, some = append(t.tests, one), true
			} else if first == nil {
				first = err
			}
		}
		if !some {
			return t, first
		}
		if p.at >= len(p.text) || p.text[p.at] != ',' {
			return t, p.end()
		}
		p.at++
	}
}

func (p *parser) end() error {
	if p.at < len(p.text) && !isBlank(p.text[p.at]) {
		return p.fail(p.at, "separate terms by blanks", "unexpected %q", p.text[p.at:p.at+1])
	}
	return nil
}

// equal makes the test of column:value.
func (p *parser) equal(at, column int, key, text string, quoted bool) (test, error) {
	c := &p.schema.Table.Columns[column]
	if segment.IsInt(c.Type) {
		low, high, err := p.numbers(at, c, text)
		return test{column: column, low: low, high: high}, err
	}
	match := stringMatch(c, text, quoted)
	switch {
	case c.Type == event.Strings:
		return test{column: column, match: listMatch(match)}, nil
	case c.Type == event.Map && key == "":
		return test{column: column, match: anyValue(match)}, nil
	case c.Type == event.Map:
		return test{column: column, match: attributeMatch(key, match)}, nil
	}
	one := test{column: column, match: match}
	if c.Name != "container.id" && !strings.HasSuffix(c.Name, ".address") && text != "" && (quoted || !strings.Contains(text, "*")) {
		one.equal = []byte(text)
	}
	return one, nil
}

func stringMatch(c *event.Column, text string, quoted bool) func([]byte) bool {
	if strings.HasSuffix(c.Name, ".address") && !quoted {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			return networkMatch(prefix)
		}
		if a, err := netip.ParseAddr(text); err == nil {
			text = a.Unmap().String()
		}
	}
	switch {
	case text == "*" && !quoted:
		return func(cell []byte) bool { return len(cell) > 0 }
	case strings.Contains(text, "*") && !quoted:
		return globMatch(text)
	case c.Name == "container.id" && len(text) >= 8:
		return func(cell []byte) bool { return strings.HasPrefix(string(cell), text) }
	}
	return func(cell []byte) bool { return string(cell) == text }
}

func networkMatch(p netip.Prefix) func([]byte) bool {
	p = p.Masked()
	return func(cell []byte) bool {
		a, err := netip.ParseAddr(string(cell))
		return err == nil && p.Contains(a)
	}
}

// globMatch matches text with * for any bytes.
func globMatch(glob string) func([]byte) bool {
	parts := strings.Split(glob, "*")
	return func(cell []byte) bool {
		s := string(cell)
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

// listMatch looks at each element, and at all of them joined by blanks.
func listMatch(match func([]byte) bool) func([]byte) bool {
	return func(cell []byte) bool {
		if len(cell) == 0 {
			return match(nil)
		}
		joined := slices.Clone(cell)
		for i, c := range joined {
			if c == 0 {
				joined[i] = ' '
			}
		}
		if match(joined) {
			return true
		}
		for item := range strings.SplitSeq(string(cell), "\x00") {
			if match([]byte(item)) {
				return true
			}
		}
		return false
	}
}

func anyValue(match func([]byte) bool) func([]byte) bool {
	return func(cell []byte) bool {
		if len(cell) == 0 {
			return match(nil)
		}
		for i, item := range strings.Split(string(cell), "\x00") {
			if i%2 == 1 && match([]byte(item)) {
				return true
			}
		}
		return false
	}
}

func attributeMatch(key string, match func([]byte) bool) func([]byte) bool {
	return func(cell []byte) bool { return match(Attribute(cell, key)) }
}

// Attribute returns the value of a key of a map cell, nil if it is not there.
func Attribute(cell []byte, key string) []byte {
	rest := string(cell)
	for rest != "" {
		k, after, _ := strings.Cut(rest, "\x00")
		v, next, _ := strings.Cut(after, "\x00")
		if k == key {
			return []byte(v)
		}
		rest = next
	}
	return nil
}

// numbers reads a number, a range a-b, or * for any.
func (p *parser) numbers(at int, c *event.Column, text string) (low, high int64, err error) {
	if text == "*" {
		return event.Null + 1, math.MaxInt64, nil
	}
	if a, b, ok := strings.Cut(text, "-"); ok && a != "" && c.Type != event.Time {
		low, err := p.number(at, c, a)
		if err != nil {
			return 0, 0, err
		}
		high, err := p.number(at, c, b)
		if err == nil && low > high {
			err = p.fail(at, "write the smaller number first", "the range %s is empty", text)
		}
		return low, high, err
	}
	if low, high, ok := digitClass(c, text); ok {
		return low, high, nil
	}
	low, err = p.number(at, c, text)
	return low, low, err
}

// digitClass reads a number whose last digits may be any: 5xx is 500 to 599.
func digitClass(c *event.Column, text string) (low, high int64, ok bool) {
	head := strings.TrimRight(text, "x")
	n, err := strconv.ParseUint(head, 10, 32)
	if c.Type != event.Int || err != nil || len(text)-len(head) > 6 || head == text {
		return 0, 0, false
	}
	low, high = int64(n), int64(n)
	for range len(text) - len(head) {
		low, high = low*10, high*10+9
	}
	return low, high, true
}

func (p *parser) number(at int, c *event.Column, text string) (int64, error) {
	switch c.Type {
	case event.Bool:
		switch strings.ToLower(text) {
		case "true", "yes", "1":
			return 1, nil
		case "false", "no", "0":
			return 0, nil
		}
		return 0, p.fail(at, "write true or false", "%s is true or false, not %q", c.Name, text)
	case event.Duration:
		if d, err := time.ParseDuration(text); err == nil {
			return int64(d), nil
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n != event.Null {
			return n, nil
		}
		return 0, p.fail(at, "write 5ms, 1.5s or nanoseconds", "%s is a duration, not %q", c.Name, text)
	case event.Time:
		if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
			return t.UnixNano(), nil
		}
		return 0, p.fail(at, "write 2026-11-20T02:00:00Z, or use since and until", "%s is a time, not %q", c.Name, text)
	}
	if n, ok := parseInt(text); ok {
		return n, nil
	}
	return 0, p.fail(at, "write 443, 10k or 64Mi", "%s is a number, not %q", c.Name, text)
}

// units are the suffixes of a number.
var units = []struct {
	suffix string
	factor int64
}{
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40},
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
}

func parseInt(text string) (int64, bool) {
	factor := int64(1)
	for _, u := range units {
		if digits, ok := strings.CutSuffix(text, u.suffix); ok && digits != "" && digits[len(digits)-1] <= '9' {
			text, factor = digits, u.factor
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n == event.Null || n > math.MaxInt64/factor || n < -math.MaxInt64/factor {
		return 0, false
	}
	return n * factor, true
}

func (p *parser) comparison(t term, columns []int, op string) (term, error) {
	start := p.at
	text, _, err := p.value(false)
	if err != nil {
		return t, err
	}
	if text == "" {
		return t, p.fail(start, "", "a value is missing after %s", op)
	}
	for _, i := range columns {
		c := &p.schema.Table.Columns[i]
		if !segment.IsInt(c.Type) || c.Type == event.Bool {
			return t, p.fail(start, "use field:value", "%s cannot be compared by %s", c.Name, op)
		}
		n, err := p.number(start, c, text)
		if err != nil {
			return t, err
		}
		t.tests = append(t.tests, compared(i, op, n))
	}
	return t, nil
}

func compared(column int, op string, n int64) test {
	t := test{column: column, low: event.Null + 1, high: math.MaxInt64}
	switch op {
	case ">":
		if n == math.MaxInt64 {
			t.low, t.high = 1, 0
			break
		}
		t.low = n + 1
	case ">=":
		t.low = n
	case "<":
		t.high = n - 1
	case "<=":
		t.high = n
	}
	return t
}

// ErrTable says that a table is not in the store.
var ErrTable = errors.New("query: no such table")
