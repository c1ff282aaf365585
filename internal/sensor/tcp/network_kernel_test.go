package tcp

import (
	"encoding/binary"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// network is a network namespace of the test's own, and the one thread that is
// in it. It ends with the test.
type network struct {
	t     testing.TB
	tid   int
	calls chan func()
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	n := &network{t: t, calls: make(chan func())}
	made := make(chan error)
	go func() { // ends when calls is closed, and takes the thread with it
		runtime.LockOSThread()
		n.tid = unix.Gettid()
		err := unix.Unshare(unix.CLONE_NEWNET)
		made <- err
		if err != nil {
			return
		}
		for fn := range n.calls {
			fn()
		}
	}()
	if err := <-made; err != nil {
		t.Fatal("make a network namespace: ", err)
	}
	t.Cleanup(func() { close(n.calls) })
	n.up("lo")
	return n
}

// do calls fn inside the namespace. Sockets stay where they were made.
func (n *network) do(fn func()) {
	done := make(chan struct{})
	n.calls <- func() {
		defer close(done)
		fn()
	}
	<-done
}

func (n *network) up(device string) {
	n.ioctl(device, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING) })
}

// address gives the device a.b.c.d/24 and turns it on.
func (n *network) address(device, address string) {
	for what, value := range map[uint][4]byte{
		unix.SIOCSIFADDR: netip.MustParseAddr(address).As4(),
	} {
		n.ioctl(device, what, func(r *unix.Ifreq) {
			if err := r.SetInet4Addr(value[:]); err != nil {
				n.t.Fatal(err)
			}
		})
	}
	n.ioctl(device, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) { _ = r.SetInet4Addr([]byte{255, 255, 255, 0}) })
	n.up(device)
}

func (n *network) ioctl(device string, what uint, set func(*unix.Ifreq)) {
	n.t.Helper()
	var err error
	n.do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		var r *unix.Ifreq
		if r, err = unix.NewIfreq(device); err != nil {
			return
		}
		set(r)
		err = unix.IoctlIfreq(fd, what, r)
	})
	if err != nil {
		n.t.Fatalf("set up %s: %v", device, err)
	}
}

// tun makes a device whose packets go to answer, and what answer returns comes
// back: a network with one strange host.
func (n *network) tun(address string, answer func(packet []byte) []byte) {
	n.t.Helper()
	var fd int
	var err error
	n.do(func() { fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0) })
	if err != nil {
		n.t.Fatal("open /dev/net/tun: ", err)
	}
	r, err := unix.NewIfreq("tun0")
	if err != nil {
		n.t.Fatal(err)
	}
	r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
		n.t.Fatal("make tun0: ", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		n.t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "tun0")
	n.t.Cleanup(func() { file.Close() })
	n.address("tun0", address)
	go func() { // ends when the file is closed
		packet := make([]byte, 2048)
		for {
			k, err := file.Read(packet)
			if err != nil {
				return
			}
			if back := answer(packet[:k]); back != nil {
				_, _ = file.Write(back)
			}
		}
	}()
}

// unreachable answers an IPv4 packet as a router does that has no way to its
// destination.
func unreachable(packet []byte) []byte {
	if packet[0]>>4 != 4 || len(packet) < 28 {
		return nil
	}
	quote := packet[:28]
	p := make([]byte, 28, 64)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_ICMP
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(quote)))
	copy(p[12:16], packet[16:20]) // any router's address will do
	copy(p[16:20], packet[12:16])
	binary.BigEndian.PutUint16(p[10:], checksum(p[:20]))
	p[20], p[21] = 3, 1 // destination unreachable: host
	p = append(p, quote...)
	binary.BigEndian.PutUint16(p[22:], checksum(p[20:]))
	return p
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// drop throws away one in every n of the packets of lo that are longer than
// 200 bytes, until the returned function is called.
func (n *network) drop(oneIn int32) (stop func()) {
	n.t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // data
			asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
			asm.Add.Imm(asm.R2, 200),
			asm.JGT.Reg(asm.R2, asm.R3, "pass"),
			asm.FnGetPrandomU32.Call(),
			asm.Mod.Imm32(asm.R0, oneIn),
			asm.JNE.Imm(asm.R0, 0, "pass"),
			asm.Mov.Imm(asm.R0, 1), // XDP_DROP
			asm.Return(),
			asm.Mov.Imm(asm.R0, 2).WithSymbol("pass"), // XDP_PASS
			asm.Return(),
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	defer p.Close()
	var l link.Link
	n.do(func() { l, err = link.AttachXDP(link.XDPOptions{Program: p, Interface: 1, Flags: link.XDPGenericMode}) })
	if err != nil {
		n.t.Fatal("drop packets: ", err)
	}
	return func() { l.Close() }
}

// wire connects two namespaces: eth0 in each, 10.77.0.1 and 10.77.0.2.
func wireTogether(a, b *network) {
	a.t.Helper()
	peer := append(make([]byte, unix.SizeofIfInfomsg), attr(unix.IFLA_IFNAME, []byte("eth0\x00"))...)
	peer = append(peer, attr(unix.IFLA_NET_NS_PID, u32(uint32(b.tid)))...)
	info := attr(unix.IFLA_INFO_KIND, []byte("veth"))
	const vethInfoPeer = 1 // linux/veth.h
	info = append(info, attr(unix.IFLA_INFO_DATA, attr(vethInfoPeer, peer))...)
	body := append(make([]byte, unix.SizeofIfInfomsg), attr(unix.IFLA_IFNAME, []byte("eth0\x00"))...)
	body = append(body, attr(unix.IFLA_LINKINFO, info)...)
	var err error
	a.do(func() { err = rtnetlink(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body) })
	if err != nil {
		a.t.Fatal("make a veth pair: ", err)
	}
	a.address("eth0", "10.77.0.1")
	b.address("eth0", "10.77.0.2")
}

func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func attr(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// rtnetlink sends one request and returns the kernel's answer.
func rtnetlink(kind, flags uint16, body []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	m := u32(uint32(unix.SizeofNlMsghdr + len(body)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	m = append(m, make([]byte, 8)...)
	if err := unix.Sendto(fd, append(m, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	k, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if k < unix.SizeofNlMsghdr+int(unsafe.Sizeof(int32(0))) {
		return unix.EBADMSG
	}
	if errno := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); errno != 0 {
		return unix.Errno(-errno)
	}
	return nil
}
