// Package mongodb reads MongoDB's wire protocol: each command with its reply is
// a call.
//
//	size, request id -> open calls, by that id -> size, id, response to
//
// Only the command's name, its collection and database, and the codes of errors
// are read: no value of a filter or a document is kept.
package mongodb

import (
	"encoding/binary"
	"sync"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// Proto is MongoDB.
var Proto = l7.Proto{
	Name:  "mongodb",
	Doc:   "MongoDB: commands (OP_MSG, compressed too), the old handshake, errors",
	Sniff: sniff,
	New:   opener(),
}

// opener makes parsers that share what unpacks messages: of compressed
// connections there may be many, of messages at hand there is one.
func opener() func(l7.Out) l7.Conn {
	unpackers := &sync.Pool{New: func() any { return new(unpacker) }}
	return func(out l7.Out) l7.Conn { return newConn(out, unpackers) }
}

// Bounds of what one connection keeps.
const (
	maxOpen    = 256      // commands without a reply; further ones are not seen
	askHead    = 1024     // bytes of a command that are waited for
	answerHead = 512      // and of a reply
	maxSize    = 48 << 20 // of a message
	linkMark   = 1 << 32  // so that no link is 0
)

type conn struct {
	out       l7.Out
	unpackers *sync.Pool
	ways      [3]way // by side
	open      []pending
}

// way is one direction.
type way struct {
	l7.Stream
	left int      // bytes of the message at hand that are still to come
	call *l7.Call // it belongs to; nil if to none
	gap  bool     // some of it was not seen
	last bool     // the call ends with it
}

// pending is a command without its reply.
type pending struct {
	call *l7.Call
	id   uint32
}

func newConn(out l7.Out, unpackers *sync.Pool) *conn {
	c := &conn{out: out, unpackers: unpackers}
	c.ways[l7.Asks].Limit, c.ways[l7.Answers].Limit = askHead, answerHead
	return c
}

// Data takes the next bytes of one way.
func (c *conn) Data(side l7.Side, chunk *event.Chunk) {
	w := &c.ways[side]
	w.Feed(chunk)
	if w.Lost() {
		if sniff(w.Bytes()) != side {
			w.Lose()
			return
		}
		w.Found()
	}
	for w.Len() > 0 {
		if w.left > 0 {
			c.body(side, w)
			continue
		}
		if !c.message(side, w) {
			break
		}
	}
	w.Rest()
}

// body steps over what follows the head.
func (c *conn) body(side l7.Side, w *way) {
	n := min(w.left, w.Len())
	switch {
	case w.call == nil:
	case side == l7.Asks:
		w.call.Ask(w.Now(), n)
	default:
		w.call.Answer(w.Now(), n)
	}
	w.left -= n
	w.Next(n)
	if w.left == 0 {
		c.done(w)
	}
}

// done is called at a message's last byte.
func (c *conn) done(w *way) {
	if w.last && w.call != nil {
		c.end(w.call, !w.gap)
	}
	w.call, w.last, w.gap = nil, false, false
}

// header is what every message begins with.
type header struct {
	size         int
	id, answerTo uint32
	op           opcode
}

const headerSize = 16

type opcode uint32

const (
	opReply      opcode = 1
	opQuery      opcode = 2004
	opCompressed opcode = 2012
	opMsg        opcode = 2013
)

func headerOf(b []byte) header {
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	return header{size: int(word(0)), id: word(4), answerTo: word(8), op: opcode(word(12))}
}

// message reads the head of one, false if it is not all here.
func (c *conn) message(side l7.Side, w *way) bool {
	b := w.Bytes()
	if len(b) < headerSize {
		return false
	}
	h := headerOf(b)
	if h.size < headerSize || h.size > maxSize {
		w.Lose()
		return false
	}
	if len(b) < min(h.size, w.Limit) && !w.Cut() {
		return false
	}
	w.left = h.size
	body := b[headerSize:min(h.size, len(b))]
	if h.op == opCompressed {
		u := c.unpackers.Get().(*unpacker)
		h.op, body = u.open(body)
		c.deal(side, w, h, body)
		c.unpackers.Put(u)
		return true
	}
	c.deal(side, w, h, body)
	return true
}

func (c *conn) deal(side l7.Side, w *way, h header, body []byte) {
	if side == l7.Asks {
		c.ask(w, h, body)
		return
	}
	c.answered(w, h, body)
}

// ask begins a call.
func (c *conn) ask(w *way, h header, b []byte) {
	if h.op != opMsg && h.op != opQuery || len(c.open) >= maxOpen {
		return
	}
	call := c.out.Begin(w.Mark())
	call.Family, call.System = event.DB, "mongodb"
	call.Link = linkMark | uint64(h.id)
	w.call = call
	if h.op == opQuery {
		query(call, b)
	} else {
		w.last = command(call, b)
	}
	summarize(call)
	if !w.last {
		c.open = append(c.open, pending{call: call, id: h.id})
	}
}

// answered finds the call of a reply. Of several replies to one command (an
// exhausted cursor, a server's state) the first is the one.
func (c *conn) answered(w *way, h header, b []byte) {
	for i := range c.open {
		if c.open[i].id != h.answerTo {
			continue
		}
		w.call, w.last = c.open[i].call, true
		w.call.Answer(w.Mark(), 0)
		reply(w.call, h.op, b)
		return
	}
}

// end ends a call and forgets it.
func (c *conn) end(call *l7.Call, complete bool) {
	for side := range c.ways {
		if w := &c.ways[side]; w.call == call {
			w.call, w.last = nil, false
		}
	}
	for i := range c.open {
		if c.open[i].call == call {
			n := copy(c.open[i:], c.open[i+1:])
			c.open[i+n] = pending{}
			c.open = c.open[:i+n]
			break
		}
	}
	c.out.End(call, complete)
}

// Missing says that n bytes were never seen.
func (c *conn) Missing(side l7.Side, n uint64) {
	w := &c.ways[side]
	if n > 0 && n <= uint64(w.left) && w.Len() == 0 {
		w.gap = true
		w.left -= int(n)
		if w.left == 0 {
			c.done(w)
		}
		return
	}
	if w.last && w.call != nil {
		c.end(w.call, false)
	}
	w.left, w.call, w.last, w.gap = 0, nil, false, false
	w.Lose()
}

// Close ends every open call.
func (c *conn) Close() {
	for side := range c.ways {
		if w := &c.ways[side]; w.call != nil && w.last {
			c.end(w.call, false)
		}
	}
	for len(c.open) > 0 {
		c.end(c.open[0].call, false)
	}
}
