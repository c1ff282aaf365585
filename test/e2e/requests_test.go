package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// scene is a real server and what real clients ask of it.
type scene struct {
	name  string
	late  bool                                // it starts while the agent runs
	start func(t *testing.T) *peer            // returns when it answers
	warm  func(t *testing.T, p *peer)         // before the agent runs; may be nil
	ask   func(t *testing.T, p *peer) []asked // while it runs
}

// peer is a running server.
type peer struct {
	port   string
	pid    int               // 0: each connection has a process of its own
	served string            // its log, a line for each request it served
	client *http.Client      // kept over warm and ask
	own    map[string]string // what else its scene wants to know
}

// asked is a kind of requests that were made, and what is to be known of them.
type asked struct {
	what   string // it is these rows...
	is     string // ...which have these values, each of them...
	n      int    // ...as many at either end...
	client int    // ...made by this process.

	port    string // if it is not the peer's
	apart   bool   // the ends of a Unix socket do not know each other
	in, out int    // bytes of all requests and all answers, as the client counted; 0: it did not
	served  func() // the server's own count is n; nil: it does not count
}

// Every request that a real server served is a record at both of its ends:
// none missing, none twice, with the same words and sizes, the right processes,
// and the client's span as the parent of the server's.
func TestRequests(t *testing.T) {
	needRoot(t)
	all := scenes()
	peers := make([]*peer, len(all))
	begin := func(late bool) {
		for i, s := range all {
			if s.late == late {
				peers[i] = s.start(t)
			}
		}
	}
	begin(false)
	for i, s := range all {
		if s.warm != nil {
			s.warm(t, peers[i])
		}
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	write(t, file, "budget: {cpu: 0%, memory: 0}\n") // this test's own questions cost more than the traffic
	a := start(t, "--config", file)
	begin(true)
	made := make([][]asked, len(all))
	for i, s := range all {
		made[i] = s.ask(t, peers[i])
	}
	for i, s := range all {
		t.Run(s.name, func(t *testing.T) {
			for _, x := range made[i] {
				x.check(t, a, peers[i])
			}
		})
	}
	a.hides(t)
}

// secret stands wherever a secret may stand, but in no command line: those of
// other tests are no secret to this agent.
func secret() string { return "s3cret-" + strconv.Itoa(os.Getpid()) }

// hides looks for the secret in what was stored. Segments are compressed, so
// what is in them is asked for too, by a pattern that is not the secret.
func (a *agent) hides(t *testing.T) {
	t.Helper()
	for _, r := range a.rows("query", `select * from requests where concat_ws(' ', url_path, url_query, http_route, rpc_method, db_operation_name, db_collection_name,
		db_namespace, db_query_summary, db_query_text, db_response_status_code, dns_question_name, error_type, attributes) like '%`+strings.Replace(secret(), "3", "_", 1)+"%' limit 3") {
		t.Errorf("a secret is in\n%s", r)
	}
	a.stop()
	err := filepath.WalkDir(a.data, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(file)
		if bytes.Contains(text, []byte(secret())) {
			t.Errorf("a secret is in %s", file)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// check compares the rows of one kind with what was made.
func (x asked) check(t *testing.T, a *agent, p *peer) {
	t.Helper()
	port, server := p.port, p.pid
	if x.port != "" {
		port, server = x.port, 0
	}
	rows := x.what
	if port != "" {
		rows += " and destination_port = " + port
	}
	deadline := time.Now().Add(10 * time.Second)
	err := x.differs(a, rows)
	for ; err != nil && time.Now().Before(deadline); err = x.differs(a, rows) {
		time.Sleep(200 * time.Millisecond)
	}
	if err != nil {
		t.Errorf("%s: %v", x.what, err)
	}
	for _, r := range a.rows("query", "select * from requests where "+rows+" and not coalesce(("+x.is+"), 0) limit 1") {
		t.Errorf("%s: want %s in\n%s", x.what, x.is, r)
	}
	for role, pid := range map[string]int{"client": x.client, "server": server} {
		if pid == 0 {
			continue
		}
		got := a.rows("query", fmt.Sprintf("select distinct process_pid pid from requests where %s and role = '%s'", rows, role))
		if len(got) != 1 || got[0].num("pid") != pid {
			t.Errorf("%s: the %s is process %d, not %v", x.what, role, pid, got)
		}
	}
	if x.served != nil {
		x.served()
	}
}

// The same over a Unix socket, where the configuration asks for it, but that
// nobody knows there who is at the other end: each has a trace of its own.
func TestUnixRequests(t *testing.T) {
	p := newPeer(t)
	socket := filepath.Join(filepath.Dir(p.served), "socket")
	p.pid = background(t, "/usr/bin/python3", "testdata/plain.py", socket, p.served, "HTTP/1.1").Process.Pid
	eventually(t, 15*time.Second, "the server's socket", func() error {
		_, err := os.Stat(socket)
		return err
	})
	file := filepath.Join(t.TempDir(), "config.yaml")
	write(t, file, "budget: {cpu: 0%, memory: 0}\nsensors:\n  l7cap: {unix: true}\n")
	a := start(t, "--config", file)
	path := fmt.Sprintf("/unix-%d/", os.Getpid())
	x := curl(t, p, "url_path like '"+path+"%'", "network_transport = 'unix' and http_request_method = 'GET' and http_response_status_code = 200",
		`url = "http://localhost`+path+`[1-20]"`, "unix-socket = "+socket)
	x.served, x.apart = p.lines(t, 20, "GET "+path), true
	p.port = "" // it has none
	x.check(t, a, p)
}

// differs says how the records of both ends differ from what was made, or from
// each other.
func (x asked) differs(a *agent, rows string) error {
	ends := a.rows("query", `select role, count(*) n, count(distinct trace_span_id) spans, sum(complete) complete,
		sum(size_request) sent, sum(size_response) received from requests where `+rows+" group by role order by role")
	if len(ends) != 2 {
		return fmt.Errorf("ends %v, made were %d", ends, x.n)
	}
	for _, end := range ends {
		if end.num("n") != x.n || end.num("spans") != x.n || end.num("complete") != x.n {
			return fmt.Errorf("%d requests were made: %s", x.n, end)
		}
		if x.in > 0 && end.num("sent") != x.in || x.out > 0 && end.num("received") != x.out {
			return fmt.Errorf("%d bytes were sent and %d received: %s", x.in, x.out, end)
		}
	}
	const same = `source_port, flow_id > 0, size_request, size_response, protocol, network_protocol_version,
		http_request_method, http_route, http_response_status_code, url_path, rpc_method, rpc_response_status_code,
		db_operation_name, db_query_summary, db_query_text, dns_question_name, dns_question_type, dns_response_code`
	end := func(role, and string) string {
		return "select " + and + same + " from requests where role = '" + role + "' and " + rows
	}
	odd := a.rows("query", end("server", "")+" except "+end("client", ""))
	if len(odd) == 0 && !x.apart {
		odd = a.rows("query", end("server", "trace_trace_id, trace_parent_span_id, peer_pid, process_pid, ")+" except "+end("client", "trace_trace_id, trace_span_id, process_pid, peer_pid, "))
		alone := 0
		for _, r := range odd {
			if r.str("trace_parent_span_id") == "" {
				alone++
			}
		}
		if alone == len(odd) && alone <= x.n/10 { // served before the client's end was told of: a gap that is known
			odd = nil
		}
	}
	if len(odd) == 0 {
		return nil
	}
	port := odd[0].num("source_port")
	pair := a.rows("query", fmt.Sprintf("select role, trace_trace_id, trace_span_id, trace_parent_span_id, process_pid, peer_pid, %s from requests where %s and source_port = %d limit 4", same, rows, port))
	return fmt.Errorf("%d of %d servers' records match no client's, such as\n%s\n%s", len(odd), x.n, odd[0], pair)
}

// lines counts the lines of a server's log that begin so.
func (p *peer) lines(t *testing.T, n int, begin string) func() {
	return func() {
		t.Helper()
		var got int
		eventually(t, 10*time.Second, begin+" in the server's log", func() error {
			text, err := os.ReadFile(p.served)
			if err != nil {
				return err
			}
			if got = strings.Count("\n"+string(text), "\n"+begin); got < n {
				return fmt.Errorf("%d of %d", got, n)
			}
			return nil
		})
		if got != n {
			t.Errorf("%s: the server served %d, its client made %d", begin, got, n)
		}
	}
}

// curl runs one, and adds up what it counted. The arguments go to its standard
// input as a configuration, so that no secret is in its command line.
func curl(t *testing.T, p *peer, what, is string, config ...string) asked {
	t.Helper()
	cmd := exec.Command("curl", "-sS", "-K", "-")
	config = append(config, "output = /dev/null", `write-out = "%{http_code} %{size_request} %{size_upload} %{size_header} %{size_download}\n"`)
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(strings.Join(config, "\n"), "HOST", "http://127.0.0.1:"+p.port))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("curl: %v\n%s%s", err, &out, &errs)
	}
	x := asked{what: what, is: is, client: cmd.Process.Pid}
	for line := range strings.Lines(out.String()) {
		var status, request, upload, header, download int
		if _, err := fmt.Sscan(line, &status, &request, &upload, &header, &download); err != nil {
			t.Fatalf("curl said %q: %v", line, err)
		}
		x.n++
		x.in += request + upload
		x.out += header + download
	}
	return x
}

// python runs a server of testdata.
func python(script string, args ...string) func(t *testing.T) *peer {
	return func(t *testing.T) *peer {
		t.Helper()
		p := newPeer(t)
		p.pid = background(t, append([]string{"/usr/bin/python3", "testdata/" + script, p.port, p.served}, args...)...).Process.Pid
		listening(t, p.port)
		return p
	}
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	return &peer{port: freePort(t), served: filepath.Join(t.TempDir(), "served"), own: map[string]string{}}
}

func scenes() []scene {
	return []scene{
		{name: "nginx", start: files, ask: askFiles},
		{name: "nginx, late", late: true, start: files, ask: askFiles},
		{name: "http.server, 1.0", start: python("plain.py", "HTTP/1.0"), ask: askPlain},
		{name: "http.server, 1.1", late: true, start: python("plain.py", "HTTP/1.1"), ask: askPlain},
		{name: "asyncio", start: python("streams.py"), ask: askPlain},
		{name: "java", start: java, ask: askPlain},
		{name: "node", start: node, ask: askNode},
		{name: "go", start: origin, ask: askOrigin},
		{name: "go, h2 from its middle", start: origin, warm: warmH2, ask: askOwnH2},
		{name: "go, h2", late: true, start: origin, ask: askH2},
		{name: "go, grpc", start: origin, ask: askGRPC},
		{name: "redis", start: redis, ask: askRedis},
		{name: "postgresql", start: database, ask: askDatabase},
		{name: "mariadb", start: mariadb, ask: askMariaDB},
		{name: "dnsmasq", start: names, ask: askNames},
	}
}

// files is an nginx that serves a file, words of its own and what it forgot.
func files(t *testing.T) *peer {
	t.Helper()
	p := newPeer(t)
	dir := filepath.Dir(p.served)
	write(t, filepath.Join(dir, "file"), strings.Repeat("f", 200_000))
	write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(`daemon off; worker_processes 1; user root; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http { sendfile on; if_modified_since before; log_format own "$request_method $request_uri $status"; access_log %[3]s own; keepalive_requests 10000;
client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
server { listen 127.0.0.1:%[2]s;
 location /file/ { alias %[1]s/; }
 location /same/ { alias %[1]s/; }
 location /upload/ { proxy_pass http://127.0.0.1:%[2]s/deep/; proxy_method GET; proxy_pass_request_body off; proxy_set_header Content-Length ""; }
 location /line/ { return 204; }
 location /none/ { return 404; }
 location / { return 200 "%[4]s"; } } }`, dir, p.port, p.served, strings.Repeat("x", 1000)))
	for i := range 20 {
		if err := os.Link(filepath.Join(dir, "file"), filepath.Join(dir, strconv.Itoa(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	master := exec.Command("nginx", "-c", filepath.Join(dir, "nginx.conf"), "-p", dir)
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		master.Process.Signal(syscall.SIGTERM) // the master takes its worker along
		master.Wait()
	})
	listening(t, p.port)
	p.pid = worker(t, p.port)
	return p
}

func askFiles(t *testing.T, p *peer) []asked {
	t.Helper()
	var all []asked
	add := func(n int, begin string, x asked) {
		t.Helper()
		if x.n != n {
			t.Fatalf("curl made %d requests of %d", x.n, n)
		}
		x.served = p.lines(t, n, begin)
		all = append(all, x)
	}
	add(20, "GET /file/", curl(t, p, "url_path like '/file/%' and http_request_method = 'GET'",
		"http_route = '/file/{id}' and http_response_status_code = 200 and size_response > 200000", `url = "HOST/file/[1-20]"`))
	add(20, "GET /words/", curl(t, p, "url_path like '/words/%'", "http_route = '/words/{id}' and http_request_method = 'GET' and http_response_status_code = 200",
		`url = "HOST/words/[1-20]?token=`+secret()+`"`, `header = "Authorization: Bearer `+secret()+`"`, `cookie = "session=`+secret()+`"`))
	add(20, "GET /closed/", curl(t, p, "url_path like '/closed/%'", "http_route = '/closed/{id}'", `url = "HOST/closed/[1-20]"`, `header = "Connection: close"`))
	add(20, "GET /old/", curl(t, p, "url_path like '/old/%'", "network_protocol_version = '1.0'", `url = "HOST/old/[1-20]"`, "http1.0"))
	add(20, "GET /none/", curl(t, p, "url_path like '/none/%'", "http_response_status_code = 404", `url = "HOST/none/[1-20]"`))
	add(20, "POST /upload/", curl(t, p, "url_path like '/upload/%'", "http_request_method = 'POST' and size_request > 100000",
		`url = "HOST/upload/[1-20]"`, "data-binary = "+strings.Repeat("u", 100_000)))
	all = append(all, asked{what: "url_path like '/deep/%'", is: "http_request_method = 'GET' and network_protocol_version = '1.0'", n: 20, client: p.pid, served: p.lines(t, 20, "GET /deep/")})
	head := curl(t, p, "http_request_method = 'HEAD'", "http_response_status_code = 200 and size_response < 1000", `url = "HOST/file/[1-20]"`, "head")
	add(20, "HEAD /file/", head)
	add(20, "GET /same/", curl(t, p, "url_path like '/same/%'", "http_request_method = 'GET' and http_response_status_code = 304 and size_response < 1000",
		`url = "HOST/same/[1-20]"`, `header = "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"`))
	all = append(all, h2load(t, p, 400, "--h1", "-c", "4"))
	return append(all, pipeline(t, p))
}

// pipeline asks for several before it reads the first answer.
func pipeline(t *testing.T, p *peer) asked {
	t.Helper()
	const rounds, depth = 5, 8
	c, err := net.Dial("tcp", "127.0.0.1:"+p.port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	x := asked{what: "url_path like '/line/%'", is: "http_route = '/line/{id}' and http_response_status_code = 204", n: rounds * depth, client: os.Getpid()}
	answers := bufio.NewReader(c)
	for range rounds {
		var all bytes.Buffer
		for i := range depth {
			fmt.Fprintf(&all, "GET /line/%d HTTP/1.1\r\nHost: origin\r\n\r\n", i+1)
		}
		x.in += all.Len()
		if _, err := c.Write(all.Bytes()); err != nil {
			t.Fatal(err)
		}
		for range depth {
			answer, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
		}
	}
	x.served = p.lines(t, x.n, "GET /line/")
	return x
}

// askPlain asks what every server of 1000 bytes understands.
func askPlain(t *testing.T, p *peer) []asked {
	t.Helper()
	got := curl(t, p, "url_path like '/thing/%' and http_request_method = 'GET'", "http_route = '/thing/{id}' and http_response_status_code = 200", `url = "HOST/thing/[1-40]"`)
	got.served = p.lines(t, 40, "GET /thing/")
	sent := curl(t, p, "url_path like '/thing/%' and http_request_method = 'POST'", "http_response_status_code = 200 and size_request > 100000",
		`url = "HOST/thing/[1-20]"`, "data-binary = "+strings.Repeat("u", 100_000))
	sent.served = p.lines(t, 20, "POST /thing/")
	return []asked{got, sent}
}

func java(t *testing.T) *peer {
	t.Helper()
	p := newPeer(t)
	p.pid = background(t, "java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "testdata/Origin.java", p.port, p.served).Process.Pid
	eventually(t, 90*time.Second, "java answers", func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+p.port)
		if err != nil {
			return err
		}
		return c.Close()
	})
	return p
}

func node(t *testing.T) *peer {
	t.Helper()
	p := newPeer(t)
	p.pid = background(t, "node", "testdata/origin.mjs", p.port, p.served).Process.Pid
	listening(t, p.port)
	return p
}

// askNode asks by Node's own clients.
func askNode(t *testing.T, p *peer) []asked {
	t.Helper()
	const n = 40
	cmd := exec.Command("node", "--experimental-websocket", "--no-warnings", "testdata/ask.mjs", p.port, strconv.Itoa(n))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "10" {
		t.Fatalf("node: %v\n%s", err, out)
	}
	client := cmd.Process.Pid
	attr := func(key, value string) string {
		return "json_extract(attributes, '$.\"" + key + "\"') = '" + value + "'"
	}
	return []asked{
		{what: "url_path like '/chunk/%'", is: "http_route = '/chunk/{id}' and http_request_method = 'GET' and http_response_status_code = 200 and size_response > 1000",
			n: n, client: client, served: p.lines(t, n, "GET /chunk/")},
		{what: "url_path = '/events'", is: "http_response_status_code = 200 and " + attr("http.sse.events", "10"),
			n: 1, client: client, served: p.lines(t, 1, "GET /events")},
		{what: "url_path = '/socket' and protocol = 'http'", is: "http_request_method = 'GET' and http_response_status_code = 101", n: 1, client: client},
	}
}
