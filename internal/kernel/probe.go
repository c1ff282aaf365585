package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Probe is a question to the running kernel, as a value: sensors name the
// probes they need, doctor lists them, and tests skip by them.
type Probe struct {
	Name  string // "tp_btf", "sk_storage in tracing"
	Since string // first kernel release that has it, "5.11"
	Loss  string // what the user misses without it
	Test  func() error

	once sync.Once
	err  error
}

// Have returns nil if the kernel has the feature, else the reason why not. The
// kernel is asked once.
func (p *Probe) Have() error {
	p.once.Do(func() {
		if err := p.Test(); err != nil {
			p.err = fmt.Errorf("%s (since Linux %s): %w", p.Name, p.Since, err)
		}
	})
	return p.err
}

// The probes. Each has a name so that a tier, a test and doctor speak of the
// same thing.
var (
	HaveBTF = &Probe{Name: "kernel BTF", Since: "5.4", Loss: "nothing can be loaded",
		Test: func() error { _, err := btf.LoadKernelSpec(); return err }}
	HaveRing = &Probe{Name: "ring buffer", Since: "5.8", Loss: "nothing can be loaded",
		Test: func() error { return features.HaveMapType(ebpf.RingBuf) }}
	HaveTpBTF = &Probe{Name: "tp_btf", Since: "5.5", Loss: "processes and TCP fall back to slower hooks",
		Test: func() error { return tryTracing(ebpf.AttachTraceRawTp, "sched_process_exit") }}
	PreemptsTracepoints = &Probe{Name: "preemption inside of tracepoints", Since: "6.19", Loss: "nothing: with it a program misses events unless it has a twin",
		Test: tryPreemptsTracepoints}
	HaveFentry = &Probe{Name: "fentry", Since: "5.5", Loss: "hooks on kernel functions; refused under lockdown=integrity",
		Test: func() error { return tryTracing(ebpf.AttachTraceFEntry, "tcp_connect") }}
	HaveKprobe = &Probe{Name: "kprobe", Since: "4.1", Loss: "hooks on kernel functions; needs CONFIG_KPROBE_EVENTS",
		Test: tryKprobe}
	HaveLSM = &Probe{Name: "BPF LSM", Since: "5.7", Loss: "nothing can be prevented before its effect; needs lsm=...,bpf",
		Test: func() error { return tryTracing(ebpf.AttachLSMMac, "file_open") }}
	HaveIter = &Probe{Name: "iterators", Since: "5.8", Loss: "processes and sockets that were there before the start",
		Test: func() error { return tryTracing(ebpf.AttachTraceIter, "task") }}
	HaveSkStorageTracing = &Probe{Name: "socket storage in tracing", Since: "5.11", Loss: "connection state falls back to a hash map",
		Test: trySkStorage}
	HaveTaskStorage = &Probe{Name: "task storage", Since: "5.11", Loss: "thread state falls back to a hash map",
		Test: func() error { return features.HaveMapType(ebpf.TaskStorage) }}
	HaveTracingCookie = &Probe{Name: "socket cookie in tracing", Since: "5.12", Loss: "sockets get their cookies by cgroup hooks",
		Test: tryTracingCookie}
	HaveTaskRegs = &Probe{Name: "registers of a task", Since: "5.15", Loss: "system call arguments are found on the task's stack",
		Test: tryTaskRegs}
	HaveCgroupSKB = &Probe{Name: "cgroup skb", Since: "4.10", Loss: "UDP and ICMP flows",
		Test: func() error { return features.HaveProgramType(ebpf.CGroupSKB) }}
	HaveDropReason = &Probe{Name: "drop reasons", Since: "5.17", Loss: "why the kernel dropped a packet",
		Test: func() error { return haveEnum("skb_drop_reason") }}
	HaveResetReason = &Probe{Name: "reset reasons", Since: "6.10", Loss: "why the kernel sent a RST",
		Test: func() error { return haveEnum("sk_rst_reason") }}
	HaveSockLength = &Probe{Name: "tp_btf sock_send_length", Since: "6.3", Loss: "requests take a dearer hook",
		Test: func() error { return tryTracing(ebpf.AttachTraceRawTp, "sock_send_length") }}
	HaveUringRequests = &Probe{Name: "tp_btf io_uring_complete with the request", Since: "5.19", Loss: "requests of programs that serve them by io_uring",
		Test: tryUringRequests}
	HaveUprobe = &Probe{Name: "uprobe", Since: "4.3", Loss: "TLS and language runtimes", Test: tryUprobe}
)

// Probes is every probe, in the order doctor shows them.
var Probes = []*Probe{
	HaveBTF, HaveRing, HaveTpBTF, HaveIter, HaveSkStorageTracing, HaveTaskStorage, HaveTracingCookie, HaveTaskRegs, HaveCgroupSKB,
	HaveDropReason, HaveResetReason, HaveSockLength, HaveUringRequests, HaveUprobe, HaveFentry, HaveKprobe, HaveLSM,
}

// tryTracing loads and attaches an empty tracing program: loading alone does
// not say yes, because lockdown refuses some kinds and configuration others.
func tryTracing(attach ebpf.AttachType, to string) error {
	typ := ebpf.Tracing
	if attach == ebpf.AttachLSMMac {
		typ = ebpf.LSM
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: typ, AttachType: attach, AttachTo: to, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return lastLine(err)
	}
	defer prog.Close()
	var l link.Link
	switch attach {
	case ebpf.AttachLSMMac:
		l, err = link.AttachLSM(link.LSMOptions{Program: prog})
	case ebpf.AttachTraceIter:
		l, err = link.AttachIter(link.IterOptions{Program: prog})
	default:
		l, err = link.AttachTracing(link.TracingOptions{Program: prog})
	}
	if err != nil {
		return err
	}
	return l.Close()
}

// trySkStorage loads a program that asks a traced socket for its storage. The
// map type is older (5.2) than the permission to use it here.
func trySkStorage() error {
	u32, u64 := &btf.Int{Name: "unsigned int", Size: 4}, &btf.Int{Name: "unsigned long long", Size: 8}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SkStorage, KeySize: 4, ValueSize: 8, Flags: unix.BPF_F_NO_PREALLOC, Key: u32, Value: u64})
	if err != nil {
		return lastLine(err)
	}
	defer m.Close()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "inet_sock_set_state", License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Imm(asm.R3, 0),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnSkStorageGet.Call(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		return lastLine(err)
	}
	return p.Close()
}

func tryTracingCookie() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "inet_sock_set_state", License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord),
			asm.FnGetSocketCookie.Call(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		return lastLine(err)
	}
	return p.Close()
}

func tryTaskRegs() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "inet_sock_set_state", License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.FnGetCurrentTaskBtf.Call(),
			asm.Mov.Reg(asm.R1, asm.R0),
			asm.FnTaskPtRegs.Call(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		return lastLine(err)
	}
	return p.Close()
}

func tryKprobe() error {
	if _, err := os.Stat("/sys/bus/event_source/devices/kprobe"); err != nil {
		return errors.New("this kernel was built without kprobe events")
	}
	prog, err := emptyProgram(ebpf.Kprobe)
	if err != nil {
		return lastLine(err)
	}
	defer prog.Close()
	l, err := link.Kprobe("tcp_connect", prog, nil)
	if err != nil {
		return err
	}
	return l.Close()
}

func tryUprobe() error {
	prog, err := emptyProgram(ebpf.Kprobe)
	if err != nil {
		return lastLine(err)
	}
	defer prog.Close()
	exe, err := link.OpenExecutable("/proc/self/exe")
	if err != nil {
		return err
	}
	// An address inside our own text that no thread runs twice a day: the probe
	// is there for the time of this call.
	l, err := exe.Uprobe("", prog, &link.UprobeOptions{Address: 0x1000})
	if err != nil {
		return err
	}
	return l.Close()
}

func emptyProgram(t ebpf.ProgramType) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: t, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
}

// tryPreemptsTracepoints goes by the release: 7.2 does it, 6.18 does not, and
// being wrong in between costs a program that never has anything to do.
func tryPreemptsTracepoints() error {
	v, err := features.LinuxVersionCode()
	if err != nil {
		return err
	}
	if v < 6<<16|19<<8 {
		return errors.New("this kernel is older")
	}
	return nil
}

// tryUringRequests looks at the tracepoint's second argument: a pointer if it is
// the request, as it once was a number.
func tryUringRequests() error {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return err
	}
	var t *btf.Typedef
	if err := spec.TypeByName("btf_trace_io_uring_complete", &t); err != nil {
		return err
	}
	if p, ok := t.Type.(*btf.Pointer); ok {
		if f, ok := p.Target.(*btf.FuncProto); ok && len(f.Params) > 2 {
			if _, ok := btf.UnderlyingType(f.Params[2].Type).(*btf.Pointer); ok {
				return nil
			}
		}
	}
	return errors.New("it has a number in its place")
}

func haveEnum(name string) error {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return err
	}
	var e *btf.Enum
	return spec.TypeByName(name, &e)
}

// lastLine keeps the kernel's verdict and drops the verifier's log, and says
// what a plain EPERM means.
func lastLine(err error) error {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		err = ve.Cause
	}
	if errors.Is(err, unix.EPERM) {
		return errNotPermitted
	}
	return err
}

var errNotPermitted = fmt.Errorf("%w: kernel lockdown forbids it, or a capability is missing", unix.EPERM)
