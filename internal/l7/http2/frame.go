package http2

import "encoding/binary"

// The types of frames (RFC 9113, 6).
const (
	data = iota
	headers
	priority
	rstStream
	settings
	pushPromise
	ping
	goAway
	windowUpdate
	continuation
)

// The flags.
const (
	ack         = 0x01 // of SETTINGS and PING
	endStream   = 0x01
	endHeaders  = 0x04
	padded      = 0x08
	prioritised = 0x20
)

const (
	headBytes = 9
	// maxFrame is the length of a frame that nobody negotiated, and of the longest
	// header block that is read.
	maxFrame = 16 << 10
	maxCode  = 13
	preface  = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// frame is the head of a frame.
type frame struct {
	length int
	typ    uint8
	flags  uint8
	id     uint32 // of the stream; the reserved bit is its highest
}

// frameAt reads the head of a frame, which must be there.
func frameAt(b []byte) frame {
	return frame{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		typ:    b[3], flags: b[4], id: binary.BigEndian.Uint32(b[5:]),
	}
}

func (h *frame) has(flag uint8) bool { return h.flags&flag != 0 }

// isValid reports whether there can be such a frame. Frames of unknown types are
// to be ignored; flags that have no meaning too.
func (h *frame) isValid() bool {
	if h.id>>31 != 0 {
		return false
	}
	switch h.typ {
	case data:
		return h.id != 0
	case headers, pushPromise, continuation:
		return h.id != 0 && h.length <= 1<<20
	case priority:
		return h.id != 0 && h.length == 5
	case rstStream:
		return h.id != 0 && h.length == 4
	case settings:
		return h.id == 0 && h.length%6 == 0 && h.length <= maxFrame
	case ping:
		return h.id == 0 && h.length == 8
	case goAway:
		return h.id == 0 && h.length >= 8 && h.length <= maxFrame
	case windowUpdate:
		return h.length == 4
	}
	return h.length <= maxFrame
}

// meaningful are the flags of each type.
var meaningful = [...]uint8{
	data: endStream | padded, headers: endStream | endHeaders | padded | prioritised,
	settings: ack, pushPromise: endHeaders | padded, ping: ack, continuation: endHeaders,
}

// isPlain is isValid for bytes of which nobody knows yet that they are frames.
func (h *frame) isPlain() bool {
	if h.typ > continuation || h.flags&^meaningful[h.typ] != 0 || h.length > maxFrame || !h.isValid() {
		return false
	}
	switch h.typ {
	case data:
		return h.id&1 == 1
	case headers:
		return h.id&1 == 1 && h.length > 0
	case settings:
		return h.length <= 6*16 && (!h.has(ack) || h.length == 0)
	}
	return true
}

// fragment returns the part of a header block that a frame's payload holds. Of a
// payload that is not whole, it is what there is of it.
func (h *frame) fragment(p []byte, whole bool) ([]byte, bool) {
	pad := 0
	if h.has(padded) && h.typ != continuation {
		if len(p) == 0 {
			return nil, false
		}
		pad, p = int(p[0]), p[1:]
	}
	skip := 0
	switch {
	case h.typ == headers && h.has(prioritised):
		skip = 5
	case h.typ == pushPromise:
		skip = 4
	}
	if !whole {
		return p[min(skip, len(p)):], true
	}
	if skip+pad > len(p) {
		return nil, false
	}
	return p[skip : len(p)-pad], true
}
