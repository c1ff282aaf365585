package otlp

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	logspb "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/slim/otlp/common/v1"
	spanpb "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"ghostlight/internal/aggregate"
	"ghostlight/internal/event"
)

// parse reads what we wrote by the published definitions, and fails where we
// wrote a field that they don't have.
func parse[M proto.Message](t testing.TB, p []byte, into M) M {
	t.Helper()
	if err := proto.Unmarshal(p, into); err != nil {
		t.Fatal(err)
	}
	known(t, into.ProtoReflect())
	return into
}

func known(t testing.TB, m protoreflect.Message) {
	t.Helper()
	if u := m.GetUnknown(); len(u) > 0 {
		t.Errorf("%s has no such field: %x", m.Descriptor().FullName(), u)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				known(t, v.List().Get(i).Message())
			}
		default:
			known(t, v.Message())
		}
		return true
	})
}

// text writes attributes in one line, by name.
func text(attrs []*commonpb.KeyValue) string {
	var all []string
	for _, a := range attrs {
		switch v := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			all = append(all, a.GetKey()+"="+v.StringValue)
		case *commonpb.AnyValue_IntValue:
			all = append(all, fmt.Sprintf("%s=%d", a.GetKey(), v.IntValue))
		case *commonpb.AnyValue_BoolValue:
			all = append(all, fmt.Sprintf("%s=%t", a.GetKey(), v.BoolValue))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func spanOf(t testing.TB, r *event.Request, wall int64) *spanpb.Span {
	t.Helper()
	return parse(t, appendSpan(nil, r, wall), &spanpb.Span{})
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// stories are requests and what becomes of each: kind, name, status and
// attributes.
func stories() []struct {
	name string
	r    event.Request
	want string
} {
	ends := func(r event.Request) event.Request {
		r.Source, r.Destination, r.Transport, r.Complete = addr("10.0.0.1:40000"), addr("[::ffff:10.0.0.2]:8080"), event.TCP, true
		return r
	}
	return []struct {
		name string
		r    event.Request
		want string
	}{
		{"server", ends(event.Request{
			Family: event.HTTP, Role: event.Server, Protocol: "http", Version: "1.1", Operation: "GET", Route: "/items/{id}", Text: "/items/7", Query: "q=***",
			Status: 500, Error: "500", RequestBytes: 80, ResponseBytes: 1200, QueueNS: 5, TID: 9, TLS: true, Peer: &event.Who{Service: "nginx"},
			Trace: event.Trace{Inferred: true}, Attrs: []event.Attr{{Key: "server.address", Value: "shop.example"}, {Key: "server.port", Value: "443"}, {Key: "user_agent.original", Value: "x"}},
		}), `SERVER "GET /items/{id}" ERROR client.address=10.0.0.1 client.port=40000 error.type=500 ghostlight.queue_ns=5 ghostlight.trace.inferred=true http.request.method=GET http.request.size=80 http.response.size=1200 http.response.status_code=500 http.route=/items/{id} network.local.address=10.0.0.2 network.local.port=8080 network.peer.address=10.0.0.1 network.peer.port=40000 network.protocol.name=http network.protocol.version=1.1 network.transport=tcp server.address=shop.example server.port=443 service.peer.name=nginx thread.id=9 url.path=/items/7 url.query=q=*** url.scheme=https user_agent.original=x`},
		{"client", ends(event.Request{
			Family: event.HTTP, Role: event.Client, Protocol: "http", Version: "1.1", Operation: "_OTHER", Text: "/items/7", Query: "q=1", Status: 200,
		}), `CLIENT "HTTP" UNSET http.request.method=_OTHER http.request.size=0 http.response.size=0 http.response.status_code=200 network.local.address=10.0.0.1 network.local.port=40000 network.peer.address=10.0.0.2 network.peer.port=8080 network.protocol.name=http network.protocol.version=1.1 network.transport=tcp server.address=10.0.0.2 server.port=8080 url.full=http://10.0.0.2:8080/items/7?q=1 url.scheme=http`},
		{"rpc", event.Request{
			Family: event.RPC, Role: event.Client, Protocol: "grpc", System: "grpc", Operation: "a.B/C", Outcome: "NOT_FOUND", Error: "NOT_FOUND", Complete: true,
		}, `CLIENT "a.B/C" ERROR error.type=NOT_FOUND network.protocol.name=grpc network.transport=unix rpc.method=a.B/C rpc.response.status_code=NOT_FOUND rpc.system.name=grpc`},
		{"query", ends(event.Request{
			Family: event.DB, Role: event.Client, Protocol: "postgresql", System: "postgresql", Operation: "SELECT", Target: "items", Namespace: "main",
			Summary: "SELECT items", Text: "select * from items where id = ?", Attrs: []event.Attr{{Key: "db.response.returned_rows", Value: "7"}, {Key: "db.operation.batch.size", Value: "many"}},
		}), `CLIENT "SELECT items" UNSET db.collection.name=items db.namespace=main db.operation.batch.size=many db.operation.name=SELECT db.query.summary=SELECT items db.query.text=select * from items where id = ? db.response.returned_rows=7 db.system.name=postgresql network.local.address=10.0.0.1 network.local.port=40000 network.peer.address=10.0.0.2 network.peer.port=8080 network.protocol.name=postgresql network.transport=tcp server.address=10.0.0.2 server.port=8080`},
		{"produce", event.Request{Family: event.Messaging, Role: event.Client, Protocol: "kafka", System: "kafka", Operation: "produce", Target: "orders"},
			`PRODUCER "produce orders" UNSET ghostlight.complete=false messaging.destination.name=orders messaging.operation.name=produce messaging.system=kafka network.protocol.name=kafka network.transport=unix`},
		{"fetch", event.Request{Family: event.Messaging, Role: event.Client, Protocol: "kafka", System: "kafka", Operation: "fetch", Target: "\xff", Complete: true},
			"CONSUMER \"fetch \uFFFD\" UNSET messaging.destination.name=\uFFFD messaging.operation.name=fetch messaging.system=kafka network.protocol.name=kafka network.transport=unix"},
		{"lookup", event.Request{Family: event.DNS, Role: event.Server, Protocol: "dns", Operation: "A", Target: "a.example", Outcome: "NXDOMAIN", Error: "NXDOMAIN", Transport: event.UDP, Complete: true},
			`SERVER "DNS A" ERROR dns.question.name=a.example dns.question.type=A dns.response.code=NXDOMAIN error.type=NXDOMAIN network.protocol.name=dns network.transport=udp`},
	}
}

func TestSpan(t *testing.T) {
	for _, x := range stories() {
		t.Run(x.name, func(t *testing.T) {
			s := spanOf(t, &x.r, 0)
			kind, status := strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_"), strings.TrimPrefix(s.GetStatus().GetCode().String(), "STATUS_CODE_")
			if got := fmt.Sprintf("%s %q %s %s", kind, s.GetName(), status, text(s.GetAttributes())); got != x.want {
				t.Errorf("got\n%s\nwant\n%s", got, x.want)
			}
		})
	}
}

func TestSpanIDs(t *testing.T) {
	r := event.Request{Time: 5, DurationNS: 7, Trace: event.Trace{ID: [16]byte{1, 15: 2}, Span: [8]byte{3, 7: 4}, Parent: [8]byte{5, 7: 6}}}
	s := spanOf(t, &r, 100)
	got := fmt.Sprintf("%x %x %x %d %d %d", s.GetTraceId(), s.GetSpanId(), s.GetParentSpanId(), s.GetStartTimeUnixNano(), s.GetEndTimeUnixNano(), s.GetFlags())
	if want := "01000000000000000000000000000002 0300000000000004 0500000000000006 105 112 1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s = spanOf(t, &event.Request{}, 0) // a backend refuses ids of zeros
	if id := s.GetTraceId(); len(id) != 16 || id[0] == 0 && slices.Max(id) == 0 || slices.Max(s.GetSpanId()) == 0 || s.ParentSpanId != nil {
		t.Errorf("%v", s)
	}
}

// What the conventions have as numbers is sent as numbers.
func TestNumbers(t *testing.T) {
	r := event.Request{Attrs: []event.Attr{{Key: "db.response.returned_rows", Value: "7"}, {Key: "server.port", Value: "443"}}}
	found := 0
	for _, a := range spanOf(t, &r, 0).GetAttributes() {
		if n := a.GetValue().GetIntValue(); n == 7 || n == 443 {
			found++
		}
	}
	if found != 2 {
		t.Errorf("%d of 2 numbers", found)
	}
}

// Lengths of one, two and three bytes.
func TestLongText(t *testing.T) {
	for _, n := range []int{1, 100, 127, 128, 129, 4000, maxText, maxText + 1} {
		r := event.Request{Family: event.DB, Text: strings.Repeat("é", n)}
		found := ""
		for _, a := range spanOf(t, &r, 0).GetAttributes() {
			if a.GetKey() == "db.query.text" {
				found = a.GetValue().GetStringValue()
			}
		}
		if want := min(2*n, maxText); len(found) != want {
			t.Errorf("%d bytes of %d", len(found), want)
		}
	}
}

var host = []event.Attr{{Key: "host.name", Value: "h1"}, {Key: "telemetry.distro.version", Value: "1.2"}}

// A request has each process once, with what is known of it.
func TestResources(t *testing.T) {
	shop := &event.Who{Service: "shop", ExecID: "abc", PID: 7, Name: "python3", Executable: "/usr/bin/python3", Args: "python3\x00--password\x00x",
		Container: &event.Container{ID: "c1", Name: "shop-1", Runtime: "docker", PodUID: "u1"}}
	q := newQueue(1<<20, 1<<20)
	for i := range 3 {
		for _, who := range []*event.Who{shop, nil} {
			r := event.Request{Family: event.HTTP, Role: event.Server, Operation: "GET", Route: fmt.Sprint("/", i)}
			q.add(who, traces, func(m message) message { return appendSpan(m, &r, 0) })
		}
	}
	q.add(shop, logs, func(m message) message {
		return appendLog(m, &event.Alert{Time: 5, Name: "budget.shed", Severity: "warning", Message: "too dear", Attrs: []event.Attr{{Key: "sensor", Value: "drop"}}}, 100)
	})
	c := q.take(true)
	spans := parse(t, c.request(nil, traces, host, "1.2"), &tracepb.ExportTraceServiceRequest{})
	want := []string{
		"container.id=c1 container.name=shop-1 container.runtime.name=docker host.name=h1 k8s.pod.uid=u1 process.executable.name=python3 process.executable.path=/usr/bin/python3 process.pid=7 service.instance.id=abc service.name=shop telemetry.distro.version=1.2",
		"host.name=h1 service.name=unknown_service telemetry.distro.version=1.2",
	}
	if n := len(spans.GetResourceSpans()); n != len(want) {
		t.Fatalf("%d resources", n)
	}
	for i, r := range spans.GetResourceSpans() {
		if got := text(r.GetResource().GetAttributes()); got != want[i] {
			t.Errorf("got %s\nwant %s", got, want[i])
		}
		scope := r.GetScopeSpans()[0]
		if len(r.GetScopeSpans()) != 1 || len(scope.GetSpans()) != 3 || scope.GetSpans()[2].GetName() != "GET /2" || scope.GetScope().GetName() != "ghostlight" || scope.GetScope().GetVersion() != "1.2" || r.GetSchemaUrl() != schemaURL {
			t.Errorf("%v", r)
		}
	}
	l := parse(t, c.request(nil, logs, host, "1.2"), &logspb.ExportLogsServiceRequest{}).GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords()[0]
	got := fmt.Sprintf("%d %d %s %s %s %s %s", l.GetTimeUnixNano(), l.GetObservedTimeUnixNano(), l.GetSeverityNumber(), l.GetSeverityText(), l.GetEventName(), l.GetBody().GetStringValue(), text(l.GetAttributes()))
	if want := "105 105 SEVERITY_NUMBER_WARN warning budget.shed too dear sensor=drop"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func counted(service string, ns ...int64) *event.Batch {
	b := &event.Batch{Wall: 1000}
	for _, n := range ns {
		b.Requests = append(b.Requests, event.Request{
			Family: event.HTTP, Role: event.Server, Protocol: "http", Operation: "GET", Route: "/", Status: 200, DurationNS: n, Who: &event.Who{Service: service},
			Trace: event.Trace{ID: [16]byte{1}, Span: [8]byte{2}},
		})
	}
	return b
}

func metricsOf(t testing.TB, m *meter, now uint64) (got []string) {
	t.Helper()
	m.requests(nil, now, func(p message, points int) {
		for _, r := range parse(t, p, &metricspb.ExportMetricsServiceRequest{}).GetResourceMetrics() {
			for _, x := range r.GetScopeMetrics()[0].GetMetrics() {
				h := x.GetExponentialHistogram()
				for _, d := range h.GetDataPoints() {
					got = append(got, fmt.Sprintf("%s %s %s %s [%d,%d] n=%d sum=%g zero=%d scale=%d %d%v %s exemplars=%d", text(r.GetResource().GetAttributes()), x.GetName(), x.GetUnit(),
						strings.TrimPrefix(h.GetAggregationTemporality().String(), "AGGREGATION_TEMPORALITY_"), d.GetStartTimeUnixNano(), d.GetTimeUnixNano(), d.GetCount(), d.GetSum(),
						d.GetZeroCount(), d.GetScale(), d.GetPositive().GetOffset(), d.GetPositive().GetBucketCounts(), text(d.GetAttributes()), len(d.GetExemplars())))
					for _, e := range d.GetExemplars() {
						if hex.EncodeToString(e.GetTraceId())[:2] != "01" || len(e.GetSpanId()) != 8 || e.GetTimeUnixNano() == 0 || e.GetAsDouble() == 0 {
							t.Errorf("%v", e)
						}
					}
				}
			}
		}
	})
	slices.Sort(got)
	return got
}

func TestMetrics(t *testing.T) {
	const head = " host.name=h1 service.name=shop telemetry.distro.version=1.2 http.server.request.duration s "
	const labels = " http.request.method=GET http.response.status_code=200 http.route=/ url.scheme=http exemplars="
	for _, x := range []struct {
		delta bool
		want  [3]string
	}{
		{false, [3]string{
			"CUMULATIVE [10,20] n=2 sum=1.5 zero=0 scale=4 -17[1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1]" + labels + "1",
			"CUMULATIVE [10,30] n=2 sum=1.5 zero=0 scale=4 -17[1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1]" + labels + "1",
			"CUMULATIVE [10,40] n=4 sum=1.75 zero=1 scale=4 -33[1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1]" + labels + "1",
		}},
		{true, [3]string{
			"DELTA [10,20] n=2 sum=1.5 zero=0 scale=4 -17[1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1]" + labels + "1",
			"",
			"DELTA [30,40] n=2 sum=0.25 zero=1 scale=4 -33[1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0]" + labels + "1",
		}},
	} {
		table := aggregate.New(10)
		m := newMeter(table, host, "1.2", x.delta, 10)
		for i, ns := range [][]int64{{1e9, 5e8}, nil, {0, 25e7}} {
			table.Add(counted("shop", ns...))
			got := metricsOf(t, m, uint64(20+10*i))
			if want := x.want[i]; strings.Join(got, "|") != want && strings.Join(got, "|") != head[1:]+want {
				t.Errorf("delta %v, export %d: got\n%s\nwant\n%s", x.delta, i, strings.Join(got, "\n"), head[1:]+want)
			}
		}
	}
}

// Many series go out in several requests, each of which a backend takes.
func TestManyMetrics(t *testing.T) {
	table := aggregate.New(2000)
	for i := range 1999 {
		table.Add(counted(fmt.Sprint("s", i%10, "-", i), 1e6))
	}
	sizes, points := []int{}, 0
	newMeter(table, host, "1", false, 1).requests(nil, 2, func(m message, n int) { sizes, points = append(sizes, len(m)), points+n })
	if len(sizes) != 4 || points != 1999 || slices.Max(sizes) > 1<<20 {
		t.Errorf("%d points in requests of %v bytes", points, sizes)
	}
}

func TestExportDoesNotAllocate(t *testing.T) {
	e := &instance{queue: newQueue(1<<30, 1<<30), wantsTraces: true}
	b := &event.Batch{}
	for _, x := range stories() {
		if x.name != "fetch" { // which is not UTF-8
			x.r.Who = &event.Who{}
			b.Requests = append(b.Requests, x.r)
		}
	}
	e.queue.open = &chunk{text: make(message, 0, 10<<20), entries: make([]entry, 0, 10000)}
	if n := testing.AllocsPerRun(100, func() { e.Export(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkExport(b *testing.B) {
	e := &instance{queue: newQueue(1<<30, 256<<10), wantsTraces: true}
	batch := &event.Batch{}
	for _, x := range stories()[:4] {
		batch.Requests = append(batch.Requests, x.r)
	}
	began, n := time.Now(), 0
	for b.Loop() {
		e.Export(batch)
		if c := e.queue.take(false); c != nil {
			e.queue.giveBack(c)
		}
		n += len(batch.Requests)
	}
	b.ReportMetric(float64(time.Since(began).Nanoseconds())/float64(n), "ns/request")
}
