// Package process sees processes being made, becoming another program and
// ending, and tells of those that ran before.
//
//	sched_process_fork, _exec, _exit -> ring -> Decode -> event.Process
//	iter/task (else /proc)           -> Start          -> event.Process, Running
package process

import (
	"bytes"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
	"ghostlight/internal/wire"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type identity -type fork -type exec -type end process process.bpf.c -- -I../../../bpf -Wall -Werror

// Sensor is the process sensor. It never sheds: every other record is told by
// the process it belongs to.
var Sensor = sensor.Def{
	Name:  "process",
	Doc:   "every process: fork, exec with arguments, exit with code and signal, and what ran before",
	Emits: []event.Kind{event.KindProcess},
	Shed:  0,
	Hooks: []kernel.Hook{
		hook("process starts", "new processes before their first exec", "sched_process_fork", "fork"),
		hook("process execs", "executables, arguments and capabilities of new processes", "sched_process_exec", "exec"),
		hook("process exits", "exit codes, signals, and that a process is gone", "sched_process_exit", "exit"),
		twin("process starts at the same time", "sched_process_fork", "fork"),
		twin("process execs at the same time", "sched_process_exec", "exec"),
		twin("process exits at the same time", "sched_process_exit", "exit"),
		{
			What:    "processes before the start",
			Without: "nothing: /proc is read instead, with start times of 10 ms",
			Tiers:   []kernel.Tier{{Name: "iter task", Program: "process_running", Needs: []*kernel.Probe{kernel.HaveIter}}},
		},
	},
	New: func(decode func(any) error) (sensor.Instance, error) {
		if err := decode(&struct{}{}); err != nil { // it has no options
			return nil, err
		}
		return &instance{}, nil
	},
}

func hook(what, without, tracepoint, program string) kernel.Hook {
	return kernel.Hook{What: what, Without: without, Tiers: []kernel.Tier{{
		Name: "tp_btf " + tracepoint, Program: "process_" + program, Needs: []*kernel.Probe{kernel.HaveTpBTF},
	}}}
}

// twin is the hook that tells what the first program missed. It comes after it
// in Hooks, so that it runs after it.
func twin(what, tracepoint, program string) kernel.Hook {
	return kernel.Hook{What: what, Without: "some of what happens on one CPU at once", Tiers: []kernel.Tier{{
		Name: "second tp_btf " + tracepoint, Program: "twin_" + program, Twin: true,
		Needs: []*kernel.Probe{kernel.HaveTpBTF, kernel.PreemptsTracepoints},
	}, {
		Name: "one program: this kernel does not preempt tracepoints", Program: "process_" + program,
		Attach: func(*kernel.Object, *ebpf.Program) (link.Link, error) { return nil, nil },
	}}}
}

// The types of records, as in process.bpf.c.
const (
	typeFork = 1 + iota
	typeExec
	typeExit
	typeRunning
)

// The flags of an identity, as in process.bpf.c.
const (
	flagExeCut = 1 << iota
	flagCwdCut
	flagArgsCut
	flagArgsFault
	flagKthread
)

// instance is a running sensor.
type instance struct {
	path []byte            // where a path is put together
	args [maxArgs + 1]byte // where arguments are read
	gone [256]ended
}

// ended is a process whose exit was told.
type ended struct {
	pid   uint32
	start uint64
}

// Spec returns the object; it has no options.
func (*instance) Spec() (*ebpf.CollectionSpec, error) { return loadProcess() }

// Decode adds the record raw to out.
func (i *instance) Decode(h *wire.Header, raw []byte, out *event.Batch) error {
	switch h.Type {
	case typeFork:
		return i.fork(h, raw, out)
	case typeExec:
		return i.exec(h, raw, out)
	case typeExit:
		return i.exit(h, raw, out)
	}
	return fmt.Errorf("process: no record has the type %d", h.Type)
}

func (i *instance) fork(h *wire.Header, raw []byte, out *event.Batch) error {
	r, err := wire.View[processFork](raw)
	if err != nil {
		return err
	}
	add(out, event.Fork, h, &r.Id)
	return nil
}

// exit tells of a process once. The last two threads of a process may both
// find no living thread left, and then both say that it ended.
func (i *instance) exit(h *wire.Header, raw []byte, out *event.Batch) error {
	r, err := wire.View[processEnd](raw)
	if err != nil {
		return err
	}
	last := &i.gone[r.Id.Pid%uint32(len(i.gone))]
	this := ended{r.Id.Pid, r.Id.Start}
	if *last == this {
		return nil
	}
	*last = this
	p := add(out, event.Exit, h, &r.Id)
	p.ExitCode, p.ExitSignal = int32(r.Status>>8&0xff), int32(r.Status&0x7f)
	return nil
}

func (i *instance) exec(h *wire.Header, raw []byte, out *event.Batch) error {
	r, names, err := viewExec(raw)
	if err != nil {
		return err
	}
	p := add(out, event.Exec, h, &r.Id)
	i.program(p, r, names)
	p.Args = splitArgs(names[r.ExeLen+r.CwdLen:])
	p.ArgsCut = r.Id.Flags&flagArgsCut != 0
	return nil
}

// add appends a record with what all of them have.
func add(out *event.Batch, a event.Action, h *wire.Header, id *processIdentity) *event.Process {
	out.Processes = append(out.Processes, event.Process{
		Time: int64(h.Ktime), Action: a,
		PID: id.Pid, PPID: id.Ppid, Start: int64(id.Start), ExecCount: id.ExecId,
		UID: id.Uid, GID: id.Gid, CgroupID: id.Cgroup,
		Namespaces: event.Namespaces{
			Cgroup: id.NsCgroup, IPC: id.NsIpc, Mnt: id.NsMnt, Net: id.NsNet,
			PID: id.NsPid, User: id.NsUser, UTS: id.NsUts,
		},
		Complete: id.Flags&(flagExeCut|flagCwdCut|flagArgsFault) == 0,
	})
	return &out.Processes[len(out.Processes)-1]
}

// program fills what an exec settles, but for the arguments.
func (i *instance) program(p *event.Process, r *processExec, names []byte) {
	exe, cwd := names[:r.ExeLen], names[r.ExeLen:r.ExeLen+r.CwdLen]
	p.CapEffective = r.CapEffective
	if r.ExeLen > 0 {
		p.Executable = i.join(exe, r.Id.Flags&flagExeCut != 0)
	}
	if r.Id.Flags&flagKthread == 0 {
		p.Cwd = i.join(cwd, r.Id.Flags&flagCwdCut != 0)
	}
}

// viewExec returns the struct and what comes after it: the names of both paths
// and the arguments. The lengths are checked against the record.
func viewExec(raw []byte) (*processExec, []byte, error) {
	r, err := wire.View[processExec](raw)
	if err != nil {
		return nil, nil, err
	}
	rest := raw[unsafe.Sizeof(*r):]
	need := uint64(r.ExeLen) + uint64(r.CwdLen) + uint64(r.ArgsLen)
	if need > uint64(len(rest)) {
		return nil, nil, fmt.Errorf("process: an exec record says %d bytes and has %d", need, len(rest))
	}
	return r, rest[:need], nil
}

// join turns names, leaf first and each with its NUL, into a path from the
// root. A path that was cut has "..." in the place of its missing beginning.
func (i *instance) join(names []byte, cut bool) string {
	b := i.path[:0]
	if cut {
		b = append(b, "..."...)
	}
	for len(names) > 0 {
		names = names[:len(names)-1] // the NUL
		at := bytes.LastIndexByte(names, 0) + 1
		b = append(append(b, '/'), names[at:]...)
		names = names[:at]
	}
	if len(b) == 0 {
		b = append(b, '/')
	}
	i.path = b
	return string(b)
}

// splitArgs splits at the NULs. The arguments share one string.
func splitArgs(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	b = bytes.TrimSuffix(b, []byte{0})
	s := string(b)
	args := make([]string, 0, bytes.Count(b, []byte{0})+1)
	for at := 0; ; {
		n := bytes.IndexByte(b[at:], 0)
		if n < 0 {
			return append(args, s[at:])
		}
		args = append(args, s[at:at+n])
		at += n + 1
	}
}
