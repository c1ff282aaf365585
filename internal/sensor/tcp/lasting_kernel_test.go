package tcp

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
)

// total adds the records of one end.
func total(flows []event.Flow) (sum event.Flow) {
	for _, f := range flows {
		sum.Sent.Bytes += f.Sent.Bytes
		sum.Sent.Packets += f.Sent.Packets
		sum.Received.Bytes += f.Received.Bytes
		sum.Received.Packets += f.Received.Packets
		sum.TCP.Retransmits += f.TCP.Retransmits
		sum.TCP.WindowLimitedNS += f.TCP.WindowLimitedNS
		sum.TCP.ZeroWindows += f.TCP.ZeroWindows
		sum.Direction, sum.TCP.RTTNS, sum.TCP.RTTMinNS = f.Direction, f.TCP.RTTNS, f.TCP.RTTMinNS
	}
	return sum
}

func TestLastingFlow(t *testing.T) {
	w := begin(t, every(200*time.Millisecond))
	p := connect(t, "127.0.0.1:0", "127.0.0.1")
	client := end(event.Outbound, p.source)
	first := w.want(1, client)[0]
	if first.TCP.CloseReason != event.StillOpen || first.TCP.State != 1 || first.Sent.Bytes != 0 || !first.Complete {
		t.Error(show([]event.Flow{first}))
	}
	time.Sleep(500 * time.Millisecond)
	w.want(1, client) // idle: nothing to tell
	if _, err := p.client.Write(make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(p.server, make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	second := w.want(2, client)[1]
	if second.Sent.Bytes != 10_000 || second.ID != first.ID || second.Time != first.End {
		t.Error(show([]event.Flow{first, second}))
	}
	p.close()
	last := w.want(3, client)[2]
	if last.Sent.Bytes != 0 || last.TCP.CloseReason != event.FinSent || last.Time != second.End {
		t.Error(show([]event.Flow{last}))
	}
}

// The records of a busy flow add up, however the sweeps cut it.
func TestDeltasAddUp(t *testing.T) {
	w := begin(t, every(leastInterval))
	for range 2 {
		p := connect(t, "127.0.0.1:0", "127.0.0.1")
		stop, sent := make(chan struct{}), make(chan int64, 1)
		go func() { // ends with stop
			defer p.client.CloseWrite()
			for n := int64(0); ; {
				select {
				case <-stop:
					sent <- n
					return
				default:
				}
				k, err := p.client.Write(make([]byte, 1+rand.IntN(30_000)))
				if err != nil {
					t.Error(err)
				}
				n += int64(k)
			}
		}()
		go func() { // ends with the client's FIN
			_, _ = io.Copy(p.server, io.MultiReader(p.server)) // no splice
			p.server.CloseWrite()
		}()
		back := make(chan int64, 1)
		go func() { // ends with the server's FIN
			n, _ := io.Copy(io.Discard, p.client)
			back <- n
		}()
		client, server := end(event.Outbound, p.source), end(event.Inbound, p.source)
		for until := time.Now().Add(10 * time.Second); len(w.of(client)) < 5 || len(w.of(server)) < 5; {
			if time.Now().After(until) {
				t.Fatal("too few records: ", show(w.of(client)))
			}
			time.Sleep(20 * time.Millisecond)
		}
		close(stop)
		payload := <-sent
		if n := <-back; n != payload {
			t.Fatal(payload, n)
		}
		time.Sleep(20 * time.Millisecond)
		ci, si := info(t, p.client), info(t, p.server)
		p.close()
		over := func(d func(*event.Flow) bool) func(*event.Flow) bool {
			return func(f *event.Flow) bool { return d(f) && f.TCP.CloseReason != event.StillOpen }
		}
		w.want(1, over(client))
		w.want(1, over(server))
		c, s := total(w.of(client)), total(w.of(server))
		agree(t, &c, ci, uint64(payload))
		agree(t, &s, si, uint64(payload))
	}
}

func TestRetransmits(t *testing.T) {
	const payload = 3_000_000
	n := newNetwork(t)
	w := begin(t, defaults)
	stop := n.drop(8)
	defer stop()
	var p *pair
	n.do(func() { p = connect(t, "127.0.0.1:0", "127.0.0.1") })
	client, server := p.echo(t, payload)
	p.close()
	c, s := w.want(1, end(event.Outbound, p.source))[0], w.want(1, end(event.Inbound, p.source))[0]
	agree(t, &c, client, payload)
	agree(t, &s, server, payload)
	if c.TCP.Retransmits+s.TCP.Retransmits == 0 {
		t.Error("nothing was lost: the test shows nothing")
	}
}

// A reader that does not read closes its window.
func TestWindowLimited(t *testing.T) {
	const payload = 8_000_000
	w := begin(t, defaults)
	p := connect(t, "127.0.0.1:0", "127.0.0.1")
	go func() { // ends when all is written
		_, _ = p.client.Write(make([]byte, payload))
		p.client.CloseWrite()
	}()
	time.Sleep(400 * time.Millisecond)
	if n, err := io.Copy(io.Discard, p.server); n != payload || err != nil {
		t.Fatal(n, err)
	}
	time.Sleep(20 * time.Millisecond)
	i := info(t, p.client)
	p.close()
	c := w.want(1, end(event.Outbound, p.source))[0]
	if got := c.TCP.WindowLimitedNS; got < 200e6 || got/1000 != int64(i.Rwnd_limited) {
		t.Errorf("limited %d ns, TCP_INFO %d us", got, i.Rwnd_limited)
	}
}

func TestListenDrops(t *testing.T) {
	n := newNetwork(t)
	w := begin(t, every(200*time.Millisecond))
	var fd int
	var err error
	n.do(func() { fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 7171, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	n.do(func() {
		for range 5 {
			if c, err := net.DialTimeout("tcp", "127.0.0.1:7171", 50*time.Millisecond); err == nil {
				t.Cleanup(func() { c.Close() })
			}
		}
	})
	listening := func(f *event.Flow) bool { return f.TCP.State == listen && f.Destination.Port() == 7171 }
	for until := time.Now().Add(5 * time.Second); len(w.of(listening)) == 0 && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
	}
	flows := w.of(listening)
	if len(flows) == 0 {
		t.Fatal("no record")
	}
	for _, f := range flows {
		if f.TCP.ListenDrops == 0 || f.PID != self || f.Source.IsValid() || f.Destination.Addr().String() != "127.0.0.1" || f.TCP.CloseReason != event.StillOpen {
			t.Error(show(flows))
		}
	}
}

// One record per end, and none lost.
func TestManyQuickConnections(t *testing.T) {
	const connections = 2000
	w := begin(t, defaults)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	port := addrOf(l.Addr()).Port()
	for range connections {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	flows := w.want(2*connections, func(f *event.Flow) bool { return f.Destination.Port() == port })
	seen := map[uint64]bool{}
	for _, f := range flows {
		if f.Sent.Bytes != 4 || f.Received.Bytes != 4 || f.PID != self || f.PeerPID != self || !f.Complete || f.Verdict != event.Forwarded || seen[f.ID] {
			t.Fatal(show([]event.Flow{f}))
		}
		seen[f.ID] = true
	}
	w.noLoss(t)
}

// Sweeps that run all the time meet connections at every point of their lives,
// their end among them. Each byte is told once.
func TestSweepMeetsTheEnd(t *testing.T) {
	sweepAtOnce = true
	defer func() { sweepAtOnce = false }()
	w := begin(t, defaults)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the client
				_, _ = io.Copy(c, io.MultiReader(c))
				c.Close()
			}()
		}
	}()
	const least, most, meetings = 300, 10_000, 30
	var met atomic.Bool
	connections := 0
	payload := map[uint16]uint64{}
	done := make(chan error, 1)
	go func() { // ends after all connections
		for ; connections < least || !met.Load() && connections < most; connections++ {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				done <- err
				return
			}
			n := 1 + rand.IntN(5000)
			for range 4 {
				payload[addrOf(c.LocalAddr()).Port()] += uint64(n)
				_, _ = c.Write(make([]byte, n))
				_, _ = io.ReadFull(c, make([]byte, n))
			}
			c.Close()
		}
		done <- nil
	}()
	port := addrOf(l.Addr()).Port()
	ours := func(f *event.Flow) bool { return f.Destination.Port() == port && f.TCP.State != listen }
	open := func(f *event.Flow) bool { return ours(f) && f.TCP.CloseReason == event.StillOpen }
	for waiting := true; waiting; {
		if err := w.in.sweep(0); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			waiting = false
		default:
			met.Store(len(w.of(open)) >= meetings)
		}
	}
	w.want(2*connections, func(f *event.Flow) bool { return ours(f) && !open(f) })
	sent, received := map[uint16]uint64{}, map[uint16]uint64{}
	for _, f := range w.of(ours) {
		sent[f.Source.Port()] += f.Sent.Bytes
		received[f.Source.Port()] += f.Received.Bytes
	}
	for p, n := range payload {
		if sent[p] != 2*n || received[p] != 2*n {
			t.Errorf("port %d: sent %d, received %d by both ends, want %d each", p, sent[p], received[p], 2*n)
		}
	}
	if n := len(w.of(open)); n < meetings {
		t.Errorf("%d meetings in %d connections: the test shows nothing", n, connections)
	}
}

// What finds the ring full is counted if it was the last record of a
// connection; what a sweep could not tell comes with the next.
func TestRingFull(t *testing.T) {
	const connections = 60
	w := beginWith(t, mode{interval: leastInterval, ring: uint32(os.Getpagesize())})
	lasting := connect(t, "127.0.0.1:0", "127.0.0.1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.drain()
	w.flows, w.lostBefore = nil, w.lost()
	for range connections {
		p := dialTo(t, l, l.Addr().String())
		p.close()
	}
	exchange(t, lasting, 500, 40)
	if err := w.in.sweep(monotonic()); err != nil {
		t.Fatal(err)
	}
	port := addrOf(l.Addr()).Port()
	ended := w.of(func(f *event.Flow) bool { return f.Destination.Port() == port })
	// Other connections of this host may be lost too.
	if n := w.lost(); n == 0 || len(ended) == 0 || uint64(len(ended))+n < 2*connections {
		t.Errorf("%d records and %d lost, want %d together", len(ended), n, 2*connections)
	}
	client := end(event.Outbound, lasting.source)
	for until := time.Now().Add(5 * time.Second); total(w.of(client)).Sent.Bytes != 500 && time.Now().Before(until); {
		time.Sleep(20 * time.Millisecond)
	}
	if sum := total(w.of(client)); sum.Sent.Bytes != 500 || sum.Received.Bytes != 40 {
		t.Error(show(w.of(client)))
	}
	lasting.close()
}

// Sockets beyond the bound are counted, each end of a connection once.
func TestTooManySockets(t *testing.T) {
	const bound, connections = 4, 20
	w := beginWith(t, mode{interval: defaultInterval, sockets: bound})
	w.lostBefore = w.lost()
	for range connections {
		p := connect(t, "127.0.0.1:0", "127.0.0.1")
		defer p.close()
	}
	if n := w.lost(); n < 2*connections-bound {
		t.Errorf("%d lost, want at least %d", n, 2*connections-bound)
	}
}
