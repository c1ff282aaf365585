// Package event is the vocabulary of Ghostlight: the closed set of records
// that travel from the sensors to the screen, and the columns each one has.
//
//	sensor.Decode -> Batch -> enrich -> aggregate -> store.Append
//
// Times inside a Batch are the kernel's monotonic nanoseconds; Batch.Wall
// turns them into wall time where they leave the hot path. It imports the
// standard library only, and every other package may import it.
package event

import "net/netip"

// Kind names the records. The set is closed: a new sensor or protocol speaks
// in these kinds and tells what is its own in Attrs.
type Kind uint8

// The kinds. Stall and Sample have their place; no part makes them yet.
const (
	KindProcess Kind = iota + 1
	KindFlow
	KindRequest
	KindStall
	KindSample
	KindAlert
	KindLost
)

// String returns the name in JSON's "kind" field.
func (k Kind) String() string {
	names := [...]string{"", "process", "flow", "request", "stall", "sample", "alert", "lost"}
	if int(k) < len(names) {
		return names[k]
	}
	return ""
}

// Attr is one value beyond a record's own fields. Keys follow the
// OpenTelemetry semantic conventions.
type Attr struct{ Key, Value string }

// Batch carries up to a few hundred records down the spine. It is borrowed
// during a call: whoever keeps a record copies it. Slices keep their capacity
// between batches, so that a record costs no allocation.
type Batch struct {
	Wall int64 // add to a record's monotonic time to get Unix nanoseconds

	Processes []Process
	Flows     []Flow
	Requests  []Request
	Alerts    []Alert
	Lost      []Lost

	Chunks []Chunk // raw material of Requests: never stored

	arena []byte // what Text and Bytes handed out
	attrs []Attr // what KeepAttrs handed out
}

// Len returns the number of records.
func (b *Batch) Len() int {
	return len(b.Processes) + len(b.Flows) + len(b.Requests) + len(b.Alerts) + len(b.Lost)
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.Processes) // let go of pointers
	clear(b.Flows)
	clear(b.Requests)
	clear(b.Alerts)
	clear(b.Lost)
	clear(b.Chunks)
	clear(b.attrs)
	b.Processes, b.Flows, b.Requests = b.Processes[:0], b.Flows[:0], b.Requests[:0]
	b.Alerts, b.Lost, b.Chunks = b.Alerts[:0], b.Lost[:0], b.Chunks[:0]
	b.arena, b.attrs = b.arena[:0], b.attrs[:0]
}

// Who is one execution: a process between two execs. enrich makes it once and
// records point to it; it is never changed after it was published, so it can
// be read from any goroutine.
type Who struct {
	ExecID       string // stable over restarts of the agent: of boot, pid, start time and exec count
	ParentExecID string
	PID          uint32
	PPID         uint32
	Start        int64 // CLOCK_BOOTTIME nanoseconds at which the process was created
	Executable   string
	Name         string // last element of Executable
	Args         string // redacted arguments, joined by NUL
	ArgsCut      bool   // the arguments were longer than the bound
	Cwd          string
	UID, GID     uint32
	CapEffective uint64
	CgroupID     uint64
	CgroupPath   string
	Namespaces   Namespaces
	Container    *Container // nil outside of containers
	Service      string
}

// Namespaces are the inode numbers of a process's namespaces.
type Namespaces struct{ Cgroup, IPC, Mnt, Net, PID, User, UTS uint32 }

// Container says where a cgroup belongs.
type Container struct {
	ID, Name, Runtime string // runtime: docker, containerd, cri-o, podman
	PodUID            string // Kubernetes pod, empty outside of one
}

// Action says what happened to a process.
type Action uint8

// The actions. Running is a process that started before Ghostlight, or one
// that a checkpoint repeats so that the tree of any moment can be told.
const (
	Fork Action = iota + 1
	Exec
	Exit
	Running
)

// String returns the action's name.
func (a Action) String() string {
	names := [...]string{"", "fork", "exec", "exit", "running"}
	if int(a) < len(names) {
		return names[a]
	}
	return ""
}

// Process is a change in the life of a process. The sensor fills the raw
// fields; enrich fills Who, and redacts before it does.
type Process struct {
	Time       int64
	Action     Action
	PID        uint32
	PPID       uint32
	Start      int64  // CLOCK_BOOTTIME nanoseconds; with PID it names a process for good
	ExecCount  uint64 // task_struct.self_exec_id
	UID, GID   uint32
	CgroupID   uint64
	Namespaces Namespaces

	Executable   string   // Exec and Running; Fork inherits
	Args         []string // raw: only enrich may read them
	ArgsCut      bool
	Cwd          string
	CapEffective uint64

	ExitCode   int32 // Exit: the code given to exit(2)
	ExitSignal int32 // Exit: the signal that ended it, 0 if none

	Who      *Who
	Complete bool // false where a part of the story was lost
}

// Transport is the protocol above IP, by its IANA number.
type Transport uint8

// The transports that have a name.
const (
	ICMP   Transport = 1
	TCP    Transport = 6
	UDP    Transport = 17
	ICMPv6 Transport = 58
	SCTP   Transport = 132
)

// Direction tells which end of a flow a record was seen at.
type Direction uint8

// Outbound is the client's end, Inbound the server's.
const (
	Outbound Direction = iota + 1
	Inbound
)

// String returns the direction's name.
func (d Direction) String() string { return [...]string{"", "outbound", "inbound", ""}[d&3] }

// Verdict tells how a flow or packet fared.
type Verdict uint8

// The verdicts. Error is a connection that failed or was cut (refused,
// timeout, unreachable, reset); Dropped is a packet the kernel threw away.
const (
	Forwarded Verdict = iota + 1
	Dropped
	Error
)

// String returns the verdict's name.
func (v Verdict) String() string { return [...]string{"", "forwarded", "dropped", "error"}[v&3] }

// CloseReason says how a TCP connection ended.
type CloseReason uint8

// The reasons, as seen from the end the record belongs to.
const (
	StillOpen     CloseReason = iota
	FinSent                   // this end closed first
	FinReceived               // the other end closed first
	ResetSent                 // this end sent RST
	ResetReceived             // the other end sent RST
	Refused                   // RST in answer to our SYN
	Timeout                   // ETIMEDOUT: no answer any more
	Unreachable               // ICMP or routing: EHOSTUNREACH, ENETUNREACH
	Aborted                   // ended by this host: bpf_sock_destroy, namespace gone, out of memory
)

// String returns the reason's name.
func (r CloseReason) String() string {
	names := [...]string{"", "fin_sent", "fin_received", "reset_sent", "reset_received", "refused", "timeout", "unreachable", "aborted"}
	if int(r) < len(names) {
		return names[r]
	}
	return ""
}

// Count is what went one way.
type Count struct{ Bytes, Packets uint64 }

// Flow is one end of a connection over an interval: from Time to End. A
// connection that lives longer than the report interval gives several
// records, and their counts add up. Source is the client.
type Flow struct {
	Time, End   int64  // monotonic nanoseconds
	ID          uint64 // socket cookie, the same in every record of one end
	Transport   Transport
	Direction   Direction
	Verdict     Verdict
	Source      netip.AddrPort
	Destination netip.AddrPort
	PID         uint32 // of the end the record belongs to; 0 if unknown
	PeerPID     uint32 // of the other end, if it is on this host
	CgroupID    uint64
	NetNS       uint32

	Sent     Count // by the end the record belongs to, in this interval
	Received Count

	TCP  TCPInfo
	Drop Drop

	Who      *Who // filled by enrich
	Peer     *Who
	Complete bool // seen from its beginning, and nothing of it was lost

	Attrs []Attr
}

// TCPInfo is what only TCP has. Durations are nanoseconds.
type TCPInfo struct {
	State           uint8 // kernel's TCP_ESTABLISHED .. TCP_CLOSING
	CloseReason     CloseReason
	ResetReason     string // the kernel's SK_RST_REASON_* or SKB_DROP_REASON_* name, lower case
	ConnectNS       int64  // SYN to established, client only; 0 if not seen
	RTTMinNS        int64
	RTTNS           int64  // smoothed
	Retransmits     uint64 // segments, in this interval
	WindowLimitedNS int64  // time the peer's closed window held us back, in this interval
	ZeroWindows     uint64 // times our own receive window closed, in this interval
	ListenDrops     uint64 // listening socket: connections dropped because its queue was full
}

// Drop is set where Verdict is Dropped.
type Drop struct {
	Reason    string // the kernel's SKB_DROP_REASON_* name, lower case, without prefix
	Interface string
	Count     uint64 // packets this record stands for
}

// Alert is something a person should know: a policy that matched, or
// Ghostlight itself letting go of work to stay inside its budget.
type Alert struct {
	Time     int64
	Name     string // stable name of the rule, e.g. "budget.shed"
	Severity string // info, warning, critical
	Message  string
	Who      *Who
	Attrs    []Attr
}

// Lost says that records are missing, where, and how many.
type Lost struct {
	Time   int64
	Stage  string // ring, map, decode, enrich, store, cursor, export (the store has what an exporter lost)
	Sensor string
	Count  uint64
}
