package tls

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

const asyncioClient = `
import asyncio, ssl, sys
async def ask(k, n, port):
    c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
    r, w = await asyncio.open_connection("127.0.0.1", port, ssl=c)
    mine = w.get_extra_info("sockname")[1]
    for i in range(n):
        name = "a%d-%d" % (k, i)
        w.write(b"GET /" + name.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await r.readuntil(b"\r\n\r\n"); await r.readexactly(10)
        assert b"X-Id: " + name.encode() in head
        print(name, mine)
    w.close()
async def main(port, k, n): await asyncio.gather(*[ask(i, n, port) for i in range(k)])
asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
`

const pythonClient = `
import http.client, ssl, sys, threading
c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
def ask(k, n, port):
    h = http.client.HTTPSConnection("127.0.0.1", port, context=c); h.connect()
    mine = h.sock.getsockname()[1]
    for i in range(n):
        name = "p%d-%d" % (k, i)
        h.request("GET", "/" + name); r = h.getresponse(); r.read()
        assert r.getheader("X-Id") == name
        sys.stdout.write("%s %d\n" % (name, mine))
t = [threading.Thread(target=ask, args=(k, int(sys.argv[3]), int(sys.argv[1]))) for k in range(int(sys.argv[2]))]
[x.start() for x in t]; [x.join() for x in t]
`

const nodeClient = `
const https = require("https"), [port, k, n] = process.argv.slice(2).map(Number)
for (let c = 0; c < k; c++) {
  const agent = new https.Agent({keepAlive: true, maxSockets: 1, rejectUnauthorized: false})
  const ask = i => i < n && https.get({host: "127.0.0.1", port, path: "/n" + c + "-" + i, agent}, r => {
    const from = r.socket.localPort
    r.resume(); r.on("end", () => { console.log(r.headers["x-id"], from); ask(i + 1); if (i + 1 == n) agent.destroy() })
  })
  ask(0)
}
`

// PostgreSQL's way: plain bytes ask for TLS, and are answered by one.
const startServer = `
import socket, ssl, sys, threading
c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
c.load_cert_chain(sys.argv[2], sys.argv[3])
def serve(s):
    if len(s.recv(8)) < 8: return
    s.sendall(b"S")
    s = c.wrap_socket(s, server_side=True)
    while True:
        head = s.recv(4096)
        if not head: return
        name = head.split(b" ")[1][1:]
        s.sendall(b"HTTP/1.1 200 OK\r\nX-Id: " + name + b"\r\nContent-Length: 0\r\n\r\n")
l = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True: threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
`

const startClient = `
import socket, ssl, sys
port, k, n = map(int, sys.argv[1:4])
c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
for x in range(k):
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(bytes([0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]))
    assert s.recv(1) == b"S"
    s = c.wrap_socket(s)
    for i in range(n):
        name = "x%d-%d" % (x, i)
        s.sendall(b"GET /" + name.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert name.encode() in s.recv(4096)
        print(name, s.getsockname()[1])
    s.close()
`

// A connection that begins in plaintext, of a protocol that is known.
func TestStartTLS(t *testing.T) {
	cert, key := certificate(t)
	port := freePort(t)
	interpreted("/usr/bin/python3", "server.py", startServer)(t, port, cert, key)
	listening(t, port)
	w := begin(t)
	w.probed("libssl.so.3")
	w.both(port, told(t, exec.Command("/usr/bin/python3", script(t, "client.py", startClient), fmt.Sprint(port), "4", "5"), 20))
	for _, c := range w.seen() {
		// The hello tells it, and is told; 23 begins a record of application data.
		if !c.TLS && len(c.Data) > 0 && c.Data[0] == 23 && (server(port)(&c) || client(port)(&c)) {
			t.Errorf("%d encrypted bytes were told as plain", len(c.Data))
		}
	}
}

// clients are real ones that print for each answer its id and their port.
var clients = []struct{ name, program, script, text string }{
	{"asyncio", "/usr/bin/python3", "client.py", asyncioClient},
	{"python threads", "/usr/bin/python3", "client.py", pythonClient},
	{"node", "node", "client.js", nodeClient},
}

// Clients, of a server that has one connection's bytes wait for another's.
func TestClients(t *testing.T) {
	cert, key := certificate(t)
	port := freePort(t)
	interpreted("/usr/bin/python3", "server.py", asyncioServer)(t, port, cert, key)
	listening(t, port)
	need(t, "node")
	w := begin(t)
	w.probed("libssl.so.3")
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			w.clear()
			w.both(port, told(t, exec.Command(need(t, c.program), script(t, c.script, c.text), fmt.Sprint(port), "8", "20"), 160))
		})
	}
	t.Run("openssl s_client", func(t *testing.T) {
		w.t = t
		w.clear()
		w.both(port, typed(t, port, "openssl", "s_client", "-quiet", "-connect", fmt.Sprintf("127.0.0.1:%d", port)))
	})
	t.Run("gnutls-cli", func(t *testing.T) {
		w.t = t
		w.clear()
		w.probed("libgnutls.so.30.34.3")
		w.both(port, typed(t, port, "gnutls-cli", "--insecure", "--no-ca-verification", "-p", fmt.Sprint(port), "127.0.0.1"))
	})
}

// told runs a client to its end, and reads what it says.
func told(t *testing.T, cmd *exec.Cmd, answers int) truth {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	saw := truth{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		from, _ := strconv.Atoi(f[1])
		saw[f[0]] = uint16(from)
	}
	if len(saw) != answers {
		t.Fatalf("%d answers of %d", len(saw), answers)
	}
	return saw
}

// typed sends requests by a program that passes on what is typed. It does not
// say its port: the server's end does.
func typed(t *testing.T, port int, program string, args ...string) truth {
	t.Helper()
	cmd := exec.Command(need(t, program), args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out lines
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	saw := truth{}
	for i := range 5 {
		id := fmt.Sprintf("t-%d", i)
		fmt.Fprintf(in, "GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", id)
		for end := time.Now().Add(10 * time.Second); !strings.Contains(out.String(), "X-Id: "+id); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no answer to %s: %s", id, out.String())
			}
		}
		saw[id] = portOf(t, cmd.Process.Pid, port)
	}
	return saw
}

// portOf returns the local port of a process's connection to a port.
func portOf(t *testing.T, pid, port int) uint16 {
	t.Helper()
	out, err := exec.Command(need(t, "ss"), "-Htnp", "dst", fmt.Sprintf("127.0.0.1:%d", port)).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); strings.Contains(line, fmt.Sprintf("pid=%d,", pid)) {
			_, mine, _ := strings.Cut(f[3], ":")
			n, _ := strconv.Atoi(mine)
			return uint16(n)
		}
	}
	t.Fatalf("process %d has no connection:\n%s", pid, out)
	return 0
}
