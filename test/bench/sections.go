package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// perOp is the CPU time of one operation, client and server together.
type perOp func(b *bench) (time.Duration, error)

func (b *bench) seconds(n int) int {
	if b.quick {
		return 1
	}
	return n
}

func stormOp(b *bench) (time.Duration, error) {
	return b.exchange("storm", "4000", strconv.Itoa(1000*b.seconds(5)))
}

func bulkOp(b *bench) (time.Duration, error) {
	return b.exchange("bulk", strconv.Itoa(2000*b.seconds(4)))
}

func execOp(b *bench) (time.Duration, error) {
	// The children's time is what the tracer makes dearer, and os/exec accounts
	// it to the parent that waits for them.
	s, err := b.load("execs", strconv.Itoa(400*b.seconds(5)))
	if err != nil {
		return 0, err
	}
	return s.cpu / time.Duration(s.ops), nil
}

func (b *bench) exchange(name string, args ...string) (time.Duration, error) {
	srv, err := b.serve()
	if err != nil {
		return 0, err
	}
	client, err := b.load(append([]string{name, srv.port}, args...)...)
	if err != nil {
		return 0, err
	}
	cpu, err := srv.end()
	if err != nil {
		return 0, err
	}
	if client.failed > client.ops/100 || client.ops == 0 {
		return 0, fmt.Errorf("%d of %d operations failed", client.failed, client.ops)
	}
	return (client.cpu + cpu) / time.Duration(client.ops), nil
}

// compare runs op off and on by turns.
func (b *bench) compare(op perOp, on func() (stop func() error, err error)) (off, added []float64, err error) {
	for range b.rounds {
		without, err := op(b)
		if err != nil {
			return nil, nil, err
		}
		stop, err := on()
		if err != nil {
			return nil, nil, err
		}
		with, err := op(b)
		if err != nil {
			return nil, nil, err
		}
		if err := stop(); err != nil {
			return nil, nil, err
		}
		off = append(off, float64(without.Nanoseconds())/1000)
		added = append(added, float64((with-without).Nanoseconds())/1000)
	}
	return off, added, nil
}

func (b *bench) storm() (string, error) {
	var t strings.Builder
	t.WriteString("| load | CPU per operation, off | added by ghostlight | share |\n|---|---|---|---|\n")
	for _, l := range []struct {
		name string
		op   perOp
	}{
		{"TCP connect, 64 B request, 256 B answer, close; 4,000/s, both ends", stormOp},
		{"bulk transfer on loopback, per MiB, both ends", bulkOp},
		{"fork, exec /bin/true, exit", execOp},
	} {
		off, added, err := b.compare(l.op, func() (func() error, error) {
			w, err := b.watch()
			if err != nil {
				return nil, err
			}
			return w.end, nil
		})
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&t, "| %s | %.1f µs | %+.1f µs | %+.0f %% |\n", l.name, median(off), median(added), 100*median(added)/median(off))
	}
	return t.String() + "\nThe agent's own CPU time is in the next table.\n", nil
}

// start measures from the exec of the agent until a connection, made again and
// again meanwhile, is a flow that the API shows.
func (b *bench) start() (string, error) {
	srv, err := b.serve()
	if err != nil {
		return "", err
	}
	var took []float64
	for range b.rounds {
		began := time.Now()
		w, err := b.launch()
		if err != nil {
			return "", err
		}
		err = wait("the first flow", func() error {
			exchange(srv.port) // its flow is what is waited for
			n, err := w.count("select count(*) from flows where destination_port = " + srv.port)
			if err == nil && n == 0 {
				err = errors.New("none yet")
			}
			return err
		})
		if err != nil {
			return "", err
		}
		took = append(took, time.Since(began).Seconds())
		if err := w.end(); err != nil {
			return "", err
		}
	}
	if _, err := srv.end(); err != nil {
		return "", err
	}
	info, err := os.Stat(b.agent)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("| what | figure |\n|---|---|\n| exec to the first flow in the API, median of %d | %.1f s |\n| static binary | %.1f MB |\n", len(took), median(took), float64(info.Size())/1e6), nil
}

func (b *bench) idle() (string, error) {
	w, err := b.watch()
	if err != nil {
		return "", err
	}
	defer w.end()
	var t strings.Builder
	t.WriteString("| load | CPU of the agent, share of one core | RSS | of it anonymous | lost | shed |\n|---|---|---|---|---|---|\n")
	row := func(name string, d time.Duration, load func() error) error {
		before, began := w.cpu(), time.Now()
		if err := load(); err != nil {
			return err
		}
		s, err := w.status()
		if err != nil {
			return err
		}
		fmt.Fprintf(&t, "| %s | %.2f %% | %.1f MiB | %.1f MiB | %d | %s |\n", name,
			100*(w.cpu()-before).Seconds()/time.Since(began).Seconds(), w.memory("VmRSS"), w.memory("RssAnon"), s.Lost.Total, strings.Join(s.Budget.Shed, " "))
		return nil
	}
	quiet := time.Duration(b.seconds(60)) * time.Second
	if err := row("idle", quiet, func() error { time.Sleep(quiet); return nil }); err != nil {
		return "", err
	}
	for _, rate := range []int{1000, 5000} {
		err := row(fmt.Sprintf("%d connections/s", rate), 0, func() error {
			_, err := b.exchange("storm", strconv.Itoa(rate), strconv.Itoa(1000*b.seconds(20)))
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return t.String(), nil
}

func (b *bench) loss() (string, error) {
	var t strings.Builder
	t.WriteString("| asked | made | flows stored | want | lost by the agent's count |\n|---|---|---|---|---|\n")
	for _, rate := range []int{1000, 2000, 5000, 8000, 12000, 0} {
		line, err := b.lossAt(rate)
		if err != nil {
			return "", err
		}
		t.WriteString(line)
	}
	return t.String() + "\nBoth ends of each connection are on this host: two flows each. The clients, the server and the agent share the CPUs.\n", nil
}

func (b *bench) lossAt(rate int) (string, error) {
	w, err := b.watch()
	if err != nil {
		return "", err
	}
	defer w.end()
	srv, err := b.serve()
	if err != nil {
		return "", err
	}
	seconds := b.seconds(5)
	s, err := b.load("storm", srv.port, strconv.Itoa(rate), strconv.Itoa(1000*seconds))
	if err != nil {
		return "", err
	}
	if _, err := srv.end(); err != nil {
		return "", err
	}
	time.Sleep(2 * time.Second)
	stored, err := w.count("select count(*) from flows where verdict = 'forwarded' and destination_port = " + srv.port)
	if err != nil {
		return "", err
	}
	st, err := w.status()
	if err != nil {
		return "", err
	}
	asked := fmt.Sprintf("%d/s", rate)
	if rate == 0 {
		asked = "all it can"
	}
	// One connection more: the one that waited for the server to listen.
	return fmt.Sprintf("| %s | %d/s | %d | %d | %d |\n", asked, s.ops/seconds, stored, 2*(s.ops+1), st.Lost.Total), nil
}

// bpftraceFlows does for TCP what our tcp sensor does, as far as a script of
// the kind people write goes: one line per connection that ends. tcplife needs
// kprobes, which this kernel may not have; the tracepoint is everywhere.
const bpftraceFlows = `tracepoint:sock:inet_sock_set_state /args->protocol == 6/ {
	if (args->newstate == 2 || args->newstate == 1) { @pid[args->skaddr] = pid; @start[args->skaddr] = nsecs; }
	if (args->newstate == 7) {
		printf("%d %d %d %d\n", @pid[args->skaddr], args->sport, args->dport, nsecs - @start[args->skaddr]);
		delete(@pid[args->skaddr]); delete(@start[args->skaddr]);
	}
}
tracepoint:sched:sched_process_exec { printf("%d %s\n", pid, str(args->filename)); }`

func (b *bench) peers() (string, error) {
	if _, err := exec.LookPath("bpftrace"); err != nil {
		return "bpftrace is not installed here.\n", nil
	}
	var t strings.Builder
	t.WriteString("| tool | added to a connection (CPU, both ends) | its own CPU, share of one core | RSS |\n|---|---|---|---|\n")
	tools := []struct {
		name  string
		start func() (*watcher, error)
	}{
		{"ghostlight (process, tcp, udp, drop; store and UI)", b.watch},
		{"bpftrace script (state changes and execs, printed)", func() (*watcher, error) { return b.bpftrace(bpftraceFlows) }},
	}
	for _, tool := range tools {
		var own, rss float64
		_, added, err := b.compare(stormOp, func() (func() error, error) {
			w, err := tool.start()
			if err != nil {
				return nil, err
			}
			before, began := w.cpu(), time.Now()
			return func() error {
				own, rss = 100*(w.cpu()-before).Seconds()/time.Since(began).Seconds(), w.memory("VmRSS")
				return w.end()
			}, nil
		})
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&t, "| %s | %+.1f µs | %.1f %% | %.0f MiB |\n", tool.name, median(added), own, rss)
	}
	return t.String() + "\n4,000 connections/s. bcc's tcplife and execsnoop need kprobes, which this kernel refuses.\n", nil
}

// bpftrace starts a script, its output thrown away. It needs tracefs and
// debugfs, which may not be mounted here: it gets its own.
func (b *bench) bpftrace(script string) (*watcher, error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	const mounted = `mount -t debugfs none /sys/kernel/debug; mount -t tracefs none /sys/kernel/tracing; exec bpftrace -e "$0"`
	w := &watcher{cmd: exec.Command("sh", "-c", mounted, script)}
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	w.cmd.Stdout, w.cmd.Stderr = null, os.Stderr
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	time.Sleep(3 * time.Second)
	if w.memory("VmRSS") == 0 {
		return nil, errors.Join(errors.New("bpftrace did not stay"), w.cmd.Wait())
	}
	return w, nil
}

// store runs the store's own benchmark on ten million rows, and on a million of
// real flow records.
func (b *bench) store() (string, error) {
	rows, flows := "10000000", "1000000"
	if b.quick {
		rows, flows = "200000", "200000"
	}
	var t strings.Builder
	for _, run := range [][2]string{{"TestStore$|TestQueries$", rows}, {"TestFlows$|TestRequests$", flows}} {
		out, err := exec.Command("go", "test", "./test/bench", "-count=1", "-timeout=30m", "-v", "-run="+run[0], "-store.rows="+run[1]).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if _, text, found := strings.Cut(line, "_test.go:"); found {
				_, text, _ = strings.Cut(text, ": ")
				t.WriteString("    " + text)
			}
		}
	}
	t.WriteString("\nThe design asks for: ingest in 3 s of CPU and 32 MB, 31 bytes a row, and p95 over an hour in 20 ms of CPU.\n")
	return t.String(), nil
}
