package enrich

import (
	"net/netip"
	"strings"
	"testing"

	"ghostlight/internal/event"
)

const second = int64(1e9)

func newEnricher(t testing.TB, o Options) *Enricher {
	t.Helper()
	if o.BootID == "" {
		o.BootID = "11111111-2222-3333-4444-555555555555"
	}
	if o.ProcRoot == "" {
		o.ProcRoot = t.TempDir()
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func fork(at int64, pid, ppid uint32, start int64, count uint64) event.Process {
	return event.Process{Time: at, Action: event.Fork, PID: pid, PPID: ppid, Start: start, ExecCount: count, Complete: true}
}

func exec(at int64, pid, ppid uint32, start int64, count uint64, args ...string) event.Process {
	return event.Process{Time: at, Action: event.Exec, PID: pid, PPID: ppid, Start: start, ExecCount: count,
		Executable: args[0], Args: args, Cwd: "/", Complete: true}
}

func running(at int64, pid, ppid uint32, start int64, count uint64, args ...string) event.Process {
	r := exec(at, pid, ppid, start, count, args...)
	r.Action = event.Running
	return r
}

func exit(at int64, pid uint32, start int64, count uint64) event.Process {
	return event.Process{Time: at, Action: event.Exit, PID: pid, Start: start, ExecCount: count, Complete: true}
}

func apply(e *Enricher, records ...event.Process) []event.Process {
	b := &event.Batch{Processes: records}
	e.Apply(b)
	return b.Processes
}

func flowOf(e *Enricher, pid uint32, at int64) *event.Who {
	b := &event.Batch{Flows: []event.Flow{{Time: at, End: at, PID: pid}}}
	e.Apply(b)
	return b.Flows[0].Who
}

func address(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestForkExecExit(t *testing.T) {
	e := newEnricher(t, Options{})
	got := apply(e,
		running(1, 10, 0, 5, 7, "/sbin/init", "--password", "hunter2"),
		fork(2, 20, 10, 6, 7),
		exec(3, 20, 10, 6, 8, "/usr/bin/curl", "https://u:secret@h/?token=abc"),
		fork(4, 21, 20, 7, 8),
		exit(5, 20, 6, 8),
	)
	initWho, child, curl, grandchild := got[0].Who, got[1].Who, got[2].Who, got[3].Who
	if initWho.Args != "/sbin/init\x00--password\x00***" || initWho.Name != "init" || !got[0].Complete {
		t.Errorf("init: %+v", initWho)
	}
	if child.Executable != "/sbin/init" || child.Args != initWho.Args || child.ExecID == initWho.ExecID || child.PID != 20 {
		t.Errorf("a fork has its parent's image and an id of its own: %+v", child)
	}
	if child.ParentExecID != initWho.ExecID || curl.ParentExecID != initWho.ExecID || grandchild.ParentExecID != curl.ExecID {
		t.Error("parents")
	}
	if curl.Args != "/usr/bin/curl\x00https://u:***@h/?token=***" || curl.ExecID == child.ExecID {
		t.Errorf("curl: %+v", curl)
	}
	if got[4].Who != curl || len(got) != 5 {
		t.Errorf("exit: %+v, %d records", got[4].Who, len(got))
	}
	for i, r := range got {
		if r.Args != nil {
			t.Errorf("record %d still has its raw arguments", i)
		}
		if len(r.Who.ExecID) != 16 || strings.Trim(r.Who.ExecID, "0123456789abcdef") != "" {
			t.Errorf("exec id %q", r.Who.ExecID)
		}
	}
	if flowOf(e, 20, 5) != curl {
		t.Error("a late flow does not find an exited process")
	}
	if flowOf(e, 10, 5+40*second) != initWho || flowOf(e, 20, 5+40*second) != nil {
		t.Error("an exited process outlived its grace, or a live one did not")
	}
}

// The id of an execution must not depend on how and by which agent it was
// learnt, and must not change from release to release: stores hold it.
func TestExecIDIsStable(t *testing.T) {
	live, restarted := newEnricher(t, Options{}), newEnricher(t, Options{})
	seen := apply(live, fork(1, 20, 10, 6, 7), exec(2, 20, 10, 6, 8, "/bin/a"))
	told := apply(restarted, running(9, 20, 10, 6, 8, "/bin/a"))
	if seen[1].Who.ExecID != told[0].Who.ExecID {
		t.Errorf("%s live, %s from a snapshot", seen[1].Who.ExecID, told[0].Who.ExecID)
	}
	if want := "93476d7d74ff6c37"; execID(bootSeed("boot"), 1, 2, 3) != want {
		t.Errorf("got %s, want %s", execID(bootSeed("boot"), 1, 2, 3), want)
	}
	ids := map[string]bool{}
	for pid := range uint32(100) {
		for start := range int64(20) {
			for count := range uint64(5) {
				ids[execID(1, pid, start, count)] = true
			}
		}
	}
	if len(ids) != 100*20*5 || ids[execID(2, 1, 1, 1)] {
		t.Errorf("%d ids of 10000 executions", len(ids))
	}
}

// Attach first, snapshot later: what the hooks saw is read after the snapshot
// or before it, and the outcome must be the same.
func TestSnapshotAndHooksInAnyOrder(t *testing.T) {
	records := func() []event.Process {
		return []event.Process{
			fork(2, 20, 10, 6, 7),
			exec(3, 20, 10, 6, 8, "/bin/a"),
			exec(4, 20, 10, 6, 9, "/bin/b"),
			running(5, 20, 10, 6, 9, "/bin/b"),
			running(5, 10, 1, 5, 7, "/bin/sh"),
			running(5, 1, 0, 1, 2, "/sbin/init"),
		}
	}
	ids := map[int]string{}
	for i, r := range records() {
		ids[i] = execID(bootSeed("11111111-2222-3333-4444-555555555555"), r.PID, r.Start, r.ExecCount)
	}
	for _, order := range permutations(len(records())) {
		e := newEnricher(t, Options{})
		var latest *event.Who
		for _, i := range order {
			for _, r := range apply(e, records()[i]) {
				if r.PID == 20 {
					latest = r.Who
				}
			}
		}
		now := flowOf(e, 20, 6)
		if now.ExecID != ids[3] || now.Executable != "/bin/b" || now.ParentExecID != ids[4] {
			t.Fatalf("%v: %+v", order, now)
		}
		if order[len(order)-1] > 3 && latest != now && latest.ExecID == now.ExecID {
			t.Fatalf("%v: the last record told of 20 has another Who", order)
		}
		sh := flowOf(e, 10, 6)
		if sh.ParentExecID != ids[5] || sh.ExecID != ids[4] {
			t.Fatalf("%v: %+v", order, sh)
		}
	}
}

func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var all [][]int
	for _, p := range permutations(n - 1) {
		for at := 0; at <= len(p); at++ {
			q := append(append(append([]int{}, p[:at]...), n-1), p[at:]...)
			all = append(all, q)
		}
	}
	return all
}

func TestSnapshotAfterExit(t *testing.T) {
	e := newEnricher(t, Options{})
	gone := apply(e, exit(3, 20, 6, 8))
	if gone[0].Complete || gone[0].Who == nil {
		t.Errorf("an exit out of nothing: %+v", gone[0])
	}
	told := apply(e, running(2, 20, 0, 6, 8, "/bin/a"))
	if told[0].Who.ExecID != gone[0].Who.ExecID || told[0].Who.Executable != "/bin/a" {
		t.Errorf("%+v", told[0].Who)
	}
	if out := (&event.Batch{}); true {
		e.Checkpoint(4, out)
		if len(out.Processes) != 0 {
			t.Errorf("the dead walk: %+v", out.Processes)
		}
	}
}

func TestPIDReuse(t *testing.T) {
	e := newEnricher(t, Options{})
	apply(e, running(1*second, 20, 0, 1*second, 1, "/bin/old"))
	// The old one's exit is lost.
	apply(e, fork(9*second, 20, 10, 8*second, 1), exec(9*second, 20, 10, 8*second, 2, "/bin/new"))
	if w := flowOf(e, 20, 10*second); w.Executable != "/bin/new" {
		t.Errorf("now: %+v", w)
	}
	if w := flowOf(e, 20, 5*second); w.Executable != "/bin/old" {
		t.Errorf("before: %+v", w)
	}
	// Late news of the old one change nothing for the new one.
	got := apply(e, exit(7*second, 20, 1*second, 1), running(7*second, 20, 0, 1*second, 1, "/bin/old"))
	if got[0].Who.Executable != "/bin/old" || got[1].Who != got[0].Who {
		t.Errorf("late: %+v", got)
	}
	if w := flowOf(e, 20, 10*second); w.Executable != "/bin/new" {
		t.Errorf("after late news: %+v", w)
	}
	// News of a holder older still than all we know.
	apply(e, exit(1, 20, 1, 1))
	if w := flowOf(e, 20, 10*second); w.Executable != "/bin/new" {
		t.Errorf("after ancient news: %+v", w)
	}
	if out := (&event.Batch{}); true {
		e.Checkpoint(11*second, out)
		if len(out.Processes) != 1 || out.Processes[0].Who.Executable != "/bin/new" || out.Processes[0].Action != event.Running {
			t.Errorf("checkpoint: %+v", out.Processes)
		}
	}
}

func TestMissedExec(t *testing.T) {
	e := newEnricher(t, Options{})
	apply(e, running(1, 20, 0, 6, 1, "/bin/a"))
	got := apply(e, exit(2, 20, 6, 2))
	if got[0].Complete || got[0].Who.Executable == "/bin/a" {
		t.Errorf("the exit of an execution nobody saw begin: %+v", got[0].Who)
	}
}

func TestBoundedTree(t *testing.T) {
	const limit = 100
	e := newEnricher(t, Options{Processes: limit})
	var lost, want uint64
	for pid := uint32(1); pid <= 1000; pid++ {
		b := &event.Batch{Processes: []event.Process{running(int64(pid), pid, 0, int64(pid), 1, "/bin/a")}}
		if pid%3 == 0 {
			b.Processes = append(b.Processes, exit(int64(pid), pid, int64(pid), 1))
		}
		if pid > 1 { // process 1 is in use
			b.Flows = []event.Flow{{End: int64(pid), PID: 1}}
		}
		e.Apply(b)
		for _, l := range b.Lost {
			lost += l.Count
		}
		if e.tree.size() > limit {
			t.Fatalf("%d processes", e.tree.size())
		}
	}
	want = 1000 - limit
	if lost != want || e.Stats().Evicted != want || e.Stats().Processes != limit {
		t.Errorf("lost %d, want %d; %+v", lost, want, e.Stats())
	}
	if len(e.tree.byPID) != e.tree.size() {
		t.Errorf("%d pids for %d processes", len(e.tree.byPID), e.tree.size())
	}
	if flowOf(e, 1, 2000) == nil {
		t.Error("a process in use was evicted before idle ones")
	}
}

func TestApplyAllocatesNothingPerFlow(t *testing.T) {
	e := newEnricher(t, Options{})
	apply(e, running(1, 20, 0, 6, 1, "/bin/a"), running(1, 30, 0, 6, 1, "/bin/b"))
	b := &event.Batch{}
	for i := range 256 {
		f := event.Flow{Time: 1, End: 2, Transport: event.TCP, Direction: event.Direction(1 + i%2),
			Source: netip.AddrPortFrom(address("10.0.0.1:1").Addr(), uint16(1000+i/2)), Destination: address("10.0.0.2:80")}
		if f.Direction == event.Outbound {
			f.PID = 20
		} else {
			f.PID = 30
		}
		b.Flows = append(b.Flows, f)
	}
	e.Apply(b)
	if n := testing.AllocsPerRun(100, func() { e.Apply(b) }); n != 0 {
		t.Errorf("%v allocations for %d flows", n, len(b.Flows))
	}
}

func TestDeny(t *testing.T) {
	e := newEnricher(t, Options{Deny: []string{"license"}})
	if w := apply(e, exec(1, 20, 1, 6, 1, "/bin/a", "--license", "x", "--pesel=1"))[0].Who; w.Args != "/bin/a\x00--license\x00***\x00--pesel=1" {
		t.Errorf("%q", w.Args)
	}
	e.Deny([]string{"pesel"})
	if w := apply(e, exec(2, 21, 1, 7, 1, "/bin/a", "--license", "x", "--pesel=1"))[0].Who; w.Args != "/bin/a\x00--license\x00x\x00--pesel=***" {
		t.Errorf("%q", w.Args)
	}
}
