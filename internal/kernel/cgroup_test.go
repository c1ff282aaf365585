package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCgroupMount(t *testing.T) {
	for _, c := range []struct{ name, mountinfo, want string }{
		{"v2", "31 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"},
		{"hybrid", "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n" +
			"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified"},
		{"only a part", "41 31 0:38 /user.slice /mnt rw - cgroup2 cgroup2 rw\n", ""},
		{"part before the whole", "41 31 0:38 /a /mnt rw - cgroup2 none rw\n42 31 0:38 / /cg rw - cgroup2 none rw\n", "/cg"},
		{"blank in the path", `41 31 0:38 / /a\040b rw - cgroup2 none rw`, "/a b"},
		{"v1 only", "40 31 0:37 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n", ""},
		{"torn", "40 31 - cgroup2 \n", ""},
	} {
		if got, err := cgroupMount(strings.NewReader(c.mountinfo)); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}

// Both ways lead to the root: cgroup.procs is there, cgroup.type is not.
func TestCgroupRoot(t *testing.T) {
	path, err := CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	isCgroupRoot(t, path)
}

// haveFsopen asks for the right to mount as much as for the call.
var haveFsopen = &Probe{Name: "fsopen", Since: "5.2", Test: func() error {
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fs)
}}

func TestMountCgroup(t *testing.T) {
	need(t, haveFsopen)
	path, err := mountCgroup()
	if err != nil {
		t.Fatal(err)
	}
	isCgroupRoot(t, path)
}

func isCgroupRoot(t *testing.T, path string) {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil || s.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Errorf("%s: type %#x, %v", path, s.Type, err)
	}
	if _, err := os.Stat(filepath.Join(path, "cgroup.procs")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(path, "cgroup.type")); err == nil {
		t.Errorf("%s is a cgroup below the root", path)
	}
}
