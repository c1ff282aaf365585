package udp

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
)

// haveTake asks for what ends a flow in one step. Without it a packet that comes
// just between two is not counted: README.md says so.
var haveTake = &kernel.Probe{Name: "lookup-and-delete in a hash", Since: "5.14", Test: func() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer m.Close()
	var v uint32
	if err := m.LookupAndDelete(uint32(1), &v); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}}

// Flows that pause for as long as the idle timeout are ended by the sweep while
// their next packet is on its way: nothing is lost uncounted, nothing told twice.
func TestEndsUnderTraffic(t *testing.T) {
	r := start(t, 100*time.Millisecond, 100*time.Millisecond)
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	server.SetReadBuffer(1 << 20)
	go func() { // ends when the socket is closed
		for buf := make([]byte, 100); ; {
			if _, _, err := server.ReadFromUDPAddrPort(buf); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	to := netip.MustParseAddrPort(server.LocalAddr().String())
	const clients, packets = 32, 60
	done := make(chan netip.AddrPort, clients)
	for n := range clients {
		c, local := dial(t, to)
		go func() {
			for i := range packets {
				c.Write(make([]byte, 10))
				// Around the idle timeout and the sweep's period, each time a bit off.
				time.Sleep(time.Duration(80+(7*i+3*n)%40) * time.Millisecond)
			}
			done <- local
		}()
	}
	var locals []netip.AddrPort
	for len(locals) < clients {
		select {
		case l := <-done:
			locals = append(locals, l)
		default:
			r.turn()
			time.Sleep(5 * time.Millisecond)
		}
	}
	r.turns(500 * time.Millisecond)
	least := uint64(packets)
	if err := haveTake.Have(); err != nil {
		t.Log(err)
		least -= packets / 20
	}
	begun, missing := 0, uint64(0)
	for _, l := range locals {
		sent, _ := sum(r.of(l, to))
		_, received := sum(r.of(to, l))
		for who, n := range map[string]event.Count{"sent": sent, "received": received} {
			if n.Packets > packets || n.Bytes != 10*n.Packets {
				t.Errorf("client %v: %v %s, want %d packets", l, n, who, packets)
			}
			missing += least - min(n.Packets, least)
		}
		begun += len(r.of(l, to))
	}
	// A packet that meets the end of its flow is lost, and counted.
	if lost := r.lostPackets(); missing > lost || missing > clients*packets/100 {
		t.Errorf("%d packets are missing, %d are counted as lost", missing, lost)
	} else if missing > 0 {
		t.Logf("%d packets are missing, %d are counted as lost", missing, lost)
	}
	if begun < 3*clients {
		t.Errorf("%d records of %d clients: the sweep ended nothing", begun, clients)
	}
	if n := len(r.told); n > 10 {
		t.Errorf("%d flows are remembered", n)
	}
}

// lostPackets are those that were told as lost.
func (r *running) lostPackets() (n uint64) {
	r.t.Helper()
	for _, l := range r.out.Lost {
		if l.Stage != "map" || l.Sensor != "udp" {
			r.t.Errorf("%+v", l)
		}
		n += l.Count
	}
	return n
}

// More flows than the map holds: what does not fit is counted as lost, the rest
// is told exactly, in batches that stay small.
func TestFullMap(t *testing.T) {
	r := start(t, time.Second, time.Second)
	const packets = 70_000 // each with a flow at both ends: twice what fits
	inNewNet(t, func() {
		server, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 45200})
		if err != nil {
			t.Error(err)
			return
		}
		defer server.Close()
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(s)
		for i := range packets {
			to := unix.SockaddrInet4{Port: 45200, Addr: [4]byte{127, byte(1 + i>>16), byte(i >> 8), byte(i)}}
			if err := unix.Sendto(s, []byte("0123456789"), 0, &to); err != nil {
				t.Error(err)
				return
			}
		}
		time.Sleep(time.Second)
	})
	var told event.Count
	var ticks, flows int
	var spent time.Duration
	for flows = 0; ticks < 200 && (ticks == 0 || r.cursor != nil); ticks++ {
		r.out.Flows = r.out.Flows[:0]
		var before, after unix.Rusage
		unix.Getrusage(unix.RUSAGE_SELF, &before)
		r.turn()
		unix.Getrusage(unix.RUSAGE_SELF, &after)
		spent += time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
		flows += len(r.out.Flows)
		if n := len(r.out.Flows); n > maxRecords+chunk {
			t.Errorf("%d records in one tick", n)
		}
		for _, f := range r.out.Flows {
			if f.Destination.Port() == 45200 {
				told.Packets += f.Sent.Packets + f.Received.Packets
				told.Bytes += f.Sent.Bytes + f.Received.Bytes
			}
		}
	}
	t.Logf("%d flows told and ended in %d ticks, %d ns of CPU each", flows, ticks, spent.Nanoseconds()/int64(max(flows, 1)))
	lost := r.lostPackets()
	// Other programs of the host may have had a few flows and losses.
	if told.Packets < 65_000 || told.Packets > 65_536 || told.Bytes != 10*told.Packets || told.Packets+lost < 2*packets {
		t.Errorf("told %v and lost %d of %d packets", told, lost, 2*packets)
	}
	time.Sleep(time.Second)
	r.turns(2500 * time.Millisecond)
	if r.live > 100 || len(r.told) > 100 {
		t.Errorf("%d flows are in the map after their end, %d are remembered", r.live, len(r.told))
	}
}

// A sweep of a host that speaks little UDP.
func BenchmarkIdleTick(b *testing.B) {
	r := start(b, time.Second, time.Minute)
	b.ReportAllocs()
	for b.Loop() {
		r.next = 0
		if err := r.Tick(monotonic(), &r.out); err != nil {
			b.Fatal(err)
		}
		r.out.Reset()
	}
}
