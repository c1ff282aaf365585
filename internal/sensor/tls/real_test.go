package tls

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const pythonServer = `
import http.server, ssl, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"x" * 10
        self.send_response(200)
        self.send_header("X-Id", self.path[1:])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H)
s.daemon_threads = True
c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
c.load_cert_chain(sys.argv[2], sys.argv[3])
if len(sys.argv) > 4: c.maximum_version = ssl.TLSVersion.TLSv1_2
s.socket = c.wrap_socket(s.socket, server_side=True, do_handshake_on_connect=False)
s.serve_forever()
`

const asyncioServer = `
import asyncio, ssl, sys
async def serve(r, w):
    try:
        while True:
            head = await r.readuntil(b"\r\n\r\n")
            name = head.split(b" ")[1][1:]
            w.write(b"HTTP/1.1 200 OK\r\nX-Id: " + name + b"\r\nContent-Length: 10\r\n\r\n" + b"x" * 10)
            await w.drain()
    except (asyncio.IncompleteReadError, ConnectionError): pass
    w.close()
async def main():
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(sys.argv[2], sys.argv[3])
    s = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), ssl=c)
    await s.serve_forever()
asyncio.run(main())
`

const nodeServer = `
const https = require("https"), fs = require("fs"), a = process.argv
https.createServer({cert: fs.readFileSync(a[3]), key: fs.readFileSync(a[4])}, (q, r) => {
  r.writeHead(200, {"X-Id": q.url.slice(1), "Content-Length": 10}); r.end("xxxxxxxxxx")
}).listen(+a[2], "127.0.0.1")
`

const nginxConf = `
daemon off; master_process on; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error;
events { worker_connections 64; }
http {
  access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  server {
    listen 127.0.0.1:%[2]d ssl; ssl_certificate %[3]s; ssl_certificate_key %[4]s; ssl_protocols %[5]s; keepalive_requests 10000;
    location ~ ^/(?<id>.*) { add_header X-Id $id; return 200 "xxxxxxxxxx"; }
  }
}
`

func nginx(protocol string) func(t testing.TB, port int, cert, key string) {
	return func(t testing.TB, port int, cert, key string) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		conf := script(t, "nginx.conf", fmt.Sprintf(nginxConf, dir, port, cert, key, protocol))
		cmd := start(t, need(t, "nginx"), "-c", conf, "-p", dir, "-e", filepath.Join(dir, "error"))
		t.Cleanup(func() { cmd.Process.Signal(os.Interrupt); time.Sleep(100 * time.Millisecond) }) // takes its worker along
	}
}

func interpreted(program, name, text string, more ...string) func(t testing.TB, port int, cert, key string) {
	return func(t testing.TB, port int, cert, key string) {
		start(t, need(t, program), append([]string{script(t, name, text), fmt.Sprint(port), cert, key}, more...)...)
	}
}

// servers are real ones: each library, and each way to move its bytes.
var servers = []struct {
	name  string
	file  string // that gets the probes
	serve func(t testing.TB, port int, cert, key string)
}{
	{"python threads, TLS 1.3", "libssl.so.3", interpreted("/usr/bin/python3", "server.py", pythonServer)},
	{"python threads, TLS 1.2", "libssl.so.3", interpreted("/usr/bin/python3", "server.py", pythonServer, "1.2")},
	{"nginx, TLS 1.3", "libssl.so.3", nginx("TLSv1.3")},
	{"nginx, TLS 1.2", "libssl.so.3", nginx("TLSv1.2")},
	{"asyncio", "libssl.so.3", interpreted("/usr/bin/python3", "server.py", asyncioServer)},
	{"node", "/node", interpreted("node", "server.js", nodeServer)},
}

// Every request and response of a server that ran before us is told once at
// each end, on the connection that carried it.
func TestServers(t *testing.T) {
	need(t, "curl")
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			cert, key := certificate(t)
			port := freePort(t)
			s.serve(t, port, cert, key)
			listening(t, port)
			w := begin(t)
			w.probed("libssl.so.3")
			w.probed(s.file)
			w.both(port, curl(t, port, 6, 16))
			// Again: sessions at the addresses of those that are gone.
			w.clear()
			w.both(port, curl(t, port, 6, 16))
		})
	}
}

// A server in Go, and clients in C.
func TestGoServesOthers(t *testing.T) {
	need(t, "curl")
	self, port := serve(t)
	w := begin(t)
	w.probed(self)
	w.probed("libssl.so.3")
	w.both(port, curl(t, port, 6, 16))
}

// A program that starts when nobody used its library before.
func TestFirstUser(t *testing.T) {
	lib := private(t, "/usr/lib/x86_64-linux-gnu/libssl.so.3")
	w := begin(t)
	w.probed("libssl.so.3")
	cert, key := certificate(t)
	port := freePort(t)
	cmd := exec.Command(need(t, "/usr/bin/python3"), script(t, "server.py", pythonServer), fmt.Sprint(port), cert, key)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+lib)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	listening(t, port)
	a := w.probed(lib + "/libssl.so.3")
	w.both(port, curl(t, port, 2, 8))

	// Nobody maps it any more: its probes go.
	cmd.Process.Kill()
	cmd.Wait()
	w.files.sweep()
	w.files.mu.Lock()
	defer w.files.mu.Unlock()
	for _, other := range w.files.attached {
		if other == a {
			t.Error("the library still has its probes")
		}
	}
}

// private copies a library to a folder of the test.
func private(t testing.TB, lib string) string {
	t.Helper()
	b, err := os.ReadFile(lib)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(lib)), b, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
