package http2

import (
	"encoding/binary"

	"ghostlight/internal/l7"
)

// sniff tells whose frames begin here. The client's preface says it; SETTINGS
// without one are the server's first word; a HEADERS frame is told by its
// pseudo-headers. Frames that both sides send alike say nothing by themselves.
func sniff(p []byte) l7.Side {
	if n := min(len(p), len(preface)); n >= 6 && string(p[:n]) == preface[:n] {
		return l7.Asks
	}
	said := l7.Neither
	for first := true; len(p) >= headBytes; first = false {
		h := frameAt(p)
		payload := p[headBytes:]
		if !h.isPlain() || h.typ == continuation {
			return l7.Neither
		}
		if said == l7.Neither {
			side, ok := whose(h, payload[:min(h.length, len(payload))], first)
			if !ok {
				return l7.Neither
			}
			said = side
		}
		p = p[min(headBytes+h.length, len(p)):]
	}
	return said
}

// whose tells who sends such a frame; ok is false if nobody does.
func whose(h frame, p []byte, first bool) (side l7.Side, ok bool) {
	switch h.typ {
	case settings:
		return whoseSettings(h, p, first)
	case headers:
		return whoseHeaders(h, p)
	case pushPromise:
		return l7.Neither, !first
	case windowUpdate:
		return l7.Neither, len(p) < 4 || binary.BigEndian.Uint32(p)-1 < 1<<31-1
	case rstStream:
		return l7.Neither, len(p) < 4 || binary.BigEndian.Uint32(p) <= maxCode
	}
	return l7.Neither, true
}

// whoseSettings says that SETTINGS at the beginning are the server's, if they
// are sound.
func whoseSettings(h frame, p []byte, first bool) (l7.Side, bool) {
	if h.has(ack) || h.length == 0 {
		return l7.Neither, true
	}
	side := l7.Answers
	if !first || len(p) < 6 {
		side = l7.Neither
	}
	for ; len(p) >= 6; p = p[6:] {
		id, value := binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])
		if !isSetting(id, value) {
			return l7.Neither, false
		}
		if id == enablePush {
			side = l7.Neither // a client says so, rarely a server
		}
	}
	return side, true
}

const (
	enablePush   = 2
	experimental = 0xf000
)

// isSetting reports whether there is such a setting (RFC 9113, 6.5.2; RFC 8441;
// RFC 9218). From experimental on, everybody has his own, as gRPC's C core.
func isSetting(id uint16, value uint32) bool {
	switch id {
	case 1, 3, 6:
		return true
	case enablePush, 8, 9:
		return value <= 1
	case 4:
		return value < 1<<31
	case 5:
		return value >= 16<<10 && value < 1<<24
	}
	return id >= experimental
}

// whoseHeaders looks for pseudo-headers, which come first: a request's are at
// the beginning of the static table, :status behind them.
func whoseHeaders(h frame, p []byte) (l7.Side, bool) {
	p, ok := h.fragment(p, len(p) == h.length)
	if !ok {
		return l7.Neither, len(p) == 0
	}
	for n := 0; n < 4 && len(p) > 0; n++ {
		prefix := prefixOf(p[0])
		i, rest, ok := readInt(p, prefix)
		if !ok {
			return l7.Neither, len(rest) == 0
		}
		p = rest
		if prefix == 5 {
			continue
		}
		if side, ok := whoseIndex(i, prefix, n); side != l7.Neither || !ok {
			return side, ok
		}
		for range textsOf(i, prefix) {
			if _, _, p, ok = readText(p); !ok {
				return l7.Neither, true // it goes on beyond what is here
			}
		}
	}
	return l7.Neither, true
}

// prefixOf returns how many bits of a representation's first byte are a number.
func prefixOf(b byte) int {
	switch {
	case b&0x80 != 0:
		return 7
	case b&0xc0 == 0x40:
		return 6
	case b&0xe0 == 0x20:
		return 5
	}
	return 4
}

// textsOf returns how many strings follow a number.
func textsOf(i, prefix int) int {
	switch {
	case prefix == 7:
		return 0
	case i == 0:
		return 2
	}
	return 1
}

// whoseIndex tells who sends a field with this index as its nth.
func whoseIndex(i, prefix, n int) (l7.Side, bool) {
	switch {
	case i == 0:
		return l7.Neither, prefix < 7
	case i == 1 && prefix == 7:
		return l7.Neither, false // an empty :authority
	case i <= 7:
		return l7.Asks, true
	case i <= 14:
		return l7.Answers, true
	}
	return l7.Neither, i >= len(staticTable) || n > 0
}
