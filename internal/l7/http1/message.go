package http1

import (
	"strings"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// begins says whether b is the beginning of a message of this way. Of one that
// was cut there must be enough to tell.
func (w *way) begins(b []byte) answer {
	is := isStatusLine(b)
	if w.side == l7.Asks {
		is = isRequestLine(b)
		if is == maybe && w.Cut() && isAsking(b) {
			return yes
		}
	}
	if is == maybe && w.Cut() {
		return no
	}
	return is
}

// head reads a head.
func (c *conn) head(w *way) bool {
	b := w.Bytes()
	if w.side == l7.Asks && len(b) > 0 && (b[0] == '\r' || b[0] == '\n') {
		w.Next(1) // RFC 9112, section 2.2: empty lines before a request
		return true
	}
	if w.begins(b) == no {
		c.lose(w)
		return true
	}
	n := endOfHead(b, w.scanned)
	if n == 0 && !w.Cut() && len(b) <= l7.DefaultLimit {
		w.scanned = len(b)
		return false
	}
	w.scanned = 0
	cut := n == 0
	if cut {
		n = len(b)
	}
	if w.side == l7.Asks {
		c.request(w, b[:n], cut)
	} else {
		c.answer(w, b[:n], cut)
	}
	return true
}

// search looks for a message at the beginning of a chunk.
func (c *conn) search(w *way) bool {
	b := w.Bytes()
	if w.held == 0 && w.chunked && isChunk(b) {
		w.at = atChunkSize
		return true
	}
	switch is := w.begins(b); {
	case is == yes && (w.side == l7.Answers || isAsking(b)):
		c.found(w)
		return true
	case is == maybe && (w.side == l7.Answers || isBeginning(b)):
		w.held = len(b)
		return false
	}
	n := w.Len()
	if w.held > 0 {
		n, w.held = w.held, 0 // that was none; what came now may be
	}
	c.take(w, n)
	return true
}

// found ends the message in which the place was lost: another one begins here.
func (c *conn) found(w *way) {
	w.at, w.held, w.chunked = atHead, 0, false
	if w.side == l7.Answers {
		c.endAnswer(len(c.open) == 1)
	}
}

// doubt looks twice at the body of an answer to a request that nobody saw: it
// has none if that was HEAD.
func (c *conn) doubt(w *way) {
	if w.side == l7.Answers && !c.answering && w.isInBody() && isStatusLine(w.Bytes()) == yes {
		c.endAnswer(false)
		w.at, w.chunked = atHead, false
	}
}

// request begins a call by a request's head, of which the end may have been cut.
func (c *conn) request(w *way, b []byte, cut bool) {
	c.settle()
	if len(c.open) >= maxOpen {
		c.overflow()
	}
	call := c.out.Begin(w.Mark())
	h := parseAsk(b, call)
	c.asking = call
	c.open = append(c.open, exchange{
		call: call, upgrade: h.upgrade, expects: h.expects,
		head: call.Operation == "HEAD", connect: call.Operation == "CONNECT",
	})
	c.take(w, len(b))
	switch {
	case cut:
		c.giveUp(w)
	case h.chunked:
		w.at, w.chunked = atChunkSize, true
	case h.length > 0:
		w.at, w.left = inBody, uint64(h.length)
	default:
		c.end(w)
	}
}

// settle ends what a new request proves to be over. A client that has seen no
// end of an answer does not ask again, unless it asks ahead.
func (c *conn) settle() {
	if c.asking != nil { // the request before was shorter than we thought
		c.endAsk()
	}
	switch {
	case c.answering && len(c.open) == 1 && c.answers.at == untilClose:
		c.answers.at = atHead
		c.endAnswer(true)
	case c.answering && len(c.open) == 1 && c.answers.at == astray:
		c.endAnswer(true)
	case c.gap && len(c.open) > 0:
		c.closeAll()
		c.strayAnswer()
	case len(c.open) == 0 && c.answers.at != atHead && !(c.orphaned && c.asks.Mark().Time < c.orphan.first.Time):
		c.strayAnswer()
	}
}

// strayAnswer ends an answer that we followed wrongly, or not to its end.
func (c *conn) strayAnswer() {
	c.orphaned, c.answers.chunked = false, false
	c.lose(&c.answers)
}

// answer reads an answer's head, of which the end may have been cut.
func (c *conn) answer(w *way, b []byte, cut bool) {
	h := parseAnswer(b)
	if h.status < 200 && h.status != 101 && !cut { // 100 Continue, 103 Early Hints
		w.Next(len(b))
		if len(c.open) > 0 && c.ignore == 0 {
			c.open[0].call.ResponseBytes += int64(len(b))
			c.open[0].expects = c.open[0].expects && h.status != 100
		}
		return
	}
	x := c.match(w.Mark(), h.status)
	c.take(w, len(b))
	if x != nil {
		c.fill(x, &h)
	}
	w.chunked = h.chunked
	switch {
	case h.status == 101 || x != nil && x.connect && h.status < 300:
		c.tunnel(w, x, &h)
	case x != nil && x.head || h.status == 204 || h.status == 304:
		if cut {
			c.take(w, w.Len())
		}
		c.end(w)
	case cut:
		c.giveUp(w)
	case h.chunked:
		w.at = atChunkSize
	case h.coded || h.length < 0:
		w.at = untilClose
	case h.length > 0:
		w.at, w.left = inBody, uint64(h.length)
	default:
		c.end(w)
	}
}

// match finds the call that an answer at m is for, and begins its answer.
func (c *conn) match(m *l7.Mark, status int32) *exchange {
	c.gap = false
	if c.ignore > 0 {
		c.ignore--
		return nil
	}
	if len(c.open) == 0 {
		c.orphan = orphan{first: *m, last: *m, status: status}
		c.orphaned = true
		return nil
	}
	c.answering = true
	x := &c.open[0]
	x.call.Answer(m, 0)
	return x
}

// fill fills the call with what an answer's head says.
func (c *conn) fill(x *exchange, h *head) {
	setStatus(x.call, h.status)
	x.closes = h.closes
	if h.events && h.status == 200 && !x.head {
		x.stream.begin()
		c.events = true
	}
}

// setStatus sets the status, and the error as each end sees it.
func setStatus(c *l7.Call, status int32) {
	c.Status = status
	if status >= 500 || status >= 400 && c.Role == event.Client {
		c.Error = statusText(c, status)
	}
}

func statusText(c *l7.Call, status int32) string {
	return c.Keep([]byte{byte('0' + status/100%10), byte('0' + status/10%10), byte('0' + status%10)})
}

// adopt gives a request the answer that was seen before it, if it was moved
// after it.
func (c *conn) adopt(x *exchange) {
	o := &c.orphan
	if o.status == 0 || len(c.open) != 1 || c.answering {
		return
	}
	if x.call.Asked.Time < o.first.Time {
		x.call.Answer(&o.first, 0)
		x.call.Answer(&o.last, o.bytes)
		setStatus(x.call, o.status)
		c.answering, c.orphaned = true, false
		if o.done {
			c.endAnswer(true)
		}
	}
	*o = orphan{}
}

// tunnel ends the call whose answer says that other bytes follow; x is nil if
// the request was not seen.
func (c *conn) tunnel(w *way, x *exchange, h *head) {
	w.at, w.chunked = astray, false
	c.asks.at, c.asks.chunked = astray, false
	proto := h.upgrade
	if x != nil && proto == "" {
		proto = x.upgrade
	}
	if h.status == 101 && proto != "" && proto != other {
		c.upgraded = c.upgrade(proto, x)
	}
	c.endAnswer(true)
	if c.upgraded != nil {
		c.closeAll()
	}
}

// upgrade says how the connection goes on.
func (c *conn) upgrade(proto string, x *exchange) *l7.Upgrade {
	u := &l7.Upgrade{Proto: proto, Mark: *c.asks.Mark()}
	now := c.answers.Now()
	if u.Mark.PID == 0 { // nothing was asked that we saw
		u.Mark.PID, u.Mark.TID, u.Mark.CgroupID, u.Mark.TLS = now.PID, now.TID, now.CgroupID, now.TLS
	}
	u.Mark.Time, u.Mark.Ready, u.Mark.Sent = now.Time, 0, !now.Sent
	if x != nil {
		u.Words, u.Remote = ownWords(x.call), x.call.Remote
	}
	return u
}

// ownWords returns the words of a request in memory of their own.
func ownWords(c *l7.Call) event.Request {
	r := event.Request{
		Role: c.Role, Version: strings.Clone(c.Version), Family: c.Family, Operation: strings.Clone(c.Operation),
		Text: strings.Clone(c.Text), Query: strings.Clone(c.Query), TLS: c.TLS,
	}
	for _, a := range c.Attrs {
		r.Attrs = append(r.Attrs, event.Attr{Key: a.Key, Value: strings.Clone(a.Value)})
	}
	return r
}

// handOn keeps what stood behind the answer for the protocol that follows.
func (c *conn) handOn(ch *event.Chunk) {
	n := c.answers.Len()
	rest := *ch
	rest.Data = c.answers.Bytes()
	rest.Offset += uint64(ch.Len - n)
	if rest.Seq != 0 {
		rest.Seq += uint32(ch.Len - n)
	}
	rest.Len = n
	c.upgraded.Rest = rest
}
