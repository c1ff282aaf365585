package agent

import (
	"bufio"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// boundMemory trades a little time of the collector, whose heap is a few
// megabytes, for memory: it runs at one and a half times of what lives, and
// harder when the budget comes near.
func boundMemory(budget int64) {
	debug.SetGCPercent(50)
	limit := int64(math.MaxInt64)
	if budget > 0 {
		limit = budget / 4 * 3
	}
	debug.SetMemoryLimit(limit)
}

// forgetStartup gives back the pages of our own file that the start touched
// and the rest of the run does not: the loader, the verifier's logs, the
// parsers of type information. They are clean pages of the binary, two thirds
// of what an idle agent has resident; the kernel reads again those that are
// needed after all. Writable mappings are left alone.
func forgetStartup() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		from, size, ok := cleanMapping(lines.Text(), exe)
		if !ok {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, size, unix.MADV_DONTNEED); errno != 0 {
			return errno
		}
	}
	return lines.Err()
}

// cleanMapping takes a line of /proc/PID/maps (proc(5)) and returns the range,
// if it maps exe and cannot be written.
func cleanMapping(line, exe string) (from, size uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || f[5] != exe || f[1][1] == 'w' {
		return 0, 0, false
	}
	low, high, found := strings.Cut(f[0], "-")
	a, err := strconv.ParseUint(low, 16, 64)
	b, err2 := strconv.ParseUint(high, 16, 64)
	if !found || err != nil || err2 != nil || b <= a {
		return 0, 0, false
	}
	return uintptr(a), uintptr(b - a), true
}
