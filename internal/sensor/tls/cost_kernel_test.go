package tls

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkServer is keep-alive requests by wrk to a real server, alternately
// with and without the probes; both ends are on this host and have them. It
// reports the CPU time of the server per request: the median of each kind, and
// how many of the requests gave their two chunks at the server.
func BenchmarkServer(b *testing.B) {
	need(b, "wrk")
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range []struct {
		name, file string
		serve      func(t testing.TB, port int, cert, key string)
	}{
		{"nginx", "libssl.so.3", nginx("TLSv1.3")},
		{"go", self, func(t testing.TB, port int, cert, key string) {
			start(t, self, "serve", fmt.Sprint(port), cert, key)
		}},
	} {
		b.Run(s.name, func(b *testing.B) { measure(b, s.file, s.serve) })
	}
}

func measure(b *testing.B, file string, serve func(t testing.TB, port int, cert, key string)) {
	cert, key := certificate(b)
	port := freePort(b)
	serve(b, port, cert, key)
	listening(b, port)
	w := begin(b)
	w.probed("libssl.so.3")
	w.probed(file)
	const rounds = 4
	var cost [2][]float64
	chunks, requests := 0, 0
	for b.Loop() {
		for round := range 2 * rounds {
			on := round % 2
			w.toggle(on == 1)
			before := cpuOf(b, port)
			n, seen := w.load(b, port)
			cost[on] = append(cost[on], float64(cpuOf(b, port)-before)/float64(n))
			if on == 1 {
				chunks, requests = chunks+seen, requests+n
			} else if seen > 0 {
				b.Errorf("%d chunks without a probe", seen)
			}
		}
	}
	for i, name := range []string{"without-ns/request", "with-ns/request"} {
		slices.Sort(cost[i])
		b.ReportMetric(cost[i][len(cost[i])/2], name)
	}
	b.ReportMetric(float64(chunks)/float64(requests)/2, "captured/served")
	b.ReportMetric(float64(requests), "requests")
}

// toggle attaches or detaches all probes.
func (w *watch) toggle(on bool) {
	w.t.Helper()
	w.files.mu.Lock()
	defer w.files.mu.Unlock()
	for _, a := range w.files.attached {
		if err := a.close(); err != nil {
			w.t.Fatal(err)
		}
		a.links = nil
		for _, l := range a.libs {
			if !on {
				continue
			}
			_ = w.files.probe(a, a.path, l) // others' programs may be gone by now
		}
	}
}

// load makes requests for a while, and counts them and the server's chunks.
func (w *watch) load(b *testing.B, port int) (requests, chunks int) {
	b.Helper()
	w.clear()
	out, err := exec.Command("wrk", "-t1", "-c8", "-d1s", fmt.Sprintf("https://127.0.0.1:%d/x", port)).Output()
	if err != nil {
		b.Fatal(err)
	}
	settle()
	for _, c := range w.seen() {
		if c.TLS && !c.Closed && int(c.Local.Port()) == port && len(c.Data) > 1 {
			chunks++
		}
	}
	head, _, _ := strings.Cut(string(out), " requests in ")
	requests, err = strconv.Atoi(head[strings.LastIndexByte(head, ' ')+1:])
	if err != nil {
		b.Fatalf("%s", out)
	}
	return requests, chunks
}

// cpuOf returns the CPU time of the processes that listen at a port, in
// nanoseconds.
func cpuOf(b *testing.B, port int) (ns int64) {
	b.Helper()
	out, err := exec.Command(need(b, "ss"), "-Hltnp", "sport", fmt.Sprintf("= :%d", port)).Output()
	if err != nil {
		b.Fatal(err)
	}
	for _, part := range strings.Split(string(out), "pid=")[1:] {
		pid, _, _ := strings.Cut(part, ",")
		sched, err := os.ReadFile("/proc/" + pid + "/schedstat")
		if err != nil {
			b.Fatal(err)
		}
		tasks, _ := os.ReadDir("/proc/" + pid + "/task")
		for _, t := range tasks {
			if one, err := os.ReadFile("/proc/" + pid + "/task/" + t.Name() + "/schedstat"); err == nil {
				sched = one
			}
			n, _ := strconv.ParseInt(strings.Fields(string(sched))[0], 10, 64)
			ns += n
		}
	}
	return ns
}
