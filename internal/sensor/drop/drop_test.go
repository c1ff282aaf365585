package drop

import (
	"errors"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"

	"ghostlight/internal/event"
	"ghostlight/internal/wire"
)

func newTest(t testing.TB) *instance {
	t.Helper()
	in, err := newInstance(func(any) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	i := in.(*instance)
	i.cpus, i.enum = 2, map[uint32]string{3: "no_socket"}
	return i
}

func TestOptions(t *testing.T) {
	if i := newTest(t); i.Rate != 10 {
		t.Errorf("default %d", i.Rate)
	}
	if _, err := newInstance(func(o any) error { o.(*options).Rate = maxRate + 1; return nil }); err == nil {
		t.Error("a rate beyond the bound is taken")
	}
	refuse := errors.New("line 3: unknown key")
	if _, err := newInstance(func(any) error { return refuse }); !errors.Is(err, refuse) {
		t.Errorf("%v", err)
	}
}

func TestLayout(t *testing.T) {
	spec, err := loadDrop()
	if err != nil {
		t.Fatal(err)
	}
	var s *btf.Struct
	if err := spec.Types.TypeByName("drop_packet", &s); err != nil {
		t.Fatal(err)
	}
	if uintptr(s.Size) != unsafe.Sizeof(dropDropPacket{}) || unsafe.Offsetof(dropDropPacket{}.Seen) != unsafe.Sizeof(wire.Header{}) {
		t.Errorf("drop_packet has %d bytes in C, %d in Go", s.Size, unsafe.Sizeof(dropDropPacket{}))
	}
	if n := spec.Maps["drop_seen"].MaxEntries; n != maxReasons {
		t.Errorf("drop_seen holds %d reasons, we hold %d", n, maxReasons)
	}
}

func packet(reason uint32, cpu uint32, seen uint64) *dropDropPacket {
	p := &dropDropPacket{Seen: seen, Cookie: 9, Reason: reason, Netns: 8, SourcePort: 1234, DestinationPort: 53, Proto: 17, Ip: 4,
		Source: words("10.0.0.1"), Destination: words("10.0.0.2")}
	p.H.Type, p.H.Ktime, p.H.Cpu = recordPacket, 100, cpu
	for i, c := range "veth0" {
		p.Interface[i] = int8(c)
	}
	return p
}

func words(s string) [4]uint32 {
	a := netip.MustParseAddr(s).As16()
	return *(*[4]uint32)(unsafe.Pointer(&a))
}

func raw(p *dropDropPacket) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(p)), unsafe.Sizeof(*p))
}

func decode(i *instance, p *dropDropPacket, out *event.Batch) error {
	h, err := wire.View[wire.Header](raw(p))
	if err != nil {
		return err
	}
	return i.Decode(h, raw(p), out)
}

func TestDecode(t *testing.T) {
	var out event.Batch
	if err := decode(newTest(t), packet(3, 1, 7), &out); err != nil {
		t.Fatal(err)
	}
	f := out.Flows[0]
	if f.Drop != (event.Drop{Reason: "no_socket", Interface: "veth0", Count: 7}) || f.Verdict != event.Dropped || f.Direction != 0 ||
		f.Source.String() != "10.0.0.1:1234" || f.Destination.String() != "10.0.0.2:53" || f.Transport != event.UDP ||
		f.Time != 100 || f.End != 100 || f.ID != 9 || f.NetNS != 8 || f.PID != 0 || f.CgroupID != 0 {
		t.Errorf("%+v", f)
	}
}

// Each CPU and each reason has its own count; a record that comes late, after a
// newer one, stands for nothing more.
func TestCounts(t *testing.T) {
	i := newTest(t)
	var out event.Batch
	for _, c := range []struct {
		reason, cpu uint32
		seen, want  uint64
	}{{3, 0, 5, 5}, {3, 0, 6, 1}, {3, 1, 4, 4}, {4, 0, 9, 9}, {3, 0, 100, 94}, {3, 0, 99, 0}, {3, 0, 101, 1}} {
		out.Reset()
		if err := decode(i, packet(c.reason, c.cpu, c.seen), &out); err != nil {
			t.Fatal(err)
		}
		var got uint64
		for _, f := range out.Flows {
			got += f.Drop.Count
		}
		if got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	r := i.reason(3)
	copy(r.seen, []uint64{150, 4})
	if n := r.withheld(); n != 49 {
		t.Errorf("%d withheld, want 49", n)
	}
	if n := r.withheld(); n != 0 {
		t.Errorf("%d withheld again", n)
	}
}

func TestNames(t *testing.T) {
	i := newTest(t)
	for number, want := range map[uint32]string{3: "no_socket", 500: "reason_500", 0x10002: "subsys_1_2", 0x3000f: "subsys_3_15"} {
		if got := i.reason(number).name; got != want {
			t.Errorf("%#x is %q, want %q", number, got, want)
		}
	}
	p := packet(3, 0, 1)
	p.Interface[2] = -1
	if got := i.device(p); got != "" {
		t.Errorf("%q is no interface", got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	i := newTest(t)
	var out event.Batch
	wrong := packet(3, 0, 1)
	wrong.H.Type = 9
	for _, p := range []*dropDropPacket{wrong, packet(3, 2, 1), packet(3, 1<<31, 1)} {
		if decode(i, p, &out) == nil || out.Len() != 0 {
			t.Errorf("taken: %+v", p.H)
		}
	}
	for n := range uint32(maxReasons + 1) {
		out.Reset()
		if err := decode(i, packet(n, 0, 1), &out); (err == nil) != (n < maxReasons) {
			t.Fatalf("reason %d: %v", n, err)
		}
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	i, p := newTest(t), packet(3, 0, 1)
	b := raw(p)
	h, _ := wire.View[wire.Header](b)
	var out event.Batch
	if n := testing.AllocsPerRun(1000, func() {
		p.Seen++
		out.Reset()
		if i.Decode(h, b, &out) != nil || len(out.Flows) != 1 {
			t.Fatal("no record")
		}
	}); n != 0 {
		t.Errorf("%v allocations per record", n)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(raw(packet(3, 0, 7)))
	f.Add(raw(packet(0x10002, 1, 7)))
	f.Add(raw(packet(3, 0, 7))[:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := wire.View[wire.Header](b)
		if err != nil {
			return
		}
		i := newTest(t)
		var out event.Batch
		err = i.Decode(h, b, &out)
		if err != nil && out.Len() > 0 || len(out.Flows) > 1 {
			t.Errorf("%v, %d records", err, out.Len())
		}
		for _, f := range out.Flows {
			if f.Drop.Count == 0 || f.Drop.Reason == "" || len(f.Drop.Interface) > 16 {
				t.Errorf("%+v", f)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	i, p := newTest(b), packet(3, 0, 1)
	r := raw(p)
	h, _ := wire.View[wire.Header](r)
	var out event.Batch
	b.ReportAllocs()
	for b.Loop() {
		p.Seen++
		out.Reset()
		i.Decode(h, r, &out)
	}
}
