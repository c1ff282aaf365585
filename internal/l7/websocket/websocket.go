// Package websocket counts the messages of WebSocket sessions (RFC 6455).
package websocket

import (
	"strconv"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// Proto is WebSocket. Its frames begin too plainly to be told from other bytes:
// a connection becomes one by an HTTP/1.1 upgrade only.
var Proto = l7.Proto{
	Name:  "websocket",
	Doc:   "WebSocket sessions: messages each way",
	Sniff: func([]byte) l7.Side { return l7.Neither },
	New:   func(out l7.Out) l7.Conn { return &conn{out: out} },
}

// way is one direction of a session.
type way struct {
	l7.Stream
	side   l7.Side
	binary bool // the message at hand is
	count  count
}

// count is what went one way. Names of the attributes are the client's view.
type count struct{ messages, binary, pings, pongs int64 }

// conn follows one session: one call from the upgrade to the end.
type conn struct {
	out     l7.Out
	call    *l7.Call
	asks    way
	answers way

	whole  bool    // it was seen from its beginning, and nothing is missing
	closer l7.Side // who sent the first close frame
	code   int
}

// Inherit implements l7.Heir: the session has the words of its request.
func (c *conn) Inherit(u *l7.Upgrade) {
	c.begin(&u.Mark)
	c.whole = true
	w := &u.Words
	c.call.Operation, c.call.Text, c.call.Query = w.Operation, w.Text, w.Query
	c.call.Remote = u.Remote
	for _, a := range w.Attrs {
		c.call.Add(a.Key, a.Value)
	}
}

func (c *conn) begin(m *l7.Mark) {
	c.call = c.out.Begin(m)
	c.call.Family, c.call.Protocol, c.call.Status = event.HTTP, Proto.Name, 101
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
	w := c.way(side)
	w.Feed(ch)
	defer w.Rest()
	if c.call == nil {
		m := *w.Now()
		m.Sent = m.Sent == (side == l7.Asks) // by the client, as a call's mark says
		c.begin(&m)
	}
	c.account(w, max(ch.Len, len(ch.Data)))
	if w.Lost() && !c.search(w) {
		w.Next(w.Len())
		return
	}
	for w.Len() > 0 && c.frame(w) {
	}
}

// account counts n bytes, and the time they were moved at.
func (c *conn) account(w *way, n int) {
	m := w.Now()
	if w.side == l7.Answers {
		c.call.Answer(m, n)
		return
	}
	c.call.Ask(m, n)
	c.call.DurationNS = max(c.call.DurationNS, m.Time-c.call.Time)
}

// frame reads one frame's head and steps over its payload. It returns false when
// there is not enough.
func (c *conn) frame(w *way) bool {
	b := w.Bytes()
	f, is := parse(b, w.side)
	if is == no || is == maybe && w.Cut() {
		c.lose(w)
		return false
	}
	if is == maybe || f.op == opClose && len(b) < f.total() && len(b) < maxControl && !w.Cut() {
		return false // a close frame is waited for: it is short, and says why
	}
	c.note(w, &f, b)
	w.Next(f.total())
	return true
}

// lose says that nobody knows where the next frame begins.
func (c *conn) lose(w *way) {
	w.Lose()
	c.whole = false
}

// search looks for a frame at the beginning of a chunk: one that ends with the
// chunk, that another one follows, or that is so long that its length is no
// chance.
func (c *conn) search(w *way) bool {
	b := w.Bytes()
	f, is := parse(b, w.side)
	if is != yes {
		return false
	}
	switch n := f.total(); {
	case n == w.Len(), n > w.Len() && f.size > 125:
	case n < len(b):
		if _, next := parse(b[n:], w.side); next == no {
			return false
		}
	default:
		return false
	}
	w.Found()
	return true
}

// note counts a frame.
func (c *conn) note(w *way, f *frame, b []byte) {
	switch f.op {
	case opText, opBinary:
		w.binary = f.op == opBinary
		w.message(f)
	case opContinuation:
		w.message(f)
	case opPing:
		w.count.pings++
	case opPong:
		w.count.pongs++
	case opClose:
		if c.closer == l7.Neither {
			c.closer, c.code = w.side, f.closeCode(b)
		}
	}
}

// message counts a message with its last frame.
func (w *way) message(f *frame) {
	if !f.last {
		return
	}
	w.count.messages++
	if w.binary {
		w.count.binary++
	}
	w.binary = false
}

// Missing implements l7.Conn.
func (c *conn) Missing(side l7.Side, n uint64) {
	w := c.way(side)
	if c.call != nil && n < 1<<40 {
		if side == l7.Asks {
			c.call.RequestBytes += int64(n)
		} else {
			c.call.ResponseBytes += int64(n)
		}
	}
	w.Missing(n)
	c.whole = c.whole && !w.Lost()
}

// Close implements l7.Conn. A session is complete if one of its ends said so.
func (c *conn) Close() {
	if c.call == nil {
		return
	}
	c.report()
	c.out.End(c.call, c.whole && c.closer != l7.Neither)
	c.call = nil
}

// report writes the counts down.
func (c *conn) report() {
	c.add("websocket.messages.sent", c.asks.count.messages, true)
	c.add("websocket.messages.received", c.answers.count.messages, true)
	c.add("websocket.messages.binary.sent", c.asks.count.binary, false)
	c.add("websocket.messages.binary.received", c.answers.count.binary, false)
	c.add("websocket.pings.sent", c.asks.count.pings, false)
	c.add("websocket.pings.received", c.answers.count.pings, false)
	c.add("websocket.pongs.sent", c.asks.count.pongs, false)
	c.add("websocket.pongs.received", c.answers.count.pongs, false)
	switch c.closer {
	case l7.Asks:
		c.call.Add("websocket.close.by", "client")
	case l7.Answers:
		c.call.Add("websocket.close.by", "server")
	default:
		return
	}
	c.add("websocket.close.code", int64(c.code), true)
	if isError(c.code) {
		c.call.Error = c.keep(int64(c.code))
	}
}

func (c *conn) add(key string, n int64, always bool) {
	if n > 0 || always {
		c.call.Add(key, c.keep(n))
	}
}

func (c *conn) keep(n int64) string {
	var digits [20]byte
	return c.call.Keep(strconv.AppendInt(digits[:0], n, 10))
}

// isError tells the codes by which a session fails (RFC 6455, section 7.4.1, and
// IANA's list). Those of applications, from 3000 on, are theirs to judge.
func isError(code int) bool {
	return code == 1002 || code == 1003 || code >= 1007 && code <= 1015
}
