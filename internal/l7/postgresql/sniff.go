package postgresql

import (
	"bytes"
	"encoding/binary"
	"strings"

	"ghostlight/internal/l7"
)

// sniff knows the messages that a turn begins with. All lengths of a message
// that are told twice must agree.
func sniff(p []byte) l7.Side {
	if len(p) < 5 {
		return l7.Neither
	}
	if p[0] == 0 {
		return sniffStart(p)
	}
	typ, size, _ := header(p)
	if size < 4 || size > maxMessage {
		return l7.Neither
	}
	body := p[5:]
	whole := len(body) >= size-4
	body = body[:min(len(body), size-4)]
	switch {
	case typ == 'Q' && isQuery(body, whole), typ == 'P' && isParse(body, whole), typ == 'B' && isBind(body, size), typ == 'E' && isExecute(body, size),
		typ == 'p' && size < 4096 && strings.HasPrefix(string(body), "SCRAM-SHA-256\x00"), (typ == 'X' || typ == 'S') && size == 4 && len(p) == 5,
		typ == 'D' && size < 80 && len(body) > 1 && (body[0] == 'S' || body[0] == 'P') && whole && bytes.IndexByte(body[1:], 0) == size-6 && isText(body[1:size-5]):
		return l7.Asks
	case isAnswer(typ, size, body, whole):
		return l7.Answers
	}
	return l7.Neither
}

// sniffStart knows the messages without a type.
func sniffStart(p []byte) l7.Side {
	if len(p) < 8 {
		return l7.Neither
	}
	size := binary.BigEndian.Uint32(p)
	switch code := binary.BigEndian.Uint32(p[4:]); {
	case (code == tlsCode || code == gssCode) && size == 8,
		code == cancelCode && size >= 16 && size <= 268,
		(code == version3 || code == version3+2) && size > 8 && size <= 10000 && len(p) > 9 && isParameter(p[8:]):
		return l7.Asks
	}
	return l7.Neither
}

// isParameter reports whether b begins with a parameter's name.
func isParameter(b []byte) bool {
	for i, c := range b {
		if c == 0 && i > 3 {
			return true
		}
		if (c < 'a' || c > 'z') && c != '_' && (i == 0 || c != '.') {
			return false
		}
	}
	return true
}

// isQuery reports whether b is a query that ends with the message.
func isQuery(b []byte, whole bool) bool {
	if whole {
		if len(b) == 0 || b[len(b)-1] != 0 {
			return false
		}
		b = b[:len(b)-1]
		return isText(b)
	}
	return len(b) > 0 && isText(b) && strings.IndexByte(" \t\r\n(/-;", b[0]) >= 0 || len(b) > 0 && isText(b) && (b[0]|0x20) >= 'a' && (b[0]|0x20) <= 'z'
}

func isParse(b []byte, whole bool) bool {
	name, rest, ok := text(b)
	if !ok || len(name) > maxName || !isText(name) || len(rest) == 0 {
		return false
	}
	query, _, ended := text(rest)
	return isText(query) && (ended || !whole) && (ended || isQuery(query, false))
}

func isBind(b []byte, size int) bool {
	portal, rest, ok := text(b)
	if !ok || len(portal) > maxName || !isText(portal) {
		return false
	}
	name, rest, ok := text(rest)
	if !ok || len(name) > maxName || !isText(name) || size < 4+len(portal)+len(name)+2+6 || len(rest) < 2 {
		return false
	}
	formats := int(binary.BigEndian.Uint16(rest))
	return formats <= 1 || formats < 4096 && len(rest) >= 4 && binary.BigEndian.Uint16(rest[2:]) <= 1
}

func isExecute(b []byte, size int) bool {
	portal, _, ok := text(b)
	return ok && len(portal) <= maxName && isText(portal) && size == 4+len(portal)+1+4
}

func isAnswer(typ byte, size int, b []byte, whole bool) bool {
	switch typ {
	case 'R':
		return len(b) >= 4 && size < 1024 && isAuthentication(binary.BigEndian.Uint32(b), size)
	case 'Z':
		return size == 5 && len(b) == 1 && (b[0] == 'I' || b[0] == 'T' || b[0] == 'E')
	case '1', '2', '3', 'n', 'I', 's':
		return size == 4
	case 'C':
		return whole && size < 64 && size > 5 && b[len(b)-1] == 0 && b[0] >= 'A' && b[0] <= 'Z' && isText(b[:len(b)-1])
	case 'E':
		return len(b) > 4 && b[0] == 'S' && (strings.HasPrefix("ERROR\x00", string(b[1:min(len(b), 7)])) || strings.HasPrefix("FATAL\x00", string(b[1:min(len(b), 7)])))
	case 'S':
		name, _, ok := text(b)
		return ok && size < 256 && len(name) > 3 && isParameter(bytes.ToLower(name))
	case 'T':
		return isRowDescription(b, size)
	case 't':
		return len(b) >= 2 && size == 6+4*int(binary.BigEndian.Uint16(b))
	}
	return false
}

func isAuthentication(code uint32, size int) bool {
	switch code {
	case 0, 3:
		return size == 8
	case 5:
		return size == 12
	case 10, 11, 12:
		return true
	}
	return false
}

// isRowDescription reports whether a count of columns and a column's name come
// first.
func isRowDescription(b []byte, size int) bool {
	if len(b) < 3 {
		return false
	}
	n := int(binary.BigEndian.Uint16(b))
	name, _, _ := text(b[2:])
	return n > 0 && n <= 1664 && size >= 6+n*19 && size < 6+n*(19+maxName+64) && isText(name)
}
