package l7cap

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
)

func addr(t *testing.T, a unix.Sockaddr, err error) netip.AddrPort {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// Who moved bytes between which ends, and where they stand in the stream.
func TestIdentity(t *testing.T) {
	for _, tier := range tiers {
		for _, n := range []network{tcp4, tcp6, unixStream} {
			t.Run(tier.name+"/"+n.name, func(t *testing.T) {
				w := begin(t, mode{unix: true, tier: tier})
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				p := n.pair(t)
				before := monotonic()
				p.write(p.client, "ASK one")
				p.read(p.server, 100)
				p.write(p.server, "ANS two")
				p.read(p.client, 100)
				after := monotonic()
				client, server := w.of(p.clientCookie), w.of(p.serverCookie)
				if len(client) != 2 || len(server) != 2 {
					t.Fatal(len(client), len(server))
				}
				local, err := unix.Getsockname(p.client)
				from := addr(t, local, err)
				remote, err := unix.Getpeername(p.client)
				to := addr(t, remote, err)
				transport := event.TCP
				if n.name == "unix" {
					transport = 0
				}
				var stat unix.Stat_t
				if err := unix.Stat("/proc/self/ns/net", &stat); err != nil {
					t.Fatal(err)
				}
				last := before
				for i, c := range []event.Chunk{client[0], server[0], server[1], client[1]} {
					if i == 1 || i == 2 {
						c.Local, c.Remote = c.Remote, c.Local
					}
					if c.Local != from || c.Remote != to {
						t.Errorf("%d: %s -> %s, want %s -> %s", i, c.Local, c.Remote, from, to)
					}
					if c.PID != self || c.TID != uint32(unix.Gettid()) || c.NetNS != uint32(stat.Ino) || c.Transport != transport || c.Proto != turns || c.TLS || c.Closed {
						t.Errorf("%d: %+v", i, c)
					}
					if c.CgroupID == 0 || c.Goroutine != 0 {
						t.Errorf("%d: cgroup %d, goroutine %d", i, c.CgroupID, c.Goroutine)
					}
					if c.Time < last || c.Time > after {
						t.Errorf("%d: at %d, want between %d and %d", i, c.Time, last, after)
					}
					last = c.Time
				}
				// The same bytes have the same number at both ends.
				if client[0].Seq != server[0].Seq || client[1].Seq != server[1].Seq || (client[0].Seq == 0) != (transport == 0) {
					t.Errorf("sequence numbers %d %d, %d %d", client[0].Seq, server[0].Seq, client[1].Seq, server[1].Seq)
				}
			})
		}
	}
}

// How long the first byte lay in the socket.
func TestReady(t *testing.T) {
	for _, tier := range tiers {
		t.Run(tier.name, func(t *testing.T) {
			w := begin(t, mode{tier: tier, unix: true})
			p := tcp4.pair(t)
			const wait = 30 * time.Millisecond
			for _, head := range []string{"ASK one", "ASK two"} {
				before := monotonic()
				p.write(p.client, head)
				p.arrived(p.server, len(head))
				arrived := monotonic()
				time.Sleep(wait)
				p.read(p.server, 1) // a byte ahead: what is left came with it
				p.read(p.server, 100)
				got := w.of(p.serverCookie)
				for _, c := range got {
					if c.Sent || c.Ready < before || c.Ready > arrived || c.Time-c.Ready < int64(wait) {
						t.Errorf("%q: sent %d, readable %d, seen %d, read %d", c.Data, before, c.Ready, arrived, c.Time)
					}
				}
				if len(got) == 0 {
					t.Error("nothing was received")
				}
				for _, c := range w.of(p.clientCookie) {
					if c.Ready != 0 {
						t.Errorf("sent bytes were readable at %d", c.Ready)
					}
				}
				w.chunks = nil
			}
			// What arrives while somebody waits is read at once.
			done := make(chan string)
			go func() { done <- p.read(p.server, 100) }() // ends with the write
			time.Sleep(wait)
			before := monotonic()
			p.write(p.client, "ASK now")
			<-done
			for _, c := range w.of(p.serverCookie) {
				if c.Ready < before || c.Ready > c.Time {
					t.Errorf("sent %d, readable %d, read %d", before, c.Ready, c.Time)
				}
			}
		})
	}
}

// Who asks for a connection is told at once, and once; the end that is asked
// says nothing.
func TestOpened(t *testing.T) {
	if err := kernel.HaveTaskRegs.Have(); err != nil { // such a kernel gives tracing programs no cookie either
		t.Skip(err)
	}
	w := begin(t, mode{tier: anyTier()})
	for _, kind := range []network{tcp4, tcp6} {
		p := kind.pair(t)
		a := w.asked(p.clientCookie)
		if len(a) != 1 || a[0].PID != uint32(os.Getpid()) || a[0].Len != 0 || a[0].Sent || a[0].Closed {
			t.Errorf("the client: %+v", a)
		}
		if b := w.asked(p.serverCookie); len(b) != 0 {
			t.Errorf("the server: %+v", b)
		}
	}
}

// A connection that was told of says when it is gone; another does not.
func TestClosed(t *testing.T) {
	for _, tier := range tiers {
		t.Run(tier.name, func(t *testing.T) {
			w := begin(t, mode{tier: tier, unix: true})
			told, silent := tcp4.pair(t), tcp4.pair(t)
			told.write(told.client, "ASK one")
			told.read(told.server, 100)
			silent.write(silent.client, "nobody knows what")
			silent.read(silent.server, 100)
			ids := []uint64{told.clientCookie, told.serverCookie, silent.clientCookie, silent.serverCookie}
			for _, p := range []*pair{told, silent} {
				unix.Close(p.client)
				unix.Close(p.server)
				p.client, p.server = -1, -1
			}
			for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				a, b := w.of(ids[0]), w.of(ids[1])
				if len(a) == 2 && len(b) == 2 && a[1].Closed && b[1].Closed {
					if a[1].Len != 0 || a[1].Proto != turns || a[1].Local != a[0].Local || a[1].PID != 0 {
						t.Errorf("%+v", a[1])
					}
					break
				}
				if time.Now().After(end) {
					t.Fatalf("client%s\nserver%s", show(pieces(a)), show(pieces(b)))
				}
			}
			if n := len(w.of(ids[2])) + len(w.of(ids[3])); n > 0 {
				t.Errorf("%d chunks of a connection that nobody knows", n)
			}
		})
	}
}

// Chunks that found the ring full are counted, and leave a gap in the offsets.
func TestFullRing(t *testing.T) {
	w := begin(t, mode{tier: anyTier(), ring: 4096})
	p := tcp4.pair(t)
	const n = 40
	for range n {
		p.write(p.client, "ASK one")
	}
	p.arrived(p.server, 7*n)
	client := w.of(p.clientCookie)
	if lost := w.lost(); lost == 0 || len(client) == n || len(client)+int(lost) < n {
		t.Fatalf("%d chunks, %d lost, want %d", len(client), lost, n)
	}
	// Others on this host may fill the ring again at any moment: one of the next
	// finds room.
	for i := range uint64(100) {
		p.write(p.client, "ASK one")
		after := w.of(p.clientCookie)
		if len(after) == len(client) {
			continue
		}
		if last := after[len(after)-1]; last.Offset != 7*(n+i) {
			t.Errorf("the chunk after the gap is at %d, want %d", last.Offset, 7*(n+i))
		}
		return
	}
	t.Error("no chunk follows the gap")
}

func goid() (id uint64) {
	b := make([]byte, 64)
	fmt.Sscanf(string(b[:runtime.Stack(b, false)]), "goroutine %d ", &id)
	return id
}

// The goroutine that moved bytes, told where Go keeps its id.
func TestGoroutine(t *testing.T) {
	// The offset of runtime.g.goid in the Go that built this test.
	const goidOffset = 152
	for _, tier := range tiers {
		t.Run(tier.name, func(t *testing.T) {
			w := begin(t, mode{tier: tier, unix: true})
			if err := w.object.Maps["ghost_shared_go_procs"].Put(self, [4]int16{goidOffset, -8}); err != nil {
				t.Fatal(err)
			}
			p := tcp4.pair(t)
			ids := make(chan uint64)
			go func() { // ends with the answer
				p.read(p.server, 100)
				p.write(p.server, "ANS two")
				ids <- goid()
			}()
			p.write(p.client, "ASK one")
			p.read(p.client, 100)
			other := <-ids
			for _, c := range w.of(p.clientCookie) {
				if c.Goroutine != goid() {
					t.Errorf("client: goroutine %d, want %d", c.Goroutine, goid())
				}
			}
			server := w.of(p.serverCookie)
			if len(server) != 2 {
				t.Fatal(show(pieces(server)))
			}
			for _, c := range server {
				if c.Goroutine != other {
					t.Errorf("server: goroutine %d, want %d", c.Goroutine, other)
				}
			}
		})
	}
}

// Datagrams: each is a message; those of an unknown kind end in silence.
func TestDatagrams(t *testing.T) {
	for _, tier := range tiers {
		t.Run(tier.name, func(t *testing.T) {
			w := begin(t, mode{tier: tier, unix: true})
			server, client := udp(t), udp(t)
			to, err := unix.Getsockname(server)
			at := addr(t, to, err)
			if err := unix.Connect(client, to); err != nil {
				t.Fatal(err)
			}
			questions := []string{text("DGQ ", 100), text("DGQ ", 300)}
			if n := mmsg(t, unix.SYS_SENDMMSG, client, []byte(questions[0]), []byte(questions[1])); n != 2 {
				t.Fatal(n)
			}
			b := make([]byte, 1000)
			for range questions {
				if _, _, err := unix.Recvfrom(server, b, 0); err != nil {
					t.Fatal(err)
				}
			}
			from, err := unix.Getsockname(client)
			back := addr(t, from, err)
			if err := unix.Sendto(server, []byte("DGA yes"), 0, from); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Read(client, b); err != nil {
				t.Fatal(err)
			}
			c := w.want(cookie(t, client), "client", sent(0, 100, questions[0]), sent(100, 300, questions[1][:128]), received(0, 7, "DGA yes"))
			s := w.want(cookie(t, server), "server", received(0, 100, questions[0]), received(100, 300, questions[1][:128]), sent(0, 7, "DGA yes"))
			for _, c := range c {
				if c.Transport != event.UDP || c.Proto != datagrams || c.Local != back || c.Remote != at {
					t.Errorf("client: %+v", c)
				}
			}
			for _, s := range s {
				if s.Transport != event.UDP || s.Local != at || s.Remote != back {
					t.Errorf("server: %+v", s)
				}
			}
			for range 8 {
				if _, err := unix.Write(client, []byte("something else")); err != nil {
					t.Fatal(err)
				}
			}
			other := udp(t)
			for range 8 {
				if err := unix.Sendto(other, []byte("something else"), 0, to); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Sendto(other, []byte("DGQ too late"), 0, to); err != nil {
				t.Fatal(err)
			}
			if n := len(w.of(cookie(t, other))); n > 0 {
				t.Errorf("%d chunks of a socket that nobody knows", n)
			}
		})
	}
}

// A server of datagrams has one socket for all clients: each datagram tells its
// own, if the server asks. What is only peeked at is told once.
func TestSenders(t *testing.T) {
	const unknown = ""
	for _, tier := range tiers {
		for family, loopback := range map[string]unix.Sockaddr{
			"IPv4": &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}},
			"IPv6": &unix.SockaddrInet6{Addr: [16]byte{15: 1}},
		} {
			t.Run(tier.name+"/"+family, func(t *testing.T) {
				w := begin(t, mode{tier: tier, unix: true})
				server, one, two := udpAt(t, loopback), udpAt(t, loopback), udpAt(t, loopback)
				to, err := unix.Getsockname(server)
				if err != nil {
					t.Fatal(err)
				}
				var want []string
				b := make([]byte, 100)
				for i, client := range []int{one, two, one, two} {
					if err := unix.Sendto(client, []byte("DGQ what"), 0, to); err != nil {
						t.Fatal(err)
					}
					if i == 3 { // it does not ask
						if _, err := unix.Read(server, b); err != nil {
							t.Fatal(err)
						}
						want = append(want, unknown)
						break
					}
					for _, flags := range []int{unix.MSG_PEEK, 0} {
						if _, _, err := unix.Recvfrom(server, b, flags); err != nil {
							t.Fatal(err)
						}
					}
					from, err := unix.Getsockname(client)
					want = append(want, addr(t, from, err).String())
				}
				var got []string
				for _, c := range w.of(cookie(t, server)) {
					if !c.Remote.IsValid() {
						got = append(got, unknown)
						continue
					}
					got = append(got, c.Remote.String())
				}
				if !slices.Equal(got, want) {
					t.Errorf("from %q, want %q", got, want)
				}
			})
		}
	}
}

func udp(t *testing.T) int {
	t.Helper()
	return udpAt(t, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
}

func udpAt(t *testing.T, at unix.Sockaddr) int {
	t.Helper()
	family := unix.AF_INET
	if _, ok := at.(*unix.SockaddrInet6); ok {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, at); err != nil {
		t.Fatal(err)
	}
	cookie(t, fd)
	return fd
}

// What the option is off for is not seen.
func TestUnixIsAnOption(t *testing.T) {
	w := begin(t, mode{tier: anyTier()})
	p := unixStream.pair(t)
	p.write(p.client, "ASK one")
	p.read(p.server, 100)
	if n := len(w.of(p.clientCookie)) + len(w.of(p.serverCookie)); n > 0 {
		t.Errorf("%d chunks", n)
	}
}

// The real object loads with all its hooks, whatever protocols there are.
func TestRealObject(t *testing.T) {
	begin(t, mode{tier: anyTier(), load: loadL7cap})
}

// The twins do all that their programs miss, if that is everything.
func TestTwins(t *testing.T) {
	w := begin(t, mode{tier: tier{name: "twins", needs: tracepoints.needs, hooks: func(hooks []kernel.Hook) (twins []kernel.Hook) {
		for _, h := range hooks {
			switch t := h.Tiers[0]; t.Program {
			case "l7cap_send", "l7cap_recv":
				continue
			case "l7cap_send_twin", "l7cap_recv_twin":
				t.Needs = t.Needs[:1]
				h.Tiers = []kernel.Tier{t}
			}
			twins = append(twins, h)
		}
		return twins
	}}})
	p := tcp4.pair(t)
	client, server := stories[1].move(t, p)
	w.want(p.clientCookie, "client", client...)
	w.want(p.serverCookie, "server", server...)
}

// Where both are at work each chunk is told once.
func TestTwinsBesideTheirFirst(t *testing.T) {
	w := begin(t, mode{tier: tier{name: "twins beside their first", needs: tracepoints.needs, hooks: func(hooks []kernel.Hook) []kernel.Hook {
		for i, h := range hooks {
			if t := h.Tiers[0]; t.Twin {
				t.Needs = t.Needs[:1]
				hooks[i].Tiers = []kernel.Tier{t}
			}
		}
		return hooks
	}}})
	p := tcp4.pair(t)
	client, server := stories[1].move(t, p)
	w.want(p.clientCookie, "client", client...)
	w.want(p.serverCookie, "server", server...)
}
