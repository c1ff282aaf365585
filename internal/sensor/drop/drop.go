// Package drop tells which packets the kernel threw away and why, by the
// kernel's own reason names.
//
//	kfree_skb -> drop_seen[reason][cpu]++ -> a token left? -> ring -> Decode
//	Tick: what was counted and told by no record
//
// A record carries a counter of the kernel, and what has been told is kept
// here: a record stands for the difference, so the sum of Drop.Count is the
// number of drops, whatever was withheld or found the ring full.
package drop

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
	"ghostlight/internal/wire"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type drop_packet drop drop.bpf.c -- -I../../../bpf -mcpu=v3 -Wall -Werror

// Sensor is the drop sensor.
var Sensor = sensor.Def{
	Name:  "drop",
	Doc:   "packets the kernel dropped, with its own reason, interface and 5-tuple",
	Emits: []event.Kind{event.KindFlow},
	Shed:  1,
	Hooks: []kernel.Hook{
		{What: "dropped packets", Without: "which packets the kernel dropped, and why", Tiers: []kernel.Tier{
			{Name: "tp_btf kfree_skb", Program: "drop_kfree_skb", Needs: []*kernel.Probe{kernel.HaveDropReason, kernel.HaveTpBTF}}}},
	},
	New: newInstance,
}

// options is this sensor's part of the configuration file.
type options struct {
	// Rate is how many records a second there may be for one reason. Drops beyond
	// it are counted by the next record. 0 leaves a count a second.
	Rate uint32 `yaml:"rate"`
	// Ignore names reasons that are no loss to anyone. By default: what lay
	// unread in a socket that was closed. Names this kernel does not have are
	// passed over.
	Ignore []string `yaml:"ignore"`
}

const (
	maxRate    = 100_000
	maxReasons = 1024 // of the kernel's maps
	maxNames   = 4096 // interface names remembered
	flushEvery = time.Second
)

func newInstance(decode func(any) error) (sensor.Instance, error) {
	o := options{Rate: 10, Ignore: []string{"queue_purge", "socket_close"}}
	if err := decode(&o); err != nil {
		return nil, err
	}
	if o.Rate > maxRate {
		return nil, fmt.Errorf("rate: %d is more than %d", o.Rate, maxRate)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the CPUs: %w", err)
	}
	return &instance{options: o, cpus: cpus, reasons: map[uint32]*reason{}, names: map[[16]byte]string{}}, nil
}

// reason is what is known of one reason. The slices have a place per CPU.
type reason struct {
	name string
	told []uint64 // drops that records stood for
	seen []uint64 // drops the kernel had counted when we last looked
}

type instance struct {
	options
	cpus    int
	object  *kernel.Object
	enum    map[uint32]string // the kernel's names
	reasons map[uint32]*reason
	names   map[[16]byte]string // of interfaces
	counts  []uint64
	before  int64 // when drop_seen was read the time before last
	looked  int64 // when it was last read
}

// Spec returns the object, with the rate and what this kernel's tracepoint has.
func (i *instance) Spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadDrop()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables["drop_rate"].Set(i.Rate); err != nil {
		return nil, fmt.Errorf("set drop_rate: %w", err)
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	if i.enum, err = reasonNames(types); err != nil {
		return nil, err
	}
	if err := spec.Variables["drop_ignored"].Set(i.ignored()); err != nil {
		return nil, fmt.Errorf("set drop_ignored: %w", err)
	}
	if err := spec.Variables["drop_has_sock"].Set(hasSock(types)); err != nil {
		return nil, fmt.Errorf("set drop_has_sock: %w", err)
	}
	return spec, nil
}

// ignored is the table of reasons that are passed over.
func (i *instance) ignored() (table [maxReasons]uint8) {
	for number, name := range i.enum {
		if number < maxReasons && slices.Contains(i.Ignore, name) {
			table[number] = 1
		}
	}
	return table
}

// Start remembers where the counters are, and forgets what was told of others.
func (i *instance) Start(o *kernel.Object, _ *event.Batch) error {
	i.object, i.before, i.looked = o, 0, 0
	clear(i.reasons)
	return nil
}

// reasonNames reads the names of enum skb_drop_reason, which the kernel adds to
// in every release. Before Linux 5.17 there is none, and no hook either.
func reasonNames(types *btf.Spec) (map[uint32]string, error) {
	names := map[uint32]string{}
	var enum *btf.Enum
	if err := types.TypeByName("skb_drop_reason", &enum); errors.Is(err, btf.ErrNotFound) {
		return names, nil
	} else if err != nil {
		return nil, fmt.Errorf("read enum skb_drop_reason: %w", err)
	}
	for _, v := range enum.Values {
		if name, ok := strings.CutPrefix(v.Name, "SKB_DROP_REASON_"); ok && name != "MAX" && name != "SUBSYS_MASK" {
			names[uint32(v.Value)] = strings.ToLower(name)
		}
	}
	return names, nil
}

// hasSock tells whether kfree_skb says which socket refused the packet. Its type
// in BTF has one argument more than the tracepoint.
func hasSock(types *btf.Spec) bool {
	var def *btf.Typedef
	if types.TypeByName("btf_trace_kfree_skb", &def) != nil {
		return false
	}
	ptr, ok := def.Type.(*btf.Pointer)
	if !ok {
		return false
	}
	proto, ok := ptr.Target.(*btf.FuncProto)
	return ok && len(proto.Params) >= 5
}

const recordPacket = 1 // enum drop_record

// Decode tells a packet, and with it those of its reason and CPU that no record
// has told.
func (i *instance) Decode(h *wire.Header, raw []byte, out *event.Batch) error {
	if h.Type != recordPacket {
		return fmt.Errorf("drop: no record has the type %d", h.Type)
	}
	p, err := wire.View[dropDropPacket](raw)
	if err != nil {
		return err
	}
	r := i.reason(p.Reason)
	if r == nil || int(h.Cpu) >= i.cpus {
		return fmt.Errorf("drop: reason %d on CPU %d of %d", p.Reason, h.Cpu, i.cpus)
	}
	told := &r.told[h.Cpu]
	if p.Seen <= *told {
		return nil // one that interrupted this one stood for both
	}
	out.Flows = append(out.Flows, event.Flow{
		Time: int64(h.Ktime), End: int64(h.Ktime), ID: p.Cookie, NetNS: p.Netns,
		Transport: event.Transport(p.Proto), Verdict: event.Dropped,
		Drop:     event.Drop{Reason: r.name, Interface: i.device(p), Count: p.Seen - *told},
		Complete: true,
	})
	if p.Ip != 0 {
		f := &out.Flows[len(out.Flows)-1]
		f.Source = netip.AddrPortFrom(addr(&p.Source), p.SourcePort)
		f.Destination = netip.AddrPortFrom(addr(&p.Destination), p.DestinationPort)
	}
	*told = p.Seen
	return nil
}

// reason returns what is known of a reason, nil if there are more of them than
// the kernel's map holds.
func (i *instance) reason(number uint32) *reason {
	if r := i.reasons[number]; r != nil || len(i.reasons) == maxReasons {
		return r
	}
	r := &reason{name: i.name(number), told: make([]uint64, i.cpus), seen: make([]uint64, i.cpus)}
	i.reasons[number] = r
	return r
}

// name returns the kernel's name. The high half of a number is a subsystem
// (mac80211, openvswitch) whose reasons are in no enum of the kernel proper.
func (i *instance) name(number uint32) string {
	if name := i.enum[number]; name != "" {
		return name
	}
	if subsystem := number >> 16; subsystem != 0 {
		return "subsys_" + strconv.Itoa(int(subsystem)) + "_" + strconv.Itoa(int(number&0xffff))
	}
	return "reason_" + strconv.Itoa(int(number))
}

// device returns the interface's name, made once per name. What stands there in
// a packet that has none is not a name.
func (i *instance) device(p *dropDropPacket) string {
	raw := *(*[16]byte)(unsafe.Pointer(&p.Interface))
	if name, ok := i.names[raw]; ok {
		return name
	}
	name := wire.Bytes(raw[:])
	for _, c := range name {
		if c <= ' ' || c > '~' || c == '/' {
			return ""
		}
	}
	if len(i.names) == maxNames {
		clear(i.names)
	}
	i.names[raw] = string(name)
	return i.names[raw]
}

func addr(words *[4]uint32) netip.Addr {
	return netip.AddrFrom16(*(*[16]byte)(unsafe.Pointer(words))).Unmap()
}

// Tick tells the drops that were withheld. What was counted since the last tick
// is left alone: its records may still be in the ring.
func (i *instance) Tick(now int64, out *event.Batch) error {
	if i.object == nil || now-i.looked < int64(flushEvery)*9/10 {
		return nil
	}
	var number uint32
	counts := i.object.Maps["drop_seen"].Iterate()
	for counts.Next(&number, &i.counts) {
		r := i.reason(number)
		if r == nil {
			continue
		}
		if n := r.withheld(); n > 0 {
			out.Flows = append(out.Flows, event.Flow{Time: i.before, End: i.looked, Verdict: event.Dropped, Drop: event.Drop{Reason: r.name, Count: n}})
		}
		copy(r.seen, i.counts)
	}
	i.before, i.looked = cmp.Or(i.looked, now), now
	if err := counts.Err(); err != nil {
		return fmt.Errorf("read drop_seen: %w", err)
	}
	return nil
}

// withheld takes the drops of the last look that no record has told.
func (r *reason) withheld() (n uint64) {
	for cpu, seen := range r.seen {
		if seen > r.told[cpu] {
			n += seen - r.told[cpu]
			r.told[cpu] = seen
		}
	}
	return n
}
