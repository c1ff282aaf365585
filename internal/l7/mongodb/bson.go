package mongodb

import (
	"bytes"
	"encoding/binary"
	"math"
)

// element is one field of a document (bsonspec.org, version 1.1).
type element struct {
	kind  byte
	key   []byte
	value []byte // as much of it as is here
}

// The kinds of elements that mean something to us.
const (
	kindDouble   = 0x01
	kindString   = 0x02
	kindDocument = 0x03
	kindArray    = 0x04
	kindBool     = 0x08
	kindInt32    = 0x10
	kindInt64    = 0x12
)

// elements is what of a document is still to be read.
type elements []byte

// document returns the elements of the document at b, which may be cut.
func document(b []byte) elements {
	if len(b) < 5 {
		return nil
	}
	size := int(int32(binary.LittleEndian.Uint32(b)))
	if size < 5 {
		return nil
	}
	return elements(b[4:min(size, len(b))])
}

// next returns the next element; false if there is none, or it is not all here.
func (d *elements) next() (e element, ok bool) {
	b := *d
	*d = nil
	if len(b) < 2 || b[0] == 0 {
		return e, false
	}
	end := bytes.IndexByte(b[1:], 0)
	if end < 0 {
		return e, false
	}
	e.kind, e.key = b[0], b[1:1+end]
	b = b[2+end:]
	n := sizeOf(e.kind, b)
	if n < 0 {
		return e, false
	}
	e.value = b[:min(n, len(b))]
	if n > len(b) {
		return e, e.kind == kindDocument || e.kind == kindArray // these are read as far as they go
	}
	*d = b[n:]
	return e, true
}

// sizeOf returns the size of a value, -1 if that is not here.
func sizeOf(kind byte, b []byte) int {
	switch kind {
	case 0x06, 0x0a, 0x7f, 0xff:
		return 0
	case kindBool:
		return 1
	case kindInt32:
		return 4
	case kindDouble, 0x09, 0x11, kindInt64:
		return 8
	case 0x07:
		return 12
	case 0x13:
		return 16
	case kindString, 0x0d, 0x0e:
		return prefixed(b, 4)
	case kindDocument, kindArray, 0x0f:
		return prefixed(b, 0)
	case 0x05:
		return prefixed(b, 5)
	case 0x0c:
		return prefixed(b, 16)
	case 0x0b:
		return twoStrings(b)
	}
	return -1
}

// prefixed is the size of a value whose length stands first, with more bytes
// that it does not count.
func prefixed(b []byte, more int) int {
	if len(b) < 4 {
		return -1
	}
	n := int(int32(binary.LittleEndian.Uint32(b)))
	if n < 0 || n > maxSize || more == 0 && n < 5 {
		return -1
	}
	return n + more
}

func twoStrings(b []byte) int {
	first := bytes.IndexByte(b, 0)
	if first < 0 {
		return -1
	}
	second := bytes.IndexByte(b[first+1:], 0)
	if second < 0 {
		return -1
	}
	return first + second + 2
}

// text returns the value of a string.
func (e *element) text() []byte {
	if e.kind != kindString || len(e.value) < 5 {
		return nil
	}
	return e.value[4 : len(e.value)-1]
}

// number returns the value of a number.
func (e *element) number() int64 {
	switch e.kind {
	case kindInt32:
		return int64(int32(binary.LittleEndian.Uint32(e.value)))
	case kindInt64:
		return int64(binary.LittleEndian.Uint64(e.value))
	case kindDouble:
		if f := math.Float64frombits(binary.LittleEndian.Uint64(e.value)); math.Abs(f) < 1<<31 {
			return int64(f)
		}
	case kindBool:
		return int64(e.value[0])
	}
	return 0
}

// isNumber reports whether number means something.
func (e *element) isNumber() bool {
	return e.kind == kindInt32 || e.kind == kindInt64 || e.kind == kindDouble || e.kind == kindBool
}
