package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime/debug"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/store"
)

// TestRequests stores requests as the agent does: 6 of 10 are HTTP, 3 are
// queries, one is of DNS; all are in a trace. Two of three cells are absent.
//
//	go test ./test/bench -run TestRequests -v -store.rows 1000000
func TestRequests(t *testing.T) {
	if *limitFlag > 0 {
		debug.SetMemoryLimit(*limitFlag)
		debug.SetGCPercent(50)
	}
	n := *rowsFlag
	made := cpu()
	eachRequests(n, func(*event.Batch) {})
	made = cpu() - made
	dir := t.TempDir()
	s, err := store.Open(dir, event.Tables, options)
	if err != nil {
		t.Fatal(err)
	}
	resetPeak()
	idle := peak()
	before := cpu()
	eachRequests(n, func(b *event.Batch) {
		s.Append(b)
		for s.Status().MemoryBytes > 8<<20 { // as fast as it is stored: nothing may be lost
			time.Sleep(time.Millisecond)
		}
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	used, memory := cpu()-before, peak()
	if s, err = store.Open(dir, event.Tables, options); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st := s.Status()
	if st.Rows != uint64(n) || st.Lost != 0 {
		t.Fatalf("stored %d rows, lost %d", st.Rows, st.Lost)
	}
	t.Logf("requests: %d rows, %.0f ns CPU a row (and %.0f to make it), peak RSS %d MB (empty store: %d MB), %.1f B/row",
		n, float64(used-made)/float64(n), float64(made)/float64(n), memory>>20, idle>>20, float64(st.Bytes)/float64(n))
}

var options = store.Options{RetentionBytes: 8 << 30, Retention: 100 * time.Hour}

// eachRequests makes n requests of the last 50 minutes, some at a time.
func eachRequests(n int, each func(*event.Batch)) {
	people := make([]event.Who, 40)
	for i := range people {
		name := []string{"checkout", "nginx", "node", "java"}[i%4]
		people[i] = event.Who{ExecID: fmt.Sprintf("%016x", i), PID: uint32(1000 + i), Name: name, Executable: "/usr/bin/" + name, Service: fmt.Sprintf("service-%d", i%20)}
		if i%2 == 0 {
			people[i].Container = &event.Container{ID: fmt.Sprintf("%064x", i), Name: fmt.Sprintf("pod-%d", i)}
		}
	}
	var routes, paths, statements, names [200]string
	for i := range routes {
		routes[i], statements[i] = fmt.Sprintf("/api/v1/thing%d/{id}", i), fmt.Sprintf("select * from thing%d where id = ?", i)
		names[i] = fmt.Sprintf("service-%d.shop.svc.cluster.local", i)
	}
	for i := range paths {
		paths[i] = fmt.Sprintf("/api/v1/thing%d/%d", i%40, i)
	}
	b := event.Batch{Wall: time.Now().Add(-50 * time.Minute).UnixNano()}
	step := int64(50*time.Minute) / int64(n)
	for i := 0; i < n; {
		b.Reset()
		for range min(256, n-i) {
			x := mixed(uint64(i))
			r := event.Request{
				Time: int64(i) * step, DurationNS: int64(x%50_000_000) + 20_000, FirstByteNS: int64(x%40_000_000) + 10_000, QueueNS: int64(x % 70_000),
				Role: event.Role(x>>8%2 + 1), Transport: event.TCP, Conn: x >> 10 % 5000, PID: uint32(1000 + x>>16%40), TID: uint32(1000 + x>>16%400), PeerPID: uint32(1000 + x>>20%40),
				Source:      netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(x >> 24)}), uint16(32768+x>>10%5000)),
				Destination: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(x >> 32 % 20)}), uint16(8000+x>>32%20)),
				Who:         &people[x>>16%40], Peer: &people[x>>20%40], RequestBytes: int64(x >> 40 % 2000), ResponseBytes: int64(x >> 44 % 100_000), Complete: true,
			}
			binary.LittleEndian.PutUint64(r.Trace.ID[:], mixed(uint64(i/5)))
			binary.LittleEndian.PutUint64(r.Trace.ID[8:], mixed(uint64(i/5)+1<<40))
			binary.LittleEndian.PutUint64(r.Trace.Span[:], x)
			binary.LittleEndian.PutUint64(r.Trace.Parent[:], mixed(uint64(i-1)))
			at := x >> 48 % 200
			switch k := x >> 4 % 10; {
			case k < 6:
				r.Family, r.Protocol, r.Version, r.Operation = event.HTTP, "http", "1.1", []string{"GET", "GET", "GET", "POST"}[x>>56%4]
				r.Route, r.Text, r.Status = routes[at], paths[at], []int32{200, 200, 200, 200, 200, 204, 404, 500}[x>>58%8]
				if r.Status >= 500 {
					r.Error = "500"
				}
			case k < 9:
				r.Family, r.Protocol, r.System, r.Operation = event.DB, "postgresql", "postgresql", "SELECT"
				r.Text, r.Summary, r.Namespace, r.Target = statements[at], "SELECT thing", "shop", "thing"
			default:
				r.Family, r.Protocol, r.Operation, r.Target, r.Outcome = event.DNS, "dns", "A", names[at], "NOERROR"
			}
			b.Requests = append(b.Requests, r)
			i++
		}
		each(&b)
	}
}

// mixed is a hash.
func mixed(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// cells makes the cells of n rows of spans and keeps none: what of the cost is
// not the store's.
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
