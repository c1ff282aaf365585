package udp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
)

// inNewNet runs fn on a thread in a network namespace of its own, with lo up.
func inNewNet(t *testing.T, fn func()) {
	t.Helper()
	var wg sync.WaitGroup
	var err error
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with fn
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		if err = up("lo"); err == nil {
			fn()
		}
	})
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
}

// netns returns the thread's network namespace, as a file and as a number.
func netns(t *testing.T) (*os.File, uint32) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
		return nil, 0
	}
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		t.Error(err)
	}
	return f, uint32(s.Ino)
}

func ioctl(name string, request uint, set func(*unix.Ifreq)) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	set(req)
	return unix.IoctlIfreq(s, request, req)
}

func up(name string) error {
	return ioctl(name, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP) })
}

// give sets the interface's address (of class A: 10/8) and switches it on.
func give(name string, a [4]byte) error {
	if err := ioctl(name, unix.SIOCSIFADDR, func(r *unix.Ifreq) { r.SetInet4Addr(a[:]) }); err != nil {
		return fmt.Errorf("address of %s: %w", name, err)
	}
	return up(name)
}

// veth makes a pair of interfaces: a here and b in the namespace of file ns.
func veth(a, b string, ns int) error {
	attr := func(kind uint16, value ...[]byte) []byte {
		v := slices.Concat(value...)
		p := binary.NativeEndian.AppendUint16(nil, uint16(4+len(v)))
		p = append(binary.NativeEndian.AppendUint16(p, kind), v...)
		return append(p, make([]byte, -len(p)&3)...)
	}
	const vethInfoPeer = 1
	link := make([]byte, unix.SizeofIfInfomsg)
	other := attr(vethInfoPeer, link, attr(unix.IFLA_IFNAME, []byte(b+"\x00")),
		attr(unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(ns))))
	body := slices.Concat(link, attr(unix.IFLA_IFNAME, []byte(a+"\x00")),
		attr(unix.IFLA_LINKINFO, attr(unix.IFLA_INFO_KIND, []byte("veth")), attr(unix.IFLA_INFO_DATA, other)))
	return netlink(unix.RTM_NEWLINK, body)
}

func netlink(kind uint16, body []byte) error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	msg := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	msg = binary.NativeEndian.AppendUint16(msg, kind)
	msg = binary.NativeEndian.AppendUint16(msg, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	msg = append(append(msg, make([]byte, 8)...), body...)
	if err := unix.Sendto(s, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, answer, 0)
	if err != nil || n < unix.SizeofNlMsghdr+4 {
		return fmt.Errorf("netlink answered %d bytes: %w", n, err)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// Two namespaces joined by a cable: each end is told in its own namespace, and
// both know each other.
func TestVeth(t *testing.T) {
	r := start(t, 200*time.Millisecond, 10*time.Second)
	a, b := netip.MustParseAddrPort("10.77.0.1:40001"), netip.MustParseAddrPort("10.77.0.2:53")
	var nsA, nsB uint32
	inNewNet(t, func() {
		var file *os.File
		if file, nsA = netns(t); file == nil {
			return
		}
		defer file.Close()
		inNewNet(t, func() {
			var own *os.File
			if own, nsB = netns(t); own == nil {
				return
			}
			defer own.Close()
			if err := veth("ghostb", "ghosta", int(file.Fd())); err != nil {
				t.Error(err)
				return
			}
			if err := give("ghostb", b.Addr().As4()); err != nil {
				t.Error(err)
			}
			server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(b))
			if err != nil {
				t.Error(err)
				return
			}
			defer server.Close()
			var client *net.UDPConn
			back := make(chan error)
			go func() { // a thread in the first namespace
				runtime.LockOSThread()
				if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
					back <- err
					return
				}
				if err := give("ghosta", a.Addr().As4()); err != nil {
					back <- err
					return
				}
				var err error
				client, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(a), net.UDPAddrFromAddrPort(b))
				back <- err
			}()
			if err := <-back; err != nil {
				t.Error(err)
				return
			}
			defer client.Close()
			buf := make([]byte, 100)
			for range 3 {
				client.Write(buf[:50])
				server.SetReadDeadline(time.Now().Add(5 * time.Second))
				n, from, err := server.ReadFromUDPAddrPort(buf)
				if err != nil || n != 50 {
					t.Error(n, err)
					return
				}
				server.WriteToUDPAddrPort(buf[:20], from)
			}
			client.Write(make([]byte, 5000)) // four fragments on the cable, one datagram at both ends
			big := make([]byte, 8000)
			if n, _, err := server.ReadFromUDPAddrPort(big); err != nil || n != 5000 {
				t.Error(n, err)
			}
			r.turns(600 * time.Millisecond)
		})
	})
	me := uint32(os.Getpid())
	asked, answered := event.Count{Bytes: 5150, Packets: 4}, event.Count{Bytes: 60, Packets: 3}
	client, server := r.of(a, b), r.of(b, a)
	check(t, "client", client, event.Outbound, me, me, asked, answered)
	check(t, "server", server, event.Inbound, me, me, answered, asked)
	if client[0].NetNS != nsA || server[0].NetNS != nsB || nsA == nsB {
		t.Errorf("namespaces %d and %d, want %d and %d", client[0].NetNS, server[0].NetNS, nsA, nsB)
	}
}

// The same loopback addresses in two namespaces are not the same place.
func TestLoopbackOfAnotherNamespace(t *testing.T) {
	r := start(t, 200*time.Millisecond, 10*time.Second)
	from, to := netip.MustParseAddrPort("127.9.9.9:45011"), netip.MustParseAddrPort("127.9.9.9:45012")
	talk := func(listen bool) {
		if listen {
			l, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(to))
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
		}
		c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		r.turns(500 * time.Millisecond)
	}
	_, here := netns(t)
	inNewNet(t, func() { talk(true) })
	talk(false)
	var there, alone int
	for _, f := range r.of(from, to) {
		if f.NetNS != here && f.PeerPID == uint32(os.Getpid()) {
			there++
		}
		if f.NetNS == here && f.PeerPID == 0 {
			alone++
		}
	}
	if there != 1 || alone != 1 {
		lost, _ := r.object.Lost()
		t.Errorf("joined %d, alone %d of %+v, lost %d", there, alone, r.out.Flows, lost)
	}
}

// Headers between IP and UDP, as the kernel writes them on real packets.
func TestOptionsOnTheWire(t *testing.T) {
	for _, c := range []struct {
		network, address string
		level, option    int
		value            string
	}{
		{"udp4", "127.0.0.1:0", unix.IPPROTO_IP, unix.IP_OPTIONS, "\x01\x01\x01\x00"},
		{"udp6", "[::1]:0", unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, "\x00\x00\x01\x04\x00\x00\x00\x00"},
		{"udp6", "[::1]:0", unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, "\x00\x01\x1e\x0c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
	} {
		r := start(t, 200*time.Millisecond, 10*time.Second)
		server, pid := peer(t, c.network, c.address)
		client, local := dial(t, server)
		set(t, client, func(fd int) error { return unix.SetsockoptString(fd, c.level, c.option, c.value) })
		ask(t, client, 100)
		r.turns(500 * time.Millisecond)
		check(t, "client", r.of(local, server), event.Outbound, uint32(os.Getpid()), pid, event.Count{Bytes: 100, Packets: 1}, event.Count{Bytes: 200, Packets: 1})
		check(t, "server", r.of(server, local), event.Inbound, pid, uint32(os.Getpid()), event.Count{Bytes: 200, Packets: 1}, event.Count{Bytes: 100, Packets: 1})
	}
}

// One write of ten datagrams (UDP_SEGMENT) counts as ten at both ends.
func TestSegments(t *testing.T) {
	r := start(t, 200*time.Millisecond, 10*time.Second)
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	to := netip.MustParseAddrPort(server.LocalAddr().String())
	client, local := dial(t, to)
	set(t, client, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000) })
	if _, err := client.Write(make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	r.turns(500 * time.Millisecond)
	me, want := uint32(os.Getpid()), event.Count{Bytes: 10_000, Packets: 10}
	check(t, "client", r.of(local, to), event.Outbound, me, me, want, event.Count{})
	check(t, "server", r.of(to, local), event.Inbound, me, me, event.Count{}, want)
}

func set(t *testing.T, c *net.UDPConn, fn func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = fn(int(fd)) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
}

// A multicast datagram counts once where it is sent, though the host loops a
// copy back, and once where it is received.
func TestMulticast(t *testing.T) {
	r := start(t, 200*time.Millisecond, 10*time.Second)
	group := &net.UDPAddr{IP: net.IPv4(239, 1, 2, 3), Port: 45301}
	from := netip.MustParseAddrPort("10.78.0.1:45302")
	inNewNet(t, func() {
		own, _ := netns(t)
		if own == nil {
			return
		}
		defer own.Close()
		if err := veth("ghosta", "ghostb", int(own.Fd())); err != nil {
			t.Error(err)
			return
		}
		if err := give("ghosta", from.Addr().As4()); err != nil {
			t.Error(err)
		}
		if err := up("ghostb"); err != nil {
			t.Error(err)
		}
		cable, err := net.InterfaceByName("ghosta")
		if err != nil {
			t.Error(err)
			return
		}
		l, err := net.ListenMulticastUDP("udp4", cable, group)
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(s)
		if err := unix.Bind(s, &unix.SockaddrInet4{Addr: from.Addr().As4(), Port: int(from.Port())}); err != nil {
			t.Error(err)
		}
		if err := unix.SetsockoptInet4Addr(s, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, from.Addr().As4()); err != nil {
			t.Error(err)
		}
		for range 3 {
			if err := unix.Sendto(s, []byte("hello"), 0, &unix.SockaddrInet4{Addr: [4]byte(group.IP.To4()), Port: group.Port}); err != nil {
				t.Error(err)
			}
		}
		r.turns(500 * time.Millisecond)
	})
	to, want := group.AddrPort(), event.Count{Bytes: 15, Packets: 3}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	me := uint32(os.Getpid())
	check(t, "sender", r.of(from, to), event.Outbound, me, me, want, event.Count{})
	check(t, "receiver", r.of(to, from), event.Inbound, me, me, event.Count{}, want)
}

// What a raw socket sends: a late fragment has no ports, and a datagram with a
// wrong checksum reaches its socket, which finds out when it is read.
func TestRawSocket(t *testing.T) {
	r := start(t, 200*time.Millisecond, 10*time.Second)
	lo := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	inNewNet(t, func() {
		l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53})
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(s)
		wrong := datagram(200, 208) // below 77 bytes the kernel sums at once
		wrong[6] = 0xba
		for _, p := range [][]byte{v4(unix.IPPROTO_UDP, 0, nil, wrong), v4(unix.IPPROTO_UDP, 5, nil, make([]byte, 64))} {
			copy(p[12:], []byte{127, 0, 0, 1, 127, 0, 0, 1})
			if err := unix.Sendto(s, p, 0, &unix.SockaddrInet4{Addr: lo.As4()}); err != nil {
				t.Error(err)
			}
		}
		r.turns(500 * time.Millisecond)
	})
	sent, _ := sum(r.of(netip.AddrPortFrom(lo, 1234), netip.AddrPortFrom(lo, 53)))
	_, received := sum(r.of(netip.AddrPortFrom(lo, 53), netip.AddrPortFrom(lo, 1234)))
	fragment, _ := sum(r.of(netip.AddrPortFrom(lo, 0), netip.AddrPortFrom(lo, 0)))
	if want := (event.Count{Bytes: 200, Packets: 1}); sent != want || received != want {
		t.Errorf("wrong checksum: sent %v, received %v", sent, received)
	}
	if want := (event.Count{Bytes: 64, Packets: 1}); fragment != want {
		t.Errorf("fragment: %v", fragment)
	}
}
