package process

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
)

func TestLife(t *testing.T) {
	w, dir := start(t), t.TempDir()
	cmd := self("seven", "a", "", "b c")
	cmd.Dir = dir
	pid := run(t, 7, cmd)
	fork, exec, exit := w.life(t, pid)
	me, _ := os.Executable()
	var status event.Process
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	parseStatus(&status, b)
	for _, p := range []event.Process{fork, exec, exit} {
		same(t, "ppid", p.PPID, uint32(os.Getpid()))
		same(t, "start", p.Start, fork.Start)
		same(t, "uid", p.UID, uint32(os.Geteuid()))
		same(t, "gid", p.GID, uint32(os.Getegid()))
		same(t, "namespaces", p.Namespaces, readNamespaces("/proc/self"))
		same(t, "cgroup", p.CgroupID, fork.CgroupID)
		same(t, "complete", p.Complete, true)
	}
	same(t, "exec count", exec.ExecCount, fork.ExecCount+1)
	same(t, "exec count at the exit", exit.ExecCount, exec.ExecCount)
	same(t, "executable", exec.Executable, me)
	same(t, "arguments", fmt.Sprintf("%q", exec.Args), `["/proc/self/exe" "a" "" "b c"]`)
	same(t, "cut", exec.ArgsCut, false)
	same(t, "cwd", exec.Cwd, dir)
	same(t, "capabilities", exec.CapEffective, status.CapEffective)
	same(t, "code", exit.ExitCode, 7)
	same(t, "signal", exit.ExitSignal, 0)
	if !(0 < fork.Time && fork.Time < exec.Time && exec.Time < exit.Time) {
		t.Errorf("times are out of order: %d %d %d", fork.Time, exec.Time, exit.Time)
	}
}

func TestKilled(t *testing.T) {
	w := start(t)
	pid, end := spawn(t, self("wait"))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	end()
	_, _, exit := w.life(t, pid)
	same(t, "signal", exit.ExitSignal, int32(syscall.SIGKILL))
	same(t, "code", exit.ExitCode, 0)
}

// Every size on both sides of the bounds of the three reservations.
func TestArguments(t *testing.T) {
	w := start(t)
	for _, n := range []int{20, 511, 512, 513, 2047, 2048, 2049, 3000, 8191, 8192, 8193, 9000, 100000} {
		cmd := self("true")
		cmd.Args = long(fmt.Sprintf("size-%06d", n), n)
		pid := run(t, 0, cmd)
		exec := w.one(t, "exec", is(event.Exec, pid))
		want, cut := strings.Join(cmd.Args, "\x00"), n > maxArgs
		if cut {
			want = want[:maxArgs]
		}
		same(t, fmt.Sprintf("%d bytes: cut", n), exec.ArgsCut, cut)
		same(t, fmt.Sprintf("%d bytes: complete", n), exec.Complete, true)
		if got := strings.Join(exec.Args, "\x00"); got != want {
			t.Errorf("%d bytes: got %d bytes in %d arguments, want %d in %d", n, len(got), len(exec.Args), len(want), len(cmd.Args))
		}
	}
}

// install copies this binary to path.
func install(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// helperAt returns a command for a copy of this binary, run by a name that is
// not its path.
func helperAt(dir, name string) *exec.Cmd {
	cmd := self("true")
	cmd.Dir, cmd.Path, cmd.Args = dir, name, []string{name}
	return cmd
}

func TestRelativePath(t *testing.T) {
	w, dir := start(t), t.TempDir()
	for i := range 24 {
		dir = filepath.Join(dir, fmt.Sprintf("a-folder-with-a-long-name-%02d", i))
	}
	install(t, dir+"/prog")
	exec := w.one(t, "exec", is(event.Exec, run(t, 0, helperAt(dir, "./prog"))))
	same(t, "executable", exec.Executable, dir+"/prog")
	same(t, "cwd", exec.Cwd, dir)
	same(t, "complete", exec.Complete, true)

	if err := os.Symlink(dir+"/prog", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	exec = w.one(t, "exec", is(event.Exec, run(t, 0, helperAt("/", dir+"/link"))))
	same(t, "executable behind a link", exec.Executable, dir+"/prog")
	same(t, "cwd", exec.Cwd, "/")
}

// A path beyond the bounds keeps its end and says that it is cut.
func TestPathCut(t *testing.T) {
	w, top := start(t), t.TempDir()
	for _, name := range []string{"d", strings.Repeat("long", 60)} {
		dir := top
		for range 70 {
			dir = filepath.Join(dir, name)
			if len(dir) > 3500 { // PATH_MAX
				break
			}
		}
		install(t, dir+"/prog")
		exec := w.one(t, "exec", is(event.Exec, run(t, 0, helperAt(dir, "./prog"))))
		same(t, "complete", exec.Complete, false)
		for what, got := range map[string]string{"executable": exec.Executable, "cwd": exec.Cwd} {
			want := dir
			if what == "executable" {
				want += "/prog"
			}
			rest, cut := strings.CutPrefix(got, "...")
			if !cut || !strings.HasSuffix(want, rest) || len(rest) < 100 {
				t.Errorf("%s is %q", what, got)
			}
		}
	}
}

func TestBindMount(t *testing.T) {
	w, dir := start(t), t.TempDir()
	install(t, dir+"/here/sub/prog")
	if err := os.MkdirAll(dir+"/there/mnt", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := self("bind", dir+"/here/sub", dir+"/there/mnt")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	pid := run(t, 0, cmd)
	exec := w.one(t, "exec in the mount", func(p *event.Process) bool { return is(event.Exec, pid)(p) && p.Args[0] == "./prog" })
	same(t, "executable", exec.Executable, dir+"/there/mnt/prog")
	same(t, "cwd", exec.Cwd, dir+"/there/mnt")
	exec = w.one(t, "exec", is(event.Exec, run(t, 0, helperAt(dir+"/here/sub", "./prog"))))
	same(t, "executable outside", exec.Executable, dir+"/here/sub/prog")
}

func TestChroot(t *testing.T) {
	w, dir := start(t), t.TempDir()
	install(t, dir+"/in/prog")
	cmd := helperAt("/in", "/in/prog")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
	exec := w.one(t, "exec", is(event.Exec, run(t, 0, cmd)))
	same(t, "executable", exec.Executable, "/in/prog")
	same(t, "cwd", exec.Cwd, "/in")
}

func TestScript(t *testing.T) {
	w, dir := start(t), t.TempDir()
	install(t, dir+"/interpreter")
	if err := os.WriteFile(dir+"/script", []byte("#!"+dir+"/interpreter -x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	exec := w.one(t, "exec", is(event.Exec, run(t, 0, helperAt("/", dir+"/script"))))
	same(t, "executable", exec.Executable, dir+"/interpreter")
	same(t, "arguments", strings.Join(exec.Args, " "), dir+"/interpreter -x "+dir+"/script")
}

func TestMemfd(t *testing.T) {
	w := start(t)
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("nowhere", 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	cmd := helperAt("/", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd))
	exec := w.one(t, "exec", is(event.Exec, run(t, 0, cmd)))
	same(t, "executable", exec.Executable, "/memfd:nowhere")
}

func TestForkWithoutExec(t *testing.T) {
	w := start(t)
	pid, err := fork(5)
	if err != nil {
		t.Fatal(err)
	}
	exit, fork := w.one(t, "exit", is(event.Exit, pid)), w.one(t, "fork", is(event.Fork, pid))
	same(t, "ppid", fork.PPID, uint32(os.Getpid()))
	same(t, "start", exit.Start, fork.Start)
	same(t, "exec count", exit.ExecCount, fork.ExecCount)
	same(t, "code", exit.ExitCode, 5)
	if n := len(w.all(is(event.Exec, pid))); n != 0 {
		t.Errorf("%d execs were told", n)
	}
}

func TestThreads(t *testing.T) {
	w := start(t)
	pid := run(t, 0, self("threads"))
	w.life(t, pid) // fails if the exit is told for each thread
	children := w.all(func(p *event.Process) bool { return p.Action == event.Fork && p.PPID == uint32(pid) })
	if len(children) > 0 {
		t.Errorf("threads are told as processes: %+v", children)
	}
}

// The first thread ends long before the last: the process ends with the last,
// and is told by it at the start.
func TestLeaderExitsFirst(t *testing.T) {
	before := start(t)
	cmd := self("leader")
	pid, end := spawn(t, cmd)
	after := start(t)
	if n := len(before.all(is(event.Exit, pid))); n != 0 {
		t.Errorf("the exit is told %d times while threads run", n)
	}
	running := after.all(is(event.Running, pid))
	if len(running) == 0 {
		t.Fatal("the process is not told as running")
	}
	me, _ := os.Executable()
	same(t, "executable", running[0].Executable, me)
	end()
	same(t, "exit code that its parent sees", cmd.ProcessState.ExitCode(), 9)
	_, exec, exit := before.life(t, pid)
	same(t, "code", exit.ExitCode, 9)
	same(t, "start", exit.Start, exec.Start)
	same(t, "start of the running", running[0].Start, exec.Start)
}

func TestExecFromThread(t *testing.T) {
	w := start(t)
	pid := run(t, 7, self("thread-exec"))
	exit, fork := w.one(t, "exit", is(event.Exit, pid)), w.one(t, "fork", is(event.Fork, pid))
	execs := w.all(is(event.Exec, pid))
	if len(execs) != 2 {
		t.Fatalf("%d execs were told, want 2", len(execs))
	}
	same(t, "arguments", strings.Join(execs[1].Args, " "), "from-thread")
	same(t, "start", execs[1].Start, fork.Start)
	same(t, "exec count", execs[1].ExecCount, fork.ExecCount+2)
	same(t, "exec count at the exit", exit.ExecCount, execs[1].ExecCount)
	same(t, "code", exit.ExitCode, 7)
}

func TestRunning(t *testing.T) {
	me, _ := os.Executable()
	dir := t.TempDir()
	short, cutShort := self("wait", "-a", "", "b"), self("wait")
	short.Dir = dir
	cutShort.Args = long("much", 10000)
	pid, end := spawn(t, short)
	much, _ := spawn(t, cutShort)
	w := start(t)
	p := w.one(t, "running", is(event.Running, pid))
	same(t, "executable", p.Executable, me)
	same(t, "arguments", fmt.Sprintf("%q", p.Args), `["/proc/self/exe" "-a" "" "b"]`)
	same(t, "cut", p.ArgsCut, false)
	same(t, "cwd", p.Cwd, dir)
	same(t, "ppid", p.PPID, uint32(os.Getpid()))
	same(t, "namespaces", p.Namespaces, readNamespaces("/proc/self"))
	same(t, "complete", p.Complete, true)
	same(t, "cut of the long one", w.one(t, "running", is(event.Running, much)).ArgsCut, true)
	kthreadd := w.all(func(p *event.Process) bool {
		return p.Action == event.Running && slices.Equal(p.Args, []string{"[kthreadd]"})
	})
	if len(kthreadd) != 1 || kthreadd[0].Executable != "" || kthreadd[0].Cwd != "" {
		t.Errorf("kthreadd is %+v", kthreadd)
	}

	end()
	exit := w.one(t, "exit", is(event.Exit, pid))
	same(t, "start at the exit", exit.Start, p.Start)
	same(t, "exec count at the exit", exit.ExecCount, p.ExecCount)
}

// Every process that /proc shows is told, once, and what both ways of looking
// tell is the same.
func TestRunningAgreesWithProc(t *testing.T) {
	pid, _ := spawn(t, self("wait", "x"))
	w := start(t)
	var out event.Batch
	if err := new(instance).scan("/proc", boottime()+tick, nil, &out); err != nil {
		t.Fatal(err)
	}
	for _, p := range out.Processes {
		if p.Start > w.began-2*tick { // younger than the watch
			continue
		}
		if n := len(w.all(is(event.Running, int(p.PID)))); n != 1 {
			t.Errorf("process %d is told %d times", p.PID, n)
		}
		if p.PID != uint32(pid) {
			continue
		}
		got := w.one(t, "running", is(event.Running, pid))
		got.Start = got.Start / tick * tick
		got.Time, got.ExecCount, got.CgroupID, got.Complete = p.Time, 0, 0, false
		same(t, "record", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", p))
	}
}

func TestNamespaces(t *testing.T) {
	w := start(t)
	cmd := self("wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS |
		unix.CLONE_NEWIPC | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
	pid, end := spawn(t, cmd)
	want, ours := readNamespaces(fmt.Sprintf("/proc/%d", pid)), readNamespaces("/proc/self")
	end()
	if want.PID == ours.PID || want.Net == ours.Net || want.User == ours.User || want.Cgroup == ours.Cgroup {
		t.Fatalf("the child is in our namespaces: %+v", want)
	}
	fork, exec, exit := w.life(t, pid)
	same(t, "namespaces at the fork", fork.Namespaces, want)
	same(t, "namespaces at the exec", exec.Namespaces, want)
	same(t, "namespaces at the exit", exit.Namespaces, want)
}

func TestNobody(t *testing.T) {
	w, dir := start(t), t.TempDir()
	install(t, dir+"/prog")
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := helperAt("/", dir+"/prog")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65533}}
	_, exec, exit := w.life(t, run(t, 0, cmd))
	same(t, "uid", exec.UID, 65534)
	same(t, "gid", exec.GID, 65533)
	same(t, "capabilities", exec.CapEffective, 0)
	same(t, "uid at the exit", exit.UID, 65534)
}

// A process made inside another cgroup is told with that one's id.
func TestCgroup(t *testing.T) {
	root := cgroup2(t)
	dir, err := os.MkdirTemp(root, "process-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	want := info.Sys().(*syscall.Stat_t).Ino
	w := start(t)
	cmd := self("wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	pid, end := spawn(t, cmd)
	later := start(t)
	end()
	fork, exec, exit := w.life(t, pid)
	same(t, "cgroup at the fork", fork.CgroupID, want)
	same(t, "cgroup at the exec", exec.CgroupID, want)
	same(t, "cgroup at the exit", exit.CgroupID, want)
	same(t, "cgroup of the running", later.one(t, "running", is(event.Running, pid)).CgroupID, want)
}

// cgroup2 returns where the v2 tree is mounted, mounting it if nobody did.
func cgroup2(t testing.TB) string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if before, after, _ := strings.Cut(s.Text(), " - "); strings.HasPrefix(after, "cgroup2 ") {
			return strings.Fields(before)[4]
		}
	}
	dir := t.TempDir()
	if err := unix.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	return dir
}

// Nothing is missing of 500 processes that come and go as fast as they can.
// Where tracepoints are preempted a program and its twin may both miss, which
// takes three processes in the same program on one CPU: what is missing is
// counted then, one by one, and is next to nothing.
func TestStorm(t *testing.T) {
	w := start(t)
	const processes, at = 500, 4
	pids := make(chan uint32, processes)
	for range at {
		go func() { // ends by itself
			for range processes / at {
				cmd := exec.Command("/bin/true")
				if _, err := os.Stat(cmd.Path); err != nil {
					cmd = self("true")
				}
				if err := cmd.Run(); err != nil {
					t.Error(err)
				}
				pids <- uint32(cmd.Process.Pid)
			}
		}()
	}
	ours := map[uint32]bool{}
	for range processes {
		ours[<-pids] = true
	}
	missing := func() (n int) {
		told := map[uint32]map[event.Action]int64{}
		for _, p := range w.all(func(p *event.Process) bool { return ours[p.PID] && p.Action != event.Running }) {
			if told[p.PID] == nil {
				told[p.PID] = map[event.Action]int64{}
			}
			if told[p.PID][p.Action] != 0 {
				t.Errorf("the %s of %d is told twice", p.Action, p.PID)
			}
			told[p.PID][p.Action] = p.Start
		}
		for pid := range ours {
			for _, a := range []event.Action{event.Fork, event.Exec, event.Exit} {
				if told[pid][a] == 0 {
					n++
				} else if told[pid][a] != told[pid][event.Exit] && told[pid][event.Exit] != 0 {
					t.Errorf("%d: its %s has another start than its exit", pid, a)
				}
			}
		}
		return n
	}
	for range 100 { // what was submitted is drained within milliseconds
		if missing() == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	lost, err := w.object.Lost()
	if err != nil {
		t.Fatal(err)
	}
	w.mayLose = uint64(missing())
	if kernel.PreemptsTracepoints.Have() != nil {
		w.mayLose = 0
	}
	if n := missing(); uint64(n) > lost || n > int(w.mayLose) || n > 5 {
		t.Errorf("%d of %d records are missing, %d are counted as lost", n, 3*processes, lost)
	}
}

// BenchmarkSpawn reports what each program costs per run, while processes come
// and go: go test -bench Spawn -benchtime 2000x.
func BenchmarkSpawn(b *testing.B) {
	w := start(b)
	m, err := w.kernel.NewMeter()
	if err != nil {
		b.Fatal(err)
	}
	if err := m.Begin(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := exec.Command("/bin/true", "--with", "some arguments").Run(); err != nil {
			b.Fatal(err)
		}
	}
	costs, err := m.End(nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range costs {
		b.ReportMetric(c.PerRunNS, strings.TrimPrefix(c.Program, "process_")+"-ns")
		if c.Program == "process_exit" {
			b.ReportMetric(float64(c.Runs)/float64(b.N), "exit-runs/op")
		}
	}
}
