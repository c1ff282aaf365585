package agent

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"ghostlight/internal/api"
	"ghostlight/internal/catalog"
	"ghostlight/internal/config"
	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/segment"
)

// The whole spine: a connection of this very test, from the kernel to the
// store, with both ends known.
func TestSpine(t *testing.T) {
	for _, p := range []*kernel.Probe{kernel.HaveBTF, kernel.HaveRing, kernel.HaveTpBTF} {
		if err := p.Have(); err != nil {
			t.Skip(err)
		}
	}
	cfg := config.Default()
	cfg.Data = t.TempDir()
	a, err := Open(cfg, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	port := exchange(t)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rows := a.Store().Follow(event.KindFlow, 0)
	defer rows.Close()
	for ends := 0; ends < 2; {
		r, lost, err := rows.Next(ctx)
		if err != nil || lost > 0 {
			t.Fatalf("%d ends of the connection, %d lost: %v", ends, lost, err)
		}
		for i := range r.Len {
			if get(r, "destination.port", i) != port {
				continue
			}
			ends++
			for column, want := range map[string]string{
				"process.pid": strconv.Itoa(os.Getpid()), "peer.pid": strconv.Itoa(os.Getpid()),
				"bytes.sent": "5", "bytes.received": "5", "complete": "1",
			} {
				if got := get(r, column, i); got != want {
					t.Errorf("%s is %q, want %q in %s", column, got, want, r.AppendJSON(nil, i))
				}
			}
		}
	}
	time.Sleep(1200 * time.Millisecond) // a tick
	s := a.Status()
	if s.Events.Total == 0 || s.Lost.Total > 0 || s.Agent.RSSBytes == 0 || len(s.Sensors) == 0 {
		t.Errorf("status %+v", s)
	}
	if d := a.Doctor(); !d.OK {
		t.Errorf("doctor %+v", d)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// A sensor follows its configuration: what the budget has let go stays away
// with new options, and is forgotten when it is turned off.
func TestChange(t *testing.T) {
	for _, p := range []*kernel.Probe{kernel.HaveRing, kernel.HaveTpBTF, kernel.HaveCgroupSKB} {
		if err := p.Have(); err != nil {
			t.Skip(err)
		}
	}
	k, err := kernel.New(kernel.DefaultRingBytes)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	part := func(text string) config.Part {
		c, err := config.Parse("c.yaml", []byte("sensors: {udp: "+text+"}"))
		if err != nil {
			t.Fatal(err)
		}
		return c.Sensor("udp")
	}
	w := &watcher{k: k}
	for _, d := range catalog.Sensors {
		w.sensors = append(w.sensors, &running{def: d, decode: part("{}").Options, state: api.SensorOff})
	}
	s, out := w.find("udp"), &event.Batch{}
	if err := w.load(w.index("udp"), out); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		shed      bool
		part      string
		state     string
		loads     bool
		sheddable int
	}{
		{part: "{idle: 7s}", state: api.SensorRunning, loads: true, sheddable: 1},
		{shed: true, part: "{idle: 8s}", state: api.SensorShed, sheddable: 1},
		{part: "{enabled: false}", state: api.SensorOff},
		{part: "{idle: 9s}", state: api.SensorRunning, loads: true, sheddable: 1},
		{part: "{idle: 0s}", state: api.SensorFailed},
		{part: "{}", state: api.SensorRunning, loads: true, sheddable: 1},
		{part: "{enabled: false}", state: api.SensorOff},
	} {
		if step.shed {
			if err := w.letGo("udp", api.SensorShed, out); err != nil {
				t.Fatal(err)
			}
		}
		before := s.inst
		err := w.change(w.index("udp"), part(step.part), out)
		if (err != nil) != (step.state == api.SensorFailed) || s.state != step.state {
			t.Errorf("%s: %s, %v", step.part, s.state, err)
		}
		if loaded := s.inst != nil && s.inst != before; loaded != step.loads || (s.obj != nil) != step.loads {
			t.Errorf("%s: loaded %v, attached %v", step.part, loaded, s.obj != nil)
		}
		if n := len(w.sheddable()); n != step.sheddable {
			t.Errorf("%s: %d sensors can be let go", step.part, n)
		}
	}
}

// exchange sends five bytes each way over loopback.
func exchange(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Fatal(err)
	}
	c.Close()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// get returns a cell as text.
func get(r *segment.Rows, column string, row int) string {
	for i := range event.Tables {
		for c, col := range event.Tables[i].Columns {
			if event.Tables[i].Kind != event.KindFlow || col.Name != column {
				continue
			}
			if col.Int != nil {
				return strconv.FormatInt(r.Int(c, row), 10)
			}
			return string(r.Bytes(c, row))
		}
	}
	return "no such column"
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}
