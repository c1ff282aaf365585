package store

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

const childDir = "GHOSTLIGHT_STORE_TEST_DIR"

// TestCrash kills a child that appends, again and again in the same folder,
// and asks that every row it had told of more than a second before is there,
// that no row is there twice, and that none is missing between two others.
func TestCrash(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		appendForever(t, dir, Options{Now: time.Now, BlockRows: 4096, FlushRows: 8192}, false)
		return
	}
	dir := t.TempDir()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	var durable uint64
	for round := range rounds {
		told := killChild(t, "TestCrash", dir, time.Duration(1200+round*97)*time.Millisecond, time.Second)
		durable = max(durable, told)
		s := open(t, dir, Options{Now: time.Now, BlockRows: 4096, FlushRows: 8192})
		first, last, n := seqs(t, s)
		if n == 0 || last < durable || last-first+1 != n {
			t.Fatalf("round %d: rows %d..%d, %d of them; %d were told of a second before the end", round, first, last, n, durable)
		}
		r := s.Recovery()
		t.Logf("round %d: %d rows, %d told in time, recovery %+v, %d segments", round, n, durable, r, s.Status().Tables[1].Segments)
		if len(r.Broken) > 0 || len(r.Errors) > 0 {
			t.Errorf("recovery: %+v", r)
		}
		durable = last // what is there now must stay
		if round%2 == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			abandon(s)
		}
	}
}

// seqs reads the flow ids, which the child made equal to the rows' numbers.
func seqs(t *testing.T, s *Store) (first, last, n uint64) {
	t.Helper()
	snap := s.Snapshot()
	defer snap.Close()
	for _, source := range snap.Sources(event.KindFlow) {
		rows := segment.NewRows(snap.Schema(event.KindFlow), source)
		for i := range rows.Len {
			id := uint64(rows.Int(2, i))
			if want := rows.Seq + uint64(i); id != want {
				t.Fatalf("row %d has number %d", id, want)
			}
			if n == 0 {
				first = id
			}
			last = id
			n++
		}
		if rows.Err() != nil {
			t.Fatal(rows.Err())
		}
	}
	return first, last, n
}

// abandon ends a store as a crash would, within the process.
func abandon(s *Store) {
	s.closing.Do(func() { close(s.closed) })
	s.running.Wait()
	s.logs.close()
	s.lock.Close()
}

// killChild runs a child for a while and returns the number of the last row it
// told of that long before it was killed.
func killChild(t *testing.T, test, dir string, life, before time.Duration) (told uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	type line struct {
		at time.Time
		id uint64
	}
	var lines []line
	read := make(chan struct{})
	began := make(chan struct{})
	go func() { // ends when the child does
		defer close(read)
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			if id, err := strconv.ParseUint(strings.TrimPrefix(sc.Text(), "appended "), 10, 64); err == nil {
				if len(lines) == 0 {
					close(began)
				}
				lines = append(lines, line{time.Now(), id})
			}
		}
	}()
	select {
	case <-began:
	case <-time.After(30 * time.Second):
		t.Error("the child appends nothing")
	}
	time.Sleep(life)
	killed := time.Now()
	cmd.Process.Signal(syscall.SIGKILL)
	<-read
	cmd.Wait()
	for _, l := range lines {
		if killed.Sub(l.at) >= before {
			told = l.id
		}
	}
	return told
}

// appendForever is the child: it tells of each batch after it was appended, or
// of each tenth after it was also forced to disk.
func appendForever(t *testing.T, dir string, o Options, sync bool) {
	s := open(t, dir, o)
	id := s.table(event.KindFlow).view.Load().next()
	b := event.Batch{Wall: time.Now().UnixNano()}
	for end := time.Now().Add(50 * time.Second); time.Now().Before(end); {
		s.Append(someFlows(&b, int(id), 50))
		id += 50
		time.Sleep(2 * time.Millisecond)
		if sync && id%500 != 0 {
			continue
		}
		if sync {
			must(t, s.Sync())
		}
		fmt.Println("appended", id-1)
	}
}

// TestTornTail cuts a log at every byte of its last record, and at every byte
// of its first, and damages it there.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	var b event.Batch
	b.Wall = wall
	s.Append(someFlows(&b, 0, 20))
	must(t, s.Sync())
	path := logName(dir, "flows", 0)
	whole := size(t, path)
	s.Append(someFlows(&b, 20, 3))
	must(t, s.Sync())
	data, err := os.ReadFile(path)
	must(t, err)
	abandon(s)
	expected := want(23)
	for cut := int(whole); cut < len(data); cut++ {
		checkTorn(t, data[:cut], expected[:20], int64(cut)-whole)
		flipped := append([]byte(nil), data...)
		flipped[cut] ^= 0x40
		checkTorn(t, flipped, expected[:20], int64(len(data))-whole)
	}
	for cut := range 200 {
		checkTorn(t, data[:cut], nil, int64(cut))
	}
	checkTorn(t, append(data, make([]byte, 4096)...), expected, 4096) // a file system that had only made it longer
}

func checkTorn(t *testing.T, data []byte, expected []string, torn int64) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "wal"), 0o755))
	must(t, os.WriteFile(logName(dir, "flows", 0), data, 0o644))
	s := open(t, dir, Options{})
	defer abandon(s)
	same(t, lines(t, s), expected)
	if r := s.Recovery(); r.TornBytes != torn || r.Rows != uint64(len(expected)) || len(r.Broken)+len(r.Errors) > 0 {
		t.Fatalf("cut at %d: %+v, want %d torn", len(data), r, torn)
	}
	var b event.Batch
	b.Wall = wall
	n := len(expected)
	s.Append(someFlows(&b, n, 2)) // and life goes on
	must(t, s.Sync())
	same(t, lines(t, s), want(n+2))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Size()
}

// TestBetweenSegmentAndLog is a crash after the rename of a segment and before
// the removal of its log: no row may come twice.
func TestBetweenSegmentAndLog(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	var b event.Batch
	b.Wall = wall
	s.Append(someFlows(&b, 0, 100))
	must(t, s.Sync())
	data, err := os.ReadFile(logName(dir, "flows", 0))
	must(t, err)
	must(t, s.Close())
	if _, err := os.Stat(logName(dir, "flows", 0)); err == nil {
		t.Error("the log outlived its segment")
	}
	must(t, os.WriteFile(logName(dir, "flows", 0), data, 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "flows", "x.parquet.tmp"), []byte("half"), 0o644))
	s = open(t, dir, Options{})
	defer s.Close()
	same(t, lines(t, s), want(100))
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// TestBroken damages a segment: it is set aside and its rows count as lost.
func TestBroken(t *testing.T) {
	dir := t.TempDir()
	var b event.Batch
	b.Wall = wall
	for i := range 3 {
		s := open(t, dir, Options{})
		s.Append(someFlows(&b, i*100, 100))
		must(t, s.Close())
	}
	files, _ := filepath.Glob(filepath.Join(dir, "flows", "*.parquet"))
	if len(files) != 3 {
		t.Fatal(files)
	}
	data, err := os.ReadFile(files[1])
	must(t, err)
	must(t, os.WriteFile(files[1], data[:len(data)-9], 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "wal", "other-0.wal"), []byte("something else of enough bytes, which is not a log of ours at all"), 0o644))
	s := open(t, dir, Options{})
	defer s.Close()
	all := want(300)
	same(t, lines(t, s), append(all[:100:100], all[200:]...))
	r := s.Recovery()
	if len(r.Broken) != 1 || r.LostRows != 100 || r.TornFiles != 1 || s.Status().Lost != 100 {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(files[1] + ".broken"); err != nil {
		t.Error(err)
	}
	s.Append(someFlows(&b, 300, 1))
	snap := s.Snapshot()
	defer snap.Close()
	rows := segment.NewRows(snap.Schema(event.KindLost), snap.Sources(event.KindLost)[0])
	if got := string(rows.AppendJSON(nil, 0)); !strings.Contains(got, `"lost":{"stage":"store","count":100}`) {
		t.Error(got)
	}
}

// TestNewColumns reads a log and a segment of a version with other columns.
func TestNewColumns(t *testing.T) {
	old := event.Tables[1]
	old.Columns = append([]event.Column{{Name: "gone", Type: event.String, Append: func(dst []byte, _ *event.Batch, _ int) []byte { return append(dst, "x"...) }}}, old.Columns[:10]...)
	for _, clean := range []bool{true, false} {
		dir := t.TempDir()
		s, err := Open(dir, []event.Table{old}, Options{Now: func() time.Time { return time.Unix(0, wall) }})
		must(t, err)
		var b event.Batch
		b.Wall = wall
		s.Append(someFlows(&b, 0, 10))
		must(t, s.Sync())
		if clean {
			must(t, s.Close())
		} else {
			abandon(s)
		}
		s = open(t, dir, Options{})
		got := lines(t, s)
		if len(got) != 10 || !strings.Contains(got[3], `"source":{"address":"10.0.0.3","port":3}`) || strings.Contains(got[3], "gone") || strings.Contains(got[3], "verdict") {
			t.Errorf("clean %v: %v", clean, got)
		}
		must(t, s.Close())
	}
}
