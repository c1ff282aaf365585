// Package prometheus counts requests, flows and processes for a Prometheus scrape. Names
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
	Doc:  "metrics of requests, flows, processes and Ghostlight itself on /metrics (Prometheus text, protobuf with native histograms)",
	New:  newInstance,
}

// options is the exporter's part of the configuration file.
type options struct {
	// MaxSeries bounds how many pairs of services, and how many label sets of any
	// other metric, are told apart.
	MaxSeries int `yaml:"max_series"`
}

// instance is a collector: it turns its counts into metrics when asked.
type instance struct {
	self     func() []export.Metric
	requests *requests
	handler  http.Handler

	mu      sync.Mutex // Export and Collect
	flows   *flows
	drops   *counter
	changes *counter
	lost    *counter
}

func newInstance(env export.Env) (export.Instance, error) {
	o := options{MaxSeries: 2000}
	if err := env.Decode(&o); err != nil {
		return nil, err
	}
	e := &instance{
		self:     env.Self,
		requests: newRequests(env.Requests),
		flows:    newFlows(o.MaxSeries),
		drops:    newCounter("ghostlight_dropped_packets_total", "Packets the kernel dropped, by its own reason.", o.MaxSeries, "drop_reason", "network_interface_name"),
		changes:  newCounter("ghostlight_process_changes_total", "Processes started and ended.", o.MaxSeries, "service_name", "action"),
		lost:     newCounter("ghostlight_lost_records_total", "Records that are missing, and where they went missing.", o.MaxSeries, "stage", "sensor"),
	}
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
	key := ends{serviceOf(f.Who), serviceOf(f.Peer), f.Transport, f.Direction}
	t := e.flows.of(key)
	if t == e.flows.overflow {
		t.add(f, overflowLabels)
		return
	}
	t.add(f, key.labels)
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
	e.flows.collect(ch)
	for _, c := range []*counter{e.drops, e.changes, e.lost} {
		c.collect(ch)
	}
	e.mu.Unlock()
	e.requests.collect(ch)
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
