package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/store"
)

// status is what these tests read of /api/v1/status.
type status struct {
	Budget struct {
		State string
		Shed  []string
	}
	Store struct {
		Retention int64 `json:"retention_ns"`
	}
	Sensors []struct {
		Name, State string
	}
}

func (a *agent) status() (s status) {
	a.t.Helper()
	a.get("/api/v1/status", &s)
	return s
}

// sensor waits until the named sensor is in that state.
func (a *agent) sensor(name, state string) {
	a.t.Helper()
	eventually(a.t, 15*time.Second, name+" is "+state, func() error {
		sensors := a.status().Sensors
		for _, s := range sensors {
			if s.Name == name && s.State == state {
				return nil
			}
		}
		return fmt.Errorf("%+v", sensors)
	})
}

// says waits until the agent's log has all of these words.
func (a *agent) says(words ...string) {
	a.t.Helper()
	eventually(a.t, 15*time.Second, "the log has its line", func() error {
		for _, w := range words {
			if !strings.Contains(a.log.String(), w) {
				return fmt.Errorf("no %q in\n%s", w, a.log)
			}
		}
		return nil
	})
}

// metrics reads what Prometheus reads.
func (a *agent) metrics() string {
	a.t.Helper()
	r, err := http.Get(a.url + "/metrics")
	if err != nil {
		a.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(body)
}

// reload gives the agent another configuration, as systemctl reload does.
func (a *agent) reload(file, text string) {
	a.t.Helper()
	write(a.t, file, text)
	if err := a.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		a.t.Fatal(err)
	}
}

// knock sends a packet to a port of UDP where nobody listens: the kernel drops
// it and says so.
func knock(t *testing.T, port string) {
	t.Helper()
	c, err := net.Dial("udp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("anybody?")); err != nil {
		t.Fatal(err)
	}
}

// dropped knocks until the agent tells of it.
func (a *agent) dropped(port string) {
	a.t.Helper()
	eventually(a.t, 15*time.Second, "a drop is told", func() error {
		knock(a.t, port)
		if n := len(a.rows("flows", "--verdict", "dropped", "--port", port, "--since", "1m")); n == 0 {
			return fmt.Errorf("none")
		}
		return nil
	})
}

// chatter keeps a connection busy until the test ends, and returns its port.
func chatter(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); c.Close(); s.Close() })
	go io.Copy(io.Discard, s) // ended by its connection, as is the next
	go func() {
		for err := error(nil); err == nil; time.Sleep(50 * time.Millisecond) {
			_, err = c.Write([]byte("still here"))
		}
	}()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// oldRows leaves a segment of rows that are three hours old.
func oldRows(t *testing.T, data string) {
	t.Helper()
	s, err := store.Open(data, event.Tables, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-3 * time.Hour).UnixNano()
	who := &event.Who{Service: "of-old"}
	s.Append(&event.Batch{Wall: old, Flows: []event.Flow{{Transport: event.TCP, Who: who}, {Transport: event.TCP, Who: who}}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// SIGHUP takes over everything but what the documentation names, while the
// agent watches on. A broken file changes nothing and its line is told.
func TestReload(t *testing.T) {
	needRoot(t)
	data, file := t.TempDir(), filepath.Join(t.TempDir(), "c.yaml")
	oldRows(t, data)
	write(t, file, "sensors:\n  tcp: {interval: 1h}\n")
	a := startIn(t, data, nil, "--config", file)
	segments := func() int {
		files, err := filepath.Glob(filepath.Join(data, "flows", "*.parquet"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	port, quiet := chatter(t), freePort(t)
	open := func() int {
		return len(a.rows("flows", "--port", port, "complete:false", "--since", "1m", "--last", "50"))
	}
	a.dropped(freePort(t))
	if n := segments(); n != 1 || a.rows("query", "select count(*) as n from flows where service_name = 'of-old'")[0].num("n") != 2 {
		t.Fatalf("%d segments of old rows", n)
	}
	if n := open(); n > 0 {
		t.Fatalf("%d reports of a connection that is to be reported once an hour", n)
	}

	a.reload(file, "retention: {age: 1h}\nlog: {format: json}\nsensors:\n  drop: {enabled: false}\n  tcp: {interval: 200ms}\n")
	a.says("these changes take a restart", "keys=log.format", "retention.age sensors.drop.enabled sensors.tcp.interval")
	a.sensor("drop", "off")
	eventually(t, 15*time.Second, "rows older than an hour go", func() error {
		if n := segments(); n > 0 {
			return fmt.Errorf("%d segments", n)
		}
		return nil
	})
	if n := time.Duration(a.status().Store.Retention); n != time.Hour {
		t.Errorf("the status tells of a retention of %s", n)
	}
	eventually(t, 15*time.Second, "the connection is reported five times a second", func() error {
		if n := open(); n < 4 {
			return fmt.Errorf("%d reports", n)
		}
		return nil
	})
	for range 5 {
		knock(t, quiet)
	}

	const again = "retention: {age: 2h}\nsensors:\n  tcp: {interval: 200ms}\n"
	a.reload(file, again)
	a.sensor("drop", "running")
	a.dropped(freePort(t))
	if n := len(a.rows("flows", "--verdict", "dropped", "--port", quiet, "--since", "1m")); n > 0 {
		t.Errorf("%d drops were told while their sensor was off", n)
	}

	a.reload(file, again+"  drop:\n    enabled: false\n    rate: 200000\n")
	a.says("the configuration is wrong: going on with the old one", "c.yaml:6:")
	a.reload(file, "retention: {age: 3h}\nsensors: {drop: {enabled: false}}\nlitsen: x\n")
	a.says("c.yaml:3:")
	a.dropped(freePort(t)) // nothing has changed
	if n := time.Duration(a.status().Store.Retention); n != 2*time.Hour {
		t.Errorf("a broken file leaves a retention of %s", n)
	}
}
