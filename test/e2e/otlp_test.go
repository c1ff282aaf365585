package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cached returns a program that test/setup.sh built.
func cached(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../.cache", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is missing: run test/setup.sh", name)
	}
	return path
}

// collector is a real OpenTelemetry Collector that writes what it gets to
// files.
type collector struct {
	t          *testing.T
	dir        string
	http, grpc string // ports
	cmd        *exec.Cmd
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{t: t, dir: t.TempDir(), http: freePort(t), grpc: freePort(t)}
	config := filepath.Join(c.dir, "config.yaml")
	write(t, config, fmt.Sprintf(`receivers:
  otlp:
    protocols:
      http: {endpoint: "127.0.0.1:%[2]s"}
      grpc: {endpoint: "127.0.0.1:%[3]s"}
exporters:
  file/traces: {path: %[1]s/traces.json}
  file/metrics: {path: %[1]s/metrics.json}
  file/logs: {path: %[1]s/logs.json}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [file/traces]}
    metrics: {receivers: [otlp], exporters: [file/metrics]}
    logs: {receivers: [otlp], exporters: [file/logs]}
`, c.dir, c.http, c.grpc))
	c.cmd = background(t, cached(t, "collector"), "--config", config)
	listening(t, c.http)
	listening(t, c.grpc)
	return c
}

// stop ends the Collector: it writes what it has.
func (c *collector) stop() {
	c.t.Helper()
	c.cmd.Process.Signal(syscall.SIGTERM)
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("the Collector ended with %v", err)
	}
}

// request is what one line of a file has, in OTLP's JSON.
type request struct {
	ResourceSpans []struct {
		Resource   struct{ Attributes attributes }
		ScopeSpans []struct{ Spans []span }
	}
	ResourceMetrics []struct {
		Resource     struct{ Attributes attributes }
		ScopeMetrics []struct {
			Metrics []struct {
				Name                 string
				ExponentialHistogram struct {
					DataPoints []struct {
						Attributes attributes
						Count      string
						Positive   struct{ BucketCounts []string }
						ZeroCount  string
					}
				}
			}
		}
	}
}

type span struct {
	TraceID, SpanID, ParentSpanID, Name string
	Kind                                int
	Start                               string `json:"startTimeUnixNano"`
	End                                 string `json:"endTimeUnixNano"`
	Attributes                          attributes
	Status                              struct{ Code int }
	resource                            attributes
}

type attributes []struct {
	Key   string
	Value struct {
		StringValue string
		IntValue    string
	}
}

func (a attributes) get(key string) string {
	for _, x := range a {
		if x.Key == key {
			return x.Value.StringValue + x.Value.IntValue
		}
	}
	return ""
}

// file reads one of the Collector's files.
func (c *collector) file(name string) (all []request) {
	c.t.Helper()
	f, err := os.Open(filepath.Join(c.dir, name))
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			c.t.Fatalf("%s: %v", name, err)
		}
		all = append(all, r)
	}
	return all
}

func (c *collector) spans() (all []span) {
	for _, r := range c.file("traces.json") {
		for _, rs := range r.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					s.resource = rs.Resource.Attributes
					all = append(all, s)
				}
			}
		}
	}
	return all
}

// site is a real nginx that counts what it serves, before a real Python, and a
// curl. This host may have others: so the curl and the route have names of their
// own, by which metrics tell them apart.
type site struct{ port, log, curl string }

const (
	siteClient = "site-curl"
	siteRoute  = "/site/{page}"
)

// siteConfig is what an agent must know of it.
const siteConfig = "routes: {patterns: ['" + siteRoute + "']}\n"

func newSite(t *testing.T) *site {
	t.Helper()
	dir, back := t.TempDir(), freePort(t)
	write(t, filepath.Join(dir, "www", "site", "page.html"), "hello\n")
	background(t, "/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", filepath.Join(dir, "www"), back)
	listening(t, back)
	s := &site{port: freePort(t), log: filepath.Join(dir, "access.log"), curl: filepath.Join(dir, siteClient)}
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal(err)
	}
	run(t, "cp", curl, s.curl)
	write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(`daemon off; worker_processes 1; user root; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http { client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
log_format count '$status'; access_log %[4]s count;
server { listen 127.0.0.1:%[2]s; location / { proxy_pass http://127.0.0.1:%[3]s; } location /site/broken { return 503; } } }`, dir, s.port, back, s.log))
	master := exec.Command("nginx", "-c", filepath.Join(dir, "nginx.conf"), "-p", dir)
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		master.Process.Signal(syscall.SIGTERM)
		master.Wait()
	})
	listening(t, s.port)
	return s
}

// served is what nginx itself counted, by status.
func (s *site) served(t *testing.T) map[string]int {
	t.Helper()
	log, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, status := range strings.Fields(string(log)) {
		n[status]++
	}
	return n
}

// ask has curl ask for n pages, one connection for each.
func (s *site) ask(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		path := []string{"page.html", "page.html", "nowhere", "broken"}[i%4]
		run(t, s.curl, "-s", "-o", "/dev/null", "http://127.0.0.1:"+s.port+"/site/"+path+"?token=s3cret-in-query")
	}
}

// A real Collector gets every request that nginx served, by HTTP and by gRPC:
// as spans that make whole traces, and as metrics. Nothing secret is in it.
func TestCollector(t *testing.T) {
	for _, protocol := range []string{"http", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			c, s := newCollector(t), newSite(t)
			config := filepath.Join(t.TempDir(), "config.yaml")
			port := map[string]string{"http": c.http, "grpc": c.grpc}[protocol]
			write(t, config, siteConfig+fmt.Sprintf("exporters:\n  otlp: {protocol: %s, endpoint: 'http://127.0.0.1:%s', flush_interval: 200ms}\n", protocol, port))
			a := start(t, "--config", config)
			s.ask(t, 40)
			eventually(t, 15*time.Second, "all is stored", func() error {
				if n := a.served(s); n != 40 {
					return fmt.Errorf("%d requests", n)
				}
				return nil
			})
			a.stop() // which sends what is left
			c.stop()
			served := s.served(t)
			if served["200"] != 20 || served["404"] != 10 || served["503"] != 10 {
				t.Fatalf("nginx counted %v", served)
			}
			c.checkSpans(s, served)
			c.checkMetrics(served)
			for _, file := range []string{"traces.json", "metrics.json"} {
				if text, err := os.ReadFile(filepath.Join(c.dir, file)); err != nil || strings.Contains(string(text), "s3cret") {
					t.Errorf("%s holds a secret (%v)", file, err)
				}
			}
		})
	}
}

// served returns how many requests of the site's front are stored.
func (a *agent) served(s *site) int {
	return a.rows("query", "select count(*) n from requests where role = 'server' and service_name = 'nginx' and destination_port = "+s.port)[0].num("n")
}

// checkSpans compares the spans of the front with what it counted, and follows
// each to its caller and to what it called.
func (c *collector) checkSpans(s *site, served map[string]int) {
	t := c.t
	t.Helper()
	all := c.spans()
	byID, children := map[string]span{}, map[string][]span{}
	for _, x := range all {
		if _, twice := byID[x.SpanID]; twice {
			t.Errorf("span %s came twice", x.SpanID)
		}
		byID[x.SpanID] = x
		children[x.ParentSpanID] = append(children[x.ParentSpanID], x)
	}
	got := map[string]int{}
	for _, x := range all {
		if x.Kind != 2 || x.resource.get("service.name") != "nginx" || x.Attributes.get("server.port") != s.port {
			continue
		}
		status := x.Attributes.get("http.response.status_code")
		got[status]++
		for key, want := range map[string]string{"http.request.method": "GET", "http.route": siteRoute, "url.scheme": "http", "url.query": "token=***", "network.protocol.version": "1.1"} {
			if v := x.Attributes.get(key); v != want {
				t.Errorf("%s is %q, want %q", key, v, want)
			}
		}
		if failed := status == "503"; failed != (x.Status.Code == 2) || failed != (x.Attributes.get("error.type") == "503") {
			t.Errorf("a span with status %s has the code %d", status, x.Status.Code)
		}
		if x.resource.get("process.pid") == "" || x.resource.get("host.name") == "" || x.resource.get("telemetry.distro.name") != "ghostlight" {
			t.Errorf("resource %v", x.resource)
		}
		if start, end := number(x.Start), number(x.End); start <= 0 || end < start || time.Since(time.Unix(0, start)) > time.Hour {
			t.Errorf("from %s to %s", x.Start, x.End)
		}
		if caller := byID[x.ParentSpanID]; caller.Kind != 3 || caller.resource.get("service.name") != siteClient || caller.TraceID != x.TraceID {
			t.Errorf("%s was called by %+v", x.Name, caller)
		}
		if status != "503" {
			c.checkCall(children, x)
		}
	}
	for status, n := range served {
		if got[status] != n {
			t.Errorf("status %s: %d spans, nginx served %d", status, got[status], n)
		}
	}
}

// checkCall follows a span to the back: nginx's call, and Python's answer.
func (c *collector) checkCall(children map[string][]span, x span) {
	c.t.Helper()
	calls := children[x.SpanID]
	if len(calls) != 1 || calls[0].Kind != 3 || calls[0].resource.get("service.name") != "nginx" {
		c.t.Errorf("%s called %+v", x.Name, calls)
		return
	}
	answers := children[calls[0].SpanID]
	if len(answers) != 1 || answers[0].Kind != 2 || answers[0].TraceID != x.TraceID || answers[0].Attributes.get("http.response.status_code") != x.Attributes.get("http.response.status_code") {
		c.t.Errorf("%s was answered by %+v", x.Name, answers)
	}
}

// checkMetrics compares the last point of each of the front's series with what
// it counted.
func (c *collector) checkMetrics(served map[string]int) {
	c.t.Helper()
	last := map[string]int{}
	for _, r := range c.file("metrics.json") {
		for _, rm := range r.ResourceMetrics {
			if rm.Resource.Attributes.get("service.name") != "nginx" {
				continue
			}
			for _, m := range rm.ScopeMetrics[0].Metrics {
				if m.Name != "http.server.request.duration" {
					continue
				}
				for _, p := range m.ExponentialHistogram.DataPoints {
					n := int(number(p.ZeroCount))
					for _, b := range p.Positive.BucketCounts {
						n += int(number(b))
					}
					if n != int(number(p.Count)) {
						c.t.Errorf("%d durations in the buckets of %s", n, p.Count)
					}
					if p.Attributes.get("http.route") == siteRoute {
						last[p.Attributes.get("http.response.status_code")] = n
					}
				}
			}
		}
	}
	if fmt.Sprint(last) != fmt.Sprint(served) {
		c.t.Errorf("the metrics count %v, nginx served %v", last, served)
	}
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64) // 0 is left out in JSON
	return n
}
