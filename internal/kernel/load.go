// Package kernel puts programs into the kernel and reads what they say: it
// probes what this kernel can do, attaches each hook by the best tier that
// works and keeps the reason for every tier that did not, reads the one ring
// that all sensors share, and knows what each program costs. It wraps
// cilium/ebpf.
package kernel

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// Hook is one thing a sensor wants to see, and the ways to see it.
type Hook struct {
	What    string // "TCP state changes"
	Without string // what the user misses if no tier works
	Tiers   []Tier // best first
}

// Tier is one way to see it. The first tier whose probes hold and whose
// program loads and attaches is taken.
type Tier struct {
	Name    string // as doctor prints it: "tp_btf inet_sock_set_state"
	Program string // its name in the object
	Needs   []*Probe
	// Twin says that the program stands behind another at the same hook and
	// does what that one missed (ghost_count_found).
	Twin bool
	// Repeats says that a run that is missed is no loss, as a later one does the
	// same.
	Repeats bool
	// Over names the map that an iterator walks; empty for the other iterators.
	Over string
	// Attach attaches the program. Nil attaches a tracing program to the hook
	// that its section names; an iterator is then run by Object.Iterate.
	Attach func(*Object, *ebpf.Program) (link.Link, error)
}

// HookReport says what became of a hook.
type HookReport struct {
	What    string       `json:"what"`
	Without string       `json:"without"`
	Tier    string       `json:"tier"` // empty if no tier works
	Tiers   []TierReport `json:"tiers"`
	Twin    bool         `json:"-"` // stands behind another hook: of no interest while it works
}

// TierReport says why a tier was taken or not.
type TierReport struct {
	Name   string `json:"name"`
	Taken  bool   `json:"taken"`
	Reason string `json:"reason,omitempty"` // why it was not taken
}

// Object is one sensor's maps, programs and links in the kernel. Links live as
// long as the object: a link that Go collects detaches its program silently.
type Object struct {
	Name      string
	Maps      map[string]*ebpf.Map
	Programs  map[string]*ebpf.Program
	Hooks     []HookReport
	Variables map[string]*ebpf.Variable

	links []link.Link
	iters map[string]*link.Iter
	roles map[string]role
	lost  atomic.Uint64 // the most that Lost returned
	types *btf.Cache    // while it is loaded
}

// role says what it means if a program misses an event.
type role struct {
	hook          string // where it is attached
	twin, repeats bool
}

// Load creates the maps of spec, with the shared ring in the place of its own,
// and loads and attaches the hooks one program at a time, so that a program
// this kernel refuses takes nothing else with it. It fails only if no hook at
// all can be attached; the reports say why in either case.
func (k *Kernel) Load(name string, index uint16, spec *ebpf.CollectionSpec, hooks []Hook) (*Object, []HookReport, error) {
	if err := k.constants(spec, index); err != nil {
		return nil, nil, err
	}
	o := &Object{Name: name, Programs: map[string]*ebpf.Program{}, iters: map[string]*link.Iter{}, roles: map[string]role{}, types: k.kernelTypes()}
	defer func() { o.types = nil }()
	if err := o.loadMaps(spec, k); err != nil {
		return nil, nil, fmt.Errorf("sensor %s: %w", name, errors.Join(err, o.Close()))
	}
	for _, h := range hooks {
		o.Hooks = append(o.Hooks, o.attach(spec, h))
	}
	if len(o.links) == 0 {
		return nil, o.Hooks, errors.Join(fmt.Errorf("sensor %s: no hook works on this kernel", name), o.Close())
	}
	k.add(o)
	return o, o.Hooks, nil
}

// constants writes what the shared header needs to know into the object.
func (k *Kernel) constants(spec *ebpf.CollectionSpec, index uint16) error {
	if v := spec.Variables["ghost_sensor"]; v != nil {
		if err := v.Set(index); err != nil {
			return fmt.Errorf("set ghost_sensor: %w", err)
		}
	}
	if v := spec.Variables["ghost_watermark"]; v != nil {
		if err := v.Set(uint64(k.ring.MaxEntries()) / 4); err != nil {
			return fmt.Errorf("set ghost_watermark: %w", err)
		}
	}
	return nil
}

// sharedPrefix begins the name of a map that all objects with a map of that
// name share: the first of them makes it, and it stays until the Kernel closes,
// whichever of them is unloaded.
const sharedPrefix = "ghost_shared_"

func (o *Object) loadMaps(spec *ebpf.CollectionSpec, k *Kernel) error {
	only := spec.Copy()
	clear(only.Programs)
	k.mu.Lock()
	defer k.mu.Unlock()
	replace := map[string]*ebpf.Map{}
	if only.Maps["ghost_events"] != nil {
		replace["ghost_events"] = k.ring
	}
	for name, m := range k.shared {
		if only.Maps[name] != nil {
			replace[name] = m
		}
	}
	for name, m := range replace { // a replacement must have the spec's size
		only.Maps[name].MaxEntries = m.MaxEntries()
	}
	c, err := ebpf.NewCollectionWithOptions(only, ebpf.CollectionOptions{Cache: o.types, MapReplacements: replace})
	if err != nil {
		return fmt.Errorf("create maps: %w", err)
	}
	o.Maps, o.Variables = maps.Clone(c.Maps), maps.Clone(c.Variables)
	return k.share(o.Maps)
}

// share keeps the maps that are the first of their name. The caller holds mu.
func (k *Kernel) share(made map[string]*ebpf.Map) error {
	for name, m := range made {
		if !strings.HasPrefix(name, sharedPrefix) || k.shared[name] != nil {
			continue
		}
		kept, err := m.Clone()
		if err != nil {
			return fmt.Errorf("keep map %s: %w", name, err)
		}
		k.shared[name] = kept
	}
	return nil
}

// attach takes the first tier that works.
func (o *Object) attach(spec *ebpf.CollectionSpec, h Hook) HookReport {
	r := HookReport{What: h.What, Without: h.Without}
	for _, t := range h.Tiers {
		r.Twin = r.Twin || t.Twin
	}
	for _, t := range h.Tiers {
		if r.Tier != "" {
			r.Tiers = append(r.Tiers, TierReport{Name: t.Name, Reason: "a better tier is taken"})
			continue
		}
		if err := o.try(spec, t); err != nil {
			r.Tiers = append(r.Tiers, TierReport{Name: t.Name, Reason: err.Error()})
			continue
		}
		r.Tier = t.Name
		r.Tiers = append(r.Tiers, TierReport{Name: t.Name, Taken: true})
	}
	return r
}

func (o *Object) try(spec *ebpf.CollectionSpec, t Tier) error {
	for _, p := range t.Needs {
		if err := p.Have(); err != nil {
			return err
		}
	}
	prog := o.Programs[t.Program]
	if prog == nil {
		var err error
		if prog, err = o.loadProgram(spec, t.Program); err != nil {
			return fmt.Errorf("load: %w", lastLine(err))
		}
	}
	l, err := o.link(t, prog, spec.Programs[t.Program].AttachType)
	if err != nil {
		prog.Close()
		return fmt.Errorf("attach: %w", err)
	}
	o.Programs[t.Program] = prog
	o.roles[t.Program] = role{spec.Programs[t.Program].AttachTo, t.Twin, t.Repeats}
	if l != nil {
		o.links = append(o.links, l)
	}
	return nil
}

func (o *Object) loadProgram(spec *ebpf.CollectionSpec, name string) (*ebpf.Program, error) {
	p := spec.Programs[name]
	if p == nil {
		return nil, fmt.Errorf("the object has no program %s", name)
	}
	one := spec.Copy()
	maps.DeleteFunc(one.Programs, func(n string, _ *ebpf.ProgramSpec) bool { return n != name })
	for n, m := range o.Maps { // a replacement must have the spec's size
		one.Maps[n].MaxEntries = m.MaxEntries()
	}
	c, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: o.Maps, Cache: o.types})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.DetachProgram(name), nil
}

func (o *Object) link(t Tier, p *ebpf.Program, at ebpf.AttachType) (link.Link, error) {
	switch {
	case t.Attach != nil:
		return t.Attach(o, p)
	case at == ebpf.AttachTraceIter:
		it, err := link.AttachIter(link.IterOptions{Program: p, Map: o.Maps[t.Over]})
		if err != nil {
			return nil, err
		}
		o.iters[t.Program] = it
		return it, nil
	case p.Type() == ebpf.Tracing:
		return link.AttachTracing(link.TracingOptions{Program: p})
	}
	return nil, fmt.Errorf("program type %s needs a Tier.Attach", p.Type())
}

// Iterate runs the iterator program once over everything it walks, in the
// network namespace of the calling thread. It reports false if no tier with
// that program was taken. What the program writes to the sequence file is read
// and thrown away: this is for iterators that speak through the ring.
func (o *Object) Iterate(program string) (bool, error) {
	return o.IterateTo(io.Discard, program)
}

// IterateTo is Iterate, and w gets what the program writes to the sequence
// file. The reader sets the pace, so nothing is lost however much it is.
func (o *Object) IterateTo(w io.Writer, program string) (bool, error) {
	it := o.iters[program]
	if it == nil {
		return false, nil
	}
	r, err := it.Open()
	if err != nil {
		return false, fmt.Errorf("open iterator %s: %w", program, err)
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return false, fmt.Errorf("run iterator %s: %w", program, err)
	}
	return true, nil
}

// Keep ties a link made after Load to the life of the object.
func (o *Object) Keep(l link.Link) { o.links = append(o.links, l) }

// Close detaches and unloads.
func (o *Object) Close() error {
	var errs []error
	for _, l := range slices.Backward(o.links) {
		errs = append(errs, l.Close())
	}
	for _, p := range o.Programs {
		errs = append(errs, p.Close())
	}
	for _, m := range o.Maps {
		errs = append(errs, m.Close())
	}
	o.links, o.Programs, o.Maps = nil, nil, nil
	return errors.Join(errs...)
}
