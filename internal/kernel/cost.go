package kernel

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// ProgramCost is what one program cost during a window.
type ProgramCost struct {
	Program  string
	Sensor   string
	Runs     uint64  // in the window
	PerRunNS float64 // nanoseconds, without what measuring adds
	CPU      float64 // share of one core: 0.01 is one per cent
}

// Meter measures programs. Asking the kernel for run times makes every run of
// every program of the host 75 ns dearer, so it is done in short windows: call
// Begin, wait, call End.
type Meter struct {
	k     *Kernel
	floor float64 // nanoseconds the clock itself adds to a run
	since time.Time
	stats interface{ Close() error }
	first map[*ebpf.Program]ebpf.ProgramStats
}

// NewMeter measures the clock's own cost on an empty program.
func (k *Kernel) NewMeter() (*Meter, error) {
	m := &Meter{k: k, first: map[*ebpf.Program]ebpf.ProgramStats{}}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load the empty program: %w", err)
	}
	defer p.Close()
	on, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, fmt.Errorf("measure programs: %w", err)
	}
	defer on.Close()
	if _, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 14), Repeat: 20000}); err != nil {
		return nil, fmt.Errorf("run the empty program: %w", err)
	}
	s, err := p.Stats()
	if err != nil {
		return nil, fmt.Errorf("read its cost: %w", err)
	}
	if s.RunCount > 0 {
		m.floor = float64(s.Runtime) / float64(s.RunCount)
	}
	return m, nil
}

// Begin opens a window.
func (m *Meter) Begin() error {
	on, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return fmt.Errorf("measure programs: %w", err)
	}
	m.stats, m.since = on, time.Now()
	clear(m.first)
	m.each(func(_ *Object, _ string, p *ebpf.Program) {
		if s, err := p.Stats(); err == nil {
			m.first[p] = *s
		}
	})
	return nil
}

// End closes the window and appends what each program cost to dst.
func (m *Meter) End(dst []ProgramCost) ([]ProgramCost, error) {
	if m.stats == nil {
		return dst, nil
	}
	window := time.Since(m.since)
	m.each(func(o *Object, name string, p *ebpf.Program) {
		a, seen := m.first[p]
		b, err := p.Stats()
		if err != nil || !seen || b.RunCount < a.RunCount {
			return
		}
		dst = append(dst, m.cost(o.Name, name, b.RunCount-a.RunCount, b.Runtime-a.Runtime, window))
	})
	err := m.stats.Close()
	m.stats = nil
	return dst, err
}

func (m *Meter) cost(sensor, name string, runs uint64, spent, window time.Duration) ProgramCost {
	c := ProgramCost{Program: name, Sensor: sensor, Runs: runs}
	if runs == 0 {
		return c
	}
	c.PerRunNS = max(0, float64(spent)/float64(runs)-m.floor)
	c.CPU = c.PerRunNS * float64(runs) / float64(window)
	return c
}

func (m *Meter) each(fn func(*Object, string, *ebpf.Program)) {
	m.k.mu.Lock()
	defer m.k.mu.Unlock()
	for _, o := range m.k.objects {
		for name, p := range o.Programs {
			fn(o, name, p)
		}
	}
}
