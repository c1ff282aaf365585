package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// requests measures what watching requests costs and whether all are seen:
//
//	served by the server's own count  <->  rows in the store, at rising rates
//	server CPU per request            off, ghostlight, bpftrace by turns
//	system calls without a socket     off, ghostlight by turns
//	the way through user space        BenchmarkRequests
func (b *bench) requests() (string, error) {
	if runtime.NumCPU() < 2 {
		return "It needs two CPUs.\n", nil
	}
	for _, program := range []string{"nginx", "redis-server", "redis-benchmark", "wrk", "taskset"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", err
		}
	}
	var t strings.Builder
	for _, part := range []func(*strings.Builder) error{b.captured, b.perRequest, b.otherCalls, b.userSpace} {
		if err := part(&t); err != nil {
			return "", err
		}
	}
	return t.String(), nil
}

// captured compares the servers' own counts with the store.
func (b *bench) captured(t *strings.Builder) error {
	t.WriteString("### Captured of what was served\n\n| server | asked | made | served | server rows | client rows | lost | agent CPU per 10,000/s, of a core | its RSS (peak) | shed |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, k := range kinds {
		for _, rate := range []int{1000, 5000, 10_000, 20_000, 30_000, 0} {
			line, err := b.capturedAt(k, rate)
			if err != nil {
				return fmt.Errorf("%s at %d/s: %w", k.name, rate, err)
			}
			t.WriteString(line)
		}
	}
	fmt.Fprintf(t, "\n%d connections that stay; server, client and agent share the CPUs, unpinned. Served is what nginx (stub_status), the Go\nhandler and redis (commandstats) counted themselves; the rows are counted by SQL. The agent's CPU time holds its store.\n\n", pacedClients)
	return nil
}

func (b *bench) capturedAt(k kind, rate int) (string, error) {
	p, err := k.start(b)
	if err != nil {
		return "", err
	}
	defer p.end()
	w, err := b.watch()
	if err != nil {
		return "", err
	}
	defer w.end()
	served, err := p.served()
	if err != nil {
		return "", err
	}
	used := w.cpu()
	seconds := b.seconds(10)
	s, err := b.load("paced", p.port, p.language, strconv.Itoa(rate), strconv.Itoa(1000*seconds))
	if err != nil {
		return "", err
	}
	again, err := p.served()
	if err != nil {
		return "", err
	}
	served = again - served
	time.Sleep(2 * time.Second) // the store's last second is part of the cost, our questions are not
	used = w.cpu() - used
	rows, err := w.settled("select count(*) from requests where destination_port = " + p.port + " and " + p.where)
	if err != nil {
		return "", err
	}
	server, err := w.count("select count(*) from requests where role = 'server' and destination_port = " + p.port + " and " + p.where)
	if err != nil {
		return "", err
	}
	st, err := w.status()
	if err != nil {
		return "", err
	}
	asked := strconv.Itoa(rate) + "/s"
	if rate == 0 {
		asked = "all it can"
	}
	ratio := func(n int) float64 { return float64(n) / float64(max(served, 1)) }
	client := rows - server
	return fmt.Sprintf("| %s | %s | %d/s | %d | %d (%.4f) | %d (%.4f) | %d | %.2f %% | %.0f MiB (%.0f) | %s |\n", k.name, asked, s.ops/seconds, served,
		server, ratio(server), client, ratio(client), st.Lost.Total, 100*used.Seconds()*10_000/float64(max(served, 1)), w.memory("VmRSS"), w.memory("VmHWM"), strings.Join(st.Budget.Shed, " ")), nil
}

// settled asks until the answer stays the same.
func (w *watcher) settled(sql string) (n int, err error) {
	for last, same := -1, 0; same < 3; {
		time.Sleep(500 * time.Millisecond)
		if n, err = w.count(sql); err != nil {
			return 0, err
		}
		if same++; n != last {
			last, same = n, 0
		}
	}
	return n, nil
}

// mode is what watches during a load.
type mode struct {
	name  string
	start func() (*watcher, error) // nil: nobody
}

// taken are the figures of one mode, one of each per round.
type taken struct {
	perSec, server, client, agent []float64 // requests/s; µs of CPU per request
	p50, p99, single50, single99  []float64 // µs; saturated, and over one connection
	singleServer, peak            []float64 // µs of CPU per request; MiB
}

// perRequest pins the server to CPU 0 and the load to CPU 1.
func (b *bench) perRequest(t *strings.Builder) error {
	modes := []mode{{"off", nil}, {"ghostlight", b.watch}}
	if _, err := exec.LookPath("bpftrace"); err == nil {
		modes = append(modes, mode{"bpftrace", func() (*watcher, error) { return b.bpftrace(bpftraceRequests) }})
	}
	rounds := max(b.rounds, 6)
	if b.quick {
		rounds = 2
	}
	t.WriteString("### CPU per request\n\nMin / median of the rounds, µs; added to both ends is by the min, and by the median of the rounds' own differences.\n\n")
	t.WriteString("| server | watched by | requests/s | server CPU | added | client CPU | added | p50, p99 | watcher's CPU | one connection: server CPU | p50, p99 | watcher's peak RSS |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	measured := kinds
	tls, err := b.readsTLS()
	if err != nil {
		return err
	}
	if tls {
		measured = append(slices.Clone(kinds), encrypted)
	}
	for _, k := range measured {
		found, err := b.byTurns(k, modes, rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		for i, m := range modes {
			writeTaken(t, k.name, m.name, &found[i], &found[0])
		}
	}
	if !tls {
		t.WriteString("\nThis agent has no running sensor for TLS: nginx with TLS was not measured.\n")
	}
	fmt.Fprintf(t, "\nServer on CPU 0, load (wrk, redis-benchmark: one thread, 16 connections, then 1) on CPU 1, %d rounds in shuffled order. The bpftrace script\nhas the two socket tracepoints, a map by socket and a histogram; it reads no bytes and knows no protocol.\n\n", rounds)
	return nil
}

func writeTaken(t *strings.Builder, server, name string, n, off *taken) {
	added := func(n, off []float64) string {
		if name == "off" {
			return ""
		}
		differences := make([]float64, len(n))
		for i := range n {
			differences[i] = n[i] - off[i]
		}
		return fmt.Sprintf("%+.2f / %+.2f", slices.Min(n)-slices.Min(off), median(differences))
	}
	both := func(v []float64) string { return fmt.Sprintf("%.2f / %.2f", slices.Min(v), median(v)) }
	watcher, peak := "", ""
	if name != "off" {
		watcher, peak = fmt.Sprintf("%.2f", median(n.agent)), fmt.Sprintf("%.0f MiB", median(n.peak))
	}
	fmt.Fprintf(t, "| %s | %s | %.0f | %s | %s | %s | %s | %.0f, %.0f | %s | %s | %.0f, %.0f | %s |\n", server, name, median(n.perSec), both(n.server), added(n.server, off.server),
		both(n.client), added(n.client, off.client), median(n.p50), median(n.p99), watcher, both(n.singleServer), median(n.single50), median(n.single99), peak)
}

// byTurns measures each mode once a round.
func (b *bench) byTurns(k kind, modes []mode, rounds int) ([]taken, error) {
	p, err := k.start(b, onCPU(0)...)
	if err != nil {
		return nil, err
	}
	defer p.end()
	if err := p.answers(); err != nil {
		return nil, err
	}
	if _, err := p.saturate(p, 16, 1); err != nil { // warm
		return nil, err
	}
	found := make([]taken, len(modes))
	for range rounds {
		for _, i := range rand.Perm(len(modes)) {
			if err := b.turn(p, modes[i], &found[i]); err != nil {
				return nil, fmt.Errorf("%s: %w", modes[i].name, err)
			}
		}
	}
	return found, nil
}

// turn is one mode in one round: saturated, then over one connection.
func (b *bench) turn(p *peer, m mode, n *taken) (err error) {
	var w *watcher
	if m.start != nil {
		if w, err = m.start(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.end()) }()
	}
	s, server, agent, err := p.shoot(w, 16, b.seconds(3))
	if err != nil {
		return err
	}
	one, oneServer, _, err := p.shoot(w, 1, b.seconds(2))
	if err != nil {
		return err
	}
	keep := func(to *[]float64, v float64) { *to = append(*to, v) }
	keep(&n.perSec, s.perSec)
	keep(&n.server, server)
	keep(&n.client, s.cpu.Seconds()*1e6/s.requests)
	keep(&n.agent, agent)
	keep(&n.p50, float64(s.p50.Nanoseconds())/1000)
	keep(&n.p99, float64(s.p99.Nanoseconds())/1000)
	keep(&n.singleServer, oneServer)
	keep(&n.single50, float64(one.p50.Nanoseconds())/1000)
	keep(&n.single99, float64(one.p99.Nanoseconds())/1000)
	if w == nil {
		return nil
	}
	keep(&n.peak, w.memory("VmHWM"))
	return w.watched()
}

// watched fails if the agent let go of the sensor that is measured: its budget
// allows for some seconds of a load like this.
func (w *watcher) watched() error {
	if w.url == "" {
		return nil // another tool
	}
	s, err := w.status()
	if err == nil && slices.Contains(s.Budget.Shed, "l7cap") {
		err = errors.New("the agent let go of l7cap")
	}
	return err
}

// shoot runs one load and returns the CPU time of a request in microseconds, of
// the server and of who watches.
func (p *peer) shoot(w *watcher, connections, seconds int) (s shot, server, agent float64, err error) {
	pids := []int{p.cmd.Process.Pid}
	if w != nil {
		pids = append(pids, w.cmd.Process.Pid)
	}
	var used [2]time.Duration
	look := func(sign time.Duration) error {
		for i, pid := range pids {
			d, err := cpuTime(pid)
			if err != nil {
				return err
			}
			used[i] += sign * d
		}
		return nil
	}
	if err := look(-1); err != nil {
		return s, 0, 0, err
	}
	if s, err = p.saturate(p, connections, seconds); err != nil {
		return s, 0, 0, err
	}
	if w != nil {
		time.Sleep(100 * time.Millisecond) // its last drain is part of its cost; the server is idle
	}
	if err := look(1); err != nil {
		return s, 0, 0, err
	}
	return s, used[0].Seconds() * 1e6 / s.requests, used[1].Seconds() * 1e6 / s.requests, nil
}

// readsTLS asks doctor whether a sensor for TLS runs.
func (b *bench) readsTLS() (bool, error) {
	w, err := b.watch()
	if err != nil {
		return false, err
	}
	defer w.end()
	r, err := http.Get(w.url + "/api/v1/doctor")
	if err != nil {
		return false, err
	}
	defer r.Body.Close()
	var d struct {
		Sensors []struct {
			Name string
			OK   bool
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		return false, err
	}
	for _, s := range d.Sensors {
		if s.Name == "tls" {
			return s.OK, nil
		}
	}
	return false, nil
}

// bpftraceRequests does on the same hooks what a script can: how long from the
// bytes that came in to those that went out, by socket.
const bpftraceRequests = `tracepoint:sock:sock_recv_length /args->ret > 0/ { @begun[args->sk] = nsecs; }
tracepoint:sock:sock_send_length /args->ret > 0 && @begun[args->sk]/ {
	@us[comm] = hist((nsecs - @begun[args->sk]) / 1000);
	delete(@begun[args->sk]);
}`

// otherCalls measures system calls that no hook of ours is near.
func (b *bench) otherCalls(t *strings.Builder) error {
	t.WriteString("### System calls without a socket\n\n| call | CPU, off: min / median | added: by the min / median |\n|---|---|---|\n")
	names := []string{"getppid", "zero"}
	rounds := max(b.rounds, 6)
	if b.quick {
		rounds = 2
	}
	off, on := make([][]float64, len(names)), make([][]float64, len(names))
	for range rounds {
		if err := b.callsOnce(names, off); err != nil {
			return err
		}
		w, err := b.watch()
		if err != nil {
			return err
		}
		if err := errors.Join(b.callsOnce(names, on), w.end()); err != nil {
			return err
		}
	}
	for i, text := range []string{"getppid", "read of 64 bytes of /dev/zero"} {
		differences := make([]float64, rounds)
		for r := range differences {
			differences[r] = on[i][r] - off[i][r]
		}
		fmt.Fprintf(t, "| %s | %.1f / %.1f ns | %+.1f / %+.1f ns |\n", text, slices.Min(off[i]), median(off[i]), slices.Min(on[i])-slices.Min(off[i]), median(differences))
	}
	t.WriteString("\nOn CPU 1, the agent idle but for this.\n\n")
	return nil
}

func (b *bench) callsOnce(names []string, to [][]float64) error {
	for i, name := range names {
		out, err := command(onCPU(1), b.self, "calls", name, strconv.Itoa(3_000_000*b.seconds(2))).Output()
		if err != nil {
			return fmt.Errorf("calls %s: %w", name, err)
		}
		var picoseconds float64
		if _, err := fmt.Sscan(string(out), &picoseconds); err != nil {
			return err
		}
		to[i] = append(to[i], picoseconds/1000)
	}
	return nil
}

// userSpace runs the benchmark of the way from the ring to the store.
func (b *bench) userSpace(t *strings.Builder) error {
	out, err := exec.Command("go", "test", "./test/bench", "-run=^$", "-bench=^BenchmarkRequests$", "-benchmem", "-count=3").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	t.WriteString("### From the ring to the store\n\nA request of HTTP/1.1 and its answer, seen at both ends: four records of the ring, two rows. Each line goes one stage further.\n\n")
	if !strings.Contains(string(out), "\nBenchmarkRequests/") {
		return fmt.Errorf("no benchmark ran\n%s", out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "BenchmarkRequests") {
			t.WriteString("    " + line)
		}
	}
	return nil
}
