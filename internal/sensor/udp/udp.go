// Package udp tells who speaks UDP and ICMP to whom: packets and payload of
// each flow, the processes at its ends, and what full receive queues refused.
//
//	cgroup_skb -> udp_flows map -> Tick sweeps -> deltas
//	sock_release -> ring -> Decode -> the last delta of a socket with one flow
//
// The map counts from a flow's first packet on; what has been told of it is
// kept here, and a record is the difference. So the sum over a flow's records
// is its total, whichever way it ends.
package udp

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
	"ghostlight/internal/wire"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type udp_key -type udp_flow -type udp_end udp udp.bpf.c -- -I../../../bpf -mcpu=v3 -Wall -Werror

// Sensor is the udp sensor.
var Sensor = sensor.Def{
	Name:  "udp",
	Doc:   "UDP and ICMP flows: packets, bytes, the processes at both ends, receive-queue drops",
	Emits: []event.Kind{event.KindFlow},
	Shed:  2,
	Hooks: []kernel.Hook{
		{What: "packets sent", Without: "what this host sends by UDP and ICMP", Tiers: []kernel.Tier{
			{Name: "cgroup_skb egress", Program: "udp_egress", Needs: []*kernel.Probe{kernel.HaveCgroupSKB}, Attach: kernel.AttachCgroupRoot(ebpf.AttachCGroupInetEgress)}}},
		{What: "packets received", Without: "what this host receives by UDP and ICMP", Tiers: []kernel.Tier{
			{Name: "cgroup_skb ingress", Program: "udp_ingress", Needs: []*kernel.Probe{kernel.HaveCgroupSKB}, Attach: kernel.AttachCgroupRoot(ebpf.AttachCGroupInetIngress)}}},
		{What: "owner of a new socket", Without: "the process of sockets that only receive", Tiers: []kernel.Tier{
			{Name: "cgroup sock_create", Program: "udp_create", Attach: kernel.AttachCgroupRoot(ebpf.AttachCGroupInetSockCreate)}}},
		{What: "end of a socket", Without: "flows end by the idle timeout only", Tiers: []kernel.Tier{
			{Name: "cgroup sock_release", Program: "udp_release", Attach: kernel.AttachCgroupRoot(ebpf.AttachCgroupInetSockRelease)}}},
		{What: "owner of a socket that was there before", Without: "the process of older sockets until they send to a new peer", Tiers: []kernel.Tier{
			{Name: "iter task_file", Program: "udp_files", Needs: []*kernel.Probe{kernel.HaveIter, kernel.HaveSkStorageTracing}}}},
		{What: "full receive queues", Without: "udp.receive_drops", Tiers: []kernel.Tier{
			{Name: "tp_btf udp_fail_queue_rcv_skb", Program: "udp_full", Needs: []*kernel.Probe{kernel.HaveTpBTF}}}},
	},
	New: newInstance,
}

// options is this sensor's part of the configuration file.
type options struct {
	// Interval at which a flow that goes on is reported. A new one is reported
	// within a second.
	Interval time.Duration `yaml:"interval"`
	// Idle is the silence after which a flow is over.
	Idle time.Duration `yaml:"idle"`
}

const (
	minInterval = 100 * time.Millisecond
	firstReport = time.Second // a flow that ends sooner is told in one record
	sweepShare  = 100         // a sweep's own time times this passes before the next
	chunk       = 1024        // entries read from the map at once
	maxRecords  = 4096        // of one tick, about; the sweep goes on in the next
	keepTold    = 10 * time.Second
)

func newInstance(decode func(any) error) (sensor.Instance, error) {
	o := options{Interval: 5 * time.Second, Idle: 30 * time.Second}
	if err := decode(&o); err != nil {
		return nil, err
	}
	if o.Interval < minInterval {
		return nil, fmt.Errorf("interval: %s is shorter than %s", o.Interval, minInterval)
	}
	if o.Idle < o.Interval {
		return nil, fmt.Errorf("idle: %s is shorter than the interval of %s", o.Idle, o.Interval)
	}
	return &instance{options: o, told: map[udpUdpKey]told{}, drops: map[uint64]refused{}, toldDrops: map[uint64]uint64{}}, nil
}

// told is what earlier records said of a flow.
type told struct {
	sent, received event.Count
	first          uint64 // of the flow: the same 5-tuple can begin anew
	until          int64  // where the last record ended
	at             int64  // when it was made
	seen           int64  // the sweep that last met the flow
}

// refused is what a socket's full receive queue refused.
type refused struct {
	packets uint64
	flow    bool // the sweep met a flow of the socket
}

type instance struct {
	options
	object *kernel.Object

	told      map[udpUdpKey]told
	drops     map[uint64]refused // by socket cookie, as the last sweep read them
	toldDrops map[uint64]uint64

	keys    []udpUdpKey
	flows   []udpUdpFlow
	cookies []uint64
	counts  []uint64
	cursor  *ebpf.MapBatchCursor // of a sweep that goes on
	spent   time.Duration        // by that sweep, so far
	live    int                  // flows it met
	next    int64                // when to sweep again
	perCPU  []uint64
	lost    uint64 // packets without room that were told

	types [256][]event.Attr // icmp.type, made when first needed
}

// Spec returns the object. It has no options in the kernel.
func (i *instance) Spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadUdp()
	if err != nil {
		return nil, err
	}
	return spec, spec.Variables["udp_quiet_ns"].Set(int64(i.Idle / 2))
}

// Start finds the owners of the sockets that are there. What was told of another
// object's counters is forgotten.
func (i *instance) Start(o *kernel.Object, _ *event.Batch) error {
	i.object, i.cursor, i.next, i.lost = o, nil, 0, 0
	clear(i.told)
	clear(i.toldDrops)
	i.keys, i.flows = make([]udpUdpKey, chunk), make([]udpUdpFlow, chunk)
	i.cookies, i.counts = make([]uint64, chunk), make([]uint64, chunk)
	_, err := o.Iterate("udp_files")
	return err
}

// The kernel's enums udp_record and udp_flags.
const (
	recordEnd = 1
	seenBirth = 1
)

// Decode tells the rest of a flow whose socket was closed.
func (i *instance) Decode(h *wire.Header, raw []byte, out *event.Batch) error {
	if h.Type != recordEnd {
		return fmt.Errorf("udp: no record has the type %d", h.Type)
	}
	e, err := wire.View[udpUdpEnd](raw)
	if err != nil {
		return err
	}
	cookie := e.Key.Cookie
	i.report(&e.Key, &e.Flow, less(e.Drops, i.toldDrops[cookie]), int64(h.Ktime), out)
	delete(i.told, e.Key)
	delete(i.toldDrops, cookie)
	return nil
}

// report adds what is new in f since the last record, if anything is.
func (i *instance) report(k *udpUdpKey, f *udpUdpFlow, drops uint64, now int64, out *event.Batch) {
	before, again := i.told[*k]
	if again && before.first != f.First {
		before, again = told{}, false
	}
	sent := event.Count{Bytes: less(f.SentBytes, before.sent.Bytes), Packets: less(f.SentPackets, before.sent.Packets)}
	received := event.Count{Bytes: less(f.ReceivedBytes, before.received.Bytes), Packets: less(f.ReceivedPackets, before.received.Packets)}
	if sent == (event.Count{}) && received == (event.Count{}) && drops == 0 {
		return
	}
	from := int64(f.First)
	if again {
		from = before.until
	}
	d := event.Direction(f.Direction)
	source, destination := ends(k, d)
	out.Flows = append(out.Flows, event.Flow{
		Time: from, End: max(int64(f.Last), from), ID: k.Cookie,
		Transport: event.Transport(k.Proto), Direction: d, Verdict: event.Forwarded,
		Source: source, Destination: destination,
		PID: f.Pid, PeerPID: f.PeerPid, CgroupID: f.Cgroup, NetNS: f.Netns,
		Sent: sent, Received: received,
		Complete: f.Flags&seenBirth != 0,
		Attrs:    i.attrs(k, drops),
	})
	i.told[*k] = told{
		sent:     event.Count{Bytes: f.SentBytes, Packets: f.SentPackets},
		received: event.Count{Bytes: f.ReceivedBytes, Packets: f.ReceivedPackets},
		first:    f.First, until: max(int64(f.Last), from), at: now, seen: now,
	}
}

// less returns a-b, or 0 if a record and a sweep were read in the other order.
func less(a, b uint64) uint64 { return a - min(a, b) }

// ends returns the client's address and the server's.
func ends(k *udpUdpKey, d event.Direction) (source, destination netip.AddrPort) {
	local := netip.AddrPortFrom(addr(&k.Local), k.LocalPort)
	remote := netip.AddrPortFrom(addr(&k.Remote), k.RemotePort)
	if d == event.Inbound {
		return remote, local
	}
	return local, remote
}

func addr(words *[4]uint32) netip.Addr {
	return netip.AddrFrom16(*(*[16]byte)(unsafe.Pointer(words))).Unmap()
}

// attrs allocates for a socket that refused packets only, and once per ICMP type.
func (i *instance) attrs(k *udpUdpKey, drops uint64) []event.Attr {
	if drops > 0 {
		return []event.Attr{{Key: "udp.receive_drops", Value: strconv.FormatUint(drops, 10)}}
	}
	if t := event.Transport(k.Proto); t != event.ICMP && t != event.ICMPv6 {
		return nil
	}
	a := &i.types[k.IcmpType]
	if *a == nil {
		*a = []event.Attr{{Key: "icmp.type", Value: strconv.Itoa(int(k.IcmpType))}}
	}
	return *a
}
