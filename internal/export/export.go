// Package export says what an exporter is: a part that carries records out of
// the host, or shows them in another tool's form. One folder below holds one
// exporter.
package export

import (
	"log/slog"
	"net/http"

	"ghostlight/internal/aggregate"
	"ghostlight/internal/event"
)

// Def describes an exporter. Each folder exports exactly one, named Exporter.
type Def struct {
	Name  string
	Doc   string
	OptIn bool // off unless the configuration names it: it sends records to another place
	New   func(Env) (Instance, error)
}

// Env is what an exporter gets from the agent.
type Env struct {
	// Decode fills the exporter's own option struct from its part of the
	// configuration file, strictly.
	Decode func(options any) error
	// Requests counts the requests of every service. It is shared: the agent adds
	// to it, exporters read it.
	Requests *aggregate.Table
	// Self tells how Ghostlight itself is doing.
	Self func() []Metric
	// Host describes this host and this Ghostlight, by the names of OpenTelemetry.
	Host []event.Attr
	// PID is the agent's process: what it sends is not sent again.
	PID uint32
	Log *slog.Logger // nil: say nothing
}

// Metric is one value of Ghostlight about itself.
type Metric struct {
	Name    string // Prometheus form, with its unit
	Help    string
	Counter bool // else a gauge
	Labels  []event.Attr
	Value   float64
}

// Instance is a running exporter. Export is called on the hot path, from one
// goroutine: it must not block, and it copies what it keeps. Close sends what
// is left, within a bound.
type Instance interface {
	Export(*event.Batch)
	Close() error
}

// Server is an instance that answers HTTP requests on Ghostlight's own
// listener.
type Server interface {
	Path() string // "/metrics"
	http.Handler
}

// Sender is an instance that sends in the background, and that lets go of
// records rather than hold up the store.
type Sender interface {
	// Lost returns how many records did not arrive since it was last asked. The
	// agent makes Lost records of it.
	Lost() uint64
	// Metrics tells how it is doing.
	Metrics() []Metric
}
