package l7cap

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/wire"
)

// nginx starts a server of one worker and returns its address.
func nginx(b *testing.B) (address string) {
	b.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	dir := b.TempDir()
	conf := fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log /dev/null;
events { worker_connections 128; }
http {
	access_log off; keepalive_requests 100000000;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	server { listen %[2]s; location / { return 200 "hello"; } }
}`, dir, address)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600); err != nil {
		b.Fatal(err)
	}
	server := exec.Command("nginx", "-e", "/dev/null", "-c", filepath.Join(dir, "conf"))
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = server.Process.Signal(os.Interrupt)
		_ = server.Wait()
	})
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp4", address)
		if err == nil {
			c.Close()
			return address
		}
		if time.Now().After(end) {
			b.Fatal(err)
		}
	}
}

// BenchmarkNginx is keep-alive requests by wrk, one operation each, as the real
// object sees them at both ends. It reports what all programs cost a request at
// one end, and how many of the requests gave their chunks.
func BenchmarkNginx(b *testing.B) {
	for _, program := range []string{"nginx", "wrk"} {
		if _, err := exec.LookPath(program); err != nil {
			b.Fatal(program, " is missing: run test/setup.sh")
		}
	}
	w := begin(b, mode{load: loadL7cap})
	address := nginx(b)
	chunks, stop, stopped := 0, make(chan bool), make(chan bool)
	go func() { // ends with stop
		defer close(stopped)
		for range time.Tick(5 * time.Millisecond) {
			var out event.Batch
			w.reader.Drain(1<<20, func(raw []byte) {
				h, _ := wire.View[wire.Header](raw)
				if w.in.Decode(h, raw, &out) == nil && between(&out.Chunks[0], address) {
					chunks++
				}
				out.Reset()
			})
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	requests := 0
	costs := w.spend(b, func() {
		for b.Loop() { // one run, whatever is asked for: wrk goes by time
			out, err := exec.Command("wrk", "-t1", "-c16", "-d2s", "http://"+address+"/").Output()
			if err != nil {
				b.Fatal(err)
			}
			requests += served(b, string(out))
		}
	})
	time.Sleep(50 * time.Millisecond)
	close(stop)
	<-stopped
	var sum float64
	for _, c := range costs {
		if c.Runs > 0 {
			b.ReportMetric(c.PerRunNS, c.Program+"-ns/run")
			sum += c.PerRunNS * float64(c.Runs)
		}
	}
	b.ReportMetric(sum/float64(requests)/2, "programs-ns/request/end")
	b.ReportMetric(float64(chunks)/float64(requests)/4, "captured/served")
	b.ReportMetric(float64(requests), "requests")
	if n := w.lost(); n > 0 {
		b.Errorf("%d lost", n)
	}
}

// between says that the chunk has bytes of a connection to address.
func between(c *event.Chunk, address string) bool {
	return len(c.Data) > 0 && (c.Local.String() == address || c.Remote.String() == address)
}

func (w *watch) spend(b *testing.B, fn func()) []kernel.ProgramCost {
	b.Helper()
	m, err := w.kernel.NewMeter()
	if err != nil {
		b.Fatal(err)
	}
	if err := m.Begin(); err != nil {
		b.Fatal(err)
	}
	fn()
	costs, err := m.End(nil)
	if err != nil {
		b.Fatal(err)
	}
	return costs
}

// served reads "  251832 requests in 2.10s, 33.62MB read".
func served(b *testing.B, report string) int {
	b.Helper()
	head, _, _ := strings.Cut(report, " requests in ")
	fields := strings.Fields(head)
	n, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil {
		b.Fatal(err, report)
	}
	return n
}
