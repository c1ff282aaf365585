package enrich

import (
	"bufio"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ghostlight/internal/event"
)

// child runs a process of ours until the test ends and returns its pid.
func child(t *testing.T, env []string, name string, args ...string) uint32 {
	t.Helper()
	cmd := osexec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	in, err := cmd.StdinPipe() // closed when the test ends: cat ends then
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	waitFor(t, "exec of "+name, func() bool {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid))
		self, _ := os.Readlink("/proc/self/exe")
		return exe != self
	})
	return uint32(cmd.Process.Pid)
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s: not in 20 s", what)
}

// told is the Running record that a sensor would make of a real process.
func told(t *testing.T, pid uint32) event.Process {
	t.Helper()
	dir, err := openProcess("/proc", pid)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s, err := dir.stat()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, fileBytes)
	exe, _ := dir.Readlink("exe")
	cwd, _ := dir.Readlink("cwd")
	args := strings.Split(strings.TrimRight(string(dir.read("cmdline", buf)), "\x00"), "\x00")
	r := running(1, pid, s.ppid, s.start+tick/2, 3, append([]string{exe}, args...)...)
	r.Args, r.Cwd = args, cwd
	return r
}

func TestRepairFromProc(t *testing.T) {
	pid := child(t, []string{"OTEL_SERVICE_NAME=basket"}, "cat", "-", "/dev/null", "-")
	e := newEnricher(t, Options{ProcRoot: "/proc"})
	b := &event.Batch{Flows: []event.Flow{{Time: 5, End: 5, PID: pid}}}
	e.Apply(b)
	who := b.Flows[0].Who
	if who == nil || who.Name != "cat" || who.Args != "cat\x00-\x00/dev/null\x00-" || who.Service != "basket" || who.PPID != uint32(os.Getpid()) ||
		who.Namespaces.Net == 0 || who.Namespaces.User == 0 || who.Cwd == "" || who.CgroupPath == "" {
		t.Fatalf("%+v", who)
	}
	if len(b.Processes) != 1 || b.Processes[0].Who != who || b.Processes[0].Complete || b.Processes[0].Action != event.Running {
		t.Errorf("records: %+v", b.Processes)
	}
	if e.Stats().Repaired != 1 {
		t.Errorf("%+v", e.Stats())
	}
	// The sensor's word on the same process: exact start and count. The id that
	// was published stays until then, and the exit finds the process.
	r := told(t, pid)
	got := apply(e, r)
	if got[0].Who.Executable != r.Executable || got[0].Who.ExecID != execID(e.boot, pid, r.Start, r.ExecCount) {
		t.Errorf("%+v", got[0].Who)
	}
	if again := flowOf(e, pid, 6); again.Service != "basket" || again.ExecID != got[0].Who.ExecID {
		t.Errorf("%+v", again)
	}
}

func TestRepairedProcessExits(t *testing.T) {
	pid := child(t, nil, "cat")
	e := newEnricher(t, Options{ProcRoot: "/proc"})
	who := flowOf(e, pid, 5)
	r := told(t, pid)
	gone := apply(e, exit(6, pid, r.Start, 3))
	if gone[0].Who != who || gone[0].Complete {
		t.Errorf("%+v, want %+v", gone[0].Who, who)
	}
	// The pid is used again: the exit of the new holder is not the old one's.
	e = newEnricher(t, Options{ProcRoot: "/proc"})
	who = flowOf(e, pid, 5)
	if gone := apply(e, exit(7, pid, r.Start+50*tick, 3)); gone[0].Who.ExecID == who.ExecID {
		t.Error("a reused pid was taken for the process of /proc")
	}
}

func TestUnknownPIDIsAskedOnce(t *testing.T) {
	e := newEnricher(t, Options{ProcRoot: "/proc"})
	const nobody = 1 << 22 // above pid_max
	for i := range 10 {
		if flowOf(e, nobody, int64(i)) != nil {
			t.Fatal("somebody")
		}
	}
	if s := e.Stats(); s.Reads != 1 || s.Unknown != 10 {
		t.Errorf("%+v", s)
	}
	flowOf(e, nobody, 20*second)
	if s := e.Stats(); s.Reads != 2 {
		t.Errorf("never asked again: %+v", s)
	}
}

func TestReadsAreBounded(t *testing.T) {
	e := newEnricher(t, Options{ProcRoot: "/proc", Reads: 3})
	b := &event.Batch{}
	for pid := uint32(1); pid <= 10; pid++ {
		b.Flows = append(b.Flows, event.Flow{Time: 5, End: 5, PID: 1<<22 + pid})
	}
	e.Apply(b)
	if s := e.Stats(); s.Reads != 3 || s.Deferred != 7 {
		t.Errorf("%+v", s)
	}
	for range 3 {
		e.Apply(b)
	}
	if s := e.Stats(); s.Reads != 10 || s.Deferred != 7+4+1 {
		t.Errorf("%+v", s)
	}
}

// What a flow makes known is published as a new Who, in a Running record, and
// the old one stays as it was.
func TestServiceFromEnvironment(t *testing.T) {
	for _, c := range []struct{ env, want string }{
		{"OTEL_SERVICE_NAME=basket", "basket"},
		{"OTEL_RESOURCE_ATTRIBUTES=deployment.environment=x,service.name=my%20shop,service.version=1", "my shop"},
		{"OTEL_SERVICE_NAME=", "cat"},
		{"OTEL_SERVICE_NAME=a\nb", "cat"},
		{"OTEL_SERVICE_NAME=" + strings.Repeat("x", 256), "cat"},
		{"X=OTEL_SERVICE_NAME=basket", "cat"},
	} {
		pid := child(t, []string{c.env}, "cat")
		e := newEnricher(t, Options{ProcRoot: "/proc", CgroupRoots: []string{}})
		e.hybrid = false
		before := apply(e, told(t, pid))[0].Who
		if before.Service != "cat" {
			t.Errorf("before: %+v", before)
		}
		b := &event.Batch{Flows: []event.Flow{{Time: 5, End: 5, PID: pid}}}
		e.Apply(b)
		after := b.Flows[0].Who
		want := c.want
		if unit, ok := strings.CutSuffix(filepath.Base(after.CgroupPath), ".service"); ok && want == "cat" {
			want = unit // the tests run in a unit
		}
		if after.Service != want || before.Service != "cat" || before.ExecID != after.ExecID {
			t.Errorf("%s: %q, want %q; before %q", c.env, after.Service, want, before.Service)
		}
		if (after != before) != (len(b.Processes) == 1) || (len(b.Processes) == 1 && b.Processes[0].Who != after) {
			t.Errorf("%s: %+v", c.env, b.Processes)
		}
		reads := e.Stats().Reads
		if flowOf(e, pid, 6) != after || e.Stats().Reads != reads {
			t.Error("it was read twice")
		}
		forked := apply(e, fork(7, 1<<22, pid, 1<<60, 3))[0].Who
		if forked.Service != after.Service {
			t.Errorf("a fork has another environment: %q", forked.Service)
		}
	}
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string]stat{
		"12 (a b) S 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 123 0": {"a b", 3, 123 * tick},
		"12 (a) b) c) S 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 1": {"a) b) c", 3, tick},
		"12 (a) S 3": {},
		"12 )a( S":   {},
		"":           {},
		"12 (a) S 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 9223372036854775807": {},
	} {
		if got, err := parseStat([]byte(text)); got != want || (err != nil) != (want == stat{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("12 (a b) S 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 123 0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err == nil && s.start < 0 {
			t.Errorf("%q: %+v", b, s)
		}
	})
}

func FuzzEnviron(f *testing.F) {
	f.Add([]byte("A=b\x00OTEL_RESOURCE_ATTRIBUTES=service.name=x%20y,a=b\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if name := declared(b); len(name) > maxDeclared {
			t.Errorf("%q", name)
		}
	})
}

// Services by their command lines: "executable | args... -> service".
func TestProgram(t *testing.T) {
	file, err := os.Open("testdata/program.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line, want, ok := strings.Cut(lines.Text(), " -> ")
		if !ok {
			continue
		}
		args := strings.Split(line, " | ")
		who := &event.Who{Name: nameOf(args[0]), Args: strings.Join(args[1:], "\x00")}
		if got := program(who); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestServiceOrder(t *testing.T) {
	who := &event.Who{Name: "nginx"}
	in := &event.Who{Name: "nginx", Container: &event.Container{ID: "1", Name: "web"}}
	nameless := &event.Who{Name: "nginx", Container: &event.Container{ID: "1"}}
	for _, c := range []struct {
		who            *event.Who
		declared, unit string
		want           string
	}{
		{in, "shop", "x.service", "shop"},
		{in, "", "x.service", "web"},
		{nameless, "", "docker.service", "nginx"},
		{who, "", "web@1.service", "web@1"},
		{who, "", "session-3.scope", "nginx"},
		{who, "", "user@1000.service", "nginx"},
		{who, "", "", "nginx"},
	} {
		if got := service(c.who, c.declared, c.unit); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
