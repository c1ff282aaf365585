package udp

import (
	"errors"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"ghostlight/internal/event"
	"ghostlight/internal/wire"
)

func newTest(t testing.TB, set func(*options)) *instance {
	t.Helper()
	in, err := newInstance(func(o any) error { set(o.(*options)); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return in.(*instance)
}

func asIs(*options) {}

func TestOptions(t *testing.T) {
	if i := newTest(t, asIs); i.Interval != 5*time.Second || i.Idle != 30*time.Second {
		t.Errorf("defaults: %+v", i.options)
	}
	for _, bad := range []options{{Interval: 0, Idle: time.Second}, {Interval: time.Minute, Idle: time.Second}, {Interval: -1, Idle: 1}} {
		if _, err := newInstance(func(o any) error { *o.(*options) = bad; return nil }); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	refuse := errors.New("line 3: unknown key")
	if _, err := newInstance(func(any) error { return refuse }); !errors.Is(err, refuse) {
		t.Errorf("%v", err)
	}
}

// The Go twins are the C structs, and the first of them begins with the header.
func TestLayout(t *testing.T) {
	spec, err := loadUdp()
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]uintptr{
		"udp_key":  unsafe.Sizeof(udpUdpKey{}),
		"udp_flow": unsafe.Sizeof(udpUdpFlow{}),
		"udp_end":  unsafe.Sizeof(udpUdpEnd{}),
	} {
		var s *btf.Struct
		if err := spec.Types.TypeByName(name, &s); err != nil {
			t.Fatal(err)
		}
		if uintptr(s.Size) != size {
			t.Errorf("%s has %d bytes in C, %d in Go", name, s.Size, size)
		}
	}
	if unsafe.Sizeof(wire.Header{}) != unsafe.Sizeof(udpUdpEnd{}.H) || unsafe.Offsetof(udpUdpEnd{}.Key) != unsafe.Sizeof(wire.Header{}) {
		t.Error("the header is not at the beginning")
	}
	if m := spec.Maps["udp_flows"]; m.KeySize != uint32(unsafe.Sizeof(udpUdpKey{})) || m.ValueSize != uint32(unsafe.Sizeof(udpUdpFlow{})) || m.Type != ebpf.Hash {
		t.Errorf("%+v", m)
	}
}

func record() *udpUdpEnd {
	e := &udpUdpEnd{Key: udpUdpKey{
		Cookie: 77, LocalPort: 40000, RemotePort: 53, Proto: 17,
		Local:  words("10.0.0.1"),
		Remote: words("10.0.0.2"),
	}, Flow: udpUdpFlow{
		SentPackets: 1, SentBytes: 30, ReceivedPackets: 2, ReceivedBytes: 60,
		First: 100, Last: 200, Cgroup: 5, Pid: 6, PeerPid: 7, Netns: 8, Direction: 1, Flags: seenBirth,
	}}
	e.H.Type, e.H.Ktime = recordEnd, 300
	return e
}

func words(s string) [4]uint32 {
	a := netip.MustParseAddr(s).As16()
	return *(*[4]uint32)(unsafe.Pointer(&a))
}

func raw(e *udpUdpEnd) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(e)), unsafe.Sizeof(*e))
}

func decode(t testing.TB, i *instance, b []byte, out *event.Batch) {
	t.Helper()
	h, err := wire.View[wire.Header](b)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Decode(h, b, out); err != nil {
		t.Fatal(err)
	}
}

func TestDecode(t *testing.T) {
	var out event.Batch
	decode(t, newTest(t, asIs), raw(record()), &out)
	f := out.Flows[0]
	if f.Source.String() != "10.0.0.1:40000" || f.Destination.String() != "10.0.0.2:53" || f.Direction != event.Outbound ||
		f.ID != 77 || f.PID != 6 || f.PeerPID != 7 || f.NetNS != 8 || f.CgroupID != 5 || f.Transport != event.UDP ||
		f.Time != 100 || f.End != 200 || !f.Complete || f.Attrs != nil ||
		f.Sent != (event.Count{Bytes: 30, Packets: 1}) || f.Received != (event.Count{Bytes: 60, Packets: 2}) {
		t.Errorf("%+v", f)
	}
}

// What a sweep told is not told again by the last record, and the server's end
// has the client as its source.
func TestDecodeAfterSweep(t *testing.T) {
	i, e := newTest(t, asIs), record()
	e.Flow.Direction, e.Drops = 2, 9
	i.told[e.Key] = told{sent: event.Count{Bytes: 10, Packets: 1}, received: event.Count{Bytes: 60, Packets: 2}, first: 100, until: 150}
	i.toldDrops[77] = 4
	var out event.Batch
	decode(t, i, raw(e), &out)
	f := out.Flows[0]
	if f.Sent != (event.Count{Bytes: 20}) || f.Received != (event.Count{}) || f.Time != 150 || f.Source.String() != "10.0.0.2:53" {
		t.Errorf("%+v", f)
	}
	if len(f.Attrs) != 1 || f.Attrs[0] != (event.Attr{Key: "udp.receive_drops", Value: "5"}) {
		t.Errorf("%+v", f.Attrs)
	}
	if len(i.told)+len(i.toldDrops) != 0 {
		t.Errorf("%v and %v are kept", i.told, i.toldDrops)
	}
	out.Reset()
	i.told[e.Key] = told{sent: event.Count{Bytes: 30, Packets: 1}, received: event.Count{Bytes: 60, Packets: 2}, first: 100}
	e.Drops = 0
	if decode(t, i, raw(e), &out); len(out.Flows) != 0 {
		t.Errorf("nothing is new in %+v", out.Flows)
	}
}

// A flow that ended and began anew under the same key starts from nothing.
func TestDecodeBegunAnew(t *testing.T) {
	i, e := newTest(t, asIs), record()
	i.told[e.Key] = told{sent: event.Count{Bytes: 1000, Packets: 100}, first: 50, until: 60}
	var out event.Batch
	decode(t, i, raw(e), &out)
	if f := out.Flows[0]; f.Sent.Bytes != 30 || f.Time != 100 {
		t.Errorf("%+v", f)
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	i, e := newTest(t, asIs), record()
	b := raw(e)
	h, _ := wire.View[wire.Header](b)
	var out event.Batch
	for _, proto := range []uint8{17, 1} {
		e.Key.Proto = proto
		if n := testing.AllocsPerRun(1000, func() {
			out.Reset()
			if i.Decode(h, b, &out) != nil || len(out.Flows) != 1 {
				t.Fatal("no record")
			}
		}); n != 0 {
			t.Errorf("protocol %d: %v allocations per record", proto, n)
		}
	}
}

// Whatever is in a record, Decode neither panics nor tells more than was counted.
func FuzzDecode(f *testing.F) {
	f.Add(raw(record()))
	f.Add(raw(record())[:100])
	f.Add(make([]byte, 32))
	i := newTest(f, asIs)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := wire.View[wire.Header](b)
		if err != nil {
			return
		}
		var out event.Batch
		err = i.Decode(h, b, &out)
		if err != nil && out.Len() > 0 || len(out.Flows) > 1 || len(i.told) > 0 {
			t.Errorf("%v, %d records, %d remembered", err, out.Len(), len(i.told))
		}
		for _, f := range out.Flows {
			_ = f.Direction.String()
			if f.End < f.Time {
				t.Errorf("ends at %d, begins at %d", f.End, f.Time)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	i, e := newTest(b, asIs), record()
	r := raw(e)
	h, _ := wire.View[wire.Header](r)
	var out event.Batch
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		i.Decode(h, r, &out)
	}
}
