package tls

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor/tls/mapped"
)

var haveMountNamespaces = &kernel.Probe{Name: "mount namespaces", Since: "2.4", Test: func() error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd.Run()
}}

// A program whose library is only in its own mount namespace.
func TestContainer(t *testing.T) {
	need(t, "curl")
	lib := private(t, "/usr/lib/x86_64-linux-gnu/libssl.so.3")
	cert, key := certificate(t)
	port := freePort(t)
	inside := filepath.Join(t.TempDir(), "inside")
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	// The library is copied onto a file system that only this program has.
	run := fmt.Sprintf("mount -t tmpfs none %[1]s && cp %[2]s/libssl.so.3 %[1]s/ && LD_LIBRARY_PATH=%[1]s exec /usr/bin/python3 %[3]s %[4]d %[5]s %[6]s",
		inside, lib, script(t, "server.py", pythonServer), port, cert, key)
	cmd := exec.Command(need(t, "/bin/sh"), "-c", run)
	var out lines
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := haveMountNamespaces.Have(); err != nil {
		t.Skip(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	listening(t, port)
	if _, err := os.Stat(inside + "/libssl.so.3"); err == nil {
		t.Fatal("the library is not private")
	}
	w := begin(t)
	w.probed(inside + "/libssl.so.3")
	w.both(port, curl(t, port, 3, 8))

	// Its file system goes with it.
	cmd.Process.Kill()
	cmd.Wait()
	w.files.sweep()
	w.files.mu.Lock()
	defer w.files.mu.Unlock()
	for id, a := range w.files.attached {
		if a.path == inside+"/libssl.so.3" {
			t.Errorf("%+v still has its probes", id)
		}
	}
}

// The file that was mapped least lately goes when there are too many.
func TestTooManyFiles(t *testing.T) {
	f := &files{most: 2, attached: map[mapped.ID]*attached{}, verdicts: map[mapped.ID]verdict{}}
	for n := range uint64(3) {
		a := &attached{path: fmt.Sprint(n), users: map[uint32]bool{}}
		a.use(1)
		f.attached[mapped.ID{Inode: n}] = a
		f.makeRoom()
	}
	if len(f.attached) != 2 || f.attached[mapped.ID{Inode: 0}] != nil || f.evicted != 1 {
		t.Errorf("%v, %d went", f.attached, f.evicted)
	}
	if s := f.sights(); len(s) != 1 || s[0].OK || s[0].File != "0" || s[0].Note == "" {
		t.Errorf("%+v", s)
	}
}
