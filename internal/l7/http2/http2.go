// Package http2 reads HTTP/2, and gRPC in it.
package http2

import (
	"encoding/binary"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// Proto finds the requests of HTTP/2 connections. Their protocol is http in
// version 2, or grpc.
var Proto = l7.Proto{
	Name:  "http2",
	Doc:   "HTTP/2 and gRPC: streams, trailers, HPACK also where its table was missed",
	Sniff: sniff,
	New:   func(out l7.Out) l7.Conn { return newConn(out) },
}

const (
	maxStreams = 256     // open calls of a connection; one more ends the oldest
	maxFree    = 32      // streams kept for later ones
	maxDrift   = 1 << 30 // bytes that are believed missing at once
	// farAhead is how much greater than the last request's the id of an answer may
	// be that is seen before its request.
	farAhead = 16
	// An answered call whose request has no end, and one that lost bytes, are ended
	// when nothing more was seen of them for so long.
	afterAnswer = 1e9
	afterLoss   = 10e9
)

// conn follows one connection:
//
//	bytes -> frames -> header blocks -> fields -> words of a call
//	                -> DATA: counted, stepped over
type conn struct {
	out     l7.Out
	ways    [3]way // by side
	streams []*stream
	free    []*stream
	fields  fields
	last    uint32 // id of the newest request
	early   int    // streams of which only the answer was seen
	rpc     bool   // one of the calls was gRPC
}

// way is one direction.
type way struct {
	in    l7.Stream
	table table
	begun bool // its first bytes were looked at

	// The DATA frame at hand: left bytes of it are to come, the first body of them
	// the stream's (the rest is padding). cur is nil if nobody knows the stream.
	cur        *stream
	left, body int
	fin        bool

	block  block
	adrift *stream // whose answer goes on where the place was lost
}

// block is a header block that comes in several frames.
type block struct {
	open bool
	torn bool // a part of it was not seen, or it is too long
	fin  bool
	push bool
	id   uint32
	from l7.Mark
	size int // bytes of its frames
	text []byte
}

func newConn(out l7.Out) *conn {
	c := &conn{out: out}
	for _, side := range [...]l7.Side{l7.Asks, l7.Answers} {
		w := &c.ways[side]
		w.in.Limit = headBytes + maxFrame
		w.table.forget()
		w.in.Lose()
	}
	return c
}

// Inherit begins with the request that asked for HTTP/2 in HTTP/1: it is answered
// as stream 1.
func (c *conn) Inherit(u *l7.Upgrade) {
	c.last = 1
	s := c.add(1)
	s.done[l7.Asks], s.seen = true, u.Mark.Time
	s.call = c.out.Begin(&u.Mark)
	w := &u.Words
	s.call.Protocol, s.call.Version, s.call.Family, s.call.Link = "http", "2", event.HTTP, 1
	s.call.Operation, s.call.Text, s.call.Query, s.call.Remote = w.Operation, w.Text, w.Query, u.Remote
	for _, a := range w.Attrs {
		s.call.Add(a.Key, a.Value)
	}
}

// Data takes the next bytes of one way.
func (c *conn) Data(side l7.Side, chunk *event.Chunk) {
	w := &c.ways[side]
	w.in.Feed(chunk)
	if w.in.Lost() && !c.find(side, w) {
		return
	}
	for c.step(side, w) {
	}
	w.in.Rest()
}

// Missing says that n bytes of one way were never seen. Inside of a DATA frame
// they are no harm.
func (c *conn) Missing(side l7.Side, n uint64) {
	w := &c.ways[side]
	if n > 0 && n <= uint64(w.left) {
		c.eat(side, w, nil, int(n))
		return
	}
	if n > 0 && n <= w.in.Waiting() {
		w.in.Missing(n)
		return
	}
	c.lose(side, w)
	c.drift(w, int(min(n, maxDrift)))
}

// Close ends every call that is open.
func (c *conn) Close() {
	for len(c.streams) > 0 {
		c.finish(c.streams[len(c.streams)-1], false)
	}
}

// Idle ends calls whose end was missed.
func (c *conn) Idle(now int64) {
	for i := len(c.streams) - 1; i >= 0; i-- {
		s := c.streams[i]
		quiet := now - s.seen
		if s.done[l7.Answers] && quiet >= afterAnswer || (s.holed || s.call == nil) && quiet >= afterLoss {
			c.finish(s, false)
		}
	}
}

// step takes one frame, or what is there of a DATA frame, and reports whether
// there may be more.
func (c *conn) step(side l7.Side, w *way) bool {
	if w.left > 0 {
		return c.data(side, w)
	}
	b := w.in.Bytes()
	if len(b) < headBytes {
		if w.in.Cut() {
			c.lose(side, w)
		}
		return false
	}
	h := frameAt(b)
	if !h.isValid() || w.block.open != (h.typ == continuation) {
		c.lose(side, w)
		return false
	}
	switch h.typ {
	case data:
		return c.beginData(side, w, h)
	case headers, pushPromise, continuation:
		return c.headers(side, w, h)
	case rstStream, goAway:
		return c.control(side, w, h)
	}
	w.in.Next(headBytes + h.length)
	return true
}

// beginData reads the head of a DATA frame.
func (c *conn) beginData(side l7.Side, w *way, h frame) bool {
	head, pad := headBytes, 0
	if h.has(padded) {
		if len(w.in.Bytes()) == headBytes && !w.in.Cut() {
			return false // its length comes next
		}
		head++
		if b := w.in.Bytes(); len(b) >= head {
			pad = int(b[headBytes])
		}
		if h.length < 1+pad {
			c.lose(side, w)
			return false
		}
	}
	w.cur, w.fin = c.stream(h.id), h.has(endStream)
	w.left = headBytes + h.length - head
	w.body = w.left - pad
	if w.cur != nil {
		c.count(side, w, w.cur, head)
	}
	w.in.Next(head)
	if w.left == 0 {
		c.endData(side, w)
	}
	return true
}

// data takes what is here of a DATA frame.
func (c *conn) data(side l7.Side, w *way) bool {
	n := min(w.left, w.in.Len())
	if n == 0 {
		return false
	}
	b := w.in.Bytes()
	c.eat(side, w, b[:min(n, len(b))], n)
	w.in.Next(n)
	return true
}

// eat takes n bytes of a DATA frame, the first of which are p.
func (c *conn) eat(side l7.Side, w *way, p []byte, n int) {
	body := min(n, w.body)
	w.left, w.body = w.left-n, w.body-body
	if s := w.cur; s != nil {
		c.count(side, w, s, n)
		if side == l7.Answers {
			s.body += int64(body)
		}
		if s.isTalk() {
			p = p[:min(body, len(p))]
			s.messages[side].walk(p, body-len(p))
		}
	}
	if w.left == 0 {
		c.endData(side, w)
	}
}

func (c *conn) endData(side l7.Side, w *way) {
	s := w.cur
	w.cur = nil
	if s != nil && w.fin {
		c.done(side, s)
	}
}

// count adds n bytes at hand to a stream.
func (c *conn) count(side l7.Side, w *way, s *stream, n int) {
	if side == l7.Asks {
		s.ask(w.in.Now(), n)
		return
	}
	s.answer(w.in.Mark(), w.in.Now(), n)
}

// headers takes a frame of a header block.
func (c *conn) headers(side l7.Side, w *way, h frame) bool {
	b, size := w.in.Bytes(), headBytes+h.length
	if len(b) < size && h.length <= maxFrame && !w.in.Cut() {
		return false
	}
	whole := len(b) >= size && h.length <= maxFrame
	part, ok := h.fragment(b[headBytes:min(size, len(b))], whole)
	if whole && !ok {
		c.lose(side, w)
		return false
	}
	k := &w.block
	if h.typ != continuation {
		*k = block{text: k.text[:0], id: h.id, from: *w.in.Mark(), fin: h.typ == headers && h.has(endStream), push: h.typ == pushPromise}
	}
	k.open = !h.has(endHeaders)
	k.size += size
	if h.typ != continuation && !k.open { // as nearly always: nothing is copied
		k.torn = !whole
		c.endBlock(side, w, part)
	} else {
		k.add(part, whole)
		if !k.open {
			c.endBlock(side, w, k.text)
		}
	}
	w.in.Next(size)
	return true
}

// add appends a part of the block. Behind what is not there nothing can be read.
func (k *block) add(part []byte, whole bool) {
	if k.torn {
		return
	}
	room := maxFrame - len(k.text)
	k.torn = !whole || len(part) > room
	k.text = append(k.text, part[:min(room, len(part))]...)
}

// endBlock reads a header block.
func (c *conn) endBlock(side l7.Side, w *way, text []byte) {
	k := &w.block
	c.fields.reset()
	if !w.table.decode(text, &c.fields) {
		k.torn = true
	}
	if k.torn {
		w.table.forget()
	}
	switch {
	case k.push:
	case side == l7.Asks:
		c.asked(w, k)
	default:
		c.answered(w, k)
	}
}

// asked takes the head of a request, or its trailers.
func (c *conn) asked(w *way, k *block) {
	f, s := &c.fields, c.stream(k.id)
	if s == nil || s.call == nil {
		if k.id&1 == 0 || k.id <= c.last || !isRequest(f) {
			return // of a call that is over, or began before us
		}
		s = c.open(s, k)
	}
	s.ask(w.in.Now(), k.size)
	s.holed = s.holed || k.torn
	s.done[l7.Asks] = s.done[l7.Asks] || k.fin
	c.settle(s)
}

// isRequest reports whether fields are a request's, or may be.
func isRequest(f *fields) bool {
	return f.value[status] == nil && (f.value[method] != nil || f.value[path] != nil || f.unknown > 0)
}

// open begins a call. If its answer was seen before, s is its stream.
func (c *conn) open(s *stream, k *block) *stream {
	c.last = k.id
	if s == nil {
		s = c.add(k.id)
	} else {
		c.early--
	}
	if c.early > 0 {
		c.dropEarly()
	}
	f := &c.fields
	s.call = c.out.Begin(&k.from)
	s.call.Link = uint64(k.id)
	ask(s.call, f)
	s.unsure = f.unknown > 0 && f.value[contentType] == nil
	s.poor = f.value[method] == nil || f.value[path] == nil && s.call.Operation != "CONNECT"
	s.timeout = timeoutOf(f.value[grpcTimeout])
	if e := &s.early; e.bytes > 0 {
		s.answer(&e.first, &e.last, e.bytes)
		s.messages[l7.Answers].lost = true // were not looked at
	}
	return s
}

// dropEarly forgets the answers whose requests were not seen: newer ones were.
func (c *conn) dropEarly() {
	for i := len(c.streams) - 1; i >= 0; i-- {
		if s := c.streams[i]; s.call == nil && s.id < c.last {
			c.finish(s, false)
		}
	}
}

// answered takes the head of an answer, or its trailers.
func (c *conn) answered(w *way, k *block) {
	s := c.stream(k.id)
	if s == nil {
		if c.last == 0 || k.id&1 == 0 || k.id <= c.last || k.id > c.last+farAhead {
			return
		}
		s = c.add(k.id)
		c.early++
	}
	f := &c.fields
	n := int32(number(f.value[status]))
	if n >= 100 && n < 200 && !k.fin {
		if s.call != nil {
			s.call.ResponseBytes += int64(k.size)
		}
		return
	}
	s.answer(&k.from, w.in.Now(), k.size)
	s.holed = s.holed || k.torn
	c.answerWords(s, n)
	if k.fin {
		c.done(l7.Answers, s)
	}
}

// answerWords takes the fields of an answer's head or trailers.
func (c *conn) answerWords(s *stream, code int32) {
	f := &c.fields
	if s.begun {
		s.trailed = true
	} else {
		s.begun, s.status, s.vague = true, max(code, 0), code < 0
		s.length = number(f.value[contentLength])
	}
	s.partly = s.partly || f.unknown > 0
	if text := f.value[grpcStatus]; text != nil {
		s.rpcStatus = rpcStatus(text)
	}
	if s.unsure && f.value[contentType] != nil {
		s.unsure = false
		if isGRPC(f.value[contentType]) {
			becomeRPC(s.call)
		}
	}
}

// control takes RST_STREAM and GOAWAY.
func (c *conn) control(side l7.Side, w *way, h frame) bool {
	b, size := w.in.Bytes(), headBytes+h.length
	need := headBytes + 4*int(1+h.typ/goAway) // the code, or the last stream and the code
	if len(b) < need && !w.in.Cut() {
		return false
	}
	whole := len(b) >= need
	switch s := c.stream(h.id); {
	case h.typ == goAway && side == l7.Answers && whole:
		c.goneAway(binary.BigEndian.Uint32(b[headBytes:]) & (1<<31 - 1))
	case s == nil:
	case whole:
		s.seen = w.in.Now().Time
		c.reset(s, binary.BigEndian.Uint32(b[headBytes:]))
	default:
		c.finish(s, false)
	}
	w.in.Next(size)
	return true
}

// goneAway ends the calls that the server says it will not look at.
func (c *conn) goneAway(last uint32) {
	for i := len(c.streams) - 1; i >= 0; i-- {
		if s := c.streams[i]; s.id > last {
			c.reset(s, refusedStream)
		}
	}
}

// reset ends a stream at once. After the answer it only means that the rest of
// the request is not wanted.
func (c *conn) reset(s *stream, code uint32) {
	s.wasReset, s.code = true, code
	if s.call != nil {
		c.finish(s, true)
	}
}

// done says that one way of a stream has ended.
func (c *conn) done(side l7.Side, s *stream) {
	s.done[side] = true
	c.settle(s)
}

// settle ends a call that is over.
func (c *conn) settle(s *stream) {
	switch {
	case s.call == nil:
	case s.wasReset, s.done[l7.Asks] && s.done[l7.Answers]:
		c.finish(s, true)
	case s.done[l7.Answers] && s.holed:
		c.finish(s, false) // the end of the request may have been missed
	}
}

// finish ends a call and forgets its stream.
func (c *conn) finish(s *stream, complete bool) {
	if s.call == nil {
		c.early--
		c.remove(s)
		return
	}
	if s.looksLikeRPC(c.rpc) {
		becomeRPC(s.call)
	}
	c.rpc = c.rpc || s.call.Family == event.RPC
	answer(s.call, s)
	c.out.End(s.call, complete && s.isKnown())
	c.remove(s)
}

// stream returns the open stream with an id, nil if there is none.
func (c *conn) stream(id uint32) *stream {
	for i := len(c.streams) - 1; i >= 0; i-- {
		if c.streams[i].id == id {
			return c.streams[i]
		}
	}
	return nil
}

// add opens a stream.
func (c *conn) add(id uint32) *stream {
	if len(c.streams) == maxStreams {
		c.finish(c.streams[0], false)
	}
	if len(c.free) == 0 {
		c.free = append(c.free, new(stream))
	}
	s := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	*s = stream{id: id, rpcStatus: rpcUntold, length: -1}
	c.streams = append(c.streams, s)
	return s
}

// remove forgets a stream.
func (c *conn) remove(s *stream) {
	for i := range c.ways {
		w := &c.ways[i]
		if w.cur == s {
			w.cur = nil
		}
		if w.adrift == s {
			w.adrift = nil
		}
	}
	for i := len(c.streams) - 1; i >= 0; i-- {
		if c.streams[i] == s {
			c.streams = append(c.streams[:i], c.streams[i+1:]...)
			break
		}
	}
	s.call = nil
	if len(c.free) < maxFree {
		c.free = append(c.free, s)
	}
}
