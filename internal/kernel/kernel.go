package kernel

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
)

// Kernel holds what we put into the kernel: the ring and the maps that sensors
// share, and their objects. Close takes it all out.
type Kernel struct {
	ring *ebpf.Map

	mu      sync.Mutex
	objects []*Object
	shared  map[string]*ebpf.Map // by name: maps of the first sensor that had them
	types   *btf.Cache           // the kernel's types, between the first Load and Settle
}

// DefaultRingBytes holds half a second of records of a busy two-core host. The
// ring is mapped twice in a row and counts as ours, so it is not free: 2 MiB
// are 4 MiB of resident memory.
const DefaultRingBytes = 2 << 20

// New makes the shared ring of the given size, a power of two of at least a
// page.
func New(ringBytes uint32) (*Kernel, error) {
	// Kernels before 5.11 charge BPF memory to RLIMIT_MEMLOCK. Raising it needs
	// CAP_SYS_RESOURCE and newer kernels do not care, so a refusal is no error
	// here: creating the ring tells.
	_ = rlimit.RemoveMemlock()
	ring, err := ebpf.NewMap(&ebpf.MapSpec{Name: "ghost_events", Type: ebpf.RingBuf, MaxEntries: ringBytes})
	if err != nil {
		return nil, fmt.Errorf("create the ring (%d bytes; needs root or CAP_BPF and CAP_PERFMON, and Linux 5.8): %w", ringBytes, err)
	}
	return &Kernel{ring: ring, shared: map[string]*ebpf.Map{}}, nil
}

// kernelTypes returns the kernel's types, read once for all loads.
func (k *Kernel) kernelTypes() *btf.Cache {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.types == nil {
		k.types = btf.NewCache()
	}
	return k.types
}

// Settle gives back the memory that loading took: the kernel's types are tens
// of megabytes. Call it when all sensors are loaded.
func (k *Kernel) Settle() {
	k.mu.Lock()
	k.types = nil
	k.mu.Unlock()
	// Twice: the first collection finds the types unused and unmaps them, the
	// second frees what the unmapping kept.
	runtime.GC()
	debug.FreeOSMemory()
}

func (k *Kernel) add(o *Object) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.objects = append(k.objects, o)
}

// Unload closes o and forgets it.
func (k *Kernel) Unload(o *Object) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.objects {
		if k.objects[i] == o {
			k.objects = append(k.objects[:i], k.objects[i+1:]...)
			break
		}
	}
	return o.Close()
}

// Lost returns how many records of o found the ring full, and how many events
// its programs missed at most, since it was loaded. It never goes back.
func (o *Object) Lost() (uint64, error) {
	missed := o.missed()
	full, found, err := o.counted()
	if err != nil {
		return 0, err
	}
	n := full + missed.lost(found)
	for {
		old := o.lost.Load()
		if n <= old {
			return old, nil
		}
		if o.lost.CompareAndSwap(old, n) {
			return n, nil
		}
	}
}

// counted returns how many records found the ring full, and how many misses
// twins made up for.
func (o *Object) counted() (full, found uint64, err error) {
	m := o.Maps["ghost_lost"]
	if m == nil {
		return 0, 0, nil
	}
	var slots [2]uint64
	var perCPU []uint64
	for slot := range slots {
		if err := m.Lookup(uint32(slot), &perCPU); err != nil {
			return 0, 0, fmt.Errorf("read losses of %s: %w", o.Name, err)
		}
		for _, c := range perCPU {
			slots[slot] += c
		}
	}
	return slots[0], slots[1], nil
}

// misses are runs the kernel skipped because the program was active already on
// the same CPU, begun by a task that was preempted (kernels after 6.18 preempt
// inside of tracepoints) or interrupted.
type misses struct {
	alone uint64 // of programs without a twin
	first uint64 // of those with one
	twin  uint64 // of the twins
}

// lost is the most events that nobody saw. What twins did not find they may have
// missed themselves, or there was nothing to be found.
func (m misses) lost(found uint64) uint64 {
	return m.alone + min(m.first-min(found, m.first), m.twin)
}

func (o *Object) missed() (m misses) {
	twinned := map[string]bool{}
	for _, r := range o.roles {
		twinned[r.hook] = twinned[r.hook] || r.twin
	}
	for name, p := range o.Programs {
		s, err := p.Stats()
		if err != nil { // no counter before 5.12
			continue
		}
		switch r := o.roles[name]; {
		case r.repeats:
		case r.twin:
			m.twin += s.RecursionMisses
		case twinned[r.hook]:
			m.first += s.RecursionMisses
		default:
			m.alone += s.RecursionMisses
		}
	}
	return m
}

// Close unloads everything.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, o := range k.objects {
		errs = append(errs, o.Close())
	}
	k.objects = nil
	for name, m := range k.shared {
		errs = append(errs, m.Close())
		delete(k.shared, name)
	}
	return errors.Join(append(errs, k.ring.Close())...)
}
