// Package sensor says what a sensor is. One folder below holds one sensor: its
// BPF C, its decoder, its tests and a README. The catalogue is generated from
// the folders, so a new folder is all that a new sensor needs.
package sensor

import (
	"github.com/cilium/ebpf"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/wire"
)

// Def describes a sensor. Each folder exports exactly one, named Sensor. It is
// a value: there is no registry.
type Def struct {
	Name  string       // the folder's name
	Doc   string       // one line, for doctor and docs/sensors.md
	Emits []event.Kind // what it makes
	// Shed is the order in which the budget lets go of sensors: 1 goes first, 0
	// never goes.
	Shed  int
	Hooks []kernel.Hook
	// New makes one running instance. decode fills the sensor's own option
	// struct from its part of the configuration file, strictly; it leaves the
	// struct as it is where the file says nothing.
	New func(decode func(options any) error) (Instance, error)
}

// Instance is a running sensor. All calls come from one goroutine.
type Instance interface {
	// Spec returns the object with the options written into its constants.
	Spec() (*ebpf.CollectionSpec, error)
	// Decode adds the record raw to out. raw is valid during the call only.
	Decode(h *wire.Header, raw []byte, out *event.Batch) error
}

// Starter is an instance with something to do once its hooks are attached:
// typically to tell what was there before. Attaching first and looking second
// leaves no gap; what is seen twice is reconciled by the receiver.
type Starter interface {
	Start(o *kernel.Object, out *event.Batch) error
}

// Ticker is an instance with something to do from time to time: to sweep a map
// of flows, or to report long-lived ones. now is the monotonic clock; it is
// called about once a second and decides itself whether its time has come.
type Ticker interface {
	Tick(now int64, out *event.Batch) error
}

// Seer is an instance that sees into some programs and not into others, and
// knows why. Any goroutine may call it while the object is loaded.
type Seer interface {
	Sights() []Sight
}

// Sight says whether the sensor sees into a program or library, and for which
// processes that matters.
type Sight struct {
	File string
	Kind string // what was found in it
	PIDs []uint32
	OK   bool
	Note string // how, or why not
}
