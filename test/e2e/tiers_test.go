package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tiers is a system of real programs that know nothing of us:
//
//	nginx -> (TLS) Go, in a container -> Python -> PostgreSQL
//	                                            -> Redis, in a container
type tiers struct{ front, gateway, shop, database, cache string } // ports

func newTiers(t *testing.T) *tiers {
	t.Helper()
	p := newPodman(t)
	dir := t.TempDir()
	database, cache, shop, gateway := postgres(t), freePort(t), freePort(t), freePort(t)
	p.host(t, "gle-cache", nil, "/usr/bin/redis-server", "--port", cache, "--bind", "127.0.0.1", "--save", "")
	listening(t, cache)
	background(t, "/usr/bin/python3", "testdata/shop.py", shop, "host=127.0.0.1 user=postgres port="+database, cache)
	listening(t, shop)
	binary := filepath.Join(dir, "gateway")
	build := exec.Command("go", "build", "-o", binary, "./gateway")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cert, key := certificate(t, dir)
	p.host(t, "gle-gateway", []string{"-v", dir + ":" + dir + ":ro"}, binary, "127.0.0.1:"+gateway, "http://127.0.0.1:"+shop, cert, key)
	listening(t, gateway)
	return &tiers{proxy(t, "https://127.0.0.1:"+gateway), gateway, shop, database, cache}
}

// host runs a program of this host in a container.
func (p *podman) host(t *testing.T, name string, flags []string, line ...string) {
	t.Helper()
	args := []string{"run", "-d", "--name", fmt.Sprintf("%s-%d", name, os.Getpid()), "--network=host", "--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:1000"}
	for _, d := range []string{"/usr", "/lib", "/lib64", "/etc/alternatives"} {
		if _, err := os.Stat(d); err == nil {
			args = append(args, "-v", d+":"+d+":ro")
		}
	}
	p.run(t, append(append(append(args, flags...), p.image), line...)...)
}

// certificate makes one for 127.0.0.1.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return cert, key
}

// proxy is an nginx that passes everything on.
func proxy(t *testing.T, upstream string) (port string) {
	t.Helper()
	dir := t.TempDir()
	port = freePort(t)
	write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(`daemon off; worker_processes 1; user root; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
server { listen 127.0.0.1:%[2]s; location / { proxy_pass %[3]s; proxy_ssl_verify off; } } }`, dir, port, upstream))
	master := exec.Command("nginx", "-c", filepath.Join(dir, "nginx.conf"), "-p", dir)
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		master.Process.Signal(syscall.SIGTERM)
		master.Wait()
	})
	listening(t, port)
	return port
}

// postgres is a server with a table of items.
func postgres(t *testing.T) (port string) {
	t.Helper()
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(bins) == 0 {
		t.Fatal("postgresql is missing: run test/setup.sh")
	}
	dir, err := os.MkdirTemp("", "ghostlight-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	port = freePort(t)
	as := []string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"}
	if os.Geteuid() != 0 {
		as = nil
	}
	data := filepath.Join(dir, "data")
	run(t, append(as, bins[0]+"/initdb", "-A", "trust", "-U", "postgres", "-D", data)...)
	line := append(as, bins[0]+"/postgres", "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
	server := exec.Command(line[0], line[1:]...)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Signal(syscall.SIGQUIT) // at once: nobody needs the data
		server.Wait()
	})
	listening(t, port)
	eventually(t, 15*time.Second, "the table of items", func() error {
		out, err := exec.Command("psql", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-q", "-c",
			"create table if not exists items as select n id, 'item ' || n name, 'x' secret from generate_series(1, 100) n").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return port
}

// A system of four tiers that was there before us, one hop over TLS and two of
// them in containers, with no change to any: every request is there, at both of
// its ends, in one trace; and no secret is.
func TestFourTiers(t *testing.T) {
	sys := newTiers(t)
	const warm, n = 5, 40
	ask := func(i int) {
		r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%s/items/%d?token=s3cret-in-query", sys.front, i))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if body, _ := io.ReadAll(r.Body); r.StatusCode != 200 {
			t.Fatalf("%s: %s", r.Status, body)
		}
	}
	for i := range warm {
		ask(i + 1)
	}
	c := newCollector(t)
	config := filepath.Join(t.TempDir(), "config.yaml")
	write(t, config, "exporters: {otlp: {endpoint: 'http://127.0.0.1:"+c.http+"'}}\n")
	a := start(t, "--config", config)
	sql := func(q string) []row { return a.rows("query", q) }
	// A Go program is seen to be a client first; then it is watched who wakes
	// whom in it.
	eventually(t, 20*time.Second, "the gateway's goroutines are told apart", func() error {
		ask(1)
		time.Sleep(200 * time.Millisecond)
		if got := sql("select count(*) n from requests where role = 'client' and trace_parent_span_id <> '' and destination_port = " + sys.shop)[0]; got.num("n") == 0 {
			return fmt.Errorf("none of its calls has a cause")
		}
		return nil
	})
	since := fmt.Sprintf("time > '%s' and ", time.Now().UTC().Format(time.RFC3339Nano))
	for i := range n {
		ask(i + 1)
	}
	const server, client = "role = 'server' and destination_port = ", "role = 'client' and destination_port = "
	hops := []struct{ name, where string }{
		{"the front's own", server + sys.front + " and service_name = 'nginx' and http_route = '/items/{id}'"},
		{"the front's calls, over TLS", client + sys.gateway + " and service_name = 'nginx' and tls"},
		{"the gateway's own, over TLS", server + sys.gateway + " and container_name like 'gle-gateway%' and tls"},
		{"the gateway's calls", client + sys.shop + " and container_name like 'gle-gateway%' and not tls"},
		{"the shop's own", server + sys.shop + " and http_response_status_code = 200"},
		{"the shop's queries", client + sys.database + " and db_query_summary = 'SELECT items'"},
		{"the database's own", server + sys.database + " and db_query_summary = 'SELECT items'"},
		{"the shop's counters", client + sys.cache + " and db_operation_name like 'INCR%'"},
		{"the cache's own", server + sys.cache + " and db_operation_name like 'INCR%' and container_name like 'gle-cache%'"},
	}
	for _, h := range hops {
		eventually(t, 10*time.Second, h.name, func() error {
			got := sql("select count(*) n, count(distinct trace_trace_id) traces from requests where " + since + h.where)[0]
			if got.num("n") != n || got.num("traces") != n {
				return fmt.Errorf("%s: %d requests in %d traces, made were %d", h.name, got.num("n"), got.num("traces"), n)
			}
			return nil
		})
	}
	// Each front request's trace holds all of them, and every parent but the
	// first one's is in it.
	whole := sql(`select trace_trace_id id, count(*) n from requests
		where trace_trace_id in (select trace_trace_id from requests where ` + since + server + sys.front + `) group by 1`)
	if len(whole) != n {
		t.Errorf("%d traces, made were %d", len(whole), n)
	}
	for _, tr := range whole {
		if tr.num("n") < len(hops)+1 { // with our own client's
			t.Errorf("trace %s has %d spans, want %d", tr.str("id"), tr.num("n"), len(hops)+1)
		}
	}
	orphans := sql(`select count(*) n from requests r where trace_parent_span_id <> '' and
		trace_trace_id in (select trace_trace_id from requests where ` + since + server + sys.front + `) and
		not exists (select 1 from requests p where p.trace_span_id = r.trace_parent_span_id)`)[0]
	if orphans.num("n") > 0 {
		t.Errorf("%d requests have a parent that is not there", orphans.num("n"))
	}
	a.stop()
	c.stop()
	c.checkTraces(whole)
	for _, secret := range []string{"s3cret-in-query", "hunter2-in-sql"} {
		if out, err := exec.Command("grep", "-rlaF", secret, a.data, c.dir).Output(); err == nil {
			t.Errorf("%q is in %s", secret, strings.TrimSpace(string(out)))
		}
	}
}

// checkTraces looks for the traces of the store in the Collector's file: each
// has as many spans there, and one that began it.
func (c *collector) checkTraces(stored []row) {
	c.t.Helper()
	size, roots := map[string]int{}, map[string]int{}
	for _, s := range c.spans() {
		size[s.TraceID]++
		if s.ParentSpanID == "" {
			roots[s.TraceID]++
		}
	}
	for _, tr := range stored {
		if id := tr.str("id"); size[id] != tr.num("n") || roots[id] != 1 {
			c.t.Errorf("trace %s has %d spans and %d roots at the Collector, %d are stored", id, size[id], roots[id], tr.num("n"))
		}
	}
}
