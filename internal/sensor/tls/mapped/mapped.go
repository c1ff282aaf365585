// Package mapped tells which files processes map to execute: those mapped
// already, from /proc, and those mapped from now on, as the kernel tells perf.
package mapped

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ID names a file on this host, in whatever mount namespace it is seen.
type ID struct {
	Major, Minor uint32
	Inode        uint64
}

// File is a file that a process maps.
type File struct {
	PID  uint32
	ID   ID
	Path string // as the process sees it
}

// Bounds of what is read of a process.
const maxLines = 20000

// Running calls fn for every file that a process maps to execute, once each.
func Running(fn func(File)) error {
	dir, err := os.Open("/proc")
	if err != nil {
		return fmt.Errorf("look at processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("look at processes: %w", err)
	}
	for _, name := range names {
		if pid, err := strconv.ParseUint(name, 10, 32); err == nil {
			Of(uint32(pid), fn)
		}
	}
	return nil
}

// Of does the same for one process. One that is gone has no files.
func Of(pid uint32, fn func(File)) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return
	}
	defer f.Close()
	seen := map[ID]bool{}
	lines := bufio.NewScanner(f)
	for n := 0; n < maxLines && lines.Scan(); n++ {
		if file, ok := line(lines.Bytes()); ok && !seen[file.ID] {
			seen[file.ID] = true
			file.PID = pid
			fn(file)
		}
	}
}

// line reads a line of a maps file (proc_pid_maps(5)):
//
//	7f57-7f58 r-xp 0001f000 fe:00 1311 /usr/lib/libssl.so.3
func line(b []byte) (File, bool) {
	_, b, _ = bytes.Cut(b, []byte(" "))
	if len(b) < 5 || b[2] != 'x' {
		return File{}, false
	}
	fields := strings.Fields(string(b))
	if len(fields) < 5 || !strings.HasPrefix(fields[4], "/") {
		return File{}, false
	}
	major, minor, ok := strings.Cut(fields[2], ":")
	x, err1 := strconv.ParseUint(major, 16, 32)
	y, err2 := strconv.ParseUint(minor, 16, 32)
	inode, err3 := strconv.ParseUint(fields[3], 10, 64)
	if !ok || err1 != nil || err2 != nil || err3 != nil {
		return File{}, false
	}
	path := string(b[bytes.IndexByte(b, '/'):])
	return File{ID: ID{uint32(x), uint32(y), inode}, Path: path}, true
}

// recordMmap2 and recordLost are types of perf's records (perf_event_open(2)).
const (
	recordLost  = 2
	recordMmap2 = 10
	// of a mapping's record: the header, then pid, tid, addr, len, pgoff, maj,
	// min, ino, ino_generation, prot, flags, and the name
	mmap2Name = 8 + 4 + 4 + 3*8 + 4 + 4 + 8 + 8 + 4 + 4
	protExec  = 4
)

// mmap2 reads a record of a mapping, with its header.
func mmap2(b []byte) (File, bool) {
	if len(b) <= mmap2Name {
		return File{}, false
	}
	le := binary.LittleEndian
	f := File{
		PID: le.Uint32(b[8:]),
		ID:  ID{Major: le.Uint32(b[40:]), Minor: le.Uint32(b[44:]), Inode: le.Uint64(b[48:])},
	}
	if le.Uint32(b[64:])&protExec == 0 {
		return File{}, false
	}
	name, _, _ := bytes.Cut(b[mmap2Name:], []byte{0})
	if len(name) == 0 || name[0] != '/' || bytes.HasPrefix(name, []byte("//")) { // //anon
		return File{}, false
	}
	f.Path = string(name)
	return f, true
}
