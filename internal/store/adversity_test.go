package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	defer s.Close()
	if _, err := Open(dir, event.Tables, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("second open: %v", err)
	}
}

// eventually waits for something that a goroutine of the store does.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// TestNoFolder opens a store where no folder can be made, and makes it
// possible later: a file is in the way.
func TestNoFolder(t *testing.T) {
	base := t.TempDir()
	way := filepath.Join(base, "way")
	must(t, os.WriteFile(way, nil, 0o644))
	s := open(t, filepath.Join(way, "data"), Options{BlockRows: 256, MemoryBytes: 100 << 10, Sync: 100 * time.Millisecond})
	defer s.Close()
	if s.Status().Error == "" {
		t.Error("no error")
	}
	var b event.Batch
	b.Wall = wall
	for i := 0; i < 5000; i += 100 {
		s.Append(someFlows(&b, i, 100))
	}
	st := s.Status()
	t.Logf("%+v", st)
	if st.Lost == 0 || st.Rows+st.Lost < 5000 || st.MemoryBytes > 100<<10 || st.Rows < 256 {
		t.Errorf("%+v", st)
	}
	same(t, lines(t, s)[:1], want(int(st.Lost) + 1)[st.Lost:])
	must(t, os.Remove(way))
	eventually(t, "the folder is there", func() bool { return s.Status().Error == "" })
	s.Append(someFlows(&b, 5000, 1))
	must(t, s.Sync())
}

// canMount is the probe for a private mount namespace.
func canMount() bool {
	return exec.Command("unshare", "-m", "true").Run() == nil
}

const fullDir = "GHOSTLIGHT_STORE_TEST_FULL"

// TestFullDisk fills a file system of 1 MB, made in a mount namespace of its
// own, and then makes it larger.
func TestFullDisk(t *testing.T) {
	if dir := os.Getenv(fullDir); dir != "" {
		fillDisk(t, dir)
		return
	}
	if !canMount() {
		t.Skip("probe: mount namespace (needs CAP_SYS_ADMIN)")
	}
	dir := t.TempDir()
	script := fmt.Sprintf("mount -t tmpfs -o size=1m none %s && exec %s -test.run='^TestFullDisk$' -test.v", dir, os.Args[0])
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script)
	cmd.Env = append(os.Environ(), fullDir+"="+dir)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func fillDisk(t *testing.T, dir string) {
	s := open(t, filepath.Join(dir, "data"), Options{BlockRows: 1024, FlushRows: 4096, MemoryBytes: 2 << 20, Sync: 50 * time.Millisecond})
	var b event.Batch
	b.Wall = wall
	n := 0
	for ; s.Status().Error == "" || n < 60_000; n += 100 {
		s.Append(noisyFlows(&b, n, 100))
		if n%1000 == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		if n > 1_000_000 {
			t.Fatal("the disk is never full")
		}
	}
	st := s.Status()
	t.Logf("%+v", st)
	if !strings.Contains(st.Error, "no space left") || !strings.Contains(st.Error, "free space on the disk") {
		t.Errorf("error: %q", st.Error)
	}
	if st.Lost == 0 || st.Rows+st.Lost < uint64(n) {
		t.Errorf("%d appended: %+v", n, st)
	}
	if st.MemoryBytes > 2<<20 {
		t.Errorf("%d bytes in memory", st.MemoryBytes)
	}
	must(t, syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"))
	eventually(t, "there is space again", func() bool { return s.Status().Error == "" && s.Status().MemoryBytes < 1<<20 })
	s.Append(noisyFlows(&b, n, 100))
	before := s.Status().Rows
	must(t, s.Close())
	s = open(t, filepath.Join(dir, "data"), Options{})
	if st := s.Status(); st.Rows != before || s.Recovery().TornBytes != 0 || len(s.Recovery().Broken) > 0 {
		t.Errorf("%d rows after the restart, %d before: %+v", st.Rows, before, s.Recovery())
	}
	must(t, s.Close())
}

// noisyFlows are flows that cannot be packed well.
func noisyFlows(b *event.Batch, first, n int) *event.Batch {
	someFlows(b, first, n)
	for i := range b.Flows {
		b.Flows[i].Attrs = []event.Attr{{Key: "noise", Value: fmt.Sprintf("%x%x", rand.Uint64(), rand.Uint64())}}
	}
	return b
}

// TestReadOnly opens a store on a read-only file system: what is there can be
// read, and new rows are kept in memory.
func TestReadOnly(t *testing.T) {
	if dir := os.Getenv(fullDir); dir != "" {
		s := open(t, dir, Options{})
		if st := s.Status(); st.Rows != 10 || !strings.Contains(st.Error, "read-only") {
			t.Errorf("%+v", st)
		}
		var b event.Batch
		b.Wall = wall
		s.Append(someFlows(&b, 10, 10))
		same(t, lines(t, s), want(20))
		s.Close()
		return
	}
	if !canMount() {
		t.Skip("probe: mount namespace (needs CAP_SYS_ADMIN)")
	}
	dir := t.TempDir()
	s := open(t, dir, Options{})
	var b event.Batch
	b.Wall = wall
	s.Append(someFlows(&b, 0, 10))
	must(t, s.Close())
	script := fmt.Sprintf("mount --bind %s %s && mount -o remount,ro,bind %s && exec %s -test.run='^TestReadOnly$' -test.v", dir, dir, dir, os.Args[0])
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script)
	cmd.Env = append(os.Environ(), fullDir+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestClock sets the clock back and forth while rows come.
func TestClock(t *testing.T) {
	var now atomic.Int64
	now.Store(wall)
	dir := t.TempDir()
	o := Options{Retention: time.Hour, BlockRows: 256, FlushRows: 512, Now: func() time.Time { return time.Unix(0, now.Load()) }}
	s := open(t, dir, o)
	c := s.Follow(event.KindFlow, Oldest)
	var b event.Batch
	n := 0
	add := func(offset time.Duration) {
		b.Wall = wall + int64(offset)
		for range 10 {
			s.Append(someFlows(&b, n, 100))
			n += 100
		}
	}
	add(0)
	add(48 * time.Hour)    // the clock was wrong for a while
	add(-30 * time.Minute) // and was set back
	add(0)
	eventually(t, "segments", func() bool { return s.Status().Tables[1].Segments >= 6 })
	s.Retain()
	if first, last, count := seqs(t, s); first != 0 || last != uint64(n-1) || count != uint64(n) {
		t.Errorf("rows %d..%d, %d, want %d", first, last, count, n)
	}
	var got uint64
	for got < uint64(n) {
		rows, lost, err := c.Next(context.Background())
		if err != nil || lost != 0 || rows.Seq != got {
			t.Fatalf("cursor at %d: %d lost %d, %v", got, rows.Seq, lost, err)
		}
		got += uint64(rows.Len)
	}
	c.Close()
	now.Add(int64(100 * 24 * time.Hour)) // a leap forward: nothing may be deleted at once
	s.Retain()
	if _, _, count := seqs(t, s); count != uint64(n) {
		t.Errorf("%d rows after a leap of the clock, want %d", count, n)
	}
	must(t, s.Close())
	s = open(t, dir, o) // a new start believes the clock
	defer s.Close()
	s.Retain()
	if _, _, count := seqs(t, s); count != 0 {
		t.Errorf("%d rows too old are kept", count)
	}
}

// TestRetention deletes by age and by size, and lets a reader finish.
func TestRetention(t *testing.T) {
	var now atomic.Int64
	now.Store(wall)
	o := Options{Retention: time.Hour, BlockRows: 256, FlushRows: 256, Now: func() time.Time { return time.Unix(0, now.Load()) }}
	s := open(t, t.TempDir(), o)
	defer s.Close()
	var b event.Batch
	add := func(first int) {
		b.Wall = now.Load()
		for i := range 20 {
			s.Append(someFlows(&b, first+i*128, 128))
		}
	}
	add(0)
	eventually(t, "segments", func() bool { return s.Status().Tables[1].Segments >= 9 })
	snap := s.Snapshot()
	defer snap.Close()
	s.clock.start(time.Unix(0, now.Add(int64(2*time.Hour)))) // two real hours
	add(2560)
	eventually(t, "old segments go", func() bool {
		s.Retain()
		first, _, _ := seqs(t, s)
		return first >= 2304
	})
	files, _ := filepath.Glob(filepath.Join(s.dir, "flows", "*.parquet"))
	if n := s.Status().Tables[1].Segments; len(files) != n {
		t.Errorf("%d files, %d segments", len(files), n)
	}
	schema := snap.Schema(event.KindFlow)
	read := 0
	for _, source := range snap.Sources(event.KindFlow) {
		rows := segment.NewRows(schema, source)
		if _, err := rows.Column(0); err != nil {
			t.Fatalf("a reader lost its segment: %v", err)
		}
		read += rows.Len
	}
	if read < 2304 {
		t.Errorf("the reader saw %d rows", read)
	}
	// Half of one segment would be none.
	eventually(t, "new segments", func() bool { return s.Status().Tables[1].Segments >= 9 })
	limit := s.segmentBytes() / 2
	s.SetRetention(time.Hour, limit)
	eventually(t, "segments go, beyond the new limit", func() bool { return s.segmentBytes() <= limit })
	if s.Status().Tables[1].Segments == 0 {
		t.Error("all of them")
	}
}

// TestSetRetention lets the age change while the store is open, and back: what
// is young enough stays.
func TestSetRetention(t *testing.T) {
	var now atomic.Int64
	now.Store(wall)
	s := open(t, t.TempDir(), Options{BlockRows: 256, FlushRows: 256, Now: func() time.Time { return time.Unix(0, now.Load()) }})
	defer s.Close()
	segments := func() int { return s.Status().Tables[1].Segments }
	var b event.Batch
	b.Wall = wall
	for i := range 20 {
		s.Append(someFlows(&b, i*128, 128))
	}
	eventually(t, "segments", func() bool { return segments() >= 9 })
	s.clock.start(time.Unix(0, now.Add(int64(2*time.Hour))))
	s.SetRetention(3*time.Hour, 0)
	s.Retain()
	if n := segments(); n < 9 {
		t.Fatalf("%d segments are left of what is two hours old, and kept for three", n)
	}
	s.SetRetention(time.Hour, 0)
	eventually(t, "segments go without anyone asking", func() bool { return segments() == 0 })
}

// TestOvertaken lets retention overtake a reader: it is told how many rows it
// missed.
func TestOvertaken(t *testing.T) {
	s := open(t, t.TempDir(), Options{BlockRows: 256, FlushRows: 256, RetentionBytes: 1})
	defer s.Close()
	c := s.Follow(event.KindFlow, Oldest)
	defer c.Close()
	var b event.Batch
	b.Wall = wall
	s.Append(someFlows(&b, 0, 10))
	rows, lost, err := c.Next(context.Background())
	if err != nil || lost != 0 || rows.Len != 10 {
		t.Fatal(rows, lost, err)
	}
	for i := range 20 {
		s.Append(someFlows(&b, 10+i*100, 100))
	}
	eventually(t, "segments go", func() bool { s.Retain(); st := s.Status(); return st.Tables[1].Segments == 0 && st.MemoryBytes == 0 })
	rows, lost, err = c.Next(context.Background())
	if err != nil || lost == 0 || lost != rows.Seq-10 || rows.Int(2, 0) != int64(rows.Seq) {
		t.Errorf("lost %d, row %d, %v", lost, rows.Seq, err)
	}
	waits, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, _, err := c.Next(waits); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a reader at the end: %v", err)
	}
}

// TestReaders runs readers of all kinds beside the writer: each sees every row
// from the first to the last that was appended before it began, once.
func TestReaders(t *testing.T) {
	s := open(t, t.TempDir(), Options{BlockRows: 1024, FlushRows: 4096})
	var acked atomic.Int64
	var stop atomic.Bool
	var running sync.WaitGroup
	var queries atomic.Int64
	for range 3 {
		running.Go(func() {
			for !stop.Load() {
				least := uint64(acked.Load())
				first, last, n := seqs(t, s)
				if n != last-first+1 && n > 0 || n < least {
					t.Errorf("rows %d..%d, %d of them, %d appended before", first, last, n, least)
					return
				}
				queries.Add(1)
			}
		})
	}
	const total = 60_000
	running.Go(func() {
		c := s.Follow(event.KindFlow, Oldest)
		defer c.Close()
		for next := uint64(0); next < total; {
			rows, lost, err := c.Next(context.Background())
			if err != nil || lost != 0 || rows.Seq != next || rows.Int(2, rows.Len-1) != int64(rows.Next()-1) {
				t.Errorf("cursor at %d: lost %d, %v", next, lost, err)
				return
			}
			next = rows.Next()
		}
	})
	var b event.Batch
	b.Wall = wall
	for n := 0; n < total; n += 100 {
		s.Append(someFlows(&b, n, 100))
		acked.Store(int64(n + 100))
		if n%2000 == 0 {
			time.Sleep(time.Millisecond)
		}
		for s.Status().MemoryBytes > 8<<20 {
			time.Sleep(time.Millisecond)
		}
	}
	stop.Store(true)
	running.Wait()
	if st := s.Status(); st.Lost != 0 {
		t.Errorf("lost %d", st.Lost)
	}
	t.Logf("%d scans", queries.Load())
	must(t, s.Close())
}

// TestAppendAllocates asks that a row costs no allocation once the blocks are
// as large as they get.
func TestAppendAllocates(t *testing.T) {
	s := open(t, t.TempDir(), Options{BlockRows: 16384, Sync: time.Hour})
	defer s.Close()
	var b event.Batch
	b.Wall = wall
	someFlows(&b, 0, 256)
	for i := range 256 {
		b.Requests = append(b.Requests, event.Request{Time: int64(i), Family: event.Family(i%6 + 1), Protocol: "http", Operation: "GET", Text: fmt.Sprint("/", i%40), Who: &people[i%3], Status: 200})
	}
	for range 200 { // three blocks, so that what comes next goes to one used before
		s.Append(&b)
	}
	runtime.GC()
	if n := testing.AllocsPerRun(40, func() { s.Append(&b) }); n >= 1 {
		t.Errorf("%.2f allocations for 256 flows and 256 requests", n)
	}
}

// FuzzLog reads arbitrary bytes as a log, bare and framed.
func FuzzLog(f *testing.F) {
	dir := f.TempDir()
	s := open(f, dir, Options{})
	var b event.Batch
	b.Wall = wall
	s.Append(someFlows(&b, 0, 5))
	must(f, s.Sync())
	data, err := os.ReadFile(logName(dir, "flows", 0))
	must(f, err)
	abandon(s)
	payload, n := nextFrame(data)
	f.Add(data, payload)
	record, _ := nextFrame(data[n:])
	f.Add([]byte{}, record)
	schemas := s.schemas()
	f.Fuzz(func(t *testing.T, raw, payload []byte) {
		if r := readLog(raw, schemas); r.schema != nil && r.rows > 0 {
			r.pack()
		}
		r := readLog(data[:n], schemas)
		if r.record(append(make([]byte, 0, len(payload)+8), payload...)) {
			p := r.pack()
			for i := range p.columns {
				v, _ := p.Column(i, &segment.Buffer{})
				for _, c := range v.Codes {
					v.Dict.Cell(c)
				}
			}
		}
	})
}
