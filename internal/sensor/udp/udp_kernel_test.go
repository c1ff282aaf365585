package udp

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/wire"
)

// TestMain is also the other process of the tests: an echo server.
func TestMain(m *testing.M) {
	if network := os.Getenv("UDP_TEST_ECHO"); network != "" {
		echo(network, os.Getenv("UDP_TEST_ADDRESS"))
		return
	}
	os.Exit(m.Run())
}

// echo sends back what it gets, doubled, until standard input ends.
func echo(network, address string) {
	c, err := net.ListenPacket(network, address)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.LocalAddr())
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo(slices.Concat(buf[:n], buf[:n]), from)
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}

// peer starts the echo server and returns its address and process id.
func peer(t *testing.T, network, address string) (netip.AddrPort, uint32) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), "UDP_TEST_ECHO="+network, "UDP_TEST_ADDRESS="+address)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	at, err := netip.ParseAddrPort(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(line, err)
	}
	return at, uint32(cmd.Process.Pid)
}

// running is the sensor in the kernel, read and ticked by the test.
type running struct {
	t      testing.TB
	k      *kernel.Kernel
	r      *kernel.Reader
	object *kernel.Object
	*instance
	out event.Batch
}

func start(t testing.TB, interval, idle time.Duration) *running {
	t.Helper()
	for _, p := range []*kernel.Probe{kernel.HaveRing, kernel.HaveCgroupSKB} {
		if err := p.Have(); err != nil {
			t.Skip(err)
		}
	}
	in, err := newInstance(func(o any) error {
		*o.(*options) = options{Interval: interval, Idle: idle}
		return nil
	})
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
	o, _, err := k.Load("udp", 7, spec, Sensor.Hooks)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range o.Hooks {
		if h.Tier == "" {
			t.Logf("%s: no tier: %+v", h.What, h.Tiers)
		}
	}
	run := &running{t: t, k: k, r: r, object: o, instance: in.(*instance)}
	if err := run.Start(o, &run.out); err != nil {
		t.Fatal(err)
	}
	return run
}

// need skips if a hook has no tier here: doctor says so too.
func (r *running) need(what string) {
	r.t.Helper()
	for _, h := range r.object.Hooks {
		if h.What == what && h.Tier == "" {
			r.t.Skipf("%s: %+v", what, h.Tiers)
		}
	}
}

func monotonic() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// turn reads the ring and ticks, once.
func (r *running) turn() {
	r.t.Helper()
	r.drain()
	if err := r.Tick(monotonic(), &r.out); err != nil {
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
		if h.Sensor != 7 {
			r.t.Errorf("sensor %d", h.Sensor)
		}
		if err := r.Decode(h, raw, &r.out); err != nil {
			r.t.Error(err)
		}
	})
}

// turns goes on for d, and once more on a machine that slept through it.
func (r *running) turns(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		r.turn()
	}
	r.turn()
}

// of returns the records of one end, by its own address.
func (r *running) of(local, remote netip.AddrPort) (found []event.Flow) {
	for _, f := range r.out.Flows {
		a, b := f.Source, f.Destination
		if f.Direction == event.Inbound {
			a, b = b, a
		}
		if a == local && b == remote {
			found = append(found, f)
		}
	}
	return found
}

func sum(flows []event.Flow) (sent, received event.Count) {
	for _, f := range flows {
		sent.Bytes += f.Sent.Bytes
		sent.Packets += f.Sent.Packets
		received.Bytes += f.Received.Bytes
		received.Packets += f.Received.Packets
	}
	return sent, received
}

// check compares what all records of an end say together.
func check(t *testing.T, who string, flows []event.Flow, d event.Direction, pid, peerPID uint32, sent, received event.Count) {
	t.Helper()
	if len(flows) == 0 {
		t.Fatalf("%s: no record", who)
	}
	s, r := sum(flows)
	if s != sent || r != received {
		t.Errorf("%s: sent %v, received %v; want %v, %v", who, s, r, sent, received)
	}
	for i, f := range flows {
		if f.Direction != d || f.PID != pid || f.PeerPID != peerPID || f.ID == 0 || f.ID != flows[0].ID {
			t.Errorf("%s: %v pid %d peer %d id %d; want %v %d %d", who, f.Direction, f.PID, f.PeerPID, f.ID, d, pid, peerPID)
		}
		if f.End < f.Time || i > 0 && f.Time != flows[i-1].End {
			t.Errorf("%s: record %d is of %d to %d", who, i, f.Time, f.End)
		}
		if f.NetNS == 0 || f.CgroupID == 0 || f.Verdict != event.Forwarded {
			t.Errorf("%s: netns %d, cgroup %d, verdict %v", who, f.NetNS, f.CgroupID, f.Verdict)
		}
	}
}

func port(c net.PacketConn) uint16 { return c.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

func ask(t *testing.T, c io.ReadWriter, size int) {
	t.Helper()
	buf := make([]byte, 8192)
	if _, err := c.Write(buf[:size]); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(buf); err != nil || n != 2*size {
		t.Fatalf("answer of %d bytes, %v", n, err)
	}
}

func dial(t *testing.T, to netip.AddrPort) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestConnectedV4(t *testing.T) {
	r := start(t, 200*time.Millisecond, 10*time.Second)
	server, pid := peer(t, "udp4", "127.0.0.1:0")
	c, local := dial(t, server)
	for range 10 {
		ask(t, c, 100)
	}
	r.turns(600 * time.Millisecond)
	me := uint32(os.Getpid())
	check(t, "client", r.of(local, server), event.Outbound, me, pid, event.Count{Bytes: 1000, Packets: 10}, event.Count{Bytes: 2000, Packets: 10})
	check(t, "server", r.of(server, local), event.Inbound, pid, me, event.Count{Bytes: 2000, Packets: 10}, event.Count{Bytes: 1000, Packets: 10})
	for _, f := range r.of(local, server) {
		if !f.Complete {
			t.Error("a socket seen from its birth has an incomplete flow")
		}
	}
}

func TestUnconnectedV6(t *testing.T) {
	r := start(t, 200*time.Millisecond, 10*time.Second)
	server, pid := peer(t, "udp6", "[::1]:0")
	c, err := net.ListenPacket("udp6", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 4096)
	for i := range 7 {
		c.WriteTo(buf[:i], net.UDPAddrFromAddrPort(server)) // 0, 1, .. 6 bytes
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, _, err := c.ReadFrom(buf); err != nil || n != 2*i {
			t.Fatal(n, err)
		}
	}
	r.turns(600 * time.Millisecond)
	local, me := netip.AddrPortFrom(netip.IPv6Loopback(), port(c)), uint32(os.Getpid())
	check(t, "client", r.of(local, server), event.Outbound, me, pid, event.Count{Bytes: 21, Packets: 7}, event.Count{Bytes: 42, Packets: 7})
	check(t, "server", r.of(server, local), event.Inbound, pid, me, event.Count{Bytes: 42, Packets: 7}, event.Count{Bytes: 21, Packets: 7})
}

// An IPv6 socket that speaks IPv4 has IPv4 flows.
func TestMapped(t *testing.T) {
	r := start(t, 200*time.Millisecond, 10*time.Second)
	server, pid := peer(t, "udp", "[::]:0")
	server = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), server.Port())
	c, local := dial(t, server)
	ask(t, c, 5)
	r.turns(500 * time.Millisecond)
	check(t, "server", r.of(server, local), event.Inbound, pid, uint32(os.Getpid()), event.Count{Bytes: 10, Packets: 1}, event.Count{Bytes: 5, Packets: 1})
}

// One question, one answer, close: one record per end, the client's at once.
func TestOneQuestion(t *testing.T) {
	r := start(t, 2*time.Second, 3*time.Second)
	r.need("end of a socket")
	server, pid := peer(t, "udp4", "127.0.0.1:0")
	for range 20 {
		r.out.Reset()
		c, local := dial(t, server)
		ask(t, c, 40)
		c.Close()
		r.drain()
		client := r.of(local, server)
		if len(client) != 1 {
			t.Fatalf("the client's end has %d records after its close", len(client))
		}
		check(t, "client", client, event.Outbound, uint32(os.Getpid()), pid, event.Count{Bytes: 40, Packets: 1}, event.Count{Bytes: 80, Packets: 1})
		if len(r.told) != 0 {
			t.Errorf("%d flows are remembered", len(r.told))
		}
	}
	c, local := dial(t, server)
	ask(t, c, 40)
	c.Close()
	r.turns(5 * time.Second)
	if n := len(r.of(local, server)); n != 1 {
		t.Errorf("the client's end has %d records", n)
	}
	if n := len(r.of(server, local)); n != 1 {
		t.Errorf("the server's end has %d records", n)
	}
}

// A flow that goes on is told in deltas, and its end comes by silence.
func TestIntervalsAndIdle(t *testing.T) {
	r := start(t, 200*time.Millisecond, 700*time.Millisecond)
	server, pid := peer(t, "udp4", "127.0.0.1:0")
	c, local := dial(t, server)
	for range 30 {
		ask(t, c, 10)
		r.turns(50 * time.Millisecond)
	}
	ask(t, c, 10) // not yet told when the silence begins
	r.turns(2 * time.Second)
	me := uint32(os.Getpid())
	sent, received := event.Count{Bytes: 310, Packets: 31}, event.Count{Bytes: 620, Packets: 31}
	flows := r.of(local, server)
	check(t, "client", flows, event.Outbound, me, pid, sent, received)
	check(t, "server", r.of(server, local), event.Inbound, pid, me, received, sent)
	if len(flows) < 4 {
		t.Errorf("%d records in 1.5 s, every 0.2 s one is due", len(flows))
	}
	for k := range r.instance.told {
		if k.LocalPort == local.Port() || k.RemotePort == local.Port() {
			t.Errorf("a flow that ended is remembered: %+v", k)
		}
	}
	// It goes on after its end.
	ask(t, c, 10)
	r.turns(1500 * time.Millisecond)
	sent, received = event.Count{Bytes: 320, Packets: 32}, event.Count{Bytes: 640, Packets: 32}
	if s, got := sum(r.of(local, server)); s != sent || got != received {
		t.Errorf("after going on: %v %v", s, got)
	}
}

// The same socket closed between two sweeps: deltas and the last record add up.
func TestCloseAfterReports(t *testing.T) {
	r := start(t, 200*time.Millisecond, 10*time.Second)
	r.need("end of a socket")
	server, pid := peer(t, "udp4", "127.0.0.1:0")
	c, local := dial(t, server)
	ask(t, c, 10)
	r.turns(500 * time.Millisecond)
	ask(t, c, 20)
	c.Close()
	r.drain()
	flows := r.of(local, server)
	if len(flows) != 2 {
		t.Errorf("%d records", len(flows))
	}
	check(t, "client", flows, event.Outbound, uint32(os.Getpid()), pid, event.Count{Bytes: 30, Packets: 2}, event.Count{Bytes: 60, Packets: 2})
}

func TestSocketsFromBefore(t *testing.T) {
	server, pid := peer(t, "udp4", "127.0.0.1:0")
	c, local := dial(t, server)
	ask(t, c, 10)
	only, err := net.ListenPacket("udp4", "127.0.0.1:0") // never sends
	if err != nil {
		t.Fatal(err)
	}
	defer only.Close()

	r := start(t, 200*time.Millisecond, 10*time.Second)
	r.need("owner of a socket that was there before")
	ask(t, c, 10)
	from, _ := dial(t, netip.MustParseAddrPort(only.LocalAddr().String()))
	from.Write([]byte("x"))
	r.turns(500 * time.Millisecond)

	me, ten, twenty := uint32(os.Getpid()), event.Count{Bytes: 10, Packets: 1}, event.Count{Bytes: 20, Packets: 1}
	check(t, "client", r.of(local, server), event.Outbound, me, pid, ten, twenty)
	check(t, "server", r.of(server, local), event.Inbound, pid, me, twenty, ten)
	if f := r.of(local, server)[0]; f.Complete {
		t.Error("a flow whose beginning was not seen says it is complete")
	}
	check(t, "receiver", r.of(netip.MustParseAddrPort(only.LocalAddr().String()), netip.MustParseAddrPort(from.LocalAddr().String())),
		event.Inbound, me, me, event.Count{}, event.Count{Bytes: 1, Packets: 1})
}

func TestReceiveDrops(t *testing.T) {
	r := start(t, 200*time.Millisecond, 10*time.Second)
	r.need("full receive queues")
	to, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	to.(*net.UDPConn).SetReadBuffer(4096)
	before := procUDPDrops(t, port(to))
	c, local := dial(t, netip.MustParseAddrPort(to.LocalAddr().String()))
	told := func() (n uint64) {
		for _, f := range r.of(netip.MustParseAddrPort(to.LocalAddr().String()), local) {
			for _, a := range f.Attrs {
				var d uint64
				fmt.Sscan(a.Value, &d)
				if a.Key != "udp.receive_drops" || d == 0 {
					t.Errorf("%+v", a)
				}
				n += d
			}
		}
		return n
	}
	for range 3 {
		for range 50 {
			c.Write(make([]byte, 1000))
		}
		r.turns(500 * time.Millisecond)
	}
	want := procUDPDrops(t, port(to)) - before
	if want == 0 || told() != want {
		t.Errorf("told %d drops, the kernel counted %d", told(), want)
	}
	check(t, "receiver", r.of(netip.MustParseAddrPort(to.LocalAddr().String()), local), event.Inbound, uint32(os.Getpid()), uint32(os.Getpid()),
		event.Count{}, event.Count{Bytes: 150000, Packets: 150})
}

// procUDPDrops reads the socket's drops as the kernel shows them.
func procUDPDrops(t *testing.T, port uint16) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/udp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 12 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			var n uint64
			fmt.Sscan(f[12], &n)
			return n
		}
	}
	t.Fatalf("port %d is not in /proc/net/udp", port)
	return 0
}

// A ping of 5 inside of a network namespace.
func TestPing(t *testing.T) {
	r := start(t, 200*time.Millisecond, 10*time.Second)
	inNewNet(t, func() {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(s)
		// Only echo replies, as ping(8) asks for.
		if err := unix.SetsockoptInt(s, unix.SOL_RAW, 1, ^1); err != nil {
			t.Error(err)
		}
		unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
		for seq := range uint16(5) {
			if err := unix.Sendto(s, echoRequest(4711, seq), 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Error(err)
			}
			if n, _, err := unix.Recvfrom(s, make([]byte, 256), 0); err != nil || n != 84 {
				t.Errorf("reply of %d bytes, %v", n, err)
			}
		}
		r.turns(500 * time.Millisecond)
	})
	me := uint32(os.Getpid())
	var asked, answered event.Count
	for _, f := range r.out.Flows {
		if f.Transport != event.ICMP {
			continue
		}
		if !slices.Contains(f.Attrs, event.Attr{Key: "icmp.type", Value: "8"}) || f.Source.Port() != 0 {
			t.Errorf("%+v", f)
		}
		switch {
		case f.PID == me && f.Direction == event.Outbound:
			s, got := sum([]event.Flow{f})
			if s != got {
				t.Errorf("sent %v, received %v", s, got)
			}
			asked.Bytes, asked.Packets = asked.Bytes+s.Bytes, asked.Packets+s.Packets
		case f.PID == 0 && f.Direction == event.Inbound: // the kernel answers
			answered.Bytes, answered.Packets = answered.Bytes+f.Sent.Bytes, answered.Packets+f.Sent.Packets
		}
	}
	want := event.Count{Bytes: 5 * 56, Packets: 5}
	if asked != want || answered != want {
		t.Errorf("asked %v, answered %v; want %v", asked, answered, want)
	}
}

func echoRequest(id, seq uint16) []byte {
	p := make([]byte, 64)
	p[0] = 8
	binary.BigEndian.PutUint16(p[4:], id)
	binary.BigEndian.PutUint16(p[6:], seq)
	var s uint32
	for i := 0; i < len(p); i += 2 {
		s += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	s = s&0xffff + s>>16
	binary.BigEndian.PutUint16(p[2:], ^uint16(s+s>>16))
	return p
}

// A flow whose packets are counted by TCP's hook would be counted twice.
func TestNoTCP(t *testing.T) {
	r := start(t, 200*time.Millisecond, 10*time.Second)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("hello"))
	c.Close()
	r.turns(500 * time.Millisecond)
	for _, f := range r.out.Flows {
		if f.Transport == event.TCP {
			t.Errorf("%+v", f)
		}
	}
}
