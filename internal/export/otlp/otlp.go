// Package otlp sends requests as spans, their durations as metrics and alerts
// as logs to an OpenTelemetry backend, by OTLP over HTTP or gRPC.
//
//	Export -> appendSpan -> queue (bounded) -> pump -> wire -> backend
//	aggregate.Table -> meter (every interval) -> pump -> wire
//
// Export writes a record into the queue and never waits. What the queue has no
// room for, and what the backend does not take, is counted; the store has it
// all the same.
package otlp

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/export"
)

// Exporter sends to a backend. It is off unless the configuration names it.
var Exporter = export.Def{
	Name:  "otlp",
	Doc:   "requests as spans, their durations as metrics and alerts as logs, by OTLP to an OpenTelemetry Collector or backend; off unless asked for",
	OptIn: true,
	New:   newInstance,
}

// closeWithin bounds how long Close sends what is left.
const closeWithin = 5 * time.Second

type instance struct {
	self                     *event.Who
	pid                      uint32
	wantsTraces, wantsAlerts bool
	queue                    *queue
	count                    counts
	log                      *slog.Logger
	stop                     chan struct{} // closed when no more comes
	end                      context.CancelFunc
	pumps                    sync.WaitGroup
}

func newInstance(env export.Env) (export.Instance, error) {
	o := defaults()
	if err := env.Decode(&o); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	log := env.Log
	if log == nil {
		log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	e := &instance{self: &event.Who{Service: "ghostlight", PID: env.PID}, pid: env.PID, queue: newQueue(o.QueueBytes, o.BatchBytes), stop: make(chan struct{}), log: log, wantsTraces: o.wants(traces), wantsAlerts: o.wants(logs)}
	ctx, end := context.WithCancel(context.Background())
	e.end = end
	if err := e.start(ctx, &o, env, log); err != nil {
		end()
		return nil, err
	}
	return e, nil
}

// start makes a pump for records and one for metrics: neither waits for the
// other.
func (e *instance) start(ctx context.Context, o *options, env export.Env, log *slog.Logger) error {
	records, err := newPump(e, o, log)
	if err != nil {
		return err
	}
	measures, err := newPump(e, o, log)
	if err != nil {
		return err
	}
	version := versionOf(env.Host)
	e.pumps.Go(func() { records.records(ctx, env.Host, version) }) // ended by Close
	if o.wants(metrics) {
		if o.Temporality == "cumulative" { // the next export says it all again
			measures.giveUp = min(o.RetryFor, o.MetricsInterval)
		}
		m := newMeter(env.Requests, env.Host, version, o.Temporality == "delta", uint64(time.Now().UnixNano()))
		e.pumps.Go(func() { measures.metrics(ctx, m) }) // ended by Close
	}
	return nil
}

// versionOf is Ghostlight's, for the scope.
func versionOf(host []event.Attr) string {
	for _, a := range host {
		if a.Key == "telemetry.distro.version" {
			return a.Value
		}
	}
	return ""
}

// Export puts the batch's requests and alerts into the queue. It adds nothing
// of our own requests to the backend: each would cause the next.
func (e *instance) Export(b *event.Batch) {
	if e.wantsTraces {
		for i := range b.Requests {
			r := &b.Requests[i]
			if e.pid != 0 && (r.PID == e.pid || r.PeerPID == e.pid) {
				continue
			}
			if !e.queue.add(r.Who, traces, func(m message) message { return appendSpan(m, r, b.Wall) }) {
				e.count.lose(traces, noRoom, 1)
			}
		}
	}
	if e.wantsAlerts {
		for i := range b.Alerts {
			a, who := &b.Alerts[i], b.Alerts[i].Who
			if who == nil {
				who = e.self // it tells about Ghostlight
			}
			if !e.queue.add(who, logs, func(m message) message { return appendLog(m, a, b.Wall) }) {
				e.count.lose(logs, noRoom, 1)
			}
		}
	}
}

// Close sends what is left for closeWithin, and counts the rest as lost.
func (e *instance) Close() error {
	close(e.stop)
	late := time.AfterFunc(closeWithin, e.end)
	defer late.Stop()
	e.pumps.Wait()
	e.end()
	if n := e.count.untold(); n > 0 { // no Lost record will tell
		e.log.Warn("not all could be sent before the end; the store has it", "lost", n)
	}
	return nil
}

// Lost implements export.Sender.
func (e *instance) Lost() uint64 { return e.count.take() }

// Metrics implements export.Sender.
func (e *instance) Metrics() []export.Metric { return e.count.metrics(e.queue.size()) }
