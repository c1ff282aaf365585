// Package tls is the sensor of what processes say inside of encrypted
// connections: it probes the functions of TLS libraries that take and give
// plaintext, wherever such a library is mapped.
package tls

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
	"ghostlight/internal/wire"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type tls_call -type tls_count tls tls.bpf.c -- -I../../../bpf -mcpu=v3 -Wall -Werror

// Sensor is the tls sensor.
var Sensor = sensor.Def{
	Name:  "tls",
	Doc:   "requests inside of TLS: the plaintext that OpenSSL, GnuTLS and Go take and give",
	Emits: []event.Kind{event.KindRequest},
	Shed:  2,
	Hooks: hooks,
	New:   open,
}

var (
	haveUprobeMulti = &kernel.Probe{Name: "uprobe_multi", Since: "6.6", Loss: "probes of libraries are attached one by one",
		Test: features.HaveBPFLinkUprobeMulti}
	haveSockets = &kernel.Probe{Name: "what calls move through sockets", Since: "6.3; 5.15 with fentry", Loss: "requests inside of TLS",
		Test: trySockets}
	haveCookie = &kernel.Probe{Name: "attach cookie", Since: "5.15", Loss: "requests inside of TLS",
		Test: func() error { return features.HaveProgramHelper(ebpf.Kprobe, asm.FnGetAttachCookie) }}
)

var hooks = []kernel.Hook{
	{
		What:    "calls into TLS libraries",
		Without: "requests inside of TLS",
		Tiers: []kernel.Tier{
			{Name: "uprobe_multi", Program: programs[true].enter, Needs: needs(haveUprobeMulti), Attach: later},
			{Name: "uprobe", Program: programs[false].enter, Needs: needs(haveCookie), Attach: later},
		},
	},
	{
		What:    "what these calls moved",
		Without: "requests inside of TLS",
		Tiers: []kernel.Tier{
			{Name: "uretprobe_multi", Program: programs[true].leave, Needs: needs(haveUprobeMulti), Attach: later},
			{Name: "uretprobe", Program: programs[false].leave, Needs: needs(haveCookie), Attach: later},
		},
	},
	{
		What:    "what Go programs read and write",
		Without: "requests inside of Go's TLS",
		Tiers: []kernel.Tier{
			{Name: "uprobe_multi", Program: programs[true].golang, Needs: needs(haveUprobeMulti), Attach: later},
			{Name: "uprobe", Program: programs[false].golang, Needs: needs(haveCookie), Attach: later},
		},
	},
	{
		What:    "the end of a connection",
		Without: "that a connection ended: its open requests end by their age",
		Tiers: []kernel.Tier{{
			Name: "tp_btf tcp_destroy_sock", Program: "tls_close",
			Needs: []*kernel.Probe{kernel.HaveTpBTF, kernel.HaveSkStorageTracing, kernel.HaveTaskStorage},
		}},
	},
}

// programs are the names of those for libraries, by whether one link may take
// many probes.
var programs = map[bool]struct{ enter, leave, golang string }{
	true:  {"tls_enter", "tls_leave", "tls_go"},
	false: {"tls_enter_one", "tls_leave_one", "tls_go_one"},
}

// needs is what every probe of a library needs, and one thing more.
func needs(p *kernel.Probe) []*kernel.Probe {
	return []*kernel.Probe{kernel.HaveUprobe, haveSockets, kernel.HaveTaskStorage, p}
}

// trySockets asks for either of l7cap's hooks: without one nobody knows whose
// socket a call into a library used.
func trySockets() error {
	length := kernel.HaveSockLength.Have()
	if length == nil || kernel.HaveFentry.Have() == nil {
		return nil
	}
	return length
}

// later attaches nothing yet: there is no library at hand.
func later(*kernel.Object, *ebpf.Program) (link.Link, error) { return nil, nil }

// Options is the sensor's part of the configuration file.
type Options struct {
	// Most libraries and programs that have probes at a time: the one that was
	// used last goes.
	Files int `yaml:"files"`
	// Note which goroutine wakes another, in Go programs that are clients: only
	// that links a call through a pool of connections to the request it is for.
	Wakers bool `yaml:"wakers"`
}

type instance struct {
	options Options
	files   *files
	seen    uint64 // bytes without a socket that were told
	object  *kernel.Object
}

func open(decode func(any) error) (sensor.Instance, error) {
	o := Options{Files: 256, Wakers: true}
	if err := decode(&o); err != nil {
		return nil, err
	}
	if o.Files < 1 {
		return nil, errors.New("files: must be at least 1")
	}
	return &instance{options: o}, nil
}

// Spec returns the object with the options written into it.
func (in *instance) Spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadTls()
	if err != nil {
		return nil, err
	}
	spec.Maps["ghost_shared_l7_socks"].MaxEntries = 1 // not used here
	if kernel.HaveTaskStorage.Have() != nil {         // then nothing is used
		spec.Maps["ghost_shared_tls_threads"].Type = ebpf.Hash
		spec.Maps["ghost_shared_tls_threads"].MaxEntries = 1
	}
	if err := spec.Variables["l7_arm64"].Set(runtime.GOARCH == "arm64"); err != nil {
		return nil, fmt.Errorf("set l7_arm64: %w", err)
	}
	return spec, nil
}

// Start begins to look for libraries. That goes on beside the agent until the
// object is closed.
func (in *instance) Start(o *kernel.Object, _ *event.Batch) error {
	f, err := find(o, in.options.Files)
	if err != nil {
		return err
	}
	in.files, in.object = f, o
	o.Keep(&kept{files: f})
	return nil
}

// kept ends the search when the object is closed.
type kept struct {
	link.Link
	files *files
}

// Close ends the search and detaches everything.
func (k *kept) Close() error { return k.files.close() }

// Decode adds the record as a chunk.
func (in *instance) Decode(h *wire.Header, raw []byte, out *event.Batch) error {
	return sensor.DecodeChunk(h, raw, out)
}

// Tick tells of plaintext whose socket is not known, as a loss.
func (in *instance) Tick(now int64, out *event.Batch) error {
	if in.object == nil {
		return nil
	}
	if in.options.Wakers {
		in.files.follow()
	}
	n, err := homeless(in.object)
	if err != nil {
		return err
	}
	if n > in.seen {
		out.Lost = append(out.Lost, event.Lost{Time: now, Stage: "socket", Sensor: Sensor.Name, Count: n - in.seen})
		in.seen = n
	}
	return nil
}

// homeless counts the calls whose socket was not known.
func homeless(o *kernel.Object) (calls uint64, err error) {
	var perCPU []uint64
	if err := o.Maps["tls_homeless"].Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read what has no socket: %w", err)
	}
	for _, n := range perCPU {
		calls += n
	}
	return calls, nil
}
