package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
)

// scan tells of the processes in proc, a mounted /proc, that began before the
// given time and were not told yet: all of them on a kernel that refuses the
// iterator, else those that it hides. What /proc does not know makes the
// records incomplete: the start time is rounded down to a tick, and the exec
// count and the cgroup's id are missing. Younger processes are told by the
// hooks, exactly.
func (i *instance) scan(proc string, before int64, told map[uint32]bool, out *event.Batch) error {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return fmt.Errorf("process: list processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil || told[uint32(pid)] {
			continue
		}
		if p, ok := i.scanOne(proc+"/"+e.Name(), uint32(pid)); ok && p.Start < before-tick {
			out.Processes = append(out.Processes, p)
		}
	}
	return nil
}

// scanOne reads one process, between two looks at its start time. It reports
// false for one that ended meanwhile.
func (i *instance) scanOne(dir string, pid uint32) (event.Process, bool) {
	before, err := readStat(dir)
	if err != nil {
		return event.Process{}, false
	}
	p := event.Process{
		Time: monotonic(), Action: event.Running, PID: pid, PPID: before.ppid,
		Start:      int64(before.startTicks) * tick,
		Namespaces: readNamespaces(dir),
	}
	p.Executable, _ = os.Readlink(dir + "/exe")
	p.Cwd, _ = os.Readlink(dir + "/cwd")
	args, cut := readArgs(dir, &i.args)
	p.Args, p.ArgsCut = splitArgs(args), cut
	if before.flags&kernelThread != 0 {
		p.Args, p.Cwd = []string{"[" + before.comm + "]"}, ""
	}
	if status, err := os.ReadFile(dir + "/status"); err == nil {
		parseStatus(&p, status)
	}
	after, err := readStat(dir)
	return p, err == nil && after.startTicks == before.startTicks
}

// kernelThread is the kernel's flag of its own threads.
const kernelThread = 0x00200000

// parseStatus takes the effective ids and capabilities of /proc/PID/status.
func parseStatus(p *event.Process, status []byte) {
	for line := range bytes.Lines(status) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "Uid:":
			p.UID = effective(f)
		case "Gid:":
			p.GID = effective(f)
		case "CapEff:":
			p.CapEffective, _ = strconv.ParseUint(f[1], 16, 64)
		}
	}
}

// effective is the second of the four ids in a line of status.
func effective(f []string) uint32 {
	if len(f) < 3 {
		return 0
	}
	n, _ := strconv.ParseUint(f[2], 10, 32)
	return uint32(n)
}

func readNamespaces(dir string) event.Namespaces {
	return event.Namespaces{
		Cgroup: namespace(dir, "cgroup"), IPC: namespace(dir, "ipc"), Mnt: namespace(dir, "mnt"), Net: namespace(dir, "net"),
		PID: namespace(dir, "pid"), User: namespace(dir, "user"), UTS: namespace(dir, "uts"),
	}
}

// namespace returns the inode in a link such as "net:[4026531840]".
func namespace(dir, name string) uint32 {
	link, err := os.Readlink(dir + "/ns/" + name)
	if err != nil {
		return 0
	}
	inode, _ := strings.CutPrefix(link, name+":[")
	n, _ := strconv.ParseUint(strings.TrimSuffix(inode, "]"), 10, 32)
	return uint32(n)
}

func monotonic() int64 { return clock(unix.CLOCK_MONOTONIC) }
func boottime() int64  { return clock(unix.CLOCK_BOOTTIME) }

func clock(id int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}
