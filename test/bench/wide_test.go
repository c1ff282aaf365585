package main

import (
	"fmt"
	"runtime/debug"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/store"
)

// requests is a table as wide as one for requests of all protocols: 55
// columns, 29 of which no row of this traffic fills, most others with few
// distinct values.
func requests() event.Table {
	t := event.Table{Kind: event.KindProcess, Name: "requests", Len: spans.Len}
	t.Columns = append(t.Columns, spans.Columns...) // 11
	t.Columns = append(t.Columns,
		number("end", 1<<40, 20), number("process.pid", 40, 21), number("bytes.sent", 100_000, 22), number("bytes.received", 3000, 23),
		text("protocol", 2, 24), text("method", 4, 25), text("url.path", 3000, 26), text("user.agent", 30, 27), text("exec.id", 40, 21),
		text("executable.name", 40, 21), text("executable.path", 40, 21), text("container.name", 40, 21), text("peer.service", 20, 28), text("transport", 1, 29),
		seldom(text("error.type", 5, 30)),
	)
	for i := range 14 {
		t.Columns = append(t.Columns, event.Column{Name: fmt.Sprintf("absent.number.%d", i), Type: event.Int, Int: func(*event.Batch, int) int64 { return event.Null }})
	}
	for i := range 15 {
		t.Columns = append(t.Columns, event.Column{Name: fmt.Sprintf("absent.text.%d", i), Type: event.String, Append: func(dst []byte, _ *event.Batch, _ int) []byte { return dst }})
	}
	return t
}

func number(name string, distinct, salt uint64) event.Column {
	return event.Column{Name: name, Type: event.Int, Int: func(b *event.Batch, i int) int64 { return int64(random(b, i, salt) % distinct) }}
}

// seldom leaves out 49 of 50 values.
func seldom(c event.Column) event.Column {
	get := c.Append
	c.Append = func(dst []byte, b *event.Batch, i int) []byte {
		if random(b, i, 31)%50 != 0 {
			return dst
		}
		return get(dst, b, i)
	}
	return c
}

// TestRequests stores rows of a wide table, most of whose columns are empty.
//
//	go test ./test/bench -run TestRequests -v -store.rows 2000000
func TestRequests(t *testing.T) {
	if *limitFlag > 0 {
		debug.SetMemoryLimit(*limitFlag)
		debug.SetGCPercent(50)
	}
	dir := t.TempDir()
	table := requests()
	n := *rowsFlag
	resetPeak()
	made := cpu()
	cells(table, n)
	made = cpu() - made
	used := stored(t, dir, table, n)
	memory := peak()
	some := table
	some.Columns = table.Columns[:26]
	without := stored(t, t.TempDir(), some, n)
	s, err := store.Open(dir, []event.Table{table}, options)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	status := s.Status()
	t.Logf("requests: %d columns, %d rows, %.0f ns CPU a row, %.0f of them to make the cells, %.1f for each absent cell, peak RSS %d MB, %.1f B/row, %d segments",
		len(table.Columns), n, float64(used)/float64(n), float64(made)/float64(n), float64(used-without)/float64(n*(len(table.Columns)-26)), memory>>20, float64(status.Tables[0].Bytes)/float64(n), status.Tables[0].Segments)
	if status.Rows != uint64(n) || status.Lost != 0 {
		t.Fatalf("stored %d rows, lost %d", status.Rows, status.Lost)
	}
}

var options = store.Options{RetentionBytes: 8 << 30, Retention: 100 * time.Hour}

// stored returns the CPU time that storing n rows takes.
func stored(t *testing.T, dir string, table event.Table, n int) time.Duration {
	s, err := store.Open(dir, []event.Table{table}, options)
	if err != nil {
		t.Fatal(err)
	}
	before := cpu()
	ingest(s, n)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return cpu() - before
}

// cells makes the cells of n rows and keeps none: what of the cost is not the
// store's.
func cells(table event.Table, n int) {
	b := event.Batch{Wall: epoch}
	var dst []byte
	var sum int64
	for i := 0; i < n; {
		b.Reset()
		for range min(256, n-i) {
			b.Processes = append(b.Processes, event.Process{Start: int64(i), Time: int64(i)})
			i++
		}
		for c := range table.Columns {
			get, text := table.Columns[c].Int, table.Columns[c].Append
			for row := range b.Processes {
				if get != nil {
					sum += get(&b, row)
				} else {
					dst = text(dst[:0], &b, row)
				}
			}
		}
	}
	if sum == 1 {
		fmt.Println(sum)
	}
}
