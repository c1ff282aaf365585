package enrich

import (
	"bytes"
	"io"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"ghostlight/internal/enrich/container"
	"ghostlight/internal/event"
)

// directory is /proc/PID. It stays with the process it was opened for: once
// that has ended, reads fail, even if the pid is used again.
type directory struct{ *os.Root }

func openProcess(proc string, pid uint32) (directory, error) {
	root, err := os.OpenRoot(filepath.Join(proc, strconv.FormatUint(uint64(pid), 10)))
	return directory{root}, err
}

// fileBytes bounds what is read of a file in /proc.
const fileBytes = 64 << 10

// read reads a file into buf and returns what fits.
func (d directory) read(name string, buf []byte) []byte {
	f, err := d.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	n, _ := io.ReadFull(f, buf) // the end of the file is no error here
	return buf[:n]
}

func (d directory) service(buf []byte) string { return declared(d.read("environ", buf)) }

func (d directory) cgroup(buf []byte) string { return container.Choose(d.read("cgroup", buf)) }

// stat is what we need of /proc/PID/stat.
type stat struct {
	name  string
	ppid  uint32
	start int64 // nanoseconds since boot, cut to a tick
}

func (d directory) stat() (stat, error) {
	var buf [1024]byte
	return parseStat(d.read("stat", buf[:]))
}

// parseStat reads "pid (name) state ppid ... start": the name may hold blanks
// and brackets, so its end is the last one.
func parseStat(b []byte) (stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return stat{}, os.ErrInvalid
	}
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 20 {
		return stat{}, os.ErrInvalid
	}
	ppid, err := strconv.ParseUint(fields[1], 10, 32)
	if err != nil {
		return stat{}, os.ErrInvalid
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil || ticks < 0 || ticks > math.MaxInt64/tick {
		return stat{}, os.ErrInvalid
	}
	return stat{name: string(b[open+1 : end]), ppid: uint32(ppid), start: ticks * tick}, nil
}

// image fills in what who runs.
func (e *Enricher) image(who *event.Who, dir directory, s stat) {
	who.Executable, _ = dir.Readlink("exe")
	who.Name = nameOf(who.Executable)
	if who.Name == "" {
		who.Name = s.name
	}
	who.Cwd, _ = dir.Readlink("cwd")
	args := dir.read("cmdline", e.file)
	who.ArgsCut = len(args) > maxArgs
	args = bytes.TrimRight(args[:min(len(args), maxArgs)], "\x00")
	e.text = e.rules.Args(e.text[:0], args, who.ArgsCut)
	who.Args = string(e.text)
}

// maxArgs bounds the arguments taken from /proc, as the process sensor does.
const maxArgs = 8 << 10

// repair learns a process from /proc that a flow names and the tree does not
// know: its records were lost.
func (e *Enricher) repair(b *event.Batch, pid uint32) *process {
	if e.isMissing(pid) || !e.spend() {
		return nil
	}
	dir, err := openProcess(e.proc, pid)
	if err != nil {
		e.missing[pid%uint32(len(e.missing))] = missing{pid, e.now + missingFor}
		return nil
	}
	defer dir.Close()
	s, err := dir.stat()
	if err != nil {
		e.missing[pid%uint32(len(e.missing))] = missing{pid, e.now + missingFor}
		return nil
	}
	// Its count of execs is not known: the id is of the pid and the start in
	// ticks, and marked by a count that no process has.
	who := &event.Who{ExecID: execID(e.boot, pid, s.start, ^uint64(0)), PID: pid, PPID: s.ppid, Start: s.start}
	e.image(who, dir, s)
	dir.identity(who, e.file)
	p := &process{who: who, rough: true}
	p.done, p.service = true, dir.service(e.file)
	e.settle(who, dir.cgroup(e.file), p.service)
	e.tree.insert(p, e.now)
	e.adopt(p)
	e.learnt = true
	e.repaired.Add(1)
	e.publish(b, p, who)
	return p
}

// missing is a pid that /proc did not know, so that it is not asked again for
// a while.
type missing struct {
	pid   uint32
	until int64
}

const missingFor = 5e9

func (e *Enricher) isMissing(pid uint32) bool {
	m := e.missing[pid%uint32(len(e.missing))]
	return m.pid == pid && e.now < m.until
}

// identity fills in the credentials and namespaces of who.
func (d directory) identity(who *event.Who, buf []byte) {
	for line := range strings.Lines(string(d.read("status", buf))) {
		name, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch {
		case name == "Uid" && len(fields) > 1:
			who.UID = number(fields[1])
		case name == "Gid" && len(fields) > 1:
			who.GID = number(fields[1])
		case name == "CapEff" && len(fields) == 1:
			who.CapEffective, _ = strconv.ParseUint(fields[0], 16, 64)
		}
	}
	ns := &who.Namespaces
	for name, to := range map[string]*uint32{
		"cgroup": &ns.Cgroup, "ipc": &ns.IPC, "mnt": &ns.Mnt, "net": &ns.Net, "pid": &ns.PID, "user": &ns.User, "uts": &ns.UTS,
	} {
		link, _ := d.Readlink("ns/" + name) // "net:[4026531840]"
		_, inode, _ := strings.Cut(strings.TrimSuffix(link, "]"), "[")
		*to = number(inode)
	}
}

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}

// variable returns the value of an environment entry; name ends with =.
func variable(environ []byte, name string) string {
	for len(environ) > 0 {
		entry := environ
		if n := bytes.IndexByte(environ, 0); n >= 0 {
			entry, environ = environ[:n], environ[n+1:]
		} else {
			environ = nil
		}
		if bytes.HasPrefix(entry, []byte(name)) {
			return string(entry[len(name):])
		}
	}
	return ""
}

// percentDecoded undoes the escapes of a resource attribute; it leaves text
// that has none or wrong ones.
func percentDecoded(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}
