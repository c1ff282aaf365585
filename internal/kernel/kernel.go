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

// Kernel holds what we put into the kernel: the ring that all sensors share
// and their objects. Close takes it all out.
type Kernel struct {
	ring *ebpf.Map

	mu      sync.Mutex
	objects []*Object
	types   *btf.Cache // the kernel's types, between the first Load and Settle
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
	return &Kernel{ring: ring}, nil
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
// its programs missed, since it was loaded. It never goes back.
func (o *Object) Lost() (uint64, error) {
	n, err := o.full()
	if err != nil {
		return 0, err
	}
	n += o.missed() // after what twins took back, so that it is never less
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

// full returns how many records found the ring full, less what twins found.
func (o *Object) full() (n uint64, err error) {
	m := o.Maps["ghost_lost"]
	if m == nil {
		return 0, nil
	}
	var perCPU []uint64
	if err := m.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read losses of %s: %w", o.Name, err)
	}
	for _, c := range perCPU {
		n += c
	}
	return n, nil
}

// missed returns how many runs the kernel skipped because the program was
// active already on the same CPU, begun by a task that was preempted (kernels
// after 6.18 preempt inside of tracepoints) or interrupted. What a twin misses
// was not its turn, or its program's miss counts.
func (o *Object) missed() (n uint64) {
	for name, p := range o.Programs {
		if o.twins[name] {
			continue
		}
		if s, err := p.Stats(); err == nil { // no counter before 5.12
			n += s.RecursionMisses
		}
	}
	return n
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
	return errors.Join(append(errs, k.ring.Close())...)
}
