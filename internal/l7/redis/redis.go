// Package redis reads the Redis serialization protocol, versions 2 and 3: each
// command with its answer is a call. Valkey, KeyDB and others speak it too.
//
//	*2 $3 GET $1 k  -> open calls, in order -> $5 value
//
// Keys, values and other arguments are counted and stepped over, never kept.
package redis

import (
	"strconv"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// Proto is Redis.
var Proto = l7.Proto{
	Name:  "redis",
	Doc:   "Redis, Valkey, KeyDB (RESP2 and RESP3): commands, pipelines, transactions, errors",
	Sniff: sniff,
	New:   func(out l7.Out) l7.Conn { return &conn{out: out, unsure: true} },
}

// Bounds of what one connection keeps.
const (
	maxOpen    = 1024 // commands without an answer; further ones are not seen
	maxCommand = 32   // bytes of a command's name
	maxHead    = 128  // bytes until a command's name ends
	maxShown   = 8    // arguments that the text counts
	maxBulk    = 1 << 32
)

type conn struct {
	out  l7.Out
	last l7.Side

	asks    l7.Stream
	unsure  bool  // the next bytes need not begin a command
	args    int64 // of the command at hand, still to come
	asking  bool
	skipped int // commands beyond maxOpen, whose answers come after those of the open ones
	queue   []pending
	front   int // of queue
	// broken says that requests or answers were not seen: which answer belongs to
	// which request is known again when the client asks after an answer.
	broken   bool
	silent   bool // CLIENT REPLY OFF
	skipNext bool // CLIENT REPLY SKIP
	gone     bool // it became something else: replication

	answers reply
	db      string // index of the database, if a SELECT was seen
	early   early
	pushed  int // messages that nobody asked for, since the last call
	listens bool
}

// pending is a command without its answer.
type pending struct {
	call  *l7.Call
	kind  kind
	want  int    // answers to come
	oldDB string // before this SELECT
}

// kind is what a command means to the connection.
type kind uint8

const (
	plain kind = iota
	selects
	subscribes
)

// early is an answer that was seen before its request.
type early struct {
	mark, end l7.Mark
	size      int
}

// Data takes the next bytes of one way.
func (c *conn) Data(side l7.Side, chunk *event.Chunk) {
	if c.gone {
		return
	}
	turned := side != c.last
	c.last = side
	if side == l7.Asks {
		if turned && c.broken {
			c.mend()
		}
		if turned && c.unsure { // what may be left was no command
			c.asks.Lose()
			c.asks.Found()
		}
		c.ask(chunk)
		return
	}
	c.answer(chunk)
}

// mend begins anew: the client asks, so it has read what it asked for before.
func (c *conn) mend() {
	c.broken, c.skipped = false, 0
	c.endUnframed()
	if c.asks.Lost() {
		c.args, c.unsure = 0, true
		c.asks.Found()
	}
	if c.answers.Lost() || c.answers.unframed {
		c.answers.begin()
	}
}

// Missing says that n bytes were never seen.
func (c *conn) Missing(side l7.Side, n uint64) {
	if c.gone {
		return
	}
	if side == l7.Asks {
		if c.asks.Missing(n); c.asks.Lost() {
			c.broken, c.asking = true, false
		}
		return
	}
	if c.answers.Missing(n); c.answers.Lost() {
		c.broken, c.answers.unframed = true, false
		c.endAll(false)
	}
}

// Idle ends an answer whose length was not seen.
func (c *conn) Idle(now int64) {
	if c.broken && c.answers.unframed && now-c.answers.Now().Time >= 1e9 {
		c.endUnframed()
		c.answers.unframed = false
	}
}

// endUnframed ends what is open. If the end of an answer was not captured, all
// of them were over when the last byte was seen.
func (c *conn) endUnframed() {
	for i := c.front; c.answers.unframed && i < len(c.queue); i++ {
		c.queue[i].call.Answer(c.answers.Now(), 0)
	}
	c.endAll(c.answers.unframed && c.open() == 1)
}

// Close ends every open call.
func (c *conn) Close() { c.endAll(false) }

func (c *conn) open() int { return len(c.queue) - c.front }

// first returns the oldest command without an answer, nil if there is none.
func (c *conn) first() *pending {
	if c.open() == 0 {
		return nil
	}
	return &c.queue[c.front]
}

func (c *conn) push(p pending) {
	if c.front > 0 && len(c.queue) == cap(c.queue) {
		n := copy(c.queue, c.queue[c.front:])
		clear(c.queue[n:])
		c.queue, c.front = c.queue[:n], 0
	}
	c.queue = append(c.queue, p)
}

// pop ends the oldest call.
func (c *conn) pop(complete bool) {
	p := &c.queue[c.front]
	if p.call != nil {
		c.out.End(p.call, complete)
	}
	*p = pending{}
	c.front++
	if c.front == len(c.queue) {
		c.queue, c.front = c.queue[:0], 0
	}
}

func (c *conn) endAll(complete bool) {
	for c.open() > 0 {
		c.pop(complete)
	}
	c.asking = false
}

// lose is called when the bytes of one way make no sense any more.
func (c *conn) lose(s *l7.Stream) {
	s.Lose()
	c.broken = true
}

// number reads the digits of a header up to its line's end, and returns where
// the next line begins: 0 if the line is not all here, -1 if it is no number.
func number(b []byte) (n int64, next int) {
	i, negative := 0, false
	if len(b) > 0 && b[0] == '-' {
		negative, i = true, 1
	}
	for from := i; i < len(b); i++ {
		switch {
		case b[i]-'0' < 10:
			n = n*10 + int64(b[i]-'0')
		case b[i] == '\r' && i > from:
			if i+1 >= len(b) {
				return 0, 0
			}
			if b[i+1] != '\n' {
				return 0, -1
			}
			if negative {
				n = -n
			}
			return n, i + 2
		default:
			return 0, -1
		}
		if i > 18 {
			return 0, -1
		}
	}
	return 0, 0
}

// bulk reads $length, a line's end, that many bytes and a line's end. Size is 0
// if they are not all here, -1 if it is no bulk string.
func bulk(b []byte) (value []byte, size int) {
	if len(b) == 0 {
		return nil, 0
	}
	if b[0] != '$' {
		return nil, -1
	}
	n, next := number(b[1:])
	switch {
	case next < 0 || n < 0 && next > 0:
		return nil, -1
	case next == 0 || n > maxHead || 1+next+int(n)+2 > len(b):
		return nil, 0
	}
	return b[1+next : 1+next+int(n)], 1 + next + int(n) + 2
}

// database returns the index that SELECT names, empty if it is none.
func database(arg []byte) string {
	if len(arg) == 0 || len(arg) > 5 {
		return ""
	}
	n := 0
	for _, d := range arg {
		if d-'0' >= 10 {
			return ""
		}
		n = n*10 + int(d-'0')
	}
	return strconv.Itoa(n)
}
