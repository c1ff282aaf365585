package main

import (
	"context"
	"fmt"
	"net/netip"
	"runtime/debug"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/query/sql"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
)

// TestFlows stores flows of the last hour as the agent does and asks for them.
//
//	go test ./test/bench -run TestFlows -v -store.rows 1000000
func TestFlows(t *testing.T) {
	if *limitFlag > 0 {
		debug.SetMemoryLimit(*limitFlag)
		debug.SetGCPercent(50)
	}
	s, err := store.Open(t.TempDir(), event.Tables, store.Options{RetentionBytes: 8 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := *rowsFlag
	resetPeak()
	idle := peak()
	before := cpu()
	storeFlows(s, n)
	used := cpu() - before
	for s.Status().MemoryBytes > 6<<20 {
		time.Sleep(10 * time.Millisecond)
	}
	st := s.Status()
	t.Logf("flows: %d rows, %.0f ns CPU a row, peak RSS %d MB (empty store: %d MB), %.1f B/row in %d segments, lost %d",
		n, float64(used)/float64(n), peak()>>20, idle>>20, float64(st.Tables[1].Bytes)/float64(n), st.Tables[1].Segments, st.Lost)
	snap := s.Snapshot()
	defer snap.Close()
	since := time.Now().Add(-time.Hour).UnixNano()
	for _, text := range []string{"", "port:443 -service:service-3", "tcp.rtt_ns>90ms", "address:10.0.7.0/24", "curl"} {
		filter, err := query.Parse(snap.Schema(event.KindFlow), text)
		if err != nil {
			t.Fatal(err)
		}
		resetPeak()
		before := cpu()
		r, err := query.Select(context.Background(), snap, query.Request{Kind: event.KindFlow, Since: since, Filter: filter, Last: 1000, Count: true})
		if err != nil {
			t.Fatal(err)
		}
		var line []byte
		for i := range r.Rows.Len {
			line = r.Rows.AppendJSON(line[:0], i)
		}
		t.Logf("last 1000 of 1 h, filter %-30q matched %8d, scanned %8d: %v CPU, peak RSS %d MB", text, r.Matched, r.Scanned, cpu()-before, peak()>>20)
	}
	resetPeak()
	before = cpu()
	bytes := 0
	var line []byte
	_, err = query.Each(context.Background(), snap, query.Request{Kind: event.KindFlow, Since: since}, func(rows *segment.Rows, picks []int32) error {
		for _, row := range picks {
			line = rows.AppendJSON(line[:0], int(row))
			bytes += len(line)
		}
		return nil
	})
	t.Logf("all %d rows of 1 h as JSON (%d MB): %v CPU, peak RSS %d MB, %v", n, bytes>>20, cpu()-before, peak()>>20, err)
	engine := sql.New(s, sql.Limits{})
	before = cpu()
	r, err := engine.Query(context.Background(), "select service_name, destination_port, count(*), sum(bytes_sent), p95(tcp_rtt_ns) from flows where time > ago('1h') group by 1, 2", nil, func([]any) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("SQL, by service and port: %d groups, %s, %v CPU", r.Rows, r.Plan, cpu()-before)
}

func storeFlows(s *store.Store, n int) {
	people := make([]event.Who, 40)
	for i := range people {
		people[i] = event.Who{ExecID: fmt.Sprintf("%016x", i), PID: uint32(1000 + i), Name: []string{"curl", "nginx", "node", "java"}[i%4], Executable: "/usr/bin/" + []string{"curl", "nginx", "node", "java"}[i%4],
			Args: fmt.Sprintf("program\x00--number\x00%d", i), Service: fmt.Sprintf("service-%d", i%20), CgroupPath: "/system.slice"}
	}
	b := event.Batch{Wall: time.Now().Add(-50 * time.Minute).UnixNano()}
	step := int64(50*time.Minute) / int64(n)
	for i := 0; i < n; {
		b.Reset()
		for range min(256, n-i) {
			b.Flows = append(b.Flows, event.Flow{
				Time: int64(i) * step, End: int64(i)*step + 1e6, ID: uint64(i), Transport: event.TCP, Direction: event.Direction(i%2 + 1), Verdict: event.Forwarded,
				Source:      netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i / 7 % 10), byte(i * 13)}), uint16(32768+i*7%28000)),
				Destination: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i % 20)}), []uint16{80, 443, 5432, 6379}[i%4]),
				PID:         uint32(1000 + i%40), PeerPID: uint32(1000 + i%39), Who: &people[i%40], Peer: &people[i%39],
				Sent: event.Count{Bytes: uint64(i*7919) % 100_000, Packets: uint64(i % 50)}, Received: event.Count{Bytes: uint64(i*104729) % 1_000_000, Packets: uint64(i % 90)},
				TCP: event.TCPInfo{State: 7, CloseReason: event.FinSent, ConnectNS: int64(i*31) % 1e6, RTTMinNS: 20_000 + int64(i*17)%1e6, RTTNS: 30_000 + int64(i*15485863)%1e8}, Complete: true,
			})
			i++
		}
		s.Append(&b)
		for s.Status().MemoryBytes > 8<<20 {
			time.Sleep(time.Millisecond)
		}
	}
}
