package api

import (
	"net"
	"strconv"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
)

// tally counts requests by who asked whom for what.
//
//	row -> its words, numbered once a run -> key -> one look-up a row -> count
type tally struct {
	span
	columns [words]int // -1: not looked at
	limit   int        // groups told apart
	time    int
	port    int
	took    int
	failed  int

	text   []string // by number of a word
	number map[string]uint32
	local  [words][]uint32 // by code in the run at hand: number of the word plus one
	groups map[tallyKey]*group
	last   *group
	visit  func(g *group, at, took int64, failed bool) // what to do with a request

	broken bool // a column could not be read
}

// span is a range of time in steps. What lies before early ends and what comes
// after late begins is compared.
type span struct {
	from, until int64 // Unix nanoseconds
	steps       int
	early, late int64
}

func (s span) step() int64 { return max(1, (s.until-s.from+int64(s.steps)-1)/int64(s.steps)) }

// at returns the step a time lies in; times outside belong to the ends.
func (s span) at(t int64) int { return int(min(max(0, (t-s.from)/s.step()), int64(s.steps-1))) }

// begin returns the time at which a step begins.
func (s span) begin(step int) int64 { return s.from + int64(step)*s.step() }

// part tells to which part of the span a time belongs.
func (s span) part(t int64) int {
	switch {
	case t >= s.late:
		return partLate
	case t >= s.early:
		return partMiddle
	}
	return partEarly
}

// The parts of a span.
const (
	partEarly = iota
	partMiddle
	partLate
	parts
)

// The words of a key.
const (
	wordRole = iota
	wordService
	wordCommand
	wordPeer
	wordProtocol
	wordSource // the client's address
	wordTransport
	wordAddress    // of the server
	wordServerName // by which the client knows it
	wordMethod
	wordRoute
	wordRPC
	wordSummary
	wordOperation
	wordTable
	wordAction
	wordTopic
	wordQuestion
	words
)

// byOperation tells who asked whom for what, byEnds only whom and over what.
var byOperation = [words]string{
	wordRole: "role", wordService: "service.name", wordCommand: "process.executable.name", wordPeer: "peer.service.name",
	wordProtocol: "protocol", wordAddress: "destination.address", wordServerName: "attributes",
	wordMethod: "http.request.method", wordRoute: "http.route", wordRPC: "rpc.method",
	wordSummary: "db.query.summary", wordOperation: "db.operation.name", wordTable: "db.collection.name",
	wordAction: "messaging.operation.name", wordTopic: "messaging.destination.name", wordQuestion: "dns.question.type",
}

var byEnds = [words]string{
	wordRole: "role", wordService: "service.name", wordCommand: "process.executable.name", wordPeer: "peer.service.name",
	wordProtocol: "protocol", wordSource: "source.address", wordTransport: "network.transport", wordAddress: "destination.address",
}

// tallyKey is numbers of words and the server's port.
type tallyKey struct {
	word [words]uint32
	port int64
}

// group is the requests of one key.
type group struct {
	key  tallyKey
	heat []uint32 // requests by step
	red
}

// red is rate, errors and duration by part of a span.
type red [parts]struct {
	durations query.Histogram
	errors    int64
}

func (r *red) add(part int, took int64, failed bool) {
	r[part].durations.Add(took)
	if failed {
		r[part].errors++
	}
}

func (r *red) merge(o *red) {
	for i := range r {
		r[i].durations.Merge(&o[i].durations)
		r[i].errors += o[i].errors
	}
}

// whole is all parts together.
func (r *red) whole() (all query.Histogram, errors int64) {
	for i := range r {
		all.Merge(&r[i].durations)
		errors += r[i].errors
	}
	return all, errors
}

const (
	maxGroups = 4096  // keys told apart; what comes after is counted by service
	maxWords  = 32768 // texts told apart
)

func newTally(schema *segment.Schema, s span, columns *[words]string, limit int) *tally {
	t := &tally{
		span: s, limit: limit, time: schema.Time, port: schema.Index["destination.port"], took: schema.Index["duration_ns"], failed: schema.Index["error.type"],
		text: []string{"", other}, number: map[string]uint32{"": 0, other: 1}, groups: map[tallyKey]*group{},
	}
	for i, name := range columns {
		if t.columns[i] = -1; name != "" {
			t.columns[i] = schema.Index[name]
		}
	}
	t.visit = func(g *group, at, took int64, failed bool) {
		g.add(t.part(at), took, failed)
		g.heat[t.at(at)]++
	}
	return t
}

// add visits the picked rows.
func (t *tally) add(rows *segment.Rows, picks []int32) error {
	var cells [words]*segment.Vector
	for w, column := range t.columns {
		if column < 0 {
			continue
		}
		cells[w], _ = rows.Column(column) // unreadable cells are empty, and told of below
		t.local[w] = emptied(t.local[w], cells[w].Dict.Len())
	}
	times, _ := rows.Column(t.time)
	ports, _ := rows.Column(t.port)
	durations, _ := rows.Column(t.took)
	failures, _ := rows.Column(t.failed)
	for _, i := range picks {
		k := tallyKey{port: max(0, ports.Ints[i])}
		for w, cells := range cells {
			if cells == nil {
				continue
			}
			k.word[w] = t.word(w, cells, cells.Codes[i])
		}
		t.visit(t.group(k), times.Ints[i], max(0, durations.Ints[i]), failures.Codes[i] != 0)
	}
	t.broken = t.broken || rows.Err() != nil
	return nil
}

func emptied(s []uint32, n int) []uint32 {
	if cap(s) < n {
		return make([]uint32, n)
	}
	s = s[:n]
	clear(s)
	return s
}

// word numbers a cell; each entry of a run's dictionary is looked at once.
func (t *tally) word(w int, v *segment.Vector, code uint32) uint32 {
	if code == 0 || int(code) >= len(t.local[w]) {
		return 0
	}
	if n := t.local[w][code]; n > 0 {
		return n - 1
	}
	cell := v.Dict.Cell(code)
	if w == wordServerName {
		cell = query.Attribute(cell, "server.address")
	}
	n, known := t.number[string(cell)]
	if !known && len(t.text) >= maxWords {
		n, known = 1, true // other
	}
	if !known {
		n = uint32(len(t.text))
		text := string(cell)
		t.text, t.number[text] = append(t.text, text), n
	}
	t.local[w][code] = n + 1
	return n
}

func (t *tally) group(k tallyKey) *group {
	if t.last != nil && t.last.key == k {
		return t.last
	}
	g := t.groups[k]
	if g == nil && len(t.groups) >= t.limit {
		k = folded(k, len(t.groups) >= 2*t.limit)
		g = t.groups[k]
	}
	if g == nil {
		g = &group{key: k, heat: make([]uint32, t.steps)}
		t.groups[k] = g
	}
	t.last = g
	return g
}

// folded leaves of a key who asked whom or, wholly, only the role.
func folded(k tallyKey, wholly bool) tallyKey {
	for w := wordMethod; w < words; w++ {
		k.word[w] = 0
	}
	k.word[wordSource], k.word[wordSummary] = min(k.word[wordSource], 1), 1 // other
	if wholly {
		k = tallyKey{word: [words]uint32{wordRole: k.word[wordRole], wordService: 1, wordPeer: 1, wordSummary: 1}}
	}
	return k
}

// of returns a word of a group.
func (t *tally) of(g *group, w int) string { return t.text[g.key.word[w]] }

func (t *tally) isServer(g *group) bool { return t.of(g, wordRole) == event.Server.String() }

// own names the service a group was seen at.
func (t *tally) own(g *group) string {
	return firstOf(t.of(g, wordService), t.of(g, wordCommand), "unknown")
}

// endpoint is where the server listens, empty on a Unix socket.
func (t *tally) endpoint(g *group) string {
	address := t.of(g, wordAddress)
	if address == "" || g.key.port == 0 {
		return address
	}
	return net.JoinHostPort(address, strconv.FormatInt(g.key.port, 10))
}

// operation names what was asked for, with few different names.
func (t *tally) operation(g *group) string {
	return spanName(func(column string) string {
		for w, name := range byOperation {
			if name == column {
				return t.of(g, w)
			}
		}
		return ""
	})
}

func firstOf(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// spanName names a request as OpenTelemetry's conventions name its span.
func spanName(column func(name string) string) string {
	pair := func(a, b string) string {
		a, b = column(a), column(b)
		if a != "" && b != "" {
			return a + " " + b
		}
		return a + b
	}
	return firstOf(
		pair("http.request.method", "http.route"),
		column("rpc.method"),
		column("db.query.summary"),
		pair("db.operation.name", "db.collection.name"),
		pair("messaging.operation.name", "messaging.destination.name"),
		pair("dns.question.type", "dns.question.name"),
		column("protocol"),
	)
}
