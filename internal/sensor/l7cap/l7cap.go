// Package l7cap is the sensor of what processes say to each other: the first
// bytes of each call that moves bytes through a socket whose protocol is known.
package l7cap

import (
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
	"ghostlight/internal/wire"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel l7cap l7cap.bpf.c -- -I../../../bpf -mcpu=v3 -Wall -Werror

// Sensor is the l7cap sensor.
var Sensor = sensor.Def{
	Name:  "l7cap",
	Doc:   "requests: the first bytes of each call on connections whose protocol is known",
	Emits: []event.Kind{event.KindRequest},
	Shed:  3,
	Hooks: hooks,
	New:   open,
}

// Options is the sensor's part of the configuration file.
type Options struct {
	// Unix sockets too.
	Unix bool `yaml:"unix"`
}

// uringSockets is how many sockets can be served by io_uring at a time; of more
// the longest idle begin anew.
const uringSockets = 4096

type instance struct{ unix bool }

func open(decode func(any) error) (sensor.Instance, error) {
	var o Options
	if err := decode(&o); err != nil {
		return nil, err
	}
	return &instance{unix: o.Unix}, nil
}

// Spec returns the object with the options written into it.
func (in *instance) Spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadL7cap()
	if err != nil {
		return nil, err
	}
	return spec, in.configure(spec)
}

func (in *instance) configure(spec *ebpf.CollectionSpec) error {
	storage := kernel.HaveSkStorageTracing.Have() == nil
	if storage {
		spec.Maps["ghost_shared_l7_socks"].MaxEntries = uringSockets
	}
	threads := kernel.HaveTaskStorage.Have() == nil
	if !threads {
		spec.Maps["ghost_shared_tls_threads"].Type = ebpf.Hash
		spec.Maps["ghost_shared_tls_threads"].MaxEntries = 1
	}
	for name, on := range map[string]bool{
		"l7_threads": threads,
		"watch_unix": in.unix,
		"l7_arm64":   runtime.GOARCH == "arm64",
		"l7_storage": storage,
		"l7_task":    kernel.HaveTaskRegs.Have() == nil,
	} {
		if err := spec.Variables[name].Set(on); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// Decode adds the record as a chunk.
func (in *instance) Decode(h *wire.Header, raw []byte, out *event.Batch) error {
	return sensor.DecodeChunk(h, raw, out)
}
