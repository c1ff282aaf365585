package tcp

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
)

// closedPort returns an address that nobody listens on.
func closedPort(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func to(address string) func(*event.Flow) bool {
	want := netip.MustParseAddrPort(address)
	return func(f *event.Flow) bool { return f.Destination == want && f.TCP.State != listen }
}

// failed checks the record of a connection that never was.
func failed(t *testing.T, f event.Flow, reason event.CloseReason) {
	t.Helper()
	if f.TCP.CloseReason != reason || f.Verdict != event.Error || f.Direction != event.Outbound {
		t.Errorf("reason %q, verdict %s, want %q: %s", f.TCP.CloseReason, f.Verdict, reason, show([]event.Flow{f}))
	}
	if f.PID != self || !f.Complete || f.TCP.ConnectNS != 0 || f.Sent.Bytes != 0 || f.Received.Bytes != 0 || f.Sent.Packets == 0 {
		t.Error(show([]event.Flow{f}))
	}
	if !f.Source.IsValid() || f.Source.Port() == 0 {
		t.Errorf("source %s", f.Source)
	}
}

func TestRefused(t *testing.T) {
	w := begin(t, defaults)
	for _, host := range []string{"127.0.0.1", "::1"} {
		address := closedPort(t, host)
		if _, err := net.Dial("tcp", address); !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
		f := w.want(1, to(address))[0]
		failed(t, f, event.Refused)
		if f.Sent.Packets != 1 || f.Received.Packets != 1 {
			t.Error("one SYN and one RST: ", show([]event.Flow{f}))
		}
	}
}

// once connects a socket made inside n, with one retry of the SYN at most.
func once(t *testing.T, n *network, address string) (err error) {
	t.Helper()
	to := netip.MustParseAddrPort(address)
	var fd int
	n.do(func() { fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1); err != nil {
		t.Fatal(err)
	}
	return unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
}

func TestTimeout(t *testing.T) {
	n := newNetwork(t)
	n.tun("10.99.0.1", func([]byte) []byte { return nil })
	w := begin(t, every(500*time.Millisecond))
	done := make(chan error)
	go func() { done <- once(t, n, "10.99.0.2:81") }()
	trying := w.want(1, to("10.99.0.2:81"))[0] // told while it is tried
	if trying.TCP.State != 2 || trying.TCP.CloseReason != event.StillOpen || trying.Verdict != event.Forwarded {
		t.Error("in the making: ", show([]event.Flow{trying}))
	}
	if err := <-done; err != unix.ETIMEDOUT {
		t.Fatal(err)
	}
	flows := w.want(2, to("10.99.0.2:81"))
	f := flows[1]
	f.Sent.Packets += trying.Sent.Packets
	f.TCP.Retransmits += trying.TCP.Retransmits
	failed(t, f, event.Timeout)
	if f.TCP.Retransmits == 0 || f.Sent.Packets != 1+f.TCP.Retransmits {
		t.Error("a SYN and its retransmits: ", show(flows))
	}
}

func TestUnreachable(t *testing.T) {
	n := newNetwork(t)
	n.tun("10.99.1.1", unreachable)
	w := begin(t, defaults)
	if err := once(t, n, "10.99.1.2:82"); err != unix.EHOSTUNREACH {
		t.Fatal(err)
	}
	failed(t, w.want(1, to("10.99.1.2:82"))[0], event.Unreachable)
}

// A process may connect the same socket again after it failed.
func TestConnectedAgain(t *testing.T) {
	n := newNetwork(t)
	w := begin(t, defaults)
	var l net.Listener
	var fd int
	var err error
	n.do(func() {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != unix.ECONNREFUSED {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, make([]byte, 77)); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, s)
	s.Close()
	flows := w.want(2, func(f *event.Flow) bool {
		return f.Direction == event.Outbound && (f.Destination.Port() == uint16(port) || f.Destination.Port() == 9) && f.PID == self
	})
	failed(t, flows[0], event.Refused)
	if f := flows[1]; f.TCP.CloseReason != event.FinSent || f.Sent.Bytes != 77 || f.Received.Bytes != 0 || f.TCP.ConnectNS == 0 || f.Sent.Packets < 3 {
		t.Error(show(flows))
	}
}

func TestReset(t *testing.T) {
	w := begin(t, defaults)
	for _, listen := range []string{"127.0.0.1", "::1"} {
		p := connect(t, net.JoinHostPort(listen, "0"), listen)
		if _, err := p.client.Write(make([]byte, 5000)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p.server, make([]byte, 5000)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.server.Write(make([]byte, 300)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p.client, make([]byte, 300)); err != nil {
			t.Fatal(err)
		}
		before := info(t, p.client)
		if err := p.client.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		p.client.Close()
		if _, err := p.server.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Fatal(err)
		}
		p.server.Close()
		c, s := w.want(1, end(event.Outbound, p.source))[0], w.want(1, end(event.Inbound, p.source))[0]
		if c.TCP.CloseReason != event.ResetSent || s.TCP.CloseReason != event.ResetReceived || c.Verdict != event.Error || s.Verdict != event.Error {
			t.Error(show([]event.Flow{c, s}))
		}
		// tcp_disconnect() clears the socket's counters before it is destroyed.
		if c.Sent.Bytes != 5000 || c.Received.Bytes != 300 || s.Sent.Bytes != 300 || s.Received.Bytes != 5000 {
			t.Error(show([]event.Flow{c, s}))
		}
		if c.Sent.Packets != uint64(before.Segs_out)+1 || c.Received.Packets != uint64(before.Segs_in) {
			t.Errorf("packets %d/%d, before the reset %d/%d", c.Sent.Packets, c.Received.Packets, before.Segs_out, before.Segs_in)
		}
		if len(w.in.resets) > 0 && c.TCP.ResetReason == "" {
			t.Error("the kernel knows why it reset: ", show([]event.Flow{c}))
		}
	}
}

// Closing with unread data resets.
func TestResetUnread(t *testing.T) {
	w := begin(t, defaults)
	p := connect(t, "127.0.0.1:0", "127.0.0.1")
	if _, err := p.client.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	p.server.Close()
	time.Sleep(20 * time.Millisecond)
	p.client.Close()
	c, s := w.want(1, end(event.Outbound, p.source))[0], w.want(1, end(event.Inbound, p.source))[0]
	if c.TCP.CloseReason != event.ResetReceived || s.TCP.CloseReason != event.ResetSent || s.Received.Bytes != 10 {
		t.Error(show([]event.Flow{c, s}))
	}
	if len(w.in.resets) > 0 && s.TCP.ResetReason != "tcp_abort_on_close" && s.TCP.ResetReason != "tcp_abort_on_data" {
		t.Errorf("reason %q", s.TCP.ResetReason)
	}
}

func TestServerClosesFirst(t *testing.T) {
	w := begin(t, defaults)
	p := connect(t, "127.0.0.1:0", "127.0.0.1")
	p.server.Close()
	if _, err := p.client.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	p.client.Close()
	c, s := w.want(1, end(event.Outbound, p.source))[0], w.want(1, end(event.Inbound, p.source))[0]
	if c.TCP.CloseReason != event.FinReceived || s.TCP.CloseReason != event.FinSent {
		t.Error(show([]event.Flow{c, s}))
	}
}

// The other end falls silent in the middle of a connection.
func TestEstablishedTimesOut(t *testing.T) {
	n := newNetwork(t)
	w := begin(t, defaults)
	var p *pair
	n.do(func() { p = connect(t, "127.0.0.1:0", "127.0.0.1") })
	control(t, p.client, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 500) })
	stop := n.drop(1)
	defer stop()
	if _, err := p.client.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.Read(make([]byte, 1)); !errors.Is(err, unix.ETIMEDOUT) {
		t.Fatal(err)
	}
	p.close()
	c := w.want(1, end(event.Outbound, p.source))[0]
	if c.TCP.CloseReason != event.Timeout || c.TCP.Retransmits == 0 || c.Sent.Bytes != 1000 {
		t.Error(show([]event.Flow{c}))
	}
}
