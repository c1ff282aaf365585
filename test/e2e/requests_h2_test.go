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
	const n = 40
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport}
	for i := range n {
		answer(t, &client, "GET", p, fmt.Sprintf("/own/%d", i+1), nil)
	}
	own := asked{what: "url_path like '/own/%'", is: "http_route = '/own/{id}' and http_response_status_code = 200",
		n: n, client: os.Getpid(), served: p.lines(t, n, "GET /own/")}
	return append(askPlain(t, p), own)
}

// answer makes a request and reads the answer to its end.
func answer(t *testing.T, c *http.Client, method string, p *peer, path string, body []byte) *http.Response {
	t.Helper()
	q, err := http.NewRequest(method, "http://127.0.0.1:"+p.port+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(path, "/shop.") {
		q.Header.Set("Content-Type", "application/grpc")
		q.Header.Set("TE", "trailers")
	}
	q.Header.Set("Authorization", "Bearer "+secret)
	r, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		t.Fatal(err)
	}
	return r
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
	const n, load = 40, 200
	for i := range n {
		answer(t, p.client, "POST", p, fmt.Sprintf("/none/%d", i+1), make([]byte, 10_000))
	}
	h2load := exec.Command("h2load", "-n", strconv.Itoa(load), "-c", "2", "-m", "10", "http://127.0.0.1:"+p.port+"/load/1")
	out, err := h2load.CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("%d succeeded", load)) {
		t.Fatalf("h2load: %v\n%s", err, out)
	}
	return append(askOwnH2(t, p), []asked{
		{what: "url_path like '/none/%'", is: "http_request_method = 'POST' and http_response_status_code = 404 and size_request > 10000",
			n: n, client: os.Getpid(), served: p.lines(t, n, "POST /none/")},
		{what: "url_path like '/load/%'", is: "network_protocol_version = '2' and http_request_method = 'GET' and http_response_status_code = 200 and size_response > 1000",
			n: load, client: h2load.Process.Pid, served: p.lines(t, load, "GET /load/")},
	}...)
}

// askGRPC makes calls of one message and calls of several, and some that fail.
func askGRPC(t *testing.T, p *peer) []asked {
	t.Helper()
	const n = 40
	message := func(text string) []byte {
		return append([]byte{0, 0, 0, 0, byte(len(text))}, text...)
	}
	for range n {
		r := answer(t, p.client, "POST", p, "/shop.Stock/Get", message("one"))
		if status := r.Trailer.Get("Grpc-Status"); status != "0" {
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
