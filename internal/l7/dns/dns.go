// Package dns reads the domain name system over UDP and TCP: each question with
// its answer is a call, and the addresses in an answer get the question's name.
//
//	query -> open calls, by id and question -> response -> Learn(name, address)
package dns

import (
	"encoding/binary"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// Proto is DNS.
var Proto = l7.Proto{
	Name:     "dns",
	Doc:      "DNS over UDP and TCP: questions, response codes, and the names of addresses",
	Datagram: true,
	Sniff:    sniff,
	New:      func(out l7.Out) l7.Conn { return newConn(out) },
}

// Bounds of what one connection keeps.
const (
	maxOpen = 256  // questions without an answer; further ones are not seen
	maxKept = 4096 // bytes of a message on a stream that are waited for
	timeout = 5e9  // nanoseconds after which no answer is waited for, the resolver's own default
	idMark  = 1 << 16
)

type conn struct {
	out   l7.Out
	ways  [3]l7.Stream // of TCP, by side
	begun [3]bool      // the place in it is known
	open  []pending

	asked, owner, alias [maxName]byte // names while a message is read
	text                []byte        // of addresses
}

// pending is a question without its answer.
type pending struct {
	call *l7.Call
	id   uint16
	hash uint64 // of the question
	last int64  // when it was sent last
}

func newConn(out l7.Out) *conn {
	c := &conn{out: out}
	for i := range c.ways {
		c.ways[i].Limit = maxKept + 2
	}
	return c
}

// Data takes the next bytes of one way.
func (c *conn) Data(side l7.Side, chunk *event.Chunk) {
	s := &c.ways[side]
	s.Feed(chunk)
	if chunk.Transport == event.UDP {
		c.message(side, s.Bytes(), s, s.Len(), true)
		s.Next(s.Len())
		s.Rest()
		return
	}
	c.stream(side, s)
	s.Rest()
}

// stream reads messages that each have their length before them.
func (c *conn) stream(side l7.Side, s *l7.Stream) {
	if b := s.Bytes(); (s.Lost() || !c.begun[side]) && sniffFramed(b) == l7.Neither {
		if sniffMessage(b) != l7.Neither { // its length was read by itself, unseen
			c.message(side, b, s, s.Len(), !s.Cut())
			s.Next(s.Len())
			s.Found()
			c.begun[side] = true
			return
		}
		if s.Lost() {
			s.Lose()
			return
		}
	}
	s.Found()
	c.begun[side] = true
	for {
		b := s.Bytes()
		if len(b) < 2 {
			return
		}
		size := 2 + int(binary.BigEndian.Uint16(b))
		if len(b) < min(size, maxKept) && !s.Cut() {
			return
		}
		c.message(side, b[2:min(size, len(b))], s, size, s.Len() >= size)
		s.Next(size)
	}
}

// message reads one, of which b was captured.
func (c *conn) message(side l7.Side, b []byte, s *l7.Stream, size int, whole bool) {
	h, ok := header(b)
	if !ok || h.answer != (side == l7.Answers) {
		return
	}
	if side == l7.Asks {
		c.ask(h, b, s, size)
		return
	}
	c.answer(h, b, s, size, whole)
}

// ask begins a call, or finds that it was begun: the same question again is the
// same call.
func (c *conn) ask(h head, b []byte, s *l7.Stream, size int) {
	q, ok := c.question(h, b)
	if !ok {
		return
	}
	if i := c.find(h.id, q.hash); i >= 0 {
		c.open[i].call.Ask(s.Now(), size)
		c.open[i].last = s.Now().Time
		return
	}
	if len(c.open) >= maxOpen {
		return
	}
	call := c.out.Begin(s.Mark())
	call.Family, call.Link = event.DNS, idMark|uint64(h.id)
	call.Target, call.Operation = call.Keep(q.name), typeName(call, q.kind)
	call.Ask(s.Now(), size)
	c.open = append(c.open, pending{call: call, id: h.id, hash: q.hash, last: s.Now().Time})
}

// find returns the open call of an id and a question, -1 if there is none.
func (c *conn) find(id uint16, hash uint64) int {
	for i := range c.open {
		if c.open[i].id == id && c.open[i].hash == hash {
			return i
		}
	}
	return -1
}

// only returns the open call of an id, for answers that do not repeat the
// question: errors of old servers.
func (c *conn) only(id uint16) int {
	found := -1
	for i := range c.open {
		if c.open[i].id != id {
			continue
		}
		if found >= 0 {
			return -1
		}
		found = i
	}
	return found
}

// answer ends a call.
func (c *conn) answer(h head, b []byte, s *l7.Stream, size int, whole bool) {
	q, ok := c.question(h, b)
	i := -1
	switch {
	case ok:
		i = c.find(h.id, q.hash)
	case h.questions == 0:
		i = c.only(h.id)
	}
	if i < 0 {
		return
	}
	call := c.open[i].call
	call.Answer(s.Now(), size)
	code := h.code
	if ok {
		code |= c.records(call, h, q, b)
	}
	call.Outcome = codeName(call, code)
	if code != 0 {
		call.Error = call.Outcome
	}
	c.end(i, whole)
}

func (c *conn) end(i int, complete bool) {
	call := c.open[i].call
	last := len(c.open) - 1
	c.open[i] = c.open[last]
	c.open[last] = pending{}
	c.open = c.open[:last]
	c.out.End(call, complete)
}

// Missing says that n bytes were never seen.
func (c *conn) Missing(side l7.Side, n uint64) { c.ways[side].Missing(n) }

// Idle ends the questions that nobody answered.
func (c *conn) Idle(now int64) {
	for i := len(c.open) - 1; i >= 0; i-- {
		if now-c.open[i].last < timeout {
			continue
		}
		call := c.open[i].call
		call.DurationNS = now - call.Time
		if call.Role == event.Client {
			call.Error = "timeout"
		}
		c.end(i, false)
	}
}

// Close ends every open call.
func (c *conn) Close() {
	for len(c.open) > 0 {
		c.end(len(c.open)-1, false)
	}
}
