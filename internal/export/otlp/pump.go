package otlp

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"ghostlight/internal/event"
)

// pump is a goroutine that sends.
type pump struct {
	e       *instance
	wire    *wire
	log     *slog.Logger
	flush   time.Duration // records
	every   time.Duration // metrics
	giveUp  time.Duration
	out     message
	failing [signals]bool // and the log has said so
	partial [signals]bool // the same, of records the backend refuses
}

// The waits between two tries, unless the backend says another.
const (
	firstWait = 500 * time.Millisecond
	maxWait   = 30 * time.Second
)

func newPump(e *instance, o *options, log *slog.Logger) (*pump, error) {
	w, err := newWire(o)
	if err != nil {
		return nil, err
	}
	return &pump{e: e, wire: w, log: log.With("endpoint", o.Endpoint), flush: o.FlushInterval, every: o.MetricsInterval, giveUp: o.RetryFor}, nil
}

// records sends what is in the queue, until Close; then what is left.
func (p *pump) records(ctx context.Context, host []event.Attr, version string) {
	defer p.wire.rt.CloseIdleConnections()
	flush := time.NewTicker(p.flush)
	defer flush.Stop()
	for {
		all := false
		select {
		case <-p.e.queue.wake:
		case <-flush.C:
			all = true
		case <-p.e.stop:
			p.empty(ctx, true, host, version)
			return
		}
		p.empty(ctx, all, host, version)
	}
}

func (p *pump) empty(ctx context.Context, all bool, host []event.Attr, version string) {
	for c := p.e.queue.take(all); c != nil; c = p.e.queue.take(all) {
		for _, s := range []signal{traces, logs} {
			if n := c.count(s); n > 0 {
				p.out = c.request(p.out[:0], s, host, version)
				p.deliver(ctx, s, p.out, n)
			}
		}
		p.e.queue.giveBack(c)
	}
}

// metrics sends the table every interval, and once more at Close.
func (p *pump) metrics(ctx context.Context, m *meter) {
	defer p.wire.rt.CloseIdleConnections()
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for isLast := false; !isLast; {
		select {
		case <-tick.C:
		case <-p.e.stop:
			isLast = true
		}
		p.out = m.requests(p.out, uint64(time.Now().UnixNano()), func(m message, points int) { p.deliver(ctx, metrics, m, points) })
	}
}

// deliver sends n records, again and again if the backend asks for it, and
// counts what became of them.
func (p *pump) deliver(ctx context.Context, s signal, request []byte, n int) {
	began := time.Now()
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		a := p.wire.send(ctx, s, request)
		switch {
		case a.err == nil:
			p.took(s, n, a)
			return
		case !a.retry:
			p.e.count.lose(s, rejected, n)
			p.failed(s, a.err)
			return
		}
		p.failed(s, a.err)
		pause := max(a.after, jittered(wait))
		if time.Since(began)+pause > p.giveUp || !p.sleep(ctx, pause) {
			p.e.count.lose(s, gaveUp, n)
			return
		}
		p.e.count.retries.Add(1)
	}
}

// jittered keeps hosts from coming back all at once.
func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// sleep waits; false: Close does not.
func (p *pump) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.e.stop:
	case <-ctx.Done():
	}
	return false
}

func (p *pump) took(s signal, n int, a answer) {
	lost := min(a.rejected, n)
	p.e.count.sent[s].Add(uint64(n - lost))
	p.e.count.lose(s, rejected, lost)
	if lost > 0 && !p.partial[s] {
		p.log.Warn("the backend refuses some of what is sent", "signal", s.String(), "refused", lost, "message", a.message)
	}
	if p.failing[s] {
		p.log.Info("what is sent arrives again", "signal", s.String())
	}
	p.partial[s], p.failing[s] = lost > 0, false
}

func (p *pump) failed(s signal, err error) {
	if !p.failing[s] {
		p.log.Warn("what is sent does not arrive; it is tried again where that can help", "error", err)
	}
	p.failing[s] = true
}
