package enrich

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"ghostlight/internal/event"
)

// grace is how long an exited process is kept, so that flows that are reported
// late still find it.
const grace int64 = 30e9 // nanoseconds

// tick is the unit of the start time in /proc/PID/stat: USER_HZ is 100 on all
// architectures we run on.
const tick int64 = 10e6 // nanoseconds

// process is one holder of a pid. who is its newest execution.
type process struct {
	who      *event.Who
	count    uint64 // of execs, of who
	exited   int64  // monotonic, 0 while it lives
	complete bool
	rough    bool // learnt from /proc: start is cut to a tick, count unknown
	partial  bool // its executable is not known yet
	lookup

	older      *process // previous holder of the pid, within its grace
	prev, next *process // in tree.live, oldest use first, or in tree.exited
	batch      uint64   // number of the batch that tells of it last,
	row        int      // and where
}

func (p *process) is(start int64) bool {
	if p.rough {
		return p.who.Start <= start && start < p.who.Start+tick
	}
	return p.who.Start == start
}

// tree holds the processes by pid. Its size is bounded: first exited, then
// long unused processes go, and each is counted.
type tree struct {
	byPID        map[uint32]*process
	live, exited list
	limit        int
	evicted      uint64
}

func (t *tree) size() int { return t.live.n + t.exited.n }

// find returns the holder of pid that was created at start.
func (t *tree) find(pid uint32, start int64) *process {
	for p := t.byPID[pid]; p != nil; p = p.older {
		if p.is(start) {
			return p
		}
	}
	return nil
}

// at returns the holder of pid at a time given by CLOCK_BOOTTIME.
func (t *tree) at(pid uint32, time int64) *process {
	p := t.byPID[pid]
	for p != nil && p.older != nil && p.who.Start > time {
		p = p.older
	}
	return p
}

// insert adds p. A holder of the same pid that was there before has ended,
// even if nobody told us.
func (t *tree) insert(p *process, now int64) {
	for t.size() >= t.limit {
		t.evict()
	}
	newest := t.byPID[p.who.PID]
	if newest == nil || newest.who.Start <= p.who.Start {
		t.exit(newest, now)
		p.older = newest
		t.byPID[p.who.PID] = p
		t.live.push(p)
		return
	}
	p.older, newest.older = newest.older, p // news of a process long gone
	p.exited = now
	t.exited.push(p)
}

// exit notes that p ended.
func (t *tree) exit(p *process, now int64) {
	if p == nil || p.exited != 0 {
		return
	}
	t.live.remove(p)
	p.exited = now
	t.exited.push(p)
}

// touch notes that p was used.
func (t *tree) touch(p *process) {
	if p.exited == 0 && t.live.last != p {
		t.live.remove(p)
		t.live.push(p)
	}
}

func (t *tree) evict() {
	p := t.exited.first
	if p == nil {
		p = t.live.first
	}
	t.drop(p)
	t.evicted++
}

// expire drops processes whose grace is over.
func (t *tree) expire(now int64) {
	for p := t.exited.first; p != nil && now-p.exited > grace; p = t.exited.first {
		t.drop(p)
	}
}

func (t *tree) drop(p *process) {
	if p.exited != 0 {
		t.exited.remove(p)
	} else {
		t.live.remove(p)
		p.exited = 1 // for whoever still holds it
	}
	pid := p.who.PID
	if t.byPID[pid] == p {
		if p.older == nil {
			delete(t.byPID, pid)
		} else {
			t.byPID[pid] = p.older
		}
		return
	}
	for q := t.byPID[pid]; q != nil; q = q.older {
		if q.older == p {
			q.older = p.older
			return
		}
	}
}

// list links processes in order.
type list struct {
	first, last *process
	n           int
}

func (l *list) push(p *process) {
	p.prev, p.next = l.last, nil
	if l.last == nil {
		l.first = p
	} else {
		l.last.next = p
	}
	l.last = p
	l.n++
}

func (l *list) remove(p *process) {
	if p.prev == nil {
		l.first = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.last = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
	l.n--
}

// execID names an execution: 16 hex digits of a hash over boot, pid, start and
// count of execs, so it is the same from whatever source and agent it is told.
func execID(boot uint64, pid uint32, start int64, count uint64) string {
	h := boot
	for _, v := range [...]uint64{uint64(pid), uint64(start), count} {
		h = mix(h ^ mix(v+0x9e3779b97f4a7c15))
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], h)
	var text [16]byte
	hex.Encode(text[:], b[:])
	return string(text[:])
}

// mix is the finaliser of MurmurHash3: each bit of v changes half of the result.
func mix(v uint64) uint64 {
	v ^= v >> 33
	v *= 0xff51afd7ed558ccd
	v ^= v >> 33
	v *= 0xc4ceb9fe1a85ec53
	v ^= v >> 33
	return v
}

// bootSeed spreads the boot id over the 64 bits that execID begins with.
func bootSeed(bootID string) uint64 {
	sum := sha256.Sum256([]byte(bootID))
	return binary.BigEndian.Uint64(sum[:8])
}

// nameOf is the last element of an executable's path.
func nameOf(path string) string {
	path = strings.TrimSuffix(path, " (deleted)")
	return path[strings.LastIndexByte(path, '/')+1:]
}
