package drop

import (
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/wire"
)

type running struct {
	t testing.TB
	k *kernel.Kernel
	r *kernel.Reader
	*instance
	object *kernel.Object
	now    int64
	out    event.Batch
}

func start(t testing.TB, rate uint32) *running {
	t.Helper()
	for _, p := range []*kernel.Probe{kernel.HaveRing, kernel.HaveTpBTF, kernel.HaveDropReason} {
		if err := p.Have(); err != nil {
			t.Skip(err)
		}
	}
	in, err := newInstance(func(o any) error { o.(*options).Rate = rate; return nil })
	if err != nil {
		t.Fatal(err)
	}
	spec, err := in.Spec()
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernel.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	r, err := k.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); k.Close() })
	o, reports, err := k.Load("drop", 3, spec, Sensor.Hooks)
	if err != nil {
		t.Fatal(err, reports)
	}
	run := &running{t: t, k: k, r: r, instance: in.(*instance), object: o, now: int64(time.Hour)}
	if err := run.Start(o, &run.out); err != nil {
		t.Fatal(err)
	}
	run.turn()
	return run
}

// turn reads the ring and ticks, a second later by its own clock.
func (r *running) turn() {
	r.t.Helper()
	r.drain()
	r.now += int64(time.Second)
	if err := r.Tick(r.now, &r.out); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) drain() {
	r.t.Helper()
	r.r.Drain(1<<20, func(raw []byte) {
		h, err := wire.View[wire.Header](raw)
		if err != nil {
			r.t.Fatal(err)
		}
		if err := r.Decode(h, raw, &r.out); err != nil {
			r.t.Error(err)
		}
	})
}

// find returns the drops of packets to an address.
func (r *running) find(to netip.AddrPort) (found []event.Flow) {
	for _, f := range r.out.Flows {
		if f.Destination == to {
			found = append(found, f)
		}
	}
	return found
}

// inNewNet runs fn on a thread in a network namespace of its own, with lo up,
// and returns the namespace.
func inNewNet(t testing.TB, fn func()) (ns uint32) {
	t.Helper()
	var wg sync.WaitGroup
	var err error
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with fn
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		if err = loUp(); err != nil {
			return
		}
		var s unix.Stat_t
		err = unix.Stat("/proc/thread-self/ns/net", &s)
		ns = uint32(s.Ino)
		fn()
	})
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func loUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req)
}

// A packet to a port that nobody has, by each transport and family.
func TestNoSocket(t *testing.T) {
	r := start(t, 1000)
	type try struct {
		network string
		to      netip.AddrPort
		proto   event.Transport
		froms   netip.AddrPort
	}
	tries := []try{
		{"udp4", netip.MustParseAddrPort("127.0.0.1:45101"), event.UDP, netip.AddrPort{}},
		{"udp6", netip.MustParseAddrPort("[::1]:45102"), event.UDP, netip.AddrPort{}},
		{"tcp4", netip.MustParseAddrPort("127.0.0.1:45103"), event.TCP, netip.AddrPort{}},
		{"tcp6", netip.MustParseAddrPort("[::1]:45104"), event.TCP, netip.AddrPort{}},
	}
	ns := inNewNet(t, func() {
		for i := range tries {
			c, err := net.Dial(tries[i].network, tries[i].to.String())
			if err != nil {
				continue // TCP is refused
			}
			tries[i].froms = netip.MustParseAddrPort(c.LocalAddr().String())
			c.Write([]byte("hello"))
			c.Close()
		}
	})
	r.turn()
	for _, try := range tries {
		found := r.find(try.to)
		if len(found) != 1 {
			t.Errorf("%s: %d records", try.network, len(found))
			continue
		}
		f := found[0]
		if f.Drop.Reason != "no_socket" || f.Drop.Interface != "lo" || f.Drop.Count == 0 || f.NetNS != ns ||
			f.Transport != try.proto || f.Verdict != event.Dropped || f.Source.Addr() != try.to.Addr() || f.Source.Port() == 0 {
			t.Errorf("%s: %+v", try.network, f)
		}
		if try.froms.IsValid() && f.Source != try.froms {
			t.Errorf("%s: from %v, want %v", try.network, f.Source, try.froms)
		}
	}
	for _, f := range r.out.Flows {
		if strings.HasPrefix(f.Drop.Reason, "reason_") {
			t.Errorf("the kernel's BTF has no name for %s", f.Drop.Reason)
		}
	}
}

// badDatagram is an IPv4 datagram with a checksum that is wrong.
func badDatagram(to netip.AddrPort) []byte {
	p := make([]byte, 20+8+10)
	p[0], p[8], p[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	a := to.Addr().As4()
	copy(p[12:], a[:])
	copy(p[16:], a[:])
	binary.BigEndian.PutUint16(p[20:], 1234)
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], 18)
	binary.BigEndian.PutUint16(p[26:], 0xbad)
	return p
}

func sendRaw(t testing.TB, packet []byte, n int) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(s)
	for range n {
		if err := unix.Sendto(s, packet, 0, &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])}); err != nil {
			t.Error(err)
			return
		}
	}
}

func count(flows []event.Flow, reason string) (records int, drops uint64) {
	for _, f := range flows {
		if f.Drop.Reason == reason {
			records++
			drops += f.Drop.Count
		}
	}
	return records, drops
}

func TestBadChecksum(t *testing.T) {
	r := start(t, 10)
	to := netip.MustParseAddrPort("127.0.0.1:45111")
	inNewNet(t, func() { sendRaw(t, badDatagram(to), 1) })
	r.turn()
	found := r.find(to)
	if len(found) != 1 || found[0].Drop != (event.Drop{Reason: "udp_csum", Interface: "lo", Count: 1}) || found[0].Source.Port() != 1234 {
		t.Errorf("%+v", found)
	}
}

// 10,000 drops give a handful of records that stand for all of them.
func TestRate(t *testing.T) {
	for _, rate := range []uint32{0, 1, 10, 100_000} {
		r := start(t, rate)
		to := netip.MustParseAddrPort("127.0.0.1:45121")
		began := time.Now()
		inNewNet(t, func() {
			for range 4 {
				sendRaw(t, badDatagram(to), 2500)
				r.turn()
			}
		})
		spent := time.Since(began)
		r.turn()
		r.turn()
		told := len(r.find(to))
		records, drops := count(r.out.Flows, "udp_csum")
		if drops != 10_000 {
			t.Errorf("rate %d: the records stand for %d drops", rate, drops)
		}
		most := int(float64(rate)*(1+spent.Seconds())) + 1
		if rate == 0 {
			most = 0
		}
		if told > most || told < min(int(rate), 10_000/2) {
			t.Errorf("rate %d: %d records of packets in %v", rate, told, spent)
		}
		if lost, err := r.object.Lost(); err != nil || lost > 0 {
			t.Errorf("rate %d: %d lost, %v", rate, lost, err)
		}
		for _, f := range r.out.Flows {
			if f.Time <= 0 || f.End < f.Time {
				t.Errorf("rate %d: %v drops from %d to %d", rate, f.Drop, f.Time, f.End)
			}
		}
		t.Logf("rate %d: %d records, %d of them packets", rate, records, told)
	}
}

// A ring that is full costs the packets' details and no count.
func TestFullRing(t *testing.T) {
	r := start(t, maxRate)
	to := netip.MustParseAddrPort("127.0.0.1:45131")
	inNewNet(t, func() { sendRaw(t, badDatagram(to), 20_000) }) // 120 bytes each, into 1 MiB
	for range 3 {
		r.turn()
	}
	lost, err := r.object.Lost()
	if err != nil || lost == 0 {
		t.Errorf("%d lost, %v", lost, err)
	}
	if _, drops := count(r.out.Flows, "udp_csum"); drops != 20_000 {
		t.Errorf("the records stand for %d drops", drops)
	}
}

// haveNetfilter asks for BPF programs as netfilter rules, which need no tool.
var haveNetfilter = &kernel.Probe{Name: "BPF in netfilter", Since: "6.4", Test: func() error {
	refuse, err := refuseAll()
	if err == nil {
		err = refuse.Close()
	}
	return err
}}

// refuseAll is a netfilter rule that drops every packet.
func refuseAll() (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Netfilter, AttachType: ebpf.AttachNetfilter, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}, // NF_DROP
	})
}

// A firewall drops what comes in.
func TestNetfilter(t *testing.T) {
	if err := haveNetfilter.Have(); err != nil {
		t.Skip(err)
	}
	refuse, err := refuseAll()
	if err != nil {
		t.Fatal(err)
	}
	defer refuse.Close()
	r := start(t, 1000)
	to := netip.MustParseAddrPort("127.0.0.1:45141")
	inNewNet(t, func() {
		rule, err := link.AttachNetfilter(link.NetfilterOptions{
			Program: refuse, ProtocolFamily: link.NetfilterProtoIPv4, Hook: link.NetfilterInetLocalIn, Priority: -100,
		})
		if err != nil {
			t.Error(err)
			return
		}
		defer rule.Close()
		knock(t, to)
	})
	r.turn()
	refused(t, r.find(to))
}

// knock sends a SYN and does not wait for an answer.
func knock(t *testing.T, to netip.AddrPort) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(s)
	if err := unix.Connect(s, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != unix.EINPROGRESS {
		t.Error(err)
	}
	time.Sleep(50 * time.Millisecond)
}

func refused(t *testing.T, found []event.Flow) {
	t.Helper()
	if len(found) == 0 || found[0].Drop.Reason != "netfilter_drop" || found[0].Transport != event.TCP || found[0].Source.Port() == 0 {
		t.Errorf("%+v", found)
	}
}

// What the program costs: a drop that is only counted, and one that is told.
func BenchmarkDrop(b *testing.B) {
	for name, rate := range map[string]uint32{"counted": 0, "limited": 10, "told": maxRate} {
		b.Run(name, func(b *testing.B) {
			r := start(b, rate)
			meter, err := r.k.NewMeter()
			if err != nil {
				b.Fatal(err)
			}
			packet := badDatagram(netip.MustParseAddrPort("127.0.0.1:45151"))
			inNewNet(b, func() {
				sendRaw(b, packet, 1) // the reason is known
				if err := meter.Begin(); err != nil {
					b.Error(err)
				}
				for b.Loop() {
					sendRaw(b, packet, 100)
					r.drain()
					r.out.Reset()
				}
			})
			costs, err := meter.End(nil)
			if err != nil {
				b.Fatal(err)
			}
			for _, c := range costs {
				b.ReportMetric(c.PerRunNS, c.Program+"_ns/run")
			}
		})
	}
}
