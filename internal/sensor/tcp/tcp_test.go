package tcp

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
	"ghostlight/internal/wire"
)

func bytesOf(r *tcpFlow) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(r)), unsafe.Sizeof(*r)) }

// The C struct in the object, its twin in Go and the shared header agree.
func TestLayout(t *testing.T) {
	spec, err := loadTcp()
	if err != nil {
		t.Fatal(err)
	}
	var c *btf.Struct
	if err := spec.Types.TypeByName("flow", &c); err != nil {
		t.Fatal(err)
	}
	twin := reflect.TypeFor[tcpFlow]()
	if uintptr(c.Size) != twin.Size() {
		t.Fatalf("C %d bytes, Go %d", c.Size, twin.Size())
	}
	fields := reflect.VisibleFields(twin)[1:] // the first marks the host's layout
	if len(c.Members) != len(fields) {
		t.Fatalf("C %d members, Go %d", len(c.Members), len(fields))
	}
	var end uintptr
	for i, m := range c.Members {
		f := fields[i]
		if uintptr(m.Offset.Bytes()) != f.Offset {
			t.Errorf("%s at %d, %s at %d", m.Name, m.Offset.Bytes(), f.Name, f.Offset)
		}
		if f.Offset != end {
			t.Errorf("a hole of %d bytes before %s", f.Offset-end, m.Name)
		}
		end = f.Offset + f.Type.Size()
	}
	if f := fields[0]; f.Offset != 0 || f.Type.Size() != unsafe.Sizeof(wire.Header{}) {
		t.Errorf("the header is %d bytes at %d", f.Type.Size(), f.Offset)
	}
}

func TestCloseReason(t *testing.T) {
	const final = tcpFlowFlagFINAL
	for _, c := range []struct {
		name    string
		flags   tcpFlowFlag
		err     unix.Errno
		reason  event.CloseReason
		verdict event.Verdict
	}{
		{"open", tcpFlowFlagCONNECTED, 0, event.StillOpen, event.Forwarded},
		{"half closed", tcpFlowFlagCONNECTED | tcpFlowFlagCLOSED_FIRST, 0, event.StillOpen, event.Forwarded},
		{"closed here", final | tcpFlowFlagCONNECTED | tcpFlowFlagCLOSED_FIRST, 0, event.FinSent, event.Forwarded},
		{"closed there", final | tcpFlowFlagCONNECTED | tcpFlowFlagPEER_CLOSED_FIRST, 0, event.FinReceived, event.Forwarded},
		{"reset here", final | tcpFlowFlagCONNECTED | tcpFlowFlagSENT_RESET, 0, event.ResetSent, event.Error},
		{"reset there", final | tcpFlowFlagCONNECTED | tcpFlowFlagRECEIVED_RESET, unix.ECONNRESET, event.ResetReceived, event.Error},
		{"reset after our FIN", final | tcpFlowFlagCONNECTED | tcpFlowFlagCLOSED_FIRST | tcpFlowFlagRECEIVED_RESET, unix.ECONNRESET, event.ResetReceived, event.Error},
		{"reset after their FIN", final | tcpFlowFlagCONNECTED | tcpFlowFlagPEER_CLOSED_FIRST | tcpFlowFlagRECEIVED_RESET, unix.EPIPE, event.ResetReceived, event.Error},
		{"refused", final | tcpFlowFlagRECEIVED_RESET, unix.ECONNREFUSED, event.Refused, event.Error},
		{"no answer to the SYN", final, unix.ETIMEDOUT, event.Timeout, event.Error},
		{"keepalive gave up, with a reset", final | tcpFlowFlagCONNECTED | tcpFlowFlagSENT_RESET, unix.ETIMEDOUT, event.Timeout, event.Error},
		{"no route", final, unix.EHOSTUNREACH, event.Unreachable, event.Error},
		{"no network", final, unix.ENETUNREACH, event.Unreachable, event.Error},
		{"forbidden by a router", final, unix.EACCES, event.Unreachable, event.Error},
		{"killed by this host, with a reset", final | tcpFlowFlagCONNECTED | tcpFlowFlagSENT_RESET, unix.ECONNABORTED, event.Aborted, event.Error},
		{"given up before an answer", final, 0, event.Aborted, event.Error},
	} {
		r := &tcpFlow{Flags: uint16(c.flags), Error: uint16(c.err)}
		if got := closeReason(r); got != c.reason || verdict(got) != c.verdict {
			t.Errorf("%s: %q %s, want %q %s", c.name, got, verdict(got), c.reason, c.verdict)
		}
	}
}

func TestDecode(t *testing.T) {
	in := &instance{tick: 4_000_000, resets: []string{"", "no_socket"}}
	r := &tcpFlow{
		Since: 100, Id: 7, Cgroup: 8, ConnectNs: 9,
		SentBytes: 1 << 40, ReceivedBytes: 2, SentPackets: 3, ReceivedPackets: 4,
		Retransmits: 5, LimitedJiffies: 6, ZeroWindows: 15, RttUs: 70, RttMinUs: 60, ListenDrops: 11,
		Pid: 12, PeerPid: 13, Netns: 14,
		Source:      netip.MustParseAddr("::ffff:10.0.0.1").As16(),
		Destination: netip.MustParseAddr("2001:db8::1").As16(),
		SourcePort:  0x3930, DestinationPort: 0xbb01, // 12345 and 443 on the wire
		Flags: uint16(tcpFlowFlagOUTBOUND | tcpFlowFlagCOMPLETE | tcpFlowFlagFINAL | tcpFlowFlagSENT_RESET), Reset: 1, State: 7,
	}
	r.H.Ktime = 200
	var b event.Batch
	if err := in.Decode(nil, bytesOf(r), &b); err != nil {
		t.Fatal(err)
	}
	want := event.Flow{
		Time: 100, End: 200, ID: 7, Transport: event.TCP, Direction: event.Outbound, Verdict: event.Error,
		Source: netip.MustParseAddrPort("10.0.0.1:12345"), Destination: netip.MustParseAddrPort("[2001:db8::1]:443"),
		PID: 12, PeerPID: 13, CgroupID: 8, NetNS: 14, Complete: true,
		Sent: event.Count{Bytes: 1 << 40, Packets: 3}, Received: event.Count{Bytes: 2, Packets: 4},
		TCP: event.TCPInfo{
			State: 7, CloseReason: event.ResetSent, ResetReason: "no_socket", ConnectNS: 9,
			RTTMinNS: 60_000, RTTNS: 70_000, Retransmits: 5, WindowLimitedNS: 24_000_000, ZeroWindows: 15, ListenDrops: 11,
		},
	}
	if !reflect.DeepEqual(b.Flows[0], want) {
		t.Errorf("got  %+v\nwant %+v", b.Flows[0], want)
	}
}

func TestDecodeRefusesShortRecords(t *testing.T) {
	var b event.Batch
	if err := new(instance).Decode(nil, bytesOf(new(tcpFlow))[:167], &b); err == nil || b.Len() != 0 {
		t.Error("a record that is cut was decoded")
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	in := &instance{resets: []string{"x"}}
	raw := bytesOf(&tcpFlow{Reset: 0, Flags: uint16(tcpFlowFlagFINAL)})
	b := event.Batch{Flows: make([]event.Flow, 0, 1)}
	if n := testing.AllocsPerRun(100, func() {
		b.Reset()
		if err := in.Decode(nil, raw, &b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per record", n)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(&tcpFlow{Reset: -1, Flags: 0xffff, State: 255}))
	f.Add(bytesOf(&tcpFlow{Reset: 1 << 14, Error: 0xffff}))
	f.Add([]byte{})
	in := &instance{tick: 1, resets: []string{"a", "b"}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var b event.Batch
		err := in.Decode(nil, raw, &b)
		if (err == nil) != (len(raw) >= int(unsafe.Sizeof(tcpFlow{}))) || (err == nil) != (len(b.Flows) == 1) {
			t.Fatal(len(raw), err, len(b.Flows))
		}
		for _, flow := range b.Flows {
			_ = flow.Source.String() + flow.TCP.CloseReason.String() + flow.Direction.String()
		}
	})
}

func TestResetNames(t *testing.T) {
	got := namesOf(&btf.Enum{Values: []btf.EnumValue{
		{Name: "SK_RST_REASON_NOT_SPECIFIED", Value: 0},
		{Name: "SK_RST_REASON_NO_SOCKET", Value: 1},
		{Name: "SK_RST_REASON_TCP_STATE", Value: 3},
		{Name: "SK_RST_REASON_MAX", Value: 4},
		{Name: "SK_RST_REASON_WILD", Value: 1 << 60},
	}})
	if want := []string{"", "no_socket", "", "tcp_state"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOptions(t *testing.T) {
	bad := errors.New("bad")
	for _, c := range []struct {
		decode func(any) error
		want   time.Duration
		fails  bool
	}{
		{func(any) error { return nil }, 5 * time.Second, false},
		{func(o any) error { o.(*Options).Interval = time.Second; return nil }, time.Second, false},
		{func(o any) error { o.(*Options).Interval = time.Millisecond; return nil }, 0, true},
		{func(o any) error { o.(*Options).Sockets = 0; return nil }, 0, true},
		{func(any) error { return bad }, 0, true},
	} {
		in, err := open(c.decode)
		if (err != nil) != c.fails {
			t.Error(c.want, err)
		}
		if err == nil && in.(*instance).interval != c.want {
			t.Error(in.(*instance).interval)
		}
	}
}

// A tick is a whole part of a second on every kernel: HZ is 100 to 1000.
func TestJiffy(t *testing.T) {
	tick, err := jiffy()
	if err != nil || tick < 1e6 || tick > 1e7 {
		t.Errorf("%d ns, %v", tick, err)
	}
}

func BenchmarkDecode(b *testing.B) {
	in := &instance{resets: []string{"x"}}
	raw := bytesOf(&tcpFlow{Reset: 0, Flags: uint16(tcpFlowFlagFINAL)})
	batch := event.Batch{Flows: make([]event.Flow, 0, 1)}
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		_ = in.Decode(nil, raw, &batch)
	}
}
