// Package postgresql reads the PostgreSQL frontend/backend protocol 3: each
// simple query, each execution of a prepared statement and each preparation is a
// call.
//
//	Q            -> call                 -> T D D C Z ends it
//	P B D E .. S -> call, call, .., sync -> 1 2 T D C ends one, Z what is left up to the sync
//
// Texts are kept with their literals masked; parameters, rows, passwords and
// users are stepped over.
package postgresql

import (
	"encoding/binary"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/internal/sqltext"
)

// Proto is PostgreSQL.
var Proto = l7.Proto{
	Name:  "postgresql",
	Doc:   "PostgreSQL (protocol 3): simple and extended queries, prepared statements, COPY, errors",
	Sniff: sniff,
	New:   func(out l7.Out) l7.Conn { return &conn{out: out, asks: ask{unsure: true}} },
}

// Bounds of what one connection keeps and believes.
const (
	maxOpen       = 1024
	maxText       = 4096    // bytes of a query that are read
	maxMessage    = 1 << 30 // the server's own limit
	maxStatements = 256
	maxWords      = 64 << 10 // bytes of all statements
	maxName       = 64       // NAMEDATALEN
	maxPortals    = 32
	maxDatabase   = 64
)

type conn struct {
	out  l7.Out
	last l7.Side

	asks    ask
	answers answer
	queue   []pending
	front   int
	// building says that the newest call of the queue is still without its
	// Execute.
	building bool
	// broken says that requests or answers were not seen: which answer belongs to
	// which request is known again when the client asks after an answer.
	broken bool
	gone   bool // encrypted from here on, or no query at all

	database string
	escapes  sqltext.Escapes
	query    sqltext.Query
	statements
}

// ask is the way of the requests.
type ask struct {
	l7.Stream
	unsure   bool // the next bytes need not begin a message
	offered  byte // encryption that was asked for and not yet answered: S or G
	starting bool // the server has not said ReadyForQuery yet
	started  l7.Mark
	size     int // of the startup message
}

// answer is the way of the answers.
type answer struct {
	l7.Stream
	unframed bool // where it ends was not captured
}

func (a *answer) begin() {
	a.Lose()
	a.Found()
	a.unframed = false
}

// pending is a request without its answer.
type pending struct {
	call      *l7.Call // nil for a sync
	kind      kind
	described bool
	bound     bool // no Parse was part of it
	failed    bool
	rows      int64 // -1 if it returned none by its nature
}

type kind uint8

const (
	simple  kind = iota // ends with ReadyForQuery
	prepare             // ends with ParseComplete, or the description
	execute             // ends with CommandComplete
	syncs
)

// Data takes the next bytes of one way.
func (c *conn) Data(side l7.Side, chunk *event.Chunk) {
	if c.gone {
		return
	}
	turned := side != c.last
	c.last = side
	if side == l7.Answers {
		c.answer(chunk)
		return
	}
	if turned {
		c.turn()
	}
	c.ask(chunk)
}

// turn is called when the client asks after an answer: it has read what it
// asked for before.
func (c *conn) turn() {
	if c.broken {
		c.broken, c.building = false, false
		c.endUnframed()
		if c.asks.Lost() {
			c.asks.unsure = true
			c.asks.Found()
		}
		c.answers.begin()
	} else if c.open() == 0 {
		c.answers.begin() // what may be left was no message
	}
	if c.asks.unsure { // neither was this
		c.asks.Lose()
		c.asks.Found()
	}
}

// Missing says that n bytes were never seen.
func (c *conn) Missing(side l7.Side, n uint64) {
	if c.gone {
		return
	}
	s := &c.asks.Stream
	if side == l7.Answers {
		s = &c.answers.Stream
	}
	if s.Missing(n); !s.Lost() {
		return
	}
	c.broken, c.answers.unframed = true, false
	c.endAll(false)
}

// Idle ends an answer whose length was not seen.
func (c *conn) Idle(now int64) {
	if c.answers.unframed && now-c.answers.Now().Time >= 1e9 {
		c.endUnframed()
		c.answers.unframed = false
	}
}

// endUnframed ends what is open. If the end of an answer was not captured, all
// of them were over when the last byte was seen.
func (c *conn) endUnframed() {
	for i := c.front; c.answers.unframed && i < len(c.queue); i++ {
		if call := c.queue[i].call; call != nil {
			call.Answer(c.answers.Now(), 0)
		}
	}
	c.endAll(c.answers.unframed && c.calls() == 1)
}

// Close ends every open call.
func (c *conn) Close() { c.endAll(false) }

func (c *conn) open() int { return len(c.queue) - c.front }

// calls counts what is open and no sync.
func (c *conn) calls() (n int) {
	for i := c.front; i < len(c.queue); i++ {
		if c.queue[i].kind != syncs {
			n++
		}
	}
	return n
}

// first returns the oldest open call, nil if there is none before the next sync.
func (c *conn) first() *pending {
	if c.open() == 0 || c.queue[c.front].kind == syncs {
		return nil
	}
	return &c.queue[c.front]
}

// newest returns the newest open call, nil if there is none.
func (c *conn) newest() *pending {
	for i := len(c.queue) - 1; i >= c.front; i-- {
		if c.queue[i].kind != syncs {
			return &c.queue[i]
		}
	}
	return nil
}

func (c *conn) push(p pending) {
	if c.front > 0 && len(c.queue) == cap(c.queue) {
		n := copy(c.queue, c.queue[c.front:])
		clear(c.queue[n:])
		c.queue, c.front = c.queue[:n], 0
	}
	c.queue = append(c.queue, p)
}

// pop ends the oldest entry.
func (c *conn) pop(complete bool) {
	p := &c.queue[c.front]
	if p.call != nil {
		c.finish(p)
		c.out.End(p.call, complete)
	}
	*p = pending{}
	c.front++
	if c.front == len(c.queue) {
		c.queue, c.front, c.building = c.queue[:0], 0, false
	}
}

func (c *conn) endAll(complete bool) {
	for c.open() > 0 {
		c.pop(complete)
	}
	c.building = false
}

// header reads a message's type and the length of what follows the type.
func header(b []byte) (typ byte, size int, ok bool) {
	if len(b) < 5 {
		return 0, 0, false
	}
	return b[0], int(binary.BigEndian.Uint32(b[1:])), true
}

// text returns the string at the begin of b without its zero, and what follows.
func text(b []byte) (s, rest []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return b[:i], b[i+1:], true
		}
	}
	return b, nil, false
}
