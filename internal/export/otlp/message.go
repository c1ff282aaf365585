package otlp

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// message is a protobuf message that is written from its first byte to its
// last (protobuf.dev/programming-guides/encoding). Fields of the default value
// are left out, as proto3 has it. The numbers of fields stand where they are
// written; a test reads all of it by the published definitions.
type message []byte

// The wire types.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

func (m *message) tag(field, wire int) { *m = binary.AppendUvarint(*m, uint64(field<<3|wire)) }

func (m *message) varint(field int, v uint64) {
	if v == 0 {
		return
	}
	m.tag(field, wireVarint)
	*m = binary.AppendUvarint(*m, v)
}

// zigzag is a sint32.
func (m *message) zigzag(field, v int) { m.varint(field, uint64(uint32(v<<1)^uint32(int32(v)>>31))) }

func (m *message) fixed64(field int, v uint64) {
	if v == 0 {
		return
	}
	m.tag(field, wireFixed64)
	*m = binary.LittleEndian.AppendUint64(*m, v)
}

func (m *message) fixed32(field int, v uint32) {
	m.tag(field, wireFixed32)
	*m = binary.LittleEndian.AppendUint32(*m, v)
}

// double is written even if it is 0: it stands in oneofs and optional fields.
func (m *message) double(field int, v float64) {
	m.tag(field, wireFixed64)
	*m = binary.LittleEndian.AppendUint64(*m, math.Float64bits(v))
}

func (m *message) text(field int, v string) {
	if v == "" {
		return
	}
	m.tag(field, wireBytes)
	*m = binary.AppendUvarint(*m, uint64(len(v)))
	*m = append(*m, v...)
}

func (m *message) bytes(field int, v []byte) {
	m.tag(field, wireBytes)
	*m = binary.AppendUvarint(*m, uint64(len(v)))
	*m = append(*m, v...)
}

// open begins a message inside of this one; close ends it.
func (m *message) open(field int) (at int) {
	m.tag(field, wireBytes)
	*m = append(*m, 0) // the length, if it is below 128
	return len(*m)
}

func (m *message) close(at int) {
	n := len(*m) - at
	more := uvarintLen(uint64(n)) - 1
	if more > 0 {
		*m = append(*m, make([]byte, more)...)
		copy((*m)[at+more:], (*m)[at:at+n])
	}
	binary.PutUvarint((*m)[at-1:], uint64(n))
}

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// packed is a repeated uint64.
func (m *message) packed(field int, values []uint64) {
	if len(values) == 0 {
		return
	}
	at := m.open(field)
	for _, v := range values {
		*m = binary.AppendUvarint(*m, v)
	}
	m.close(at)
}

// attr writes a KeyValue whose value is a text, which the caller has bounded.
func (m *message) attr(field int, key, value string) {
	if value == "" {
		return
	}
	kv := m.open(field)
	m.text(1, key)
	v := m.open(2)
	m.text(1, value)
	m.close(v)
	m.close(kv)
}

func (m *message) attrInt(field int, key string, value int64) {
	kv := m.open(field)
	m.text(1, key)
	v := m.open(2)
	m.tag(3, wireVarint) // in a oneof: 0 is written too
	*m = binary.AppendUvarint(*m, uint64(value))
	m.close(v)
	m.close(kv)
}

func (m *message) attrBool(field int, key string, value bool) {
	kv := m.open(field)
	m.text(1, key)
	v := m.open(2)
	m.tag(2, wireVarint)
	*m = append(*m, map[bool]byte{true: 1}[value])
	m.close(v)
	m.close(kv)
}

// field is one field of a message that was received.
type field struct {
	number int
	wire   int
	n      uint64 // varint, fixed
	bytes  []byte
}

// next takes the first field off a message; ok is false at the end, and where
// the message is broken.
func next(p []byte) (f field, rest []byte, ok bool) {
	tag, n := binary.Uvarint(p)
	if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29 {
		return f, nil, false
	}
	f.number, f.wire, p = int(tag>>3), int(tag&7), p[n:]
	switch {
	case f.wire == wireVarint:
		f.n, n = binary.Uvarint(p)
		if n <= 0 {
			return f, nil, false
		}
		return f, p[n:], true
	case f.wire == wireFixed64 && len(p) >= 8:
		f.n = binary.LittleEndian.Uint64(p)
		return f, p[8:], true
	case f.wire == wireFixed32 && len(p) >= 4:
		f.n = uint64(binary.LittleEndian.Uint32(p))
		return f, p[4:], true
	case f.wire == wireBytes:
		size, n := binary.Uvarint(p)
		if n <= 0 || size > uint64(len(p)-n) {
			return f, nil, false
		}
		f.bytes = p[n : n+int(size)]
		return f, p[n+int(size):], true
	}
	return f, nil, false
}
