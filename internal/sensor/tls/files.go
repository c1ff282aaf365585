package tls

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor/tls/mapped"
	"ghostlight/internal/sensor/tls/place"
)

// files are the libraries and programs of this host that have probes:
//
//	a file is mapped -> not met before? -> where are its functions? -> probes
//
// One goroutine does all of it; others only ask.
type files struct {
	enter, leave, golang *ebpf.Program
	multi                bool
	goProcs              *ebpf.Map // process -> where its goroutines are
	most                 int
	watch                *mapped.Watch
	looked               chan struct{} // closed when everything was met once
	done                 chan struct{} // closed when the goroutine has ended

	mu       sync.Mutex
	attached map[mapped.ID]*attached
	verdicts map[mapped.ID]verdict // of files that have no probes
	lost     uint64                // mappings the kernel could not tell of
	evicted  uint64                // files that had to go for others
	goPIDs   map[uint32]mapped.ID  // Go processes that goProcs has: what they run
}

// attached is a file with its probes.
type attached struct {
	path    string
	libs    []place.Library
	links   []link.Link
	users   map[uint32]bool // some processes that map it
	used    int64           // when the last process mapped it
	follows bool            // who wakes its goroutines is noted
}

// verdict is why a file has no probes; empty if there is nothing to probe.
type verdict struct{ path, why string }

const (
	restEvery  = 20 * time.Millisecond // between two looks at what was mapped
	sweepEvery = 10 * time.Second
	mostUsers  = 64   // remembered of a file
	mostSeen   = 8192 // verdicts
)

// find begins to look for files. Listening first and looking second leaves no
// gap.
func find(o *kernel.Object, most int) (*files, error) {
	f := &files{most: most, looked: make(chan struct{}), done: make(chan struct{}), attached: map[mapped.ID]*attached{}, verdicts: map[mapped.ID]verdict{},
		goProcs: o.Maps["ghost_shared_go_procs"], goPIDs: map[uint32]mapped.ID{}}
	for multi, names := range programs {
		enter, leave, golang := o.Programs[names.enter], o.Programs[names.leave], o.Programs[names.golang]
		if enter != nil && leave != nil && golang != nil {
			f.enter, f.leave, f.golang, f.multi = enter, leave, golang, multi
		}
	}
	if f.enter == nil {
		return nil, errors.New("no kind of uprobe works")
	}
	var err error
	if f.watch, err = mapped.NewWatch(); err != nil {
		return nil, err
	}
	go f.run() // ended by close
	return f, nil
}

func (f *files) run() {
	defer close(f.done)
	f.lookAround()
	close(f.looked)
	swept := time.Now()
	for f.watch.Wait(sweepEvery) == nil {
		if f.watch.Drain(f.met) {
			f.mu.Lock()
			f.lost++
			f.mu.Unlock()
			f.lookAround()
		}
		if time.Since(swept) >= sweepEvery {
			f.sweep()
			swept = time.Now()
		}
		time.Sleep(restEvery)
	}
}

// close ends the goroutine and detaches everything.
func (f *files) close() error {
	err := f.watch.Stop()
	<-f.done
	err = errors.Join(err, f.watch.Close())
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, a := range f.attached {
		err = errors.Join(err, a.close())
		delete(f.attached, id)
	}
	return err
}

func (a *attached) close() error {
	var errs []error
	for _, l := range a.links {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// lookAround meets what is mapped now, and the host's own libraries: their
// first user may not live long enough to be met.
func (f *files) lookAround() {
	for _, pattern := range hostLibraries {
		paths, _ := filepath.Glob(pattern) // the patterns are well formed
		for _, p := range paths {
			f.meetOwn(p)
		}
	}
	_ = mapped.Running(f.met) // what cannot be read now is told when it is mapped
}

// hostLibraries are where distributions keep libraries.
var hostLibraries = []string{
	"/lib/*-linux-gnu/libssl.so.*", "/usr/lib/*-linux-gnu/libssl.so.*", "/usr/lib64/libssl.so.*", "/usr/lib/libssl.so.*",
	"/lib/*-linux-gnu/libgnutls.so.*", "/usr/lib/*-linux-gnu/libgnutls.so.*", "/usr/lib64/libgnutls.so.*", "/usr/lib/libgnutls.so.*",
}

// meetOwn meets a file of our own mount namespace by mapping it: only that tells
// the name by which processes' mappings go (an overlay's differs from stat's).
func (f *files) meetOwn(path string) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	page, err := unix.Mmap(int(file.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	if err != nil {
		return
	}
	defer unix.Munmap(page)
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return
	}
	mapped.Of(uint32(os.Getpid()), func(m mapped.File) {
		if m.Path == real {
			f.met(m)
		}
	})
}

// met is told of each file that a process maps.
func (f *files) met(m mapped.File) {
	if !mayHave(m.Path) {
		return
	}
	f.mu.Lock()
	a := f.attached[m.ID]
	_, judged := f.verdicts[m.ID]
	f.mu.Unlock()
	why := ""
	if a == nil && !judged {
		a, why = f.attach(m)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.goroutines(m, a)
	if a == nil {
		if !judged {
			f.judge(m.ID, m.Path, why)
		}
		return
	}
	a.use(m.PID)
	f.attached[m.ID] = a
	f.makeRoom()
}

// goProc is struct go_proc.
type goProc struct {
	Goid, G int16
	Asks    uint32
}

// goroutines tells the programs where a process has the ids of its goroutines,
// and takes that back if it runs something else now. What does not fit has no
// goroutine ids. The caller holds mu.
func (f *files) goroutines(m mapped.File, a *attached) {
	isProgram := !strings.Contains(m.Path, ".so")
	r := a.runtime()
	switch {
	case r != nil && r.Goid != 0:
		if f.goProcs.Put(m.PID, goProc{Goid: r.Goid, G: r.G}) == nil {
			f.goPIDs[m.PID] = m.ID
		}
	case isProgram && f.goPIDs[m.PID] != mapped.ID{}:
		f.forget(m.PID)
	}
}

// follow probes where goroutines are woken, in the programs of processes that
// were seen to be clients since the last call: the rest does not pay for it.
func (f *files) follow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for pid, id := range f.goPIDs {
		a := f.attached[id]
		if r := a.runtime(); r == nil || r.Ready == nil || a.follows {
			continue
		}
		var p goProc
		if f.goProcs.Lookup(pid, &p) != nil || p.Asks == 0 {
			continue
		}
		a.follows = true
		path, file, err := reach(mapped.File{PID: pid, ID: id, Path: a.path})
		if err != nil {
			continue // it is gone
		}
		_ = f.probe(a, path, place.Library{Name: "go", Sites: []place.Site{*a.runtime().Ready}}) // its requests stay without a cause
		file.Close()
	}
}

func (f *files) forget(pid uint32) {
	_ = f.goProcs.Delete(pid) // if it was there
	delete(f.goPIDs, pid)
}

// runtime returns Go's, nil of other files.
func (a *attached) runtime() *place.Runtime {
	if a == nil {
		return nil
	}
	for _, l := range a.libs {
		if l.Runtime != nil {
			return l.Runtime
		}
	}
	return nil
}

func (a *attached) use(pid uint32) {
	a.used = time.Now().UnixNano()
	if len(a.users) < mostUsers {
		a.users[pid] = true
	}
}

// judge remembers a file that has no probes.
func (f *files) judge(id mapped.ID, path, why string) {
	if len(f.verdicts) >= mostSeen {
		clear(f.verdicts) // they are looked at again
	}
	f.verdicts[id] = verdict{path, why}
}

// makeRoom detaches the file that was mapped least lately, if there are too
// many. The caller holds mu.
func (f *files) makeRoom() {
	if len(f.attached) <= f.most {
		return
	}
	var oldest mapped.ID
	for id, a := range f.attached {
		if o := f.attached[oldest]; o == nil || a.used < o.used {
			oldest = id
		}
	}
	a := f.attached[oldest]
	_ = a.close() // a link that does not close is closed by the end of the process
	delete(f.attached, oldest)
	f.judge(oldest, a.path, "too many files have probes: sensors.tls.files")
	f.evicted++
}

// mayHave tells by a file's name whether to look inside: libraries that carry
// TLS, and every program.
func mayHave(path string) bool {
	name := path[strings.LastIndexByte(path, '/')+1:]
	if !strings.Contains(name, ".so") {
		return true
	}
	for _, part := range carriers {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

var carriers = []string{"libssl", "_ssl", "libgnutls", "libnode", "libpython", "netty_tcnative", "conscrypt"}

// attach probes a file, or says why not; empty if it has no TLS library.
func (f *files) attach(m mapped.File) (*attached, string) {
	path, file, err := reach(m)
	if err != nil {
		return nil, err.Error()
	}
	defer file.Close()
	libs, err := place.Find(file)
	if errors.Is(err, place.ErrNone) {
		return nil, ""
	}
	if err != nil {
		return nil, err.Error()
	}
	a := &attached{path: m.Path, libs: libs, users: map[uint32]bool{}}
	for _, l := range libs {
		if err := f.probe(a, path, l); err != nil {
			return nil, errors.Join(err, a.close()).Error()
		}
	}
	return a, ""
}

// reach opens a file that a process maps, as the process sees it.
func reach(m mapped.File) (string, *os.File, error) {
	path := fmt.Sprintf("/proc/%d/root%s", m.PID, m.Path)
	file, err := openFile(path)
	if err == nil {
		return path, file, nil
	}
	var own error
	if file, own = openFile(m.Path); own != nil {
		return "", nil, fmt.Errorf("open %s: %w", m.Path, err)
	}
	var s unix.Stat_t
	if own = unix.Fstat(int(file.Fd()), &s); own != nil || s.Ino != m.ID.Inode || unix.Major(s.Dev) != m.ID.Major || unix.Minor(s.Dev) != m.ID.Minor {
		return "", nil, errors.Join(fmt.Errorf("open %s: %w", m.Path, err), file.Close())
	}
	return m.Path, file, nil
}

// openFile opens what should be a file, whatever stands there by now.
func openFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if s, err := file.Stat(); err != nil || !s.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no file", path), err, file.Close())
	}
	return file, nil
}

// probe attaches the programs at a library's sites.
func (f *files) probe(a *attached, path string, l place.Library) error {
	exe, err := link.OpenExecutable(path)
	if err != nil {
		return fmt.Errorf("probe %s: %w", a.path, err)
	}
	var enter, leave link.UprobeMultiOptions
	for _, s := range l.Sites {
		enter.Addresses, enter.Cookies = append(enter.Addresses, s.Offset), append(enter.Cookies, s.Cookie())
		if s.Return {
			leave.Addresses, leave.Cookies = append(leave.Addresses, s.Offset), append(leave.Cookies, s.Cookie())
		}
	}
	program := f.enter
	if l.Name == "go" {
		program = f.golang
	}
	// What a call moved is told where it returns: that probe goes first, and
	// finds nothing to do until the other is there.
	if f.multi && len(leave.Addresses) > 0 {
		err = a.keep(exe.UretprobeMulti(nil, f.leave, &leave))
	}
	if f.multi && err == nil && len(enter.Addresses) > 0 {
		err = a.keep(exe.UprobeMulti(nil, program, &enter))
	}
	for i := 0; !f.multi && err == nil && i < len(leave.Addresses); i++ {
		err = a.keep(exe.Uretprobe("", f.leave, &link.UprobeOptions{Address: leave.Addresses[i], Cookie: leave.Cookies[i]}))
	}
	for i := 0; !f.multi && err == nil && i < len(enter.Addresses); i++ {
		err = a.keep(exe.Uprobe("", program, &link.UprobeOptions{Address: enter.Addresses[i], Cookie: enter.Cookies[i]}))
	}
	if err != nil {
		return fmt.Errorf("probe %s: %w", a.path, err)
	}
	return nil
}

func (a *attached) keep(l link.Link, err error) error {
	if err == nil {
		a.links = append(a.links, l)
	}
	return err
}

// sweep detaches files that nobody maps any more: a probe keeps the file, and a
// container's file keeps the container's mounts.
func (f *files) sweep() {
	var idle map[mapped.ID]*attached
	f.mu.Lock()
	for pid := range f.goPIDs {
		if unix.Kill(int(pid), 0) == unix.ESRCH {
			f.forget(pid)
		}
	}
	for id, a := range f.attached {
		for pid := range a.users {
			if unix.Kill(int(pid), 0) == unix.ESRCH {
				delete(a.users, pid)
			}
		}
		if len(a.users) == 0 && !isOwn(a.path, id) {
			if idle == nil {
				idle = map[mapped.ID]*attached{}
			}
			idle[id] = a
		}
	}
	f.mu.Unlock()
	if idle == nil {
		return
	}
	_ = mapped.Running(func(m mapped.File) { // children of those that were seen
		if a := idle[m.ID]; a != nil {
			f.mu.Lock()
			a.use(m.PID)
			f.mu.Unlock()
		}
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, a := range idle {
		if len(a.users) == 0 {
			_ = a.close() // as in makeRoom
			delete(f.attached, id)
		}
	}
}

// isOwn tells whether a file is one of the host's libraries: they wait for their
// next user.
func isOwn(path string, id mapped.ID) bool {
	for _, pattern := range hostLibraries {
		if ok, _ := filepath.Match(pattern, path); ok {
			var s unix.Stat_t
			return unix.Stat(path, &s) == nil && s.Ino == id.Inode
		}
	}
	return false
}
