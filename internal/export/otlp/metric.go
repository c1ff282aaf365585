package otlp

import (
	"math"

	"ghostlight/internal/aggregate"
	"ghostlight/internal/event"
)

// The temporalities (opentelemetry/proto/metrics/v1/metrics.proto).
const (
	temporalityDelta      = 1
	temporalityCumulative = 2
)

// pointsPerRequest bounds a request: backends refuse one above 4 MiB.
const pointsPerRequest = 500

// meter turns the table of requests into exponential histograms.
type meter struct {
	table   *aggregate.Table
	host    []event.Attr
	version string
	delta   bool
	started uint64 // Unix nanoseconds at which the counts began
	last    uint64 // delta: when the last ones ended
	before  map[aggregate.Key]aggregate.Histogram
	over    map[aggregate.Metric]aggregate.Histogram // the same, of the overflows
}

func newMeter(t *aggregate.Table, host []event.Attr, version string, delta bool, now uint64) *meter {
	return &meter{
		table: t, host: host, version: version, delta: delta, started: now, last: now,
		before: map[aggregate.Key]aggregate.Histogram{}, over: map[aggregate.Metric]aggregate.Histogram{},
	}
}

// requests calls send for each export request of what was counted until now.
// The message is borrowed.
func (t *meter) requests(m message, now uint64, send func(m message, points int)) message {
	if t.table == nil {
		return m
	}
	series := t.table.Series()
	if t.delta {
		series = t.since(series)
	}
	for len(series) > 0 {
		n := min(len(series), pointsPerRequest)
		m = t.request(m[:0], series[:n], now)
		send(m, n)
		series = series[n:]
	}
	t.last = now
	return m
}

// since subtracts what was told before, and leaves out what did not change.
func (t *meter) since(series []aggregate.Series) []aggregate.Series {
	changed := series[:0]
	for _, s := range series {
		old := t.before[s.Key]
		if s.Overflow {
			old = t.over[s.Metric]
		}
		if old.Count == s.Durations.Count {
			continue
		}
		if s.Overflow {
			t.over[s.Metric] = s.Durations
		} else {
			t.before[s.Key] = s.Durations
		}
		s.Durations = s.Durations.Since(&old)
		changed = append(changed, s)
	}
	return changed
}

// owner is whose a series is: it becomes a resource.
type owner struct{ service, container string }

// request writes an ExportMetricsServiceRequest: by service, then by metric.
func (t *meter) request(m message, series []aggregate.Series, now uint64) message {
	var order []owner
	byOwner := map[owner]map[aggregate.Metric][]aggregate.Series{}
	for _, s := range series {
		o := owner{s.Service, s.Container}
		if byOwner[o] == nil {
			order, byOwner[o] = append(order, o), map[aggregate.Metric][]aggregate.Series{}
		}
		byOwner[o][s.Metric] = append(byOwner[o][s.Metric], s)
	}
	for _, o := range order {
		who := &event.Who{Service: o.service}
		if o.container != "" {
			who.Container = &event.Container{Name: o.container}
		}
		m = resourceOf(m, who, t.host, t.version, func(m message) message {
			for metric, info := range aggregate.Infos {
				if points := byOwner[o][aggregate.Metric(metric)]; len(points) > 0 {
					m = t.metric(m, info, points, now)
				}
			}
			return m
		})
	}
	return m
}

// metric writes a Metric with an ExponentialHistogram.
func (t *meter) metric(m message, info aggregate.Info, points []aggregate.Series, now uint64) message {
	at := m.open(2)
	m.text(1, info.Name)
	m.text(2, info.Help)
	m.text(3, "s")
	histogram := m.open(10)
	for i := range points {
		p := m.open(1)
		m = t.point(m, &points[i], now)
		m.close(p)
	}
	m.varint(2, t.temporality())
	m.close(histogram)
	m.close(at)
	return m
}

func (t *meter) temporality() uint64 {
	if t.delta {
		return temporalityDelta
	}
	return temporalityCumulative
}

// point writes an ExponentialHistogramDataPoint.
func (t *meter) point(m message, s *aggregate.Series, now uint64) message {
	s.Labels(
		func(name, value string) { m.attr(1, name, bounded(value)) },
		func(name string, n int64) { m.attrInt(1, name, n) },
	)
	start := t.started
	if t.delta {
		start = t.last
	}
	d := &s.Durations
	m.fixed64(2, start)
	m.fixed64(3, now)
	m.fixed64(4, d.Count)
	m.double(5, d.Sum)
	m.zigzag(6, aggregate.Schema)
	m.fixed64(7, d.Zero)
	if len(d.Buckets) > 0 {
		at := m.open(8)
		m.zigzag(1, d.First)
		m.packed(2, d.Buckets)
		m.close(at)
	}
	if s.LastTrace.ID != [16]byte{} && uint64(s.LastTime) > start {
		m = exemplar(m, s)
	}
	return m
}

func exemplar(m message, s *aggregate.Series) message {
	at := m.open(11)
	m.fixed64(2, uint64(s.LastTime))
	m.double(3, math.Max(float64(s.LastNS), 0)/1e9)
	m.bytes(4, s.LastTrace.Span[:])
	m.bytes(5, s.LastTrace.ID[:])
	m.close(at)
	return m
}
