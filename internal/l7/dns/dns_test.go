package dns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/test/story"
)

func TestStories(t *testing.T) { story.Run(t, Proto) }

func FuzzDNS(f *testing.F) { story.Fuzz(f, Proto) }

// FuzzDatagrams feeds the same as messages of UDP.
func FuzzDatagrams(f *testing.F) {
	p := Proto
	p.New = func(out l7.Out) l7.Conn { return datagrams{newConn(out)} }
	story.Fuzz(f, p)
}

type datagrams struct{ *conn }

func (d datagrams) Data(side l7.Side, c *event.Chunk) {
	c.Transport = event.UDP
	d.conn.Data(side, c)
}

const (
	query  = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x04test\x00\x00\x01\x00\x01"
	reply  = "\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x03www\x07example\x04test\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x01\x02\x03"
	root   = "\x00\x00\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x02\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00"
	noName = "\x12\x34\x81\x83\x00\x01\x00\x00\x00\x01\x00\x00\x02no\x04test\x00\x00\x1c\x00\x01\x04test\x00\x00\x06\x00\x01"
)

func framed(m string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(len(m)))) + m
}

func TestSniff(t *testing.T) {
	for _, c := range []struct {
		bytes string
		from  int // this many bytes are enough
		want  l7.Side
	}{
		{query, 14, l7.Asks},
		{reply, 14, l7.Answers},
		{root, 14, l7.Asks},
		{noName, 14, l7.Answers},
		{framed(query), 16, l7.Asks},
		{framed(reply), 16, l7.Answers},
		{framed(root), 16, l7.Asks},
	} {
		for n := range len(c.bytes) + 1 {
			got := sniff([]byte(c.bytes[:n]))
			if n >= c.from && got != c.want || n < c.from && got != l7.Neither && got != c.want {
				t.Errorf("%q: %v, want %v", c.bytes[:n], got, c.want)
			}
		}
	}
	for _, other := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nServer: x\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00\x00",
		"\x00\x00\x00\x08\x04\xd2\x16\x2f", "\x00\x00\x00\x4e\x00\x03\x00\x00user\x00me\x00database\x00db\x00\x00", "J\x00\x00\x00\x0a8.0.36\x00", "Q\x00\x00\x00\x0dSELECT 1\x00", "SSH-2.0-OpenSSH_9.2\r\n",
		"\x00\x00\x00\x1d\x00\x12\x00\x04\x00\x00\x00\x01\x00\x04test\x00\x03abc\x00\x00", "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
		"\x3b\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00\x00\x00\x00\x00\x00", // MongoDB
		"\x23\x02\x06\xfb\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", // NTP
		"\xc0\x00\x00\x00\x01\x08\x83\x94\xc8\xf0\x3e\x51\x57\x08\x00\x00\x44\x9e\x00",         // QUIC
		"\x00\x01\x00\x00\x21\x12\xa4\x42\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c",     // STUN
		"\x01\x01\x06\x00\x39\x03\xf3\x26\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",     // DHCP
		strings.Repeat("\x00", 64), strings.Repeat("\xff", 64), "",
	} {
		for n := range len(other) + 1 {
			if got := sniff([]byte(other[:n])); got != l7.Neither {
				t.Errorf("%q: %v", other[:n], got)
			}
		}
	}
}

// Of random datagrams next to none is taken for DNS.
func TestSniffRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 64)
	taken := 0
	const n = 1 << 20
	for range n {
		for i := 0; i < len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], r.Uint64())
		}
		if sniff(b) != l7.Neither {
			taken++
		}
	}
	if taken > 2 {
		t.Errorf("%d of %d", taken, n)
	}
}

// player is an Out that uses its calls again.
type player struct {
	free  []*l7.Call
	ended []string
	names []string
	quiet bool
	open  int
}

func (p *player) Begin(m *l7.Mark) *l7.Call {
	p.open++
	if len(p.free) == 0 {
		p.free = append(p.free, &l7.Call{})
	}
	c := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	c.Reset()
	c.Start(m)
	return c
}

func (p *player) End(c *l7.Call, complete bool) {
	p.open--
	if !p.quiet {
		p.ended = append(p.ended, fmt.Sprintf("%s %s %v %s %dms", c.Operation, c.Target, complete, c.Error, c.DurationNS/1e6))
	}
	p.free = append(p.free, c)
}

func (p *player) Learn(name string, addr []byte) {
	if !p.quiet {
		p.names = append(p.names, fmt.Sprintf("%s %x", name, addr))
	}
}

func TestDoesNotAllocate(t *testing.T) {
	p := &player{quiet: true}
	conn := Proto.New(p)
	ask := &event.Chunk{Data: []byte(query), Len: len(query), Sent: true, Transport: event.UDP}
	answer := &event.Chunk{Data: []byte(reply), Len: len(reply), Transport: event.UDP}
	once := func() {
		conn.Data(l7.Asks, ask)
		conn.Data(l7.Answers, answer)
	}
	once()
	if n := testing.AllocsPerRun(200, once); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if p.open != 0 {
		t.Errorf("%d calls are open", p.open)
	}
}

func say(c l7.Conn, at int64, sent bool, side l7.Side, text string) {
	c.Data(side, &event.Chunk{Time: at, Data: []byte(text), Len: len(text), Sent: sent, Transport: event.UDP})
}

// A question that nobody answers ends five seconds after it was sent last; only
// who waited for the answer calls that an error.
func TestTimeout(t *testing.T) {
	for _, client := range []bool{true, false} {
		p := &player{}
		conn := Proto.New(p)
		say(conn, 1e9, client, l7.Asks, query)
		conn.(l7.Idler).Idle(5e9)
		say(conn, 5.5e9, client, l7.Asks, query)
		conn.(l7.Idler).Idle(6.1e9)
		conn.(l7.Idler).Idle(10.4e9)
		if len(p.ended) != 0 {
			t.Fatalf("too early: %q", p.ended)
		}
		conn.(l7.Idler).Idle(10.6e9)
		say(conn, 11e9, !client, l7.Answers, reply) // too late
		want := "A www.example.test false  9600ms"
		if client {
			want = "A www.example.test false timeout 9600ms"
		}
		if got := strings.Join(p.ended, "|"); got != want || p.names != nil {
			t.Errorf("client %v: %q %q", client, got, p.names)
		}
	}
}

// An answer with another question, or to nobody, teaches no name.
func TestForged(t *testing.T) {
	p := &player{}
	conn := Proto.New(p)
	say(conn, 1, true, l7.Asks, query)
	say(conn, 2, false, l7.Answers, strings.Replace(reply, "www", "wwx", 1))
	say(conn, 3, false, l7.Answers, "\x12\x35"+reply[2:])
	say(conn, 4, false, l7.Answers, strings.Replace(reply, "\xc0\x0c\x00\x01", "\xc0\x10\x00\x01", 1)) // about another name
	if p.names != nil || len(p.ended) != 1 {
		t.Errorf("%q, %q", p.names, p.ended)
	}
}

// Pointers that lead nowhere or round in circles end.
func TestPointers(t *testing.T) {
	for _, name := range []string{"\xc0\x0c", "\xc0\x20", "\x01a\xc0\x0c", "\xc0\x00", "\xc0", "\x3f", "\x40a"} {
		b := []byte(query[:headSize] + name + "\x00\x01\x00\x01")
		if _, next := appendName(nil, b, headSize); next >= 0 {
			t.Errorf("%q is a name", name)
		}
	}
	long := []byte(query[:headSize] + strings.Repeat("\x3f"+strings.Repeat("\x00", 63), 5))
	if got, next := appendName(nil, long, headSize); next >= 0 || len(got) > maxName {
		t.Errorf("%d bytes are a name of %d", len(long), len(got))
	}
	strange := []byte("\x05a.\\\x01B\x00")
	if got, next := appendName(nil, strange, 0); string(got) != `a\.\\\001b` || next != len(strange) {
		t.Errorf("%q %d", got, next)
	}
}

func TestManyOpen(t *testing.T) {
	p := &player{}
	conn := Proto.New(p)
	for i := range 2 * maxOpen {
		say(conn, 1, true, l7.Asks, string(binary.BigEndian.AppendUint16(nil, uint16(i)))+query[2:])
	}
	if p.open != maxOpen {
		t.Errorf("%d calls are open", p.open)
	}
	conn.Close()
	if p.open != 0 {
		t.Errorf("%d calls are open", p.open)
	}
}

// Servers read the length by itself: met in the middle, or after a loss, a
// message may stand without it.
func TestLengthUnseen(t *testing.T) {
	p := &player{}
	conn := newConn(p)
	stream := func(side l7.Side, text string) {
		conn.Data(side, &event.Chunk{Time: 1, Data: []byte(text), Len: len(text), Sent: side == l7.Asks, Transport: event.TCP})
	}
	for range 2 {
		stream(l7.Asks, query)
		stream(l7.Answers, framed(reply)[:2])
		stream(l7.Answers, framed(reply)[2:])
		stream(l7.Asks, framed(query)[:2])
		stream(l7.Asks, framed(query)[2:])
		stream(l7.Answers, framed(reply))
		conn.Missing(l7.Asks, 0)
		stream(l7.Asks, framed(query)[:2])
	}
	if len(p.ended) != 4 || p.open != 0 {
		t.Errorf("%d open, %q", p.open, p.ended)
	}
}

// A zone's transfer is many large messages: the first ends the call, and none is
// kept.
func TestLargeMessages(t *testing.T) {
	p := &player{}
	conn := newConn(p)
	stream := func(side l7.Side, b []byte) {
		conn.Data(side, &event.Chunk{Time: 1, Data: b, Len: len(b), Sent: side == l7.Asks, Transport: event.TCP})
	}
	stream(l7.Asks, []byte(framed(query)))
	large := []byte(framed(reply + strings.Repeat("x", 60000)))
	for b := bytes.Repeat(large, 3); len(b) > 0; b = b[min(1000, len(b)):] {
		stream(l7.Answers, b[:min(1000, len(b))])
	}
	stream(l7.Asks, []byte(framed(query)))
	stream(l7.Answers, []byte(framed(reply)))
	if len(p.ended) != 2 || p.ended[1] != "A www.example.test true  0ms" {
		t.Errorf("%q", p.ended)
	}
}

func BenchmarkLookup(b *testing.B) {
	p := &player{quiet: true}
	conn := Proto.New(p)
	ask := &event.Chunk{Data: []byte(query), Len: len(query), Sent: true, Transport: event.UDP}
	answer := &event.Chunk{Data: []byte(reply), Len: len(reply), Transport: event.UDP}
	b.ReportAllocs()
	for b.Loop() {
		conn.Data(l7.Asks, ask)
		conn.Data(l7.Answers, answer)
	}
}
