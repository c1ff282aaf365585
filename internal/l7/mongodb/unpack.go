package mongodb

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zstd"
)

// unpacker opens the heads of compressed messages.
type unpacker struct {
	out  [askHead]byte
	in   bytes.Reader
	zlib io.ReadCloser // of what stands behind zlib's two bytes
	zstd *zstd.Decoder
}

// The compressors by their ids.
const (
	compressorNone   = 0
	compressorSnappy = 1
	compressorZlib   = 2
	compressorZstd   = 3
)

// open returns the original opcode of an OP_COMPRESSED, and what of its body
// comes out of the bytes that are here. It is valid until the next call.
func (u *unpacker) open(b []byte) (opcode, []byte) {
	const head = 9 // opcode, size, compressor
	if len(b) < head {
		return 0, nil
	}
	op, packed := opcode(binary.LittleEndian.Uint32(b)), b[head:]
	switch b[8] {
	case compressorNone:
		return op, packed
	case compressorSnappy:
		return op, snappy(u.out[:0], packed)
	case compressorZlib:
		return op, u.inflate(packed)
	case compressorZstd:
		return op, u.unzstd(packed)
	}
	return op, nil
}

func (u *unpacker) inflate(packed []byte) []byte {
	if len(packed) < 2 || packed[0]&0x0f != 8 || packed[1]&0x20 != 0 { // deflate without a dictionary (RFC 1950, 2.2)
		return nil
	}
	u.in.Reset(packed[2:])
	if u.zlib == nil {
		u.zlib = flate.NewReader(&u.in)
	} else if err := u.zlib.(flate.Resetter).Reset(&u.in, nil); err != nil {
		return nil
	}
	n, _ := io.ReadFull(u.zlib, u.out[:]) // what is cut ends in an error
	return u.out[:n]
}

// maxWindow bounds what a decoder keeps: messages that need more are not opened.
const maxWindow = 1 << 20

func (u *unpacker) unzstd(packed []byte) []byte {
	if u.zstd == nil {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
		if err != nil {
			return nil
		}
		u.zstd = d
	}
	u.in.Reset(packed)
	if err := u.zstd.Reset(&u.in); err != nil {
		return nil
	}
	n, _ := io.ReadFull(u.zstd, u.out[:])
	return u.out[:n]
}

// snappy appends the beginning of an unpacked block to dst, up to its capacity
// (the format's description, 2). It stops where b is cut or makes no sense.
func snappy(dst, b []byte) []byte {
	_, n := binary.Uvarint(b)
	if n <= 0 {
		return dst
	}
	for b = b[n:]; len(b) > 0 && len(dst) < cap(dst); {
		var size, offset int
		tag := b[0]
		switch tag & 3 {
		case 0:
			size = int(tag >> 2)
			head := 1
			if size >= 60 {
				more := size - 59
				if head += more; len(b) < head {
					return dst
				}
				size = 0
				for i := more; i > 0; i-- {
					size = size<<8 | int(b[i])
				}
			}
			b = b[head:]
			size = min(size+1, len(b))
			dst = append(dst, b[:min(size, cap(dst)-len(dst))]...)
			b = b[size:]
			continue
		case 1:
			if len(b) < 2 {
				return dst
			}
			size, offset = 4+int(tag>>2&7), int(tag&0xe0)<<3|int(b[1])
			b = b[2:]
		case 2:
			if len(b) < 3 {
				return dst
			}
			size, offset = 1+int(tag>>2), int(binary.LittleEndian.Uint16(b[1:]))
			b = b[3:]
		case 3:
			if len(b) < 5 {
				return dst
			}
			size, offset = 1+int(tag>>2), int(binary.LittleEndian.Uint32(b[1:]))
			b = b[5:]
		}
		if offset == 0 || offset > len(dst) {
			return dst
		}
		for ; size > 0 && len(dst) < cap(dst); size-- {
			dst = append(dst, dst[len(dst)-offset])
		}
	}
	return dst
}
