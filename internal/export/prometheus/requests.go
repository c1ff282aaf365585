package prometheus

import (
	"cmp"
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"ghostlight/internal/aggregate"
)

// histogram is a snapshot of durations in both forms at once: the classic
// buckets, which every scraper reads, and the native ones, which go out by
// protobuf only.
type histogram struct {
	desc      *prometheus.Desc
	labels    []*dto.LabelPair
	durations aggregate.Histogram
	exemplar  *dto.Exemplar // nil if no trace is known
}

// Desc implements prometheus.Metric.
func (h *histogram) Desc() *prometheus.Desc { return h.desc }

// Write implements prometheus.Metric.
func (h *histogram) Write(m *dto.Metric) error {
	d := &h.durations
	m.Label = h.labels
	m.Histogram = &dto.Histogram{
		SampleCount: new(d.Count), SampleSum: new(d.Sum), Bucket: h.classic(),
		Schema: new(int32(aggregate.Schema)), ZeroThreshold: new(0.0), ZeroCount: new(d.Zero),
	}
	h.native(m.Histogram)
	if h.exemplar != nil {
		m.Histogram.Exemplars = []*dto.Exemplar{h.exemplar}
	}
	return nil
}

// classic returns the buckets that have a bound, and the last one if it has the
// exemplar.
func (h *histogram) classic() []*dto.Bucket {
	d := &h.durations
	buckets := make([]*dto.Bucket, 0, len(d.Bounds)+1)
	sum, open := uint64(0), h.exemplar
	for i, bound := range d.Bounds {
		sum += d.Classic[i]
		b := &dto.Bucket{UpperBound: new(bound), CumulativeCount: new(sum)}
		if open != nil && open.GetValue() <= bound {
			b.Exemplar, open = open, nil
		}
		buckets = append(buckets, b)
	}
	if open != nil {
		buckets = append(buckets, &dto.Bucket{UpperBound: new(math.Inf(1)), CumulativeCount: new(d.Count), Exemplar: open})
	}
	return buckets
}

// native writes the exponential buckets as spans of counts, each count as its
// difference to the one before. Prometheus numbers a bucket by its upper bound,
// OpenTelemetry by its lower one: hence the 1. A span of nothing tells a scraper
// that the histogram is native even if all durations are 0.
func (h *histogram) native(out *dto.Histogram) {
	const gap = 2 // empty buckets that cost less than another span
	last, before := 0, int64(0)
	for i, n := range h.durations.Buckets {
		if n == 0 {
			continue
		}
		index := h.durations.First + i + 1
		empty := index - last
		if len(out.PositiveSpan) == 0 || empty > gap {
			out.PositiveSpan = append(out.PositiveSpan, &dto.BucketSpan{Offset: new(int32(empty)), Length: new(uint32(0))})
			empty = 0
		}
		span := out.PositiveSpan[len(out.PositiveSpan)-1]
		for range empty {
			out.PositiveDelta = append(out.PositiveDelta, -before)
			before = 0
		}
		out.PositiveDelta = append(out.PositiveDelta, int64(n)-before)
		*span.Length += uint32(empty + 1)
		before, last = int64(n), index+1
	}
	if len(out.PositiveSpan) == 0 {
		out.PositiveSpan = []*dto.BucketSpan{{Offset: new(int32(0)), Length: new(uint32(0))}}
	}
}

// requests turns the table into metrics.
type requests struct {
	table *aggregate.Table
	descs []*prometheus.Desc // by aggregate.Metric
}

func newRequests(t *aggregate.Table) *requests {
	r := &requests{table: t}
	for _, info := range aggregate.Infos {
		r.descs = append(r.descs, prometheus.NewDesc(promName(info.Name)+"_seconds", info.Help, nil, nil))
	}
	return r
}

// promName is an OpenTelemetry name in Prometheus form.
func promName(name string) string { return strings.ReplaceAll(name, ".", "_") }

func (r *requests) collect(ch chan<- prometheus.Metric) {
	if r.table == nil {
		return
	}
	for _, s := range r.table.Series() {
		ch <- &histogram{desc: r.descs[s.Metric], labels: labelsOfSeries(&s), durations: s.Durations, exemplar: exemplarOf(&s)}
	}
	for _, c := range r.table.Calls() {
		collectCalls(ch, &c)
	}
}

func labelsOfSeries(s *aggregate.Series) []*dto.LabelPair {
	pairs := make([]*dto.LabelPair, 0, 12)
	text := func(name, value string) {
		pairs = append(pairs, &dto.LabelPair{Name: new(promName(name)), Value: new(value)})
	}
	if !s.Overflow {
		text(aggregate.ServiceName, s.Service)
	}
	if s.Container != "" {
		text(aggregate.ContainerName, s.Container)
	}
	s.Labels(text, func(name string, n int64) { text(name, strconv.FormatInt(n, 10)) })
	return sorted(pairs)
}

func sorted(pairs []*dto.LabelPair) []*dto.LabelPair {
	slices.SortFunc(pairs, func(a, b *dto.LabelPair) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return pairs
}

func exemplarOf(s *aggregate.Series) *dto.Exemplar {
	if s.LastTrace.ID == [16]byte{} {
		return nil
	}
	return &dto.Exemplar{
		Label: []*dto.LabelPair{
			{Name: new("span_id"), Value: new(hex.EncodeToString(s.LastTrace.Span[:]))},
			{Name: new("trace_id"), Value: new(hex.EncodeToString(s.LastTrace.ID[:]))},
		},
		Value:     new(float64(max(s.LastNS, 0)) / 1e9),
		Timestamp: timestamppb.New(time.Unix(0, s.LastTime)),
	}
}

// The service graph, by the names that dashboards of traces know.
var (
	callsDesc  = prometheus.NewDesc("traces_service_graph_request_total", "Requests between two services.", nil, nil)
	failedDesc = prometheus.NewDesc("traces_service_graph_request_failed_total", "Requests between two services that failed.", nil, nil)
	serverDesc = prometheus.NewDesc("traces_service_graph_request_server_seconds", "Duration of requests between two services, seen at the server.", nil, nil)
	clientDesc = prometheus.NewDesc("traces_service_graph_request_client_seconds", "Duration of requests between two services, seen at the client.", nil, nil)
)

// plainCounter is a counter whose labels are known already.
type plainCounter struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	n      uint64
}

// Desc implements prometheus.Metric.
func (c *plainCounter) Desc() *prometheus.Desc { return c.desc }

// Write implements prometheus.Metric.
func (c *plainCounter) Write(m *dto.Metric) error {
	m.Label, m.Counter = c.labels, &dto.Counter{Value: new(float64(c.n))}
	return nil
}

func collectCalls(ch chan<- prometheus.Metric, c *aggregate.Calls) {
	labels, side := labelsOfEdge(c), c.Side()
	ch <- &plainCounter{callsDesc, labels, side.Durations.Count}
	ch <- &plainCounter{failedDesc, labels, side.Failed}
	if c.AtServer.Durations.Count > 0 {
		ch <- &histogram{desc: serverDesc, labels: labels, durations: c.AtServer.Durations}
	}
	if c.AtClient.Durations.Count > 0 {
		ch <- &histogram{desc: clientDesc, labels: labels, durations: c.AtClient.Durations}
	}
}

func labelsOfEdge(c *aggregate.Calls) []*dto.LabelPair {
	if c.Overflow {
		return []*dto.LabelPair{{Name: new(overflowLabel), Value: new("true")}}
	}
	return []*dto.LabelPair{ // sorted
		{Name: new("client"), Value: new(c.Client)},
		{Name: new("connection_type"), Value: new(c.Type)},
		{Name: new("network_protocol_name"), Value: new(c.Protocol)},
		{Name: new("server"), Value: new(c.Server)},
	}
}
