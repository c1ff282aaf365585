package otlp

import (
	"sync/atomic"

	"ghostlight/internal/event"
	"ghostlight/internal/export"
)

// why records did not arrive.
type why uint8

const (
	noRoom   why = iota // the queue was full
	rejected            // the backend refuses them
	gaveUp              // the backend could not take them for too long
	reasons
)

var reasonNames = [reasons]string{"queue_full", "rejected", "gave_up"}

// counts is what became of records. Points of metrics count by themselves: the
// next export tells of the same requests again.
type counts struct {
	sent    [signals]atomic.Uint64
	lost    [signals][reasons]atomic.Uint64
	retries atomic.Uint64
	told    uint64 // of the lost, by take
}

func (c *counts) lose(s signal, w why, n int) { c.lost[s][w].Add(uint64(n)) }

// take returns the spans and logs lost since the last call.
func (c *counts) take() uint64 {
	n := c.untold()
	c.told += n
	return n
}

// untold is what take would return.
func (c *counts) untold() (n uint64) {
	for _, s := range []signal{traces, logs} {
		for w := range reasons {
			n += c.lost[s][w].Load()
		}
	}
	return n - c.told
}

func (c *counts) metrics(queued int) []export.Metric {
	m := []export.Metric{
		{Name: "ghostlight_export_queue_bytes", Help: "What waits to be sent.", Value: float64(queued), Labels: labels()},
		{Name: "ghostlight_export_retries_total", Help: "Requests to a backend that were tried again.", Counter: true, Value: float64(c.retries.Load()), Labels: labels()},
	}
	for s := range signals {
		name := event.Attr{Key: "signal", Value: s.String()}
		m = append(m, export.Metric{
			Name: "ghostlight_export_records_total", Help: "Spans, points of metrics and log records that a backend took.", Counter: true,
			Value: float64(c.sent[s].Load()), Labels: labels(name),
		})
		for w := range reasons {
			m = append(m, export.Metric{
				Name: "ghostlight_export_lost_records_total", Help: "Spans, points of metrics and log records that did not arrive at a backend.", Counter: true,
				Value: float64(c.lost[s][w].Load()), Labels: labels(name, event.Attr{Key: "reason", Value: reasonNames[w]}),
			})
		}
	}
	return m
}

func labels(more ...event.Attr) []event.Attr {
	return append([]event.Attr{{Key: "exporter", Value: Exporter.Name}}, more...)
}
