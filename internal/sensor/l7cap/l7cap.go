// Package l7cap is the sensor of what processes say to each other: the first
// bytes of each call that moves bytes through a socket whose protocol is known.
package l7cap

import (
	"fmt"
	"net/netip"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
	"ghostlight/internal/wire"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type l7_chunk -type l7_flag -type l7_type l7cap l7cap.bpf.c -- -I../../../bpf -mcpu=v3 -Wall -Werror

// Sensor is the l7cap sensor.
var Sensor = sensor.Def{
	Name:  "l7cap",
	Doc:   "requests: the first bytes of each call on connections whose protocol is known",
	Emits: []event.Kind{event.KindRequest},
	Shed:  3,
	Hooks: hooks,
	New:   open,
}

// Options is the sensor's part of the configuration file.
type Options struct {
	// Unix sockets too.
	Unix bool `yaml:"unix"`
}

// uringSockets is how many sockets can be served by io_uring at a time; of more
// the longest idle begin anew.
const uringSockets = 4096

type instance struct{ unix bool }

func open(decode func(any) error) (sensor.Instance, error) {
	var o Options
	if err := decode(&o); err != nil {
		return nil, err
	}
	return &instance{unix: o.Unix}, nil
}

// Spec returns the object with the options written into it.
func (in *instance) Spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadL7cap()
	if err != nil {
		return nil, err
	}
	return spec, in.configure(spec)
}

func (in *instance) configure(spec *ebpf.CollectionSpec) error {
	storage := kernel.HaveSkStorageTracing.Have() == nil
	if storage {
		spec.Maps["ghost_shared_l7_socks"].MaxEntries = uringSockets
	}
	threads := kernel.HaveTaskStorage.Have() == nil
	if !threads {
		spec.Maps["ghost_shared_tls_threads"].Type = ebpf.Hash
		spec.Maps["ghost_shared_tls_threads"].MaxEntries = 1
	}
	for name, on := range map[string]bool{
		"l7_threads": threads,
		"watch_unix": in.unix,
		"l7_arm64":   runtime.GOARCH == "arm64",
		"l7_storage": storage,
		"l7_task":    kernel.HaveTaskRegs.Have() == nil,
	} {
		if err := spec.Variables[name].Set(on); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// Decode adds the record as a chunk.
func (in *instance) Decode(h *wire.Header, raw []byte, out *event.Batch) error {
	if h.Type != uint16(l7capL7TypeL7CHUNK) {
		return fmt.Errorf("l7cap: no record has the type %d", h.Type)
	}
	e, err := wire.View[l7capL7Chunk](raw)
	if err != nil {
		return err
	}
	data := raw[unsafe.Sizeof(*e):]
	if int(e.Captured) > len(data) {
		return fmt.Errorf("l7cap: %d bytes captured, the record has %d", e.Captured, len(data))
	}
	if has(e, l7capL7FlagL7FLAG_CLOSED) {
		h = &wire.Header{Ktime: h.Ktime} // whoever's turn it was
	}
	out.Chunks = append(out.Chunks, event.Chunk{
		Time: int64(h.Ktime), Ready: int64(e.Ready),
		Conn: e.Ends.Conn, Offset: e.Offset, Seq: e.Seq,
		Len: int(e.Len), Data: out.Bytes(data[:e.Captured]),
		Sent: has(e, l7capL7FlagL7FLAG_SENT), TLS: has(e, l7capL7FlagL7FLAG_PLAIN), Closed: has(e, l7capL7FlagL7FLAG_CLOSED), Opened: has(e, l7capL7FlagL7FLAG_OPENED),
		Proto: e.Proto, Transport: event.Transport(e.Transport),
		Local: address(e.Ends.Local, e.Ends.LocalPort), Remote: address(e.Ends.Remote, e.Ends.RemotePort),
		NetNS: e.Ends.Netns, PID: h.Pid, TID: h.Tid, CgroupID: h.Cgroup,
		Goroutine: e.Goroutine, Waker: e.Waker,
	})
	return nil
}

func has(e *l7capL7Chunk, f l7capL7Flag) bool { return l7capL7Flag(e.Flags)&f != 0 }

// address is not valid where the kernel did not know it: an unconnected
// datagram socket's other end if its reader did not want to know, and both of a
// Unix socket.
func address(a [16]uint8, port uint16) netip.AddrPort {
	if port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), port<<8|port>>8)
}
