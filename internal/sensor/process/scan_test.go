package process

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ghostlight/internal/event"
)

func TestParseStat(t *testing.T) {
	line := "7 (a) b (c) S 41 7 7 0 -1 2097152 1 2 3 4 5 6 7 8 20 0 1 0 1234" + strings.Repeat(" 0", 25) + " 9999 0 0 0 0"
	for _, c := range []struct {
		in, want string
	}{
		{line, "{a) b (c 41 2097152 1234 9999} <nil>"},
		{"7 () S 1 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 55", "{ 1 0 55 0} <nil>"},
		{"7 (short) S 1", "{ 0 0 0 0} process: stat has 4 fields"},
		{"7 no name", "{ 0 0 0 0} process: stat has no name"},
		{")(", "{ 0 0 0 0} process: stat has no name"},
		{"", "{ 0 0 0 0} process: stat has no name"},
	} {
		s, err := parseStat([]byte(c.in))
		if got := fmt.Sprint(s, " ", err); got != c.want {
			t.Errorf("%q\n got %s\nwant %s", c.in, got, c.want)
		}
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("7 (a) b) S 41 7 7 0 -1 2097152 1 2 3 4 5 6 7 8 20 0 1 0 1234 0 0"))
	f.Add([]byte("Uid:\t0\t1\t2\t3\nGid:\t1\nCapEff:\t00ff\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err != nil && s != (stat{}) {
			t.Errorf("%+v and %v", s, err)
		}
		parseStatus(&event.Process{}, b)
		splitArgs(b)
	})
}

// A /proc of our own making: every field has a known value.
func TestScan(t *testing.T) {
	proc := t.TempDir()
	process := func(pid, stat string, files map[string]string) {
		dir := filepath.Join(proc, pid)
		if err := os.MkdirAll(dir+"/ns", 0o755); err != nil {
			t.Fatal(err)
		}
		files["stat"] = stat
		for name, content := range files {
			var err error
			if link, ok := strings.CutPrefix(content, "-> "); ok {
				err = os.Symlink(link, filepath.Join(dir, name))
			} else {
				err = os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	stat := func(start int) string { return fmt.Sprintf("1 (x) S 9 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 %d", start) }
	process("10", stat(100), map[string]string{
		"exe": "-> /bin/x", "cwd": "-> /var", "cmdline": "x\x00-y\x00", "ns/net": "-> net:[4026531840]", "ns/pid": "-> pid:[12]",
		"status": "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nCapEff:\t00000000000000ff\n",
	})
	process("11", "11 (kworker/0:1) S 2 0 0 0 0 2097152 0 0 0 0 0 0 0 0 0 0 1 0 5", map[string]string{})
	process("12", stat(100), map[string]string{})            // told already
	process("13", stat(200), map[string]string{})            // younger than the hooks
	process("14", "", map[string]string{})                   // gone
	process("sys", stat(1), map[string]string{"status": ""}) // no process

	var out event.Batch
	if err := new(instance).scan(proc, 150*tick, map[uint32]bool{12: true}, &out); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(out.Processes, func(a, b event.Process) int { return int(a.PID) - int(b.PID) })
	var got []string
	for _, p := range out.Processes {
		if p.Time <= 0 || p.Complete || p.Action != event.Running {
			t.Errorf("%+v", p)
		}
		got = append(got, fmt.Sprintf("%d %d %d %s %q %q %d %d %x %d %d", p.PID, p.PPID, p.Start, p.Executable, p.Cwd, p.Args, p.UID, p.GID, p.CapEffective, p.Namespaces.Net, p.Namespaces.PID))
	}
	want := []string{
		`10 9 1000000000 /bin/x "/var" ["x" "-y"] 2 6 ff 4026531840 12`,
		`11 2 50000000  "" ["[kworker/0:1]"] 0 0 0 0 0`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if err := new(instance).scan(proc+"/absent", math.MaxInt64, nil, &out); err == nil {
		t.Error("no error without /proc")
	}
}

// What is told of this test is what this test knows of itself.
func TestScanSelf(t *testing.T) {
	var out event.Batch
	if err := new(instance).scan("/proc", boottime()+2*tick, nil, &out); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(out.Processes, func(p event.Process) bool { return p.PID == uint32(os.Getpid()) })
	if i < 0 {
		t.Fatal("this process is not told")
	}
	p := out.Processes[i]
	exe, _ := os.Executable()
	cwd, _ := os.Getwd()
	if p.Executable != exe || p.Cwd != cwd || !slices.Equal(p.Args, os.Args) || p.PPID != uint32(os.Getppid()) || p.Namespaces.Net == 0 {
		t.Errorf("%+v", p)
	}
}

// The arguments in /proc belong to what the iterator saw only if the process
// is the same and has not exec'd since.
func TestRunningArgs(t *testing.T) {
	s, err := readStat("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	p := event.Process{PID: uint32(os.Getpid()), Start: int64(s.startTicks)*tick + 7, Complete: true}
	for _, c := range []struct {
		name     string
		start    int64
		argStart uint64
		want     bool
	}{
		{"the same", 0, s.argStart, true},
		{"place of the arguments not known", 0, 0, true},
		{"another process", tick, s.argStart, false},
		{"another program", 0, s.argStart + 16, false},
	} {
		q := p
		q.Start += c.start
		args, cut, complete := new(instance).runningArgs(&q, c.argStart)
		if want := map[bool][]string{true: os.Args}[c.want]; complete != c.want || cut || !slices.Equal(args, want) {
			t.Errorf("%s: %q, cut %v, complete %v", c.name, args, cut, complete)
		}
	}
}
