package process

import (
	"bytes"
	"os/exec"
	"sync"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
	"ghostlight/internal/wire"
)

// watch is the sensor at work, and all that it told so far.
type watch struct {
	began  int64 // CLOCK_BOOTTIME
	kernel *kernel.Kernel
	object *kernel.Object

	mayLose uint64 // records, in a test that says why

	mu   sync.Mutex
	told []event.Process
	errs []error
}

// start loads the sensor. It is skipped only on a kernel without tp_btf.
func start(t testing.TB) *watch {
	t.Helper()
	if err := kernel.HaveTpBTF.Have(); err != nil {
		t.Skip(err)
	}
	k, err := kernel.New(kernel.DefaultRingBytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	in, err := Sensor.New(func(any) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	spec, err := in.Spec()
	if err != nil {
		t.Fatal(err)
	}
	o, hooks, err := k.Load(Sensor.Name, 7, spec, Sensor.Hooks)
	if err != nil {
		t.Fatal(err, hooks)
	}
	for _, h := range hooks {
		if h.Tier == "" {
			t.Fatalf("%s: no tier was taken: %+v", h.What, h.Tiers)
		}
	}
	w := &watch{began: boottime(), kernel: k, object: o}
	w.drain(t, k, in)
	var out event.Batch
	w.mu.Lock() // Decode and Start are called from one goroutine at a time
	err = in.(sensor.Starter).Start(o, &out)
	w.told = append(w.told, out.Processes...)
	w.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// drain reads the ring until the test ends.
func (w *watch) drain(t testing.TB, k *kernel.Kernel, in sensor.Instance) {
	t.Helper()
	r, err := k.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ended by r.Stop
		defer close(done)
		var out event.Batch
		for r.Wait(5*time.Millisecond) == nil {
			w.mu.Lock()
			r.Drain(1<<20, func(raw []byte) {
				h, err := wire.View[wire.Header](raw)
				if err == nil {
					err = in.Decode(h, raw, &out)
				}
				if err != nil {
					w.errs = append(w.errs, err)
				}
				w.told = append(w.told, out.Processes...)
				out.Reset()
			})
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
		<-done
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if len(w.errs) > 0 {
			t.Errorf("%d records could not be decoded, the first: %v", len(w.errs), w.errs[0])
		}
		if n, err := w.object.Lost(); n > w.mayLose || err != nil {
			t.Errorf("%d records lost, %v", n, err)
		}
	})
}

// all returns what was told and matches.
func (w *watch) all(match func(*event.Process) bool) []event.Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []event.Process
	for i := range w.told {
		if match(&w.told[i]) {
			found = append(found, w.told[i])
		}
	}
	return found
}

// one waits for the record that matches and fails if there are others.
func (w *watch) one(t testing.TB, what string, match func(*event.Process) bool) event.Process {
	t.Helper()
	for range 1000 {
		if found := w.all(match); len(found) > 0 {
			if len(found) > 1 {
				t.Errorf("%s: told %d times: %+v", what, len(found), found)
			}
			return found[0]
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("%s: never told", what)
	return event.Process{}
}

// life waits for the exit of pid and returns its records.
func (w *watch) life(t testing.TB, pid int) (fork, exec, exit event.Process) {
	t.Helper()
	exit = w.one(t, "exit", is(event.Exit, pid))
	return w.one(t, "fork", is(event.Fork, pid)), w.one(t, "exec", is(event.Exec, pid)), exit
}

func is(a event.Action, pid int) func(*event.Process) bool {
	return func(p *event.Process) bool { return p.Action == a && p.PID == uint32(pid) }
}

// run runs a command that must exit with the given code and returns its pid.
func run(t testing.TB, code int, cmd *exec.Cmd) int {
	t.Helper()
	var out bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &out
	_ = cmd.Run() // the code is checked
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("%s: exit code %d, want %d\n%s", cmd, got, code, &out)
	}
	return cmd.Process.Pid
}

// same fails unless got is want.
func same[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

// self returns a command that runs this test's binary as the named helper.
func self(helper string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = []string{helperVariable + "=" + helper}
	return cmd
}

// spawn starts cmd, the helper "wait" or "leader", and waits until it is
// ready; it ends with the test, or when end is called.
func spawn(t testing.TB, cmd *exec.Cmd) (pid int, end func()) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { in.Close(); _ = cmd.Wait() })
	t.Cleanup(end)
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return cmd.Process.Pid, end
}
