package query

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
)

const wall = 1_700_000_000_000_000_000

var services = []string{"shop", "cart", "nginx", "db"}

// filled returns a store with n flows, some in segments, some packed, some open.
func filled(t testing.TB, n int) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), event.Tables, store.Options{
		BlockRows: 512, FlushRows: 1024, Now: func() time.Time { return time.Unix(0, wall) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	people := make([]event.Who, 0, 8)
	for i := range 8 {
		people = append(people, event.Who{ExecID: fmt.Sprint("e", i), Name: fmt.Sprint("cmd", i), Args: fmt.Sprintf("cmd%d\x00-x\x00arg %d", i, i), Service: services[i%4]})
	}
	people[3].Container = &event.Container{ID: "0123456789abcdef", Name: "web"}
	var b event.Batch
	b.Wall = wall
	for i := 0; i < n; i++ {
		f := event.Flow{
			Time: int64(i) * 1e6, End: int64(i)*1e6 + 100, ID: uint64(i), Transport: event.TCP, Direction: event.Outbound, Verdict: event.Forwarded,
			Source:      netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), uint16(1024+i%5000)),
			Destination: netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), []uint16{80, 443, 5432}[i%3]),
			PID:         uint32(i%50 + 1), Who: &people[i%8], Sent: event.Count{Bytes: uint64(i * i % 100003)},
			TCP: event.TCPInfo{State: 7, RTTNS: int64(i%1000) * 10_000}, Complete: i%10 != 0,
		}
		if i%5 == 0 {
			f.Verdict, f.TCP.CloseReason = event.Error, event.Refused
			f.Attrs = []event.Attr{{Key: "http.route", Value: fmt.Sprint("/r", i%4)}}
		}
		b.Flows = append(b.Flows, f)
		if len(b.Flows) == 100 || i == n-1 {
			s.Append(&b)
			b.Reset()
		}
	}
	return s
}

func schemaOf(t testing.TB, k event.Kind) *segment.Schema {
	t.Helper()
	for i := range event.Tables {
		if event.Tables[i].Kind == k {
			s, err := segment.NewSchema(&event.Tables[i])
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	t.Fatal("no such kind")
	return nil
}

// TestFilter compares what a filter finds with a condition on the row's number.
func TestFilter(t *testing.T) {
	const n = 4000
	s := filled(t, n)
	snap := s.Snapshot()
	defer snap.Close()
	for _, c := range []struct {
		filter string
		holds  func(i int) bool
	}{
		{"", func(i int) bool { return true }},
		{"port:80", func(i int) bool { return i%3 == 0 }},
		{"port:80,443", func(i int) bool { return i%3 != 2 }},
		{"port:80 port:443", func(i int) bool { return i%3 != 2 }},
		{"-port:80", func(i int) bool { return i%3 != 0 }},
		{"destination.port:400-500", func(i int) bool { return i%3 == 1 }},
		{"destination_port:5432", func(i int) bool { return i%3 == 2 }},
		{"destination.port!=5432", func(i int) bool { return i%3 != 2 }},
		{"service:shop", func(i int) bool { return i%4 == 0 }},
		{"service:s*p,ngin*", func(i int) bool { return i%2 == 0 }},
		{"-service:shop -service:db", func(i int) bool { return i%4 == 1 || i%4 == 2 }},
		{"tcp.rtt_ns>5ms", func(i int) bool { return i%1000 > 500 }},
		{"tcp.rtt_ns>=5ms tcp.rtt_ns<6ms", func(i int) bool { return i%1000 >= 500 && i%1000 < 600 }},
		{"tcp.rtt_ns:*", func(i int) bool { return i%1000 != 0 }},
		{"-tcp.rtt_ns:*", func(i int) bool { return i%1000 == 0 }},
		{"bytes.sent>10k", func(i int) bool { return i*i%100003 > 10000 }},
		{"bytes.sent<=1Ki", func(i int) bool { return i*i%100003 <= 1024 }},
		{"complete:false", func(i int) bool { return i%10 == 0 }},
		{"reason:refused", func(i int) bool { return i%5 == 0 }},
		{"reason:*", func(i int) bool { return i%5 == 0 }},
		{"address:10.0.1.0/24", func(i int) bool { return i>>8 == 1 }},
		{"address:2001:db8::/32 port:443", func(i int) bool { return i%3 == 1 }},
		{"address:2001:DB8:0::1", func(i int) bool { return true }},
		{"10.0.2.7", func(i int) bool { return i == 519 || i>>8 == 2 && (i&255)/10 == 7 }},
		{"2001:db8::1", func(i int) bool { return true }},
		{"CMD3", func(i int) bool { return i%8 == 3 }},
		{"web", func(i int) bool { return i%8 == 3 }},
		{"container:01234567", func(i int) bool { return i%8 == 3 }},
		{"-container:*", func(i int) bool { return i%8 != 3 }},
		{`process.command_args:"cmd1 -x arg 1"`, func(i int) bool { return i%8 == 1 }},
		{`process.command_args:"arg 2"`, func(i int) bool { return i%8 == 2 }},
		{`process.command_args:*rg*`, func(i int) bool { return true }},
		{"attributes.http.route:/r0", func(i int) bool { return i%5 == 0 && i%4 == 0 }},
		{"attributes:/r1", func(i int) bool { return i%5 == 0 && i%4 == 1 }},
		{"verdict:error port:80 service:shop", func(i int) bool { return i%60 == 0 }},
		{"pid:7", func(i int) bool { return i%50 == 6 }},
		{"pid:100", func(i int) bool { return false }},
		{"tcp.listen_drops:*", func(i int) bool { return false }},
		{"flow.id:17", func(i int) bool { return i == 17 }},
	} {
		f, err := Parse(snap.Schema(event.KindFlow), c.filter)
		if err != nil {
			t.Errorf("%s: %v", c.filter, err)
			continue
		}
		found := map[int]bool{}
		_, err = Each(context.Background(), snap, Request{Kind: event.KindFlow, Filter: f}, func(rows *segment.Rows, picks []int32) error {
			for _, row := range picks {
				found[int(rows.Int(2, int(row)))] = true
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", c.filter, err)
		}
		wrong := 0
		for i := range n {
			if found[i] != c.holds(i) && wrong < 3 {
				t.Errorf("%s: row %d: found %v", c.filter, i, found[i])
				wrong++
			}
		}
	}
}

func TestFilterErrors(t *testing.T) {
	s := schemaOf(t, event.KindFlow)
	for _, c := range []struct{ filter, message string }{
		{"servce:x", `filter, at 0: flows have no field "servce"; did you mean "service"?`},
		{"port:80 retransmits>1", `filter, at 8: flows have no field "retransmits"; did you mean "tcp.retransmits"?`},
		{"port:http", `filter, at 5: source.port is a number, not "http"; write 443, 10k or 64Mi`},
		{"tcp.rtt_ns>fast", `filter, at 11: tcp.rtt_ns is a duration, not "fast"; write 5ms, 1.5s or nanoseconds`},
		{"service>x", `filter, at 8: service.name cannot be compared by >; use field:value`},
		{"service:", `filter, at 8: a value is missing; write "" for an empty value, * for any`},
		{`service:"x`, `filter, at 8: the quote is not closed`},
		{"-", `filter, at 1: nothing follows the minus; write -field:value or -word`},
		{":x", `filter, at 0: a field is missing; write field:value`},
		{"complete:maybe", `filter, at 9: complete is true or false, not "maybe"; write true or false`},
		{"port:9-1", `filter, at 5: the range 9-1 is empty; write the smaller number first`},
		{`service:"a"b`, `filter, at 11: unexpected "b"; separate terms by blanks`},
		{"xyzzy:1", `filter, at 0: flows have no field "xyzzy"; see the fields of flows at /api/v1/fields`},
	} {
		_, err := Parse(s, c.filter)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || err.Error() != c.message {
			t.Errorf("%s:\n got %v\nwant %s", c.filter, err, c.message)
		}
	}
}

func TestSelect(t *testing.T) {
	const n = 4000
	s := filled(t, n)
	snap := s.Snapshot()
	defer snap.Close()
	f, _ := Parse(snap.Schema(event.KindFlow), "port:80")
	for _, c := range []struct {
		r       Request
		first   int
		rows    int
		matched uint64
	}{
		{Request{Last: 10}, n - 10, 10, 0},
		{Request{Last: 10, Count: true}, n - 10, 10, n},
		{Request{Last: 10, Filter: f, Count: true}, 3999 - 27, 10, 1334},
		{Request{Last: 5, Until: wall + 100*1e6, Count: true}, 95, 5, 100},
		{Request{Since: wall + 3990*1e6}, 3990, 10, 10},
		{Request{Last: 10000, Count: true}, 0, 4000, 4000},
	} {
		c.r.Kind = event.KindFlow
		got, err := Select(context.Background(), snap, c.r)
		if err != nil {
			t.Fatal(err)
		}
		if got.Rows.Len != c.rows || got.Rows.Int(2, 0) != int64(c.first) || c.matched > 0 && got.Matched != c.matched {
			t.Errorf("%+v: %d rows from %d, matched %d", c.r, got.Rows.Len, got.Rows.Int(2, 0), got.Matched)
		}
		if !got.Complete {
			t.Errorf("%+v: not complete", c.r)
		}
		for i := range got.Rows.Len {
			line := string(got.Rows.AppendJSON(nil, i))
			if !strings.HasPrefix(line, `{"kind":"flow","time":"2023-11-14T22:1`) {
				t.Fatal(line)
			}
		}
	}
}

// TestRequestFilter compares the short names of requests with conditions.
func TestRequestFilter(t *testing.T) {
	s, err := store.Open(t.TempDir(), event.Tables, store.Options{Now: func() time.Time { return time.Unix(0, wall) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b := event.Batch{Wall: wall}
	codes := []int32{200, 404, 500, 503}
	for i := range 200 {
		r := event.Request{Time: int64(i), DurationNS: int64(i) * 1e6, Role: event.Server, Protocol: "http", Family: event.HTTP, Operation: "GET", Text: fmt.Sprint("/a/", i), Route: "/a/{id}", Status: codes[i%4], Conn: uint64(i)}
		if r.Status >= 500 {
			r.Error = fmt.Sprint(r.Status)
		}
		if i%10 == 5 {
			r.Protocol, r.Family, r.Operation, r.Target, r.Outcome, r.Error, r.Summary = "postgresql", event.DB, "SELECT", "users", "42P01", "42P01", "SELECT users"
		}
		r.Trace.ID[0] = byte(i / 2)
		b.Requests = append(b.Requests, r)
	}
	s.Append(&b)
	snap := s.Snapshot()
	defer snap.Close()
	isDB := func(i int) bool { return i%10 == 5 }
	failed := func(i int) bool { return isDB(i) || i%4 >= 2 }
	for filter, holds := range map[string]func(i int) bool{
		"status:500":                    func(i int) bool { return i%4 == 2 && !isDB(i) },
		"status:5xx":                    func(i int) bool { return i%4 >= 2 && !isDB(i) },
		"status:4xx,500":                func(i int) bool { return (i%4 == 1 || i%4 == 2) && !isDB(i) },
		"status:50x":                    func(i int) bool { return i%4 >= 2 && !isDB(i) },
		"status:42P01":                  isDB,
		"status:error":                  failed,
		"-status:error":                 func(i int) bool { return !failed(i) },
		"status:ok":                     func(i int) bool { return !failed(i) },
		"error:*":                       failed,
		"slower:100ms":                  func(i int) bool { return i >= 100 },
		"faster=10ms":                   func(i int) bool { return i < 10 },
		"slower:10ms faster:20ms":       func(i int) bool { return i >= 10 && i < 20 },
		"-slower:10ms":                  func(i int) bool { return i < 10 },
		"route:/a/* path:/a/17":         func(i int) bool { return i == 17 },
		"operation:SELECT":              isDB,
		"target:users protocol:p*":      isDB,
		"method:GET":                    func(i int) bool { return !isDB(i) },
		"users":                         isDB,
		"tls:false role:server":         func(int) bool { return true },
		"trace:03" + zeros[:30]:         func(i int) bool { return i/2 == 3 },
		"trace:03*":                     func(i int) bool { return i/2 == 3 },
		"http.response.status_code>404": func(i int) bool { return i%4 >= 2 && !isDB(i) },
	} {
		f, err := Parse(snap.Schema(event.KindRequest), filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
			continue
		}
		found := map[int]bool{}
		id := snap.Schema(event.KindRequest).Index["flow.id"]
		_, err = Each(context.Background(), snap, Request{Kind: event.KindRequest, Filter: f}, func(rows *segment.Rows, picks []int32) error {
			for _, row := range picks {
				found[int(rows.Int(id, int(row)))] = true
			}
			return nil
		})
		for i := range 200 {
			if err != nil || found[i] != holds(i) {
				t.Errorf("%s: row %d: found %v (%v)", filter, i, found[i], err)
				break
			}
		}
	}
	for filter, message := range map[string]string{
		"slower:soon":   `filter, at 7: duration_ns is a duration, not "soon"; write 5ms, 1.5s or nanoseconds`,
		"method>3":      `filter, at 7: http.request.method cannot be compared by >; use field:value`,
		"source.port:x": `filter, at 12: source.port is a number, not "x"; write 443, 10k or 64Mi`,
	} {
		if _, err := Parse(snap.Schema(event.KindRequest), filter); err == nil || err.Error() != message {
			t.Errorf("%s: %v", filter, err)
		}
	}
}

const zeros = "00000000000000000000000000000000"
