package prometheus

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/export"
)

func start(t testing.TB, maxSeries int) *instance {
	t.Helper()
	i, err := newInstance(export.Env{
		Decode: func(o any) error { o.(*options).MaxSeries = maxSeries; return nil },
		Self: func() []export.Metric {
			return []export.Metric{{Name: "process_memory_usage_bytes", Help: "Resident memory.", Value: 42}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return i.(*instance)
}

func scrape(t *testing.T, e *instance) string {
	t.Helper()
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest("GET", e.Path(), nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func web(client string) event.Flow {
	return event.Flow{
		Transport: event.TCP, Direction: event.Outbound, Verdict: event.Forwarded,
		Sent: event.Count{Bytes: 100, Packets: 2}, Received: event.Count{Bytes: 1000, Packets: 3},
		TCP: event.TCPInfo{CloseReason: event.FinSent, ConnectNS: 50_000, RTTNS: 30_000, Retransmits: 1},
		Who: &event.Who{Service: client}, Peer: &event.Who{Service: "nginx"},
	}
}

func TestScrape(t *testing.T) {
	e := start(t, 10)
	dropped := event.Flow{Verdict: event.Dropped, Drop: event.Drop{Reason: "no_socket", Interface: "lo", Count: 7}}
	e.Export(&event.Batch{
		Flows:     []event.Flow{web("curl"), web("curl"), dropped},
		Processes: []event.Process{{Action: event.Exec, Who: &event.Who{Service: "curl"}}, {Action: event.Running}},
		Lost:      []event.Lost{{Stage: "ring", Sensor: "tcp", Count: 3}},
	})
	got := scrape(t, e)
	for _, want := range []string{
		`ghostlight_flow_io_bytes_total{direction="outbound",network_io_direction="receive",network_transport="tcp",peer_service_name="nginx",service_name="curl"} 2000`,
		`ghostlight_flow_io_packets_total{direction="outbound",network_io_direction="transmit",network_transport="tcp",peer_service_name="nginx",service_name="curl"} 4`,
		`ghostlight_tcp_connections_total{direction="outbound",network_transport="tcp",peer_service_name="nginx",service_name="curl",tcp_close_reason="fin_sent"} 2`,
		`ghostlight_tcp_retransmits_total{direction="outbound",network_transport="tcp",peer_service_name="nginx",service_name="curl"} 2`,
		`ghostlight_tcp_connect_duration_seconds_bucket{direction="outbound",network_transport="tcp",peer_service_name="nginx",service_name="curl",le="0.0001"} 2`,
		`ghostlight_tcp_rtt_seconds_count{direction="outbound",network_transport="tcp",peer_service_name="nginx",service_name="curl"} 2`,
		`ghostlight_dropped_packets_total{drop_reason="no_socket",network_interface_name="lo"} 7`,
		`ghostlight_process_changes_total{action="exec",service_name="curl"} 1`,
		`ghostlight_lost_records_total{sensor="tcp",stage="ring"} 3`,
		`process_memory_usage_bytes 42`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, `action="running"`) {
		t.Error("a process that was there before the start is counted as a change")
	}
}

// However many services there are, the number of series is bounded and the sum
// stays right.
func TestOverflow(t *testing.T) {
	e := start(t, 10)
	for i := range 100 {
		e.Export(&event.Batch{Flows: []event.Flow{web(fmt.Sprint("client-", i))}})
	}
	got := scrape(t, e)
	if n := strings.Count(got, "\nghostlight_tcp_connections_total{"); n != 11 {
		t.Errorf("%d series, want 10 and one for the rest", n)
	}
	for _, want := range []string{
		`ghostlight_tcp_connections_total{otel_metric_overflow="true",tcp_close_reason="fin_sent"} 90`,
		`ghostlight_tcp_rtt_seconds_count{otel_metric_overflow="true"} 90`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
}

func BenchmarkExport(b *testing.B) {
	e := start(b, 10)
	batch := &event.Batch{Flows: []event.Flow{web("curl")}}
	b.ReportAllocs()
	for b.Loop() {
		e.Export(batch)
	}
}

func TestExportDoesNotAllocate(t *testing.T) {
	e := start(t, 10)
	b := &event.Batch{Flows: []event.Flow{web("curl")}}
	e.Export(b)
	if n := testing.AllocsPerRun(100, func() { e.Export(b) }); n != 0 {
		t.Errorf("%v allocations per flow", n)
	}
}
