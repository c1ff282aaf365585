package websocket

import (
	"fmt"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/internal/l7/http1"
	"ghostlight/test/story"
)

// session is WebSocket as it is met: behind an upgrade.
type session struct {
	l7.Conn
	out l7.Out
}

func (s *session) Data(side l7.Side, c *event.Chunk) {
	s.Conn.Data(side, c)
	if u, ok := s.Conn.(l7.Upgrader); ok && u.Upgraded() != nil {
		s.Conn.Close()
		s.Conn = Proto.New(s.out)
		u.Upgraded().HandOver(s.Conn)
	}
}

var upgraded = l7.Proto{
	Name:  "http",
	Sniff: http1.Proto.Sniff,
	New:   func(out l7.Out) l7.Conn { return &session{http1.Proto.New(out), out} },
}

func TestStories(t *testing.T) { story.Run(t, upgraded) }

func FuzzWebSocket(f *testing.F) { story.Fuzz(f, Proto) }

func FuzzUpgraded(f *testing.F) { story.Fuzz(f, upgraded) }

// None of its own bytes, nor of others', are taken for WebSocket without an
// upgrade.
func TestSniff(t *testing.T) {
	for _, text := range []string{"\x81\x05hello", "\x81\x85\x5c\x04\x2c\x814a@\xed3", "GET / HTTP/1.1\r\n", ""} {
		if side := Proto.Sniff([]byte(text)); side != l7.Neither {
			t.Errorf("%q is of %v", text, side)
		}
	}
}

// one is an Out with one call.
type one struct {
	call l7.Call
	ends int
	last string
}

func (o *one) Begin(m *l7.Mark) *l7.Call { o.call.Reset(); o.call.Start(m); return &o.call }

func (o *one) End(c *l7.Call, complete bool) {
	o.ends++
	o.last = fmt.Sprint(c.Role, " ", c.Error, " ", c.Attr("websocket.close.code"), " ", complete)
}

func (o *one) Learn(string, []byte) {}

func begin(out l7.Out, sent bool) *conn {
	c := Proto.New(out).(*conn)
	c.Inherit(&l7.Upgrade{Mark: l7.Mark{Time: 1, Sent: sent}, Words: event.Request{Operation: "GET", Text: "/"}})
	return c
}

func TestAllocations(t *testing.T) {
	c := begin(&one{}, false)
	ask := &event.Chunk{Time: 2, Len: 11, Data: []byte("\x81\x85\x5c\x04\x2c\x814a@\xed3")}
	answer := &event.Chunk{Time: 3, Sent: true, Len: 7, Data: []byte("\x81\x05hello")}
	if n := testing.AllocsPerRun(100, func() {
		c.Data(l7.Asks, ask)
		c.Data(l7.Answers, answer)
	}); n != 0 {
		t.Errorf("%v allocations for two messages", n)
	}
	if c.asks.count.messages != 101 || c.answers.count.messages != 101 {
		t.Errorf("%+v, %+v", c.asks.count, c.answers.count)
	}
}

func BenchmarkMessages(b *testing.B) {
	c := begin(&one{}, false)
	ask := &event.Chunk{Time: 2, Len: 11, Data: []byte("\x81\x85\x5c\x04\x2c\x814a@\xed3")}
	answer := &event.Chunk{Time: 3, Sent: true, Len: 7, Data: []byte("\x81\x05hello")}
	b.ReportAllocs()
	for b.Loop() {
		c.Data(l7.Asks, ask)
		c.Data(l7.Answers, answer)
	}
}

// Which codes are errors, and whose end this is.
func TestClose(t *testing.T) {
	for _, c := range []struct {
		payload string
		sent    bool
		want    string
	}{
		{"\x88\x02\x03\xe8", false, "server  1000 true"},
		{"\x88\x02\x03\xf3", true, "client 1011 1011 true"},
		{"\x88\x02\x0f\xa0", true, "client  4000 true"},
		{"\x88\x00", true, "client  1005 true"},
		{"\x81\x00", true, "client   false"},
	} {
		out := &one{}
		conn := begin(out, c.sent)
		conn.Data(l7.Answers, &event.Chunk{Time: 2, Len: len(c.payload), Data: []byte(c.payload), Sent: !c.sent})
		conn.Close()
		conn.Close()
		if out.last != c.want || out.ends != 1 {
			t.Errorf("%q: %q, %d times, want %q", c.payload, out.last, out.ends, c.want)
		}
	}
}
