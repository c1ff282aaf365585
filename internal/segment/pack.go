package segment

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"

	"ghostlight/internal/event"
)

// Packed is numbers in as few whole bytes each as they need, counted from
// base. Width 0 means that all of them are base.
type Packed struct {
	base  int64
	width int
	nulls bool   // some cells have no value
	data  []byte // width bytes a value, then padding for 8-byte loads
}

const padding = 8

// PackInts packs cells into memory if it is enough, else into its own. Null is kept as 0, a value as its distance from the
// least one plus 1; the distance always fits, for Null itself is no value.
func PackInts(cells []int64, memory []byte) Packed {
	low, high, nulls := intBounds(cells)
	if low > high {
		return Packed{base: event.Null, nulls: true}
	}
	if low == high && nulls == 0 {
		return Packed{base: low}
	}
	p := Packed{base: low, width: byteLen(uint64(high) - uint64(low) + 1), nulls: nulls > 0}
	p.data = sized(memory, len(cells)*p.width+padding)
	at := 0
	less := uint64(low) - 1
	for _, c := range cells {
		n := uint64(c) - less
		if c == event.Null {
			n = 0
		}
		binary.LittleEndian.PutUint64(p.data[at:], n)
		at += p.width
	}
	clear(p.data[at:])
	return p
}

// PackCodes packs dictionary codes so, and returns the greatest.
func PackCodes(codes []uint32, memory []byte) (p Packed, most uint32) {
	if len(codes) == 0 {
		return Packed{nulls: true}, 0
	}
	least := codes[0]
	for _, c := range codes {
		least, most = min(least, c), max(most, c)
	}
	if least == most {
		return Packed{base: int64(most), nulls: most == 0}, most
	}
	p = Packed{width: byteLen(uint64(most)), nulls: least == 0}
	p.data = sized(memory, len(codes)*p.width+padding)
	if p.width == 1 {
		for i, c := range codes {
			p.data[i] = byte(c)
		}
	} else {
		at := 0
		for _, c := range codes {
			binary.LittleEndian.PutUint64(p.data[at:], uint64(c))
			at += p.width
		}
	}
	clear(p.data[len(codes)*p.width:])
	return p, most
}

// intBounds tells the least and the greatest value, and how many cells have
// none. Null is less than any value.
func intBounds(cells []int64) (low, high int64, nulls int) {
	low, high = math.MaxInt64, event.Null
	for _, c := range cells {
		low, high = min(low, c), max(high, c)
	}
	if low > event.Null {
		return low, high, 0
	}
	low = math.MaxInt64
	for _, c := range cells {
		if c == event.Null {
			nulls++
			continue
		}
		low = min(low, c)
	}
	return low, high, nulls
}

func byteLen(n uint64) int { return (bits.Len64(n) + 7) / 8 }

func mask(width int) uint64 { return ^uint64(0) >> (64 - 8*uint(width)) }

// Ints unpacks what PackInts packed into dst, whose length tells how many.
func (p *Packed) Ints(dst []int64) {
	if p.width == 0 {
		for i := range dst {
			dst[i] = p.base
		}
		return
	}
	less := uint64(p.base) - 1
	if !p.nulls && p.fullInts(dst, less) {
		return
	}
	m, at := mask(p.width), 0
	for i := range dst {
		n := binary.LittleEndian.Uint64(p.data[at:]) & m
		at += p.width
		dst[i] = int64(n + less)
		if n == 0 {
			dst[i] = event.Null
		}
	}
}

// fullInts unpacks the common widths where no cell is without a value.
func (p *Packed) fullInts(dst []int64, less uint64) bool {
	switch data := p.data; p.width {
	case 1:
		for i, n := range data[:len(dst)] {
			dst[i] = int64(uint64(n) + less)
		}
	case 2:
		for i := range dst {
			dst[i] = int64(uint64(binary.LittleEndian.Uint16(data[2*i:])) + less)
		}
	case 3, 4, 5, 6, 7:
		m, w := mask(p.width), p.width
		for i := range dst {
			dst[i] = int64(binary.LittleEndian.Uint64(data[i*w:])&m + less)
		}
	default:
		return false
	}
	return true
}

// Codes unpacks what PackCodes packed.
func (p *Packed) Codes(dst []uint32) {
	if p.width == 0 {
		for i := range dst {
			dst[i] = uint32(p.base)
		}
		return
	}
	if p.width == 1 {
		for i, c := range p.data[:len(dst)] {
			dst[i] = uint32(c)
		}
		return
	}
	m, at := mask(p.width), 0
	for i := range dst {
		dst[i] = uint32(binary.LittleEndian.Uint64(p.data[at:]) & m)
		at += p.width
	}
}

// From returns the numbers from index i on.
func (p *Packed) From(i int) Packed {
	if p.width == 0 {
		return *p
	}
	return Packed{p.base, p.width, p.nulls, p.data[i*p.width:]}
}

// Full tells whether every cell has a value, Void whether none has.
func (p *Packed) Full() bool { return !p.nulls }

// Void tells whether no cell has a value.
func (p *Packed) Void() bool { return p.nulls && p.width == 0 }

// Bounds returns limits of what PackInts packed.
func (p *Packed) Bounds() (low, high int64, ok bool) {
	if p.width == 0 {
		return p.base, p.base, p.base != event.Null
	}
	if p.width == 8 {
		return p.base, 1<<63 - 1, true
	}
	high = p.base + int64(mask(p.width)) - 1
	if high < p.base {
		high = 1<<63 - 1
	}
	return p.base, high, true
}

var errPacked = errors.New("segment: packed numbers end too early")

// Append writes p as bytes: width, base, data.
func (p *Packed) Append(dst []byte) []byte {
	dst = append(dst, byte(p.width))
	dst = binary.AppendVarint(dst, p.base)
	if p.width == 0 {
		return dst
	}
	return append(dst, p.data[:len(p.data)-padding]...)
}

// ReadPacked reads n numbers that Append wrote and returns what follows them.
// The numbers alias b, which must have 8 more readable bytes after it ends.
func ReadPacked(b []byte, n int) (p Packed, rest []byte, err error) {
	if len(b) == 0 || b[0] > 8 {
		return p, nil, errPacked
	}
	p.width = int(b[0])
	base, k := binary.Varint(b[1:])
	if k <= 0 || (len(b)-1-k)/max(1, p.width) < n && p.width > 0 {
		return p, nil, errPacked
	}
	p.base, b = base, b[1+k:]
	p.nulls = true // not told: it is worked out when the whole block is packed
	if p.width == 0 {
		return p, b, nil
	}
	size := n * p.width
	if cap(b) < size+padding {
		return p, nil, errPacked
	}
	p.data = b[: size+padding : size+padding]
	return p, b[size:], nil
}

// Size returns the bytes of memory p takes.
func (p *Packed) Size() int { return cap(p.data) + 40 }
