// Package wire is the contract between the BPF programs and user space: the
// header of every record, and the way to see raw bytes as a C struct. The C
// side is bpf/ghost.h.
package wire

import (
	"bytes"
	"fmt"
	"unsafe"
)

// Header mirrors struct ghost_hdr.
type Header struct {
	Ktime  uint64 // CLOCK_MONOTONIC, nanoseconds
	Cgroup uint64
	Pid    uint32
	Tid    uint32
	Sensor uint16
	Type   uint16
	Cpu    uint32
}

// View returns raw seen as a T, without copying. T is the twin that bpf2go
// generated from the C struct, so the layouts agree. The result lives as long
// as raw: copy what is kept.
func View[T any](raw []byte) (*T, error) {
	var zero T
	if len(raw) < int(unsafe.Sizeof(zero)) {
		return nil, fmt.Errorf("wire: %T needs %d bytes, the record has %d", zero, unsafe.Sizeof(zero), len(raw))
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(raw))), nil
}

// Bytes returns a C char array up to its NUL, without copying.
func Bytes[T int8 | uint8](c []T) []byte {
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(c))), len(c))
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}
