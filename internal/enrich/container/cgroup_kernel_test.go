package container

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// The kernel finds a group by its id, by a handle and by a walk, also one that
// was made after the first look.
func TestCgroupsOfTheKernel(t *testing.T) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	roots := Mounts(mountinfo)
	if os.Getuid() != 0 || len(roots) == 0 {
		t.Skip("needs root and a cgroup2 mount")
	}
	group, err := os.MkdirTemp(roots[0], "ghostlight-test-")
	if err != nil {
		t.Skipf("needs a cgroup2 tree that can be written to: %v", err)
	}
	defer syscall.Rmdir(group)
	id, want := inode(t, group), strings.TrimPrefix(group, filepath.Clean(roots[0]))

	c := NewCgroups(roots)
	defer c.Close()
	if got := c.Path(id); got != want || c.walk {
		t.Errorf("by handle: %q, want %q; walk %v", got, want, c.walk)
	}
	if got := c.Path(inode(t, roots[0])); got != "/" {
		t.Errorf("root: %q", got)
	}
	if got := c.Path(1 << 60); got != "" || c.walk {
		t.Errorf("an id that nobody has: %q", got)
	}
	if n := testing.AllocsPerRun(100, func() { c.Path(id) }); n != 0 {
		t.Errorf("%v allocations for a known id", n)
	}
	walker := NewCgroups(roots)
	defer walker.Close()
	walker.walk = true
	if got := walker.Path(id); got != want {
		t.Errorf("by walk: %q, want %q", got, want)
	}
}
