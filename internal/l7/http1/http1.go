// Package http1 finds requests in HTTP/1.0 and HTTP/1.1 (RFC 9112), and the
// events of the streams that answer some of them.
package http1

import (
	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// Proto is HTTP/1.x.
var Proto = l7.Proto{
	Name:  "http",
	Doc:   "HTTP/1.0 and 1.1, server-sent events",
	Sniff: sniff,
	New:   func(out l7.Out) l7.Conn { return &conn{out: out} },
}

const (
	// maxOpen bounds the requests of a connection that wait for their answers.
	maxOpen = 256
	// patience is how long an answer whose end cannot be told may be silent.
	patience = 1e9
)

// place is what a way brings next.
type place uint8

const (
	atHead      place = iota
	inBody            // left bytes
	atChunkSize       // "1f\r\n"
	inChunk           // left bytes
	afterChunk        // "\r\n"
	atTrailer         // lines to an empty one
	untilClose        // nothing else
	astray            // the end of the message is not known
)

// way is one direction of a connection: a reader and where it stands.
type way struct {
	l7.Stream
	side    l7.Side
	at      place
	left    uint64
	scanned int  // bytes of an incomplete head that hold no end
	held    int  // bytes kept while astray that may begin a head
	chunked bool // the body is
}

// exchange is a request that is not answered to its end.
type exchange struct {
	call    *l7.Call
	upgrade string // that the request asked for
	asked   bool   // the request was seen to its end
	expects bool   // 100-continue, and no byte of the body was seen
	broken  bool   // bytes of it are missing
	closes  bool   // the connection ends with the answer
	ended   bool   // so it seems, until another byte comes
	head    bool   // HEAD: the answer has no body
	connect bool
	stream  stream
}

// orphan is an answer whose request was not seen before it: ways may be seen out
// of order.
type orphan struct {
	first, last l7.Mark
	status      int32
	bytes       int
	done        bool
}

// conn follows one connection.
//
//	Data -> step -> head, body, ... (of one message) -> take (counts bytes)
//	request: Begin -> open -> ... answer: fills -> End
type conn struct {
	out     l7.Out
	asks    way
	answers way

	open      []exchange // in the order they were asked
	asking    *l7.Call   // whose request is being sent, if it is open: the last one's
	answering bool       // the first of open is being answered
	events    bool       // that is an event stream
	gap       bool       // whole answers may be missing since the last head
	ignore    int        // answers to come to requests that were given up
	orphan    orphan
	orphaned  bool        // the answer at hand is that
	upgraded  *l7.Upgrade // nil until it was
}

func (c *conn) way(side l7.Side) *way {
	w := &c.asks
	if side == l7.Answers {
		w = &c.answers
	}
	w.side = side
	return w
}

// Data implements l7.Conn.
func (c *conn) Data(side l7.Side, ch *event.Chunk) {
	if c.upgraded != nil || side != l7.Asks && side != l7.Answers {
		return
	}
	w := c.way(side)
	w.Feed(ch)
	c.doubt(w)
	for w.Len() > 0 && c.step(w) {
		if c.upgraded != nil {
			c.handOn(ch)
			return
		}
	}
	if w.Cut() || len(w.Bytes()) > l7.DefaultLimit {
		c.giveUp(w)
	}
	w.Rest()
}

// giveUp goes astray: what is here belongs to the message at hand, and its end
// is in what was not captured.
func (c *conn) giveUp(w *way) {
	c.take(w, w.Len())
	c.lose(w)
}

// lose says that the message at hand ends nobody knows where. A request is over
// when its answer is.
func (c *conn) lose(w *way) {
	w.at, w.held, w.scanned, w.left = astray, 0, 0, 0
	if w.side == l7.Asks && c.asking != nil {
		last := &c.open[len(c.open)-1]
		last.asked = true
		c.adopt(last)
	}
}

// step reads what it can of the message at hand. It returns false when it needs
// more bytes.
func (c *conn) step(w *way) bool {
	switch w.at {
	case atHead:
		return c.head(w)
	case inBody, inChunk:
		n := int(min(w.left, uint64(w.Len())))
		c.body(w, n)
		w.left -= uint64(n)
		if w.left > 0 {
			return true
		}
		if w.at == inBody {
			c.end(w)
		} else {
			w.at = afterChunk
		}
		return true
	case atChunkSize:
		return c.chunkSize(w)
	case afterChunk:
		return c.afterChunk(w)
	case atTrailer:
		return c.trailer(w)
	case untilClose:
		c.body(w, w.Len())
		return true
	}
	return c.search(w)
}

// take steps over n bytes of the message at hand.
func (c *conn) take(w *way, n int) {
	w.Next(n)
	m := w.Now()
	switch {
	case w.side == l7.Asks && c.asking != nil:
		c.asking.Ask(m, n)
	case w.side == l7.Answers && c.answering:
		c.open[0].call.Answer(m, n)
		c.open[0].ended = false
	case w.side == l7.Answers && c.orphaned:
		c.orphan.bytes += n
		c.orphan.last = *m
	}
}

// end ends the message at hand.
func (c *conn) end(w *way) {
	w.at, w.chunked = atHead, false
	if w.side == l7.Asks {
		c.endAsk()
		return
	}
	c.endAnswer(true)
}

// endAsk ends the request at hand.
func (c *conn) endAsk() {
	if c.asking == nil {
		return
	}
	last := &c.open[len(c.open)-1]
	last.asked = true
	c.asking = nil
	c.adopt(last)
}

// endAnswer ends the answer at hand.
func (c *conn) endAnswer(whole bool) {
	if c.orphaned {
		c.orphaned, c.orphan.done = false, true
		return
	}
	if !c.answering {
		return
	}
	c.answering, c.events = false, false
	x := &c.open[0]
	if !x.asked {
		if x.expects { // the body will not come
			c.asks.at = atHead
			x.asked = true
		}
		c.asking = nil
	}
	c.close(whole && x.asked && !x.broken)
}

// close closes the oldest call.
func (c *conn) close(complete bool) {
	x := &c.open[0]
	if c.asking == x.call {
		c.asking = nil
	}
	x.stream.report(x.call)
	c.out.End(x.call, complete)
	n := copy(c.open, c.open[1:])
	c.open[n] = exchange{}
	c.open = c.open[:n]
}

// overflow gives up requests: too many wait. Their answers will come.
func (c *conn) overflow() {
	c.ignore += len(c.open)
	if c.answering {
		c.ignore--
	}
	c.closeAll()
}

// closeAll closes every call, none of them complete.
func (c *conn) closeAll() {
	c.answering, c.events = false, false
	for len(c.open) > 0 {
		c.close(false)
	}
}

// Missing implements l7.Conn.
func (c *conn) Missing(side l7.Side, n uint64) {
	w := c.way(side)
	if w.isInBody() && n > 0 && (n <= w.left || w.at == untilClose) {
		c.skip(w, n)
		return
	}
	w.Lose()
	for i := range c.open {
		c.open[i].broken = true
	}
	if side == l7.Answers { // the beginning of the next answer, if none was at hand
		c.gap, c.ignore, c.orphaned = true, 0, false
		c.answering = len(c.open) > 0
	}
	c.lose(w)
}

// isInBody reports that the place is known, and how many bytes do not matter.
func (w *way) isInBody() bool {
	return w.at == inBody || w.at == inChunk || w.at == untilClose
}

// skip counts n bytes of a body that nobody saw.
func (c *conn) skip(w *way, n uint64) {
	more := int64(min(n, 1<<40))
	var x *exchange
	switch {
	case w.side == l7.Asks && c.asking != nil:
		x = &c.open[len(c.open)-1]
		x.call.RequestBytes += more
	case w.side == l7.Answers && c.answering:
		x = &c.open[0]
		x.call.ResponseBytes += more
		x.stream.miss()
	}
	if w.at == untilClose {
		return
	}
	w.left -= n
	if w.left > 0 {
		return
	}
	if w.at == inChunk {
		w.at = afterChunk
		return
	}
	if x != nil { // the last byte was among them
		x.broken = true
	}
	c.end(w)
}

// Idle implements l7.Idler: an answer whose end cannot be told is over when
// nothing came for a while. Event streams are silent at times.
func (c *conn) Idle(now int64) {
	if c.answering && c.answers.at == astray && !c.events && now-c.answers.Now().Time >= patience {
		c.endAnswer(c.open[0].ended)
	}
}

// Close implements l7.Conn. An answer that was to end with the connection is
// complete.
func (c *conn) Close() {
	if c.answering && (c.answers.at == untilClose || c.answers.at == astray && c.open[0].closes || c.open[0].ended) {
		c.endAnswer(true)
	}
	c.closeAll()
}

// Upgraded implements l7.Upgrader.
func (c *conn) Upgraded() *l7.Upgrade { return c.upgraded }
