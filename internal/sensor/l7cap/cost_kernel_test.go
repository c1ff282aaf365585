package l7cap

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/wire"
)

// measure reports the cost of each program per run while fn runs, and of all of
// them per operation, without what measuring adds.
func (w *watch) measure(b *testing.B, fn func()) {
	b.Helper()
	costs := w.spend(b, fn)
	var sum float64
	for _, c := range costs {
		if c.Runs > 0 {
			b.ReportMetric(c.PerRunNS, c.Program+"-ns/run")
			sum += c.PerRunNS * float64(c.Runs)
		}
	}
	b.ReportMetric(sum/float64(b.N), "programs-ns/op")
}

// BenchmarkExchange is a request of 100 bytes and its answer of 300, both ends
// in one thread: four calls, a record each; with none nobody knows the protocol.
func BenchmarkExchange(b *testing.B) {
	for _, c := range []struct{ name, ask, answer string }{
		{"known", "ASK ", "ANS "},
		{"none", "what", "that"},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := begin(b, mode{tier: anyTier()})
			p := tcp4.pair(b)
			ask, answer, buffer := []byte(text(c.ask, 100)), []byte(text(c.answer, 300)), make([]byte, 4096)
			w.measure(b, func() {
				for i := 0; b.Loop(); i++ {
					_, _ = unix.Write(p.client, ask)
					_, _ = unix.Read(p.server, buffer)
					_, _ = unix.Write(p.server, answer)
					_, _ = unix.Read(p.client, buffer)
					if i%256 == 0 {
						w.reader.Drain(1<<20, func([]byte) {})
					}
				}
			})
			if n := w.lost(); n > 0 {
				b.Errorf("%d lost", n)
			}
		})
	}
}

// record is what the kernel sends of one call.
func record(t testing.TB) (raw []byte) {
	t.Helper()
	w := begin(t, mode{tier: anyTier()})
	p := tcp4.pair(t)
	p.write(p.client, text("ASK ", 300))
	w.reader.Drain(1, func(r []byte) { raw = append(raw, r...) })
	if raw == nil {
		t.Fatal("no record")
	}
	return raw
}

func BenchmarkDecode(b *testing.B) {
	raw := record(b)
	decodeLoop(b, raw, func(step func()) {
		for b.Loop() {
			step()
		}
	})
}

// Nothing is allocated for a chunk once the batch has its memory.
func TestDecodeDoesNotAllocate(t *testing.T) {
	raw := record(t)
	decodeLoop(t, raw, func(step func()) {
		if n := testing.AllocsPerRun(10000, step); n > 0 {
			t.Errorf("%v allocations for a chunk", n)
		}
	})
}

func decodeLoop(t testing.TB, raw []byte, loop func(step func())) {
	in, out, n := &instance{}, &event.Batch{}, 0
	loop(func() {
		h, err := wire.View[wire.Header](raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := in.Decode(h, raw, out); err != nil {
			t.Fatal(err)
		}
		if n++; n%256 == 0 {
			out.Reset()
		}
	})
}

// The cost of a call on a connection that nobody knows is one look-up: less
// than a third of that of a record.
func TestNobodyKnowsIsCheap(t *testing.T) {
	w := begin(t, mode{tier: anyTier()})
	per := func(ask, answer string) (sum float64) {
		p := tcp4.pair(t)
		exchange := func(n int) {
			for range n {
				p.write(p.client, ask)
				p.read(p.server, 4096)
				p.write(p.server, answer)
				p.read(p.client, 4096)
			}
			w.reader.Drain(1<<20, func([]byte) {})
		}
		exchange(8)
		m, err := w.kernel.NewMeter()
		if err != nil {
			t.Fatal(err)
		}
		least := 0.0
		for range 5 {
			if err := m.Begin(); err != nil {
				t.Fatal(err)
			}
			exchange(1000)
			costs, err := m.End(nil)
			if err != nil {
				t.Fatal(err)
			}
			if s := spent(costs); least == 0 || s < least {
				least = s
			}
		}
		return least
	}
	known, none := per(text("ASK ", 100), text("ANS ", 300)), per(text("what", 100), text("that", 300))
	if none*3 > known {
		t.Errorf("an unknown exchange costs %.0f ns, a known one %.0f ns", none/1000, known/1000)
	}
}

func spent(costs []kernel.ProgramCost) (ns float64) {
	for _, c := range costs {
		if !strings.HasSuffix(c.Program, "_ready") {
			ns += c.PerRunNS * float64(c.Runs)
		}
	}
	return ns
}
