package correlate

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// toy is a protocol of lines: "ask WORD[ TRACE]" and "answer WORD".
var toy = l7.Proto{
	Name: "toy", Datagram: true,
	Sniff: func(p []byte) l7.Side {
		switch {
		case bytes.HasPrefix(p, []byte("ask ")):
			return l7.Asks
		case bytes.HasPrefix(p, []byte("answer ")):
			return l7.Answers
		}
		return l7.Neither
	},
	New: func(out l7.Out) l7.Conn { return &toyConn{out: out} },
}

type toyConn struct {
	out  l7.Out
	ways [3]l7.Stream
	open []*l7.Call
	lost int
}

func (t *toyConn) Data(side l7.Side, c *event.Chunk) {
	s := &t.ways[side]
	s.Feed(c)
	defer s.Rest()
	for {
		n := bytes.IndexByte(s.Bytes(), '\n')
		if n < 0 {
			return
		}
		t.line(side, s, s.Bytes()[:n])
		s.Next(n + 1)
	}
}

func (t *toyConn) line(side l7.Side, s *l7.Stream, line []byte) {
	_, rest, _ := bytes.Cut(line, []byte(" "))
	word, trace, _ := bytes.Cut(rest, []byte(" "))
	if side == l7.Asks {
		c := t.out.Begin(s.Mark())
		c.Family, c.Text = event.HTTP, c.Keep(word)
		c.Ask(s.Now(), len(line)+1)
		if len(trace) > 0 {
			hex.Decode(c.Remote.ID[:], trace)
			c.Remote.Parent[7] = 9
		}
		t.open = append(t.open, c)
		return
	}
	if len(t.open) == 0 {
		return
	}
	c := t.open[0]
	t.open = append(t.open[:0], t.open[1:]...)
	c.Answer(s.Now(), len(line)+1)
	t.out.End(c, true)
}

func (t *toyConn) Missing(side l7.Side, n uint64) {
	t.lost++
	t.ways[side].Lose()
	t.ways[side].Found()
}

func (t *toyConn) Close() {
	for _, c := range t.open {
		t.out.End(c, false)
	}
	t.open = nil
}

// host is a world of sockets to write chunks with.
type host struct {
	c    *Correlator
	b    event.Batch
	now  int64
	seqs map[string]uint32
	offs map[string]uint64
}

func newHost(o Options) *host {
	o.Protos = []l7.Proto{toy}
	return &host{c: New(o), seqs: map[string]uint32{}, offs: map[string]uint64{}}
}

// move moves bytes: even cookies are clients, the odd one above is the server's
// end.
func (h *host) move(cookie uint64, sent bool, pid, tid uint32, text string) *event.Chunk {
	h.now += 1e6
	client := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(1000+cookie&^1))
	server := netip.MustParseAddrPort("10.0.0.2:80")
	ch := event.Chunk{Time: h.now, Conn: cookie, Sent: sent, Len: len(text), Data: []byte(text), PID: pid, TID: tid, Transport: event.TCP, Local: client, Remote: server}
	if cookie&1 == 1 {
		ch.Local, ch.Remote = server, client
	}
	way := fmt.Sprint(cookie, sent)
	ch.Offset = h.offs[way]
	h.offs[way] += uint64(len(text))
	ch.Seq = 5000 + uint32(ch.Offset)
	h.b.Chunks = append(h.b.Chunks, ch)
	return &h.b.Chunks[len(h.b.Chunks)-1]
}

func (h *host) run() []event.Request {
	h.c.Apply(&h.b)
	h.c.held.expire(math.MaxInt64)
	h.b.Chunks = h.b.Chunks[:0]
	return h.b.Requests
}

func byText(t *testing.T, rs []event.Request, text string, role event.Role) event.Request {
	t.Helper()
	for _, r := range rs {
		if r.Text == text && r.Role == role {
			return r
		}
	}
	t.Fatalf("no %s request %q in %d", role, text, len(rs))
	return event.Request{}
}

// A request through three processes, seen at each end: one trace.
func TestTrace(t *testing.T) {
	h := newHost(Options{})
	h.move(2, true, 10, 10, "ask /front\n")    // curl
	h.move(3, false, 20, 21, "ask /front\n")   // front, thread 21
	h.move(5, false, 30, 30, "ask /back\n")    // back reads before front's send was reported
	h.move(4, true, 20, 21, "ask /back\n")     // front asks back
	h.move(5, true, 30, 30, "answer /back\n")  //
	h.move(4, false, 20, 21, "answer /back\n") //
	h.move(3, true, 20, 21, "answer /front\n") //
	h.move(2, false, 10, 10, "answer /front\n")
	rs := h.run()
	if len(rs) != 4 {
		t.Fatalf("%d requests", len(rs))
	}
	curl, front := byText(t, rs, "/front", event.Client), byText(t, rs, "/front", event.Server)
	call, back := byText(t, rs, "/back", event.Client), byText(t, rs, "/back", event.Server)
	chain := []event.Request{curl, front, call, back}
	for i, r := range chain {
		if r.Trace.ID != curl.Trace.ID || r.Trace.ID == [16]byte{} || r.Trace.Inferred || !r.Complete {
			t.Errorf("%s %s: %+v", r.Role, r.Text, r.Trace)
		}
		if i > 0 && r.Trace.Parent != chain[i-1].Trace.Span {
			t.Errorf("%s %s: parent %x, want %x", r.Role, r.Text, r.Trace.Parent, chain[i-1].Trace.Span)
		}
	}
	if curl.Trace.Parent != [8]byte{} || curl.PeerPID != 20 || back.PeerPID != 20 {
		t.Errorf("curl %+v peer %d, back's peer %d", curl.Trace, curl.PeerPID, back.PeerPID)
	}
	if front.DurationNS != 5e6 || curl.DurationNS != 7e6 || curl.Source.Port() != 1002 {
		t.Errorf("front took %d, curl %d from %s", front.DurationNS, curl.DurationNS, curl.Source)
	}
	if h.c.open != 0 || h.c.traces.serving != 0 {
		t.Errorf("%d calls and %d causes are left", h.c.open, h.c.traces.serving)
	}
}

// An exchange may be over at the server, and its connection closed, before the
// client is told to have asked: the server's record waits for it, but not long.
func TestClientToldLate(t *testing.T) {
	h := newHost(Options{})
	h.move(4, true, 10, 10, "ask /before\n") // the client's address is one of ours
	h.move(3, false, 20, 21, "ask /a\n")
	h.move(3, true, 20, 21, "answer /a\n")
	h.move(3, false, 20, 21, "").Closed = true
	h.move(2, true, 10, 10, "ask /a\n")
	h.move(2, false, 10, 10, "answer /a\n")
	h.c.Apply(&h.b)
	if n := len(h.b.Requests); n != 2 {
		t.Fatalf("%d requests", n)
	}
	client, server := byText(t, h.b.Requests, "/a", event.Client), byText(t, h.b.Requests, "/a", event.Server)
	if server.Trace.Parent != client.Trace.Span || server.Trace.ID != client.Trace.ID || server.PeerPID != 10 {
		t.Errorf("%+v is no child of %+v, peer %d", server.Trace, client.Trace, server.PeerPID)
	}
	h.b.Reset()
	h.move(7, false, 20, 21, "ask /b\n")
	h.move(7, true, 20, 21, "answer /b\n")
	h.c.Apply(&h.b)
	h.b.Chunks = h.b.Chunks[:0]
	if n := len(h.b.Requests); n != 0 {
		t.Fatalf("%d requests, the client may still be told of", n)
	}
	h.c.Tick(h.now+2*holdFor, &h.b)
	if r := byText(t, h.b.Requests, "/b", event.Server); r.Trace.Parent != [8]byte{} || len(h.c.held.order) != 0 || len(h.c.held.byConn) != 0 {
		t.Errorf("%+v, %d held", r.Trace, len(h.c.held.order))
	}
}

// An event loop with two requests at hand: what it asks for belongs to the one
// it heard of last, be it by a request or by an answer, and says so.
func TestEventLoop(t *testing.T) {
	h := newHost(Options{})
	h.move(3, false, 20, 20, "ask /a\n")
	h.move(4, true, 20, 20, "ask /a1\n")
	h.move(7, false, 20, 20, "ask /b\n")
	h.move(8, true, 20, 20, "ask /b1\n")
	h.move(4, false, 20, 20, "answer /a1\n")
	h.move(10, true, 20, 20, "ask /a2\n")
	h.move(8, false, 20, 20, "answer /b1\n")
	h.move(12, true, 20, 20, "ask /b2\n")
	h.move(10, false, 20, 20, "answer /a2\n")
	h.move(12, false, 20, 20, "answer /b2\n")
	h.move(3, true, 20, 20, "answer /a\n")
	h.move(7, true, 20, 20, "answer /b\n")
	rs := h.run()
	a, b := byText(t, rs, "/a", event.Server), byText(t, rs, "/b", event.Server)
	if a.Trace.ID == b.Trace.ID {
		t.Error("two requests share a trace")
	}
	for text, parent := range map[string]event.Request{"/a1": a, "/a2": a, "/b1": b, "/b2": b} {
		r := byText(t, rs, text, event.Client)
		if r.Trace.Parent != parent.Trace.Span || r.Trace.ID != parent.Trace.ID {
			t.Errorf("%s: %+v, want a child of %+v", text, r.Trace, parent.Trace)
		}
		if want := text != "/a1"; r.Trace.Inferred != want {
			t.Errorf("%s: inferred is %v", text, r.Trace.Inferred)
		}
	}
}

// A new connection is asked for when its request came; by the time it stands,
// the event loop has read others.
func TestNewConnection(t *testing.T) {
	h := newHost(Options{})
	h.move(3, false, 20, 20, "ask /a\n")
	h.move(4, true, 20, 20, "").Opened = true
	h.move(7, false, 20, 20, "ask /b\n")
	h.move(8, true, 20, 20, "").Opened = true
	h.move(10, true, 20, 20, "").Opened = true // never speaks
	h.move(4, true, 20, 20, "ask /a1\n")
	h.move(8, true, 20, 20, "ask /b1\n")
	h.move(4, false, 20, 20, "answer /a1\n")
	h.move(8, false, 20, 20, "answer /b1\n")
	h.move(7, true, 20, 20, "answer /b\n")
	h.move(3, true, 20, 20, "answer /a\n")
	rs := h.run()
	for call, served := range map[string]string{"/a1": "/a", "/b1": "/b"} {
		if c, s := byText(t, rs, call, event.Client), byText(t, rs, served, event.Server); c.Trace.Parent != s.Trace.Span {
			t.Errorf("%s is no child of %s", call, served)
		}
	}
	h.c.Tick(h.now, &h.b)
	if h.c.traces.serving+len(h.c.traces.asked) != 0 {
		t.Error("a cause is left")
	}
}

// Another thread than the one that read the request: unknown, not guessed.
func TestHandOver(t *testing.T) {
	h := newHost(Options{})
	h.move(3, false, 20, 21, "ask /a\n")
	h.move(4, true, 20, 22, "ask /x\n")
	h.move(4, false, 20, 22, "answer /x\n")
	h.move(3, true, 20, 21, "answer /a\n")
	h.move(6, true, 20, 21, "ask /later\n") // the request is over
	h.move(6, false, 20, 21, "answer /later\n")
	rs := h.run()
	for _, text := range []string{"/x", "/later"} {
		if r := byText(t, rs, text, event.Client); r.Trace.Parent != [8]byte{} {
			t.Errorf("%s has a parent", text)
		}
	}
}

// A goroutine that was woken by the one that serves.
func TestWaker(t *testing.T) {
	h := newHost(Options{})
	h.move(3, false, 20, 21, "ask /a\n").Goroutine = 7
	x := h.move(4, true, 20, 22, "ask /x\n")
	x.Goroutine, x.Waker = 8, 7
	h.move(4, false, 20, 22, "answer /x\n").Goroutine = 9
	h.move(3, true, 20, 23, "answer /a\n").Goroutine = 7
	rs := h.run()
	if a, x := byText(t, rs, "/a", event.Server), byText(t, rs, "/x", event.Client); x.Trace.Parent != a.Trace.Span || x.Trace.Inferred {
		t.Errorf("%+v is no child of %+v", x.Trace, a.Trace)
	}
}

// The application's own ids win.
func TestHeader(t *testing.T) {
	h := newHost(Options{})
	h.move(3, false, 20, 21, "ask /a 0102030405060708090a0b0c0d0e0f10\n")
	h.move(4, true, 20, 21, "ask /x\n")
	h.move(4, false, 20, 21, "answer /x\n")
	h.move(3, true, 20, 21, "answer /a\n")
	rs := h.run()
	a, x := byText(t, rs, "/a", event.Server), byText(t, rs, "/x", event.Client)
	if a.Trace.ID[0] != 1 || a.Trace.Parent[7] != 9 || x.Trace.ID != a.Trace.ID || x.Trace.Parent != a.Trace.Span {
		t.Errorf("%+v, %+v", a.Trace, x.Trace)
	}
}

// A beginning in pieces is put together once it is known whose it is.
func TestUndecided(t *testing.T) {
	h := newHost(Options{})
	h.move(3, false, 20, 21, "a")
	h.move(3, false, 20, 21, "sk /a\n")
	h.move(3, true, 20, 21, "answer /a\n")
	if r := byText(t, h.run(), "/a", event.Server); r.Time != 1e6 || !r.Complete {
		t.Errorf("%+v", r)
	}
	for range 2 * earlyChunks {
		h.move(9, true, 20, 21, "what is this?")
	}
	h.run()
	if h.c.Stats().Unknown != 1 {
		t.Errorf("%+v", h.c.Stats())
	}
}

// A server of datagrams that listens on all addresses, at one socket for all
// clients, finds each of them.
func TestDatagrams(t *testing.T) {
	h := newHost(Options{})
	datagram := func(cookie uint64, client, server string, pid uint32, sent bool, text string) {
		ch := h.move(cookie, sent, pid, pid, text)
		ch.Transport, ch.Seq, ch.NetNS = event.UDP, 0, 1
		ch.Local, ch.Remote = netip.MustParseAddrPort(client), netip.MustParseAddrPort(server)
	}
	for i, client := range []string{"127.0.0.1:4001", "127.0.0.1:4002", "10.0.0.1:4001"} {
		server, pid, cookie := [...]string{"127.0.0.53:53", "127.0.0.1:53", "10.0.0.2:53"}[i], uint32(10+i), uint64(2+2*i)
		name := fmt.Sprintf("/%d", i)
		datagram(cookie, client, server, pid, true, "ask "+name+"\n")
		datagram(99, "0.0.0.0:53", client, 20, false, "ask "+name+"\n")
		datagram(99, "0.0.0.0:53", client, 20, true, "answer "+name+"\n")
		datagram(cookie, client, server, pid, false, "answer "+name+"\n")
		rs := h.run()
		c, s := byText(t, rs, name, event.Client), byText(t, rs, name, event.Server)
		if c.PeerPID != 20 || s.PeerPID != pid || s.Trace.Parent != c.Trace.Span || s.Destination != c.Destination || s.Source.String() != client {
			t.Errorf("%s: client %+v, server %+v", client, c, s)
		}
	}
}

func TestMissing(t *testing.T) {
	h := newHost(Options{})
	h.move(3, false, 20, 21, "ask /a\n")
	h.offs["3 true"] += 10 // never reported
	h.move(3, true, 20, 21, "answer /a\n")
	if rs := h.run(); len(rs) != 1 || h.c.Stats().Missing != 0 { // the first of a way has nothing to miss
		t.Errorf("%d requests, %+v", len(rs), h.c.Stats())
	}
	h.offs["3 false"] += 7
	h.move(3, false, 20, 21, "ask /b\n")
	h.move(3, true, 20, 21, "answer /b\n")
	if h.run(); h.c.Stats().Missing != 7 {
		t.Errorf("%+v", h.c.Stats())
	}
}

// Connections are bounded, and those that are let go of end their calls.
func TestBounds(t *testing.T) {
	h := newHost(Options{Connections: 4})
	for i := uint64(1); i < 40; i += 2 {
		h.move(i, false, 20, 21, fmt.Sprintf("ask /%d\n", i))
	}
	rs := h.run()
	if s := h.c.Stats(); s.Connections != 4 || s.Evicted != 16 || len(rs) != 16 || rs[0].Complete {
		t.Errorf("%+v, %d requests", s, len(rs))
	}
	h.c.Close(&h.b)
	if len(h.b.Requests) != 20 || len(h.c.ends) != 0 || h.c.traces.serving != 0 {
		t.Errorf("%d requests, %d ends, %d causes", len(h.b.Requests), len(h.c.ends), h.c.traces.serving)
	}
}

// A goroutine a connection leaves as many actors: they do not stay.
func TestActors(t *testing.T) {
	h := newHost(Options{Connections: 10})
	for i := range 10 * idleActors {
		h.move(3, false, 20, 100+uint32(i), "ask /a\n")
		h.move(3, true, 20, 100+uint32(i), "answer /a\n")
		h.run()
		h.b.Reset()
	}
	if n := len(h.c.traces.cause); n > idleActors+1 || n < 2 || h.c.traces.serving != 0 {
		t.Errorf("%d actors, %d of them serving", n, h.c.traces.serving)
	}
}

// Both ends come again from the same addresses before anybody said that the old
// connection ended: the new ends belong together.
func TestSameAddresses(t *testing.T) {
	h := newHost(Options{})
	exchange := func(cookies uint64, pid uint32) {
		for _, c := range []struct {
			cookie, is uint64
			sent       bool
			text       string
		}{{2, 0, true, "ask /a\n"}, {3, 1, false, "ask /a\n"}, {3, 1, true, "answer /a\n"}, {2, 0, false, "answer /a\n"}} {
			h.move(c.cookie, c.sent, pid+uint32(c.is), pid+uint32(c.is), c.text).Conn = cookies + c.is
		}
	}
	exchange(200, 10)
	h.offs = map[string]uint64{}
	exchange(300, 20)
	rs := h.run()
	if len(rs) != 4 {
		t.Fatalf("%d requests", len(rs))
	}
	for i, want := range []uint32{10, 11, 20, 21} { // server, client, server, client
		if rs[i].PeerPID != want || rs[i].Trace.ID != rs[i^1].Trace.ID {
			t.Errorf("request %d: peer %d, want %d", i, rs[i].PeerPID, want)
		}
	}
	for cookie := uint64(200); cookie <= 301; cookie++ {
		h.b.Chunks = append(h.b.Chunks, event.Chunk{Conn: cookie, Closed: true, Transport: event.TCP})
	}
	h.run()
	if len(h.c.ends) != 0 || h.c.conns.len() != 0 {
		t.Errorf("%d ends and %d connections are left", len(h.c.ends), h.c.conns.len())
	}
}

// A request and its answer cost no allocation once the connection stands.
func TestDoesNotAllocate(t *testing.T) {
	h := newHost(Options{})
	steps := func() {
		h.move(2, true, 10, 10, "ask /a\n")
		h.move(3, false, 20, 21, "ask /a\n")
		h.move(3, true, 20, 21, "answer /a\n")
		h.move(2, false, 10, 10, "answer /a\n")
	}
	steps()
	h.run()
	h.b.Reset()
	steps()
	chunks := append([]event.Chunk(nil), h.b.Chunks...)
	n := testing.AllocsPerRun(200, func() {
		h.b.Chunks = append(h.b.Chunks[:0], chunks...)
		for i := range chunks {
			chunks[i].Offset += uint64(2 * len("ask /a\n"))
		}
		for _, k := range h.c.conns.streams {
			k.way = [2]way{}
		}
		h.c.Apply(&h.b)
		h.b.Reset()
	})
	if n > 0 {
		t.Errorf("%v allocations for two ends of a request", n)
	}
}
