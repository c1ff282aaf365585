// Package mysql reads the client/server protocol of MySQL and MariaDB: each
// command is a call.
//
//	3 bytes length, 1 byte sequence, payload
//	COM_QUERY, sequence 0 -> call -> columns, rows, end; more results; the last one ends it
//
// Texts are kept with their literals masked; parameters, rows, passwords and
// users are stepped over.
package mysql

import (
	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/internal/sqltext"
)

// Proto is MySQL.
var Proto = l7.Proto{
	Name:  "mysql",
	Doc:   "MySQL and MariaDB: queries, prepared statements, several results, errors",
	Sniff: sniff,
	New:   func(out l7.Out) l7.Conn { return &conn{out: out, system: "mysql", unsure: true} },
}

// Bounds of what one connection keeps and believes.
const (
	maxOpen       = 256
	maxText       = 4096 // bytes of a query that are read
	maxStatements = 256
	maxWords      = 64 << 10 // bytes of all statements
	maxDatabase   = 64
	fullPacket    = 0xffffff // the next one continues it
)

// Capabilities that change how the bytes are to be read.
const (
	capDatabase     = 1 << 3
	capCompress     = 1 << 5
	capProtocol41   = 1 << 9
	capTLS          = 1 << 11
	capSecure       = 1 << 15
	capLongAuth     = 1 << 21
	capDeprecateEOF = 1 << 24
	capZstd         = 1 << 26
	capAttributes   = 1 << 27
)

// Flags of the server's status.
const (
	moreResults  = 1 << 3
	cursorExists = 1 << 6
	noBackslash  = 1 << 9
)

type conn struct {
	out    l7.Out
	last   l7.Side
	system string

	asks      l7.Stream
	unsure    bool // the next bytes need not begin a packet
	continued bool // the next packet is the rest of a long one, or of a file
	answers   l7.Stream
	queue     []pending
	front     int
	result    result // of the oldest open call
	// broken says that requests or answers were not seen: which answer belongs to
	// which request is known again when the client asks after an answer.
	broken   bool
	unframed bool // where the answer ends was not captured
	gone     bool // encrypted, compressed or replicating from here on

	login    login
	known    bool // the capabilities are
	offered  uint32
	abled    uint32
	database string
	escapes  sqltext.Escapes
	query    sqltext.Query
	statements
}

// login is the connection's start.
type login struct {
	going    bool
	answered bool // by the client
	mark     l7.Mark
	size     int
}

// pending is a command without its whole answer.
type pending struct {
	call      *l7.Call
	kind      kind
	seq       byte       // of its last packet: the answer goes on counting
	begun     bool       // its answer
	statement *statement // to be prepared
	database  string     // to be used
	rows      int64      // -1 if there was no result with rows
}

// kind is what a command is answered with.
type kind uint8

const (
	packet  kind = iota // one
	results             // OK, or columns and rows
	prepare             // an id, parameters and columns
	rows                // of a cursor
	fields              // columns until the end
	auth                // until OK
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
		c.broken = false
		c.endAll(c.unframed && c.open() == 1)
		if c.asks.Lost() {
			c.unsure = true
			c.asks.Found()
		}
		c.beginAnswers()
	} else if c.open() == 0 {
		c.beginAnswers() // what may be left was no packet
	}
	if c.unsure { // neither was this
		c.asks.Lose()
		c.asks.Found()
	}
}

func (c *conn) beginAnswers() {
	c.answers.Lose()
	c.answers.Found()
	c.unframed, c.result = false, result{}
}

// Missing says that n bytes were never seen.
func (c *conn) Missing(side l7.Side, n uint64) {
	if c.gone {
		return
	}
	s := &c.asks
	if side == l7.Answers {
		s = &c.answers
	}
	if s.Missing(n); !s.Lost() {
		return
	}
	c.broken, c.unframed, c.login.going = true, false, false
	c.endAll(false)
}

// Idle ends an answer whose length was not seen.
func (c *conn) Idle(now int64) {
	if c.unframed && now-c.answers.Now().Time >= 1e9 {
		c.endAll(c.open() == 1)
		c.unframed = false
	}
}

// Close ends every open call.
func (c *conn) Close() { c.endAll(false) }

func (c *conn) open() int { return len(c.queue) - c.front }

// first returns the oldest open command, nil if there is none.
func (c *conn) first() *pending {
	if c.open() == 0 {
		return nil
	}
	return &c.queue[c.front]
}

// newest returns the newest open command, nil if there is none.
func (c *conn) newest() *pending {
	if c.open() == 0 {
		return nil
	}
	return &c.queue[len(c.queue)-1]
}

func (c *conn) push(p pending) {
	if c.front > 0 && len(c.queue) == cap(c.queue) {
		n := copy(c.queue, c.queue[c.front:])
		clear(c.queue[n:])
		c.queue, c.front = c.queue[:n], 0
	}
	c.queue = append(c.queue, p)
}

// pop ends the oldest command.
func (c *conn) pop(complete bool) {
	p := &c.queue[c.front]
	c.finish(p, complete)
	c.out.End(p.call, complete)
	*p = pending{}
	c.result = result{}
	c.front++
	if c.front == len(c.queue) {
		c.queue, c.front = c.queue[:0], 0
	}
}

func (c *conn) endAll(complete bool) {
	for c.open() > 0 {
		c.pop(complete)
	}
}

// header reads a packet's length and sequence number.
func header(b []byte) (size int, seq byte, ok bool) {
	if len(b) < 4 {
		return 0, 0, false
	}
	return int(b[0]) | int(b[1])<<8 | int(b[2])<<16, b[3], true
}

// number reads a length-encoded number and returns how long it is, 0 if it is
// none or not all here.
func number(b []byte) (n uint64, size int) {
	if len(b) == 0 {
		return 0, 0
	}
	switch b[0] {
	case 0xfc:
		size = 3
	case 0xfd:
		size = 4
	case 0xfe:
		size = 9
	case 0xfb, 0xff:
		return 0, 0
	default:
		return uint64(b[0]), 1
	}
	if len(b) < size {
		return 0, 0
	}
	for i := size - 1; i > 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	return n, size
}
