// Package enrich says who stands behind a record: the execution in a process
// tree, its container and its service, with the secrets in its arguments
// redacted.
//
//	Batch -> redact arguments -> process tree (Who) -> flows: Who by pid, Peer by pid or 4-tuple
//
// A Who is made once per execution and never changed; when more becomes known
// (container name, service name) a new one is published and a Running record
// repeats the process with it.
package enrich

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"ghostlight/internal/enrich/container"
	"ghostlight/internal/enrich/redact"
	"ghostlight/internal/enrich/route"
	"ghostlight/internal/event"
)

// Options configure an Enricher. The zero value is right for a host.
type Options struct {
	ProcRoot     string   // proc file system of the initial pid namespace; default /proc
	BootID       string   // part of every ExecID; default: the kernel's
	CgroupRoots  []string // cgroup2 mounts; default: found in mountinfo
	DockerRoots  []string // default /var/lib/docker and what daemon.json says
	StorageRoots []string // of podman and cri-o; default /var/lib/containers/storage
	Deny         []string // keys whose values are secret, beyond redact's own list
	Routes       []string // patterns of paths, checked by config; the rest is learnt
	Processes    int      // bound on processes kept, the exited of the last 30 s included; default 16384
	Reads        int      // bound on processes looked up in /proc in one Apply; default 8
}

// Defaults of Options.
const (
	DefaultProcesses = 16384
	DefaultReads     = 8
)

// Enricher fills in who. Apply and Checkpoint are called by one goroutine;
// Stats by any.
type Enricher struct {
	proc  string
	boot  uint64
	rules *redact.Rules
	tree  tree
	pairs pairs
	reads int

	routes     *route.Table
	cgroups    *container.Cgroups
	names      *container.Names
	containers map[string]*found // by id
	hybrid     bool              // some containers may be known to cgroup v1 only
	missing    [256]missing      // pids that /proc did not know

	fixed     bool   // suspended is not measured, in tests
	suspended int64  // CLOCK_BOOTTIME minus CLOCK_MONOTONIC
	now       int64  // newest monotonic time seen in a record
	batch     uint64 // number of Apply calls
	budget    int    // look-ups left in this Apply
	learnt    bool   // a process was added in this Apply
	orphans   []*process

	asked     asked      // names of addresses
	nameless  []*process // in containers without a name yet
	nextNames int64      // when to look for names again

	raw, text []byte // of one process's arguments, reused
	file      []byte // of /proc, reused

	counters
}

type counters struct {
	processes, evicted, repaired, looked, deferred, joined, unknown atomic.Uint64
}

// Stats count what enrich did since it was made.
type Stats struct {
	Processes uint64 // processes in the tree now
	Evicted   uint64 // processes dropped because the tree was full
	Repaired  uint64 // processes read from /proc because their records were lost
	Reads     uint64 // processes looked up in /proc
	Deferred  uint64 // look-ups put off to a later Apply because of the bound
	Joined    uint64 // flows whose other end was found by address
	Unknown   uint64 // flows whose process is not known
}

// New returns an Enricher with an empty tree.
func New(o Options) (*Enricher, error) {
	if o.ProcRoot == "" {
		o.ProcRoot = "/proc"
	}
	if o.BootID == "" {
		id, err := os.ReadFile(filepath.Join(o.ProcRoot, "sys/kernel/random/boot_id"))
		if err != nil {
			return nil, fmt.Errorf("read the boot id: %w", err)
		}
		o.BootID = strings.TrimSpace(string(id))
	}
	if o.Processes <= 0 {
		o.Processes = DefaultProcesses
	}
	if o.Reads <= 0 {
		o.Reads = DefaultReads
	}
	if o.CgroupRoots == nil {
		mounts, _ := os.ReadFile(filepath.Join(o.ProcRoot, "self/mountinfo")) // without it, paths come from /proc/PID/cgroup
		o.CgroupRoots = container.Mounts(mounts)
	}
	routes, err := route.New(o.Routes)
	if err != nil {
		return nil, err
	}
	own, _ := os.ReadFile(filepath.Join(o.ProcRoot, "self/cgroup"))
	return &Enricher{
		routes:     routes,
		proc:       o.ProcRoot,
		boot:       bootSeed(o.BootID),
		rules:      redact.New(o.Deny),
		tree:       tree{byPID: map[uint32]*process{}, limit: o.Processes},
		pairs:      pairs{slots: make([]pair, pairSlots)},
		reads:      o.Reads,
		cgroups:    container.NewCgroups(o.CgroupRoots),
		names:      container.NewNames(o.DockerRoots, o.StorageRoots),
		containers: map[string]*found{},
		hybrid:     container.Hybrid(own),
		file:       make([]byte, fileBytes),
	}, nil
}

// Close lets go of the cgroup trees.
func (e *Enricher) Close() error { return e.cgroups.Close() }

// Deny replaces the keys of Options.Deny. It is called by the goroutine that
// calls Apply; what was redacted before stays as it is.
func (e *Enricher) Deny(keys []string) { e.rules = redact.New(keys) }

// Routes replaces Options.Routes, and forgets what was learnt.
func (e *Enricher) Routes(patterns []string) error {
	routes, err := route.New(patterns)
	if err == nil {
		e.routes = routes
	}
	return err
}

// Apply redacts and fills the records of b in place. It may add Running
// records of processes about which more became known, and Lost records. It
// keeps nothing of b.
func (e *Enricher) Apply(b *event.Batch) {
	e.batch++
	e.budget = e.reads
	e.tick(b)
	e.tree.expire(e.now)
	for i := range b.Processes {
		e.process(b, i)
	}
	e.reunite(b)
	e.christen(b)
	for i := range b.Flows {
		e.self(b, &b.Flows[i])
	}
	for i := range b.Flows {
		e.other(&b.Flows[i])
	}
	for i := range b.Requests {
		e.request(b, &b.Requests[i])
	}
	e.reunite(b)
	e.lost(b)
	e.processes.Store(uint64(e.tree.size()))
}

// tick moves now to the newest record, and measures how long the host was
// suspended: processes start by a clock that runs on then, records don't.
func (e *Enricher) tick(b *event.Batch) {
	if !e.fixed {
		e.suspended = clock(unix.CLOCK_BOOTTIME) - clock(unix.CLOCK_MONOTONIC)
	}
	for i := range b.Processes {
		e.now = max(e.now, b.Processes[i].Time)
	}
	for i := range b.Flows {
		e.now = max(e.now, b.Flows[i].End)
	}
	for i := range b.Requests {
		e.now = max(e.now, b.Requests[i].Time+b.Requests[i].DurationNS)
	}
}

func clock(id int32) int64 {
	var t unix.Timespec
	if unix.ClockGettime(id, &t) != nil {
		return 0
	}
	return t.Nano()
}

// lost tells of the processes that were let go.
func (e *Enricher) lost(b *event.Batch) {
	if e.tree.evicted == 0 {
		return
	}
	b.Lost = append(b.Lost, event.Lost{Time: e.now, Stage: "enrich", Sensor: "process", Count: e.tree.evicted})
	e.evicted.Add(e.tree.evicted)
	e.tree.evicted = 0
}

// Checkpoint adds a Running record for each live process to out, so that the
// tree of a later moment can be told from the store. now is the kernel's
// monotonic clock.
func (e *Enricher) Checkpoint(now int64, out *event.Batch) {
	for p := e.tree.live.first; p != nil; p = p.next {
		out.Processes = append(out.Processes, p.running(now))
	}
}

// Stats returns the counters.
func (e *Enricher) Stats() Stats {
	return Stats{
		Processes: e.processes.Load(), Evicted: e.evicted.Load(), Repaired: e.repaired.Load(), Reads: e.looked.Load(),
		Deferred: e.deferred.Load(), Joined: e.joined.Load(), Unknown: e.unknown.Load(),
	}
}
