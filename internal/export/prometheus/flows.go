package prometheus

import (
	"github.com/prometheus/client_golang/prometheus"

	"ghostlight/internal/event"
)

// ends is what flows are counted by.
type ends struct {
	service, peer string
	transport     event.Transport
	direction     event.Direction
}

// traffic is all that is counted of the flows between two services: a flow
// costs one look-up, however many metrics it moves.
type traffic struct {
	sent, received event.Count
	retransmits    uint64
	closed         [event.Aborted + 1]uint64 // by reason
	connect, rtt   prometheus.Histogram      // TCP only, made when first needed
}

// flows counts traffic with a bounded number of series.
type flows struct {
	limit    int
	series   map[ends]*traffic
	overflow *traffic
}

func newFlows(limit int) *flows { return &flows{limit: limit, series: map[ends]*traffic{}} }

func (c *flows) of(e ends) *traffic {
	t := c.series[e]
	switch {
	case t != nil:
		return t
	case len(c.series) < c.limit:
		t = &traffic{}
		c.series[e] = t
		return t
	case c.overflow == nil:
		c.overflow = &traffic{}
	}
	return c.overflow
}

func (t *traffic) add(f *event.Flow, labels func() prometheus.Labels) {
	t.sent.Bytes += f.Sent.Bytes
	t.sent.Packets += f.Sent.Packets
	t.received.Bytes += f.Received.Bytes
	t.received.Packets += f.Received.Packets
	if f.Transport != event.TCP {
		return
	}
	t.retransmits += f.TCP.Retransmits
	closed := f.TCP.CloseReason != event.StillOpen
	if closed && int(f.TCP.CloseReason) < len(t.closed) {
		t.closed[f.TCP.CloseReason]++
	}
	if closed && f.TCP.ConnectNS > 0 {
		observe(&t.connect, connectOpts, float64(f.TCP.ConnectNS)/1e9, labels)
	}
	if f.TCP.RTTNS > 0 {
		observe(&t.rtt, rttOpts, float64(f.TCP.RTTNS)/1e9, labels)
	}
}

func observe(h *prometheus.Histogram, opts prometheus.HistogramOpts, v float64, labels func() prometheus.Labels) {
	if *h == nil {
		opts.ConstLabels = labels()
		*h = prometheus.NewHistogram(opts)
	}
	(*h).Observe(v)
}

// Seconds. Connections and round trips span from a loopback's microseconds to
// a lost packet's seconds.
var buckets = []float64{.00001, .0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

var (
	connectOpts = histogramOpts("ghostlight_tcp_connect_duration_seconds", "From SYN to established, at the client.")
	rttOpts     = histogramOpts("ghostlight_tcp_rtt_seconds", "Smoothed round-trip time when a connection was reported.")
)

func histogramOpts(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
	}
}

// labels are the names of ends in metrics.
func (e ends) labels() prometheus.Labels {
	return prometheus.Labels{
		"service_name": e.service, "peer_service_name": e.peer,
		"network_transport": e.transport.String(), "direction": e.direction.String(),
	}
}

func overflowLabels() prometheus.Labels { return prometheus.Labels{overflowLabel: "true"} }

func (c *flows) collect(ch chan<- prometheus.Metric) {
	for e, t := range c.series {
		t.collect(ch, e.transport, e.labels())
	}
	if c.overflow != nil {
		c.overflow.collect(ch, event.TCP, overflowLabels())
	}
}

func (t *traffic) collect(ch chan<- prometheus.Metric, transport event.Transport, labels prometheus.Labels) {
	count := func(name, help string, n uint64, variable, value string) {
		desc := prometheus.NewDesc(name, help, []string{variable}, labels)
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), value)
	}
	for way, c := range map[string]event.Count{"transmit": t.sent, "receive": t.received} {
		count("ghostlight_flow_io_bytes_total", "Payload of flows.", c.Bytes, "network_io_direction", way)
		count("ghostlight_flow_io_packets_total", "Packets of flows.", c.Packets, "network_io_direction", way)
	}
	if transport != event.TCP {
		return
	}
	for reason, n := range t.closed {
		if n > 0 {
			count("ghostlight_tcp_connections_total", "TCP connections that ended, seen from one end.", n, "tcp_close_reason", event.CloseReason(reason).String())
		}
	}
	desc := prometheus.NewDesc("ghostlight_tcp_retransmits_total", "TCP segments sent again.", nil, labels)
	ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(t.retransmits))
	for _, h := range []prometheus.Histogram{t.connect, t.rtt} {
		if h != nil {
			h.Collect(ch)
		}
	}
}
