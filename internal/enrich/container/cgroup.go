package container

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroups finds the paths of cgroups by their id, the inode number in the
// cgroup2 tree. It is used by one goroutine.
type Cgroups struct {
	roots []string // mount points of cgroup2
	fds   []int    // of the roots
	paths map[uint64]string
	walk  bool // open_by_handle_at is not allowed: look through the tree
	next  time.Time
}

const (
	maxCgroups = 4096 // paths kept, and directories looked at in one walk
	walkPause  = 10 * time.Second
	kernfsID   = 0xfe // FILEID_KERNFS: the handle is the id
)

// NewCgroups opens the cgroup2 trees at roots. One that cannot be opened is
// left out: then nothing is found in it.
func NewCgroups(roots []string) *Cgroups {
	c := &Cgroups{paths: map[uint64]string{}}
	for _, root := range roots {
		fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		c.roots, c.fds = append(c.roots, filepath.Clean(root)), append(c.fds, fd)
	}
	return c
}

// Path returns the path of a cgroup from the root of its tree, or nothing. It
// asks the kernel once for each id.
func (c *Cgroups) Path(id uint64) string {
	path, ok := c.paths[id]
	if ok || id == 0 {
		return path
	}
	if len(c.paths) >= maxCgroups {
		clear(c.paths)
	}
	if !c.walk {
		path, c.walk = c.open(id)
	}
	if c.walk {
		c.look(id)
		return c.paths[id]
	}
	c.paths[id] = path
	return path
}

// open finds the path by a file handle. refused says that we may not.
func (c *Cgroups) open(id uint64) (path string, refused bool) {
	var handle [8]byte
	binary.NativeEndian.PutUint64(handle[:], id)
	for i, fd := range c.fds {
		f, err := unix.OpenByHandleAt(fd, unix.NewFileHandle(kernfsID, handle[:]), unix.O_PATH|unix.O_CLOEXEC)
		if err == unix.EPERM || err == unix.ENOSYS || err == unix.EOPNOTSUPP || err == unix.EINVAL {
			return "", true
		}
		if err != nil {
			continue
		}
		path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(f))
		unix.Close(f)
		if err == nil {
			return within(c.roots[i], path), false
		}
	}
	return "", false
}

// look goes through the trees for an id that is not known yet; not too often,
// because it is slow.
func (c *Cgroups) look(id uint64) {
	now := time.Now()
	if now.Before(c.next) {
		return
	}
	c.next = now.Add(walkPause)
	left := maxCgroups - len(c.paths)
	for _, root := range c.roots {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil // it may be gone by now
			}
			if left--; left < 0 {
				return fs.SkipAll
			}
			info, err := d.Info()
			if err != nil {
				return nil
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				c.paths[st.Ino] = within(root, path)
			}
			return nil
		})
	}
	if _, ok := c.paths[id]; !ok {
		c.paths[id] = ""
	}
}

// within returns path as seen from root.
func within(root, path string) string {
	path = strings.TrimSuffix(strings.TrimPrefix(path, root), " (deleted)")
	if path == "" {
		return "/"
	}
	return path
}

// Close closes the trees.
func (c *Cgroups) Close() error {
	for _, fd := range c.fds {
		unix.Close(fd)
	}
	c.fds, c.roots = nil, nil
	return nil
}

// Mounts returns where cgroup2 is mounted, by /proc/PID/mountinfo.
func Mounts(mountinfo []byte) []string {
	var roots []string
	for line := range bytes.Lines(mountinfo) {
		before, after, ok := strings.Cut(string(line), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") || fields[3] != "/" {
			continue
		}
		roots = append(roots, unescape(fields[4]))
	}
	return roots
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	for _, e := range []struct{ from, to string }{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, e.from, e.to)
	}
	return s
}

// Hybrid reports whether the text of a /proc/PID/cgroup tells of v1
// hierarchies, so that the unified one may not know all containers.
func Hybrid(text []byte) bool {
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte("0::")) && bytes.Count(line, []byte(":")) >= 2 {
			return true
		}
	}
	return false
}
