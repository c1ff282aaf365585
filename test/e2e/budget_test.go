package e2e

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// storm opens and closes connections over loopback, as fast as it goes, until
// the context ends.
func storm(ctx context.Context, t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() { // ended by the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	go func() { // ended by the context
		for ctx.Err() == nil {
			if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
				c.Read(make([]byte, 1)) // until the other end has closed: no port waits on this one
				c.Close()
			}
		}
	}()
}

// Above its budget the agent lets go of a sensor and says so everywhere, and
// takes it back when there is room. The periods are the real ones: two of five
// seconds to let go, six to take back. A storm takes more than twice the limit,
// a host that is quiet less than half of it.
func TestBudget(t *testing.T) {
	needRoot(t)
	file := filepath.Join(t.TempDir(), "c.yaml")
	write(t, file, "budget: {cpu: 8%, memory: 0}\n")
	a := startIn(t, t.TempDir(), nil, "--config", file)
	a.dropped(freePort(t))

	ctx, calm := context.WithCancel(context.Background())
	defer calm()
	storm(ctx, t)
	eventually(t, 60*time.Second, "a sensor is let go", func() error {
		if b := a.status().Budget; b.State != "shedding" || !slices.Equal(b.Shed, []string{"drop"}) {
			return fmt.Errorf("%+v", b)
		}
		return nil
	})
	a.sensor("drop", "shed")
	calm()
	a.alert("budget.shed", "drop")
	a.metric(`ghostlight_budget_shed_sensors 1`, `ghostlight_sensor_running{sensor="drop"} 0`)
	if out := a.cli("status"); !strings.Contains(out, "shed") {
		t.Errorf("status does not tell:\n%s", out)
	}

	eventually(t, 90*time.Second, "the sensor is back", func() error {
		if b := a.status().Budget; b.State != "ok" || len(b.Shed) > 0 {
			return fmt.Errorf("%+v", b)
		}
		return nil
	})
	a.sensor("drop", "running")
	a.alert("budget.restored", "drop")
	a.metric(`ghostlight_budget_shed_sensors 0`, `ghostlight_sensor_running{sensor="drop"} 1`)
	a.dropped(freePort(t))
}

// alert waits until the table of alerts has one of that name about a sensor.
func (a *agent) alert(name, sensor string) {
	a.t.Helper()
	eventually(a.t, 15*time.Second, "the alert "+name, func() error {
		rows := a.rows("query", "select * from alerts")
		for _, r := range rows {
			if r.str("alert_name") == name && strings.Contains(r.str("alert_message"), "sensor "+sensor+" ") {
				return nil
			}
		}
		return fmt.Errorf("%v", rows)
	})
}

// metric waits until Prometheus would read these lines.
func (a *agent) metric(lines ...string) {
	a.t.Helper()
	for _, line := range lines {
		eventually(a.t, 15*time.Second, "metric "+line, func() error {
			if all := a.metrics(); !strings.Contains(all, "\n"+line+"\n") {
				return fmt.Errorf("have\n%s", all)
			}
			return nil
		})
	}
}
