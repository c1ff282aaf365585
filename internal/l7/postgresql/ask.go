package postgresql

import (
	"bytes"
	"encoding/binary"
	"strings"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/internal/sqltext"
)

// Codes of the messages that have no type.
const (
	cancelCode = 80877102
	tlsCode    = 80877103
	gssCode    = 80877104
	version3   = 3 << 16
)

// ask reads requests.
func (c *conn) ask(chunk *event.Chunk) {
	s := &c.asks
	s.Feed(chunk)
	if s.Lost() {
		c.goesOn(s.Len())
		s.Lose()
		return
	}
	for s.Waiting() == 0 && c.askNext(s) {
	}
	left := s.Len()
	if s.Rest(); s.Lost() {
		c.goesOn(left)
	}
}

// goesOn counts bytes whose messages' heads were not captured: of a COPY.
func (c *conn) goesOn(n int) {
	c.broken = true
	if p := c.newest(); p != nil {
		p.call.Ask(c.asks.Now(), n)
	}
}

// askNext takes the next message and reports whether there may be another.
func (c *conn) askNext(s *ask) bool {
	b := s.Bytes()
	if len(b) == 0 {
		return false
	}
	if b[0] == 0 {
		return c.untyped(s, b)
	}
	typ, size, ok := header(b)
	if !ok {
		return false
	}
	if s.unsure && len(b) < min(1+size, 2*maxName) && !s.Cut() && asksType(typ) {
		return false
	}
	if size < 4 || size > maxMessage || !asksType(typ) || s.unsure && sniff(b) != l7.Asks {
		s.Lose()
		c.broken = true
		return false
	}
	body := b[5:]
	if need := min(size-4, wanted(typ)); len(body) < need && !s.Cut() {
		return false
	}
	cut := len(body) < size-4
	body = body[:min(len(body), size-4, maxText)]
	s.unsure = false
	c.message(typ, body, cut || size-4 > maxText, 1+size)
	s.Next(1 + size)
	return !c.gone
}

func asksType(t byte) bool { return strings.IndexByte("QPBDESCHFdcfpX", t) >= 0 }

// wanted returns how much of a message's body is read.
func wanted(typ byte) int {
	switch typ {
	case 'Q', 'P':
		return maxText
	case 'B', 'E', 'C':
		return 2*maxName + 2
	}
	return 0
}

// message takes one message of n bytes in all.
func (c *conn) message(typ byte, body []byte, cut bool, n int) {
	switch typ {
	case 'Q':
		c.simpleQuery(body, cut)
	case 'F':
		c.begin(simple, nil)
	case 'P':
		c.parse(body, cut)
	case 'B':
		c.bindTo(body)
	case 'D':
		if p := c.newest(); p != nil && c.building {
			p.described = true
		}
	case 'E':
		c.execute(body)
	case 'C':
		if len(body) > 0 && body[0] == 'S' {
			name, _, _ := text(body[1:])
			c.forget(name)
		}
		return
	case 'S':
		c.sync(n)
		return
	case 'H':
		c.building = false
		return
	case 'd', 'c', 'f': // COPY
	default:
		return
	}
	if p := c.newest(); p != nil {
		p.call.Ask(c.asks.Mark(), n)
	}
}

// begin opens a call.
func (c *conn) begin(k kind, st *statement) {
	if c.broken {
		return
	}
	if c.open() >= maxOpen {
		c.broken = true // who is answered is known again after a turn
		return
	}
	call := c.out.Begin(c.asks.Mark())
	c.introduce(call)
	if st != nil {
		st.describe(call)
	}
	c.push(pending{call: call, kind: k, rows: -1})
}

func (c *conn) introduce(call *l7.Call) {
	call.Protocol, call.Family, call.System = "postgresql", event.DB, "postgresql"
	call.Namespace = c.database
}

func (c *conn) read(sql []byte, cut bool) {
	c.query.Read(sql, sqltext.Options{Dialect: sqltext.PostgreSQL, Escapes: c.escapes, Cut: cut})
}

func (c *conn) simpleQuery(body []byte, cut bool) {
	sql, _, whole := text(body)
	c.read(sql, cut && !whole)
	c.unnamed.Set(&c.query) // which a simple query destroys anyway
	c.building = false
	c.begin(simple, &c.unnamed)
	c.told()
}

// told gives the newest call the trace that a comment of its query names.
func (c *conn) told() {
	if p := c.newest(); p != nil && !c.broken {
		p.call.Remote.ID, p.call.Remote.Parent = c.query.TraceID, c.query.ParentID
	}
}

// parse begins a call that its Execute will complete; without one it was a
// preparation.
func (c *conn) parse(body []byte, cut bool) {
	var st *statement
	name, rest, ok := text(body)
	if ok {
		sql, _, whole := text(rest)
		c.read(sql, cut && !whole)
		st = c.prepare(name)
		st.Set(&c.query)
		c.prepared(name, st)
	}
	c.begin(prepare, st)
	if ok {
		c.told()
	}
	c.building, c.built = !c.broken, st
}

// bindTo gives a statement to a portal.
func (c *conn) bindTo(body []byte) {
	portal, rest, ok := text(body)
	name, _, whole := text(rest)
	if !ok || !whole {
		c.bind(portal, nil)
		return
	}
	st := c.lookup(name)
	c.bind(portal, st)
	if c.building && st != nil && st == c.built {
		return
	}
	c.begin(prepare, st)
	if c.building = !c.broken; c.building {
		c.newest().bound = true
	}
	c.built = st
}

func (c *conn) execute(body []byte) {
	portal, _, _ := text(body)
	if !c.building {
		c.begin(execute, c.bound(portal))
		return
	}
	c.building = false
	c.newest().kind = execute
}

// sync ends a pipeline. Its bytes belong to the newest call if that is not over.
func (c *conn) sync(n int) {
	if p := c.newest(); p != nil {
		p.call.Ask(c.asks.Mark(), n)
	}
	c.building = false
	if c.broken || c.open() >= 2*maxOpen {
		c.broken = true
		return
	}
	c.push(pending{kind: syncs})
}

// untyped reads a message of the connection's start.
func (c *conn) untyped(s *ask, b []byte) bool {
	if len(b) < 8 {
		if s.Cut() {
			s.Lose()
			c.broken = true
		}
		return false
	}
	size, code := int(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:])
	if sniffStart(b) != l7.Asks || len(b) < size && !s.Cut() && size <= maxText {
		if len(b) < size && size <= maxText && !s.Cut() {
			return false
		}
		s.Lose()
		c.broken = true
		return false
	}
	switch code {
	case tlsCode:
		s.offered = 'S'
	case gssCode:
		s.offered = 'G'
	case cancelCode:
		c.gone = true
		return false
	default:
		c.starts(s, b[8:min(size, len(b))], size)
	}
	s.unsure = false
	s.Next(size)
	return true
}

// starts reads the startup message: the database and nothing else.
func (c *conn) starts(s *ask, params []byte, size int) {
	s.starting, s.started, s.size = true, *s.Mark(), size
	for len(params) > 0 {
		key, rest, ok := text(params)
		value, next, whole := text(rest)
		if !ok || !whole || len(key) == 0 {
			return
		}
		if string(key) == "database" && len(value) <= maxDatabase {
			c.database = strings.ToValidUTF8(string(value), "?")
		}
		params = next
	}
}

// isText reports whether b may be part of a query.
func isText(b []byte) bool {
	return bytes.IndexFunc(b, func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' && r != '\r' }) < 0
}
