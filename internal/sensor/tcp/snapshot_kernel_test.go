package tcp

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
)

// exchange makes both ends of a pair send and receive, as before the start.
func exchange(t *testing.T, p *pair, up, down int) {
	t.Helper()
	for _, way := range []struct {
		from, to *net.TCPConn
		n        int
	}{{p.client, p.server, up}, {p.server, p.client, down}} {
		if _, err := way.from.Write(make([]byte, way.n)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(way.to, make([]byte, way.n)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(60 * time.Millisecond) // delayed ACKs
}

func TestOpenBeforeStart(t *testing.T) {
	away := newNetwork(t)
	var there *pair
	away.do(func() { there = connect(t, "127.0.0.1:0", "127.0.0.1") })
	here := connect(t, "127.0.0.1:0", "127.0.0.1")
	six := connect(t, "[::1]:0", "::1")
	mapped := connect(t, ":0", "127.0.0.1")
	silent := connect(t, "127.0.0.1:0", "127.0.0.1")
	pairs := []*pair{here, six, mapped, there}
	for _, p := range pairs {
		exchange(t, p, 1000, 50)
	}
	w := beginAnew(t, 300*time.Millisecond)
	for _, p := range append(pairs, silent) {
		up, down := uint64(1000), uint64(50)
		if p == silent {
			up, down = 0, 0
		}
		// The kernel's counters go back to the beginning.
		c, s := w.want(1, end(event.Outbound, p.source))[0], w.want(1, end(event.Inbound, p.source))[0]
		for _, f := range []event.Flow{c, s} {
			if f.Complete || f.PID != self || f.PeerPID != self || f.CgroupID == 0 || f.TCP.State != 1 || f.TCP.CloseReason != event.StillOpen || f.Destination != p.destination || f.TCP.ConnectNS != 0 {
				t.Error(show([]event.Flow{f}))
			}
		}
		if c.Sent.Bytes != up || c.Received.Bytes != down || s.Sent.Bytes != down || s.Received.Bytes != up {
			t.Error(show([]event.Flow{c, s}))
		}
		if p == there && (c.NetNS == 0 || c.NetNS == w.of(end(event.Outbound, here.source))[0].NetNS) {
			t.Error("namespace: ", show([]event.Flow{c}))
		}
	}
	exchange(t, here, 7, 8)
	here.close()
	flows := w.want(2, end(event.Outbound, here.source))
	if last := flows[1]; last.Sent.Bytes != 7 || last.Received.Bytes != 8 || last.TCP.CloseReason != event.FinSent || last.Complete {
		t.Error(show(flows))
	}
}

// A listener of before the start owns what is accepted afterwards, in another
// namespace and process too.
func TestListenerOpenBeforeStart(t *testing.T) {
	n := newNetwork(t)
	var l net.Listener
	var err error
	n.do(func() { l, err = net.Listen("tcp", ":0") })
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	worker := start(t, "keep", l)
	l.Close() // from here on only the worker holds it
	w := beginAnew(t, 300*time.Millisecond)
	var c net.Conn
	n.do(func() { c, err = net.Dial("tcp", "127.0.0.1:"+port) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Other namespaces may use the client's port at the same time.
	inbound, at := end(event.Inbound, addrOf(c.LocalAddr())), addrOf(c.RemoteAddr())
	s := w.want(1, func(f *event.Flow) bool { return inbound(f) && f.Destination == at })[0]
	if s.PID != worker.pid() || !s.Complete || s.PeerPID != self {
		t.Error(show([]event.Flow{s}))
	}
}

// Sockets whose process has closed them have no file; the connection still
// runs: longer than TIME_WAIT lasts, else it would have no socket any more. One
// half-closed end waits in FIN_WAIT2, the other in CLOSE_WAIT.
func TestOrphansOpenBeforeStart(t *testing.T) {
	away := newNetwork(t)
	var p *pair
	away.do(func() { p = connect(t, "127.0.0.1:0", "127.0.0.1") })
	exchange(t, p, 400, 30)
	control(t, p.client, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_LINGER2, 100) })
	p.client.Close()
	time.Sleep(50 * time.Millisecond)
	w := beginAnew(t, 300*time.Millisecond)
	c, s := w.want(1, end(event.Outbound, p.source))[0], w.want(1, end(event.Inbound, p.source))[0]
	if c.TCP.State != 5 || c.PID != 0 || c.Sent.Bytes != 400 || c.Received.Bytes != 30 || c.Complete {
		t.Error(show([]event.Flow{c}))
	}
	if s.TCP.State != 8 || s.PID != self || s.Received.Bytes != 400 || s.Sent.Bytes != 30 || s.Complete {
		t.Error(show([]event.Flow{s}))
	}
	p.server.Close()
	c, s = w.want(2, end(event.Outbound, p.source))[1], w.want(2, end(event.Inbound, p.source))[1]
	if c.TCP.CloseReason != event.FinSent || s.TCP.CloseReason != event.FinReceived {
		t.Error(show([]event.Flow{c, s}))
	}
}

// A thread that went into another namespace for us must not come back.
func TestThreadsStayHome(t *testing.T) {
	away := newNetwork(t)
	away.do(func() {}) // it is there
	own := map[string]bool{}
	if _, err := eachNetwork(func() error {
		name, err := netName()
		own[name] = true
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var there string
	away.do(func() { there, _ = netName() })
	if !own[there] {
		t.Errorf("%s was not visited: %v", there, own)
	}
	for range 100 {
		done := make(chan string)
		go func() { name, _ := netName(); done <- name }()
		if name := <-done; name == there {
			t.Fatal("a goroutine runs in the other namespace")
		}
	}
}

// What cannot be entered is told, and fn is not called.
func TestNetworkRefused(t *testing.T) {
	entered, err := inNetwork("/proc/self/ns/uts", func() error { t.Error("called"); return nil })
	if entered || err == nil {
		t.Error(entered, err)
	}
	if entered, err := inNetwork("/proc/0/ns/net", func() error { t.Error("called"); return nil }); !entered || err != nil {
		t.Error("a process that ended is no loss: ", entered, err)
	}
}

func netName() (string, error) { return os.Readlink("/proc/thread-self/ns/net") }
