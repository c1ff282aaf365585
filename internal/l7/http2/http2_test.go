package http2

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/test/story"
)

func TestStories(t *testing.T) { story.Run(t, Proto) }

func FuzzHTTP2(f *testing.F) { story.Fuzz(f, Proto) }

// found collects what a parser finds; calls are used again, as correlate does.
type found struct {
	lines []string
	free  []*l7.Call
	ended int
	open  int
	quiet bool
}

func (f *found) Begin(m *l7.Mark) *l7.Call {
	if len(f.free) == 0 {
		f.free = append(f.free, new(l7.Call))
	}
	c := f.free[len(f.free)-1]
	f.free = f.free[:len(f.free)-1]
	c.Reset()
	c.Start(m)
	f.open++
	return c
}

func (f *found) End(c *l7.Call, complete bool) {
	c.Complete = complete
	f.open--
	f.ended++
	if !f.quiet {
		line, _, _ := strings.Cut(story.Line(c), " | ")
		f.lines = append(f.lines, line)
	}
	f.free = append(f.free, c)
}

func (f *found) Learn(string, []byte) {}

// peer is both ends of a connection, as one of them sees it.
type peer struct {
	t      *testing.T
	out    found
	conn   *conn
	client bool
	now    int64
	enc    [3]encoder
}

func newPeer(t *testing.T, client bool) *peer {
	p := &peer{t: t, client: client, now: 1}
	p.conn = newConn(&p.out)
	return p
}

func (p *peer) move(side l7.Side, b []byte, more int) {
	p.now += 1e6
	p.conn.Data(side, &event.Chunk{Time: p.now, Len: len(b) + more, Data: b, Sent: (side == l7.Asks) == p.client})
}

// greet begins the connection.
func (p *peer) greet() *peer {
	p.move(l7.Asks, append([]byte(preface), raw(settings, 0, 0, "")...), 0)
	p.move(l7.Answers, raw(settings, 0, 0, "\x00\x03\x00\x00\x00\x64"), 0)
	return p
}

// raw makes a frame.
func raw(typ, flags uint8, id uint32, payload string) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), typ, flags}
	return append(binary.BigEndian.AppendUint32(b, id), payload...)
}

// head makes a header block without a table: names in pairs with values.
func head(pairs ...string) string {
	var b []byte
	for i := 0; i+1 < len(pairs); i += 2 {
		n := staticNames[pairs[i]]
		b = appendInt(b, 0, 4, n)
		if n == 0 {
			b = append(appendInt(b, 0, 7, len(pairs[i])), pairs[i]...)
		}
		b = append(appendInt(b, 0, 7, len(pairs[i+1])), pairs[i+1]...)
	}
	return string(b)
}

var (
	get      = head(":method", "GET", ":path", "/a")
	ok       = head(":status", "200")
	callRPC  = head(":method", "POST", ":path", "/p.S/M", "content-type", "application/grpc+proto")
	answerOK = head(":status", "200", "content-type", "application/grpc")
)

func (p *peer) ask(flags uint8, id uint32, block string) {
	p.move(l7.Asks, raw(headers, endHeaders|flags, id, block), 0)
}

func (p *peer) answer(flags uint8, id uint32, block string) {
	p.move(l7.Answers, raw(headers, endHeaders|flags, id, block), 0)
}

func (p *peer) want(lines ...string) {
	p.t.Helper()
	got := strings.Join(p.out.lines, "\n")
	if want := strings.Join(lines, "\n"); got != want {
		p.t.Errorf("found:\n%s\nwant:\n%s", got, want)
	}
}

func TestClientsErrors(t *testing.T) {
	p := newPeer(t, true).greet()
	p.ask(endStream, 1, get)
	p.answer(endStream, 1, head(":status", "404"))
	p.ask(endStream, 3, callRPC)
	p.answer(endStream, 3, answerOK+head("grpc-status", "5"))
	p.ask(endStream, 5, callRPC)
	p.answer(endStream, 5, head(":status", "502", "content-type", "text/html"))
	p.ask(endStream, 7, callRPC)
	p.answer(endStream, 7, answerOK+head("grpc-status", "99"))
	p.want(
		`http version="2" operation="GET" text="/a" status=404 error="404" link=1 asked=18 answered=14 complete`,
		`grpc system="grpc" operation="p.S/M" outcome="NOT_FOUND" error="NOT_FOUND" link=3 asked=48 answered=48 complete`,
		`grpc system="grpc" operation="p.S/M" outcome="UNAVAILABLE" error="UNAVAILABLE" link=5 asked=48 answered=26 complete`,
		`grpc system="grpc" operation="p.S/M" outcome="UNKNOWN" error="UNKNOWN" link=7 asked=48 answered=49 complete`,
	)
}

// A client that resets its call when its own time is over met a deadline.
func TestDeadline(t *testing.T) {
	p := newPeer(t, true).greet()
	for id, wait := range map[uint32]int64{1: 20e6, 3: 60e6} {
		p.conn.last = 0
		p.ask(0, id, callRPC+head("grpc-timeout", "50m"))
		p.now += wait
		p.move(l7.Asks, raw(rstStream, 0, id, "\x00\x00\x00\x08"), 0)
		want := map[uint32]string{1: "CANCELLED", 3: "DEADLINE_EXCEEDED"}[id]
		if last := p.out.lines[len(p.out.lines)-1]; !strings.Contains(last, fmt.Sprintf("outcome=%q error=%q", want, want)) {
			t.Errorf("after %d ns: %s", wait, last)
		}
	}
}

// The end of an answer may be seen before its request.
func TestAnswerFirst(t *testing.T) {
	p := newPeer(t, true).greet()
	p.ask(endStream, 1, get)
	p.answer(endStream, 1, ok)
	p.answer(0, 3, ok)
	p.move(l7.Answers, raw(data, endStream, 3, "body"), 0)
	p.answer(endStream, 5, ok) // its request is never seen
	p.ask(endStream, 3, get)
	p.ask(endStream, 7, get)
	p.answer(endStream, 7, ok)
	line := `http version="2" operation="GET" text="/a" status=200 link=%d asked=18 answered=%d complete`
	p.want(fmt.Sprintf(line, 1, 14), fmt.Sprintf(line, 3, 27), fmt.Sprintf(line, 7, 14))
	if len(p.conn.streams) != 0 || p.conn.early != 0 {
		t.Errorf("%d streams are open, %d early", len(p.conn.streams), p.conn.early)
	}
}

func TestResetAndGoAway(t *testing.T) {
	p := newPeer(t, false).greet()
	p.ask(0, 1, get)
	p.answer(endStream, 1, ok) // before the request's end
	p.move(l7.Answers, raw(rstStream, 0, 1, "\x00\x00\x00\x00"), 0)
	p.ask(endStream, 3, get)
	p.ask(endStream, 5, get)
	p.move(l7.Answers, raw(goAway, 0, 0, "\x00\x00\x00\x03\x00\x00\x00\x00bye"), 0)
	p.answer(endStream, 3, ok)
	p.ask(endStream, 7, get)
	p.move(l7.Answers, raw(rstStream, 0, 7, "\x00\x00\x00\x0b"), 0)
	line := `http version="2" operation="GET" text="/a"%s link=%d asked=18 answered=%d complete`
	p.want(fmt.Sprintf(line, " status=200", 1, 14), fmt.Sprintf(line, ` error="refused_stream"`, 5, 0),
		fmt.Sprintf(line, " status=200", 3, 14), fmt.Sprintf(line, ` error="enhance_your_calm"`, 7, 0))
}

// A header block may come in pieces, padded and with a priority; a promise is
// none of ours, but its fields are in the table.
func TestBlocksInPieces(t *testing.T) {
	p := newPeer(t, true).greet()
	block := "\x02" + "\x00\x00\x00\x00\x10" + get[:3] + "\x00\x00"
	p.move(l7.Asks, raw(headers, endStream|padded|prioritised, 1, block), 0)
	p.move(l7.Asks, raw(continuation, 0, 1, get[3:5]), 0)
	p.move(l7.Asks, raw(continuation, endHeaders, 1, get[5:]), 0)
	promise := append([]byte("\x00\x00\x00\x02\x82\x84"), appendInt(nil, 0x40, 6, 8)...)
	promise = append(promise, "\x03418"...)
	p.move(l7.Answers, raw(pushPromise, endHeaders, 1, string(promise)), 0)
	p.answer(0, 1, "\xbe")
	p.move(l7.Answers, raw(data, padded, 1, "\x03bodyppp"), 0)
	p.answer(endStream, 2, ok)
	p.move(l7.Answers, raw(data, endStream, 1, ""), 0)
	p.want(`http version="2" operation="GET" text="/a" status=418 error="418" link=1 asked=44 answered=36 complete`)
}

// A block that is too long or torn is read as far as it is there; the call is
// not complete, and the table is unknown from there on.
func TestTornBlock(t *testing.T) {
	p := newPeer(t, true).greet()
	indexed := "\x44\x06/known"
	p.ask(endStream, 1, "\x82"+indexed)
	p.ask(endStream, 3, "\x82\xbe")
	whole := raw(headers, endStream|endHeaders, 5, "\x82\xbe"+head("cookie", strings.Repeat("c", 3000)))
	p.move(l7.Asks, whole[:1000], len(whole)-1000)
	p.ask(endStream, 7, "\x82\xbe")
	p.ask(endStream, 9, "\x82"+indexed)
	p.ask(endStream, 11, "\x82\xbe")
	big := head("x", strings.Repeat("c", 12000))
	p.move(l7.Asks, raw(headers, endStream, 13, "\x82\xbe"+big), 0)
	p.move(l7.Asks, raw(continuation, endHeaders, 13, big), 0)
	for id := uint32(1); id <= 13; id += 2 {
		p.answer(endStream, id, ok)
	}
	line := `http version="2" operation="GET"%s status=200 link=%d asked=%d answered=14%s`
	known, complete := ` text="/known"`, " complete"
	p.want(
		fmt.Sprintf(line, known, 1, 18, complete), fmt.Sprintf(line, known, 3, 11, complete),
		fmt.Sprintf(line, known, 5, 3016, ""), fmt.Sprintf(line, "", 7, 11, ""),
		fmt.Sprintf(line, known, 9, 18, complete), fmt.Sprintf(line, known, 11, 11, complete),
		fmt.Sprintf(line, known, 13, 24032, ""),
	)
}

// Bodies need not be captured. Where the head of a frame was not, the place is
// lost and found again; an answer of known length ends even so.
func TestHoles(t *testing.T) {
	p := newPeer(t, true).greet()
	p.ask(endStream, 1, get)
	p.answer(0, 1, head(":status", "200"))
	body := raw(data, endStream, 1, strings.Repeat("b", 5000))
	p.move(l7.Answers, body[:9], 500)
	p.conn.Missing(l7.Answers, 4000)
	p.move(l7.Answers, nil, 500) // its last byte

	p.ask(endStream, 3, get)
	p.answer(0, 3, head(":status", "200", "content-length", "20"))
	two := append(raw(data, 0, 3, "0123456789"), raw(data, endStream, 3, "0123456789")...)
	p.move(l7.Answers, two[:12], len(two)-12)

	p.ask(endStream, 5, get) // its answer is in what is missed
	p.ask(endStream, 7, get)
	p.conn.Missing(l7.Answers, 0)
	p.move(l7.Answers, []byte("5678901234567890123"), 0) // not a frame
	p.answer(endStream, 7, ok)
	p.conn.Idle(p.now + 5e9)
	p.ask(endStream, 9, get)
	p.answer(endStream, 9, ok)
	p.conn.Idle(p.now + 11e9)
	line := `http version="2" operation="GET" text="/a"%s link=%d asked=18 answered=%d%s`
	p.want(
		fmt.Sprintf(line, " status=200", 1, 5023, " complete"), fmt.Sprintf(line, " status=200", 3, 71, ""),
		fmt.Sprintf(line, " status=200", 7, 14, ""), fmt.Sprintf(line, " status=200", 9, 14, " complete"),
		fmt.Sprintf(line, "", 5, 0, ""),
	)
}

// Of more streams than we follow, the oldest is given up.
func TestStreamsBounded(t *testing.T) {
	p := newPeer(t, false).greet()
	for id := uint32(1); id < 2*1000; id += 2 {
		p.ask(0, id, get)
	}
	if p.out.open != maxStreams || len(p.conn.streams) != maxStreams || p.out.ended != 1000-maxStreams {
		t.Errorf("%d open, %d ended", p.out.open, p.out.ended)
	}
	if strings.Contains(strings.Join(p.out.lines, ""), "complete") {
		t.Error("a call that was given up is complete")
	}
	if p.conn.Close(); p.out.open != 0 {
		t.Errorf("%d calls are open after Close", p.out.open)
	}
}

// Messages are counted over any cut of frames; with bytes that nobody saw where
// a message may begin, they are not.
func TestMessages(t *testing.T) {
	msg := func(n int) string {
		return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(n))) + strings.Repeat("m", n)
	}
	for _, s := range []struct {
		cut  int
		hole int
		want string
	}{{0, 0, ` rpc.grpc.messages.sent="3" rpc.grpc.messages.received="1"`}, {3, 0, ` rpc.grpc.messages.sent="3" rpc.grpc.messages.received="1"`},
		{40, 0, ` rpc.grpc.messages.sent="3" rpc.grpc.messages.received="1"`}, {20, 8, ` rpc.grpc.messages.sent="3" rpc.grpc.messages.received="1"`}, {40, 40, ` rpc.grpc.messages.received="1"`}} {
		p := newPeer(t, true).greet()
		p.ask(0, 1, callRPC)
		body := msg(30) + msg(0) + msg(50)
		first := raw(data, 0, 1, body[:s.cut+s.hole])
		p.move(l7.Asks, first[:len(first)-s.hole], s.hole)
		p.move(l7.Asks, raw(data, endStream, 1, body[s.cut+s.hole:]), 0)
		p.answer(0, 1, answerOK)
		p.move(l7.Answers, raw(data, 0, 1, msg(2)), 0)
		p.answer(endStream, 1, head("grpc-status", "0"))
		if got := p.out.lines[0]; !strings.Contains(got, `outcome="OK"`+s.want+" link") {
			t.Errorf("cut %d, hole %d: %s", s.cut, s.hole, got)
		}
	}
}

// The request that asked for HTTP/2 in HTTP/1 is answered as stream 1.
func TestUpgraded(t *testing.T) {
	p := newPeer(t, false)
	p.conn.Inherit(&l7.Upgrade{Proto: Proto.Name, Mark: l7.Mark{Time: 1}, Words: event.Request{
		Operation: "GET", Text: "/index.html", Query: "q=1", Attrs: []event.Attr{{Key: "server.address", Value: "a.example"}},
	}})
	for _, s := range chunks(t, "upgrade/nghttp") {
		p.move(s.Side, s.Data, s.More)
	}
	p.want(`http version="2" operation="GET" text="/index.html" query="q=1" status=200 server.address="a.example" link=1 asked=0 answered=266 complete`,
		`http version="2" operation="GET" text="/late.css" status=200 server.address="127.0.0.1" server.port="41601" user_agent.original="nghttp2/1.52.0" link=13 asked=55 answered=51 complete`)
}

func TestAuthority(t *testing.T) {
	for whom, want := range map[string]string{
		"a.example:8080": `server.address="a.example" server.port="8080"`, "a.example": `server.address="a.example"`,
		"[::1]:80": `server.address="::1" server.port="80"`, "[::1]": `server.address="::1"`,
		"me:secret@a.example": `server.address="a.example"`, "": "",
	} {
		c := &l7.Call{}
		askWhom(c, []byte(whom))
		var got []string
		for _, a := range c.Attrs {
			got = append(got, fmt.Sprintf("%s=%q", a.Key, a.Value))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %s", whom, got)
		}
	}
}

// chunks are those of a story.
func chunks(tb testing.TB, name string) []story.Step {
	text, err := os.ReadFile("testdata/" + name + ".txt")
	if err != nil {
		tb.Fatal(err)
	}
	traffic, _, _ := strings.Cut(string(text), "----\n")
	steps, err := story.Parse(traffic)
	if err != nil {
		tb.Fatal(err)
	}
	return steps
}

// again plays a recorded connection from its beginning, with the memory of the
// last time.
func again(c *conn, steps []story.Step) {
	c.Close()
	c.last, c.rpc = 0, false
	for side := l7.Asks; side <= l7.Answers; side++ {
		w := &c.ways[side]
		w.begun = false
		w.in.Lose()
		w.table.forget()
	}
	for i := range steps {
		s := &steps[i]
		chunk := event.Chunk{Time: int64(i + 1), Len: len(s.Data) + s.More, Data: s.Data, Sent: s.Side == l7.Answers}
		c.Data(s.Side, &chunk)
	}
}

func TestNoAllocation(t *testing.T) {
	for _, name := range []string{"go_http_small", "go_grpc_small", "h2load_nginx", "go_grpc_middle"} {
		steps := chunks(t, name)
		out := &found{quiet: true}
		c := newConn(out)
		again(c, steps)
		if out.ended < 10 {
			t.Fatalf("%s: only %d calls", name, out.ended)
		}
		if n := testing.AllocsPerRun(20, func() { again(c, steps) }); n != 0 {
			t.Errorf("%s: %v allocations a connection", name, n)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	for _, name := range []string{"go_http_small", "go_grpc_small", "h2load_nginx"} {
		b.Run(name, func(b *testing.B) {
			steps := chunks(b, name)
			out := &found{quiet: true}
			c := newConn(out)
			b.ReportAllocs()
			from := cpuTime(b)
			for b.Loop() {
				again(c, steps)
			}
			b.ReportMetric(float64(cpuTime(b)-from)/float64(out.ended), "cpu-ns/call")
		})
	}
}

// cpuTime is what the process has used: on a busy machine the clock says little.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkSniff(b *testing.B) {
	steps := chunks(b, "go_http_small")
	for b.Loop() {
		sniff(steps[0].Data)
		sniff(steps[1].Data)
	}
}
