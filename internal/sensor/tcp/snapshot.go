package tcp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
)

// Start tells the sockets that were open before. The hooks are attached by
// now; a socket that both see is told once, because its state is made once.
//
//	iter/task_file  sockets of processes, with their owner, in all namespaces
//	iter/tcp        the rest, namespace by namespace
//	sweep           reports them
func (in *instance) Start(o *kernel.Object, out *event.Batch) error {
	in.object = o
	var errs []error
	for _, program := range []string{"tcp_task_file", "tcp_file_old"} {
		if _, err := o.Iterate(program); err != nil {
			errs = append(errs, fmt.Errorf("sockets open before the start: %w", err))
		}
	}
	missed, err := eachNetwork(func() error {
		_, err := o.Iterate("tcp_iter")
		return err
	})
	if err != nil {
		errs = append(errs, fmt.Errorf("sockets open before the start: %w", err))
	}
	if missed != nil {
		out.Alerts = append(out.Alerts, event.Alert{
			Time: monotonic(), Name: "tcp.snapshot", Severity: "warning",
			Message: "connections that were open before the start and belong to no process are known in some network namespaces only: " + missed.Error(),
		})
	}
	errs = append(errs, empty(o.Maps["owner_by_address"]), in.sweep(monotonic()))
	return errors.Join(errs...)
}

// empty deletes what a map by address holds: addresses are used again.
func empty(m *ebpf.Map) error {
	var key uint64
	for m.NextKey(nil, &key) == nil {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget owners by address: %w", err)
		}
	}
	return nil
}

// Tick sweeps twice per interval, so that a new connection shows up soon.
func (in *instance) Tick(now int64, _ *event.Batch) error {
	if in.object == nil || now-in.swept < int64(in.interval)/2 {
		return nil
	}
	return in.sweep(now)
}

// sweep makes the programs report the connections that stay open. The records
// come by the ring, like all others.
func (in *instance) sweep(now int64) error {
	in.swept = now
	if _, err := in.object.Iterate("tcp_sweep"); err != nil {
		return fmt.Errorf("report open connections: %w", err)
	}
	return nil
}

func monotonic() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return t.Nano()
}

// eachNetwork calls fn once in every network namespace that a thread is in.
// missed says why some could not be entered; our own always is.
func eachNetwork(fn func() error) (missed, err error) {
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("own network namespace: %w", err)
	}
	if err := fn(); err != nil {
		return nil, err
	}
	for name, path := range networks() {
		if name == own {
			continue
		}
		entered, err := inNetwork(path, fn)
		if !entered {
			missed = err
			continue
		}
		if err != nil {
			return missed, err
		}
	}
	return missed, nil
}

// networks returns one path for each network namespace that a thread is in, by
// its name. What ends meanwhile takes nothing with it but its path.
func networks() map[string]string {
	paths, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/net") // the pattern is well formed
	found := map[string]string{}
	for _, p := range paths {
		if name, err := os.Readlink(p); err == nil {
			found[name] = p
		}
	}
	return found
}

// inNetwork calls fn on a thread of its own inside the namespace. The thread
// ends with the call: it is never unlocked, so no other goroutine gets it.
func inNetwork(path string, fn func() error) (entered bool, err error) {
	ns, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil // its last thread ended, and so did its sockets
	}
	if err != nil {
		return false, err
	}
	defer ns.Close()
	done := make(chan struct{})
	go func() { // ends with fn
		runtime.LockOSThread()
		defer close(done)
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter network namespace: %w", err)
			return
		}
		entered = true
		err = fn()
	}()
	<-done
	return entered, err
}
