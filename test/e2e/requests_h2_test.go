package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// origin is a server of net/http.
func origin(t *testing.T) *peer {
	t.Helper()
	p := newPeer(t)
	program := filepath.Join(filepath.Dir(p.served), "origin")
	build := exec.Command("go", "build", "-o", program, "./origin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.pid = background(t, program, "127.0.0.1:"+p.port, p.served).Process.Pid
	listening(t, p.port)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	p.client = &http.Client{Transport: transport}
	return p
}

// askOrigin asks by curl and by net/http, over HTTP/1.1.
func askOrigin(t *testing.T, p *peer) []asked {
	t.Helper()
	const workers, n = 4, 80
	transport := &http.Transport{MaxIdleConnsPerHost: workers}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport}
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w; i < n; i += workers {
				answer(t, &client, "GET", p, fmt.Sprintf("/own/%d", i+1), nil)
			}
		})
	}
	all.Wait()
	own := asked{what: "url_path like '/own/%'", is: "http_route = '/own/{id}' and http_response_status_code = 200",
		n: n, client: os.Getpid(), served: p.lines(t, n, "GET /own/")}
	return append(askPlain(t, p), own)
}

// answer makes a request, reads the answer to its end, and returns its trailer.
func answer(t *testing.T, c *http.Client, method string, p *peer, path string, body []byte) http.Header {
	t.Helper()
	q, err := http.NewRequest(method, "http://127.0.0.1:"+p.port+path, bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return nil
	}
	if strings.HasPrefix(path, "/shop.") {
		q.Header.Set("Content-Type", "application/grpc")
		q.Header.Set("TE", "trailers")
	}
	q.Header.Set("Authorization", "Bearer "+secret())
	r, err := c.Do(q)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		t.Error(err)
	}
	return r.Trailer
}

// warmH2 opens the connection that the agent will meet in its middle.
func warmH2(t *testing.T, p *peer) {
	t.Helper()
	for i := range 5 {
		answer(t, p.client, "GET", p, fmt.Sprintf("/before/%d", i+1), nil)
	}
}

// askOwnH2 asks by net/http.
func askOwnH2(t *testing.T, p *peer) []asked {
	t.Helper()
	const n = 40
	for i := range n {
		answer(t, p.client, "GET", p, fmt.Sprintf("/own/%d", i+1), nil)
	}
	return []asked{{what: "url_path like '/own/%'", is: "network_protocol_version = '2' and http_route = '/own/{id}' and http_request_method = 'GET' and http_response_status_code = 200",
		n: n, client: os.Getpid(), served: p.lines(t, n, "GET /own/")}}
}

// askH2 asks for what is not there too, and by nghttp2, several streams at a
// time.
func askH2(t *testing.T, p *peer) []asked {
	t.Helper()
	const n = 40
	for i := range n {
		answer(t, p.client, "POST", p, fmt.Sprintf("/none/%d", i+1), make([]byte, 10_000))
	}
	return append(askOwnH2(t, p), h2load(t, p, 200, "-c", "2", "-m", "10"), asked{
		what: "url_path like '/none/%'", is: "http_request_method = 'POST' and http_response_status_code = 404 and size_request > 10000",
		n: n, client: os.Getpid(), served: p.lines(t, n, "POST /none/")})
}

// h2load asks by nghttp2's load generator.
func h2load(t *testing.T, p *peer, n int, flags ...string) asked {
	t.Helper()
	cmd := exec.Command("h2load", append(flags, "-n", strconv.Itoa(n), "http://127.0.0.1:"+p.port+"/load/1")...)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf(" %d succeeded", n)) {
		t.Fatalf("h2load: %v\n%s", err, out)
	}
	version := "2"
	if flags[0] == "--h1" {
		version = "1.1"
	}
	return asked{what: "url_path like '/load/%'", is: "network_protocol_version = '" + version + "' and http_request_method = 'GET' and http_response_status_code = 200 and size_response > 1000",
		n: n, client: cmd.Process.Pid, served: p.lines(t, n, "GET /load/")}
}

// askGRPC makes calls of one message and calls of several, and some that fail.
func askGRPC(t *testing.T, p *peer) []asked {
	t.Helper()
	const n = 40
	message := func(text string) []byte {
		return append([]byte{0, 0, 0, 0, byte(len(text))}, text...)
	}
	for range n {
		trailer := answer(t, p.client, "POST", p, "/shop.Stock/Get", message("one"))
		if status := trailer.Get("Grpc-Status"); status != "0" {
			t.Fatalf("grpc-status is %q", status)
		}
		answer(t, p.client, "POST", p, "/shop.Stock/Watch", bytes.Repeat(message("one"), 5))
		answer(t, p.client, "POST", p, "/shop.Stock/Find", message("none"))
	}
	call := func(method, status string) asked {
		return asked{what: "rpc_method = 'shop.Stock/" + method + "'", is: "protocol = 'grpc' and rpc_system_name = 'grpc' and rpc_response_status_code = '" + status + "'",
			n: n, client: os.Getpid(), served: p.lines(t, n, "POST /shop.Stock/"+method)}
	}
	return []asked{call("Get", "OK"), call("Watch", "OK"), call("Find", "NOT_FOUND")}
}
