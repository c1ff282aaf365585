package otlp

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	logspb "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"ghostlight/internal/aggregate"
	"ghostlight/internal/event"
	"ghostlight/internal/export"
)

// backend takes what is sent, as a Collector does, by HTTP or gRPC.
type backend struct {
	t      testing.TB
	url    string
	server *httptest.Server
	// answer says what becomes of the nth request of any signal, from 0; nil is
	// to take all of them.
	answer func(n int) reply

	mu      sync.Mutex
	asked   int
	spans   []string
	points  int
	logs    []string
	headers http.Header
}

// reply is what a backend says: all zero is to take it all.
type reply struct {
	status   int // of HTTP
	code     int // of gRPC
	after    string
	delay    time.Duration // of RetryInfo
	rejected int64
	hang     bool
}

func newBackend(t testing.TB, overTLS bool, answer func(n int) reply) *backend {
	t.Helper()
	b := &backend{t: t, answer: answer}
	b.server = httptest.NewUnstartedServer(b)
	b.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	b.server.Config.Protocols = &http.Protocols{}
	b.server.Config.Protocols.SetHTTP1(true)
	b.server.Config.Protocols.SetHTTP2(true)
	b.server.Config.Protocols.SetUnencryptedHTTP2(true)
	if overTLS {
		b.server.EnableHTTP2 = true
		b.server.StartTLS()
	} else {
		b.server.Start()
	}
	t.Cleanup(func() {
		b.server.CloseClientConnections()
		b.server.Close()
	})
	b.url = b.server.URL
	return b
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the other end gave up
	}
	b.mu.Lock()
	n := b.asked
	b.asked++
	b.headers = r.Header.Clone()
	b.mu.Unlock()
	var a reply
	if b.answer != nil {
		a = b.answer(n)
	}
	if a.hang {
		<-r.Context().Done()
		return
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		b.grpc(w, r, body, a)
		return
	}
	if a.status != 0 {
		w.Header().Set("Retry-After", a.after)
		w.WriteHeader(a.status)
		w.Write(protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "not now"))
		return
	}
	if r.Header.Get("Content-Encoding") == "gzip" {
		body = b.unzip(body)
	}
	b.take(r.URL.Path, body, a)
	w.Write(partialOf(a.rejected))
}

func (b *backend) grpc(w http.ResponseWriter, r *http.Request, body []byte, a reply) {
	if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" || len(body) < 5 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 {
		b.t.Errorf("no gRPC: %s %v %d", r.Proto, r.Header, len(body))
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin")
	if a.code != 0 {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		w.Header().Set("Grpc-Status", fmt.Sprint(a.code))
		w.Header().Set("Grpc-Message", "not%20now")
		w.Header().Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(detailsOf(a.delay)))
		return
	}
	message := body[5:]
	if body[0] == 1 {
		message = b.unzip(message)
	}
	b.take(r.URL.Path, message, a)
	p := partialOf(a.rejected)
	w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(p))), p...))
	w.Header().Set("Grpc-Status", "0")
}

func (b *backend) unzip(p []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(p))
	if err != nil {
		b.t.Error(err)
		return nil
	}
	body, err := io.ReadAll(z)
	if err != nil {
		b.t.Error(err)
	}
	return body
}

func (b *backend) take(path string, body []byte, a reply) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch path {
	case "/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export":
		for _, r := range parse(b.t, body, &tracepb.ExportTraceServiceRequest{}).GetResourceSpans() {
			for _, s := range r.GetScopeSpans()[0].GetSpans() {
				b.spans = append(b.spans, s.GetName())
			}
		}
	case "/v1/metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export":
		for _, r := range parse(b.t, body, &metricspb.ExportMetricsServiceRequest{}).GetResourceMetrics() {
			b.points += len(r.GetScopeMetrics()[0].GetMetrics())
		}
	case "/v1/logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export":
		for _, r := range parse(b.t, body, &logspb.ExportLogsServiceRequest{}).GetResourceLogs() {
			b.logs = append(b.logs, text(r.GetResource().GetAttributes())+" "+r.GetScopeLogs()[0].GetLogRecords()[0].GetEventName())
		}
	default:
		b.t.Errorf("asked for %s", path)
	}
}

func partialOf(rejected int64) []byte {
	p := &tracepb.ExportTraceServiceResponse{}
	if rejected > 0 {
		p.PartialSuccess = &tracepb.ExportTracePartialSuccess{RejectedSpans: rejected, ErrorMessage: "too old"}
	}
	body, _ := proto.Marshal(p)
	return body
}

// detailsOf is a google.rpc.Status with a RetryInfo.
func detailsOf(delay time.Duration) []byte {
	nested := func(field protowire.Number, p []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), p)
	}
	d := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(delay/time.Second))
	d = protowire.AppendVarint(protowire.AppendTag(d, 2, protowire.VarintType), uint64(delay%time.Second))
	info := append(nested(1, []byte("type.googleapis.com/google.rpc.RetryInfo")), nested(2, nested(1, d))...)
	return append(nested(2, []byte("not now")), nested(3, info)...)
}

func (b *backend) got() (spans, asked int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.spans), b.asked
}

// open starts an exporter that sends to b.
func open(t testing.TB, b *backend, change func(o *options)) *instance {
	t.Helper()
	i, err := newInstance(export.Env{Requests: aggregate.New(10), Host: host, PID: 4242, Decode: func(into any) error {
		o := into.(*options)
		o.Endpoint, o.FlushInterval, o.Signals = b.url, 20*time.Millisecond, []string{"traces", "logs"}
		if change != nil {
			change(o)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return i.(*instance)
}

func batchOf(n int) *event.Batch {
	b := &event.Batch{}
	who := &event.Who{Service: "shop"}
	for i := range n {
		b.Requests = append(b.Requests, event.Request{Family: event.HTTP, Role: event.Server, Protocol: "http", Operation: "GET", Route: fmt.Sprint("/", i), Who: who})
	}
	return b
}

func wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in 20 s: " + what)
		}
	}
}

// protocols runs a test by HTTP and by gRPC.
func protocols(t *testing.T, f func(t *testing.T, protocol string)) {
	for _, p := range []string{"http", "grpc"} {
		t.Run(p, func(t *testing.T) { f(t, p) })
	}
}

// All that was handed over arrives once: spans, alerts and metrics.
func TestSend(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		for _, compression := range []string{"gzip", "none"} {
			b := newBackend(t, false, nil)
			file := filepath.Join(t.TempDir(), "headers")
			os.WriteFile(file, []byte("# ours\n\nAuthorization: Bearer s3cret\n"), 0o600)
			e := open(t, b, func(o *options) {
				o.Protocol, o.Compression, o.Signals, o.MetricsInterval = protocol, compression, []string{"traces", "metrics", "logs"}, 50*time.Millisecond
				o.Headers, o.HeadersFile = []string{"X-Scope-OrgID: ops"}, file
			})
			sent := batchOf(100)
			sent.Requests = append(sent.Requests, event.Request{PID: 4242}, event.Request{PeerPID: 4242}) // our own
			sent.Alerts = []event.Alert{{Name: "budget.shed"}}
			for range 30 {
				e.Export(sent)
			}
			wait(t, "all arrives", func() bool { n, _ := b.got(); return n == 3000 })
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			if len(b.logs) != 30 && len(b.logs) == 0 || !strings.Contains(b.logs[0], "service.name=ghostlight") || !strings.HasSuffix(b.logs[0], " budget.shed") {
				t.Errorf("logs %v", b.logs)
			}
			if b.headers.Get("Authorization") != "Bearer s3cret" || b.headers.Get("X-Scope-Orgid") != "ops" {
				t.Errorf("headers %v", b.headers)
			}
			if n := e.count.sent[traces].Load(); n != 3000 || e.Lost() != 0 || e.queue.size() != 0 {
				t.Errorf("%d sent, %d lost, %d bytes left", n, e.Lost(), e.queue.size())
			}
		}
	})
}

func TestMetricsArrive(t *testing.T) {
	b := newBackend(t, false, nil)
	e := open(t, b, func(o *options) { o.Signals, o.MetricsInterval = []string{"metrics"}, time.Hour })
	e.Close()
	if b.asked != 0 {
		t.Error("nothing was counted, and something was sent")
	}
	table := aggregate.New(10)
	table.Add(counted("shop", 1e6))
	i, err := newInstance(export.Env{Requests: table, Decode: func(into any) error {
		o := into.(*options)
		o.Endpoint, o.Signals, o.MetricsInterval = b.url, []string{"metrics"}, time.Hour
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	i.Close() // which tells the last state
	if b.points != 1 {
		t.Errorf("%d points", b.points)
	}
}

// A backend that cannot take a request now gets it again, not before it said,
// and nothing arrives twice or not at all.
func TestRetry(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		b := newBackend(t, false, func(n int) reply {
			if n > 0 {
				return reply{}
			}
			return reply{status: 503, after: "1", code: codeResourceExhausted, delay: 1100 * time.Millisecond}
		})
		e := open(t, b, func(o *options) { o.Protocol = protocol })
		began := time.Now()
		e.Export(batchOf(50))
		wait(t, "all arrives", func() bool { n, _ := b.got(); return n == 50 })
		if d := time.Since(began); d < time.Second {
			t.Errorf("tried again after %v, asked for was a second", d)
		}
		e.Close()
		if spans, asked := b.got(); spans != 50 || asked != 2 || e.count.retries.Load() != 1 || e.Lost() != 0 {
			t.Errorf("%d spans in %d requests, %d retries", spans, asked, e.count.retries.Load())
		}
	})
}

// What the backend refuses is counted and not sent again.
func TestRefused(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		b := newBackend(t, false, func(n int) reply { return []reply{{status: 400, code: 3}, {rejected: 7}}[min(n, 1)] })
		e := open(t, b, func(o *options) { o.Protocol = protocol })
		e.Export(batchOf(50))
		wait(t, "the first is refused", func() bool { return e.count.lost[traces][rejected].Load() == 50 })
		e.Export(batchOf(50))
		wait(t, "some of the second is refused", func() bool { return e.count.lost[traces][rejected].Load() == 57 })
		e.Close()
		if n := e.count.sent[traces].Load(); n != 43 || e.Lost() != 57 || e.Lost() != 0 {
			t.Errorf("%d arrived", n)
		}
	})
}

// A backend that answers nothing holds up nobody: the queue stays bounded, what
// it has no room for is counted, and Close ends in time.
func TestStuckBackend(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		b := newBackend(t, false, func(int) reply { return reply{hang: true} })
		e := open(t, b, func(o *options) { o.Protocol, o.QueueBytes, o.Timeout = protocol, 1<<20, time.Minute })
		batch, slowest := batchOf(100), time.Duration(0)
		for range 200 {
			began := time.Now()
			e.Export(batch)
			slowest = max(slowest, time.Since(began))
			if n := e.queue.size(); n > 1<<20+4096 {
				t.Fatalf("%d bytes in the queue", n)
			}
		}
		if slowest > 2*time.Second { // Close waits longer: a lock held while sending would show
			t.Errorf("Export took %v", slowest)
		}
		lost := e.Lost()
		if lost == 0 {
			t.Error("20000 spans fit into a MiB")
		}
		began := time.Now()
		e.Close()
		if d := time.Since(began); d > 2*closeWithin {
			t.Errorf("Close took %v", d)
		}
		if lost += e.Lost(); lost != 20000 {
			t.Errorf("%d lost of 20000 that did not arrive", lost)
		}
		if e.queue.size() != 0 {
			t.Errorf("%d bytes in the queue after all", e.queue.size())
		}
	})
}

// Without a backend Close is quick.
func TestNoBackend(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	e := open(t, &backend{url: "http://" + l.Addr().String()}, nil)
	e.Export(batchOf(10))
	began := time.Now()
	e.Close()
	if d := time.Since(began); d > closeWithin || e.Lost() != 10 {
		t.Errorf("%v", d)
	}
}

func TestTLS(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		b := newBackend(t, true, nil)
		ca := filepath.Join(t.TempDir(), "ca.pem")
		os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.server.Certificate().Raw}), 0o600)
		e := open(t, b, func(o *options) { o.Protocol, o.TLS.CA = protocol, ca })
		e.Export(batchOf(10))
		e.Close()
		if n, _ := b.got(); n != 10 {
			t.Errorf("%d spans", n)
		}
		e = open(t, b, func(o *options) { o.Protocol = protocol }) // which does not know the authority
		e.Export(batchOf(10))
		e.Close()
		if n, _ := b.got(); n != 10 || e.Lost() != 10 {
			t.Errorf("%d spans", n)
		}
	})
}

func TestOptions(t *testing.T) {
	loose := filepath.Join(t.TempDir(), "headers")
	os.WriteFile(loose, []byte("Authorization: Bearer s3cret"), 0o644)
	for want, change := range map[string]func(o *options){
		`endpoint: "collector:4317" is not a URL`:           func(o *options) { o.Endpoint = "collector:4317" },
		"endpoint: a user, a query":                         func(o *options) { o.Endpoint = "https://u:s3cret@x:4318" },
		`signals: "profiles" is none of`:                    func(o *options) { o.Signals = []string{"profiles"} },
		"headers: Api-Key is a secret":                      func(o *options) { o.Headers = []string{"Api-Key: s3cret"} },
		"headers: a header is written like":                 func(o *options) { o.Headers = []string{"s3cret"} },
		"headers: the value of X has control":               func(o *options) { o.Headers = []string{"X: s3cret\r\nY: z"} },
		"headers_file: " + loose + " can be read by others": func(o *options) { o.HeadersFile = loose },
		"headers_file: open /none":                          func(o *options) { o.HeadersFile = "/none" },
		"tls: read the authority":                           func(o *options) { o.TLS.CA = "/none" },
		"tls: a certificate and its key":                    func(o *options) { o.TLS.Cert = loose },
		"queue_bytes: 1 is not":                             func(o *options) { o.QueueBytes = 1 },
		"batch_bytes: 0 is not":                             func(o *options) { o.BatchBytes = 0 },
		"timeout: 0s is too short":                          func(o *options) { o.Timeout = 0 },
	} {
		_, err := newInstance(export.Env{Decode: func(into any) error { change(into.(*options)); return nil }})
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "x": 0, "7": 7 * time.Second, "-7": 0, "999999999999": maxAfter, "99999999999999999999": 0,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0, "Fri, 02 Jan 2027 03:04:00 GMT": maxAfter,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

// FuzzAnswer feeds what a backend may say: no answer makes us wait for longer
// than the bound, or shows more than a line of a log.
func FuzzAnswer(f *testing.F) {
	f.Add(partialOf(7), "0")
	f.Add(detailsOf(time.Hour), "8")
	f.Add(detailsOf(-1), "-1")
	f.Fuzz(func(t *testing.T, p []byte, header string) {
		r := &http.Response{StatusCode: 200, Header: http.Header{"Retry-After": {header}}, Trailer: http.Header{
			"Grpc-Status": {header}, "Grpc-Message": {string(p)}, "Grpc-Status-Details-Bin": {base64.StdEncoding.EncodeToString(p)},
		}}
		answers := []answer{httpAnswer(r, p, traces), grpcAnswer(r, p, logs), grpcAnswer(r, append([]byte{0, 0, 0, 0, byte(len(p))}, p...), logs)}
		r.StatusCode = 503
		answers = append(answers, httpAnswer(r, p, traces), grpcAnswer(r, p, traces))
		for _, a := range answers {
			if a.after < 0 || a.after > maxAfter || a.rejected < 0 || len(a.message) > 300 || a.err != nil && len(a.err.Error()) > 500 {
				t.Errorf("%+v", a)
			}
		}
	})
}

// FuzzSpan writes spans of any words: a reader of the published definitions
// reads all of them back.
func FuzzSpan(f *testing.F) {
	f.Add("GET", "/items/{id}", "x.example", uint8(1), int64(7))
	f.Add("\xff\xfe", strings.Repeat("é", 3000), "::1", uint8(14), int64(-1))
	f.Fuzz(func(t *testing.T, a, b, c string, shape uint8, n int64) {
		r := event.Request{
			Time: n, DurationNS: n, QueueNS: n, Family: event.Family(shape % 6), Role: event.Role(shape % 3), Protocol: a, System: c, Operation: a, Target: b, Namespace: c,
			Summary: c, Text: b, Query: b, Route: b, Status: int32(n), Outcome: a, Error: c, RequestBytes: n, Attrs: []event.Attr{{Key: "server.address", Value: c}, {Key: "k", Value: b}},
		}
		s := spanOf(t, &r, 0)
		if s.GetEndTimeUnixNano()-s.GetStartTimeUnixNano() != uint64(max(n, 0)) {
			t.Errorf("%v", s)
		}
	})
}
