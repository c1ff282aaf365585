package prometheus

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"

	"ghostlight/internal/aggregate"
	"ghostlight/internal/event"
	"ghostlight/internal/export"
)

func withRequests(t testing.TB, limit int, batches ...*event.Batch) *instance {
	t.Helper()
	table := aggregate.New(limit)
	for _, b := range batches {
		table.Add(b)
	}
	i, err := newInstance(export.Env{
		Decode: func(any) error { return nil }, Requests: table, Self: func() []export.Metric { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return i.(*instance)
}

// ask scrapes with an Accept header.
func ask(t testing.TB, e *instance, accept string) *httptest.ResponseRecorder {
	t.Helper()
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", e.Path(), nil)
	r.Header.Set("Accept", accept)
	e.ServeHTTP(w, r)
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w
}

const (
	openMetrics = "application/openmetrics-text;version=1.0.0"
	protobuf    = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)

func families(t testing.TB, e *instance) map[string]*dto.MetricFamily {
	t.Helper()
	r, all := bufio.NewReader(ask(t, e, protobuf).Body), map[string]*dto.MetricFamily{}
	for {
		f := &dto.MetricFamily{}
		err := protodelim.UnmarshalFrom(r, f)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[f.GetName()] = f
	}
}

func get(ns int64) event.Request {
	return event.Request{
		Family: event.HTTP, Role: event.Server, Protocol: "http", Operation: "GET", Route: "/items/{id}", Status: 200, DurationNS: ns,
		Who: &event.Who{Service: "shop", Container: &event.Container{Name: "shop-1"}}, Time: 1e9,
	}
}

func TestRequests(t *testing.T) {
	shop, db := &event.Who{Service: "shop"}, &event.Who{Service: "postgres"}
	traced, failed := get(31.25e6), get(20e9)
	traced.Trace = event.Trace{ID: [16]byte{0xab, 15: 1}, Span: [8]byte{7: 2}}
	failed.Status, failed.Error, failed.TLS, failed.Protocol = 500, "500", true, "websocket"
	failed.Trace = event.Trace{ID: [16]byte{0xcd, 15: 1}, Span: [8]byte{7: 3}}
	e := withRequests(t, 100, &event.Batch{Wall: 1_700_000_000e9, Requests: []event.Request{
		get(2e6), traced, failed,
		{Family: event.RPC, Role: event.Client, Protocol: "grpc", System: "grpc", Operation: "a.B/C", Outcome: "OK", DurationNS: 1e6, Who: shop,
			Destination: netip.MustParseAddrPort("10.0.0.1:50051"), Attrs: []event.Attr{{Key: "server.address", Value: "api.internal"}}},
		{Family: event.DB, Role: event.Client, Protocol: "postgresql", System: "postgresql", Operation: "SELECT", Target: "items", Namespace: "main",
			Outcome: "42P01", Error: "42P01", DurationNS: 3e6, Who: shop, Peer: db, Destination: netip.MustParseAddrPort("10.0.0.1:5432")},
		{Family: event.DB, Role: event.Server, Protocol: "postgresql", System: "postgresql", Operation: "SELECT", Target: "items", Namespace: "main",
			Outcome: "42P01", Error: "42P01", DurationNS: 2e6, Who: db, Peer: shop},
		{Family: event.Messaging, Role: event.Client, Protocol: "kafka", System: "kafka", Operation: "produce", Target: "orders", DurationNS: 1e6, Who: shop},
		{Family: event.DNS, Role: event.Client, Protocol: "dns", Operation: "A", Target: "a.example", Outcome: "NXDOMAIN", Error: "NXDOMAIN", DurationNS: 1e6, Who: shop},
	}})
	text := ask(t, e, "text/plain").Body.String()
	for _, want := range []string{
		`http_server_request_duration_seconds_bucket{container_name="shop-1",http_request_method="GET",http_response_status_code="200",http_route="/items/{id}",service_name="shop",url_scheme="http",le="0.005"} 1`,
		`http_server_request_duration_seconds_bucket{container_name="shop-1",http_request_method="GET",http_response_status_code="200",http_route="/items/{id}",service_name="shop",url_scheme="http",le="+Inf"} 2`,
		`http_server_request_duration_seconds_sum{container_name="shop-1",http_request_method="GET",http_response_status_code="200",http_route="/items/{id}",service_name="shop",url_scheme="http"} 0.03325`,
		`http_server_request_duration_seconds_count{container_name="shop-1",error_type="500",http_request_method="GET",http_response_status_code="500",http_route="/items/{id}",network_protocol_name="websocket",service_name="shop",url_scheme="https"} 1`,
		`rpc_client_call_duration_seconds_count{rpc_method="a.B/C",rpc_response_status_code="OK",rpc_system_name="grpc",server_address="api.internal",server_port="50051",service_name="shop"} 1`,
		`db_client_operation_duration_seconds_bucket{db_collection_name="items",db_namespace="main",db_operation_name="SELECT",db_response_status_code="42P01",db_system_name="postgresql",error_type="42P01",server_address="postgres",server_port="5432",service_name="shop",le="0.005"} 1`,
		`ghostlight_db_server_operation_duration_seconds_count{db_collection_name="items",db_namespace="main",db_operation_name="SELECT",db_response_status_code="42P01",db_system_name="postgresql",error_type="42P01",service_name="postgres"} 1`,
		`messaging_client_operation_duration_seconds_count{messaging_destination_name="orders",messaging_operation_name="produce",messaging_system="kafka",service_name="shop"} 1`,
		`dns_lookup_duration_seconds_count{dns_question_type="A",dns_response_code="NXDOMAIN",error_type="NXDOMAIN",service_name="shop"} 1`,
		`traces_service_graph_request_total{client="shop",connection_type="database",network_protocol_name="postgresql",server="postgres"} 1`,
		`traces_service_graph_request_failed_total{client="shop",connection_type="database",network_protocol_name="postgresql",server="postgres"} 1`,
		`traces_service_graph_request_server_seconds_sum{client="shop",connection_type="database",network_protocol_name="postgresql",server="postgres"} 0.002`,
		`traces_service_graph_request_client_seconds_sum{client="shop",connection_type="database",network_protocol_name="postgresql",server="postgres"} 0.003`,
		`traces_service_graph_request_total{client="",connection_type="",network_protocol_name="http",server="shop"} 2`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	open := ask(t, e, openMetrics).Body.String()
	for _, want := range []string{
		`le="0.05"} 2 # {span_id="0000000000000002",trace_id="ab000000000000000000000000000001"} 0.03125 1.70000000103125e+09`,
		`le="+Inf"} 1 # {span_id="0000000000000003",trace_id="cd000000000000000000000000000001"} 20.0 1.700000021e+09`,
	} {
		if n := strings.Count(open, want+"\n"); n != 1 {
			t.Errorf("%d times %s in\n%s", n, want, open)
		}
	}
}

// A scraper that reads the native form gets the same durations, and the
// exemplar with its time.
func TestNative(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var b event.Batch
	var want []float64
	for i := range 3000 {
		ns := int64(math.Exp(r.Float64()*22)) - 1 // 0 to 3.6 s, with gaps where few are
		if i < 3 {
			ns = 0
		}
		b.Requests = append(b.Requests, get(ns))
		want = append(want, float64(ns)/1e9)
	}
	b.Requests[7].Trace.ID[0] = 1
	e := withRequests(t, 10, &b)
	m := families(t, e)["http_server_request_duration_seconds"].GetMetric()[0].GetHistogram()
	zero := uint64(0)
	for _, v := range want {
		if v == 0 {
			zero++
		}
	}
	if m.GetSampleCount() != 3000 || m.GetZeroCount() != zero || len(m.GetBucket()) != len(aggregate.Infos[0].Bounds) {
		t.Fatalf("%d durations, %d of them 0, %d classic buckets", m.GetSampleCount(), m.GetZeroCount(), len(m.GetBucket()))
	}
	if x := m.GetExemplars(); len(x) != 1 || x[0].GetTimestamp() == nil {
		t.Errorf("exemplars %v", x)
	}
	index, at, count, sum := int32(0), 0, int64(0), uint64(0)
	for _, s := range m.GetPositiveSpan() {
		index += s.GetOffset()
		for range s.GetLength() {
			count += m.GetPositiveDelta()[at]
			low, high := math.Exp2(float64(index-1)/16), math.Exp2(float64(index)/16)
			n := int64(0)
			for _, v := range want {
				if v > low*(1+1e-12) && v <= high*(1+1e-12) {
					n++
				}
			}
			if n != count {
				t.Errorf("seed %d: (%v, %v] holds %d, want %d", seed, low, high, count, n)
			}
			sum += uint64(count)
			index, at = index+1, at+1
		}
	}
	if sum+m.GetZeroCount() != 3000 || at != len(m.GetPositiveDelta()) {
		t.Errorf("seed %d: %d durations in %d of %d buckets", seed, sum, at, len(m.GetPositiveDelta()))
	}
	for _, c := range m.GetBucket() {
		n := uint64(0)
		for _, v := range want {
			if v <= c.GetUpperBound() {
				n++
			}
		}
		if n != c.GetCumulativeCount() {
			t.Errorf("seed %d: %d up to %v, want %d", seed, c.GetCumulativeCount(), c.GetUpperBound(), n)
		}
	}
}

// Where all durations are 0 the histogram is still native.
func TestNativeOfNothing(t *testing.T) {
	m := families(t, withRequests(t, 10, &event.Batch{Requests: []event.Request{get(0)}}))["http_server_request_duration_seconds"].GetMetric()[0].GetHistogram()
	if len(m.GetPositiveSpan()) != 1 || m.GetZeroCount() != 1 {
		t.Errorf("%v", m)
	}
}

// Whatever a request holds, no two series have the same labels: one pair of
// them would cost the whole scrape. A linter of names finds nothing either.
func TestEveryRequestCanBeScraped(t *testing.T) {
	var b event.Batch
	for _, family := range []event.Family{event.HTTP, event.RPC, event.DB, event.Messaging, event.DNS} {
		for _, role := range []event.Role{event.Client, event.Server} {
			base := event.Request{
				Family: family, Role: role, Protocol: "p", System: "s", Operation: "o", Target: "t", Namespace: "n", Summary: "u", Text: "x", Query: "q",
				Route: "/", Status: 200, Outcome: "c", Error: "e", Who: &event.Who{Service: "w"}, Peer: &event.Who{Service: "v"},
				Destination: netip.MustParseAddrPort("10.0.0.1:1"),
			}
			for _, change := range []func(r *event.Request){
				func(r *event.Request) {},
				func(r *event.Request) { r.Protocol = "http" }, func(r *event.Request) { r.System = "" }, func(r *event.Request) { r.Operation = "\xff" }, func(r *event.Request) { r.Operation = "\xfe" },
				func(r *event.Request) { r.Target = "t2" }, func(r *event.Request) { r.Namespace = "n2" }, func(r *event.Request) { r.Route = "" },
				func(r *event.Request) { r.Status = 0 }, func(r *event.Request) { r.Outcome = "c2" }, func(r *event.Request) { r.Error = "" },
				func(r *event.Request) { r.TLS = true }, func(r *event.Request) { r.Who = nil }, func(r *event.Request) { r.Peer = nil },
				func(r *event.Request) { r.Destination = netip.AddrPort{} }, func(r *event.Request) { r.Transport = event.UDP },
				func(r *event.Request) { r.Who = &event.Who{Service: "w", Container: &event.Container{Name: "k"}} },
				func(r *event.Request) { r.Attrs = []event.Attr{{Key: "server.address", Value: "elsewhere"}} },
			} {
				r := base
				change(&r)
				b.Requests = append(b.Requests, r)
			}
		}
	}
	e := withRequests(t, 1000, &b)
	problems, err := promlint.New(ask(t, e, "text/plain").Body).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	n := uint64(0)
	for _, f := range families(t, e) {
		for _, m := range f.GetMetric() {
			if !strings.HasPrefix(f.GetName(), "traces_") {
				n += m.GetHistogram().GetSampleCount()
			}
		}
	}
	if n != uint64(len(b.Requests)) {
		t.Errorf("%d requests in the scrape, %d were made", n, len(b.Requests))
	}
}

// Beyond the bound all is counted, in one series for each metric.
func TestRequestsOverflow(t *testing.T) {
	var b event.Batch
	for i := range 50 {
		r := get(1e6)
		r.Route, r.Peer = fmt.Sprint("/", i), &event.Who{Service: fmt.Sprint("client-", i)}
		b.Requests = append(b.Requests, r)
	}
	text := ask(t, withRequests(t, 10, &b), "text/plain").Body.String()
	for _, want := range []string{
		`http_server_request_duration_seconds_count{otel_metric_overflow="true"} 40`,
		`traces_service_graph_request_total{otel_metric_overflow="true"} 40`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if n := strings.Count(text, "\nhttp_server_request_duration_seconds_count{"); n != 11 {
		t.Errorf("%d series", n)
	}
}

func BenchmarkScrape(b *testing.B) {
	var batch event.Batch
	for i := range 2000 {
		r := get(int64(i) * 1e5)
		r.Route = fmt.Sprint("/", i)
		batch.Requests = append(batch.Requests, r)
	}
	e := withRequests(b, 2000, &batch)
	b.ReportAllocs()
	for b.Loop() {
		ask(b, e, protobuf)
	}
}
