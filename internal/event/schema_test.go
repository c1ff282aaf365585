package event

import (
	"net/netip"
	"strings"
	"testing"
)

// The names are JSON paths, SQL columns and filters at once: none may hide
// another.
func TestColumnNames(t *testing.T) {
	for _, table := range Tables {
		names, sql := map[string]bool{}, map[string]bool{}
		for i := range table.Columns {
			c := &table.Columns[i]
			if names[c.Name] || sql[c.SQLName()] {
				t.Errorf("%s: two columns are called %s", table.Name, c.Name)
			}
			names[c.Name], sql[c.SQLName()] = true, true
			if c.Doc == "" || (c.Int == nil) == (c.Append == nil) {
				t.Errorf("%s: %s needs a doc, and either Int or Append", table.Name, c.Name)
			}
			isText := c.Type == String || c.Type == Strings || c.Type == Map
			if c.Text != nil && c.Type != String {
				t.Errorf("%s: %s has texts that are not cells", table.Name, c.Name)
			}
			if isText != (c.Append != nil) {
				t.Errorf("%s: %s has cells that are not of its type", table.Name, c.Name)
			}
		}
		for name := range names {
			for at := strings.IndexByte(name, '.'); at > 0; {
				if names[name[:at]] {
					t.Errorf("%s: %s is a value and the object of %s", table.Name, name[:at], name)
				}
				next := strings.IndexByte(name[at+1:], '.')
				if next < 0 {
					break
				}
				at += 1 + next
			}
		}
		if table.Columns[0].Name != "time" {
			t.Errorf("%s does not begin with its time", table.Name)
		}
	}
}

// Records of which nothing is known can be written all the same.
func TestEmptyRecords(t *testing.T) {
	b := &Batch{Processes: make([]Process, 1), Flows: make([]Flow, 1), Requests: make([]Request, 1), Alerts: make([]Alert, 1), Lost: make([]Lost, 1)}
	for _, table := range Tables {
		if table.Len(b) != 1 {
			t.Errorf("%s has %d rows", table.Name, table.Len(b))
		}
		for _, c := range table.Columns {
			if c.Int != nil {
				c.Int(b, 0)
			} else if got := string(c.Append([]byte("x"), b, 0)); !strings.HasPrefix(got, "x") {
				t.Errorf("%s: %s wrote over what was there: %q", table.Name, c.Name, got)
			}
		}
	}
}

func TestFlowCells(t *testing.T) {
	b := &Batch{Wall: 1000, Flows: []Flow{{
		Time: 5, Transport: TCP, Direction: Inbound, Verdict: Error,
		Source: netip.MustParseAddrPort("[::ffff:10.0.0.1]:1234"), Destination: netip.MustParseAddrPort("[2001:db8::1]:443"),
		TCP: TCPInfo{State: 7, CloseReason: ResetReceived}, Who: &Who{Service: "shop", Container: &Container{ID: "c1"}},
		Attrs: []Attr{{"a", "1"}, {"b", "2"}},
	}}}
	want := map[string]string{
		"network.transport": "tcp", "network.type": "ipv4", "source.address": "10.0.0.1", "destination.address": "2001:db8::1",
		"direction": "inbound", "verdict": "error", "tcp.state": "close", "tcp.close_reason": "reset_received",
		"service.name": "shop", "container.id": "c1", "peer.service.name": "", "attributes": "a\x001\x00b\x002",
	}
	wantInt := map[string]int64{"time": 1005, "source.port": 1234, "process.pid": Null, "tcp.retransmits": 0, "tcp.rtt_ns": Null, "complete": 0}
	for _, c := range flowColumns {
		if s, ok := want[c.Name]; ok && string(c.Append(nil, b, 0)) != s {
			t.Errorf("%s is %q, want %q", c.Name, c.Append(nil, b, 0), s)
		}
		if n, ok := wantInt[c.Name]; ok && c.Int(b, 0) != n {
			t.Errorf("%s is %d, want %d", c.Name, c.Int(b, 0), n)
		}
	}
}

// Writing a row is on the hot path.
func TestCellsDoNotAllocate(t *testing.T) {
	b := &Batch{Flows: []Flow{{
		Source: netip.MustParseAddrPort("10.0.0.1:1"), Destination: netip.MustParseAddrPort("[2001:db8::1]:2"), Transport: TCP,
		Who: &Who{Name: "curl"}, Attrs: []Attr{{"a", "1"}},
	}}}
	buf := make([]byte, 0, 1024)
	n := testing.AllocsPerRun(100, func() {
		for i := range flowColumns {
			if c := &flowColumns[i]; c.Int != nil {
				c.Int(b, 0)
			} else {
				buf = c.Append(buf[:0], b, 0)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}
