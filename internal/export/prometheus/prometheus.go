// Package prometheus counts flows and processes for a Prometheus scrape. Names
// are OpenTelemetry's in Prometheus form; what OpenTelemetry has no name for is
// under ghostlight_. The number of series is bounded: what comes after the
// bound is counted in one series with otel_metric_overflow="true".
package prometheus

import (
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"ghostlight/internal/event"
	"ghostlight/internal/export"
)

// Exporter answers scrapes on /metrics.
var Exporter = export.Def{
	Name: "prometheus",
	Doc:  "metrics of flows, processes and Ghostlight itself on /metrics (Prometheus text, protobuf with native histograms)",
	New:  newInstance,
}

// options is the exporter's part of the configuration file.
type options struct {
	// MaxSeries bounds the label sets of each metric.
	MaxSeries int `yaml:"max_series"`
}

// instance is a collector: it turns its counts into metrics when asked.
type instance struct {
	self    func() []export.Metric
	handler http.Handler

	mu       sync.Mutex // Export and Collect
	counters []*counter
	bytes    *counter
	packets  *counter
	closed   *counter
	retrans  *counter
	drops    *counter
	changes  *counter
	lost     *counter
	connect  *histogram
	rtt      *histogram
}

// Seconds. Connections and round trips span from a loopback's microseconds to
// a lost packet's seconds.
var buckets = []float64{.00001, .0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func newInstance(env export.Env) (export.Instance, error) {
	o := options{MaxSeries: 2000}
	if err := env.Decode(&o); err != nil {
		return nil, err
	}
	e := &instance{self: env.Self}
	add := func(name, help string, labels ...string) *counter {
		c := newCounter(name, help, o.MaxSeries, labels)
		e.counters = append(e.counters, c)
		return c
	}
	e.bytes = add("ghostlight_flow_io_bytes_total", "Payload of flows.", "service_name", "peer_service_name", "network_transport", "network_io_direction")
	e.packets = add("ghostlight_flow_io_packets_total", "Packets of flows.", "service_name", "peer_service_name", "network_transport", "network_io_direction")
	e.closed = add("ghostlight_tcp_connections_total", "TCP connections that ended, seen from one end.", "service_name", "peer_service_name", "direction", "tcp_close_reason")
	e.retrans = add("ghostlight_tcp_retransmits_total", "TCP segments sent again.", "service_name", "peer_service_name", "direction")
	e.drops = add("ghostlight_dropped_packets_total", "Packets the kernel dropped, by its own reason.", "drop_reason", "network_interface_name")
	e.changes = add("ghostlight_process_changes_total", "Processes started and ended.", "service_name", "action")
	e.lost = add("ghostlight_lost_records_total", "Records that are missing, and where they went missing.", "stage", "sensor")
	e.connect = newHistogram("ghostlight_tcp_connect_duration_seconds", "From SYN to established, at the client.", o.MaxSeries, "service_name", "peer_service_name")
	e.rtt = newHistogram("ghostlight_tcp_rtt_seconds", "Smoothed round-trip time when a connection was reported.", o.MaxSeries, "service_name", "peer_service_name")

	registry := prometheus.NewRegistry()
	if err := registry.Register(e); err != nil {
		return nil, err
	}
	e.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 4})
	return e, nil
}

// Export counts the batch.
func (e *instance) Export(b *event.Batch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range b.Flows {
		e.flow(&b.Flows[i])
	}
	for i := range b.Processes {
		if p := &b.Processes[i]; p.Action != event.Running {
			e.changes.add(1, serviceOf(p.Who), p.Action.String())
		}
	}
	for i := range b.Lost {
		e.lost.add(float64(b.Lost[i].Count), b.Lost[i].Stage, b.Lost[i].Sensor)
	}
}

func (e *instance) flow(f *event.Flow) {
	if f.Verdict == event.Dropped {
		e.drops.add(float64(f.Drop.Count), f.Drop.Reason, f.Drop.Interface)
		return
	}
	service, peer, transport := serviceOf(f.Who), serviceOf(f.Peer), f.Transport.String()
	e.bytes.add(float64(f.Sent.Bytes), service, peer, transport, "transmit")
	e.bytes.add(float64(f.Received.Bytes), service, peer, transport, "receive")
	e.packets.add(float64(f.Sent.Packets), service, peer, transport, "transmit")
	e.packets.add(float64(f.Received.Packets), service, peer, transport, "receive")
	if f.Transport != event.TCP {
		return
	}
	if f.TCP.CloseReason != event.StillOpen {
		e.closed.add(1, service, peer, f.Direction.String(), f.TCP.CloseReason.String())
	}
	e.retrans.add(float64(f.TCP.Retransmits), service, peer, f.Direction.String())
	if f.TCP.ConnectNS > 0 && f.TCP.CloseReason != event.StillOpen {
		e.connect.observe(float64(f.TCP.ConnectNS)/1e9, service, peer)
	}
	if f.TCP.RTTNS > 0 {
		e.rtt.observe(float64(f.TCP.RTTNS)/1e9, service, peer)
	}
}

func serviceOf(w *event.Who) string {
	if w == nil {
		return ""
	}
	return w.Service
}

// Describe sends nothing: the label sets are not known in advance.
func (e *instance) Describe(chan<- *prometheus.Desc) {}

// Collect sends everything.
func (e *instance) Collect(ch chan<- prometheus.Metric) {
	e.mu.Lock()
	for _, c := range e.counters {
		c.collect(ch)
	}
	e.connect.collect(ch)
	e.rtt.collect(ch)
	e.mu.Unlock()
	for _, m := range e.self() {
		ch <- selfMetric(m)
	}
}

func selfMetric(m export.Metric) prometheus.Metric {
	names, values := make([]string, len(m.Labels)), make([]string, len(m.Labels))
	for i, l := range m.Labels {
		names[i], values[i] = l.Key, l.Value
	}
	kind := prometheus.GaugeValue
	if m.Counter {
		kind = prometheus.CounterValue
	}
	return prometheus.MustNewConstMetric(prometheus.NewDesc(m.Name, m.Help, names, nil), kind, m.Value, values...)
}

// Path is where a scrape asks.
func (e *instance) Path() string { return "/metrics" }

// ServeHTTP answers a scrape.
func (e *instance) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.handler.ServeHTTP(w, r) }

// Close has nothing to let go of.
func (e *instance) Close() error { return nil }
