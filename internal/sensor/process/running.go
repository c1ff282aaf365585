package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"unsafe"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/wire"
)

// Start tells of every process that runs, as Running records. The hooks are
// attached by now, so none is missed between the two; one that is told by both
// has the same pid, start time and exec count in both.
func (i *instance) Start(o *kernel.Object, out *event.Batch) error {
	began, first := boottime(), len(out.Processes)
	err := i.iterate(o, out)
	if err != nil {
		out.Processes = out.Processes[:first]
	}
	told := map[uint32]bool{}
	for n := range out.Processes[first:] {
		told[out.Processes[first+n].PID] = true
	}
	return errors.Join(err, i.scan("/proc", began, told, out))
}

// iterate runs the iterator. Where there is none, everything is left to scan.
func (i *instance) iterate(o *kernel.Object, out *event.Batch) error {
	w := &sequence{i: i, out: out}
	if _, err := o.IterateTo(w, "process_running"); err != nil {
		return err
	}
	if len(w.rest) > 0 {
		return fmt.Errorf("process: the iterator ended inside a record: %w", io.ErrUnexpectedEOF)
	}
	return nil
}

// sequence takes the iterator's records apart as they come. A read ends where
// the buffer does, so a record may come in two pieces.
type sequence struct {
	i    *instance
	out  *event.Batch
	rest []byte // the beginning of a record whose end has not come yet
}

// Write takes the next piece.
func (w *sequence) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	b := w.rest
	for {
		n, err := w.i.running(b, w.out)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
		b = b[n:]
	}
	w.rest = append(w.rest[:0], b...)
	return len(p), nil
}

// running adds the record at the beginning of b and returns its length, or 0
// if its end is not in b yet.
func (i *instance) running(b []byte, out *event.Batch) (int, error) {
	r, err := wire.View[processExec](b)
	if err != nil {
		return 0, nil
	}
	if r.ExeLen > maxPaths || r.CwdLen > maxPaths || r.ArgsLen != 0 {
		return 0, fmt.Errorf("process: an iterator's record says %d and %d bytes of paths and %d of arguments", r.ExeLen, r.CwdLen, r.ArgsLen)
	}
	n := int(unsafe.Sizeof(*r)) + int(r.ExeLen+r.CwdLen+7)&^7
	if len(b) < n {
		return 0, nil
	}
	p := add(out, event.Running, &wire.Header{Ktime: r.H.Ktime}, &r.Id)
	i.program(p, r, b[unsafe.Sizeof(*r):n])
	if r.Id.Flags&flagKthread != 0 {
		p.Args = []string{"[" + string(wire.Bytes(r.Comm[:])) + "]"}
		return n, nil
	}
	p.Args, p.ArgsCut, p.Complete = i.runningArgs(p, r.ArgStart)
	return n, nil
}

// The bounds of process.bpf.c: PATHS_BYTES and ARGS_LARGE.
const (
	maxPaths = 2560
	maxArgs  = 8 << 10
)

// runningArgs reads the arguments of p from /proc: an iterator may not read the
// memory of another process. It keeps them if p is what the iterator saw, by
// its start time, and has not exec'd since, by the place of its arguments.
func (i *instance) runningArgs(p *event.Process, argStart uint64) (args []string, cut, complete bool) {
	dir := "/proc/" + strconv.Itoa(int(p.PID))
	b, cut := readArgs(dir, &i.args)
	s, err := readStat(dir)
	if err != nil || s.startTicks != ticks(p.Start) {
		return nil, false, false // it is gone
	}
	if s.argStart != 0 && argStart != 0 && s.argStart != argStart {
		return nil, false, false // it is another program, whose exec is told
	}
	// The leader of the threads may have ended before them: then nobody tells.
	return splitArgs(b), cut, p.Complete && len(b) > 0
}

// readArgs returns at most maxArgs bytes of the arguments of the process whose
// /proc folder is dir, and whether there were more. They lie in buf until the
// next call.
func readArgs(dir string, buf *[maxArgs + 1]byte) (args []byte, cut bool) {
	f, err := os.Open(dir + "/cmdline")
	if err != nil {
		return nil, false
	}
	defer f.Close()
	n, _ := io.ReadFull(f, buf[:])
	return buf[:min(n, maxArgs)], n > maxArgs
}

// tick is the unit of start times in /proc: USER_HZ is 100 on amd64 and arm64.
const tick = int64(1e9 / 100)

func ticks(ns int64) uint64 { return uint64(ns / tick) }

// stat is what we need of /proc/PID/stat (proc(5)).
type stat struct {
	comm       string
	ppid       uint32
	flags      uint32
	startTicks uint64
	argStart   uint64
}

func readStat(dir string) (stat, error) {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// parseStat takes the fields after the name: the name may hold anything, so it
// ends at the last parenthesis.
func parseStat(b []byte) (stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("process: stat has no name")
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 20 {
		return stat{}, fmt.Errorf("process: stat has %d fields", len(f)+2)
	}
	number := func(field int) uint64 { // as proc(5) counts
		if field-3 >= len(f) {
			return 0
		}
		n, _ := strconv.ParseUint(string(f[field-3]), 10, 64)
		return n
	}
	return stat{
		comm: string(b[open+1 : end]), ppid: uint32(number(4)), flags: uint32(number(9)),
		startTicks: number(22), argStart: number(48),
	}, nil
}
