// Package kafka reads the protocol between Kafka's clients and brokers: each
// request with its answer is a call.
//
//	size, api, version, correlation id -> open calls, by that id -> size, correlation id, ...
//
// Only heads are read: the topics, the group, the codes of errors. Records are
// counted, never kept.
package kafka

import (
	"encoding/binary"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// Proto is Kafka.
var Proto = l7.Proto{
	Name:  "kafka",
	Doc:   "Kafka: produce, fetch and all other requests of clients to brokers, topics by name and by id",
	Sniff: sniff,
	New:   func(out l7.Out) l7.Conn { return newConn(out) },
}

// Bounds of what one connection keeps.
const (
	maxOpen    = 256     // requests without an answer; further ones are not seen
	askHead    = 1024    // bytes of a request that are waited for
	answerHead = 4096    // and of an answer
	maxSize    = 1 << 30 // of a message
	maxName    = 249     // bytes of a topic's name (Kafka's own bound)
	linkMark   = 1 << 32 // so that no link is 0
)

type conn struct {
	out     l7.Out
	ids     l7.Notebook // names of topics by their ids; nil if there is none
	ways    [3]way      // by side
	open    []pending
	fetched [maxName]byte // topic of the last fetch that named one: a session's later ones do not
	session []byte
	key     [16]byte // of the notebook
	reader  reader   // of the message at hand
}

// way is one direction.
type way struct {
	l7.Stream
	left int      // bytes of the message at hand that are still to come
	call *l7.Call // it belongs to; nil if to none
	gap  bool     // some of it was not seen
	last bool     // the call ends with it
}

// pending is a request without its answer.
type pending struct {
	call        *l7.Call
	correlation int32
	key         int16
	version     int16
}

func newConn(out l7.Out) *conn {
	c := &conn{out: out}
	c.ids, _ = out.(l7.Notebook)
	c.ways[l7.Asks].Limit, c.ways[l7.Answers].Limit = askHead, answerHead
	return c
}

// Data takes the next bytes of one way.
func (c *conn) Data(side l7.Side, chunk *event.Chunk) {
	w := &c.ways[side]
	w.Feed(chunk)
	if w.Lost() {
		if !c.begins(side, w.Bytes()) {
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

// begins reports whether b may begin a message, after a loss.
func (c *conn) begins(side l7.Side, b []byte) bool {
	if side == l7.Asks {
		return sniff(b) == l7.Asks
	}
	return len(b) >= 8 && c.find(int32(binary.BigEndian.Uint32(b[4:]))) >= 0 && binary.BigEndian.Uint32(b) < maxSize
}

// body steps over what follows the head.
func (c *conn) body(side l7.Side, w *way) {
	n := min(w.left, w.Len())
	c.count(side, w, n)
	w.left -= n
	w.Next(n)
	if w.left == 0 {
		c.done(w)
	}
}

func (c *conn) count(side l7.Side, w *way, n int) {
	switch {
	case w.call == nil:
	case side == l7.Asks:
		w.call.Ask(w.Now(), n)
	default:
		w.call.Answer(w.Now(), n)
	}
}

// done is called at a message's last byte.
func (c *conn) done(w *way) {
	if w.last && w.call != nil {
		c.end(w.call, !w.gap)
	}
	w.call, w.last, w.gap = nil, false, false
}

// message reads the head of one, false if it is not all here.
func (c *conn) message(side l7.Side, w *way) bool {
	b := w.Bytes()
	if len(b) < 4 {
		return false
	}
	size := binary.BigEndian.Uint32(b)
	if size < 4 || size > maxSize {
		w.Lose()
		return false
	}
	whole, limit := 4+int(size), w.Limit
	if len(b) < min(whole, limit) && !w.Cut() {
		return false
	}
	w.left = whole
	head := b[4:min(whole, len(b))]
	if side == l7.Asks {
		c.ask(w, head)
	} else {
		c.answered(w, head)
	}
	return true
}

// ask begins a call.
func (c *conn) ask(w *way, b []byte) {
	r := &c.reader
	*r = reader{b: b}
	key, version, correlation := r.int16(), r.int16(), r.int32()
	client := r.string()
	if r.bad || key < 0 || int(key) >= len(apis) || version < 0 || len(c.open) >= maxOpen {
		return
	}
	a := &apis[key]
	r.flexible = a.isFlexible(version)
	r.tags()
	call := c.out.Begin(w.Mark())
	call.Family, call.System, call.Operation = event.Messaging, "kafka", a.name
	call.Link = linkMark | uint64(uint32(correlation))
	if len(client) > 0 && len(client) <= maxName {
		call.Add("messaging.client.id", call.Keep(client))
	}
	w.call = call
	if a.ask != nil && version <= a.newest {
		w.last = a.ask(c, call, r, version)
	}
	if !w.last {
		c.open = append(c.open, pending{call: call, correlation: correlation, key: key, version: version})
	}
}

// answered finds the call of an answer.
func (c *conn) answered(w *way, b []byte) {
	if len(b) < 4 {
		return
	}
	i := c.find(int32(binary.BigEndian.Uint32(b)))
	if i < 0 {
		return
	}
	p := c.open[i]
	a := &apis[p.key]
	w.call, w.last = p.call, true
	p.call.Answer(w.Mark(), 0)
	if a.answer == nil || p.version > a.newest {
		return
	}
	r := &c.reader
	*r = reader{b: b[4:], flexible: a.isFlexible(p.version)}
	if p.key != apiVersions { // whoever asks which versions there are knows none (KIP-511)
		r.tags()
	}
	if p.version >= a.throttle {
		r.skip(4)
	}
	if code := a.answer(c, p.call, r, p.version); code != 0 {
		p.call.Error = failure(code)
	}
}

const apiVersions = 18

func (a *api) isFlexible(version int16) bool { return a.flexible >= 0 && version >= a.flexible }

// find returns the open call of a correlation id, -1 if there is none.
func (c *conn) find(correlation int32) int {
	for i := range c.open {
		if c.open[i].correlation == correlation {
			return i
		}
	}
	return -1
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
