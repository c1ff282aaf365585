package mysql

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/internal/sqltext"
)

// result is how far the answer at hand was read.
type result struct {
	phase     phase
	left      uint64 // definitions still to come
	lists     uint8  // of definitions: parameters, columns
	columns   uint64 // the second list's
	continued bool   // the next packet is the rest of a long one
}

type phase uint8

const (
	starts      phase = iota
	definitions       // of columns
	separator         // an EOF that may follow them
	reading           // rows
	parameters        // of a prepared statement, and its columns
	file              // the client sends it
)

// answer reads answers.
func (c *conn) answer(chunk *event.Chunk) {
	s := &c.answers
	s.Feed(chunk)
	if s.Lost() {
		if !c.unframedAnswer(s) {
			s.Lose()
		}
		return
	}
	for s.Waiting() == 0 && c.answerNext(s) {
	}
	if s.Rest(); s.Lost() {
		c.broken = true
	}
}

// unframedAnswer adds bytes to the answer whose end was not captured, and ends
// it where a read that was captured ends with the end of a result. It returns
// true if it did.
func (c *conn) unframedAnswer(s *l7.Stream) bool {
	p := c.first()
	if p == nil || !c.unframed {
		return false
	}
	p.call.Answer(s.Mark(), s.Len())
	b := s.Bytes()
	if s.Cut() || c.open() > 1 || !endsResult(b) {
		return false
	}
	p.rows = -1 // not all were counted
	p.call.Answer(s.Now(), 0)
	c.endAll(true)
	c.broken = false
	c.beginAnswers()
	return true
}

// endsResult reports whether b ends with an EOF packet, or an OK packet in its
// place, after which no other result comes.
func endsResult(b []byte) bool {
	if n := len(b); n >= 9 && b[n-9] == 5 && b[n-8] == 0 && b[n-7] == 0 && b[n-5] == 0xfe {
		return binary.LittleEndian.Uint16(b[n-2:])&moreResults == 0
	}
	if n := len(b); n >= 11 && b[n-11] == 7 && b[n-10] == 0 && b[n-9] == 0 && b[n-7] == 0xfe {
		return binary.LittleEndian.Uint16(b[n-4:])&moreResults == 0
	}
	return false
}

// answerNext takes the next packet and reports whether there may be another.
func (c *conn) answerNext(s *l7.Stream) bool {
	b := s.Bytes()
	size, seq, ok := header(b)
	if !ok {
		if s.Cut() {
			c.unframe(s)
		}
		return false
	}
	body := b[4:]
	if len(body) < min(size, needed) && !s.Cut() {
		return false
	}
	body = body[:min(len(body), size)]
	p := c.first()
	if p == nil {
		return c.unasked(s, size, seq, body)
	}
	if size > 0 && len(body) == 0 {
		c.unframe(s)
		return false
	}
	if !p.begun && seq != p.seq+1 { // of an answer before
		s.Next(4 + size)
		return true
	}
	p.begun = true
	p.call.Answer(s.Mark(), 4+size)
	s.Next(4 + size)
	if c.take(p, size, body) {
		p.call.Answer(s.Now(), 0)
		c.pop(true)
	}
	return !c.gone
}

// needed is how much of a packet is read.
const needed = 128

// unframe gives up finding the end of the answer at hand by its lengths: they
// were not captured.
func (c *conn) unframe(s *l7.Stream) {
	if p := c.first(); p != nil {
		p.call.Answer(s.Mark(), s.Len())
		c.unframed = true
	}
	s.Lose()
	c.broken = true
}

// unasked takes a packet that answers no command: of the login, or of a command
// that was not seen.
func (c *conn) unasked(s *l7.Stream, size int, seq byte, body []byte) bool {
	switch {
	case seq == 0 && len(body) > 0 && body[0] == 10:
		c.greeting(body)
	case c.login.going && c.login.answered && len(body) > 0 && (body[0] == 0xff || body[0] == 0):
		c.loginOver(s, body, 4+size)
	case !c.login.going && seq == 0:
		s.Lose() // no answer begins so
		c.broken = true
		return false
	}
	s.Next(4 + size)
	return !c.gone
}

// greeting reads who the server is and what it can.
func (c *conn) greeting(b []byte) {
	version, rest, ok := bytes.Cut(b[1:], []byte{0})
	if !ok {
		return
	}
	c.login = login{going: true}
	if bytes.Contains(version, []byte("MariaDB")) {
		c.system = "mariadb"
	}
	if len(rest) >= 20 { // thread, salt, capabilities, charset, status, capabilities
		c.offered = uint32(binary.LittleEndian.Uint16(rest[13:])) | uint32(binary.LittleEndian.Uint16(rest[18:]))<<16
	}
}

// loginOver ends the login. One that failed is a call.
func (c *conn) loginOver(s *l7.Stream, body []byte, n int) {
	c.login.going = false
	if body[0] == 0 {
		c.status(body)
		c.gone = c.abled&(capCompress|capZstd) != 0
		return
	}
	call := c.out.Begin(&c.login.mark)
	c.introduce(call)
	call.Operation, call.Summary = "CONNECT", "CONNECT"
	call.Ask(&c.login.mark, c.login.size)
	call.Answer(s.Now(), n)
	fails(call, body)
	c.out.End(call, true)
}

// take takes one packet of an answer and reports whether it was the last.
func (c *conn) take(p *pending, size int, b []byte) bool {
	r := &c.result
	continued := r.continued
	r.continued = size == fullPacket
	if continued || len(b) == 0 {
		return false
	}
	if b[0] == 0xff && r.phase != definitions && r.phase != parameters {
		if isProgress(b) {
			return false
		}
		fails(p.call, b)
		return true
	}
	switch p.kind {
	case results:
		return c.takeResult(p, size, b)
	case prepare:
		return c.takePrepared(p, size, b)
	case rows:
		r.phase = reading
		return c.takeRow(p, size, b)
	case fields:
		return isEnd(size, b)
	case auth:
		return b[0] == 0
	}
	c.status(b)
	return true
}

// isProgress reports a MariaDB server's word on how far it is.
func isProgress(b []byte) bool { return len(b) >= 3 && b[1] == 0xff && b[2] == 0xff }

// isEnd reports whether the packet ends rows or definitions: EOF, or OK in its
// place. A row that begins so is longer than a packet.
func isEnd(size int, b []byte) bool { return b[0] == 0xfe && size < fullPacket }

func (c *conn) takeResult(p *pending, size int, b []byte) bool {
	r := &c.result
	switch r.phase {
	case starts, file:
		return c.takeFirst(p, size, b)
	case definitions:
		if r.left--; r.left == 0 {
			r.phase = separator
			if c.known && c.abled&capDeprecateEOF != 0 {
				r.phase = reading
			}
		}
		return false
	case separator:
		r.phase = reading
		if isEnd(size, b) && size == 5 {
			return c.status(b)&cursorExists != 0
		}
	}
	return c.takeRow(p, size, b)
}

// takeFirst takes the first packet of a result.
func (c *conn) takeFirst(p *pending, size int, b []byte) bool {
	r := &c.result
	switch b[0] {
	case 0:
		return c.status(b)&moreResults == 0
	case 0xfb:
		r.phase = file
		return false
	}
	n, length := number(b)
	if length == 0 || n == 0 || n > 1<<16 {
		return true // no result
	}
	r.phase, r.left = definitions, n
	if size == length+1 && len(b) > length && b[length] == 0 { // MariaDB: known from before
		r.phase = separator
	}
	p.rows = max(p.rows, 0)
	return false
}

func (c *conn) takeRow(p *pending, size int, b []byte) bool {
	if !isEnd(size, b) {
		p.rows = max(p.rows, 0) + 1
		return false
	}
	c.result.phase = starts
	return c.status(b)&moreResults == 0
}

// takePrepared takes the answer to a preparation: an id, then a list of
// parameters and one of columns.
func (c *conn) takePrepared(p *pending, size int, b []byte) bool {
	r := &c.result
	if r.phase == starts {
		if b[0] != 0 || len(b) < 9 {
			return true
		}
		if p.statement != nil {
			c.keep(binary.LittleEndian.Uint32(b[1:]), p.statement)
		}
		r.phase = parameters
		columns, params := uint64(binary.LittleEndian.Uint16(b[5:])), uint64(binary.LittleEndian.Uint16(b[7:]))
		r.left, r.lists = columns+params, 0
		if !c.known || c.abled&capDeprecateEOF == 0 {
			r.lists = uint8(min(columns, 1) + min(params, 1)) // each list has an end
		}
		return r.left == 0
	}
	if isEnd(size, b) && size == 5 {
		r.lists--
	} else {
		r.left--
	}
	if r.left > 0 {
		return false
	}
	return r.lists == 0 || !c.known // else whether an end follows is not known
}

// status reads the flags of an OK or EOF packet.
func (c *conn) status(b []byte) uint16 {
	var flags uint16
	switch {
	case b[0] == 0xfe && len(b) == 5:
		flags = binary.LittleEndian.Uint16(b[3:])
	case b[0] == 0 || b[0] == 0xfe:
		_, n := number(b[1:])
		_, m := number(b[min(1+n, len(b)):])
		if n == 0 || m == 0 || len(b) < 1+n+m+2 {
			return 0
		}
		flags = binary.LittleEndian.Uint16(b[1+n+m:])
	default:
		return 0
	}
	c.escapes = sqltext.Backslash
	if flags&noBackslash != 0 {
		c.escapes = sqltext.Standard
	}
	return flags
}

// fails notes an error's number and SQLSTATE. Its message may hold what was
// asked.
func fails(call *l7.Call, b []byte) {
	call.Outcome = "_OTHER"
	if len(b) >= 3 {
		var digits [8]byte
		call.Outcome = call.Keep(strconv.AppendUint(digits[:0], uint64(binary.LittleEndian.Uint16(b[1:])), 10))
	}
	call.Error = call.Outcome
	if len(b) >= 9 && b[3] == '#' && isState(b[4:9]) {
		call.Add("mysql.sqlstate", call.Keep(b[4:9]))
	}
}

func isState(b []byte) bool {
	for _, c := range b {
		if c-'0' >= 10 && c-'A' >= 26 {
			return false
		}
	}
	return true
}

// finish completes the words of a call that ends.
func (c *conn) finish(p *pending, complete bool) {
	if p.database != "" && complete && p.call.Error == "" {
		c.database = p.database
	}
	if p.rows >= 0 && complete && !c.unframed {
		var b [20]byte
		p.call.Add("db.response.returned_rows", p.call.Keep(strconv.AppendInt(b[:0], p.rows, 10)))
	}
}
