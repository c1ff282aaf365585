package agent

import (
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ghostlight/internal/api"
	"ghostlight/internal/event"
	"ghostlight/internal/export"
	"ghostlight/internal/store"
)

// Status returns what the last tick saw.
func (a *Agent) Status() api.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

// publish makes the status that the API and the metrics show.
func (h *housekeeping) publish(now int64) {
	a, kept := h.a, h.a.store.Status()
	s := api.Status{
		Version:  Version(),
		Host:     h.host,
		Started:  a.started,
		UptimeNS: int64(time.Since(a.started)),
		Agent:    api.Cost{CPUPercent: 100 * h.own.Process, RSSBytes: residentBytes()},
		Events:   api.Events{Total: h.events, PerSecond: perSecond(h.events-h.shown, now-h.last)},
		Lost:     h.lostStatus(kept.Lost),
		Budget:   h.budgetStatus(),
		Store:    storeStatus(kept, a),
		Programs: []api.Program{},
	}
	for _, r := range a.watch.sensors {
		s.Sensors = append(s.Sensors, r.status())
		s.FeaturesOff += r.featuresOff()
	}
	for _, p := range h.programs {
		s.Programs = append(s.Programs, api.Program{Name: p.Program, Sensor: p.Sensor, Runs: p.Runs, NSPerRun: p.PerRunNS, CPUPercent: 100 * p.CPU})
	}
	h.last, h.shown = now, h.events
	self := h.selfMetrics(&s)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status, a.self = s, self
}

func perSecond(n uint64, elapsed int64) float64 {
	if elapsed <= 0 {
		return 0
	}
	return float64(n) * 1e9 / float64(elapsed)
}

func (h *housekeeping) lostStatus(byStore uint64) api.Lost {
	l := api.Lost{ByStage: append([]api.LostStage{}, h.lost...)} // an empty list, never null
	if byStore > 0 {
		l.ByStage = append(l.ByStage, api.LostStage{Stage: "store", Count: byStore})
	}
	for _, s := range l.ByStage {
		l.Total += s.Count
	}
	return l
}

func (h *housekeeping) budgetStatus() api.Budget {
	b := api.Budget{
		State:            api.BudgetOK,
		CPUPercent:       100 * h.own.CPU,
		CPULimitPercent:  100 * h.budget.cpu,
		MemoryBytes:      residentBytes(),
		MemoryLimitBytes: h.budget.memory,
		Shed:             append([]string{}, h.budget.shed...),
	}
	if len(b.Shed) > 0 {
		b.State = api.BudgetShedding
	}
	return b
}

func storeStatus(s store.Status, a *Agent) api.Store {
	st := api.Store{
		Bytes: s.Bytes, Rows: int64(s.Rows), Error: s.Error,
		RetentionNS: int64(a.cfg.Retention.Age), RetentionBytes: int64(a.cfg.Retention.Bytes),
	}
	if s.Rows > 0 {
		oldest, newest := time.Unix(0, s.Oldest).UTC(), time.Unix(0, s.Newest).UTC()
		st.Oldest, st.Newest = &oldest, &newest
	}
	return st
}

func (r *running) status() api.Sensor {
	s := api.Sensor{Name: r.def.Name, Doc: r.def.Doc, State: r.state, Events: r.events, Lost: r.lost + r.seen}
	if r.err != nil {
		s.Error = r.err.Error()
	}
	return s
}

// featuresOff counts the hooks that no tier serves on this kernel.
func (r *running) featuresOff() (n int) {
	for _, h := range r.hooks {
		if h.Tier == "" {
			n++
		}
	}
	return n
}

// selfMetrics gives the exporters what the last tick saw.
func (a *Agent) selfMetrics() []export.Metric {
	m := icmpMetrics()
	for _, e := range a.exporters {
		if s, ok := e.(export.Sender); ok {
			m = append(m, s.Metrics()...)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return append(m, a.self...)
}

func (h *housekeeping) selfMetrics(s *api.Status) []export.Metric {
	gauge := func(name, help string, v float64, labels ...event.Attr) export.Metric {
		return export.Metric{Name: name, Help: help, Value: v, Labels: labels}
	}
	counter := func(name, help string, v float64, labels ...event.Attr) export.Metric {
		return export.Metric{Name: name, Help: help, Value: v, Labels: labels, Counter: true}
	}
	user, system := cpuTime(unix.RUSAGE_SELF)
	m := []export.Metric{
		gauge("ghostlight_build_info", "Always 1; the version is a label.", 1, event.Attr{Key: "version", Value: s.Version}),
		counter("process_cpu_time_seconds_total", "CPU time of the agent's process.", user.Seconds(), event.Attr{Key: "cpu_mode", Value: "user"}),
		counter("process_cpu_time_seconds_total", "CPU time of the agent's process.", system.Seconds(), event.Attr{Key: "cpu_mode", Value: "system"}),
		gauge("process_memory_usage_bytes", "Resident memory of the agent's process.", float64(s.Agent.RSSBytes)),
		counter("ghostlight_events_total", "Records that went down the spine.", float64(s.Events.Total)),
		gauge("ghostlight_ring_backlog_bytes", "Bytes in the ring that were not read yet.", float64(h.a.reader.Backlog())),
		gauge("ghostlight_budget_cpu_ratio", "CPU of agent and programs, share of one core.", h.own.CPU),
		gauge("ghostlight_budget_shed_sensors", "Sensors let go to stay inside the budget.", float64(len(s.Budget.Shed))),
		gauge("ghostlight_store_bytes", "Size of the store.", float64(s.Store.Bytes)),
		gauge("ghostlight_store_rows", "Records in the store.", float64(s.Store.Rows)),
	}
	for _, x := range s.Sensors {
		running := 0.0
		if x.State == api.SensorRunning {
			running = 1
		}
		label := event.Attr{Key: "sensor", Value: x.Name}
		m = append(m,
			counter("ghostlight_sensor_records_total", "Records of a sensor.", float64(x.Events), label),
			gauge("ghostlight_sensor_running", "1 while the sensor is attached.", running, label))
	}
	for _, p := range s.Programs {
		m = append(m, gauge("ghostlight_program_cpu_ratio", "CPU of a BPF program in the last window, share of one core.", p.CPUPercent/100,
			event.Attr{Key: "program", Value: p.Name}, event.Attr{Key: "sensor", Value: p.Sensor}))
	}
	return m
}

func hostInfo() api.Host {
	name, _ := os.Hostname() // an empty name says enough
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return api.Host{
		Name: name, Kernel: kernelRelease(), Arch: runtime.GOARCH, BootID: strings.TrimSpace(string(id)),
		BootTime: time.Now().Add(-time.Duration(clock(unix.CLOCK_BOOTTIME))).UTC(),
	}
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
