package udp

import (
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"ghostlight/internal/kernel"
)

// v4 and v6 make packets from their parts: next is the protocol of body.
func v4(next byte, fragment uint16, options, body []byte) []byte {
	p := make([]byte, 20, 100)
	p[0] = 0x40 | byte(5+len(options)/4)
	binary.BigEndian.PutUint16(p[2:], uint16(20+len(options)+len(body)))
	binary.BigEndian.PutUint16(p[6:], fragment)
	p[8], p[9] = 64, next
	copy(p[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	return slices.Concat(p, options, body)
}

func v6(next byte, body ...[]byte) []byte {
	p := make([]byte, 40)
	p[0], p[6], p[7] = 0x60, next, 64
	b := slices.Concat(body...)
	binary.BigEndian.PutUint16(p[4:], uint16(len(b)))
	p[8], p[23], p[24], p[39] = 0xfd, 1, 0xfd, 2
	return append(p, b...)
}

func datagram(payload int, length uint16) []byte {
	p := make([]byte, 8+payload)
	binary.BigEndian.PutUint16(p, 1234)
	binary.BigEndian.PutUint16(p[2:], 53)
	binary.BigEndian.PutUint16(p[4:], length)
	return p
}

func extension(next byte, words byte) []byte {
	p := make([]byte, 8+8*int(words))
	p[0], p[1] = next, words
	return p
}

func fragment(next byte, offset uint16) []byte {
	p := []byte{next, 0, 0, 0, 0, 0, 0, 1}
	binary.BigEndian.PutUint16(p[2:], offset<<3|1)
	return p
}

// haveRunData asks whether BPF_PROG_RUN shows a cgroup_skb program the packet:
// older kernels leave data_end unset there. Real packets are not concerned.
var haveRunData = &kernel.Probe{Name: "packet data for cgroup_skb in BPF_PROG_RUN", Since: "a release after 6.12", Test: func() error {
	const data, dataEnd = 76, 80 // in struct __sk_buff
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, data, asm.Word),
			asm.LoadMem(asm.R3, asm.R1, dataEnd, asm.Word),
			asm.Add.Imm(asm.R2, 20),
			asm.Mov.Imm(asm.R0, 0),
			asm.JGT.Reg(asm.R2, asm.R3, "out"),
			asm.Mov.Imm(asm.R0, 1),
			asm.Return().WithSymbol("out"),
		},
	})
	if err != nil {
		return err
	}
	defer p.Close()
	seen, err := p.Run(&ebpf.RunOptions{Data: append(make([]byte, 14), v4(17, 0, nil, datagram(30, 38))...)})
	if err == nil && seen != 1 {
		return errors.New("data_end is not set")
	}
	return err
}}

// The programs read each kind of packet, run by BPF_PROG_RUN on bytes of ours.
func TestPackets(t *testing.T) {
	if err := haveRunData.Have(); err != nil {
		t.Skip(err)
	}
	r := start(t, time.Second, time.Minute)
	type flow struct {
		bytes         uint64
		sport, dport  uint16
		proto, icmp   uint8
		id            uint16
		local, remote string
	}
	const a, b, a6, b6 = "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"
	icmp := func(kind byte) []byte { return append([]byte{kind, 0, 0, 0, 0x12, 0x34, 0, 1}, make([]byte, 20)...) }
	chain := []byte{}
	for range 7 {
		chain = append(chain, extension(60, 0)...)
	}
	for _, c := range []struct {
		name   string
		packet []byte
		want   *flow
	}{
		{"v4", v4(17, 0, nil, datagram(30, 38)), &flow{30, 1234, 53, 17, 0, 0, a, b}},
		{"v4, nothing in it", v4(17, 0, nil, datagram(0, 8)), &flow{0, 1234, 53, 17, 0, 0, a, b}},
		{"v4 with options", v4(17, 0, make([]byte, 12), datagram(30, 38)), &flow{30, 1234, 53, 17, 0, 0, a, b}},
		{"v4 with the most options", v4(17, 0, make([]byte, 40), datagram(30, 38)), &flow{30, 1234, 53, 17, 0, 0, a, b}},
		{"v4, don't fragment", v4(17, 0x4000, nil, datagram(30, 38)), &flow{30, 1234, 53, 17, 0, 0, a, b}},
		{"v4, first fragment", v4(17, 0x2000, nil, datagram(30, 38)), &flow{30, 1234, 53, 17, 0, 0, a, b}},
		{"v4, late fragment", v4(17, 5, nil, make([]byte, 64)), &flow{64, 0, 0, 17, 0, 0, a, b}},
		{"v4, length 0", v4(17, 0, nil, datagram(30, 0)), &flow{30, 1234, 53, 17, 0, 0, a, b}},
		{"v4, length below the header", v4(17, 0, nil, datagram(30, 3)), &flow{0, 1234, 53, 17, 0, 0, a, b}},
		{"v4, cut inside the UDP header", v4(17, 0, nil, datagram(0, 8)[:6]), nil},
		{"v4, TCP", v4(6, 0, nil, make([]byte, 20)), nil},
		{"v4, SCTP", v4(132, 0, nil, make([]byte, 20)), nil},
		{"v4, echo request", v4(1, 0, nil, icmp(8)), &flow{20, 0, 0, 1, 8, 0x1234, a, b}},
		{"v4, echo reply", v4(1, 0, nil, icmp(0)), &flow{20, 0, 0, 1, 8, 0x1234, a, b}},
		{"v4, unreachable", v4(1, 0, nil, icmp(3)), &flow{20, 0, 0, 1, 3, 0, a, b}},
		{"v6", v6(17, datagram(30, 38)), &flow{30, 1234, 53, 17, 0, 0, a6, b6}},
		{"v6, TCP", v6(6, make([]byte, 20)), nil},
		{"v6, hop-by-hop", v6(0, extension(17, 0), datagram(30, 38)), &flow{30, 1234, 53, 17, 0, 0, a6, b6}},
		{"v6, three headers", v6(0, extension(43, 1), extension(60, 2), extension(17, 0), datagram(30, 38)), &flow{30, 1234, 53, 17, 0, 0, a6, b6}},
		{"v6, TCP behind a header", v6(0, extension(6, 0), make([]byte, 20)), nil},
		{"v6, first fragment", v6(44, fragment(17, 0), datagram(30, 38)), &flow{30, 1234, 53, 17, 0, 0, a6, b6}},
		{"v6, late fragment", v6(44, fragment(17, 9), make([]byte, 64)), &flow{64, 0, 0, 17, 0, 0, a6, b6}},
		{"v6, authentication", v6(51, []byte{17, 4}, make([]byte, 22), datagram(30, 38)), &flow{30, 1234, 53, 17, 0, 0, a6, b6}},
		{"v6, more headers than the bound", v6(60, chain, datagram(30, 38)), nil},
		{"v6, header longer than the packet", v6(0, extension(17, 255)[:16]), nil},
		{"v6, echo request", v6(58, icmp(128)), &flow{20, 0, 0, 58, 128, 0x1234, a6, b6}},
		{"v6, neighbour", v6(58, icmp(135)), &flow{20, 0, 0, 58, 135, 0, a6, b6}},
	} {
		for _, egress := range []bool{true, false} {
			run(t, r.object, c.packet, egress, 1)
			got := injected(t, r.object.Maps["udp_flows"])
			if c.want == nil {
				if len(got) != 0 {
					t.Errorf("%s: %+v", c.name, got)
				}
				continue
			}
			local, remote, lport, rport := a, b, c.want.sport, c.want.dport
			if c.want.local == a6 {
				local, remote = a6, b6
			}
			if !egress {
				local, remote, lport, rport = remote, local, rport, lport
			}
			k := udpUdpKey{Local: words(local), Remote: words(remote), LocalPort: lport, RemotePort: rport,
				Proto: c.want.proto, IcmpType: c.want.icmp, IcmpId: c.want.id}
			f, ok := got[k]
			if !ok || len(got) != 1 {
				t.Errorf("%s, egress %v: %+v; want %+v", c.name, egress, got, k)
				continue
			}
			packets, bytes, other := f.SentPackets, f.SentBytes, f.ReceivedPackets
			if !egress {
				packets, bytes, other = f.ReceivedPackets, f.ReceivedBytes, f.SentPackets
			}
			if packets != 1 || bytes != c.want.bytes || other != 0 || f.First == 0 || f.Last < f.First {
				t.Errorf("%s, egress %v: %+v; want %d bytes", c.name, egress, f, c.want.bytes)
			}
		}
	}
}

// run gives the packet to a program; it must let it pass.
func run(t testing.TB, o *kernel.Object, packet []byte, egress bool, repeat uint32) time.Duration {
	t.Helper()
	name, protocol := "udp_ingress", []byte{0x08, 0x00}
	if egress {
		name = "udp_egress"
	}
	if packet[0]>>4 == 6 {
		protocol = []byte{0x86, 0xdd}
	}
	var spent time.Duration
	data := slices.Concat(make([]byte, 12), protocol, packet)
	verdict, spent, err := o.Programs[name].Benchmark(data, int(repeat), func() {})
	if err != nil {
		t.Fatal(err)
	}
	if verdict != 1 {
		t.Errorf("%s answers %d", name, verdict)
	}
	return spent
}

// injected takes the flows between our made-up addresses out of the map.
func injected(t testing.TB, m *ebpf.Map) map[udpUdpKey]udpUdpFlow {
	t.Helper()
	found := map[udpUdpKey]udpUdpFlow{}
	ours := []string{"10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"}
	var k udpUdpKey
	var f udpUdpFlow
	var seen []udpUdpKey
	for it := m.Iterate(); it.Next(&k, &f); {
		if slices.Contains(ours, addr(&k.Local).String()) && slices.Contains(ours, addr(&k.Remote).String()) {
			seen = append(seen, k)
			k.Cookie = 0
			found[k] = f
		}
	}
	for _, k := range seen {
		if err := m.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Fatal(err)
		}
	}
	return found
}

// The price of a packet: of TCP's, which leaves at once, and of a known flow's.
func BenchmarkPacket(b *testing.B) {
	r := start(b, time.Second, time.Minute)
	for name, packet := range map[string][]byte{"tcp": v4(6, 0, nil, make([]byte, 20)), "udp4": v4(17, 0, nil, datagram(30, 38)), "udp6": v6(17, datagram(30, 38))} {
		b.Run(name, func(b *testing.B) {
			spent := run(b, r.object, packet, true, uint32(max(b.N, 1)))
			b.ReportMetric(float64(spent.Nanoseconds()), "ns/run")
		})
	}
}

// What each program costs where real sockets open, ask once and close.
func BenchmarkQuestion(b *testing.B) {
	r := start(b, time.Second, time.Minute)
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	to := server.LocalAddr().(*net.UDPAddr)
	meter, err := r.k.NewMeter()
	if err != nil {
		b.Fatal(err)
	}
	if err := meter.Begin(); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 100)
	for b.Loop() {
		c, err := net.DialUDP("udp4", nil, to)
		if err != nil {
			b.Fatal(err)
		}
		c.Write(buf[:30])
		_, from, err := server.ReadFromUDPAddrPort(buf)
		if err != nil {
			b.Fatal(err)
		}
		server.WriteToUDPAddrPort(buf[:60], from)
		c.Read(buf)
		c.Close()
		r.drain()
		r.out.Reset()
	}
	costs, err := meter.End(nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range costs {
		b.ReportMetric(c.PerRunNS, c.Program+"_ns/run")
	}
}
