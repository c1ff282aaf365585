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

import "ghostlight/internal/event"

// Options configure an Enricher. The zero value is right for a host.
type Options struct {
	ProcRoot     string   // proc file system of the initial pid namespace; default /proc
	BootID       string   // part of every ExecID; default: the kernel's
	CgroupRoots  []string // cgroup2 mounts; default: found in mountinfo
	DockerRoots  []string // default /var/lib/docker and what daemon.json says
	StorageRoots []string // of podman and cri-o; default /var/lib/containers/storage
	Deny         []string // keys whose values are secret, beyond redact's own list
	Processes    int      // bound on processes kept, the exited of the last 30 s included; default 16384
	Reads        int      // bound on processes looked up in /proc in one Apply; default 8
}

// Enricher fills in who. Apply and Checkpoint are called by one goroutine;
// Stats by any.
type Enricher struct{}

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
func New(o Options) (*Enricher, error) { return &Enricher{}, nil }

// Apply redacts and fills the records of b in place. It may add Running
// records of processes about which more became known, and Lost records.
func (e *Enricher) Apply(b *event.Batch) {}

// Checkpoint adds a Running record for each live process to out, so that the
// tree of a later moment can be told from the store. now is the kernel's
// monotonic clock.
func (e *Enricher) Checkpoint(now int64, out *event.Batch) {}

// Stats returns the counters.
func (e *Enricher) Stats() Stats { return Stats{} }
