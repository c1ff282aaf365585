package http2

import "encoding/binary"

// huffmanBits is the length of each byte's code (RFC 7541, appendix B). The
// code is canonical: of equal lengths the smaller byte has the smaller code, so
// the lengths say everything.
var huffmanBits = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

const (
	shortBits = 10 // codes up to this length are looked up at once: all of plain text but a few signs
	longBits  = 30
)

// code is what decodes: short by the next ten bits, long by comparison. It never
// changes.
var code = newHuffman()

type huffman struct {
	short [1 << shortBits]struct{ sym, bits uint8 } // bits is 0: longer
	// A code of n bits, moved to the left of 32, is below end[n]; less base[n] it
	// is the index of its byte in syms.
	end   [longBits + 1]uint64
	first [longBits + 1]uint32
	base  [longBits + 1]int
	syms  [256]uint8
}

func newHuffman() *huffman {
	h := &huffman{}
	next, known := uint32(0), 0
	for bits := 1; bits <= longBits; bits++ {
		next <<= 1
		h.first[bits], h.base[bits] = next, known
		for sym := range huffmanBits {
			if int(huffmanBits[sym]) != bits {
				continue
			}
			h.syms[known] = uint8(sym)
			h.shorten(next, bits, uint8(sym))
			known++
			next++
		}
		h.end[bits] = uint64(next) << (32 - bits)
	}
	return h
}

func (h *huffman) shorten(code uint32, bits int, sym uint8) {
	if bits > shortBits {
		return
	}
	from := code << (shortBits - bits)
	for i := range uint32(1) << (shortBits - bits) {
		h.short[from+i] = struct{ sym, bits uint8 }{sym, uint8(bits)}
	}
}

// append decodes p behind dst, at most room bytes of it, and reports whether p
// is well formed and all of it was decoded.
func (h *huffman) append(dst, p []byte, room int) ([]byte, bool) {
	var window uint64 // the next bits, from the left
	have := 0
	for {
		if have < 32 && len(p) >= 4 {
			window |= uint64(binary.BigEndian.Uint32(p)) << (32 - have)
			p, have = p[4:], have+32
		}
		for have < 32 && len(p) > 0 {
			window |= uint64(p[0]) << (56 - have)
			p, have = p[1:], have+8
		}
		sym, bits := h.next(window)
		if bits == 0 || bits > have {
			return dst, have < 8 && isPadding(window, have) && len(p) == 0
		}
		if room == 0 {
			return dst, false
		}
		dst, room = append(dst, sym), room-1
		window, have = window<<bits, have-bits
	}
}

// next returns the byte whose code begins window; bits is 0 if there is none.
func (h *huffman) next(window uint64) (sym uint8, bits int) {
	if e := h.short[window>>(64-shortBits)]; e.bits != 0 {
		return e.sym, int(e.bits)
	}
	top := window >> 32
	for bits := shortBits + 1; bits <= longBits; bits++ {
		if top < h.end[bits] {
			return h.syms[h.base[bits]+int(uint32(top>>(32-bits))-h.first[bits])], bits
		}
	}
	return 0, 0
}

// isPadding reports whether the n bits of window are all ones, as the end of a
// string is filled.
func isPadding(window uint64, n int) bool {
	return window>>(64-n)+1 == 1<<n
}
