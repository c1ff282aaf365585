package tcp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
)

// The kernel counts windows that open again for each network namespace: here
// one for each connection. (Its count of those that close leaves out the ones
// for want of memory for a packet.) A socket that ends lets go of what it holds,
// so that its last RST opens the window.
func TestZeroWindows(t *testing.T) {
	for _, c := range []struct {
		stops    int
		resumes  bool
		interval time.Duration
		buffer   int
		read     string
		with     func(p *pair, buffer []byte) (int, error)
	}{
		{0, true, leastInterval, 32 << 10, "read", readSome},
		{1, true, leastInterval, 32 << 10, "read", readSome},
		{4, true, leastInterval, 32 << 10, "read", readSome},
		{2, true, leastInterval, 256 << 10, "read", readSome},
		{4, true, leastInterval, 32 << 10, "a little at a time", readLittle},
		{4, true, leastInterval, 32 << 10, "recvmsg with MSG_TRUNC", readAway},
		{3, true, time.Hour, 32 << 10, "read", readSome}, // no sweep
		{1, false, time.Hour, 32 << 10, "read", readSome},
		{1, false, leastInterval, 32 << 10, "read", readSome},
	} {
		t.Run(fmt.Sprintf("%d stops, interval %s, %d KiB, %s, resumes %v", c.stops, c.interval, c.buffer>>10, c.read, c.resumes), func(t *testing.T) {
			n := newNetwork(t)
			w := begin(t, every(c.interval))
			var p *pair
			n.do(func() { p = connect(t, "127.0.0.1:0", "127.0.0.1") })
			ours := func(at event.Direction, over bool) func(*event.Flow) bool {
				return func(f *event.Flow) bool {
					return end(at, p.source)(f) && f.Destination == p.destination && (!over || f.TCP.CloseReason != event.StillOpen)
				}
			}
			s := &stopper{t: t, watch: w, pair: p, read: c.with}
			s.setUp(c.buffer)
			s.flow(3_000_000) // a reader that keeps up
			for i := range c.stops {
				s.fill()
				time.Sleep(2 * leastInterval)
				if got := total(w.of(ours(event.Inbound, false))).TCP.ZeroWindows; c.interval == leastInterval && got != uint64(i+1) {
					t.Errorf("%d zero windows told while the last of %d lasts", got, i+1)
				}
				if c.resumes || i+1 < c.stops {
					s.empty()
				}
			}
			p.server.Close()
			p.client.Close()
			w.want(1, ours(event.Inbound, true))
			w.want(1, ours(event.Outbound, true))
			reader, writer := w.of(ours(event.Inbound, false)), w.of(ours(event.Outbound, false))
			if got := total(reader).TCP.ZeroWindows; got != uint64(c.stops) {
				t.Errorf("%d zero windows, made %d: %s", got, c.stops, show(reader))
			}
			if got := total(writer).TCP.ZeroWindows; got != 0 {
				t.Errorf("%d zero windows of the end that writes", got)
			}
			closed, opened := n.counter("TCPToZeroWindowAdv"), n.counter("TCPFromZeroWindowAdv")
			if opened != uint64(c.stops) || closed > uint64(c.stops) {
				t.Errorf("the kernel: %d closed, %d opened again; made %d", closed, opened, c.stops)
			}
			t.Logf("made %d; the kernel: %d closed, %d opened again", c.stops, closed, opened)
		})
	}
}

// stopper writes at the client and reads, or does not, at the server.
type stopper struct {
	t     *testing.T
	watch *watch // drained meanwhile: the host may be busy
	*pair
	read    func(p *pair, buffer []byte) (int, error)
	unread  int
	scratch [64 << 10]byte
}

// The writer keeps little back, so that what it still has when the window opens
// does not close it again.
func (s *stopper) setUp(buffer int) {
	s.t.Helper()
	for _, err := range []error{s.client.SetWriteBuffer(4 << 10), s.server.SetReadBuffer(buffer)} {
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// flow writes n bytes that are read at once.
func (s *stopper) flow(n int) {
	s.t.Helper()
	for n > 0 {
		s.watch.drain()
		k, err := s.client.Write(s.scratch[:4<<10])
		if err != nil {
			s.t.Fatal(err)
		}
		n -= k
		s.unread += k
		s.empty()
	}
}

// fill writes until the window is closed.
func (s *stopper) fill() {
	s.t.Helper()
	for until := time.Now().Add(20 * time.Second); info(s.t, s.client).Snd_wnd > 0; {
		_ = s.client.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		k, err := s.client.Write(s.scratch[:2<<10])
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(until) {
			s.t.Fatal("the window does not close: ", err)
		}
		s.unread += k
		s.watch.drain()
	}
}

// empty reads everything that was written.
func (s *stopper) empty() {
	s.t.Helper()
	_ = s.server.SetReadDeadline(time.Now().Add(20 * time.Second))
	for s.unread > 0 {
		k, err := s.read(s.pair, s.scratch[:min(len(s.scratch), s.unread)])
		if err != nil {
			s.t.Fatal(err)
		}
		s.unread -= k
	}
}

func readSome(p *pair, buffer []byte) (int, error) { return p.server.Read(buffer) }

func readLittle(p *pair, buffer []byte) (int, error) {
	return p.server.Read(buffer[:min(len(buffer), 700)])
}

// readAway takes bytes out of the socket without looking at them.
func readAway(p *pair, buffer []byte) (n int, err error) {
	raw, err := p.server.SyscallConn()
	if err != nil {
		return 0, err
	}
	waited := raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), buffer, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN)
	})
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, errors.Join(waited, err)
}

// counter returns one of the kernel's counters of the namespace.
func (n *network) counter(name string) (count uint64) {
	n.t.Helper()
	var file []byte
	var err error
	n.do(func() { file, err = os.ReadFile("/proc/thread-self/net/netstat") })
	if err != nil {
		n.t.Fatal(err)
	}
	lines := strings.Split(string(file), "\n")
	for i := 0; i+1 < len(lines); i += 2 { // names, then values
		values := strings.Fields(lines[i+1])
		for k, field := range strings.Fields(lines[i]) {
			if field == name && k < len(values) {
				count, err = strconv.ParseUint(values[k], 10, 64)
				if err != nil {
					n.t.Fatal(err)
				}
				return count
			}
		}
	}
	n.t.Fatal("the kernel does not count ", name)
	return 0
}
