package postgresql

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"

	"ghostlight/internal/event"
	"ghostlight/internal/sqltext"
)

// answer reads answers.
func (c *conn) answer(chunk *event.Chunk) {
	a := &c.answers
	a.Feed(chunk)
	if a.Lost() {
		if !c.unframedAnswer(a) {
			a.Lose()
		}
		return
	}
	for a.Waiting() == 0 && c.answerNext(a) {
	}
	if a.Rest(); a.Lost() {
		c.broken = true
	}
}

// unframedAnswer adds bytes to the answer whose end was not captured, and ends
// it where the end is: ReadyForQuery is the last thing that is said. It returns
// true if it was.
func (c *conn) unframedAnswer(a *answer) bool {
	p := c.first()
	if p == nil || !a.unframed {
		return false
	}
	p.call.Answer(a.Mark(), a.Len())
	b := a.Bytes()
	if a.Cut() || len(b) < 6 || !isReady(b[len(b)-6:]) || c.calls() > 1 {
		return false
	}
	c.lastTag(p, b[:len(b)-6])
	p.call.Answer(a.Now(), 0)
	c.endAll(true)
	c.broken = false
	a.begin()
	return true
}

func isReady(b []byte) bool {
	return b[0] == 'Z' && binary.BigEndian.Uint32(b[1:]) == 5 && (b[5] == 'I' || b[5] == 'T' || b[5] == 'E')
}

// lastTag reads the CommandComplete at the end of b.
func (c *conn) lastTag(p *pending, b []byte) {
	for n := 6; n < 64 && n <= len(b); n++ {
		if m := b[len(b)-n:]; m[0] == 'C' && int(binary.BigEndian.Uint32(m[1:])) == n-1 && m[n-1] == 0 {
			c.tag(p, m[5:n-1])
			return
		}
	}
}

// answerNext takes the next message and reports whether there may be another.
func (c *conn) answerNext(a *answer) bool {
	b := a.Bytes()
	if len(b) == 0 {
		if a.Cut() {
			c.unframe(a)
		}
		return false
	}
	if c.asks.offered != 0 {
		return c.encryption(a, b[0])
	}
	typ, size, ok := header(b)
	if !ok {
		if a.Cut() {
			c.unframe(a)
		}
		return false
	}
	if size < 4 || size > maxMessage || !answersType(typ) || typ == 'Z' && size != 5 {
		a.Lose()
		c.broken = true
		c.endAll(false)
		return false
	}
	body := b[5:]
	if len(body) < min(size-4, needed(typ)) && !a.Cut() {
		return false
	}
	c.answered(a, typ, body[:min(len(body), size-4)], 1+size)
	return true
}

func answersType(t byte) bool { return strings.IndexByte("RKSZ123tTDnCIsENAGHWdcVv", t) >= 0 }

// needed returns how much of a message's body is read.
func needed(typ byte) int {
	switch typ {
	case 'Z':
		return 1
	case 'C', 'S':
		return 64
	case 'E':
		return 128
	}
	return 0
}

// unframe gives up finding the end of the answer at hand by its lengths: they
// were not captured.
func (c *conn) unframe(a *answer) {
	if p := c.first(); p != nil {
		p.call.Answer(a.Mark(), a.Len())
		a.unframed = true
	}
	a.Lose()
	c.broken = true
}

// encryption reads the one byte that answers the question for it.
func (c *conn) encryption(a *answer, b byte) bool {
	switch b {
	case c.asks.offered:
		c.gone = true
		return false
	case 'N':
		a.Next(1)
	}
	c.asks.offered = 0 // else: an error of a server that does not know it
	return true
}

// answered takes one message of n bytes in all.
func (c *conn) answered(a *answer, typ byte, body []byte, n int) {
	p := c.first()
	switch typ {
	case 'S':
		c.parameter(body)
		p = nil
	case 'A', 'R', 'K', 'v':
		p = nil
	}
	if p != nil && typ != 'Z' {
		p.call.Answer(a.Mark(), n)
	}
	if typ == 'Z' && c.open() > 0 && c.queue[c.front].kind == simple {
		c.queue[c.front].call.Answer(a.Mark(), n)
	}
	a.Next(n)
	switch {
	case typ == 'Z':
		c.ready(a)
	case typ == 'E' && p == nil:
		c.refused(a, body, n)
	case p == nil:
	case typ == 'E':
		c.fails(p, body)
		c.ends(a, p, execute, prepare)
	case typ == 'C':
		tag, _, _ := text(body)
		c.tag(p, tag)
		c.ends(a, p, execute)
	case typ == 'I' || typ == 's':
		c.ends(a, p, execute)
	case typ == '1' && !p.described, typ == 'T' && p.described, typ == 'n' && p.described:
		c.ends(a, p, prepare)
	}
}

// ends ends p if it is of one of the kinds.
func (c *conn) ends(a *answer, p *pending, kinds ...kind) {
	for _, k := range kinds {
		if p.kind == k {
			p.call.Answer(a.Now(), 0)
			c.pop(true)
			return
		}
	}
}

// ready ends all up to the next sync: what has no answer yet was left out after
// an error.
func (c *conn) ready(a *answer) {
	c.asks.starting = false
	for c.open() > 0 {
		switch p := &c.queue[c.front]; p.kind {
		case syncs:
			c.pop(true)
			return
		case simple:
			p.call.Answer(a.Now(), 0)
			c.pop(true)
			return
		default:
			c.pop(p.kind == prepare && p.call.IsAnswered())
		}
	}
}

// parameter learns how backslashes in strings are to be read.
func (c *conn) parameter(body []byte) {
	name, rest, _ := text(body)
	if string(name) != "standard_conforming_strings" {
		return
	}
	c.escapes = sqltext.Backslash
	if value, _, _ := text(rest); string(value) == "on" {
		c.escapes = sqltext.Standard
	}
}

// fails notes an error's SQLSTATE. Its message may hold what was asked.
func (c *conn) fails(p *pending, body []byte) {
	p.call.Outcome = "_OTHER"
	if code := sqlState(body); code != nil {
		p.call.Outcome = p.call.Keep(code)
	}
	p.call.Error = p.call.Outcome
}

// sqlState returns the code among the fields of an error, nil if there is none.
func sqlState(fields []byte) []byte {
	for len(fields) > 1 {
		value, rest, ok := text(fields[1:])
		if fields[0] == 'C' && ok && isState(value) {
			return value
		}
		fields = rest
	}
	return nil
}

func isState(b []byte) bool {
	return len(b) == 5 && len(bytes.TrimFunc(b, func(r rune) bool { return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' })) == 0
}

// refused makes a call of a start that failed: wrong password, too many
// connections.
func (c *conn) refused(a *answer, body []byte, n int) {
	if !c.asks.starting || c.open() > 0 {
		return
	}
	c.asks.starting = false
	call := c.out.Begin(&c.asks.started)
	c.introduce(call)
	call.Operation, call.Summary = "CONNECT", "CONNECT"
	call.Ask(&c.asks.started, c.asks.size)
	call.Answer(a.Now(), n)
	p := pending{call: call}
	c.fails(&p, body)
	c.out.End(call, true)
}

// tag reads what CommandComplete says: INSERT 0 1, SELECT 3, CREATE TABLE. Rows
// are those that were returned.
func (c *conn) tag(p *pending, tag []byte) {
	end := bytes.IndexAny(tag, "0123456789")
	words := tag
	if end > 0 {
		words = tag[:end]
	}
	words = bytes.TrimRight(words, " ")
	if p.call.Operation == "" && p.call.Text == "" && isTag(words) {
		p.call.Operation = p.call.Keep(words)
	}
	if string(words) != "SELECT" && string(words) != "FETCH" {
		return
	}
	n, err := strconv.ParseInt(string(bytes.TrimLeft(tag[len(words):], " ")), 10, 64)
	if err == nil {
		p.rows = max(p.rows, 0) + n
	}
}

func isTag(words []byte) bool {
	return len(words) > 0 && len(words) <= 40 && bytes.IndexFunc(words, func(r rune) bool { return (r < 'A' || r > 'Z') && r != ' ' }) < 0
}

// finish completes the words of a call that ends.
func (c *conn) finish(p *pending) {
	if p.kind == prepare && !p.bound {
		var b [sqltext.MaxSummary + 8]byte
		p.call.Summary = p.call.Keep(append(append(b[:0], "PREPARE "...), p.call.Summary...))
		p.call.Operation = "PREPARE"
	}
	if p.rows >= 0 {
		var b [20]byte
		p.call.Add("db.response.returned_rows", p.call.Keep(strconv.AppendInt(b[:0], p.rows, 10)))
	}
}
