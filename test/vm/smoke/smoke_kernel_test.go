// Package smoke asks a kernel what it offers, with none of Ghostlight's own
// code: what the kernel matrix shows is what the kernel does, not what we
// believe of it.
package smoke

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// A trial loads and attaches a program, makes the kernel run it and returns
// nil only if it ran. From is the first kernel of the matrix that must pass.
type trial struct {
	name string
	from string
	try  func(*testing.T) error
}

var trials = []trial{
	{"kernel BTF", "5.10", tryBTF},
	{"ring buffer", "5.10", tryRing},
	{"tracepoint", "5.10", tryTracepoint},
	{"raw tracepoint", "5.10", tryRawTracepoint},
	{"tp_btf inet_sock_set_state", "5.10", tpBTF("inet_sock_set_state", dial)},
	{"tp_btf sched_process_fork", "5.10", tpBTF("sched_process_fork", execTrue)},
	{"tp_btf tcp_destroy_sock", "5.10", tpBTF("tcp_destroy_sock", dial)},
	{"tp_btf sched_switch", "5.10", tpBTF("sched_switch", nap)},
	{"tp_btf sock_send_length", "6.12", tpBTF("sock_send_length", dial)},
	{"drop reasons", "6.1", haveEnum("skb_drop_reason")},
	{"reset reasons", "6.12", haveEnum("sk_rst_reason")},
	{"kprobe", "5.10", tryKprobe},
	{"kretprobe", "5.10", tryKretprobe},
	{"kprobe multi", "6.12", tryKprobeMulti}, // Debian built 6.1 without FPROBE
	{"fentry", "5.10", tracing(ebpf.AttachTraceFEntry, "tcp_connect", dial)},
	{"fexit", "5.10", tracing(ebpf.AttachTraceFExit, "tcp_connect", dial)},
	{"fmod_ret", "5.10", tracing(ebpf.AttachModifyReturn, "security_file_open", open)},
	{"LSM", "5.10", tryLSM},
	{"uprobe", "5.10", tryUprobe},
	{"uprobe multi", "6.12", tryUprobeMulti},
	{"perf event", "5.10", tryPerfEvent},
	{"sk_storage in tracing", "6.1", trySockStorage},
	{"task_storage in tracing", "6.1", tryTaskStorage},
	{"task_pt_regs helper", "6.1", tryTaskRegs},
	{"iter task", "5.10", iterate("task")},
	{"iter task_file", "5.10", iterate("task_file")},
	{"iter tcp", "5.10", iterate("tcp")},
	{"iter udp", "5.10", iterate("udp")},
	{"iter unix", "6.1", iterate("unix")},
	{"cgroup skb", "5.10", tryCgroup(ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress)},
	{"cgroup connect4", "5.10", tryCgroup(ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect)},
	{"sockops", "5.10", tryCgroup(ebpf.SockOps, ebpf.AttachCGroupSockOps)},
	{"XDP generic", "5.10", tryXDP},
	{"TCX", "6.12", tryTCX},
	{"run statistics", "5.10", tryStats},
}

func TestCapability(t *testing.T) {
	if err := rlimit.RemoveMemlock(); err != nil { // matters before Linux 5.11
		t.Logf("limit of locked memory stays: %v", err)
	}
	for _, trial := range trials {
		t.Run(trial.name, func(t *testing.T) {
			err := trial.try(t)
			if err == nil {
				return
			}
			if must := mustHave(t, trial.from); must {
				t.Fatal(err)
			}
			t.Skip(err)
		})
	}
}

// mustHave tells whether this kernel is one of Debian's, at least as new as
// from and not locked down: then we know what it was built with.
func mustHave(t *testing.T, from string) bool {
	version, err := os.ReadFile("/proc/version")
	if err != nil {
		t.Fatal(err)
	}
	lockdown, _ := os.ReadFile("/sys/kernel/security/lockdown") // absent: not locked
	open := len(lockdown) == 0 || strings.Contains(string(lockdown), "[none]")
	return strings.Contains(string(version), "Debian") && open && release(t, string(version)) >= number(t, from)
}

func release(t *testing.T, version string) int {
	m := regexp.MustCompile(`^Linux version (\d+\.\d+)`).FindStringSubmatch(version)
	if m == nil {
		t.Fatalf("no release in %q", version)
	}
	return number(t, m[1])
}

func number(t *testing.T, release string) int {
	major, minor, _ := strings.Cut(release, ".")
	a, err := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return a<<16 | b
}

func TestNumber(t *testing.T) {
	if !(number(t, "5.10") < number(t, "6.1") && number(t, "6.1") < number(t, "6.12")) {
		t.Fatal("5.10, 6.1, 6.12 are out of order")
	}
}

// A counter is a map with the number of times programs ran.
type counter struct{ *ebpf.Map }

func newCounter(t *testing.T) counter {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatalf("create map: %v", err)
	}
	t.Cleanup(func() { m.Close() })
	return counter{m}
}

// add counts and leaves r0 at ret.
func (c counter) add(ret int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapValue(asm.R1, c.FD(), 0),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R0, ret).WithSymbol("out"),
		asm.Return(),
	}
}

// ran is an error if act does not make the program run.
func (c counter) ran(act func() error) error {
	if err := act(); err != nil {
		return fmt.Errorf("act: %w", err)
	}
	var n uint64
	if err := c.Lookup(uint32(0), &n); err != nil {
		return fmt.Errorf("read counter: %w", err)
	}
	if n == 0 {
		return errors.New("attached, but it never ran")
	}
	return nil
}

func load(t *testing.T, spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	spec.License = "Dual BSD/GPL"
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	t.Cleanup(func() { p.Close() })
	return p, nil
}

// watch loads spec with a counting body, attaches it and wants it to run.
func watch(t *testing.T, spec *ebpf.ProgramSpec, ret int32, attach func(*ebpf.Program) (io.Closer, error), act func() error) error {
	c := newCounter(t)
	spec.Instructions = append(spec.Instructions, c.add(ret)...)
	p, err := load(t, spec)
	if err != nil {
		return err
	}
	l, err := attach(p)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	defer l.Close()
	return c.ran(act)
}

func dial() error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := net.DialTimeout("tcp4", l.Addr().String(), 5*time.Second)
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("x"))
	return errors.Join(err, c.Close())
}

func open() error {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	return f.Close()
}

func execTrue() error { return exec.Command("/proc/self/exe", "-test.run=^$").Run() }

func nap() error { time.Sleep(10 * time.Millisecond); return nil }

func tryBTF(*testing.T) error {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return err
	}
	var task *btf.Struct
	return spec.TypeByName("task_struct", &task)
}

func haveEnum(name string) func(*testing.T) error {
	return func(*testing.T) error {
		spec, err := btf.LoadKernelSpec()
		if err != nil {
			return err
		}
		var e *btf.Enum
		return spec.TypeByName(name, &e)
	}
}

// tryRing runs a program once and wants its record.
func tryRing(t *testing.T) error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())})
	if err != nil {
		return fmt.Errorf("create ring: %w", err)
	}
	defer m.Close()
	p, err := load(t, &ebpf.ProgramSpec{Type: ebpf.XDP, Instructions: asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Imm(asm.R2, 42),
		asm.StoreMem(asm.RFP, -8, asm.R2, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.Mov.Imm(asm.R3, 8),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.Mov.Imm(asm.R0, 2),
		asm.Return(),
	}})
	if err != nil {
		return err
	}
	r, err := ringbuf.NewReader(m)
	if err != nil {
		return fmt.Errorf("open ring: %w", err)
	}
	defer r.Close()
	if _, _, err := p.Test(make([]byte, 64)); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	r.SetDeadline(time.Now().Add(5 * time.Second))
	rec, err := r.Read()
	if err == nil && (len(rec.RawSample) != 8 || rec.RawSample[0] != 42) {
		err = fmt.Errorf("record %v", rec.RawSample)
	}
	return err
}

func tryTracepoint(t *testing.T) error {
	return watch(t, &ebpf.ProgramSpec{Type: ebpf.TracePoint}, 0, func(p *ebpf.Program) (io.Closer, error) {
		return link.Tracepoint("sock", "inet_sock_set_state", p, nil)
	}, dial)
}

func tryRawTracepoint(t *testing.T) error {
	return watch(t, &ebpf.ProgramSpec{Type: ebpf.RawTracepoint}, 0, func(p *ebpf.Program) (io.Closer, error) {
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: "inet_sock_set_state", Program: p})
	}, dial)
}

func attachTracing(p *ebpf.Program) (io.Closer, error) {
	return link.AttachTracing(link.TracingOptions{Program: p})
}

func tracing(kind ebpf.AttachType, to string, act func() error) func(*testing.T) error {
	return func(t *testing.T) error {
		return watch(t, &ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: kind, AttachTo: to}, 0, attachTracing, act)
	}
}

func tpBTF(name string, act func() error) func(*testing.T) error {
	return tracing(ebpf.AttachTraceRawTp, name, act)
}

func tryLSM(t *testing.T) error {
	return watch(t, &ebpf.ProgramSpec{Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "file_open"}, 0,
		func(p *ebpf.Program) (io.Closer, error) { return link.AttachLSM(link.LSMOptions{Program: p}) }, open)
}

func tryKprobe(t *testing.T) error {
	return watch(t, &ebpf.ProgramSpec{Type: ebpf.Kprobe}, 0,
		func(p *ebpf.Program) (io.Closer, error) { return link.Kprobe("tcp_connect", p, nil) }, dial)
}

func tryKretprobe(t *testing.T) error {
	return watch(t, &ebpf.ProgramSpec{Type: ebpf.Kprobe}, 0,
		func(p *ebpf.Program) (io.Closer, error) { return link.Kretprobe("tcp_connect", p, nil) }, dial)
}

func tryKprobeMulti(t *testing.T) error {
	return watch(t, &ebpf.ProgramSpec{Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceKprobeMulti}, 0, func(p *ebpf.Program) (io.Closer, error) {
		return link.KprobeMulti(p, link.KprobeMultiOptions{Symbols: []string{"tcp_connect", "tcp_close"}})
	}, dial)
}

//go:noinline
func probed() error { runtime.Gosched(); return nil }

const probedSymbol = "ghostlight/test/vm/smoke.probed"

func tryUprobe(t *testing.T) error {
	return watch(t, &ebpf.ProgramSpec{Type: ebpf.Kprobe}, 0, func(p *ebpf.Program) (io.Closer, error) {
		self, err := link.OpenExecutable("/proc/self/exe")
		if err != nil {
			return nil, err
		}
		return self.Uprobe(probedSymbol, p, nil)
	}, probed)
}

func tryUprobeMulti(t *testing.T) error {
	return watch(t, &ebpf.ProgramSpec{Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceUprobeMulti}, 0, func(p *ebpf.Program) (io.Closer, error) {
		self, err := link.OpenExecutable("/proc/self/exe")
		if err != nil {
			return nil, err
		}
		return self.UprobeMulti([]string{probedSymbol}, p, nil)
	}, probed)
}

type fd int

func (f fd) Close() error { return unix.Close(int(f)) }

// tryPerfEvent samples this process by the software clock, as a machine may
// have no other.
func tryPerfEvent(t *testing.T) error {
	return watch(t, &ebpf.ProgramSpec{Type: ebpf.PerfEvent}, 0, func(p *ebpf.Program) (io.Closer, error) {
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Sample: 100_000}
		attr.Size = unix.PERF_ATTR_SIZE_VER1
		event, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			return nil, err
		}
		return fd(event), errors.Join(
			unix.IoctlSetInt(event, unix.PERF_EVENT_IOC_SET_BPF, p.FD()),
			unix.IoctlSetInt(event, unix.PERF_EVENT_IOC_ENABLE, 0))
	}, busy)
}

// busy works on the first processor, which is the one sampled.
func busy() error {
	runtime.LockOSThread() // never unlocked: the thread is bound and ends with the test
	var first unix.CPUSet
	first.Set(0)
	if err := unix.SchedSetaffinity(0, &first); err != nil {
		return err
	}
	for start := time.Now(); time.Since(start) < 50*time.Millisecond; {
	}
	return nil
}

func newStorage(t *testing.T, kind ebpf.MapType) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: kind, KeySize: 4, ValueSize: 8, Flags: unix.BPF_F_NO_PREALLOC,
		Key:   &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
		Value: &btf.Int{Name: "u64", Size: 8},
	})
	if err != nil {
		return nil, fmt.Errorf("create map: %w", err)
	}
	t.Cleanup(func() { m.Close() })
	return m, nil
}

// getStorage asks for the storage of the object in r2, creates it if it has
// none, and leaves by out if there is none to be had.
func getStorage(m *ebpf.Map, get asm.BuiltinFunc) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, unix.BPF_LOCAL_STORAGE_GET_F_CREATE),
		get.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
	}
}

func tryStorage(t *testing.T, kind ebpf.MapType, get asm.BuiltinFunc, object ...asm.Instruction) error {
	m, err := newStorage(t, kind)
	if err != nil {
		return err
	}
	return watch(t, &ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "inet_sock_set_state",
		Instructions: append(object, getStorage(m, get)...),
	}, 0, attachTracing, dial)
}

func trySockStorage(t *testing.T) error {
	return tryStorage(t, ebpf.SkStorage, asm.FnSkStorageGet, asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord))
}

func tryTaskStorage(t *testing.T) error {
	return tryStorage(t, ebpf.TaskStorage, asm.FnTaskStorageGet,
		asm.FnGetCurrentTaskBtf.Call(), asm.Mov.Reg(asm.R2, asm.R0))
}

func tryTaskRegs(t *testing.T) error {
	return watch(t, &ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "inet_sock_set_state",
		Instructions: asm.Instructions{
			asm.FnGetCurrentTaskBtf.Call(),
			asm.Mov.Reg(asm.R1, asm.R0),
			asm.FnTaskPtRegs.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
		},
	}, 0, attachTracing, dial)
}

// iterate walks with a socket of each kind open, so that there is one to see.
func iterate(over string) func(*testing.T) error {
	return func(t *testing.T) error {
		var iter *link.Iter
		return watch(t, &ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: over,
			// A last call without an object does not count: context + 8 is it.
			Instructions: asm.Instructions{
				asm.LoadMem(asm.R1, asm.R1, 8, asm.DWord),
				asm.JEq.Imm(asm.R1, 0, "out"),
			},
		}, 0, func(p *ebpf.Program) (c io.Closer, err error) {
			iter, err = link.AttachIter(link.IterOptions{Program: p})
			return iter, err
		}, func() error { return walk(iter) })
	}
}

func walk(iter *link.Iter) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer u.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	r, err := iter.Open()
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// cgroup2 finds where version 2 of the control groups is mounted.
func cgroup2() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`(?m)^\S+ \S+ \S+ \S+ (\S+) .*- cgroup2 `).FindStringSubmatch(string(mounts))
	if m == nil {
		return "", errors.New("cgroup2 is not mounted")
	}
	return m[1], nil
}

// tryCgroup attaches beside other programs, which keep running, and lets all
// pass.
func tryCgroup(kind ebpf.ProgramType, at ebpf.AttachType) func(*testing.T) error {
	return func(t *testing.T) error {
		root, err := cgroup2()
		if err != nil {
			return err
		}
		return watch(t, &ebpf.ProgramSpec{Type: kind, AttachType: at}, 1, func(p *ebpf.Program) (io.Closer, error) {
			return link.AttachCgroup(link.CgroupOptions{Path: root, Attach: at, Program: p})
		}, dial)
	}
}

// ownLoopback is the index of the loopback device, up, in a network namespace
// of this goroutine alone: no other's traffic meets our program.
func ownLoopback() (int, error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the trial
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return 0, fmt.Errorf("unshare network: %w", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return 0, err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		return 0, fmt.Errorf("raise loopback: %w", err)
	}
	i, err := net.InterfaceByName("lo")
	if err != nil {
		return 0, err
	}
	return i.Index, nil
}

const (
	xdpPass = 2
	tcxNext = -1
)

func tryXDP(t *testing.T) error {
	lo, err := ownLoopback()
	if err != nil {
		return err
	}
	return watch(t, &ebpf.ProgramSpec{Type: ebpf.XDP}, xdpPass, func(p *ebpf.Program) (io.Closer, error) {
		return link.AttachXDP(link.XDPOptions{Program: p, Interface: lo, Flags: link.XDPGenericMode})
	}, dial)
}

func tryTCX(t *testing.T) error {
	lo, err := ownLoopback()
	if err != nil {
		return err
	}
	return watch(t, &ebpf.ProgramSpec{Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress}, tcxNext, func(p *ebpf.Program) (io.Closer, error) {
		return link.AttachTCX(link.TCXOptions{Program: p, Interface: lo, Attach: ebpf.AttachTCXIngress})
	}, dial)
}

// tryStats wants the kernel's own account of a program's run.
func tryStats(t *testing.T) error {
	p, err := load(t, &ebpf.ProgramSpec{Type: ebpf.RawTracepoint, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return err
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return fmt.Errorf("enable: %w", err)
	}
	defer stats.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "inet_sock_set_state", Program: p})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	defer l.Close()
	if err := dial(); err != nil {
		return err
	}
	ran, err := p.Stats()
	if err == nil && ran.RunCount == 0 {
		err = errors.New("no run counted")
	}
	return err
}
