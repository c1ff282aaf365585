package prometheus

import "github.com/prometheus/client_golang/prometheus"

// maxLabels is the most labels one of these metrics has.
const maxLabels = 2

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

func newCounter(name, help string, limit int, labels ...string) *counter {
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
