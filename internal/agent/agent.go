// Package agent joins the parts into the running product. Read Open and loop
// to see all of it:
//
//	ring -> watcher.decode -> batch -> correlate -> enrich -> aggregate, exporters -> store
//	                                                                                    ^ API, CLI and UI pull by cursor
//
// Everything between the ring and the store is plain calls on one goroutine.
package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ghostlight/internal/aggregate"
	"ghostlight/internal/api"
	"ghostlight/internal/catalog"
	"ghostlight/internal/config"
	"ghostlight/internal/correlate"
	"ghostlight/internal/enrich"
	"ghostlight/internal/event"
	"ghostlight/internal/export"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
	"ghostlight/internal/store"
)

// Agent is a Ghostlight that watches this host. Close ends it.
type Agent struct {
	cfg     config.Config
	log     *slog.Logger
	started time.Time

	kernel    *kernel.Kernel
	reader    *kernel.Reader
	watch     *watcher
	correlate *correlate.Correlator
	enrich    *enrich.Enricher
	requests  *aggregate.Table
	exporters []export.Instance
	store     *store.Store

	batch  event.Batch
	decode func(raw []byte)
	house  *housekeeping
	reload chan config.Config

	stopped chan struct{} // closed when the loop has ended
	ended   error         // why it ended, once stopped is closed

	mu     sync.Mutex // the fields below are read by the API
	status api.Status
	doctor api.Doctor
	seers  map[string]sensor.Seer // by the sensor's name
	self   []export.Metric
}

// requestSeries bounds how many operations of services are counted apart.
const requestSeries = 2000

// batchSize bounds how many records go down the spine in one call.
const batchSize = 256

// Open attaches the sensors, opens the store and begins to watch. It fails
// only if no sensor at all can run, or the store cannot be opened.
func Open(cfg config.Config, log *slog.Logger) (*Agent, error) {
	boundMemory(int64(cfg.Budget.Memory))
	a := &Agent{cfg: cfg, log: log, started: time.Now(), stopped: make(chan struct{}), reload: make(chan config.Config, 1)}
	if err := errors.Join(a.openStages(), a.openKernel()); err != nil {
		return nil, errors.Join(err, a.closeParts())
	}
	a.decode = func(raw []byte) { a.watch.decode(raw, &a.batch) }
	if err := a.attach(); err != nil {
		return nil, errors.Join(err, a.closeParts())
	}
	a.house = newHousekeeping(a)
	go a.run() // ended by Close
	return a, nil
}

// openStages makes what stands between the ring and the viewers.
func (a *Agent) openStages() (err error) {
	a.enrich, err = enrich.New(enrich.Options{Deny: a.cfg.Redact.Deny, Routes: a.cfg.Routes.Patterns})
	if err != nil {
		return fmt.Errorf("start enrich: %w", err)
	}
	a.correlate = correlate.New(correlate.Options{Protos: catalog.Protos, Learn: a.enrich.Learn})
	a.store, err = store.Open(a.cfg.Data, event.Tables, storeOptions(a.cfg))
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	a.requests = aggregate.New(requestSeries)
	return a.openExporters()
}

// openExporters starts those that are asked for.
func (a *Agent) openExporters() error {
	for _, d := range catalog.Exporters {
		part := a.cfg.Exporter(d.Name)
		if _, named := a.cfg.Exporters[d.Name]; !part.Enabled || d.OptIn && !named {
			continue
		}
		e, err := d.New(export.Env{
			Decode: part.Options, Requests: a.requests, Self: a.selfMetrics,
			Host: hostAttrs(), PID: uint32(os.Getpid()), Log: a.log.With("exporter", d.Name),
		})
		if err != nil {
			return fmt.Errorf("start exporter %s: %w", d.Name, part.Blame(err))
		}
		a.exporters = append(a.exporters, e)
	}
	return nil
}

func storeOptions(cfg config.Config) store.Options {
	return store.Options{
		Retention:      time.Duration(cfg.Retention.Age),
		RetentionBytes: int64(cfg.Retention.Bytes),
		Sync:           time.Duration(cfg.Sync),
	}
}

func (a *Agent) openKernel() (err error) {
	if a.kernel, err = kernel.New(kernel.DefaultRingBytes); err != nil {
		return err
	}
	a.reader, err = a.kernel.NewReader()
	return err
}

// attach loads every sensor that is asked for. One that fails is reported and
// left out.
func (a *Agent) attach() error {
	a.watch = &watcher{k: a.kernel}
	attached := 0
	for i, d := range catalog.Sensors {
		part := a.cfg.Sensor(d.Name)
		s := &running{def: d, decode: part.Options, state: api.SensorOff}
		a.watch.sensors = append(a.watch.sensors, s)
		if !part.Enabled {
			continue
		}
		if err := a.watch.load(i, &a.batch); err != nil {
			a.log.Warn("a sensor does not run as it should", "sensor", d.Name, "error", err)
		}
		if s.obj != nil {
			attached++
		}
		a.drain() // what it told of the time before must not crowd the ring
	}
	a.kernel.Settle()
	if attached == 0 {
		return errors.New("no sensor can run on this host: `ghostlight doctor` says why")
	}
	return nil
}

// run is the goroutine of the hot path.
func (a *Agent) run() {
	// Its CPU time is read by thread, so it keeps its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(a.stopped)
	hurry(a.log)
	a.ended = a.loop()
	a.watch.tick(monotonic(), &a.batch) // what was counted since the last one
	a.watch.losses(&a.batch)
	a.drain()
	a.correlate.Close(&a.batch)
	a.flush()
}

// hurry puts this thread before others: the ring fills fastest when the CPUs are
// taken by the very processes that fill it. Without the right to it (a user with
// the five capabilities) it waits its turn.
func hurry(log *slog.Logger) {
	const nice = -10
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), nice); err != nil {
		log.Debug("the reader has no priority over what it watches", "error", err)
	}
}

func (a *Agent) loop() error {
	wait := time.Duration(0)
	for {
		err := a.reader.Wait(wait)
		drained := a.drain()
		a.house.keep()
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		wait = adaptive(max(wait, drainInterval), drained)
	}
}

// drain empties the ring.
func (a *Agent) drain() (n int) {
	for {
		k := a.reader.Drain(batchSize, a.decode)
		a.flush()
		if n += k; k < batchSize {
			return n
		}
	}
}

// flush sends the batch down the spine.
func (a *Agent) flush() {
	a.correlate.Apply(&a.batch)
	if a.batch.Len() == 0 {
		a.batch.Reset()
		return
	}
	a.batch.Wall = wallOffset()
	a.enrich.Apply(&a.batch)
	a.requests.Add(&a.batch)
	for _, e := range a.exporters {
		e.Export(&a.batch)
	}
	a.store.Append(&a.batch)
	a.house.count(&a.batch)
	a.batch.Reset()
}

// Store gives the viewers what was seen.
func (a *Agent) Store() *store.Store { return a.store }

// Servers gives the exporters that answer HTTP requests.
func (a *Agent) Servers() []export.Server {
	var servers []export.Server
	for _, e := range a.exporters {
		if s, ok := e.(export.Server); ok {
			servers = append(servers, s)
		}
	}
	return servers
}

// Done is closed when the agent stopped watching; Err then says why.
func (a *Agent) Done() <-chan struct{} { return a.stopped }

// Err returns what ended the agent, nil if it was Close.
func (a *Agent) Err() error {
	<-a.stopped
	return a.ended
}

// Close reads what is left in the ring, detaches the sensors and flushes the
// store.
func (a *Agent) Close() error {
	err := a.reader.Stop()
	<-a.stopped
	return errors.Join(err, a.closeParts())
}

func (a *Agent) closeParts() error {
	var errs []error
	if a.reader != nil {
		errs = append(errs, a.reader.Close())
	}
	if a.kernel != nil {
		errs = append(errs, a.kernel.Close())
	}
	for _, e := range a.exporters {
		errs = append(errs, e.Close())
	}
	if a.enrich != nil {
		errs = append(errs, a.enrich.Close())
	}
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	return errors.Join(errs...)
}
