package event

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// Type is the type of a column.
type Type uint8

// The types. Time is Unix nanoseconds, Duration nanoseconds; both are int64
// cells, as Int and Bool are. Strings is a list, its cell joined by NUL. Map
// holds Attrs, its cell a list of key, value, key, value joined by NUL.
const (
	String Type = iota + 1
	Int
	Bool
	Time
	Duration
	Strings
	Map
)

// Null is the cell of an int64 column that has no value. A string column that
// has no value is empty.
const Null = math.MinInt64

// Table is the schema of one kind of record: the only place that knows which
// fields it has. JSON, Parquet, SQL, filters and docs are derived from it.
type Table struct {
	Kind    Kind
	Name    string // in SQL and as a folder: "flows"
	Columns []Column
	Len     func(*Batch) int
}

// Column is one field. Name is the path in JSON and the name in filters; in
// SQL and Parquet its dots are underscores. Exactly one of Int and Append is
// set: Append adds the cell of a string column to dst, so that writing a row
// allocates nothing.
type Column struct {
	Name   string
	Type   Type
	Doc    string
	Int    func(b *Batch, row int) int64
	Append func(dst []byte, b *Batch, row int) []byte
	// Text is Append without the copy, for a String column whose cells are
	// texts already; else nil.
	Text func(b *Batch, row int) string
	// Group, if set, tells which rows have no value here, so that they are not
	// asked for one.
	Group *Group
}

// Group is columns that have values in the same rows only: those of one family
// of requests, for instance.
type Group struct {
	Has func(b *Batch, row int) bool
}

// text returns a column whose cells are texts already.
func text(name, doc string, get func(b *Batch, row int) string) Column {
	return Column{Name: name, Type: String, Doc: doc, Text: get, Append: func(dst []byte, b *Batch, i int) []byte { return append(dst, get(b, i)...) }}
}

// SQLName returns the name in SQL and Parquet.
func (c *Column) SQLName() string { return strings.ReplaceAll(c.Name, ".", "_") }

// Tables is every table, by kind. It never changes.
var Tables = []Table{
	{KindProcess, "processes", processColumns, func(b *Batch) int { return len(b.Processes) }},
	{KindFlow, "flows", flowColumns, func(b *Batch) int { return len(b.Flows) }},
	{KindRequest, "requests", requestColumns, func(b *Batch) int { return len(b.Requests) }},
	{KindAlert, "alerts", alertColumns, func(b *Batch) int { return len(b.Alerts) }},
	{KindLost, "lost", lostColumns, func(b *Batch) int { return len(b.Lost) }},
}

func flowInt(name string, t Type, doc string, get func(*Flow) int64) Column {
	return Column{Name: name, Type: t, Doc: doc, Int: func(b *Batch, i int) int64 { return get(&b.Flows[i]) }}
}

func flowStr(name, doc string, get func(*Flow) string) Column {
	return text(name, doc, func(b *Batch, i int) string { return get(&b.Flows[i]) })
}

func flowAddr(name, doc string, get func(*Flow) netip.Addr) Column {
	return Column{Name: name, Type: String, Doc: doc, Append: func(dst []byte, b *Batch, i int) []byte { return appendAddr(dst, get(&b.Flows[i])) }}
}

var flowColumns = []Column{
	{Name: "time", Type: Time, Doc: "start of the interval this record reports", Int: func(b *Batch, i int) int64 { return b.Flows[i].Time + b.Wall }},
	{Name: "end_time", Type: Time, Doc: "end of the interval", Int: func(b *Batch, i int) int64 { return b.Flows[i].End + b.Wall }},
	flowInt("flow.id", Int, "socket cookie: the same in every record of one end of a connection", func(f *Flow) int64 { return int64(f.ID) }),
	flowStr("network.transport", "tcp, udp, icmp, ... (IANA)", func(f *Flow) string { return f.Transport.String() }),
	flowStr("network.type", "ipv4 or ipv6", func(f *Flow) string { return networkType(f.Source.Addr()) }),
	flowAddr("source.address", "the client's address", func(f *Flow) netip.Addr { return f.Source.Addr() }),
	flowInt("source.port", Int, "the client's port", func(f *Flow) int64 { return port(f.Source) }),
	flowAddr("destination.address", "the server's address", func(f *Flow) netip.Addr { return f.Destination.Addr() }),
	flowInt("destination.port", Int, "the server's port", func(f *Flow) int64 { return port(f.Destination) }),
	flowStr("direction", "outbound: the record is of the client's end; inbound: of the server's", func(f *Flow) string { return f.Direction.String() }),
	flowStr("verdict", "forwarded, dropped or error", func(f *Flow) string { return f.Verdict.String() }),
	flowInt("process.pid", Int, "process at this end", func(f *Flow) int64 { return positive(int64(f.PID)) }),
	flowStr("process.exec_id", "its execution", func(f *Flow) string { return f.who().ExecID }),
	flowStr("process.executable.path", "its executable", func(f *Flow) string { return f.who().Executable }),
	flowStr("process.executable.name", "last element of the path", func(f *Flow) string { return f.who().Name }),
	{Name: "process.command_args", Type: Strings, Doc: "its arguments, secrets redacted", Append: func(dst []byte, b *Batch, i int) []byte { return append(dst, b.Flows[i].who().Args...) }},
	flowStr("container.id", "container at this end", func(f *Flow) string { return f.who().container().ID }),
	flowStr("container.name", "its name", func(f *Flow) string { return f.who().container().Name }),
	flowStr("service.name", "service at this end", func(f *Flow) string { return f.who().Service }),
	flowInt("peer.pid", Int, "process at the other end, if it is on this host", func(f *Flow) int64 { return positive(int64(f.PeerPID)) }),
	flowStr("peer.service.name", "service at the other end, if it is on this host", func(f *Flow) string { return f.peer().Service }),
	flowStr("peer.container.name", "container at the other end, if it is on this host", func(f *Flow) string { return f.peer().container().Name }),
	flowStr("tcp.state", "state at the end of the interval", func(f *Flow) string { return tcpState(f) }),
	flowInt("tcp.connect_ns", Duration, "from SYN to established, at the client", func(f *Flow) int64 { return positive(f.TCP.ConnectNS) }),
	flowInt("tcp.rtt_min_ns", Duration, "smallest round-trip time the kernel saw", func(f *Flow) int64 { return positive(f.TCP.RTTMinNS) }),
	flowInt("tcp.rtt_ns", Duration, "smoothed round-trip time", func(f *Flow) int64 { return positive(f.TCP.RTTNS) }),
	flowInt("tcp.retransmits", Int, "segments sent again in the interval", func(f *Flow) int64 { return tcpCount(f, f.TCP.Retransmits) }),
	flowInt("tcp.zero_windows", Int, "times in the interval this end closed its receive window because its process did not read; at the other end the wait is window_limited_ns", func(f *Flow) int64 { return tcpCount(f, f.TCP.ZeroWindows) }),
	flowInt("tcp.window_limited_ns", Duration, "time in the interval the peer's full window held this end back", func(f *Flow) int64 { return positive(f.TCP.WindowLimitedNS) }),
	flowStr("tcp.close_reason", "fin_sent, fin_received, reset_sent, reset_received, refused, timeout, unreachable, aborted; absent while open", func(f *Flow) string { return f.TCP.CloseReason.String() }),
	flowStr("tcp.reset_reason", "the kernel's reason for a RST", func(f *Flow) string { return f.TCP.ResetReason }),
	flowInt("tcp.listen_drops", Int, "connections a listening socket dropped because its queue was full", func(f *Flow) int64 { return positive(int64(f.TCP.ListenDrops)) }),
	flowInt("bytes.sent", Int, "payload this end sent in the interval", func(f *Flow) int64 { return int64(f.Sent.Bytes) }),
	flowInt("bytes.received", Int, "payload this end received", func(f *Flow) int64 { return int64(f.Received.Bytes) }),
	flowInt("packets.sent", Int, "packets this end sent", func(f *Flow) int64 { return int64(f.Sent.Packets) }),
	flowInt("packets.received", Int, "packets this end received", func(f *Flow) int64 { return int64(f.Received.Packets) }),
	flowStr("drop.reason", "why the kernel dropped the packet (SKB_DROP_REASON_*)", func(f *Flow) string { return f.Drop.Reason }),
	flowStr("network.interface.name", "interface of a dropped packet", func(f *Flow) string { return f.Drop.Interface }),
	flowInt("drop.count", Int, "dropped packets this record stands for", func(f *Flow) int64 { return positive(int64(f.Drop.Count)) }),
	flowInt("complete", Bool, "false where the beginning or a part of the flow was not seen", func(f *Flow) int64 { return boolean(f.Complete) }),
	{Name: "attributes", Type: Map, Doc: "everything else", Append: func(dst []byte, b *Batch, i int) []byte { return appendAttrs(dst, b.Flows[i].Attrs) }},
}

func processInt(name string, t Type, doc string, get func(*Process) int64) Column {
	return Column{Name: name, Type: t, Doc: doc, Int: func(b *Batch, i int) int64 { return get(&b.Processes[i]) }}
}

func processStr(name, doc string, get func(*Process) string) Column {
	return text(name, doc, func(b *Batch, i int) string { return get(&b.Processes[i]) })
}

var processColumns = []Column{
	{Name: "time", Type: Time, Doc: "when it happened", Int: func(b *Batch, i int) int64 { return b.Processes[i].Time + b.Wall }},
	processStr("action", "fork, exec, exit, or running (it was there before Ghostlight, or a checkpoint)", func(p *Process) string { return p.Action.String() }),
	processInt("process.pid", Int, "process id", func(p *Process) int64 { return int64(p.PID) }),
	processInt("process.parent_pid", Int, "parent's process id", func(p *Process) int64 { return int64(p.PPID) }),
	processStr("process.exec_id", "stable id of this execution", func(p *Process) string { return p.who().ExecID }),
	processStr("process.parent.exec_id", "the parent's execution", func(p *Process) string { return p.who().ParentExecID }),
	processInt("process.start_ns", Int, "creation, nanoseconds since boot", func(p *Process) int64 { return p.Start }),
	processStr("process.executable.path", "executable", func(p *Process) string { return p.who().Executable }),
	processStr("process.executable.name", "last element of the path", func(p *Process) string { return p.who().Name }),
	{Name: "process.command_args", Type: Strings, Doc: "arguments, secrets redacted", Append: func(dst []byte, b *Batch, i int) []byte { return append(dst, b.Processes[i].who().Args...) }},
	processInt("process.args_truncated", Bool, "the arguments were longer than the bound", func(p *Process) int64 { return boolean(p.who().ArgsCut) }),
	processStr("process.working_directory", "working directory", func(p *Process) string { return p.who().Cwd }),
	processInt("process.user.id", Int, "effective user id", func(p *Process) int64 { return int64(p.UID) }),
	processInt("process.group.id", Int, "effective group id", func(p *Process) int64 { return int64(p.GID) }),
	{Name: "process.capabilities", Type: String, Doc: "effective capabilities, hexadecimal", Append: func(dst []byte, b *Batch, i int) []byte {
		return strconv.AppendUint(dst, b.Processes[i].who().CapEffective, 16)
	}},
	processStr("process.linux.cgroup", "cgroup path", func(p *Process) string { return p.who().CgroupPath }),
	processInt("process.linux.cgroup_id", Int, "cgroup v2 id", func(p *Process) int64 { return int64(p.CgroupID) }),
	processInt("process.namespace.cgroup", Int, "inode of the namespace", func(p *Process) int64 { return positive(int64(p.Namespaces.Cgroup)) }),
	processInt("process.namespace.ipc", Int, "inode of the namespace", func(p *Process) int64 { return positive(int64(p.Namespaces.IPC)) }),
	processInt("process.namespace.mnt", Int, "inode of the namespace", func(p *Process) int64 { return positive(int64(p.Namespaces.Mnt)) }),
	processInt("process.namespace.net", Int, "inode of the namespace", func(p *Process) int64 { return positive(int64(p.Namespaces.Net)) }),
	processInt("process.namespace.pid", Int, "inode of the namespace", func(p *Process) int64 { return positive(int64(p.Namespaces.PID)) }),
	processInt("process.namespace.user", Int, "inode of the namespace", func(p *Process) int64 { return positive(int64(p.Namespaces.User)) }),
	processInt("process.namespace.uts", Int, "inode of the namespace", func(p *Process) int64 { return positive(int64(p.Namespaces.UTS)) }),
	processInt("process.exit.code", Int, "exit code", func(p *Process) int64 { return exitOnly(p, int64(p.ExitCode)) }),
	processInt("process.exit.signal", Int, "signal that ended it, 0 if none", func(p *Process) int64 { return exitOnly(p, int64(p.ExitSignal)) }),
	processStr("container.id", "container", func(p *Process) string { return p.who().container().ID }),
	processStr("container.name", "its name", func(p *Process) string { return p.who().container().Name }),
	processStr("container.runtime", "docker, containerd, cri-o or podman", func(p *Process) string { return p.who().container().Runtime }),
	processStr("k8s.pod.uid", "Kubernetes pod", func(p *Process) string { return p.who().container().PodUID }),
	processStr("service.name", "service", func(p *Process) string { return p.who().Service }),
	processInt("complete", Bool, "false where a part of the story was lost", func(p *Process) int64 { return boolean(p.Complete) }),
}

var alertColumns = []Column{
	{Name: "time", Type: Time, Doc: "when it happened", Int: func(b *Batch, i int) int64 { return b.Alerts[i].Time + b.Wall }},
	{Name: "alert.name", Type: String, Doc: "stable name of the rule", Append: func(dst []byte, b *Batch, i int) []byte { return append(dst, b.Alerts[i].Name...) }},
	{Name: "alert.severity", Type: String, Doc: "info, warning or critical", Append: func(dst []byte, b *Batch, i int) []byte { return append(dst, b.Alerts[i].Severity...) }},
	{Name: "alert.message", Type: String, Doc: "what happened, for a person", Append: func(dst []byte, b *Batch, i int) []byte { return append(dst, b.Alerts[i].Message...) }},
	{Name: "process.pid", Type: Int, Doc: "process", Int: func(b *Batch, i int) int64 { return positive(int64(b.Alerts[i].Who.orNone().PID)) }},
	{Name: "process.exec_id", Type: String, Doc: "its execution", Append: func(dst []byte, b *Batch, i int) []byte { return append(dst, b.Alerts[i].Who.orNone().ExecID...) }},
	{Name: "service.name", Type: String, Doc: "service", Append: func(dst []byte, b *Batch, i int) []byte { return append(dst, b.Alerts[i].Who.orNone().Service...) }},
	{Name: "attributes", Type: Map, Doc: "everything else", Append: func(dst []byte, b *Batch, i int) []byte { return appendAttrs(dst, b.Alerts[i].Attrs) }},
}

var lostColumns = []Column{
	{Name: "time", Type: Time, Doc: "when the loss was noticed", Int: func(b *Batch, i int) int64 { return b.Lost[i].Time + b.Wall }},
	{Name: "lost.stage", Type: String, Doc: "ring, map, decode, enrich, store or cursor", Append: func(dst []byte, b *Batch, i int) []byte { return append(dst, b.Lost[i].Stage...) }},
	{Name: "lost.sensor", Type: String, Doc: "sensor whose records are missing", Append: func(dst []byte, b *Batch, i int) []byte { return append(dst, b.Lost[i].Sensor...) }},
	{Name: "lost.count", Type: Int, Doc: "how many", Int: func(b *Batch, i int) int64 { return int64(b.Lost[i].Count) }},
}

var (
	nobody      = &Who{}
	noContainer = &Container{}
)

func (w *Who) orNone() *Who {
	if w == nil {
		return nobody
	}
	return w
}

func (w *Who) container() *Container {
	if w.Container == nil {
		return noContainer
	}
	return w.Container
}

func (f *Flow) who() *Who    { return f.Who.orNone() }
func (f *Flow) peer() *Who   { return f.Peer.orNone() }
func (p *Process) who() *Who { return p.Who.orNone() }

// String returns the transport's name as network.transport has it.
func (t Transport) String() string {
	switch t {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMP:
		return "icmp"
	case ICMPv6:
		return "icmpv6"
	case SCTP:
		return "sctp"
	case 0:
		return ""
	}
	return strconv.Itoa(int(t))
}

func networkType(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return ""
	case a.Unmap().Is4():
		return "ipv4"
	}
	return "ipv6"
}

func appendAddr(dst []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return dst
	}
	return a.Unmap().AppendTo(dst)
}

func port(a netip.AddrPort) int64 {
	if !a.IsValid() {
		return Null
	}
	return int64(a.Port())
}

func tcpState(f *Flow) string {
	if f.Transport != TCP {
		return ""
	}
	names := [...]string{"", "established", "syn_sent", "syn_recv", "fin_wait1", "fin_wait2", "time_wait", "close", "close_wait", "last_ack", "listen", "closing", "new_syn_recv"}
	if int(f.TCP.State) < len(names) {
		return names[f.TCP.State]
	}
	return ""
}

func tcpCount(f *Flow, n uint64) int64 {
	if f.Transport != TCP {
		return Null
	}
	return int64(n)
}

func exitOnly(p *Process, n int64) int64 {
	if p.Action != Exit {
		return Null
	}
	return n
}

func positive(n int64) int64 {
	if n <= 0 {
		return Null
	}
	return n
}

func boolean(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func appendAttrs(dst []byte, attrs []Attr) []byte {
	for i, a := range attrs {
		if i > 0 {
			dst = append(dst, 0)
		}
		dst = append(dst, a.Key...)
		dst = append(dst, 0)
		dst = append(dst, a.Value...)
	}
	return dst
}
