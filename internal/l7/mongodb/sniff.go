package mongodb

import (
	"encoding/binary"

	"ghostlight/internal/l7"
)

// sniff tells a message by its size, its opcode, and what that wants behind it.
// Only replies are to something.
func sniff(b []byte) l7.Side {
	if len(b) < headerSize+1 {
		return l7.Neither
	}
	h := headerOf(b)
	if h.size < 26 || h.size > maxSize || !isBody(h.op, b[headerSize:]) {
		return l7.Neither
	}
	switch {
	case h.answerTo == 0 && h.op != opReply:
		return l7.Asks
	case h.answerTo != 0 && h.op != opQuery:
		return l7.Answers
	}
	return l7.Neither
}

// isBody looks at the bytes behind the header, as many as are here.
func isBody(op opcode, b []byte) bool {
	var w [9]byte
	n := copy(w[:], b)
	flags := binary.LittleEndian.Uint32(w[:])
	switch op {
	case opMsg: // flags beyond these must not be ignored, so there are none
		return flags&^(checksumPresent|moreToCome|1<<16) == 0 && w[4] <= 1
	case opCompressed:
		original := opcode(flags)
		return (n < 4 || original == opMsg || original == opQuery || original == opReply) && w[8] <= compressorZstd
	case opQuery:
		return flags&^0xff == 0 && (n < 5 || w[4] > ' ' && w[4] < 0x7f)
	case opReply:
		return flags&^0x0f == 0
	}
	return false
}
