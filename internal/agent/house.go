package agent

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ghostlight/internal/api"
	"ghostlight/internal/config"
	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
)

// housekeeping is what the loop does beside draining: once a second it gives
// the sensors their turn, counts losses and publishes the status; every
// budgetPeriod it judges the cost; every meterEvery, or more often if it matters,
// it measures the programs.
type housekeeping struct {
	a      *Agent
	host   api.Host
	budget budget
	meter  *kernel.Meter

	ticks  int
	next   int64 // monotonic time of the next tick
	last   int64 // of the last one
	events uint64
	shown  uint64 // events at the last tick
	lost   []api.LostStage

	used       usage // at the last budget period
	own        cost  // of the last budget period
	programs   []kernel.ProgramCost
	metering   bool // a window is open
	checkpoint int64
}

const (
	tickEvery       = time.Second
	periodTicks     = int(budgetPeriod / tickEvery)
	meterEvery      = 6 * periodTicks
	lossesEvery     = 2 // ticks; a look at each program's counters is a system call
	checkpointEvery = time.Hour
	settledAt       = 5 // ticks after the start
)

// drainInterval is the shortest time between two drains.
const drainInterval = 10 * time.Millisecond

func newHousekeeping(a *Agent) *housekeeping {
	now := monotonic()
	h := &housekeeping{a: a, host: hostInfo(), next: now, last: now, checkpoint: now + int64(checkpointEvery)}
	h.limits(a.cfg)
	h.budget.among(a.watch.sheddable())
	var err error
	if h.meter, err = a.kernel.NewMeter(); err != nil {
		a.log.Warn("the cost of programs is not known", "error", err)
	}
	h.publishDoctor()
	return h
}

func (h *housekeeping) limits(cfg config.Config) {
	h.budget.cpu, h.budget.memory = float64(cfg.Budget.CPU)/100, int64(cfg.Budget.Memory)
}

// count adds up a batch that went down the spine.
func (h *housekeeping) count(b *event.Batch) {
	if h == nil {
		return // the sensors tell of the time before the start
	}
	h.events += uint64(b.Len())
	for _, l := range b.Lost {
		h.addLost(l)
	}
}

func (h *housekeeping) addLost(l event.Lost) {
	for i := range h.lost {
		if s := &h.lost[i]; s.Stage == l.Stage && s.Sensor == l.Sensor {
			s.Count += l.Count
			return
		}
	}
	h.lost = append(h.lost, api.LostStage{Stage: l.Stage, Sensor: l.Sensor, Count: l.Count})
}

// keep does what is due. It is called after every drain.
func (h *housekeeping) keep() {
	now := monotonic()
	if now < h.next {
		return
	}
	h.next = now + int64(tickEvery)
	a := h.a
	a.watch.tick(now, &a.batch)
	a.correlate.Tick(now, &a.batch)
	if h.ticks%lossesEvery == 0 {
		a.watch.losses(&a.batch)
		a.exportLosses(now)
	}
	if now >= h.checkpoint {
		h.checkpoint = now + int64(checkpointEvery)
		a.enrich.Checkpoint(now, &a.batch)
	}
	a.flush()
	h.measure()
	if h.ticks%periodTicks == 0 {
		h.judge(now)
	}
	h.reload()
	if h.ticks == settledAt {
		h.forget()
	}
	h.publish(now)
	h.ticks++
}

// forget gives back what the start took, once what it left behind is done too.
func (h *housekeeping) forget() {
	h.a.kernel.Settle()
	if err := forgetStartup(); err != nil {
		h.a.log.Debug("pages of the start stay resident", "error", err)
	}
}

// measure opens a window every meterEvery ticks and closes it at the next one.
// While the budget is about to decide, it does so in each of its periods: a
// load that is over must not count any more.
func (h *housekeeping) measure() {
	every := meterEvery
	if h.budget.uneasy() {
		every = periodTicks
	}
	var err error
	switch {
	case h.meter == nil:
	case h.metering:
		h.metering = false
		h.programs, err = h.meter.End(h.programs[:0])
	case h.ticks%every == 2: // soon after the start there is something to show
		h.metering = true
		err = h.meter.Begin()
	}
	if err != nil {
		h.a.log.Warn("the cost of programs is not known", "error", err)
		h.meter, h.metering = nil, false
	}
}

// judge compares the last period with the budget and acts.
func (h *housekeeping) judge(now int64) {
	u := readUsage(now)
	if h.used.at > 0 {
		h.own = u.since(h.used, h.programs)
		h.act(h.budget.period(h.own))
	}
	h.used = readUsage(monotonic()) // to load a sensor is no cost of watching
}

func (h *housekeeping) act(drop, restore string) {
	a := h.a
	switch {
	case drop != "":
		err := a.watch.letGo(drop, api.SensorShed, &a.batch)
		h.alert("budget.shed", "warning", fmt.Sprintf("the budget is exceeded (%.1f %% of a core, %d MiB): sensor %s is let go", 100*h.own.CPU, h.own.Memory>>20, drop), err)
	case restore != "":
		err := a.watch.load(a.watch.index(restore), &a.batch)
		a.kernel.Settle()
		h.budget.among(a.watch.sheddable())
		h.alert("budget.restored", "info", fmt.Sprintf("there is room in the budget again: sensor %s is back", restore), err)
		h.publishDoctor()
	}
}

func (h *housekeeping) alert(name, severity, message string, err error) {
	if err != nil {
		message += ": " + err.Error()
	}
	h.a.log.Warn(message, "alert", name)
	h.a.batch.Alerts = append(h.a.batch.Alerts, event.Alert{Time: monotonic(), Name: name, Severity: severity, Message: message})
	h.a.flush()
}

// reload takes over a new configuration, if there is one.
func (h *housekeeping) reload() {
	select {
	case cfg := <-h.a.reload:
		h.takeOver(cfg)
	default:
	}
}

// takeOver does what the keys say that config marks as live.
func (h *housekeeping) takeOver(cfg config.Config) {
	a := h.a
	boundMemory(int64(cfg.Budget.Memory))
	h.limits(cfg)
	a.enrich.Deny(cfg.Redact.Deny)
	if !slices.Equal(cfg.Routes.Patterns, a.cfg.Routes.Patterns) { // what was learnt is forgotten with them
		if err := a.enrich.Routes(cfg.Routes.Patterns); err != nil {
			a.log.Warn("the routes stay as they were", "error", err)
		}
	}
	a.store.SetRetention(time.Duration(cfg.Retention.Age), int64(cfg.Retention.Bytes))
	a.store.SetSync(time.Duration(cfg.Sync))
	h.sensors(cfg)
	a.cfg.Budget, a.cfg.Redact, a.cfg.Routes = cfg.Budget, cfg.Redact, cfg.Routes
	a.cfg.Retention, a.cfg.Sync, a.cfg.Sensors = cfg.Retention, cfg.Sync, cfg.Sensors
}

// sensors loads those whose part of the configuration is another, and lets go
// of those that are not asked for any more.
func (h *housekeeping) sensors(cfg config.Config) {
	a, changed := h.a, false
	for i, s := range a.watch.sensors {
		name := s.def.Name
		part := cfg.Sensor(name)
		if part.Equal(a.cfg.Sensor(name)) {
			continue
		}
		changed = true
		a.drain() // what the sensor saw until now is its own
		if err := a.watch.change(i, part, &a.batch); err != nil {
			a.log.Warn("a sensor does not run as it should", "sensor", name, "error", err)
		}
		a.drain() // as in attach
	}
	if !changed {
		return
	}
	a.kernel.Settle()
	h.budget.among(a.watch.sheddable())
	h.publishDoctor()
	h.used = readUsage(monotonic()) // as in judge
}

// usage is the CPU time and memory of the agent's process.
type usage struct {
	at      int64
	process time.Duration // CPU of all threads
	reader  time.Duration // CPU of the calling thread, which is the loop's
	memory  int64
}

func readUsage(now int64) usage {
	user, system := cpuTime(unix.RUSAGE_SELF)
	ours, kernels := cpuTime(unix.RUSAGE_THREAD)
	return usage{at: now, process: user + system, reader: ours + kernels, memory: residentBytes()}
}

func (u usage) since(before usage, programs []kernel.ProgramCost) cost {
	window, bpf := float64(u.at-before.at), 0.0
	for _, p := range programs {
		bpf += p.CPU
	}
	own := float64(u.process-before.process) / window
	return cost{
		CPU:      own + bpf,
		Process:  own,
		Watching: float64(u.reader-before.reader)/window + bpf,
		Memory:   u.memory,
	}
}

// cpuTime returns the CPU time of this process or thread.
func cpuTime(who int) (user, system time.Duration) {
	var r unix.Rusage
	if err := unix.Getrusage(who, &r); err != nil {
		return 0, 0
	}
	return time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano())
}

// residentBytes is the resident set, from /proc/self/statm (proc(5)).
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
