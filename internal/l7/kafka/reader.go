package kafka

import "encoding/binary"

// reader reads the fields of a message, of which only the beginning may be here:
// from the first that is not all here on, everything is empty and bad is set.
type reader struct {
	b        []byte
	flexible bool // lengths are compact, tags follow each struct (KIP-482)
	bad      bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) || r.bad {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) skip(n int) { r.take(n) }

func (r *reader) int8() int8 {
	if b := r.take(1); b != nil {
		return int8(b[0])
	}
	return 0
}

func (r *reader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *reader) uvarint() int {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > maxSize {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return int(n)
}

// length reads the length of something compact or not, that short bytes tell
// where it is not; -1 is null.
func (r *reader) length(short bool) int {
	switch {
	case r.flexible:
		return r.uvarint() - 1
	case short:
		return int(r.int16())
	}
	return int(r.int32())
}

// string reads a string; null is empty.
func (r *reader) string() []byte {
	n := r.length(true)
	if n <= 0 {
		return nil
	}
	return r.take(n)
}

// array reads how many elements follow; null is none.
func (r *reader) array() int { return max(r.length(false), 0) }

// bytes reads the size of bytes that follow; null is none.
func (r *reader) bytes() int { return max(r.length(false), 0) }

// ints steps over an array of elements of a size.
func (r *reader) ints(size int) {
	if n := r.array(); n > 0 {
		r.skip(min(n, maxSize) * size)
	}
}

// tags steps over the tagged fields.
func (r *reader) tags() {
	if !r.flexible {
		return
	}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		r.uvarint()
		r.skip(r.uvarint())
	}
}
