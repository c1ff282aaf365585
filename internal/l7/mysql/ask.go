package mysql

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/internal/sqltext"
)

// Commands.
const (
	comQuit        = 0x01
	comInitDB      = 0x02
	comQuery       = 0x03
	comFieldList   = 0x04
	comStatistics  = 0x09
	comProcessInfo = 0x0a
	comDebug       = 0x0d
	comPing        = 0x0e
	comChangeUser  = 0x11
	comBinlogDump  = 0x12
	comPrepare     = 0x16
	comExecute     = 0x17
	comLongData    = 0x18
	comClose       = 0x19
	comReset       = 0x1a
	comSetOption   = 0x1b
	comFetch       = 0x1c
	comBinlogGTID  = 0x1e
	comResetConn   = 0x1f
	comBulk        = 0xfa // MariaDB
)

// ask reads requests.
func (c *conn) ask(chunk *event.Chunk) {
	s := &c.asks
	s.Feed(chunk)
	if s.Lost() {
		c.goesOn(s.Len())
		s.Lose()
		return
	}
	for s.Waiting() == 0 && c.askNext(s) {
	}
	left := s.Len()
	if s.Rest(); s.Lost() {
		c.goesOn(left)
	}
}

// goesOn counts bytes whose packets' heads were not captured: of a file.
func (c *conn) goesOn(n int) {
	c.broken = true
	if p := c.newest(); p != nil {
		p.call.Ask(c.asks.Now(), n)
	}
}

// askNext takes the next packet and reports whether there may be another.
func (c *conn) askNext(s *l7.Stream) bool {
	b := s.Bytes()
	size, seq, ok := header(b)
	if !ok {
		return false
	}
	if c.unsure && !c.login.going {
		if side := sniff(b); side != l7.Asks {
			if len(b) < min(4+size, 64) && !s.Cut() {
				return false
			}
			s.Lose()
			c.broken = true
			return false
		}
	}
	body := b[4:]
	if len(body) < min(size, maxText) && !s.Cut() {
		return false
	}
	c.unsure = false
	cut := size > min(len(body), maxText)
	body = body[:min(len(body), size, maxText)]
	continued := c.continued || c.open() > 0 && c.result.phase == file
	c.continued = size == fullPacket
	switch {
	case continued:
		c.asked(4+size, seq)
	case seq == 0 && len(body) > 0:
		c.command(body, cut, 4+size)
	case c.login.going || sniffLogin(b):
		c.loginAnswer(body, 4+size)
	default: // a password
		c.asked(4+size, seq)
	}
	s.Next(4 + size)
	return !c.gone
}

// asked adds a packet of n bytes to the newest command.
func (c *conn) asked(n int, seq byte) {
	if p := c.newest(); p != nil {
		p.seq = seq
		p.call.Ask(c.asks.Mark(), n)
	}
}

// loginAnswer reads what the client can and which database it wants.
func (c *conn) loginAnswer(b []byte, n int) {
	if c.login.answered || len(b) < 32 {
		return
	}
	c.login.going, c.login.answered, c.login.mark, c.login.size = true, true, *c.asks.Mark(), n
	c.abled = binary.LittleEndian.Uint32(b)
	c.known = c.offered != 0
	if c.abled&capTLS != 0 && len(b) == 32 {
		c.gone = true
		return
	}
	c.database = databaseOf(b[32:], c.abled)
	if c.known {
		c.abled &= c.offered
	}
}

// databaseOf steps over the user and the password.
func databaseOf(b []byte, abled uint32) string {
	_, rest, ok := bytes.Cut(b, []byte{0})
	if !ok || abled&capDatabase == 0 || len(rest) == 0 {
		return ""
	}
	if abled&(capLongAuth|capSecure) != 0 {
		n, size := number(rest)
		if size == 0 || n > uint64(len(rest)-size) {
			return ""
		}
		rest = rest[size+int(n):]
	} else if _, rest, ok = bytes.Cut(rest, []byte{0}); !ok {
		return ""
	}
	name, _, ok := bytes.Cut(rest, []byte{0})
	if !ok || len(name) > 4*maxDatabase || !utf8.Valid(name) {
		return ""
	}
	return string(name)
}

// command takes a packet that begins one.
func (c *conn) command(b []byte, cut bool, n int) {
	c.login.going = false
	body := b[1:]
	switch b[0] {
	case comQuery:
		c.read(c.sql(body), cut)
		c.scratch.Set(&c.query)
		c.told(c.begin(results, "", &c.scratch), cut)
	case comPrepare:
		c.read(body, cut)
		st := &statement{}
		st.Set(&c.query)
		c.prepared = st
		if p := c.begin(prepare, "PREPARE", st); p != nil {
			p.statement = st
		}
	case comExecute, comBulk:
		if p := c.begin(results, "", c.statementOf(body)); p != nil && p.call.Operation == "" {
			p.call.Operation = "EXECUTE"
		}
	case comFetch:
		c.begin(rows, "FETCH", c.statementOf(body))
	case comReset:
		c.begin(packet, "RESET", c.statementOf(body))
	case comClose:
		if len(body) >= 4 {
			c.forget(binary.LittleEndian.Uint32(body))
		}
		return
	case comLongData, comQuit: // nobody answers them
		return
	case comInitDB:
		if p := c.begin(packet, "USE", nil); p != nil && !cut && len(body) <= 4*maxDatabase && utf8.Valid(body) {
			p.database = string(body)
		}
	case comChangeUser:
		c.begin(auth, "CHANGE_USER", nil)
	case comBinlogDump, comBinlogGTID:
		c.gone = true
	default:
		c.others(b[0])
	}
	c.asked(n, 0)
}

// told gives a query's call the trace that a comment names, and notes the
// database it is to use.
func (c *conn) told(p *pending, cut bool) {
	if p == nil {
		return
	}
	p.call.Remote.ID, p.call.Remote.Parent = c.query.TraceID, c.query.ParentID
	if p.call.Operation == "USE" && !cut {
		p.database = strings.Trim(strings.TrimPrefix(p.call.Summary, "USE "), "`")
	}
}

// others begins a command that is answered without a query.
func (c *conn) others(command byte) {
	switch command {
	case comFieldList:
		c.begin(fields, "FIELD_LIST", nil)
	case comStatistics:
		c.begin(packet, "STATISTICS", nil)
	case comProcessInfo:
		c.begin(results, "PROCESS_INFO", nil)
	case comDebug:
		c.begin(packet, "DEBUG", nil)
	case comPing:
		c.begin(packet, "PING", nil)
	case comSetOption:
		c.begin(packet, "SET_OPTION", nil)
	case comResetConn:
		c.begin(packet, "RESET_CONNECTION", nil)
	default:
		c.begin(packet, "OTHER", nil)
	}
}

// begin opens a call. It returns nil where it cannot be told which answer would
// be its.
func (c *conn) begin(k kind, operation string, st *statement) *pending {
	if c.broken || c.open() >= maxOpen {
		c.broken = true // until the next turn
		return nil
	}
	call := c.out.Begin(c.asks.Mark())
	c.introduce(call)
	if st != nil {
		st.describe(call)
	}
	if operation != "" {
		call.Operation = operation
		if call.Summary != "" {
			var b [sqltext.MaxSummary + 32]byte
			call.Summary = call.Keep(append(append(append(b[:0], operation...), ' '), call.Summary...))
		} else {
			call.Summary = operation
		}
	}
	c.push(pending{call: call, kind: k, rows: -1})
	return c.newest()
}

func (c *conn) introduce(call *l7.Call) {
	call.Protocol, call.Family, call.System = "mysql", event.DB, c.system
	if c.database != "" {
		call.Namespace = c.database
	}
}

func (c *conn) statementOf(body []byte) *statement {
	if len(body) < 4 {
		return nil
	}
	return c.lookup(binary.LittleEndian.Uint32(body))
}

func (c *conn) read(sql []byte, cut bool) {
	c.query.Read(sql, sqltext.Options{Dialect: sqltext.MySQL, Escapes: c.escapes, Cut: cut})
}

// sql steps over a query's attributes. Where they cannot be told from the query
// nothing is read.
func (c *conn) sql(b []byte) []byte {
	if c.known && c.abled&capAttributes == 0 {
		return b
	}
	if len(b) == 0 || isQueryStart(b[0]) && !c.known {
		return b
	}
	count, size := number(b)
	sets, size2 := number(b[min(size, len(b)):])
	if size == 0 || size2 == 0 || sets != 1 {
		return nil
	}
	b = b[size+size2:]
	if count == 0 {
		return b
	}
	return afterAttributes(b, count)
}

// afterAttributes returns what follows count attributes, nil if one is of a type
// whose length is not known.
func afterAttributes(b []byte, count uint64) []byte {
	if count > 64 {
		return nil
	}
	nulls, types := int(count+7)/8, [64]byte{}
	if len(b) < nulls+1 || b[nulls] != 1 {
		return nil
	}
	bitmap, b := b[:nulls], b[nulls+1:]
	for i := range count {
		if len(b) < 3 {
			return nil
		}
		types[i] = b[0]
		n, size := number(b[2:])
		if size == 0 || n > uint64(len(b)-2-size) {
			return nil
		}
		b = b[2+size+int(n):]
	}
	for i := range count {
		if bitmap[i/8]>>(i%8)&1 == 1 {
			continue
		}
		n := valueSize(types[i], b)
		if n < 0 || n > len(b) {
			return nil
		}
		b = b[n:]
	}
	return b
}

// valueSize returns how long a binary value of that type is, -1 if that is not
// known.
func valueSize(typ byte, b []byte) int {
	switch typ {
	case 0x06: // NULL
		return 0
	case 0x01: // TINY
		return 1
	case 0x02, 0x0d: // SHORT, YEAR
		return 2
	case 0x03, 0x09, 0x04: // LONG, INT24, FLOAT
		return 4
	case 0x05, 0x08: // DOUBLE, LONGLONG
		return 8
	case 0x07, 0x0a, 0x0b, 0x0c: // TIMESTAMP, DATE, TIME, DATETIME
		if len(b) == 0 {
			return -1
		}
		return 1 + int(b[0])
	}
	n, size := number(b)
	if size == 0 || n > uint64(len(b)) {
		return -1
	}
	return size + int(n)
}

// isQueryStart reports whether a query may begin with b.
func isQueryStart(b byte) bool {
	return (b|0x20)-'a' < 26 || strings.IndexByte(" \t\r\n(/-#;@{", b) >= 0
}
