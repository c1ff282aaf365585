package container

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ghostlight/internal/kernel"
)

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// haveGroups asks for a cgroup2 tree in which we may make groups.
var haveGroups = &kernel.Probe{Name: "cgroup2 groups", Since: "4.5", Test: func() error {
	_, group, err := newGroup()
	if err != nil {
		return err
	}
	return syscall.Rmdir(group)
}}

// newGroup makes a group in the first of the trees.
func newGroup() (roots []string, group string, err error) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, "", err
	}
	if roots = Mounts(mountinfo); len(roots) == 0 {
		return nil, "", errors.New("no cgroup2 is mounted")
	}
	group, err = os.MkdirTemp(roots[0], "ghostlight-test-")
	return roots, group, err
}

// The kernel finds a group by its id, by a handle and by a walk, also one that
// was made after the first look.
func TestCgroupsOfTheKernel(t *testing.T) {
	if err := haveGroups.Have(); err != nil {
		t.Skip(err)
	}
	roots, group, err := newGroup()
	if err != nil {
		t.Fatal(err)
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
