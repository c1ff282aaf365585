package store

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

// someFlows fills a batch with n flows, the first of which has number first.
func someFlows(b *event.Batch, first, n int) *event.Batch {
	b.Reset()
	for i := first; i < first+n; i++ {
		f := event.Flow{
			Time: int64(i) * 1000, End: int64(i)*1000 + 500, ID: uint64(i), Transport: event.TCP, Direction: event.Outbound,
			Source:      netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), uint16(i)),
			Destination: netip.MustParseAddrPort("[2001:db8::1]:443"),
			PID:         uint32(i % 7), Sent: event.Count{Bytes: uint64(i), Packets: 1},
			Who: &people[i%len(people)], Complete: i%2 == 0,
		}
		if i%3 == 0 {
			f.TCP.CloseReason = event.FinSent
			f.Attrs = []event.Attr{{Key: "k", Value: "v"}, {Key: "n", Value: strings.Repeat("x", i%5)}}
		}
		b.Flows = append(b.Flows, f)
	}
	return b
}

var people = []event.Who{
	{ExecID: "a", Name: "curl", Executable: "/usr/bin/curl", Args: "curl\x00-v\x00http://x", Service: "shop"},
	{ExecID: "b", Name: "nginx", Executable: "/usr/sbin/nginx", Service: "nginx", Container: &event.Container{ID: "cafe", Name: "web"}},
	{ExecID: "c", Name: "\"odd\"\n", Service: "back\\slash"},
}

const wall = 1_700_000_000_000_000_000

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return time.Unix(0, wall).Add(time.Minute) }
	}
	s, err := Open(dir, event.Tables, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lines returns all flows as JSON.
func lines(t testing.TB, s *Store) (all []string) {
	t.Helper()
	snap := s.Snapshot()
	defer snap.Close()
	schema := snap.Schema(event.KindFlow)
	for _, source := range snap.Sources(event.KindFlow) {
		r := segment.NewRows(schema, source)
		for i := range r.Len {
			all = append(all, string(r.AppendJSON(nil, i)))
		}
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
	}
	return all
}

// want returns what lines must give for flows 0..n.
func want(n int) (all []string) {
	var b event.Batch
	b.Wall = wall
	schema, _ := segment.NewSchema(&event.Tables[1])
	blk := newBlock(schema, 0)
	for i := 0; i < n; i++ {
		blk.reset(0)
		blk.append(someFlows(&b, i, 1), 0, 1)
		all = append(all, string(segment.NewRows(schema, blk.view(0)).AppendJSON(nil, 0)))
	}
	return all
}

func same(t testing.TB, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("row %d:\n got %s\nwant %s", i, got[i], want[i])
		}
	}
}

// TestRoundTrip follows the same rows through every form they take.
func TestRoundTrip(t *testing.T) {
	const n = 5000
	expected := want(n)
	dir := t.TempDir()
	s := open(t, dir, Options{BlockRows: 1024, FlushRows: 2000})
	var b event.Batch
	b.Wall = wall
	for i := 0; i < n; i += 100 {
		s.Append(someFlows(&b, i, 100))
	}
	same(t, lines(t, s), expected)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	defer func() { t.Logf("%+v", s.Status()) }()
	deadline := time.Now().Add(10 * time.Second)
	for s.Status().Tables[1].Segments < 2 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	same(t, lines(t, s), expected)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	defer s.Close()
	same(t, lines(t, s), expected)
	if r := s.Recovery(); fmt.Sprint(r) != fmt.Sprint(Recovery{}) {
		t.Errorf("recovery after a clean close: %+v", r)
	}
	t.Log(expected[0])
	t.Logf("%+v", s.Status())
}

// A snapshot has the same rows whenever it is asked: who counts first and reads
// then, or follows from its end, relies on it.
func TestSnapshotStays(t *testing.T) {
	s := open(t, t.TempDir(), Options{BlockRows: 1024})
	defer s.Close()
	b := event.Batch{Wall: wall}
	s.Append(someFlows(&b, 0, 10))
	snap := s.Snapshot()
	defer snap.Close()
	for i := 10; i < 3000; i += 10 { // in the same block, and in the next ones
		s.Append(someFlows(&b, i, 10))
		s.Append(&event.Batch{Wall: wall, Lost: []event.Lost{{Time: wall, Stage: "test", Count: 1}}})
		rows := 0
		for _, source := range snap.Sources(event.KindFlow) {
			rows += segment.NewRows(snap.Schema(event.KindFlow), source).Len
		}
		if rows != 10 {
			t.Fatalf("%d rows of 10, with %d appended later", rows, i)
		}
		if n := len(snap.Sources(event.KindLost)); n != 0 {
			t.Fatalf("%d sources in a table that was empty", n)
		}
	}
}
