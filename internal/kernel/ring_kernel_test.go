package kernel

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// need skips a test whose kernel feature is missing. The VM matrix runs the
// same test on kernels that have it.
func need(t testing.TB, probes ...*Probe) {
	t.Helper()
	for _, p := range probes {
		if err := p.Have(); err != nil {
			t.Skip(err)
		}
	}
}

// sender is a program that puts one 16-byte record into the ring each time it
// runs: the word it is given, and the word again. It wakes nobody.
func sender(t testing.TB, k *Kernel) *ebpf.Program {
	t.Helper()
	return senderWith(t, k, unix.BPF_RB_NO_WAKEUP)
}

func senderWith(t testing.TB, k *Kernel, wakeup int32) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepoint, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord),
			asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
			asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),
			asm.LoadMapPtr(asm.R1, k.ring.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -16),
			asm.Mov.Imm(asm.R3, 16),
			asm.Mov.Imm(asm.R4, wakeup),
			asm.FnRingbufOutput.Call(),
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func send(t testing.TB, p *ebpf.Program, n uint64) (failed bool) {
	t.Helper()
	ret, err := p.Run(&ebpf.RunOptions{Context: [1]uint64{n}})
	if err != nil {
		t.Fatal(err)
	}
	return ret != 0
}

func open(t testing.TB, size uint32) (*Kernel, *Reader) {
	t.Helper()
	need(t, HaveRing)
	k, err := New(size)
	if err != nil {
		t.Fatal(err)
	}
	r, err := k.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); k.Close() })
	return k, r
}

// Every record arrives once, whole and in order, over many turns of the ring.
func TestReaderOrder(t *testing.T) {
	k, r := open(t, 4096)
	p := sender(t, k)
	var want uint64
	for next := uint64(0); next < 5000; {
		for range 100 {
			if send(t, p, next) {
				t.Fatalf("the ring is full at %d", next)
			}
			next++
		}
		for r.Drain(7, func(raw []byte) {
			a, b := binary.NativeEndian.Uint64(raw), binary.NativeEndian.Uint64(raw[8:])
			if len(raw) != 16 || a != want || b != want {
				t.Fatalf("record %d: %d bytes, %d %d", want, len(raw), a, b)
			}
			want++
		}) > 0 {
		}
		if want != next || r.Backlog() != 0 {
			t.Fatalf("read %d of %d, %d bytes left", want, next, r.Backlog())
		}
	}
}

// A full ring refuses records and never overwrites one.
func TestReaderFull(t *testing.T) {
	k, r := open(t, 4096)
	p := sender(t, k)
	sent := 0
	for !send(t, p, uint64(sent)) {
		sent++
	}
	if n := r.Drain(1<<20, func([]byte) {}); n != sent {
		t.Errorf("sent %d, read %d", sent, n)
	}
	if send(t, p, 0) {
		t.Error("a drained ring refuses a record")
	}
}

// A wait lasts its time, whatever comes into the ring without a wake-up and
// whatever signals the thread gets. A wake-up ends it, and so does Stop.
func TestReaderWait(t *testing.T) {
	k, r := open(t, 4096)
	const idle = 30 * time.Millisecond
	full := func(when string) {
		t.Helper()
		start := time.Now()
		if err := r.Wait(idle); err != nil || time.Since(start) < idle-time.Millisecond {
			t.Errorf("%s: a wait of %v ended after %v with %v", when, idle, time.Since(start), err)
		}
	}
	full("idle")
	send(t, sender(t, k), 1)
	full("with a record")

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, thread := unix.Getpid(), unix.Gettid()
	done, ended := make(chan bool), make(chan bool)
	var sent atomic.Int64
	go func() { // ended by done
		defer close(ended)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				unix.Tgkill(pid, thread, unix.SIGURG)
				sent.Add(1)
			}
		}
	}()
	// A busy host may let the sender sleep for as long as a wait lasts.
	for end := time.Now().Add(20 * time.Second); sent.Load() == 0 && time.Now().Before(end); {
		full("between signals")
	}
	close(done)
	<-ended
	if sent.Load() == 0 {
		t.Error("no signal was sent")
	}

	start := time.Now()
	send(t, senderWith(t, k, unix.BPF_RB_FORCE_WAKEUP), 2)
	if err := r.Wait(time.Minute); err != nil || time.Since(start) > 30*time.Second {
		t.Errorf("a wait that was to be woken ended after %v with %v", time.Since(start), err)
	}
	if n := r.Drain(10, func([]byte) {}); n != 2 {
		t.Errorf("%d records of 2", n)
	}
	go r.Stop()
	if err := r.Wait(time.Minute); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Stop: %v", err)
	}
}

func TestDrainDoesNotAllocate(t *testing.T) {
	k, r := open(t, 1<<16)
	p := sender(t, k)
	for i := range uint64(1000) {
		send(t, p, i)
	}
	var sum uint64
	fn := func(raw []byte) { sum += binary.NativeEndian.Uint64(raw) }
	if n := testing.AllocsPerRun(100, func() { r.Drain(8, fn) }); n != 0 {
		t.Errorf("%v allocations per drain", n)
	}
}

func TestMeter(t *testing.T) {
	k, _ := open(t, 1<<16)
	m, err := k.NewMeter()
	if err != nil {
		t.Fatal(err)
	}
	if m.floor <= 0 {
		t.Fatalf("the clock costs %v ns", m.floor)
	}
	p := sender(t, k)
	k.add(&Object{Name: "test", Programs: map[string]*ebpf.Program{"sender": p}})
	defer func() { k.objects = nil }()
	if err := m.Begin(); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(1000) {
		send(t, p, i)
	}
	cost, err := m.End(nil)
	if err != nil || len(cost) != 1 {
		t.Fatalf("%v, %v", cost, err)
	}
	// The cost itself may be nothing beside the clock's own, measured earlier on
	// a machine that has become slower or faster since.
	if c := cost[0]; c.Runs != 1000 || c.PerRunNS < 0 || c.PerRunNS > 1e6 {
		t.Errorf("1000 runs: %+v", c)
	}
}

// Each probe answers, with a reason where it says no, and a kernel that is new
// enough has what cannot be configured away.
func TestProbes(t *testing.T) {
	for _, p := range Probes {
		t.Logf("%-28s since %-5s %v", p.Name, p.Since, p.Have())
		if p.Name == "" || p.Since == "" || p.Loss == "" {
			t.Errorf("%+v is incomplete", p)
		}
	}
	for _, p := range []*Probe{HaveRing, HaveTpBTF, HaveIter} {
		if err := p.Have(); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkDrain(b *testing.B) {
	k, r := open(b, 1<<22)
	p := sender(b, k)
	var sum uint64
	b.ReportAllocs()
	for n := 0; n < b.N; {
		b.StopTimer()
		for range 10000 {
			send(b, p, 1)
		}
		b.StartTimer()
		n += r.Drain(b.N-n, func(raw []byte) { sum += uint64(raw[0]) })
	}
}
