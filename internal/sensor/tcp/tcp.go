// Package tcp is the sensor of TCP connections: who connected to whom, how
// long it took, what went both ways, and how it ended.
package tcp

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
	"ghostlight/internal/wire"
)

// Sensor is the tcp sensor.
var Sensor = sensor.Def{
	Name:  "tcp",
	Doc:   "TCP connections: both ends, bytes, packets, latency, retransmits, zero windows and why they ended",
	Emits: []event.Kind{event.KindFlow},
	Hooks: hooks,
	New:   open,
}

// Options is the sensor's part of the configuration file.
type Options struct {
	// How often a connection that stays open is reported.
	Interval time.Duration `yaml:"interval"`
	// How many sockets can be watched at a time. Memory is taken as they come,
	// save 16 bytes for each that could; what comes beyond is counted as lost.
	Sockets uint32 `yaml:"sockets"`
}

const (
	defaultInterval = 5 * time.Second
	leastInterval   = 100 * time.Millisecond
	defaultSockets  = 65536
)

type instance struct {
	interval time.Duration
	sockets  uint32
	tick     int64    // nanoseconds of a jiffy
	resets   []string // enum sk_rst_reason of this kernel

	object *kernel.Object
	swept  int64 // when, monotonic
}

func open(decode func(any) error) (sensor.Instance, error) {
	o := Options{Interval: defaultInterval, Sockets: defaultSockets}
	if err := decode(&o); err != nil {
		return nil, err
	}
	if o.Interval < leastInterval {
		return nil, fmt.Errorf("interval: %s is less than %s", o.Interval, leastInterval)
	}
	if o.Sockets == 0 {
		return nil, fmt.Errorf("sockets: must not be 0")
	}
	tick, err := jiffy()
	if err != nil {
		return nil, err
	}
	return &instance{interval: o.Interval, sockets: o.Sockets, tick: tick, resets: resetNames()}, nil
}

// jiffy returns the length of the kernel's tick. The coarse clocks advance
// once a tick, so their resolution is it, whatever CONFIG_HZ and wherever the
// configuration is kept.
func jiffy() (int64, error) {
	var res unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &res); err != nil {
		return 0, fmt.Errorf("resolution of the coarse clock: %w", err)
	}
	return res.Nano(), nil
}

// resetNames reads the reasons of this kernel. It is empty before Linux 6.10,
// and records then have no reason.
func resetNames() []string {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil
	}
	var e *btf.Enum
	if spec.TypeByName("sk_rst_reason", &e) != nil {
		return nil
	}
	return namesOf(e)
}

// maxReasons bounds the table; the kernel has 25 today.
const maxReasons = 1024

func namesOf(e *btf.Enum) []string {
	var names []string
	for _, v := range e.Values {
		name := strings.ToLower(strings.TrimPrefix(v.Name, "SK_RST_REASON_"))
		if v.Value >= maxReasons || name == "not_specified" || name == "max" {
			continue
		}
		for uint64(len(names)) <= v.Value {
			names = append(names, "")
		}
		names[v.Value] = name
	}
	return names
}

// Spec returns the object with its switches set for this kernel.
func (in *instance) Spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadTcp()
	if err != nil {
		return nil, err
	}
	spec.Maps["conn_by_socket"].MaxEntries = in.sockets
	if err := spec.Variables["interval_ns"].Set(uint64(in.interval)); err != nil {
		return nil, fmt.Errorf("set interval_ns: %w", err)
	}
	return spec, chooseHelpers(spec)
}

// chooseHelpers turns on what the verifier takes. A helper behind a switch that
// is off is dead code, and costs nothing.
func chooseHelpers(spec *ebpf.CollectionSpec) error {
	for _, with := range []struct{ lock, cookie bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		if err := spec.Variables["use_lock"].Set(with.lock); err != nil {
			return fmt.Errorf("set use_lock: %w", err)
		}
		if err := spec.Variables["use_cookie"].Set(with.cookie); err != nil {
			return fmt.Errorf("set use_cookie: %w", err)
		}
		if verifies(spec, "tcp_set_state") {
			return nil
		}
	}
	return nil // loading it in earnest tells why not
}

func verifies(spec *ebpf.CollectionSpec, program string) bool {
	one := spec.Copy()
	one.Programs = map[string]*ebpf.ProgramSpec{program: one.Programs[program]}
	c, err := ebpf.NewCollection(one)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Decode adds the flow in raw to out.
func (in *instance) Decode(_ *wire.Header, raw []byte, out *event.Batch) error {
	r, err := wire.View[tcpFlow](raw)
	if err != nil {
		return fmt.Errorf("tcp: %w", err)
	}
	out.Flows = append(out.Flows, event.Flow{})
	in.fill(&out.Flows[len(out.Flows)-1], r)
	return nil
}

func (in *instance) fill(f *event.Flow, r *tcpFlow) {
	reason := closeReason(r)
	f.Time, f.End = int64(r.Since), int64(r.H.Ktime)
	f.ID = r.Id
	f.Transport = event.TCP
	f.Direction = direction(r)
	f.Verdict = verdict(reason)
	f.Source = addrPort(r.Source, r.SourcePort)
	f.Destination = addrPort(r.Destination, r.DestinationPort)
	f.PID, f.PeerPID = r.Pid, r.PeerPid
	f.CgroupID = r.Cgroup
	f.NetNS = r.Netns
	f.Sent = event.Count{Bytes: r.SentBytes, Packets: uint64(r.SentPackets)}
	f.Received = event.Count{Bytes: r.ReceivedBytes, Packets: uint64(r.ReceivedPackets)}
	f.Complete = has(r, tcpFlowFlagCOMPLETE)
	f.TCP = event.TCPInfo{
		State:           r.State,
		CloseReason:     reason,
		ResetReason:     in.resetReason(r.Reset),
		ConnectNS:       int64(r.ConnectNs),
		RTTMinNS:        int64(r.RttMinUs) * 1000,
		RTTNS:           int64(r.RttUs) * 1000,
		Retransmits:     uint64(r.Retransmits),
		WindowLimitedNS: int64(r.LimitedJiffies) * in.tick,
		ZeroWindows:     uint64(r.ZeroWindows),
		ListenDrops:     uint64(r.ListenDrops),
	}
	if r.State == listen {
		f.Source = netip.AddrPort{} // nobody in particular
	}
}

// States of include/net/tcp_states.h that are more than a number here.
const listen = 10

func has(r *tcpFlow, flag tcpFlowFlag) bool { return tcpFlowFlag(r.Flags)&flag != 0 }

func direction(r *tcpFlow) event.Direction {
	if has(r, tcpFlowFlagOUTBOUND) {
		return event.Outbound
	}
	return event.Inbound
}

// addrPort shows IPv4 behind an IPv6 socket as IPv4. The port is as on the wire.
func addrPort(a [16]uint8, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), port<<8|port>>8)
}

func (in *instance) resetReason(n int16) string {
	if n < 0 || int(n) >= len(in.resets) {
		return ""
	}
	return in.resets[n]
}

// closeReason reads the end of a connection. An error that the kernel gave the
// socket explains a reset that it sent with it (keepalive, bpf_sock_destroy),
// and a reset explains more than the FIN that went before.
func closeReason(r *tcpFlow) event.CloseReason {
	if !has(r, tcpFlowFlagFINAL) {
		return event.StillOpen
	}
	switch unix.Errno(r.Error) {
	case unix.ETIMEDOUT:
		return event.Timeout
	case unix.ECONNABORTED:
		return event.Aborted
	case unix.ECONNREFUSED:
		return event.Refused
	case unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN, unix.ENONET, unix.ENOPROTOOPT, unix.EACCES:
		return event.Unreachable
	}
	switch {
	case has(r, tcpFlowFlagRECEIVED_RESET):
		return event.ResetReceived
	case has(r, tcpFlowFlagSENT_RESET):
		return event.ResetSent
	case has(r, tcpFlowFlagCLOSED_FIRST):
		return event.FinSent
	case has(r, tcpFlowFlagPEER_CLOSED_FIRST):
		return event.FinReceived
	}
	return event.Aborted
}

func verdict(r event.CloseReason) event.Verdict {
	switch r {
	case event.StillOpen, event.FinSent, event.FinReceived:
		return event.Forwarded
	}
	return event.Error
}
