package prometheus

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// maxLabels is the most labels one of our metrics has.
const maxLabels = 4

// labelSet is the values of a metric's labels, as a map key that costs no
// allocation.
type labelSet [maxLabels]string

func labelsOf(values []string) (l labelSet) {
	copy(l[:], values)
	return l
}

const overflowLabel = "otel_metric_overflow"

// counter is a counter with a bounded number of series.
type counter struct {
	desc, overflowDesc *prometheus.Desc
	labels             int
	limit              int
	series             map[labelSet]float64
	overflow           float64
}

func newCounter(name, help string, limit int, labels []string) *counter {
	return &counter{
		desc:         prometheus.NewDesc(name, help, labels, nil),
		overflowDesc: prometheus.NewDesc(name, help, nil, prometheus.Labels{overflowLabel: "true"}),
		labels:       len(labels),
		limit:        limit,
		series:       map[labelSet]float64{},
	}
}

func (c *counter) add(n float64, values ...string) {
	key := labelsOf(values)
	old, known := c.series[key]
	if !known && len(c.series) >= c.limit {
		c.overflow += n
		return
	}
	c.series[key] = old + n
}

func (c *counter) collect(ch chan<- prometheus.Metric) {
	for key, n := range c.series {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, n, key[:c.labels]...)
	}
	if c.overflow > 0 {
		ch <- prometheus.MustNewConstMetric(c.overflowDesc, prometheus.CounterValue, c.overflow)
	}
}

// histogram is a histogram, classic and native, with a bounded number of
// series.
type histogram struct {
	opts     prometheus.HistogramOpts
	labels   []string
	limit    int
	series   map[labelSet]prometheus.Histogram
	overflow prometheus.Histogram
}

func newHistogram(name, help string, limit int, labels ...string) *histogram {
	return &histogram{
		opts: prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
		},
		labels: labels,
		limit:  limit,
		series: map[labelSet]prometheus.Histogram{},
	}
}

func (h *histogram) observe(v float64, values ...string) {
	key := labelsOf(values)
	s := h.series[key]
	switch {
	case s != nil:
	case len(h.series) < h.limit:
		s = h.make(values)
		h.series[key] = s
	default:
		if h.overflow == nil {
			h.overflow = prometheus.NewHistogram(h.with(prometheus.Labels{overflowLabel: "true"}))
		}
		s = h.overflow
	}
	s.Observe(v)
}

func (h *histogram) make(values []string) prometheus.Histogram {
	labels := prometheus.Labels{}
	for i, name := range h.labels {
		labels[name] = values[i]
	}
	return prometheus.NewHistogram(h.with(labels))
}

func (h *histogram) with(labels prometheus.Labels) prometheus.HistogramOpts {
	o := h.opts
	o.Buckets = slices.Clone(o.Buckets)
	o.ConstLabels = labels
	return o
}

func (h *histogram) collect(ch chan<- prometheus.Metric) {
	for _, s := range h.series {
		s.Collect(ch)
	}
	if h.overflow != nil {
		h.overflow.Collect(ch)
	}
}
