package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/query/sql"
	"ghostlight/internal/store"
)

var (
	rowsFlag  = flag.Int("store.rows", 200_000, "rows to store; docs/bench.md has 10 million")
	limitFlag = flag.Int64("store.memlimit", 48<<20, "GOMEMLIMIT of the run, 0 for none")
	dirFlag   = flag.String("store.dir", "", "keep the data here")
)

// spans is the table of design.md section 8: what a request is stored as.
// Its cells are made from the row's number, which Processes carries.
var spans = event.Table{Kind: event.KindProcess, Name: "spans", Len: func(b *event.Batch) int { return len(b.Processes) }, Columns: []event.Column{
	{Name: "time", Type: event.Time, Int: func(b *event.Batch, i int) int64 { return b.Wall + b.Processes[i].Time }},
	{Name: "duration", Type: event.Duration, Int: func(b *event.Batch, i int) int64 { return int64(random(b, i, 1)%100_000_000) + 1000 }},
	{Name: "status", Type: event.Int, Int: func(b *event.Batch, i int) int64 { return statuses[random(b, i, 2)%uint64(len(statuses))] }},
	{Name: "source.port", Type: event.Int, Int: func(b *event.Batch, i int) int64 { return int64(random(b, i, 3)%28000) + 32768 }},
	{Name: "destination.port", Type: event.Int, Int: func(b *event.Batch, i int) int64 { return int64(random(b, i, 4)%4) + 8080 }},
	text("service", 20, 5), text("route", 200, 6), text("pod", 120, 7), text("source.address", 250, 8), text("destination.address", 20, 5),
	{Name: "trace.id", Type: event.String, Append: func(dst []byte, b *event.Batch, i int) []byte {
		dst = binary.LittleEndian.AppendUint64(dst, random(b, i, 9))
		return binary.LittleEndian.AppendUint64(dst, random(b, i, 10))
	}},
}}

var statuses = []int64{200, 200, 200, 200, 200, 200, 200, 200, 200, 201, 204, 301, 404, 404, 500, 503}

func text(name string, distinct int, salt uint64) event.Column {
	values := make([]string, distinct)
	for i := range values {
		values[i] = fmt.Sprintf("%s-%03d", strings.ReplaceAll(name, ".", "-"), i)
	}
	get := func(b *event.Batch, i int) string { return values[random(b, i, salt)%uint64(distinct)] }
	return event.Column{Name: name, Type: event.String, Text: get, Append: func(dst []byte, b *event.Batch, i int) []byte { return append(dst, get(b, i)...) }}
}

// random is a hash of the row's number.
func random(b *event.Batch, i int, salt uint64) uint64 {
	x := uint64(b.Processes[i].Start) + salt*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

const day = int64(24 * time.Hour)

var epoch = time.Now().Truncate(time.Hour).UnixNano()

func openSpans(t testing.TB, dir string) *store.Store {
	s, err := store.Open(dir, []event.Table{spans}, options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ingest stores n rows spread over the last 24 hours.
func ingest(s *store.Store, n int) {
	b := event.Batch{Wall: epoch - day}
	step := day / int64(n)
	for i := 0; i < n; {
		b.Reset()
		for range min(256, n-i) {
			b.Processes = append(b.Processes, event.Process{Start: int64(i), Time: int64(i)*step + int64(rand.Uint64()%uint64(step))})
			i++
		}
		s.Append(&b)
		for s.Status().MemoryBytes > 8<<20 { // as fast as it is stored: nothing may be lost
			time.Sleep(time.Millisecond)
		}
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak returns the greatest resident size in bytes since the last resetPeak.
func peak() int64 {
	data, _ := os.ReadFile("/proc/self/status")
	var kib int64
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Sscanf(line, "VmHWM: %d", &kib)
		}
	}
	return kib << 10
}

func resetPeak() {
	debug.FreeOSMemory()
	os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // where it is refused the peak is that of the whole run
}

// TestStore measures ingest and queries. Run it with
//
//	go test ./test/bench -run TestStore -v -store.rows 10000000 -timeout 30m
func TestStore(t *testing.T) {
	if *limitFlag > 0 {
		debug.SetMemoryLimit(*limitFlag)
		debug.SetGCPercent(50)
	}
	dir := *dirFlag
	if dir == "" {
		dir = t.TempDir()
	}
	n := *rowsFlag
	resetPeak()
	made := cpu()
	cells(spans, n)
	made = cpu() - made
	s := openSpans(t, dir)
	before, start := cpu(), time.Now()
	ingest(s, n)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	used := cpu() - before
	st := func() store.Status { s = openSpans(t, dir); return s.Status() }
	memory := peak()
	status := st()
	defer s.Close()
	t.Logf("ingest: %d rows, %.2f s CPU (%.0f ns/row, %.0f of them to make the cells), %.1f s wall, peak RSS %d MB, %.1f B/row, %d segments",
		n, used.Seconds(), float64(used)/float64(n), float64(made)/float64(n), time.Since(start).Seconds(), memory>>20, float64(status.Tables[0].Bytes)/float64(n), status.Tables[0].Segments)
	if status.Rows != uint64(n) || status.Lost != 0 {
		t.Fatalf("stored %d rows, lost %d", status.Rows, status.Lost)
	}
}

// TestQueries asks the questions of design.md section 8 of what TestStore
// keeps in -store.dir.
//
//	go test ./test/bench -run 'TestStore|TestQueries' -v -store.rows 10000000 -store.dir /tmp/bench -timeout 30m
func TestQueries(t *testing.T) {
	if *limitFlag > 0 {
		debug.SetMemoryLimit(*limitFlag)
		debug.SetGCPercent(50)
	}
	dir := *dirFlag
	if dir == "" {
		dir = t.TempDir()
		s := openSpans(t, dir)
		ingest(s, *rowsFlag)
		s.Close()
	}
	s := openSpans(t, dir)
	defer s.Close()
	engine := sql.New(s, sql.Limits{Time: 5 * time.Minute, Scanned: 1 << 40})
	hour := fmt.Sprint(s.Status().Newest - int64(time.Hour))
	for _, c := range []struct{ name, statement string }{
		{"count(*)", "select count(*) from spans"},
		{"sum(duration)", "select sum(duration) from spans"},
		{"p95 by route, 1 h", "select route, p95(duration) from spans where time > " + hour + " group by route"},
		{"p95 by route, 24 h", "select route, p95(duration) from spans group by route"},
		{"count by service and minute, 24 h", "select service, bucket(time, '1m'), count(*) from spans group by 1, 2 limit 10"},
		{"20 slowest, 24 h", "select time, service, route, duration from spans order by duration desc limit 20"},
		{"5xx of a service, newest 100 of 1 h", "select * from spans where time > " + hour + " and service = 'service-003' and status >= 500 order by time desc limit 100"},
		{"one trace of all", "select * from spans where trace_id = 'none such trace!' limit 10"},
		{"by SQLite: count with OR, 1 h", "select count(*) from spans where time > " + hour + " and (status = 500 or route = 'route-001')"},
	} {
		var used [3]time.Duration
		var result *sql.Result
		resetPeak()
		for i := range used {
			before := cpu()
			var err error
			if result, err = engine.Query(context.Background(), c.statement, nil, func([]any) error { return nil }); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			used[i] = cpu() - before
		}
		t.Logf("%-36s %4d rows, %s, CPU %v, peak RSS %d MB, scanned %d", c.name, result.Rows, result.Plan, used, peak()>>20, result.Scanned)
	}
}
