package dns

import (
	"encoding/binary"

	"ghostlight/internal/l7"
)

// sniff looks for a message, or one with its length before it.
func sniff(b []byte) l7.Side {
	if side := sniffMessage(b); side != l7.Neither {
		return side
	}
	return sniffFramed(b)
}

// smallest is the size of a message that asks for the root.
const smallest = headSize + 5

// sniffFramed looks for a message of a stream.
func sniffFramed(b []byte) l7.Side {
	if len(b) < 2 {
		return l7.Neither
	}
	side, size := sniffMessage(b[2:]), int(binary.BigEndian.Uint16(b))
	if size < smallest || side == l7.Asks && size > 4096 {
		return l7.Neither
	}
	return side
}

// sniffMessage tells a message by all of its head and the question's name as
// far as it is here: its first letter at least.
func sniffMessage(b []byte) l7.Side {
	h, ok := header(b)
	if !ok || h.questions != 1 || b[3]&0x40 != 0 || !isQuestion(b[headSize:]) {
		return l7.Neither
	}
	if h.answer {
		if h.answers > 4096 || h.authorities > 512 || h.additionals > 512 {
			return l7.Neither
		}
		return l7.Answers
	}
	// AA, TC, RA and a code are an answer's, and so are records but EDNS' and a signature.
	if b[2]&0x06 != 0 || b[3]&0x8f != 0 || h.answers != 0 || h.authorities != 0 || h.additionals > 2 {
		return l7.Neither
	}
	return l7.Asks
}

// isQuestion reports whether b may begin a question: labels of letters that
// names are made of, a type, and a class that exists.
func isQuestion(b []byte) bool {
	if len(b) < 2 {
		return false
	}
	at := 0
	for at < len(b) && b[at] != 0 {
		n := int(b[at])
		if n > 63 || at+n > maxWire {
			return false
		}
		for _, x := range b[at+1 : min(at+1+n, len(b))] {
			if !isLetter(x) {
				return false
			}
		}
		at += 1 + n
	}
	if at+5 > len(b) {
		return at > 0 || b[1] <= 1
	}
	kind, class := binary.BigEndian.Uint16(b[at+1:]), binary.BigEndian.Uint16(b[at+3:])
	return kind != 0 && (class&0x7fff == 1 || class == 3 || class == 4 || class == 254 || class == 255)
}

func isLetter(x byte) bool {
	return x|0x20 >= 'a' && x|0x20 <= 'z' || x >= '0' && x <= '9' || x == '-' || x == '_' || x == '*' || x >= 0x80
}
