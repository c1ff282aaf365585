package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/store"
)

// now is the moment of every test: 60 seconds after the first record.
var now = time.Date(2026, 1, 31, 12, 1, 0, 0, time.UTC)

func sec(s float64) int64 { return int64(s * 1e9) }

var (
	initd = &event.Who{ExecID: "e1", PID: 1, Executable: "/sbin/init", Name: "init", Args: "/sbin/init", Service: "init"}
	shell = &event.Who{ExecID: "e2", ParentExecID: "e1", PID: 100, PPID: 1, Executable: "/bin/bash", Name: "bash", Args: "-bash", UID: 1000, Service: "bash"}
	curl  = &event.Who{ExecID: "e3", ParentExecID: "e2", PID: 1234, PPID: 100, Executable: "/usr/bin/curl", Name: "curl", Args: "curl\x00-s\x00http://127.0.0.1/", UID: 1000, Service: "curl"}
	nginx = &event.Who{ExecID: "e4", ParentExecID: "e1", PID: 88, PPID: 1, Executable: "/usr/sbin/nginx", Name: "nginx", Args: "nginx: worker", UID: 33, Service: "nginx",
		Container: &event.Container{ID: "0123456789abcdef0123", Name: "web", Runtime: "docker"}}
)

func tcp(id uint64, start, end float64, d event.Direction, source, destination string, who, peer *event.Who) event.Flow {
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

// story is a minute of a small host: curl asks nginx, once well and once in
// vain; nginx talks to a database elsewhere for long; a packet is dropped.
func story() *event.Batch {
	ok := tcp(1, 1, 1.1, event.Outbound, "127.0.0.1:40522", "127.0.0.1:80", curl, nginx)
	ok.Sent, ok.Received = event.Count{Bytes: 78, Packets: 5}, event.Count{Bytes: 1200, Packets: 4}
	ok.TCP = event.TCPInfo{State: 7, CloseReason: event.FinSent, RTTNS: 34000, ConnectNS: 51000}
	same := tcp(2, 1, 1.1, event.Inbound, "127.0.0.1:40522", "127.0.0.1:80", nginx, curl)
	same.Sent, same.Received = ok.Received, ok.Sent
	same.TCP = event.TCPInfo{State: 7, CloseReason: event.FinReceived, RTTNS: 36000}
	refused := tcp(3, 2, 2, event.Outbound, "127.0.0.1:40524", "127.0.0.1:81", curl, nil)
	refused.Verdict, refused.TCP = event.Error, event.TCPInfo{State: 7, CloseReason: event.Refused}
	long1 := tcp(4, 3, 13, event.Outbound, "10.0.0.5:5000", "10.0.0.7:5432", nginx, nil)
	long1.Sent, long1.Received, long1.TCP = event.Count{Bytes: 1000}, event.Count{Bytes: 50000}, event.TCPInfo{State: 1, RTTNS: 2e6, Retransmits: 3}
	long2 := long1
	long2.Time, long2.End = sec(13), sec(23)
	from := tcp(5, 4, 5, event.Inbound, "192.0.2.9:6000", "10.0.0.5:80", nginx, nil)
	from.Sent, from.Received, from.TCP = event.Count{Bytes: 300}, event.Count{Bytes: 30}, event.TCPInfo{State: 7, CloseReason: event.ResetReceived}
	from.Verdict = event.Error
	dns := tcp(6, 6, 6.5, event.Outbound, "[2001:db8::5]:5353", "[2001:db8::53]:53", curl, nil)
	dns.Transport, dns.Sent = event.UDP, event.Count{Bytes: 60, Packets: 1}
	drop := tcp(0, 7, 7, event.Inbound, "203.0.113.1:7000", "10.0.0.5:80", nginx, nil)
	drop.Verdict, drop.Drop, drop.Complete = event.Dropped, event.Drop{Reason: "no_socket", Interface: "eth0", Count: 4}, false

	b := &event.Batch{Wall: now.Add(-time.Minute).UnixNano()}
	b.Flows = []event.Flow{ok, same, refused, long1, from, dns, drop, long2}
	b.Processes = []event.Process{
		process(0, event.Running, 1, initd), process(0, event.Running, 5, shell), process(0, event.Running, 3, nginx),
		process(0.9, event.Fork, 2000, &event.Who{ExecID: "e3f", ParentExecID: "e2", PID: 1234, PPID: 100, Executable: "/bin/bash", Name: "bash", Args: "-bash", UID: 1000}),
		process(0.95, event.Exec, 2000, curl),
		process(50, event.Exit, 2000, curl),
	}
	return b
}

func openStore(t testing.TB) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir(), event.Tables, store.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// newServer answers from a store that holds the story.
func newServer(t testing.TB, change ...func(*Backend)) (*Server, *store.Store) {
	t.Helper()
	st := openStore(t)
	st.Append(story())
	st.Append(&event.Batch{Wall: now.UnixNano() - sec(60), Requests: exchanges()})
	b := Backend{
		Store: st, Version: "test", Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)), Now: func() time.Time { return now },
		Status: func() Status { return Status{Version: "test", Sensors: []Sensor{{Name: "tcp", State: SensorRunning}}} },
		Doctor: func() Doctor { return Doctor{OK: true, Kernel: "6.18"} },
	}
	for _, c := range change {
		c(&b)
	}
	s, err := New(b)
	if err != nil {
		t.Fatal(err)
	}
	return s, st
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// ask calls the mux as the unix socket does.
func ask(s *Server, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	secured(s.mux).ServeHTTP(w, r)
	return w
}

// serve runs s on l until the test ends, and returns a client for its socket.
func serve(t testing.TB, s *Server, l Listen) *http.Client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	return unixClient(l.Socket)
}

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
