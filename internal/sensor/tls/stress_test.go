package tls

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"ghostlight/internal/event"
)

// A server that writes much more than its peers read, so that what it writes for
// one connection is sent while it works for another.
const slowServer = `
import asyncio, ssl, sys, socket
async def serve(r, w):
    peer = w.get_extra_info("peername")[1]
    w.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    try:
        while True:
            head = await r.readuntil(b"\r\n\r\n")
            name = head.split(b" ")[1][1:]
            w.write(b"HTTP/1.1 200 OK\r\nX-Id: " + name + b"\r\nContent-Length: 720000\r\n\r\n")
            for i in range(12):
                w.write((b"part of %d;" % peer).ljust(60000, b"x"))
                await asyncio.sleep(0)
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

// Clients in one thread that read slowly: what was received for a connection
// stays in its buffer while others are read.
const slowClient = `
import asyncio, ssl, sys
async def ask(k, n, port):
    c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
    r, w = await asyncio.open_connection("127.0.0.1", port, ssl=c, limit=8192)
    mine = w.get_extra_info("sockname")[1]
    for i in range(n):
        name = "s%d-%d" % (k, i)
        w.write(b"GET /" + name.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await r.readuntil(b"\r\n\r\n")
        assert b"X-Id: " + name.encode() in head
        left = 720000
        while left:
            left -= len(await r.read(min(left, 7000)))
            await asyncio.sleep(0.0005)
        print(name, mine)
    w.close()
async def main(port, k, n): await asyncio.gather(*[ask(i, n, port) for i in range(k)])
asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
`

// Nothing is told on a connection that did not carry it, and no byte twice.
func TestStress(t *testing.T) {
	cert, key := certificate(t)
	port := freePort(t)
	interpreted("/usr/bin/python3", "server.py", slowServer)(t, port, cert, key)
	listening(t, port)
	w := begin(t)
	w.probed("libssl.so.3")
	const clients, each = 8, 3
	saw := told(t, exec.Command("/usr/bin/python3", script(t, "client.py", slowClient), fmt.Sprint(port), fmt.Sprint(clients), fmt.Sprint(each)), clients*each)
	w.both(port, saw)

	parts, wrong := 0, 0
	moved := map[bool]map[uint16]uint64{true: {}, false: {}} // by the client's port, at each end
	for _, c := range w.seen() {
		if !c.TLS || c.Closed || !server(port)(&c) && !client(port)(&c) {
			continue
		}
		from := c.Local.Port()
		if server(port)(&c) {
			from = c.Remote.Port()
		}
		if isAnswer(&c, port) {
			moved[server(port)(&c)][from] = max(moved[server(port)(&c)][from], c.Offset+uint64(c.Len))
		}
		if _, rest, ok := strings.Cut(string(c.Data), "part of "); ok {
			parts++
			if name, _, _ := strings.Cut(rest, ";"); name != fmt.Sprint(from) {
				wrong++
			}
		}
	}
	if parts < clients*each || wrong > 0 {
		t.Errorf("%d parts of bodies, %d of them on the wrong connection", parts, wrong)
	}
	for end, ports := range moved {
		for from, n := range ports {
			if n < each*720000 || n > each*720100 {
				t.Errorf("server %v, connection from %d: %d bytes", end, from, n)
			}
		}
		if len(ports) != clients {
			t.Errorf("server %v: %d connections", end, len(ports))
		}
	}
}

func isAnswer(c *event.Chunk, port int) bool { return server(port)(c) == c.Sent }
