package sql

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/store"
)

const wall = 1_700_000_000_000_000_000

// filled returns an engine over n flows and a few processes; the flows are in
// segments, packed and open blocks.
func filled(t testing.TB, n int) *Engine {
	t.Helper()
	now := func() time.Time { return time.Unix(0, wall).Add(time.Duration(n) * time.Millisecond) }
	s, err := store.Open(t.TempDir(), event.Tables, store.Options{BlockRows: 512, FlushRows: 1024, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	people := make([]event.Who, 8)
	for i := range people {
		people[i] = event.Who{PID: uint32(i + 1), ExecID: fmt.Sprint("e", i), Name: fmt.Sprint("Cmd", i), Args: fmt.Sprintf("cmd%d\x00-x", i), Service: []string{"shop", "cart", "nginx", ""}[i%4]}
	}
	b := event.Batch{Wall: wall}
	for i := range people {
		b.Processes = append(b.Processes, event.Process{Time: int64(i), Action: event.Exec, PID: uint32(i + 1), Who: &people[i]})
	}
	for i := 0; i < n; i++ {
		f := event.Flow{
			Time: int64(i) * 1e6, End: int64(i)*1e6 + 1000*int64(i), ID: uint64(i), Transport: event.TCP, Direction: event.Outbound, Verdict: event.Forwarded,
			Source:      netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), uint16(1024+i%5000)),
			Destination: netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), []uint16{80, 443, 5432}[i%3]),
			PID:         uint32(i%8 + 1), Who: &people[i%8], Sent: event.Count{Bytes: uint64(i * i % 100003)},
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
	e := New(s, Limits{})
	e.now = now
	return e
}

// ask returns the answer as text, a row a line.
func ask(e *Engine, statement string) (string, *Result, error) {
	var b strings.Builder
	r, err := e.Query(context.Background(), statement, func(columns []Column) error {
		for _, c := range columns {
			fmt.Fprintf(&b, "%s:%s ", c.Name, c.Type)
		}
		b.WriteByte('\n')
		return nil
	}, func(values []any) error {
		for _, v := range values {
			if f, ok := v.(float64); ok {
				v = fmt.Sprintf("%.9g", f)
			}
			fmt.Fprintf(&b, "%v|", v)
		}
		b.WriteByte('\n')
		return nil
	})
	return b.String(), r, err
}

// both runs a statement natively and by SQLite and compares.
func both(t *testing.T, e *Engine, statement string) (plan string) {
	t.Helper()
	plain := *e
	plain.plain = true
	a, result, err := ask(e, statement)
	if err != nil {
		t.Errorf("%s: %v", statement, err)
		return ""
	}
	b, _, err := ask(&plain, statement)
	if err != nil {
		t.Errorf("%s, by SQLite: %v", statement, err)
	}
	if a != b {
		t.Errorf("%s\nnative:\n%.600s\nSQLite:\n%.600s", statement, a, b)
	}
	return result.Plan
}

func TestNativeIsSQLite(t *testing.T) {
	e := filled(t, 4000)
	for _, statement := range []string{
		"select count(*) from flows",
		"SELECT COUNT(*) FROM Flows;",
		"select count(*) as n, sum(bytes_sent), min(bytes_sent), max(bytes_sent), avg(bytes_sent) from flows",
		"select sum(bytes_sent) from flows where destination_port = 1",
		"select service_name, count(*) from flows group by service_name",
		"select service_name, count(*) n from flows group by 1 order by n desc, 1",
		"select service_name, destination_port, count(*), p95(tcp_rtt_ns), p50(tcp_rtt_ns), quantile(tcp_rtt_ns, 0.999) from flows group by service_name, destination_port",
		"select service_name, destination_port, verdict, complete, count(*) from flows group by 1,2,3,4 order by 5 desc, 1, 2, 3 limit 7 offset 2",
		"select bucket(time, '1s') as t, count(*) from flows group by t order by t",
		"select bucket(time, '1s') as t, count(*) from flows group by 1 order by 1 desc limit 2",
		"select time / 1000000000 * 1000000000 as t, count(*) from flows group by t",
		"select time / 1000000000 t, count(*) from flows group by t",
		"select bytes_sent / 10000, count(bytes_sent) from flows group by bytes_sent / 10000",
		"select min(time), max(time), max(end_time), min(service_name), max(process_executable_name) from flows",
		"select max(tcp_rtt_ns) from flows where service_name = 'shop' and destination_port in (80, 443)",
		"select count(*) from flows where destination_port = '443'",
		"select count(*) from flows where tcp_rtt_ns < 5000000.5",
		"select count(*) from flows where tcp_rtt_ns <= 5000000.5",
		"select count(*) from flows where tcp_rtt_ns > 4999999.5",
		"select count(*) from flows where tcp_rtt_ns >= 4999999.5",
		"select count(*) from flows where tcp_rtt_ns = 5000000.0",
		"select count(*) from flows where tcp_rtt_ns = 5000000.5",
		"select count(*) from flows where tcp_rtt_ns != 5000000.5",
		"select count(*) from flows where tcp_rtt_ns > '5ms'",
		"select count(*) from flows where tcp_rtt_ns between '1ms' and '2ms'",
		"select count(*) from flows where tcp_rtt_ns is null",
		"select count(*) from flows where tcp_rtt_ns is not null and service_name is null",
		"select count(*) from flows where service_name <> 'shop'",
		"select count(*) from flows where service_name != ''",
		"select count(*) from flows where service_name = ''",
		"select count(*) from flows where service_name > 'm' and service_name <= 'shop'",
		"select count(*) from flows where service_name in ('shop', 'nope')",
		"select count(*) from flows where service_name not in ('shop', 'nope')",
		"select count(*) from flows where destination_port not in (80)",
		"select count(*) from flows where tcp_rtt_ns not in (10000)",
		"select count(*) from flows where process_executable_name like 'cmd%'",
		"select count(*) from flows where process_executable_name like '%D3'",
		"select count(*) from flows where process_executable_name not like '%3%'",
		"select count(*) from flows where service_name between 'a' and 'k'",
		"select count(*) from flows where time >= '2023-11-14T22:13:21Z' and time < '2023-11-14 22:13:22'",
		"select count(*) from flows where time between '2023-11-14 22:13:21' and '2023-11-14 22:13:22'",
		"select count(*) from flows where time > ago('1s')",
		"select count(*) from flows where time > now() - '1500ms'",
		"select count(*) from flows where time > now() - 1000000000",
		"select count(*) from flows where time < 0",
		"select count(*) from flows where time > -5 and time > 9223372036854775807",
		"select count(*) from flows where time != 1700000000000000000",
		"select flow_id from flows where flow_id = 17",
		"select flow_id, time, service_name, tcp_rtt_ns, complete, process_command_args, attributes from flows where destination_port = 80 order by time desc limit 5",
		"select * from flows order by bytes_sent desc limit 20",
		"select flow_id from flows order by tcp_rtt_ns limit 11 offset 3",
		"select flow_id from flows order by tcp_rtt_ns desc limit 11",
		"select flow_id from flows where verdict = 'error' limit 3 offset 2",
		"select flow_id, bytes_sent b from flows order by b desc, flow_id limit 3",
		"select service_name from flows limit 0",
		"select action, count(*) from processes group by action",
		"select count(*) from alerts",
		"select service_name, max(time) from alerts group by service_name",
		`select "service_name" as "Service", count(*) as "how many" from flows group by "service_name"`,
		"select count(*) from flows -- a comment\n where destination_port = 80 /* and another */",
	} {
		if plan := both(t, e, statement); plan != "native" && !strings.Contains(statement, "b desc, flow_id") && !strings.Contains(statement, "now() - 10") {
			t.Errorf("%s: plan %q", statement, plan)
		}
	}
}

// TestSQLite asks what only SQLite can answer; the wanted values are counted
// from how the rows were made.
func TestSQLite(t *testing.T) {
	const n = 4000
	e := filled(t, n)
	count := func(holds func(i int) bool) (c int) {
		for i := range n {
			if holds(i) {
				c++
			}
		}
		return c
	}
	for _, c := range []struct {
		statement string
		want      string
	}{
		{"select count(*) from flows where destination_port = 80 or destination_port = '443'", fmt.Sprint(count(func(i int) bool { return i%3 < 2 }), "|")},
		{"select count(*) from flows where service_name = 'SHOP' collate nocase", fmt.Sprint(count(func(i int) bool { return i%4 == 0 }), "|")},
		{"select count(*) from flows where (service_name) = 'shop' and +destination_port = 80", fmt.Sprint(count(func(i int) bool { return i%12 == 0 }), "|")},
		{"select count(distinct service_name) from flows", "3|"},
		{"select count(*) from flows where attributes ->> 'http.route' = '/r1'", fmt.Sprint(count(func(i int) bool { return i%5 == 0 && i%4 == 1 }), "|")},
		{"select count(*) from flows where process_command_args ->> 0 = 'cmd3'", fmt.Sprint(count(func(i int) bool { return i%8 == 3 }), "|")},
		{"select count(*) from flows f join processes p on p.process_exec_id = f.process_exec_id where p.process_executable_name = 'Cmd2'", fmt.Sprint(count(func(i int) bool { return i%8 == 2 }), "|")},
		{"select count(*) from (select service_name from flows group by 1 having count(*) > 1000)", "0|"},
		{"select count(*) from flows where time > ago('1s') or time = '2023-11-14T22:13:20Z'", fmt.Sprint(count(func(i int) bool { return i > 3000 || i == 0 }), "|")},
		{"select sum(end_time - time) / 1000 from flows", fmt.Sprint((n*n-n)/2, "|")},
		{"with f as (select flow_id from flows where flow_id < 10) select max(flow_id) from f", "9|"},
		{"select rfc3339(time) from flows where flow_id = 1", "2023-11-14T22:13:20.001Z|"},
		{"select flow_id from flows order by flow_id desc, service_name limit 1", "3999|"},
		{"select 1 + 1", "2|"},
		{"select count(*) from flows where flow_id in (select flow_id from flows where destination_port = 80)", fmt.Sprint(count(func(i int) bool { return i%3 == 0 }), "|")},
		{"select avg(x) from (select count(*) x from flows group by destination_port)", "1333.33333|"},
		{"select max(rn) from (select row_number() over (partition by service_name order by time) rn from flows)", "1000|"},
		{"select count(*) from flows where tcp_rtt_ns > null", "0|"},
		{"select time from flows where flow_id = 2", "2023-11-14T22:13:20.002Z|"},
		{"select max(f.time) as newest from flows f", "2023-11-14T22:13:23.999Z|"},
		{"select complete from flows where +flow_id = 0", "false|"},
	} {
		got, r, err := ask(e, c.statement)
		if err != nil {
			t.Errorf("%s: %v", c.statement, err)
			continue
		}
		if _, rows, _ := strings.Cut(got, "\n"); strings.TrimSpace(rows) != c.want {
			t.Errorf("%s (%s):\n got %s\nwant %s", c.statement, r.Plan, got, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	e := filled(t, 10)
	for _, c := range []struct{ statement, message string }{
		{"", "the statement is empty; try: select * from flows order by time desc limit 10"},
		{"delete from flows", "only SELECT is possible, not DELETE"},
		{"attach database '/tmp/x' as y", "only SELECT is possible, not ATTACH"},
		{"select 1; attach database '/tmp/x' as y", "one statement at a time, please"},
		{"select service from flows", "no such column: service; see the columns at /api/v1/fields, with underscores for dots"},
		{"select name from flows", "no such column: name; did you mean process_executable_name?"},
		{"select destination.port from flows", "no such column: destination.port; in SQL it is called destination_port"},
		{"select * from flow", "no such table: flow; the tables are processes, flows, requests, alerts, lost"},
		{"select * from flows where time > 'yesterday'", `"yesterday" is compared with a time, but is none; write '2026-11-20T02:00:00Z', or ago('1h')`},
		{"select ago('soon')", `"soon" is not a duration; write '90s', '15m', '1h30m' or '2d'`},
		{"select 'x", "the quote at 7 is not closed; text is written in single quotes: 'nginx'"},
		{"select p95(service_name) from flows", "quantiles are of numbers"},
		{"with x as (select 1) insert into flows(time) values (1)", `near "insert": syntax error`},
	} {
		_, _, err := ask(e, c.statement)
		var wrong *Error
		if !errors.As(err, &wrong) || err.Error() != c.message {
			t.Errorf("%s:\n got %v\nwant %s", c.statement, err, c.message)
		}
	}
}

func TestLimits(t *testing.T) {
	e := filled(t, 4000)
	e.limits.Rows = 10
	for _, statement := range []string{"select * from flows", "select flow_id, count(*) from flows group by 1", "select f.flow_id from flows f", "select * from flows order by time"} {
		if _, r, err := ask(e, statement); err != nil || r.Rows != 10 || r.Complete {
			t.Errorf("%s: %+v, %v", statement, r, err)
		}
	}
	e.limits.Rows = 10_000
	e.limits.Groups = 100
	if got, r, err := ask(e, "select flow_id, count(*) from flows group by flow_id"); err != nil || r.Plan != "sqlite" || r.Rows != 4000 {
		t.Errorf("too many groups: %+v, %v %.100s", r, err, got)
	}
	e.limits.Scanned = 5000
	if _, _, err := ask(e, "select count(*) from flows a, flows b where a.flow_id + b.flow_id = 7"); err == nil || !strings.Contains(err.Error(), "looked at more than 5000 rows") {
		t.Errorf("scan limit: %v", err)
	}
	e.limits.Scanned = 1 << 60
	e.limits.Time = 100 * time.Millisecond
	for _, statement := range []string{
		"select count(*) from flows a, flows b, flows c where a.flow_id + b.flow_id + c.flow_id = 7",
		"select a.flow_id from flows a, flows b, flows c where a.flow_id = 0 and b.flow_id + c.flow_id = -7",
		"with recursive c(x) as (select 1 union all select x+1 from c) select count(*) from c",
		"with recursive c(x) as (select 1 union all select x+1 from c) select x from c where x = 1 or x < 0",
	} {
		begun := time.Now()
		_, _, err := ask(e, statement)
		if err == nil || !strings.Contains(err.Error(), "longer than 100ms") {
			t.Errorf("%s: %v", statement, err)
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("%s: cancelled after %s", statement, took)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	e.limits.Time = time.Second
	if _, err := e.Query(ctx, "select count(*) from flows f, flows g", nil, func([]any) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled by the caller: %v", err)
	}
	e.limits.Time = 10 * time.Second
	if _, _, err := ask(e, "select length(group_concat(hex(zeroblob(1000)))) from flows"); err == nil || !strings.Contains(err.Error(), "too big") {
		t.Errorf("memory: %v", err)
	}
}

// TestRandomPredicates compares random statements; the seed is printed.
func TestRandomPredicates(t *testing.T) {
	e := filled(t, 2000)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 150 {
		if both(t, e, randomStatement(r)); t.Failed() {
			return
		}
	}
}

func randomStatement(r *rand.Rand) string {
	ints := []string{"destination_port", "tcp_rtt_ns", "bytes_sent", "process_pid", "flow_id", "time", "tcp_connect_ns"}
	texts := []string{"service_name", "verdict", "process_executable_name", "source_address", "tcp_close_reason"}
	literals := []string{"0", "80", "443", "'443'", "5000000", "5000000.5", "-1", "1e6", "100003", "3", "1700000001000000000", "9223372036854775807"}
	words := []string{"'shop'", "'nginx'", "'error'", "'Cmd3'", "''", "'10.0.1.7'", "'refused'"}
	ops := []string{"=", "<", "<=", ">", ">=", "!=", "<>"}
	pick := func(s []string) string { return s[r.IntN(len(s))] }
	var conditions []string
	for range r.IntN(4) {
		switch r.IntN(6) {
		case 0:
			conditions = append(conditions, pick(texts)+pick(ops)+pick(words))
		case 1:
			conditions = append(conditions, pick(texts)+" "+pick([]string{"in", "not in"})+" ("+pick(words)+", "+pick(words)+")")
		case 2:
			conditions = append(conditions, pick(ints[:5])+" "+pick([]string{"in", "not in"})+" ("+pick(literals)+", "+pick(literals)+")")
		case 3:
			conditions = append(conditions, pick(append(ints, texts...))+pick([]string{" is null", " is not null"}))
		default:
			c := pick(ints)
			l := pick(literals)
			if c == "time" && strings.Contains(l, "'") {
				l = "1700000000500000000"
			}
			conditions = append(conditions, c+" "+pick(ops)+" "+l)
		}
	}
	where := ""
	if len(conditions) > 0 {
		where = " where " + strings.Join(conditions, " and ")
	}
	key := pick(append(texts, "destination_port", "process_pid", "complete", "bucket(time, '250ms')"))
	m := pick(ints[1:3])
	return fmt.Sprintf("select %s, count(*), sum(%s), min(%s), max(%s), avg(%s), p90(%s), count(%s) from flows%s group by 1", key, m, m, m, m, m, m, where)
}

func FuzzStatement(f *testing.F) {
	for _, s := range []string{"select count(*) from flows where time > ago('1h')", "select 'a''b' -- c", "/* x */ select \"a\"\"b\" from [c]", "select 1e5, .5, 0x1F from x where a in (1, 'b')", "select now() - '1h'"} {
		f.Add(s)
	}
	schemas := filled(f, 1).store.Tables()
	f.Fuzz(func(t *testing.T, s string) {
		all, err := tokens(s)
		if err != nil {
			return
		}
		if len(all) == 0 || all[len(all)-1].kind != end {
			t.Fatal("no end")
		}
		for _, tok := range all {
			if tok.from > tok.until || tok.until > len(s) {
				t.Fatalf("%+v of %q", tok, s)
			}
		}
		plain, err := rewrite(s, all, namesOf(schemas), math.MaxInt64/2)
		if err != nil {
			return
		}
		if all, err = tokens(plain); err == nil && readOnly(all) == nil {
			recognise(all, schemas)
		}
	})
}
