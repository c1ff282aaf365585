package redis

import (
	"bytes"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// reply is the way of the answers.
type reply struct {
	l7.Stream
	need     int64 // elements of the reply at hand that are still to come
	inside   bool  // a reply
	unframed bool  // where it ends was not captured: with the client's next question
	target   target
	mark     l7.Mark // its first byte
	size     int
}

// target is whom a reply is for.
type target uint8

const (
	nobody  target = iota // its request was not seen
	call                  // the oldest open call
	beyond                // a command beyond maxOpen
	message               // nobody asked for it
)

func (r *reply) begin() {
	r.Lose()
	r.Found()
	r.need, r.inside, r.unframed, r.size = 0, false, false, 0
}

// answer reads replies.
func (c *conn) answer(chunk *event.Chunk) {
	r := &c.answers
	r.Feed(chunk)
	if r.Lost() {
		if p := c.first(); p != nil && r.unframed {
			p.call.Answer(r.Mark(), r.Len())
		}
		r.Lose()
		return
	}
	for r.Waiting() == 0 && c.answerNext(r) {
	}
	if r.Rest(); r.Lost() {
		c.broken = true
	}
}

// answerNext takes the next element and reports whether there may be another.
func (c *conn) answerNext(r *reply) bool {
	if r.inside && r.need == 0 {
		c.answered(r)
		return true
	}
	b := r.Bytes()
	if len(b) == 0 && (!r.Cut() || !r.inside) {
		return false
	}
	if !r.inside && !c.opens(r, b) {
		return false
	}
	return c.element(r, b)
}

// opens begins a reply: it finds out whom it is for. It returns false where more
// bytes are needed for that.
func (c *conn) opens(r *reply, b []byte) bool {
	t := call
	if b[0] == '>' || b[0] == '*' && c.listens {
		kind, known := pushKind(b)
		if !known && len(b) < maxHead && !r.Cut() {
			return false
		}
		p := c.first()
		switch {
		case p != nil && p.kind == subscribes && kind == confirms:
		case b[0] == '*' && kind == unknownPush:
		case kind == confirms:
			t = nobody // UNSUBSCRIBE from all ends with the first
		default:
			t = message
		}
	}
	if t == call && c.open() == 0 {
		t = nobody
		if c.skipped > 0 {
			t = beyond
		}
	}
	r.inside, r.need, r.target, r.mark, r.size = true, 1, t, *r.Mark(), 0
	return true
}

type push uint8

const (
	unknownPush push = iota
	confirms         // a subscription
	carries          // a message
)

// pushKind reads the first element of an array: what kind of message it is.
func pushKind(b []byte) (push, bool) {
	_, next := number(b[1:])
	if next <= 0 {
		return unknownPush, next < 0
	}
	word, size := bulk(b[1+next:])
	if size <= 0 {
		return unknownPush, size < 0
	}
	switch {
	case bytes.HasSuffix(word, []byte("subscribe")):
		return confirms, true
	case bytes.HasSuffix(word, []byte("message")) || string(word) == "invalidate":
		return carries, true
	}
	return unknownPush, true
}

// element takes one element of a reply.
func (c *conn) element(r *reply, b []byte) bool {
	if len(b) == 0 {
		c.unframe(r)
		return false
	}
	if lineOnly(b[0]) {
		return c.line(r, b)
	}
	n, next := number(b[1:])
	if next == 0 && len(b) < maxHead {
		if r.Cut() {
			c.unframe(r)
		}
		return false
	}
	if next <= 0 || n < -1 || n > maxBulk || r.need > maxBulk {
		c.confused(r)
		return false
	}
	size := 1 + next
	switch b[0] {
	case '$', '=', '!':
		if b[0] == '!' && r.need == 1 && r.size == 0 {
			c.fails(r, b[size:])
		}
		if n >= 0 {
			size += int(n) + 2
		}
		r.need--
	case '*', '~', '>':
		r.need += max(n, 0) - 1
	case '%':
		r.need += 2*max(n, 0) - 1
	case '|': // attributes come before the element itself
		r.need += 2 * max(n, 0)
	default:
		c.confused(r)
		return false
	}
	c.take(r, size)
	return true
}

func lineOnly(b byte) bool {
	switch b {
	case '+', '-', ':', '_', '#', ',', '(':
		return true
	}
	return false
}

// line takes an element that is one line.
func (c *conn) line(r *reply, b []byte) bool {
	i := bytes.Index(b, []byte("\r\n"))
	if i < 0 {
		if r.Cut() {
			c.unframe(r)
		}
		return false
	}
	if b[0] == '-' && r.size == 0 {
		c.fails(r, b[1:i])
	}
	r.need--
	c.take(r, i+2)
	return true
}

// take adds n bytes to the reply and steps over them.
func (c *conn) take(r *reply, n int) {
	if p := c.first(); p != nil && r.target == call {
		p.call.Answer(r.Mark(), n)
	}
	r.size += n
	r.Next(n)
}

// unframe gives up finding the end of the reply at hand by its lengths: they
// were not captured. It is over when the client asks again.
func (c *conn) unframe(r *reply) {
	if p := c.first(); p != nil && r.target == call {
		p.call.Answer(r.Mark(), r.Len())
		r.unframed = true
	}
	c.lose(&r.Stream)
}

// confused gives up: this is no reply.
func (c *conn) confused(r *reply) {
	r.inside = false
	c.lose(&r.Stream)
	c.endAll(false)
}

// answered ends the reply at hand.
func (c *conn) answered(r *reply) {
	r.inside = false
	switch r.target {
	case message:
		c.pushed++
	case beyond:
		c.skipped--
	case nobody:
		if c.listens {
			return
		}
		c.early = early{mark: r.mark, end: *r.Now(), size: r.size}
	case call:
		if p := c.first(); p != nil {
			p.call.Answer(r.Now(), 0)
			if p.want--; p.want == 0 {
				c.pop(!c.asking || c.open() > 1 || c.args == 0 && c.asks.Waiting() == 0)
			}
		}
	}
}

// fails notes the first word of an error. Its other words may hold what was
// asked.
func (c *conn) fails(r *reply, text []byte) {
	p := c.first()
	if p == nil || r.target != call {
		return
	}
	if p.kind == selects {
		c.db = p.oldDB
	}
	word, _, _ := bytes.Cut(text, []byte(" "))
	p.want = 1
	p.call.Outcome = "_OTHER"
	if isErrorWord(word) {
		p.call.Outcome = p.call.Keep(word)
	}
	p.call.Error = p.call.Outcome
}

func isErrorWord(word []byte) bool {
	if len(word) == 0 || len(word) > maxCommand {
		return false
	}
	for _, b := range word {
		if b-'A' >= 26 && b != '_' {
			return false
		}
	}
	return true
}
