package tcp

import (
	"io"
	"net"
	"testing"
	"time"

	"ghostlight/internal/kernel"
)

// BenchmarkConnection is one connection with a request and an answer, seen from
// both ends; it reports the cost of each program per run and all of them per
// connection, without what measuring adds.
func BenchmarkConnection(b *testing.B) {
	w := begin(b, defaults)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, io.MultiReader(c))
			c.Close()
		}
	}()
	buffer := make([]byte, 100)
	costs := w.measure(func() {
		for i := 0; b.Loop(); i++ {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			_, _ = c.Write(buffer)
			_, _ = io.ReadFull(c, buffer)
			c.Close()
			if i%64 == 0 {
				w.drain()
				w.flows = w.flows[:0]
			}
		}
	})
	var sum float64
	for _, c := range costs {
		if c.Runs > 0 {
			b.ReportMetric(c.PerRunNS, c.Program+"-ns/run")
			sum += c.PerRunNS * float64(c.Runs)
		}
	}
	b.ReportMetric(sum/float64(b.N), "programs-ns/conn")
	if n := w.lost(); n > 0 {
		b.Errorf("%d lost", n)
	}
}

// BenchmarkRead is a message between two ends that last: a run of the program
// for each read, which is all that data in flight costs.
func BenchmarkRead(b *testing.B) {
	w := begin(b, every(time.Hour))
	p := connect(b, "127.0.0.1:0", "127.0.0.1")
	defer p.close()
	buffer := make([]byte, 100)
	costs := w.measure(func() {
		for b.Loop() {
			_, _ = p.client.Write(buffer)
			_, _ = io.ReadFull(p.server, buffer)
		}
	})
	for _, c := range costs {
		if c.Runs >= uint64(b.N) {
			b.ReportMetric(c.PerRunNS, c.Program+"-ns/run")
		}
	}
}

// BenchmarkSweep is a look at a thousand idle connections.
func BenchmarkSweep(b *testing.B) {
	w := begin(b, every(time.Hour))
	for range 500 {
		p := connect(b, "127.0.0.1:0", "127.0.0.1")
		defer p.close()
	}
	costs := w.measure(func() {
		for b.Loop() {
			if err := w.in.sweep(0); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, c := range costs {
		if c.Runs > 0 {
			b.ReportMetric(c.PerRunNS, c.Program+"-ns/run")
		}
	}
}

func (w *watch) measure(fn func()) []kernel.ProgramCost {
	w.t.Helper()
	m, err := w.kernel.NewMeter()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := m.Begin(); err != nil {
		w.t.Fatal(err)
	}
	fn()
	costs, err := m.End(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return costs
}
