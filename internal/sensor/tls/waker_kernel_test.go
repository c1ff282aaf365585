package tls

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"ghostlight/internal/event"
)

// wakers: a Go client with a pool of connections. The goroutine that writes a
// request is another than the one that asks, and was woken by it.
func wakers(t *testing.T, w *watch, self string, served int) {
	ports := [2]int{served, freePort(t)}
	start(t, self, "relay", fmt.Sprint(ports[1]), fmt.Sprint(ports[0]))
	listening(t, ports[1])
	// The first calls show that it is a client.
	get(t, ports[1], "first")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err := w.sensors[1].(*instance).Tick(0, &event.Batch{}); err != nil {
			t.Fatal(err)
		}
		if w.probed(self).follows {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not followed")
		}
	}
	w.clear()
	const clients, each = 8, 10
	var wait sync.WaitGroup
	for c := range clients {
		wait.Go(func() {
			for i := range each {
				get(t, ports[1], fmt.Sprintf("w-%d-%d", c, i))
			}
		})
	}
	wait.Wait()
	settle()
	asked := map[string]uint64{} // request -> goroutine that serves it
	right, linked := 0, 0
	for _, c := range w.seen() {
		if !c.TLS && !c.Sent && int(c.Local.Port()) == ports[1] {
			asked[word(c.Data)] = c.Goroutine
		}
	}
	for _, c := range w.seen() {
		if !c.TLS || !c.Sent || int(c.Remote.Port()) != ports[0] {
			continue
		}
		linked++
		if g := asked[word(c.Data)]; g != 0 && c.Waker == g {
			right++
		}
	}
	t.Logf("%d of %d calls link to their request", right, linked)
	// The first call of each connection is handed on by the goroutine that dialled.
	if n := clients * each; linked != n || right < n-clients {
		t.Errorf("%d of %d calls, %d link to their request", linked, n, right)
	}
}

// word is the path of a request.
func word(data []byte) string {
	f := strings.Fields(string(data))
	if len(f) < 2 {
		return ""
	}
	return f[1]
}

// get asks a plain HTTP server.
func get(t *testing.T, port int, id string) {
	t.Helper()
	r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/%s", port, id))
	if err != nil {
		t.Error(err)
		return
	}
	io.Copy(io.Discard, r.Body)
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Error(r.Status)
	}
}
