package tls

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"ghostlight/internal/kernel"
)

// TestMain lets this test be the Go programs that it watches.
func TestMain(m *testing.M) {
	switch a := os.Args[1:]; {
	case len(a) == 4 && a[0] == "serve":
		goServe(a[1], a[2], a[3])
	case len(a) == 3 && a[0] == "relay":
		goRelay(a[1], a[2])
	case len(a) == 5 && a[0] == "ask":
		goAsk(a[1], a[2], a[3], a[4])
	default:
		os.Exit(m.Run())
	}
}

func goServe(port, cert, key string) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-Id"] = []string{r.URL.Path[1:]}
		io.WriteString(w, "xxxxxxxxxx")
	})
	panic(http.ListenAndServeTLS("127.0.0.1:"+port, cert, key, h))
}

// goRelay serves each request by asking another server, through a pool.
func goRelay(port, to string) {
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 16}}
	panic(http.ListenAndServe("127.0.0.1:"+port, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r, err := c.Get("https://127.0.0.1:" + to + q.URL.Path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		io.Copy(w, r.Body)
		r.Body.Close()
	})))
}

// goAsk asks n times on each of some connections at once, and prints what was
// answered: the id and the port.
func goAsk(port, clients, requests, version string) {
	k, _ := strconv.Atoi(clients)
	n, _ := strconv.Atoi(requests)
	var wait sync.WaitGroup
	for c := range k {
		wait.Go(func() {
			var from int
			tr := &http.Transport{
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: version == "2", MaxConnsPerHost: 1,
				Dial: func(network, address string) (net.Conn, error) {
					conn, err := net.Dial(network, address)
					if err == nil {
						from = conn.LocalAddr().(*net.TCPAddr).Port
					}
					return conn, err
				},
			}
			for i := range n {
				id := fmt.Sprintf("g%d-%d", c, i)
				r, err := (&http.Client{Transport: tr}).Get("https://127.0.0.1:" + port + "/" + id)
				if err != nil {
					panic(err)
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
				fmt.Println(r.Header.Get("X-Id"), from, r.Proto)
			}
		})
	}
	wait.Wait()
}

// ask runs a Go client to its end.
func ask(t *testing.T, program string, port, clients, requests int, version string) truth {
	t.Helper()
	out, err := exec.Command(program, "ask", fmt.Sprint(port), fmt.Sprint(clients), fmt.Sprint(requests), version).Output()
	if err != nil {
		t.Fatal(err)
	}
	saw := truth{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		from, _ := strconv.Atoi(f[1])
		saw[f[0]] = uint16(from)
		if f[2] != "HTTP/"+map[string]string{"1": "1.1", "2": "2.0"}[version] {
			t.Fatal(line)
		}
	}
	if len(saw) != clients*requests {
		t.Fatalf("%d answers", len(saw))
	}
	return saw
}

// Both ends are Go: nothing of the host but its kernel is needed. One sensor
// does it all, as loading takes its time in an emulated machine.
func TestGo(t *testing.T) {
	self, port := serve(t)
	w := begin(t)
	w.probed(self)
	t.Run("HTTP/1", func(t *testing.T) {
		w.t = t
		w.clear()
		w.both(port, ask(t, self, port, 8, 20, "1"))
		w.goroutines(port)
	})
	t.Run("HTTP/2", func(t *testing.T) {
		w.t = t
		w.clear()
		ask(t, self, port, 8, 20, "2")
		settle()
		w.streams(port, 8)
	})
	t.Run("wakers", func(t *testing.T) {
		w.t = t
		wakers(t, w, self, port)
	})
}

// Kernels before uprobe_multi take the probes one by one; they have no other
// way, and TestGo goes it.
func TestOneByOne(t *testing.T) {
	if err := haveUprobeMulti.Have(); err != nil {
		t.Skip(err)
	}
	self, port := serve(t)
	w := beginBy(t, oneByOne(hooks))
	if w.files.multi {
		t.Fatal("one link has all probes")
	}
	w.probed(self)
	w.both(port, ask(t, self, port, 2, 10, "1"))
	w.goroutines(port)
}

// oneByOne leaves out what uprobe_multi is needed for.
func oneByOne(hooks []kernel.Hook) (left []kernel.Hook) {
	for _, h := range hooks {
		h.Tiers = slices.DeleteFunc(slices.Clone(h.Tiers), func(t kernel.Tier) bool { return slices.Contains(t.Needs, haveUprobeMulti) })
		left = append(left, h)
	}
	return left
}

// serve runs this test as a server.
func serve(t *testing.T) (self string, port int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cert, key := certificate(t)
	port = freePort(t)
	start(t, self, "serve", fmt.Sprint(port), cert, key)
	listening(t, port)
	return self, port
}

// goroutines fails unless every chunk has one, and each connection of a server
// its own.
func (w *watch) goroutines(port int) {
	w.t.Helper()
	of := map[uint64]map[uint64]bool{}
	for _, c := range w.seen() {
		if !c.TLS || c.Closed || int(c.Local.Port()) != port {
			continue
		}
		if of[c.Conn] == nil {
			of[c.Conn] = map[uint64]bool{}
		}
		if len(c.Data) > 1 { // not the reader in the background
			of[c.Conn][c.Goroutine] = true
		}
	}
	for conn, ids := range of {
		if len(ids) != 1 || ids[0] {
			w.t.Errorf("connection %d: goroutines %v", conn, ids)
		}
	}
}

// streams fails unless each connection's two ends tell of the same bytes, with
// no gap.
func (w *watch) streams(port, conns int) {
	w.t.Helper()
	type way struct {
		client uint16
		asks   bool
	}
	ends := [2]map[way]uint64{{}, {}}
	bytes := [2]map[way]string{{}, {}}
	for _, c := range w.seen() {
		if !c.TLS || c.Closed || !server(port)(&c) && !client(port)(&c) {
			continue
		}
		side, k := 0, way{c.Remote.Port(), !c.Sent}
		if client(port)(&c) {
			side, k = 1, way{c.Local.Port(), c.Sent}
		}
		if last := ends[side][k]; last != 0 && last != c.Offset {
			w.t.Errorf("%+v: %d follows %d", k, c.Offset, last)
		}
		ends[side][k] = c.Offset + uint64(c.Len)
		if len(c.Data) == c.Len {
			bytes[side][k] += string(c.Data)
		}
	}
	if len(ends[0]) != 2*conns || len(ends[1]) != 2*conns {
		w.t.Errorf("%d and %d ways of %d", len(ends[0]), len(ends[1]), 2*conns)
	}
	for k, n := range ends[0] {
		if ends[1][k] != n {
			w.t.Errorf("%+v: the server counts %d bytes, the client %d", k, n, ends[1][k])
		}
		if a, b := bytes[0][k], bytes[1][k]; !strings.HasSuffix(a, b) && !strings.HasSuffix(b, a) || len(a) < 200 {
			w.t.Errorf("%+v: %d and %d bytes that differ", k, len(a), len(b))
		}
	}
}
