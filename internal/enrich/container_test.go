package enrich

import (
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"ghostlight/internal/enrich/container"
	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
)

// haveNamespaces asks for what a container begins with.
var haveNamespaces = &kernel.Probe{Name: "mount namespaces", Since: "2.4.19", Test: func() error {
	out, err := osexec.Command("unshare", "-m", "true").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}}

// haveCgroup2 asks for the tree whose groups have ids.
var haveCgroup2 = &kernel.Probe{Name: "a cgroup2 mount", Since: "4.5", Test: func() error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err == nil && len(container.Mounts(mounts)) == 0 {
		err = os.ErrNotExist
	}
	return err
}}

// need skips where the kernel lets us make no container, and fails where a
// program of test/setup.sh is not installed.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if err := haveNamespaces.Have(); err != nil {
		t.Skip(err)
	}
	for _, p := range programs {
		if _, err := osexec.LookPath(p); err != nil {
			t.Fatalf("%s is missing: run test/setup.sh", p)
		}
	}
}

// rootfs makes a root file system of one static program.
func rootfs(t *testing.T) string {
	t.Helper()
	busybox, err := osexec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "root", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"busybox", "sleep"} {
		if err := os.WriteFile(filepath.Join(bin, name), program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Dir(bin)
}

// podman runs in storage of its own.
type podman struct {
	t    *testing.T
	root string
	env  []string
}

func newPodman(t *testing.T) *podman {
	root := t.TempDir()
	p := &podman{t: t, root: root, env: append(os.Environ(), "HOME="+root,
		"CONTAINERS_CONF="+filepath.Join(root, "containers.conf"), "CONTAINERS_STORAGE_CONF="+filepath.Join(root, "storage.conf"))}
	write := func(name, text string) {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(".config/containers/policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	write("storage.conf", fmt.Sprintf("[storage]\ndriver=\"vfs\"\nrunroot=%q\ngraphroot=%q\n", root+"/run", root+"/graph"))
	write("containers.conf", fmt.Sprintf("[engine]\ncgroup_manager=\"cgroupfs\"\nruntime=\"runc\"\nevents_logger=\"none\"\ntmp_dir=%q\n", root+"/tmp"))
	tar := filepath.Join(root, "image.tar")
	if out, err := osexec.Command("tar", "-C", rootfs(t), "-cf", tar, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	p.do("import", "-q", tar, "localhost/ghostlight-test:1")
	return p
}

func (p *podman) do(args ...string) string {
	p.t.Helper()
	cmd := osexec.Command("podman", args...)
	cmd.Env = p.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("podman %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// run starts a container that sleeps, and returns its id, its process and its
// monitor.
func (p *podman) run(name string, flags ...string) (id string, pid, monitor uint32) {
	p.t.Helper()
	args := []string{"run", "-d", "--name", name, "--network=host", "--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:1000"}
	p.do(append(append(args, flags...), "localhost/ghostlight-test:1", "/bin/sleep", "600")...)
	p.t.Cleanup(func() {
		p.do("rm", "-f", "-t", "0", name)
		// The monitor cleans up in the storage, which is removed next.
		waitFor(p.t, "end of conmon", func() bool {
			args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", monitor))
			return err != nil || len(args) == 0
		})
	})
	out := p.do("inspect", "-f", "{{.Id}} {{.State.Pid}} {{.State.ConmonPid}}", name)
	if _, err := fmt.Sscan(out, &id, &pid, &monitor); err != nil {
		p.t.Fatalf("%q: %v", out, err)
	}
	sleeps(p.t, pid)
	return id, pid, monitor
}

// sleeps waits until the process is what its container runs: runc returns when
// it has told its init to go on, not when that has.
func sleeps(t *testing.T, pid uint32) {
	t.Helper()
	waitFor(t, "exec of the container's process", func() bool {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return string(args) == "/bin/sleep\x00600\x00"
	})
}

// cgroupID is what the kernel's bpf_get_current_cgroup_id says of a process:
// the inode of its group in the cgroup2 tree.
func cgroupID(t *testing.T, pid uint32) uint64 {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "0::")
	roots := container.Mounts(mounts)
	if !ok || len(roots) == 0 {
		return 0
	}
	path, _, _ := strings.Cut(rest, "\n")
	info, err := os.Stat(filepath.Join(roots[0], path))
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestPodman(t *testing.T) {
	need(t, "podman", "runc", "conmon", "busybox")
	p := newPodman(t)
	id, pid, monitor := p.run("eager_fox")
	shopID, shopPID, _ := p.run("shop-1", "-e", "OTEL_SERVICE_NAME=shop")
	want := event.Container{ID: id, Name: "eager_fox", Runtime: "podman"}

	t.Run("by the monitor's arguments", func(t *testing.T) {
		e := newEnricher(t, Options{ProcRoot: "/proc", StorageRoots: []string{}})
		inner := told(t, pid)
		inner.CgroupID = cgroupID(t, pid)
		got := apply(e, told(t, monitor), inner)
		if c := got[1].Who.Container; inner.CgroupID != 0 && (c == nil || c.ID != id || c.Runtime != "podman") {
			t.Errorf("before any flow: %+v", c)
		}
		who := flowOf(e, pid, 5)
		if who.Container == nil || *who.Container != want || who.Service != "eager_fox" || !strings.Contains(who.CgroupPath, id) {
			t.Errorf("%+v in %+v", who, who.Container)
		}
		forked := apply(e, fork(6, 1<<22, pid, 1<<60, 3))[0].Who
		if forked.Container == nil || *forked.Container != want || forked.Service != "eager_fox" {
			t.Errorf("its child: %+v", forked)
		}
	})
	t.Run("by the storage's files", func(t *testing.T) {
		e := newEnricher(t, Options{ProcRoot: "/proc", StorageRoots: []string{p.root + "/graph"}})
		who := flowOf(e, pid, 5) // known to nobody: repaired from /proc
		if who == nil || who.Container == nil || *who.Container != want || who.Service != "eager_fox" || who.Name != "sleep" {
			t.Errorf("%+v in %+v", who, who.Container)
		}
	})
	t.Run("a name of its own", func(t *testing.T) {
		e := newEnricher(t, Options{ProcRoot: "/proc", StorageRoots: []string{p.root + "/graph"}})
		apply(e, told(t, shopPID))
		who := flowOf(e, shopPID, 5)
		if who.Service != "shop" || who.Container == nil || who.Container.ID != shopID || who.Container.Name != "shop-1" {
			t.Errorf("%+v in %+v", who, who.Container)
		}
	})
	t.Run("files that come late", func(t *testing.T) {
		late := t.TempDir()
		e := newEnricher(t, Options{ProcRoot: "/proc", StorageRoots: []string{late}})
		apply(e, told(t, pid))
		if who := flowOf(e, pid, 5); who.Container == nil || who.Container.Name != "" || who.Service != "sleep" {
			t.Errorf("before: %+v in %+v", who, who.Container)
		}
		if err := os.Symlink(filepath.Join(p.root, "graph", "vfs-containers"), filepath.Join(late, "vfs-containers")); err != nil {
			t.Fatal(err)
		}
		if who := flowOf(e, pid, 6); who.Container.Name != "" {
			t.Error("looked again at once")
		}
		b := &event.Batch{Flows: []event.Flow{{End: 40 * second, PID: pid}}}
		e.Apply(b)
		who := b.Flows[0].Who
		if *who.Container != want || who.Service != "eager_fox" {
			t.Errorf("after: %+v in %+v", who, who.Container)
		}
		if len(b.Processes) != 1 || b.Processes[0].Who != who || b.Processes[0].Action != event.Running {
			t.Errorf("what became known was not published: %+v", b.Processes)
		}
	})
	t.Run("a monitor that comes late, and no flow", func(t *testing.T) {
		e := newEnricher(t, Options{ProcRoot: "/proc", StorageRoots: []string{}})
		inner := told(t, pid)
		if err := haveCgroup2.Have(); err != nil {
			t.Skip(err)
		}
		if inner.CgroupID = cgroupID(t, pid); inner.CgroupID == 0 {
			t.Fatal("the container has no group")
		}
		if c := apply(e, inner)[0].Who.Container; c == nil || c.Name != "" {
			t.Errorf("before: %+v", c)
		}
		apply(e, told(t, monitor))
		got := apply(e, fork(2*second, 1<<22, 1<<22+1, 1<<60, 3))
		if len(got) != 2 || got[1].PID != pid || got[1].Action != event.Running || *got[1].Who.Container != want || got[1].Who.Service != "eager_fox" {
			t.Errorf("after: %+v", got)
		}
		if len(e.nameless) != 0 {
			t.Errorf("%d processes still wait", len(e.nameless))
		}
	})
}

// runc runs in whatever group it is told to: here one of the kubelet's.
func TestRuncInAPod(t *testing.T) {
	need(t, "runc", "busybox")
	const id, uid = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9", "0b1d2c3e-1111-4222-8333-944455556666"
	bundle := filepath.Dir(rootfs(t))
	state := t.TempDir()
	if err := os.Rename(filepath.Join(bundle, "root"), filepath.Join(bundle, "rootfs")); err != nil {
		t.Fatal(err)
	}
	runc := func(args ...string) (string, error) {
		cmd := osexec.Command("runc", append([]string{"--root", state}, args...)...)
		cmd.Dir = bundle
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := runc("spec"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	edit(t, filepath.Join(bundle, "config.json"), func(spec map[string]any) {
		process := spec["process"].(map[string]any)
		process["args"], process["terminal"] = []string{"/bin/sleep", "600"}, false
		delete(process, "rlimits")
		linux := spec["linux"].(map[string]any)
		linux["cgroupsPath"] = "/ghostlight-test-kubepods/burstable/pod" + uid + "/" + id
	})
	cmd := osexec.Command("runc", "--root", state, "run", "--detach", "--pid-file", filepath.Join(bundle, "pid"), id)
	cmd.Dir = bundle
	if err := cmd.Run(); err != nil { // its output would be kept open by the container
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := runc("delete", "--force", id); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		removeGroups(t, "ghostlight-test-kubepods")
	})
	text, err := os.ReadFile(filepath.Join(bundle, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.ParseUint(string(text), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	sleeps(t, uint32(pid))

	for name, o := range map[string]Options{"by id": {}, "by /proc": {CgroupRoots: []string{}}} {
		t.Run(name, func(t *testing.T) {
			o.ProcRoot, o.StorageRoots, o.DockerRoots = "/proc", []string{}, []string{}
			e := newEnricher(t, o)
			r := told(t, uint32(pid))
			r.CgroupID = cgroupID(t, uint32(pid))
			apply(e, r)
			who := flowOf(e, uint32(pid), 5)
			if who.Container == nil || who.Container.ID != id || who.Container.PodUID != uid || who.Container.Name != "" || who.Service != "sleep" {
				t.Errorf("%+v in %+v", who, who.Container)
			}
		})
	}
}

func edit(t *testing.T, file string, change func(map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	change(v)
	if text, err = json.Marshal(v); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// removeGroups removes the groups that runc leaves above a container's, in
// each hierarchy. rmdir takes empty ones only.
func removeGroups(t *testing.T, top string) {
	t.Helper()
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/" + top)
	for _, dir := range append(tops, "/sys/fs/cgroup/"+top) {
		for _, sub := range []string{"burstable/*", "burstable", "."} {
			groups, _ := filepath.Glob(filepath.Join(dir, sub))
			for _, g := range groups {
				_ = syscall.Rmdir(g)
			}
		}
	}
}
