package cli

import (
	"context"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"ghostlight/internal/api"
	"ghostlight/internal/config"
	"ghostlight/internal/event"
	"ghostlight/internal/store"
)

// now is the moment of every test: 60 seconds after the first record.
var now = time.Date(2026, 1, 31, 12, 1, 0, 0, time.UTC)

func sec(s float64) int64 { return int64(s * 1e9) }

var (
	initd = &event.Who{ExecID: "e1", PID: 1, Executable: "/sbin/init", Name: "init", Args: "/sbin/init", Service: "init"}
	shell = &event.Who{ExecID: "e2", ParentExecID: "e1", PID: 100, PPID: 1, Executable: "/bin/bash", Name: "bash", Args: "-bash", UID: 1000, Service: "bash", Cwd: "/home/me"}
	curl  = &event.Who{ExecID: "e3", ParentExecID: "e2", PID: 1234, PPID: 100, Executable: "/usr/bin/curl", Name: "curl", Args: "curl\x00-H\x00it's: \x1b[31mred\x00http://127.0.0.1/", UID: 1000, Service: "curl"}
	nginx = &event.Who{ExecID: "e4", ParentExecID: "e1", PID: 88, PPID: 1, Executable: "/usr/sbin/nginx", Name: "nginx", Args: "nginx: master", Service: "nginx",
		Container: &event.Container{ID: "0123456789abcdef0123", Name: "web", Runtime: "docker"}}
	worker = &event.Who{ExecID: "e5", ParentExecID: "e4", PID: 89, PPID: 88, Executable: "/usr/sbin/nginx", Name: "nginx", Args: "nginx: worker", UID: 33, Service: "nginx", Container: nginx.Container}
	kernel = &event.Who{ExecID: "e6", PID: 2, Name: "kthreadd"}
)

func flow(id uint64, start, end float64, d event.Direction, source, destination string, who, peer *event.Who) event.Flow {
	f := event.Flow{
		ID: id, Time: sec(start), End: sec(end), Transport: event.TCP, Direction: d, Verdict: event.Forwarded,
		Source: netip.MustParseAddrPort(source), Destination: netip.MustParseAddrPort(destination), Who: who, Peer: peer, Complete: true,
	}
	if who != nil {
		f.PID = who.PID
	}
	if peer != nil {
		f.PeerPID = peer.PID
	}
	return f
}

func process(at float64, a event.Action, start float64, w *event.Who) event.Process {
	return event.Process{Time: sec(at), Action: a, PID: w.PID, PPID: w.PPID, Start: sec(start), UID: w.UID, Who: w, Complete: true}
}

// story is a minute of a small host.
func story() *event.Batch {
	ok := flow(1, 1, 1.123, event.Outbound, "127.0.0.1:40522", "127.0.0.1:80", curl, worker)
	ok.Sent, ok.Received = event.Count{Bytes: 78, Packets: 5}, event.Count{Bytes: 1234, Packets: 4}
	ok.TCP = event.TCPInfo{State: 7, CloseReason: event.FinSent, RTTNS: 34000, RTTMinNS: 21000, ConnectNS: 51234}
	same := flow(2, 1.001, 1.123, event.Inbound, "127.0.0.1:40522", "127.0.0.1:80", worker, curl)
	same.Sent, same.Received = ok.Received, ok.Sent
	same.TCP = event.TCPInfo{State: 7, CloseReason: event.FinReceived, RTTNS: 36000}
	refused := flow(3, 2, 2, event.Outbound, "127.0.0.1:40524", "127.0.0.1:81", curl, nil)
	refused.Verdict, refused.TCP = event.Error, event.TCPInfo{State: 7, CloseReason: event.Refused}
	long := flow(4, 3, 13, event.Outbound, "10.0.0.5:5000", "10.0.0.7:5432", worker, nil)
	long.Sent, long.Received, long.TCP = event.Count{Bytes: 1000, Packets: 9}, event.Count{Bytes: 5123456, Packets: 4000}, event.TCPInfo{State: 1, RTTNS: 2345678, Retransmits: 3}
	long.Complete = false
	from := flow(5, 4, 5, event.Inbound, "192.0.2.9:6000", "10.0.0.5:80", worker, nil)
	from.Sent, from.Received, from.TCP = event.Count{Bytes: 300}, event.Count{Bytes: 30}, event.TCPInfo{State: 7, CloseReason: event.ResetReceived}
	from.Verdict = event.Error
	dns := flow(6, 6, 6.5, event.Outbound, "[2001:db8::5]:5353", "[2001:db8::53]:53", curl, nil)
	dns.Transport, dns.Sent = event.UDP, event.Count{Bytes: 60, Packets: 1}
	drop := flow(0, 7, 7, event.Inbound, "203.0.113.1:7000", "10.0.0.5:80", nil, nil)
	drop.Verdict, drop.Drop, drop.Complete = event.Dropped, event.Drop{Reason: "no_socket", Interface: "eth0", Count: 4}, false
	ping := flow(8, 8, 8, event.Outbound, "10.0.0.5:0", "10.0.0.7:0", nil, nil)
	ping.Transport = event.ICMP

	killed := process(51, event.Exit, 7, shell)
	killed.PID, killed.ExitSignal = 101, 9
	killed.Who = &event.Who{ExecID: "e9", ParentExecID: "e2", PID: 101, PPID: 100, Executable: "/bin/sleep", Name: "sleep", Args: "sleep\x0060", UID: 1000}
	failed := process(50, event.Exit, 2000, curl)
	failed.ExitCode = 7

	b := &event.Batch{Wall: now.Add(-time.Minute).UnixNano()}
	b.Flows = []event.Flow{ok, same, refused, long, from, dns, drop, ping}
	b.Processes = []event.Process{
		process(0, event.Running, 1, initd), process(0, event.Running, 1, kernel), process(0, event.Running, 5, shell), process(0, event.Running, 3, nginx), process(0, event.Running, 4, worker),
		process(0.9, event.Fork, 2000, &event.Who{ExecID: "e3f", ParentExecID: "e2", PID: 1234, PPID: 100, Executable: "/bin/bash", Name: "bash", Args: "-bash", UID: 1000}),
		process(0.95, event.Exec, 2000, curl),
		failed, killed,
	}
	return b
}

var (
	oldest = now.Add(-time.Hour)
	status = api.Status{
		Version: "1.0", Host: api.Host{Name: "web-1", Kernel: "6.18.0", Arch: "amd64"}, UptimeNS: sec(7530), Agent: api.Cost{CPUPercent: 0.412, RSSBytes: 28_300_000},
		Events: api.Events{Total: 1234567, PerSecond: 12.345},
		Lost:   api.Lost{Total: 12, ByStage: []api.LostStage{{Stage: "ring", Sensor: "tcp", Count: 10}, {Stage: "store", Count: 2}}},
		Budget: api.Budget{State: api.BudgetShedding, CPUPercent: 3.4, CPULimitPercent: 3, MemoryBytes: 30e6, MemoryLimitBytes: 64 << 20, Shed: []string{"drop"}},
		Store:  api.Store{Bytes: 123456789, Rows: 4567890, Oldest: &oldest, RetentionNS: sec(86400), RetentionBytes: 2 << 30, Error: "no space left on device"},
		Sensors: []api.Sensor{
			{Name: "process", Doc: "fork, exec, exit", State: api.SensorRunning, Events: 5000},
			{Name: "tcp", Doc: "connections", State: api.SensorRunning, Events: 1229567, Lost: 10},
			{Name: "drop", Doc: "dropped packets", State: api.SensorShed},
			{Name: "udp", Doc: "datagrams", State: api.SensorFailed, Error: "no hook works on this kernel"},
		},
		Programs:    []api.Program{{Name: "tcp_close", Sensor: "tcp", Runs: 123456, NSPerRun: 812, CPUPercent: 0.0123}},
		FeaturesOff: 2,
	}
	doctor = api.Doctor{
		OK: true, Kernel: "6.18.0", Arch: "amd64", Lockdown: "integrity", User: api.User{UID: 0},
		Sensors: []api.SensorReport{
			{Name: "tcp", Doc: "connections", OK: true, Hooks: []api.Hook{
				{What: "state changes", Without: "all TCP", Tier: "tracepoint", Tiers: []api.Tier{{Name: "tp_btf", Reason: "operation not permitted"}, {Name: "tracepoint", Taken: true}}},
				{What: "resets", Without: "why a connection was reset", Tiers: []api.Tier{{Name: "tp_btf tcp_send_reset", Reason: "no such tracepoint"}}},
			}},
			{Name: "drop", Doc: "dropped packets", Error: "no hook works on this kernel"},
		},
		Probes: []api.Probe{{Name: "ring buffer", Since: "5.8", OK: true}, {Name: "kprobe", Since: "4.1", Reason: "not compiled in", Loss: "hooks on kernel functions"}},
		Notes:  []string{"tracefs is not mounted"},
	}
)

// agentOf runs an API on a socket that answers from the story, and returns
// where.
func agentOf(t testing.TB, change ...func(*api.Backend)) (server string, st *store.Store) {
	t.Helper()
	s, st := serverOf(t, change...)
	path := filepath.Join(t.TempDir(), "g.sock")
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.Serve(ctx, api.Listen{Address: config.Off, Socket: path}, func() { close(ready) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-ready
	return "unix:" + path, st
}

func serverOf(t testing.TB, change ...func(*api.Backend)) (*api.Server, *store.Store) {
	t.Helper()
	st, err := store.Open(t.TempDir(), event.Tables, store.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	st.Append(story())
	st.Append(&event.Batch{Wall: now.Add(-time.Minute).UnixNano(), Requests: exchanges()})
	b := api.Backend{
		Store: st, Version: "1.0", Now: func() time.Time { return now },
		Status: func() api.Status { return status }, Doctor: func() api.Doctor { return doctor },
		SQL: fakeSQL,
	}
	for _, c := range change {
		c(&b)
	}
	s, err := api.New(b)
	if err != nil {
		t.Fatal(err)
	}
	return s, st
}

// fakeSQL stands for an engine.
func fakeSQL(_ context.Context, q api.Question, head func([]api.AnswerColumn) error, row func([]any) error) (bool, api.AnswerStats, error) {
	if q.SQL == "wrong" {
		return false, api.AnswerStats{}, &api.Problem{Status: http.StatusBadRequest, Message: `near "wrong"`, Hint: "begin with select"}
	}
	head([]api.AnswerColumn{{Name: "service_name", Type: "text"}, {Name: "n", Type: "integer"}, {Name: "share", Type: "real"}})
	row([]any{"nginx", int64(1200), 0.5})
	row([]any{"\x1b[2Jevil", int64(3), nil})
	return q.Limit != 2, api.AnswerStats{RowsScanned: 12345, DurationNS: 5e6, Plan: "native"}, nil
}
