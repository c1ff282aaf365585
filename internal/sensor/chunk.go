package sensor

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"ghostlight/internal/event"
	"ghostlight/internal/wire"
)

// DecodeChunk adds a record of bpf/l7.h to out: the capturing sensors share it.
func DecodeChunk(h *wire.Header, raw []byte, out *event.Batch) error {
	if h.Type != wire.ChunkType {
		return fmt.Errorf("no record has the type %d", h.Type)
	}
	e, err := wire.View[wire.Chunk](raw)
	if err != nil {
		return err
	}
	data := raw[unsafe.Sizeof(*e):]
	if int(e.Captured) > len(data) {
		return fmt.Errorf("%d bytes captured, the record has %d", e.Captured, len(data))
	}
	has := func(f wire.ChunkFlag) bool { return e.Flags&f != 0 }
	if has(wire.ChunkClosed) {
		h = &wire.Header{Ktime: h.Ktime} // whoever's turn it was
	}
	out.Chunks = append(out.Chunks, event.Chunk{
		Time: int64(h.Ktime), Ready: int64(e.Ready),
		Conn: e.Ends.Conn, Offset: e.Offset, Seq: e.Seq,
		Len: int(e.Len), Data: out.Bytes(data[:e.Captured]),
		Sent: has(wire.ChunkSent), TLS: has(wire.ChunkPlain), Closed: has(wire.ChunkClosed), Opened: has(wire.ChunkOpened),
		Proto: e.Proto, Transport: event.Transport(e.Transport),
		Local: addrPort(e.Ends.Local, e.Ends.LocalPort), Remote: addrPort(e.Ends.Remote, e.Ends.RemotePort),
		NetNS: e.Ends.Netns, PID: h.Pid, TID: h.Tid, CgroupID: h.Cgroup,
		Goroutine: e.Goroutine, Waker: e.Waker,
	})
	return nil
}

// addrPort is not valid where the kernel did not know it: an unconnected
// datagram socket's other end if its reader did not want to know, and both of a
// Unix socket.
func addrPort(a [16]uint8, port [2]uint8) netip.AddrPort {
	if port == [2]uint8{} {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), binary.BigEndian.Uint16(port[:]))
}
