package redis

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/test/story"
)

func TestStories(t *testing.T) { story.Run(t, Proto) }

func TestSecrets(t *testing.T) { story.Secrets(t, Proto, "invented", "INVENTED", "user:17") }

func FuzzRedis(f *testing.F) { story.Fuzz(f, Proto) }

func TestSniff(t *testing.T) {
	for _, c := range []struct {
		bytes string
		from  int // this many bytes are enough
		want  l7.Side
	}{
		{"*1\r\n$4\r\nPING\r\n", 9, l7.Asks},
		{"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$1\r\nv\r\n", 9, l7.Asks},
		{"*12\r\n$5\r\nLPUSH\r\n$1\r\nk\r\n", 10, l7.Asks},
		{"*4\r\n$8\r\nJSON.SET\r\n$1\r\nk\r\n", 13, l7.Asks},
		{"*2\r\n$3\r\nfoo\r\n$3\r\nbar\r\n", 12, l7.Answers},
		{"*2\r\n:1\r\n:2\r\n", 5, l7.Answers},
		{"*0\r\n", 4, l7.Answers},
		{"*-1\r\n", 5, l7.Answers},
		{"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n", 5, l7.Answers},
		{">3\r\n$7\r\nmessage\r\n", 9, l7.Answers},
		{"$-1\r\n", 5, l7.Answers},
		{"$5\r\nhello\r\n", 4, l7.Answers},
		{":1000\r\n", 7, l7.Answers},
		{"+PONG\r\n", 7, l7.Answers},
		{"-WRONGTYPE Operation against a key", 11, l7.Answers},
	} {
		for n := range len(c.bytes) + 1 {
			got := sniff([]byte(c.bytes[:n]))
			if n >= c.from && got != c.want || n < c.from && got != l7.Neither && got != c.want {
				t.Errorf("%q: %v, want %v", c.bytes[:n], got, c.want)
			}
		}
	}
	for _, other := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
		"\x00\x00\x00\x08\x04\xd2\x16\x2f", "J\x00\x00\x00\x0a8.0.36\x00", "Q\x00\x00\x00\x0dSELECT 1\x00", "SSH-2.0-OpenSSH_9.2\r\n", "INFO {\"server_id\":\"x\"}\r\n",
		"+OK POP3 ready\r\n", "$GPGGA,123519,4807.038,N\r\n", "*** welcome\r\n", ":server 001 nick :hi\r\n", "\x00\x00\x00\x1d\x00\x12\x00\x04\x00\x00\x00\x01", "VALUE k 0 5\r\n", "",
	} {
		for n := range len(other) + 1 {
			if got := sniff([]byte(other[:n])); got != l7.Neither {
				t.Errorf("%q: %v", other[:n], got)
			}
		}
	}
}

// player is an Out that uses its calls again.
type player struct {
	free  []*l7.Call
	ended []string
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
		c.Complete = complete
		p.ended = append(p.ended, fmt.Sprintf("%s %v %s", c.Operation, complete, c.Error))
	}
	p.free = append(p.free, c)
}

func (p *player) Learn(string, []byte) {}

func TestDoesNotAllocate(t *testing.T) {
	p := &player{quiet: true}
	conn := Proto.New(p)
	ask := &event.Chunk{Data: []byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")}
	answer := &event.Chunk{Data: []byte("+OK\r\n$1\r\nv\r\n"), Sent: true}
	once := func() {
		conn.Data(l7.Asks, ask)
		conn.Data(l7.Answers, answer)
	}
	once()
	if n := testing.AllocsPerRun(200, once); n != 0 {
		t.Errorf("%v allocations for two commands", n)
	}
	if p.open != 0 {
		t.Errorf("%d calls are open", p.open)
	}
}

// Beyond the bound commands are not seen, and the pairs of those that are stay
// right.
func TestManyOpen(t *testing.T) {
	p := &player{}
	conn := Proto.New(p)
	const n = maxOpen + 500
	conn.Data(l7.Asks, &event.Chunk{Data: bytes.Repeat([]byte("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), n)})
	if p.open != maxOpen {
		t.Fatalf("%d calls are open", p.open)
	}
	conn.Data(l7.Answers, &event.Chunk{Data: bytes.Repeat([]byte("$1\r\nv\r\n"), n)})
	conn.Data(l7.Asks, &event.Chunk{Data: []byte("*1\r\n$4\r\nINCR\r\n")})
	conn.Data(l7.Answers, &event.Chunk{Data: []byte("-ERR wrong number of arguments\r\n")})
	if len(p.ended) != maxOpen+1 || p.ended[maxOpen] != "INCR true ERR" || p.open != 0 {
		t.Errorf("%d ended, the last: %s", len(p.ended), p.ended[len(p.ended)-1])
	}
}

// An answer that is seen before its request does not shift all later pairs.
func TestAnswerBeforeRequest(t *testing.T) {
	p := &player{}
	conn := Proto.New(p)
	say := func(at int64, side l7.Side, text string) {
		conn.Data(side, &event.Chunk{Time: at, Data: []byte(text)})
	}
	say(1, l7.Asks, "*1\r\n$4\r\nPING\r\n")
	say(2, l7.Answers, "+PONG\r\n")
	say(4, l7.Answers, ":1\r\n")
	say(3, l7.Asks, "*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n")
	say(5, l7.Asks, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
	say(6, l7.Answers, "-WRONGTYPE x\r\n")
	if got := strings.Join(p.ended, "|"); got != "PING true |INCR false |GET true WRONGTYPE" {
		t.Error(got)
	}
}

// Nothing of what is asked but the command's name is kept, wherever bytes are
// missing.
func TestKeepsNoSecrets(t *testing.T) {
	const secret = "zqxsecretzqx"
	wire := "*3\r\n$4\r\nAUTH\r\n$4\r\nuser\r\n$12\r\n" + secret + "\r\n*3\r\n$3\r\nSET\r\n$12\r\n" + secret + "\r\n$24\r\n" + secret + "\r\n" + secret[:10] + "\r\n"
	for lost := range len(wire) {
		for _, rest := range []int{1, 5, 40} {
			out := &keeper{}
			conn := Proto.New(out)
			conn.Data(l7.Asks, &event.Chunk{Data: []byte(wire[:lost])})
			conn.Missing(l7.Asks, uint64(rest))
			conn.Data(l7.Answers, &event.Chunk{Data: []byte("-ERR '" + secret + "'\r\n")})
			conn.Data(l7.Asks, &event.Chunk{Data: []byte(wire[min(lost+rest, len(wire)):])})
			conn.Data(l7.Answers, &event.Chunk{Data: []byte("+OK\r\n")})
			conn.Close()
			if strings.Contains(strings.ToLower(out.text), secret[:6]) {
				t.Fatalf("%d bytes lost at %d: %s", rest, lost, out.text)
			}
		}
	}
}

type keeper struct {
	player
	text string
}

func (k *keeper) End(c *l7.Call, complete bool) {
	k.text += story.Line(c)
	k.player.End(c, complete)
}

func BenchmarkSetAndGet(b *testing.B) {
	p := &player{quiet: true}
	conn := Proto.New(p)
	ask := &event.Chunk{Data: []byte("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$3\r\nxxx\r\n*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n")}
	answer := &event.Chunk{Data: []byte("+OK\r\n$3\r\nxxx\r\n"), Sent: true}
	b.ReportAllocs()
	for b.Loop() {
		conn.Data(l7.Asks, ask)
		conn.Data(l7.Answers, answer)
	}
}
