// Package aggregate counts requests: rate, errors and duration of every
// operation a service answers or asks for, under the names of OpenTelemetry,
// and who calls whom. Memory is bounded by a number of series; what comes
// after is counted together.
package aggregate

import (
	"hash/maphash"
	"sync"

	"ghostlight/internal/event"
)

// Metric is one of the durations that OpenTelemetry names.
type Metric uint8

// The metrics, in the order of Names.
const (
	HTTPServer Metric = iota
	HTTPClient
	RPCServer
	RPCClient
	DBClient
	DBServer // no convention: a database seen from its own end, and so the other servers below
	MessagingClient
	MessagingServer
	DNSClient
	DNSServer
	metrics
)

// Info is what a metric is called and counted in.
type Info struct {
	Name   string // OpenTelemetry's
	Help   string
	Bounds []float64 // seconds, of the classic histogram
}

var (
	shortBounds = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	dbBounds    = []float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10}
)

// Infos is every metric.
var Infos = [metrics]Info{
	HTTPServer: {"http.server.request.duration", "Duration of HTTP server requests.", shortBounds},
	HTTPClient: {"http.client.request.duration", "Duration of HTTP client requests.", shortBounds},
	RPCServer:  {"rpc.server.call.duration", "Duration of inbound remote procedure calls.", shortBounds},
	RPCClient:  {"rpc.client.call.duration", "Duration of outbound remote procedure calls.", shortBounds},
	DBClient:   {"db.client.operation.duration", "Duration of database client operations.", dbBounds},
	DBServer:   {"ghostlight.db.server.operation.duration", "Duration of database operations, seen at the database.", dbBounds},

	MessagingClient: {"messaging.client.operation.duration", "Duration of messaging operations.", shortBounds},
	MessagingServer: {"ghostlight.messaging.server.operation.duration", "Duration of messaging operations, seen at the broker.", shortBounds},
	DNSClient:       {"dns.lookup.duration", "Duration of DNS lookups.", shortBounds},
	DNSServer:       {"ghostlight.dns.server.lookup.duration", "Duration of DNS lookups, seen at the server.", shortBounds},
}

// MetricOf says where a request is counted.
func MetricOf(r *event.Request) Metric {
	isServer := r.Role == event.Server
	switch r.Family {
	case event.HTTP:
		return pick(isServer, HTTPServer, HTTPClient)
	case event.RPC:
		return pick(isServer, RPCServer, RPCClient)
	case event.DB:
		return pick(isServer, DBServer, DBClient)
	case event.Messaging:
		return pick(isServer, MessagingServer, MessagingClient)
	}
	return pick(isServer, DNSServer, DNSClient)
}

func pick(first bool, a, b Metric) Metric {
	if first {
		return a
	}
	return b
}

// Series is one of them and its durations.
type Series struct {
	Key
	Durations Histogram
	Overflow  bool // of all requests whose own series would have been one too many
	LastTrace event.Trace
	LastNS    int64 // duration of the request of LastTrace
	LastTime  int64 // its Unix time, nanoseconds

	calls *Calls // of the edge of its last request: mostly the next one's too
}

// Table holds the series. Add is called by one goroutine, the readers by any;
// what they get is theirs.
type Table struct {
	mu       sync.Mutex
	limit    int
	series   map[Key]*Series
	overflow [metrics]*Series
	edges    map[Edge]*Calls
	beyond   *Calls // of the edges that would have been too many

	seed   maphash.Seed
	recent [1 << recentBits]*Series // by a hash of part of their keys
}

// recentBits says how many series are found without a hash of all of their
// texts: most requests are like one a moment ago.
const recentBits = 9

// New returns a table of at most limit series, and as many edges.
func New(limit int) *Table {
	return &Table{limit: limit, series: map[Key]*Series{}, edges: map[Edge]*Calls{}, seed: maphash.MakeSeed()}
}

// Add counts the requests of a batch.
func (t *Table) Add(b *event.Batch) {
	if len(b.Requests) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range b.Requests {
		r := &b.Requests[i]
		s := t.of(r)
		s.Durations.Add(r.DurationNS)
		if r.Trace.ID != [16]byte{} {
			s.LastTrace, s.LastNS, s.LastTime = r.Trace, r.DurationNS, r.Time+r.DurationNS+b.Wall
		}
		t.edge(s, r)
	}
}

// of returns the series of a request.
func (t *Table) of(r *event.Request) *Series {
	k := keyOf(r)
	place := &t.recent[t.place(&k)]
	if *place == nil || (*place).Overflow || (*place).Key != k {
		*place = t.find(k)
	}
	return *place
}

// place tells most keys apart by what differs most.
func (t *Table) place(k *Key) uint64 {
	h := maphash.String(t.seed, k.Target) ^ maphash.String(t.seed, k.Service)*3
	h ^= uint64(k.Metric) | uint64(k.Status)<<8 | uint64(k.Port)<<24 | uint64(len(k.Operation))<<40
	return h * 0x9e3779b97f4a7c15 >> (64 - recentBits)
}

func (t *Table) find(k Key) *Series {
	if s := t.series[k]; s != nil {
		return s
	}
	if full := len(t.series) >= t.limit; !full || !k.isValid() {
		k = k.kept()
		if s := t.series[k]; s != nil {
			return s
		}
	}
	if len(t.series) >= t.limit {
		if t.overflow[k.Metric] == nil {
			t.overflow[k.Metric] = &Series{Key: Key{Metric: k.Metric}, Overflow: true, Durations: newHistogram(k.Metric)}
		}
		return t.overflow[k.Metric]
	}
	s := &Series{Key: k, Durations: newHistogram(k.Metric)}
	t.series[k] = s
	return s
}

// Series returns every series as it is now, the overflows last.
func (t *Table) Series() []Series {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Series, 0, len(t.series)+int(metrics))
	for _, s := range t.series {
		all = append(all, s.copied())
	}
	for _, s := range t.overflow {
		if s != nil {
			all = append(all, s.copied())
		}
	}
	return all
}

func (s *Series) copied() Series {
	c := *s
	c.calls, c.Durations = nil, s.Durations.copied()
	return c
}
