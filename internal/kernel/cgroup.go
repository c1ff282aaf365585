package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// CgroupRoot returns the path of the root of the cgroup v2 tree: programs
// attached there see every process. Hybrid hosts have it beside the v1 trees.
// Where no cgroup2 is mounted it is mounted for this process alone, without a
// place in any mount namespace; that needs CAP_SYS_ADMIN. The host is asked
// once.
func CgroupRoot() (string, error) { return cgroupRoot() }

var cgroupRoot = sync.OnceValues(func() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("look for cgroup2: %w", err)
	}
	defer f.Close()
	path, err := cgroupMount(f)
	if err != nil || path != "" {
		return path, err
	}
	return mountCgroup()
})

// cgroupMount finds cgroup2 in a mountinfo file (proc_pid_mountinfo(5)):
//
//	41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
//
// A mount whose root is not "/" shows a part of the tree only.
func cgroupMount(mountinfo io.Reader) (string, error) {
	s := bufio.NewScanner(mountinfo)
	for s.Scan() {
		before, after, _ := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 && fields[3] == "/" {
			return unescape.Replace(fields[4]), nil
		}
	}
	if err := s.Err(); err != nil {
		return "", fmt.Errorf("look for cgroup2: %w", err)
	}
	return "", nil
}

// unescape undoes what mountinfo does to a path.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// mountCgroup makes a mount that only this process has, as an open file.
func mountCgroup() (string, error) {
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", noCgroup(err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return "", noCgroup(err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return "", noCgroup(err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", root), nil
}

func noCgroup(err error) error {
	return fmt.Errorf("no cgroup2 is mounted, and mounting it privately failed: %w", err)
}

// AttachCgroupRoot returns a Tier.Attach for a program that runs for every
// cgroup of the host.
func AttachCgroupRoot(at ebpf.AttachType) func(*Object, *ebpf.Program) (link.Link, error) {
	return func(_ *Object, p *ebpf.Program) (link.Link, error) {
		root, err := CgroupRoot()
		if err != nil {
			return nil, err
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: root, Attach: at, Program: p})
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("%w (needs CAP_NET_ADMIN)", err)
		}
		return l, err
	}
}
