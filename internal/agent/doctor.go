package agent

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"ghostlight/internal/api"
	"ghostlight/internal/catalog"
	"ghostlight/internal/config"
	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
)

// Doctor returns what this host can and cannot do, as the running agent found
// it.
func (a *Agent) Doctor() api.Doctor {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.doctor
	d.Sensors = slices.Clone(d.Sensors)
	for i := range d.Sensors { // these change while it runs
		if s := a.seers[d.Sensors[i].Name]; s != nil {
			d.Sensors[i].Sights = sights(s)
		}
	}
	return d
}

func sights(s sensor.Seer) (list []api.Sight) {
	for _, one := range s.Sights() {
		list = append(list, api.Sight(one))
	}
	return list
}

func (h *housekeeping) publishDoctor() {
	d := examine(h.a.watch.sensors)
	h.a.mu.Lock()
	defer h.a.mu.Unlock()
	h.a.doctor, h.a.seers = d, map[string]sensor.Seer{}
	for _, r := range h.a.watch.sensors {
		if s, ok := r.inst.(sensor.Seer); ok {
			h.a.seers[r.def.Name] = s
		}
	}
}

// Examine says what this host can and cannot do, with no agent running: it
// attaches every sensor for a moment.
func Examine(cfg config.Config) api.Doctor {
	k, err := kernel.New(kernel.DefaultRingBytes)
	w := &watcher{k: k}
	for i, d := range catalog.Sensors {
		s := &running{def: d, decode: cfg.Sensor(d.Name).Options, state: api.SensorFailed, err: err}
		w.sensors = append(w.sensors, s)
		if err == nil {
			w.load(i, &event.Batch{}) // its error is in s
		}
	}
	d := examine(w.sensors)
	for i, r := range w.sensors {
		if s, ok := r.inst.(sensor.Seer); ok {
			d.Sensors[i].Sights = sights(s)
		}
	}
	if err != nil {
		d.Notes = append(d.Notes, err.Error())
		return d
	}
	if err := k.Close(); err != nil {
		d.Notes = append(d.Notes, err.Error())
	}
	return d
}

func examine(sensors []*running) api.Doctor {
	d := api.Doctor{Kernel: kernelRelease(), Arch: runtime.GOARCH, Lockdown: lockdown(), User: user()}
	for _, p := range kernel.Probes {
		r := api.Probe{Name: p.Name, Since: p.Since, OK: p.Have() == nil, Loss: p.Loss}
		if err := p.Have(); err != nil {
			r.Reason = err.Error()
		}
		d.Probes = append(d.Probes, r)
	}
	for _, s := range sensors {
		r := s.report()
		d.OK = d.OK || r.OK
		d.Sensors = append(d.Sensors, r)
	}
	d.Notes = notes(&d)
	return d
}

func (r *running) report() api.SensorReport {
	s := api.SensorReport{Name: r.def.Name, Doc: r.def.Doc, OK: r.obj != nil, Hooks: []api.Hook{}}
	if r.err != nil {
		s.Error = r.err.Error()
	}
	for _, h := range r.hooks {
		if h.Twin && h.Tier != "" {
			continue
		}
		hook := api.Hook{What: h.What, Without: h.Without, Tier: h.Tier}
		for _, t := range h.Tiers {
			hook.Tiers = append(hook.Tiers, api.Tier(t))
		}
		s.Hooks = append(s.Hooks, hook)
	}
	return s
}

// lockdown reads the kernel's own word where securityfs is mounted, and else
// judges by what is refused: integrity forbids fentry to a user who has the
// capabilities for it.
func lockdown() string {
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	if err == nil {
		_, rest, _ := strings.Cut(string(b), "[")
		word, _, _ := strings.Cut(rest, "]")
		return word
	}
	if len(user().Missing) > 0 {
		return "unknown"
	}
	switch err := kernel.HaveFentry.Have(); {
	case err == nil:
		return "none"
	case errors.Is(err, os.ErrPermission):
		return "integrity"
	}
	return "unknown"
}

// needed are the capabilities that let everything run without root, by their
// number in linux/capability.h.
var needed = []struct {
	name string
	bit  uint
	why  string
}{
	{"CAP_BPF", 39, "nothing can be loaded"},
	{"CAP_PERFMON", 38, "no tracing program can be loaded"},
	{"CAP_NET_ADMIN", 12, "no UDP and ICMP flows"},
	{"CAP_SYS_PTRACE", 19, "services are not named after OTEL_SERVICE_NAME of other users' processes"},
	{"CAP_DAC_READ_SEARCH", 2, "names of containers stay unknown"},
}

func user() api.User {
	u := api.User{UID: os.Geteuid(), Capabilities: []string{}, Missing: []string{}}
	have := effectiveCapabilities()
	for _, c := range needed {
		if have&(1<<c.bit) != 0 {
			u.Capabilities = append(u.Capabilities, c.name)
		} else {
			u.Missing = append(u.Missing, c.name)
		}
	}
	return u
}

func effectiveCapabilities() uint64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "CapEff:"); ok {
			bits, _ := strconv.ParseUint(strings.TrimSpace(text), 16, 64) // none if it is no number
			return bits
		}
	}
	return 0
}

// notes says in words what a person should know.
func notes(d *api.Doctor) []string {
	found := []string{}
	if !d.OK {
		found = append(found, "nothing can run here: see the reasons above")
	}
	for _, c := range needed {
		for _, m := range d.User.Missing {
			if m == c.name {
				found = append(found, fmt.Sprintf("without %s: %s", c.name, c.why))
			}
		}
	}
	if d.Lockdown == "integrity" {
		found = append(found, "the kernel is locked down (integrity): hooks on kernel functions are refused; tracepoints do their work where they can")
	}
	for _, s := range d.Sensors {
		for _, h := range s.Hooks {
			if h.Tier == "" {
				found = append(found, fmt.Sprintf("%s: %s is off: %s", s.Name, h.What, h.Without))
			}
		}
	}
	return found
}
