package mysql

import (
	"bytes"
	"encoding/binary"
	"strings"

	"ghostlight/internal/l7"
)

// sniff knows the packets that a turn begins with. It is strict: three bytes of
// length and a zero begin other protocols' messages as well.
func sniff(p []byte) l7.Side {
	size, seq, ok := header(p)
	if !ok || len(p) < 5 || size == 0 {
		return l7.Neither
	}
	body := p[4:]
	whole := len(body) >= size
	body = body[:min(len(body), size)]
	switch {
	case seq == 0 && isCommand(size, body, whole, len(p)), sniffLogin(p):
		return l7.Asks
	case seq == 0 && isGreeting(body), seq == 1 && isAnswer(p, size, body, whole):
		return l7.Answers
	}
	return l7.Neither
}

func isCommand(size int, b []byte, whole bool, n int) bool {
	rest := b[1:]
	switch b[0] {
	case comQuery:
		if len(rest) > 2 && rest[0] == 0 && rest[1] == 1 { // no attributes
			rest = rest[2:]
		}
		return len(rest) > 0 && isQueryStart(rest[0]) && isText(rest)
	case comPrepare:
		// "Q", a length of 22 and a query is PostgreSQL's as long as its end is not seen.
		return len(rest) > 0 && isQueryStart(rest[0]) && isText(rest) && (n > 23 || strings.IndexByte("QPBDEC", byte(size)) < 0)
	case comExecute:
		return size >= 10 && len(rest) >= 9 && rest[4] <= 0x0f && binary.LittleEndian.Uint32(rest[5:]) == 1
	case comPing, comQuit, comStatistics, comResetConn:
		return size == 1 && n == 5
	case comInitDB:
		return whole && size > 1 && size <= 1+maxDatabase && n == 4+size && isText(rest)
	case comClose, comReset:
		return size == 5 && whole
	}
	return false
}

// isText reports whether b may be part of a query.
func isText(b []byte) bool {
	return bytes.IndexFunc(b, func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' && r != '\r' }) < 0
}

// sniffLogin knows the client's answer to the greeting, and its wish for TLS.
func sniffLogin(p []byte) bool {
	size, seq, ok := header(p)
	if !ok || seq != 1 || size < 32 || size > 1<<16 || len(p) < 4+28 {
		return false
	}
	able := binary.LittleEndian.Uint32(p[4:])
	return able&capProtocol41 != 0 && bytes.Count(p[13:32], []byte{0}) == 19
}

// isGreeting reports whether b is a server's first packet: protocol 10 and a
// version.
func isGreeting(b []byte) bool {
	if b[0] != 10 || len(b) < 4 || b[1]-'0' >= 10 {
		return false
	}
	version, _, _ := bytes.Cut(b[1:], []byte{0})
	return bytes.IndexByte(version, '.') > 0 && isText(version)
}

func isAnswer(p []byte, size int, b []byte, whole bool) bool {
	switch {
	case b[0] == 0xff:
		return size >= 9 && len(b) >= 9 && b[3] == '#' && isState(b[4:9])
	case b[0] == 0 && size == 7: // OK
		return whole && len(p) == 11
	case size == 1: // columns, and the first of them
		return b[0] > 0 && b[0] < 0xfb && len(p) >= 13 && p[8] == 2 && string(p[9:13]) == "\x03def"
	}
	return false
}
