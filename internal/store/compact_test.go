package store

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

// restarts fills a folder with one segment of flows for each count, and
// returns the files. back sets the clock back by that for each.
func restarts(t *testing.T, dir string, back time.Duration, counts ...int) []string {
	t.Helper()
	n := 0
	for i, count := range counts {
		s := open(t, dir, Options{})
		var b event.Batch
		someFlows(&b, n, count)
		b.Wall = wall - int64(back)*int64(i)
		s.Append(&b)
		must(t, s.Close())
		n += count
	}
	return segments(t, dir)
}

// segments returns the segments of flows by the number of their first row.
func segments(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "flows", "*.parquet"))
	must(t, err)
	slices.SortFunc(files, func(a, b string) int { return slices.Compare([]byte(a[len(a)-28:]), []byte(b[len(b)-28:])) })
	return files
}

// TestCompact merges what restarts left, while a reader looks at it.
func TestCompact(t *testing.T) {
	dir := t.TempDir()
	counts := make([]int, 40)
	rows := 0
	for i := range counts {
		counts[i] = 1 + i*7%30
		rows += counts[i]
	}
	restarts(t, dir, 0, counts...)
	s := open(t, dir, Options{})
	snap := s.Snapshot()
	for s.Compact() > 0 {
		same(t, lines(t, s), want(rows))
	}
	if n := s.Status().Tables[1].Segments; n > 9 || n != len(segments(t, dir)) {
		t.Errorf("%d segments, %d files", n, len(segments(t, dir)))
	}
	n := 0
	for _, source := range snap.Sources(event.KindFlow) {
		n += source.Extent().Len
		if _, err := source.Column(0, new(segment.Buffer)); err != nil {
			t.Error(err)
		}
	}
	snap.Close()
	if n != rows {
		t.Errorf("the reader saw %d rows, want %d", n, rows)
	}
	var b event.Batch
	b.Wall = wall
	s.Append(someFlows(&b, rows, 10))
	must(t, s.Close())
	s = open(t, dir, Options{})
	defer s.Close()
	same(t, lines(t, s), want(rows+10))
	if r := s.Recovery(); r.Merged != 0 || len(r.Broken) > 0 || r.LostRows > 0 {
		t.Errorf("%+v", r)
	}
}

// TestCompactBounds leaves alone what is large, far apart, or has columns of
// another version.
func TestCompactBounds(t *testing.T) {
	for _, c := range []struct {
		name   string
		counts []int
		back   time.Duration
		o      Options
		left   int
	}{
		{"four small ones", []int{10, 10, 10, 10}, 0, Options{}, 1},
		{"one larger than the others together", []int{31, 10, 10, 10}, 0, Options{}, 4},
		{"as many as a segment has", []int{10, 10, 10, 10}, 0, Options{FlushRows: 40}, 1},
		{"more than a segment has", []int{10, 10, 10, 10}, 0, Options{FlushRows: 39}, 4},
		{"an eighth of the retention", []int{10, 10, 10, 10}, time.Hour, Options{Retention: 25 * time.Hour}, 1},
		{"more than that", []int{10, 10, 10, 10}, time.Hour, Options{Retention: 23 * time.Hour}, 4},
	} {
		dir := t.TempDir()
		restarts(t, dir, c.back, c.counts...)
		s := open(t, dir, c.o)
		s.Compact()
		if n := len(segments(t, dir)); n != c.left {
			t.Errorf("%s: %d files, want %d", c.name, n, c.left)
		}
		must(t, s.Close())
	}
}

// TestCompactForeign keeps files whose columns this version does not know.
func TestCompactForeign(t *testing.T) {
	old := event.Tables[1]
	old.Columns = append([]event.Column{{Name: "gone", Type: event.String, Append: func(dst []byte, _ *event.Batch, _ int) []byte { return append(dst, "x"...) }}}, old.Columns...)
	dir := t.TempDir()
	var b event.Batch
	b.Wall = wall
	for i := range 4 {
		s, err := Open(dir, []event.Table{old}, Options{Now: func() time.Time { return time.Unix(0, wall) }})
		must(t, err)
		s.Append(someFlows(&b, 10*i, 10))
		must(t, s.Close())
	}
	s := open(t, dir, Options{})
	defer s.Close()
	if s.Compact() != 0 {
		t.Error("a column is gone")
	}
	same(t, lines(t, s), want(40))
}

// TestCompactBroken has pages that cannot be read: the files stay, and the
// store is well.
func TestCompactBroken(t *testing.T) {
	dir := t.TempDir()
	files := restarts(t, dir, 0, 500, 500, 500, 500)
	data, err := os.ReadFile(files[2])
	must(t, err)
	for i := 4; i < len(data)/2; i++ {
		data[i] ^= 0x55
	}
	must(t, os.WriteFile(files[2], data, 0o644))
	s := open(t, dir, Options{})
	defer s.Close()
	if s.Compact() != 0 || s.Compact() != 0 || s.Status().Error != "" {
		t.Errorf("%+v", s.Status())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "flows", "*")); len(left) != 4 {
		t.Errorf("left: %v", left)
	}
}

// TestCompactSteps is a crash after each step of a merge, once where the merged
// file has the name of the first, and once where it has another.
func TestCompactSteps(t *testing.T) {
	for _, back := range []time.Duration{0, 5 * time.Minute} {
		dir := t.TempDir()
		old := restarts(t, dir, back, 10, 20, 20, 10)
		bytes := map[string][]byte{}
		for _, path := range old {
			data, err := os.ReadFile(path)
			must(t, err)
			bytes[path] = data
		}
		s := open(t, dir, Options{})
		expected := lines(t, s)
		s.Compact() // or the store itself has
		must(t, s.Close())
		if n := len(segments(t, dir)); n != 1 {
			t.Fatalf("%d files", n)
		}
		merged := segments(t, dir)[0]
		if (merged == old[0]) != (back == 0) {
			t.Fatalf("merged %s of %s", merged, old[0])
		}
		for removed := range len(old) + 1 { // removed of the old ones were
			left := 0
			for _, path := range old[removed:] {
				if path != merged {
					must(t, os.WriteFile(path, bytes[path], 0o644))
					left++
				}
			}
			must(t, os.WriteFile(merged+".tmp", []byte("half"), 0o644))
			s := open(t, dir, Options{})
			same(t, lines(t, s), expected)
			if r := s.Recovery(); r.Merged != left || len(r.Broken) > 0 || r.LostRows > 0 || len(r.Errors) > 0 {
				t.Errorf("%d removed: %+v", removed, r)
			}
			must(t, s.Close())
			if all, _ := filepath.Glob(filepath.Join(dir, "flows", "*")); len(all) != 1 {
				t.Errorf("left: %v", all)
			}
		}
	}
}

// TestCompactCrash kills a child that merges all the time, again and again in
// the same folder: nothing that was forced to disk is lost, however long that
// took beside the merges, and nothing is there twice.
func TestCompactCrash(t *testing.T) {
	o := Options{Now: time.Now, FlushAge: 10 * time.Millisecond, Sync: 100 * time.Millisecond}
	if dir := os.Getenv(childDir); dir != "" {
		appendForever(t, dir, o, true)
		return
	}
	dir := t.TempDir()
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	var durable uint64
	merged := 0
	for round := range rounds {
		durable = max(durable, killChild(t, "TestCompactCrash", dir, time.Duration(1300+round*37)*time.Millisecond, 0))
		s := open(t, dir, Options{Now: time.Now})
		first, last, n := seqs(t, s)
		if n == 0 || first != 0 || last < durable || last+1 != n {
			t.Fatalf("round %d: rows %d..%d, %d of them; %d were forced to disk; recovery %+v", round, first, last, n, durable, s.Recovery())
		}
		r := s.Recovery()
		if len(r.Broken) > 0 || len(r.Errors) > 0 || r.LostRows > 0 {
			t.Errorf("recovery: %+v", r)
		}
		merged += r.Merged
		t.Logf("round %d: %d rows in %d segments, recovery %+v", round, n, s.Status().Tables[1].Segments, r)
		durable = last
		abandon(s)
	}
	t.Logf("%d files were left of merges", merged)
}
