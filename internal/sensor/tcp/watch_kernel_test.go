package tcp

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/wire"
)

// watch is the sensor at work, and what it told so far.
type watch struct {
	t      testing.TB
	in     *instance
	object *kernel.Object
	kernel *kernel.Kernel
	reader *kernel.Reader
	flows  []event.Flow

	lostBefore uint64
}

func defaults(any) error { return nil }

func every(d time.Duration) func(any) error {
	return func(o any) error { o.(*Options).Interval = d; return nil }
}

// mode is how a sensor runs.
type mode struct {
	interval           time.Duration
	asLinux510, atOnce bool
	twinsOnly          bool
	ring               uint32 // bytes, 0: plenty
	sockets            uint32 // 0: plenty
}

// running are the sensors of earlier tests: loading takes its time in an
// emulated machine. They end with the process.
var running = map[mode]*watch{}

// begin watches from now on.
func begin(t testing.TB, options func(any) error) *watch {
	t.Helper()
	o := Options{Interval: defaultInterval}
	if err := options(&o); err != nil {
		t.Fatal(err)
	}
	m := mode{interval: o.Interval, asLinux510: asLinux510, atOnce: sweepAtOnce, twinsOnly: twinsOnly}
	w := running[m]
	if w == nil {
		w = load(t, m)
		running[m] = w
	}
	w.t = t
	w.drain()
	w.flows, w.lostBefore = nil, 0
	w.lostBefore = w.lost()
	return w
}

// beginAnew starts a sensor, which looks at what is open.
func beginAnew(t testing.TB, interval time.Duration) *watch {
	t.Helper()
	return beginWith(t, mode{interval: interval, asLinux510: asLinux510})
}

func beginWith(t testing.TB, m mode) *watch {
	t.Helper()
	w := load(t, m)
	t.Cleanup(w.end)
	return w
}

func (w *watch) end() {
	w.reader.Close()
	w.kernel.Close()
}

func load(t testing.TB, m mode) *watch {
	t.Helper()
	for _, p := range []*kernel.Probe{kernel.HaveBTF, kernel.HaveRing, kernel.HaveTpBTF, kernel.HaveIter} {
		if err := p.Have(); err != nil {
			t.Skip(err)
		}
	}
	if m.ring == 0 {
		m.ring = 4 << 20
	}
	k, err := kernel.New(m.ring)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := k.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	made, err := open(every(max(m.interval, leastInterval)))
	if err != nil {
		t.Fatal(err)
	}
	in := made.(*instance)
	if m.atOnce {
		in.interval, in.sockets = 1, 4096 // a sweep costs by its size
	}
	if m.sockets > 0 {
		in.sockets = m.sockets
	}
	spec, err := in.Spec()
	if err != nil {
		t.Fatal(err)
	}
	ways := hooks
	if m.asLinux510 {
		ways = oldest(t, spec)
	}
	if m.twinsOnly {
		ways = slices.DeleteFunc(slices.Clone(hooks), func(h kernel.Hook) bool {
			return h.Tiers[0].Program == "tcp_set_state" || h.Tiers[0].Program == "tcp_destroy"
		})
	}
	object, reports, err := k.Load("tcp", 1, spec, ways)
	if err != nil {
		t.Fatal(err, reports)
	}
	for i, r := range reports {
		if best(ways[i]) != r.Tier {
			t.Errorf("%s: tier %q: %+v", r.What, r.Tier, r.Tiers)
		}
	}
	w := &watch{t: t, in: in, object: object, kernel: k, reader: reader}
	var out event.Batch
	if err := in.Start(object, &out); err != nil {
		t.Fatal(err)
	}
	for _, a := range out.Alerts {
		t.Errorf("alert: %s", a.Message)
	}
	return w
}

// asLinux510 makes the sensor work as if this kernel had nothing that 5.10 has
// not. Only TestAsLinux510 sets it.
var asLinux510 bool

// sweepAtOnce makes every sweep tell all that changed.
var sweepAtOnce bool

func oldest(t testing.TB, spec *ebpf.CollectionSpec) (last []kernel.Hook) {
	t.Helper()
	for _, name := range []string{"use_lock", "use_cookie"} {
		if err := spec.Variables[name].Set(false); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range hooks {
		h.Tiers = h.Tiers[len(h.Tiers)-1:]
		last = append(last, h)
	}
	return last
}

func TestAsLinux510(t *testing.T) {
	asLinux510 = true
	defer func() { asLinux510 = false }()
	for name, test := range map[string]func(*testing.T){
		"echo":         TestEchoAgreesWithTCPInfo,
		"again":        TestConnectedAgain,
		"reset":        TestReset,
		"worker":       TestOwnerIsTheWorker,
		"lasting":      TestLastingFlow,
		"before":       TestOpenBeforeStart,
		"old listener": TestListenerOpenBeforeStart,
		"orphans":      TestOrphansOpenBeforeStart,
	} {
		t.Run(name, test)
	}
}

// twinsOnly leaves the programs out that have twins.
var twinsOnly bool

// The twins do all that their programs miss, if that is everything.
func TestTwins(t *testing.T) {
	twinsOnly = true
	defer func() { twinsOnly = false }()
	for name, test := range map[string]func(*testing.T){
		"refused":   TestRefused,
		"again":     TestConnectedAgain,
		"reset":     TestReset,
		"first":     TestServerClosesFirst,
		"worker":    TestOwnerIsTheWorker,
		"listener":  TestOwnerIsTheListener,
		"lasting":   TestLastingFlow,
		"addresses": TestLoopbackOfTwoNetworks,
	} {
		t.Run(name, test)
	}
}

// best names the first tier whose probes hold: it must be the one taken.
func best(h kernel.Hook) string {
	for _, t := range h.Tiers {
		if !slices.ContainsFunc(t.Needs, func(p *kernel.Probe) bool { return p.Have() != nil }) {
			return t.Name
		}
	}
	return ""
}

// drain reads what the ring holds, and lets the sensor tick.
func (w *watch) drain() {
	w.t.Helper()
	var b event.Batch
	if err := w.in.Tick(monotonic(), &b); err != nil {
		w.t.Fatal(err)
	}
	for w.reader.Drain(256, func(raw []byte) {
		h, err := wire.View[wire.Header](raw)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.in.Decode(h, raw, &b); err != nil {
			w.t.Fatal(err)
		}
	}) > 0 {
	}
	w.flows = append(w.flows, b.Flows...)
}

// of returns the records so far that match.
func (w *watch) of(match func(*event.Flow) bool) []event.Flow {
	w.drain()
	return slices.DeleteFunc(slices.Clone(w.flows), func(f event.Flow) bool { return !match(&f) })
}

// want waits for n records that match, and fails if there are others in the
// end.
func (w *watch) want(n int, match func(*event.Flow) bool) []event.Flow {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); len(w.of(match)) < n && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	got := w.of(match)
	if len(got) != n {
		w.t.Fatalf("%d records, want %d: %s", len(got), n, show(got))
	}
	return got
}

func (w *watch) lost() uint64 {
	w.t.Helper()
	n, err := w.object.Lost()
	if err != nil {
		w.t.Fatal(err)
	}
	return n - w.lostBefore
}

// noLoss fails if losses are counted though every record came. Where tracepoints
// are preempted the count is a bound: of a miss that a twin did not see nobody
// knows whether there was something to do.
func (w *watch) noLoss(t *testing.T) {
	t.Helper()
	most := uint64(0)
	if kernel.PreemptsTracepoints.Have() == nil {
		most = 5
	}
	if n := w.lost(); n > most {
		t.Errorf("%d lost", n)
	}
}

func show(flows []event.Flow) (s string) {
	for _, f := range flows {
		s += fmt.Sprintf("\n\t%s %s -> %s pid %d peer %d sent %v received %v %+v complete %t id %d",
			f.Direction, f.Source, f.Destination, f.PID, f.PeerPID, f.Sent, f.Received, f.TCP, f.Complete, f.ID)
	}
	return s
}

// The two ends of a connection, by the client's port.
func end(d event.Direction, client netip.AddrPort) func(*event.Flow) bool {
	return func(f *event.Flow) bool {
		return f.Direction == d && f.Source.Port() == client.Port() && f.TCP.State != listen
	}
}

func addrOf(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// pair is a connection on this host.
type pair struct {
	client, server *net.TCPConn
	source         netip.AddrPort
	destination    netip.AddrPort
}

func connect(t testing.TB, listen, dial string) *pair {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return dialTo(t, l, net.JoinHostPort(dial, port))
}

func dialTo(t testing.TB, l net.Listener, address string) *pair {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{client: c.(*net.TCPConn), server: s.(*net.TCPConn)}
	p.source, p.destination = addrOf(c.LocalAddr()), addrOf(c.RemoteAddr())
	return p
}

func (p *pair) close() {
	p.client.Close()
	p.server.Close()
}

func control(t testing.TB, c *net.TCPConn, fn func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = fn(int(fd)) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
}

func info(t testing.TB, c *net.TCPConn) (i *unix.TCPInfo) {
	t.Helper()
	control(t, c, func(fd int) (err error) {
		i, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
	return i
}

// echo sends n bytes there and back, closes both directions from the client
// on, and returns what TCP_INFO says of both ends when all is done.
func (p *pair) echo(t testing.TB, n int) (client, server *unix.TCPInfo) {
	t.Helper()
	failed := make(chan error, 2)
	go func() { // ends with the client's CloseWrite
		_, err := io.Copy(p.server, p.server)
		p.server.CloseWrite()
		failed <- err
	}()
	go func() { // ends when n bytes are written
		_, err := p.client.Write(make([]byte, n))
		p.client.CloseWrite()
		failed <- err
	}()
	back, err := io.Copy(io.Discard, p.client)
	if err != nil || back != int64(n) {
		t.Fatal(back, err)
	}
	for range 2 {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(20 * time.Millisecond) // the last ACK
	return info(t, p.client), info(t, p.server)
}

var self = uint32(os.Getpid())
