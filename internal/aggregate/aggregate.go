// Package aggregate counts requests: rate, errors and duration of every
// operation a service answers or asks for, under the names of OpenTelemetry,
// and who calls whom. Memory is bounded by a number of series; what comes
// after is counted together.
package aggregate

import (
	"hash/maphash"
	"strings"
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
	DBServer // no convention: a database seen from its own end
	Messaging
	DNS
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
	Messaging:  {"messaging.client.operation.duration", "Duration of messaging operations.", shortBounds},
	DNS:        {"dns.lookup.duration", "Duration of DNS lookups.", shortBounds},
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
		return Messaging
	}
	return DNS
}

func pick(first bool, a, b Metric) Metric {
	if first {
		return a
	}
	return b
}

// Key is what a series is about. Empty fields have no label.
type Key struct {
	Metric    Metric
	Service   string
	Container string
	Role      event.Role
	Operation string // http.request.method, rpc.method, db.operation.name, messaging.operation.name, dns.question.type
	Target    string // http.route, db.collection.name, messaging.destination.name
	Namespace string // db.namespace
	System    string // db.system.name, rpc.system.name, messaging.system
	Protocol  string // network.protocol.name, where it is not http
	Status    int32  // http.response.status_code
	Outcome   string // rpc.response.status_code, db.response.status_code
	Error     string // error.type
	Peer      string // client: server.address
	Port      uint16 // client: server.port
	TLS       bool   // url.scheme
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

// Edge is who calls whom, by service.
type Edge struct {
	Client, Server string
	Protocol       string
}

// Calls is what went over an edge: as the server saw it, or the client where
// the server is elsewhere.
type Calls struct {
	Edge
	Failed    uint64
	Durations Histogram
}

// Table holds the series. Add is called by one goroutine, the readers by any.
type Table struct {
	mu       sync.Mutex
	limit    int
	series   map[Key]*Series
	overflow [metrics]*Series
	edges    map[Edge]*Calls

	seed   maphash.Seed
	recent [1 << recentBits]*Series // by a hash of part of their keys
}

// recentBits says how many series are found without a hash of all of their ten
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

// keyOf describes a request by what does not grow with traffic. Its strings are
// the batch's.
func keyOf(r *event.Request) Key {
	k := Key{
		Metric: MetricOf(r), Role: r.Role, Operation: r.Operation, Target: r.Target, Namespace: r.Namespace,
		System: r.System, Status: r.Status, Outcome: r.Outcome, Error: r.Error, TLS: r.TLS,
	}
	if r.Who != nil {
		k.Service = r.Who.Service
		if r.Who.Container != nil {
			k.Container = r.Who.Container.Name
		}
	}
	switch r.Family {
	case event.HTTP:
		k.Target = r.Route
	case event.DNS:
		k.Target = "" // names are without bound
	}
	if r.Protocol != "http" && r.Family == event.HTTP {
		k.Protocol = r.Protocol
	}
	if r.Role == event.Client {
		if k.Peer = r.Attr("server.address"); k.Peer == "" && r.Peer != nil {
			k.Peer = r.Peer.Service
		}
		k.Port = r.Destination.Port()
	}
	return k
}

// of returns the series of a request.
func (t *Table) of(r *event.Request) *Series {
	k := keyOf(r)
	place := &t.recent[t.hash(&k)]
	if *place == nil || (*place).Overflow || (*place).Key != k {
		*place = t.find(k)
	}
	return *place
}

// hash tells most keys apart by what differs most, and returns a place in
// recent.
func (t *Table) hash(k *Key) uint64 {
	h := maphash.String(t.seed, k.Target) ^ maphash.String(t.seed, k.Service)*3
	h ^= uint64(k.Metric) | uint64(k.Status)<<8 | uint64(k.Port)<<24 | uint64(len(k.Operation))<<40
	return h * 0x9e3779b97f4a7c15 >> (64 - recentBits)
}

func (t *Table) find(k Key) *Series {
	if s := t.series[k]; s != nil {
		return s
	}
	if len(t.series) >= t.limit {
		if t.overflow[k.Metric] == nil {
			t.overflow[k.Metric] = &Series{Key: Key{Metric: k.Metric, Role: k.Role}, Overflow: true, Durations: newHistogram(k.Metric)}
		}
		return t.overflow[k.Metric]
	}
	for _, text := range []*string{&k.Service, &k.Container, &k.Operation, &k.Target, &k.Namespace, &k.System, &k.Protocol, &k.Outcome, &k.Error, &k.Peer} {
		*text = strings.Clone(*text)
	}
	s := &Series{Key: k, Durations: newHistogram(k.Metric)}
	t.series[k] = s
	return s
}

// edge counts who calls whom. Where both ends are on this host, the server's
// record counts.
func (t *Table) edge(s *Series, r *event.Request) {
	isServer := r.Role == event.Server
	if r.Family == event.DNS || !isServer && r.Peer != nil {
		return
	}
	e := Edge{Protocol: r.Protocol}
	if isServer {
		e.Client, e.Server = service(r.Peer), service(r.Who)
	} else {
		e.Client, e.Server = service(r.Who), r.Attr("server.address")
	}
	if s.calls == nil || s.calls.Edge != e {
		s.calls = t.callsOver(e)
	}
	if s.calls == nil {
		return
	}
	s.calls.Durations.Add(r.DurationNS)
	if r.Error != "" {
		s.calls.Failed++
	}
}

// callsOver returns what is counted of an edge, nil if there are too many.
func (t *Table) callsOver(e Edge) *Calls {
	if c := t.edges[e]; c != nil || len(t.edges) >= t.limit {
		return c
	}
	e.Client, e.Server, e.Protocol = strings.Clone(e.Client), strings.Clone(e.Server), strings.Clone(e.Protocol)
	c := &Calls{Edge: e, Durations: newHistogram(HTTPServer)}
	t.edges[e] = c
	return c
}

func service(w *event.Who) string {
	if w == nil {
		return ""
	}
	return w.Service
}

// Each calls f for every series, the overflows last. The series is borrowed and
// the table locked.
func (t *Table) Each(f func(*Series)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.series {
		f(s)
	}
	for _, s := range t.overflow {
		if s != nil {
			f(s)
		}
	}
}

// EachEdge calls f for every edge, like Each.
func (t *Table) EachEdge(f func(*Calls)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.edges {
		f(c)
	}
}
