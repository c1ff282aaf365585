package websocket

import (
	"encoding/binary"

	"ghostlight/internal/l7"
)

// Opcodes, RFC 6455 section 5.2.
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// maxControl is the longest control frame: they carry 125 bytes at most.
const maxControl = 2 + 4 + 125

// answer says whether bytes are what they might be.
type answer uint8

const (
	no answer = iota
	maybe
	yes
)

// frame is a frame's head.
type frame struct {
	op   byte
	last bool
	mask [4]byte
	head int // bytes
	size int // of the payload
}

func (f *frame) total() int { return f.head + f.size }

// parse reads the head that b begins with. Frames of a client are masked, those
// of a server are not.
func parse(b []byte, side l7.Side) (f frame, is answer) {
	if len(b) == 0 {
		return f, maybe
	}
	f.op, f.last = b[0]&0x0f, b[0]&0x80 != 0
	if !isFirstByte(b[0]) {
		return f, no
	}
	if len(b) < 2 {
		return f, maybe
	}
	masked := b[1]&0x80 != 0
	f.size = int(b[1] & 0x7f)
	if masked != (side == l7.Asks) || f.op >= opClose && f.size > 125 {
		return f, no
	}
	f.head = 2
	switch f.size {
	case 126:
		f.head = 4
	case 127:
		f.head = 10
	}
	long := f.head
	if masked {
		f.head += 4
	}
	if len(b) < f.head {
		return f, maybe
	}
	if long > 2 && !f.readSize(b[2:long]) {
		return f, no
	}
	if masked {
		copy(f.mask[:], b[f.head-4:f.head])
	}
	return f, yes
}

// isFirstByte knows the opcodes in use and the bits that may stand with them: of
// the reserved ones only the first, which permessage-deflate sets (RFC 7692).
func isFirstByte(b byte) bool {
	switch b & 0x0f {
	case opContinuation, opText, opBinary:
		return b&0x30 == 0
	case opClose, opPing, opPong:
		return b&0xf0 == 0x80
	}
	return false
}

// readSize reads the longer forms of a size. It must be the shortest that fits,
// and no message is of more than 2^40 bytes.
func (f *frame) readSize(b []byte) bool {
	if len(b) == 2 {
		f.size = int(binary.BigEndian.Uint16(b))
		return f.size > 125
	}
	n := binary.BigEndian.Uint64(b)
	if n < 1<<16 || n > 1<<40 {
		return false
	}
	f.size = int(n)
	return true
}

// closeCode returns the code of a close frame, 1005 if it has none.
func (f *frame) closeCode(b []byte) int {
	if f.size < 2 || len(b) < f.head+2 {
		return 1005
	}
	return int(b[f.head]^f.mask[0])<<8 | int(b[f.head+1]^f.mask[1])
}
