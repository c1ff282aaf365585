package agent

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"ghostlight/internal/api"
	"ghostlight/internal/config"
	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
	"ghostlight/internal/wire"
)

// watcher runs the sensors: it loads them, turns what they put into the ring
// into batches, and lets go of one or takes it back. All calls come from the
// agent's loop.
type watcher struct {
	k       *kernel.Kernel
	sensors []*running // by their index in the catalogue
	torn    uint64     // records no sensor could decode
}

// running is one sensor of the catalogue and what became of it.
type running struct {
	def    sensor.Def
	decode func(any) error // fills its options from the configuration

	inst  sensor.Instance
	obj   *kernel.Object // nil unless it is attached
	hooks []kernel.HookReport
	state string // one of api.Sensor*
	err   error

	events uint64
	lost   uint64 // of objects before this one
	seen   uint64 // losses of obj that were already reported
}

// load attaches a sensor. What it tells of the time before is added to out.
func (w *watcher) load(index int, out *event.Batch) error {
	s := w.sensors[index]
	s.state, s.err = api.SensorFailed, nil
	inst, err := s.def.New(s.decode)
	if err != nil {
		s.err = fmt.Errorf("configure sensor %s: %w", s.def.Name, err)
		return s.err
	}
	spec, err := inst.Spec()
	if err != nil {
		s.err = fmt.Errorf("read the object of sensor %s: %w", s.def.Name, err)
		return s.err
	}
	obj, hooks, err := w.k.Load(s.def.Name, uint16(index), spec, s.def.Hooks)
	s.hooks = hooks
	if err != nil {
		s.err = err
		return err
	}
	s.inst, s.obj, s.state, s.seen = inst, obj, api.SensorRunning, 0
	starter, ok := inst.(sensor.Starter)
	if !ok {
		return nil
	}
	if err := starter.Start(obj, out); err != nil {
		s.err = fmt.Errorf("sensor %s: what was there before the start: %w", s.def.Name, err)
	}
	return s.err
}

// change gives a sensor its new part of the configuration. One that the budget
// has let go stays away, and comes back with its new options.
func (w *watcher) change(index int, part config.Part, out *event.Batch) error {
	s := w.sensors[index]
	s.decode = part.Options
	if part.Enabled && s.state == api.SensorShed {
		return nil
	}
	err := w.letGo(s.def.Name, api.SensorOff, out)
	if part.Enabled {
		return errors.Join(err, w.load(index, out))
	}
	s.state, s.hooks, s.err = api.SensorOff, nil, nil
	return err
}

// letGo detaches a sensor. What it lost until now is added to out.
func (w *watcher) letGo(name, state string, out *event.Batch) error {
	s := w.find(name)
	if s == nil || s.obj == nil {
		return nil
	}
	w.losses(out)
	s.lost += s.seen
	obj := s.obj
	s.obj, s.inst, s.state, s.seen = nil, nil, state, 0
	return w.k.Unload(obj)
}

// sheddable returns the sensors that the budget may let go or has let go, the
// first one first.
func (w *watcher) sheddable() (names []string) {
	var some []*running
	for _, s := range w.sensors {
		if s.def.Shed > 0 && (s.obj != nil || s.state == api.SensorShed) {
			some = append(some, s)
		}
	}
	slices.SortFunc(some, func(x, y *running) int { return x.def.Shed - y.def.Shed })
	for _, s := range some {
		names = append(names, s.def.Name)
	}
	return names
}

func (w *watcher) find(name string) *running {
	if i := w.index(name); i >= 0 {
		return w.sensors[i]
	}
	return nil
}

func (w *watcher) index(name string) int {
	return slices.IndexFunc(w.sensors, func(s *running) bool { return s.def.Name == name })
}

// decode adds the record raw to out. Records that are no record are counted.
func (w *watcher) decode(raw []byte, out *event.Batch) {
	h, err := wire.View[wire.Header](raw)
	if err != nil || int(h.Sensor) >= len(w.sensors) {
		w.torn++
		return
	}
	s := w.sensors[h.Sensor]
	if s.inst == nil {
		return // let go while its last records were still in the ring
	}
	if err := s.inst.Decode(h, raw, out); err != nil {
		w.torn++
		return
	}
	s.events++
}

// tick gives each sensor its turn to look around.
func (w *watcher) tick(now int64, out *event.Batch) {
	for _, s := range w.sensors {
		t, ok := s.inst.(sensor.Ticker)
		if s.obj == nil || !ok {
			continue
		}
		if err := t.Tick(now, out); err != nil {
			s.err = fmt.Errorf("sensor %s: %w", s.def.Name, err)
		}
	}
}

// losses adds a Lost record for each sensor whose records found the ring full
// since the last call, and one for records that made no sense.
func (w *watcher) losses(out *event.Batch) {
	now := monotonic()
	for _, s := range w.sensors {
		if s.obj == nil {
			continue
		}
		n, err := s.obj.Lost()
		if err == nil && n > s.seen {
			out.Lost = append(out.Lost, event.Lost{Time: now, Stage: "ring", Sensor: s.def.Name, Count: n - s.seen})
			s.seen = n
		}
	}
	if w.torn > 0 {
		out.Lost = append(out.Lost, event.Lost{Time: now, Stage: "decode", Count: w.torn})
		w.torn = 0
	}
}

// adaptive is the time between two drains: short while there is traffic, long
// when there is none, because 50 idle drains a second would cost more than
// everything else on a quiet host.
func adaptive(last time.Duration, drained int) time.Duration {
	const busy, quiet = 20 * time.Millisecond, 250 * time.Millisecond
	if drained >= 64 {
		return busy
	}
	return min(2*last, quiet)
}
