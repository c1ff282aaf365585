package postgresql

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/test/story"
)

func TestStories(t *testing.T) { story.Run(t, Proto) }

func FuzzPostgreSQL(f *testing.F) { story.Fuzz(f, Proto) }

func TestSecrets(t *testing.T) { story.Secrets(t, Proto, "invented", "copied", "SCRAM") }

func msg(typ byte, body string) string {
	b := []byte{typ, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[1:], uint32(len(body)+4))
	return string(b) + body
}

func TestSniff(t *testing.T) {
	for _, c := range []struct {
		bytes string
		from  int
		want  l7.Side
	}{
		{"\x00\x00\x00\x08\x04\xd2\x16\x2f", 8, l7.Asks},
		{"\x00\x00\x00\x08\x04\xd2\x16\x30", 8, l7.Asks},
		{"\x00\x00\x00\x36\x00\x03\x00\x00user\x00app\x00database\x00shop\x00", 10, l7.Asks},
		{msg('Q', "SELECT 1\x00"), 6, l7.Asks},
		{msg('P', "\x00SELECT $1\x00\x00\x00"), 7, l7.Asks},
		{msg('P', "s1\x00select $1\x00\x00\x00"), 9, l7.Asks},
		{msg('B', "\x00s1\x00\x00\x00\x00\x01\x00\x00\x00\x011\x00\x00"), 11, l7.Asks},
		{msg('E', "\x00\x00\x00\x00\x00"), 6, l7.Asks},
		{msg('R', "\x00\x00\x00\x00"), 9, l7.Answers},
		{msg('R', "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"), 9, l7.Answers},
		{msg('1', "") + msg('2', ""), 5, l7.Answers},
		{msg('2', "") + msg('D', "x"), 5, l7.Answers},
		{msg('T', "\x00\x01count\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x14\x00\x08\xff\xff\xff\xff\x00\x00"), 8, l7.Answers},
		{msg('C', "SELECT 3\x00") + msg('Z', "I"), 14, l7.Answers},
		{msg('E', "SERROR\x00VERROR\x00C42P01\x00"), 10, l7.Answers},
		{msg('Z', "I"), 6, l7.Answers},
	} {
		for n := range len(c.bytes) + 1 {
			got := sniff([]byte(c.bytes[:n]))
			if n >= c.from && got != c.want || n < c.from && got != l7.Neither {
				t.Errorf("%q: %v, want %v", c.bytes[:n], got, c.want)
			}
		}
	}
	for _, other := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST /a HTTP/1.1\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
		"J\x00\x00\x00\x0a8.0.36\x00", "Q\x00\x00\x00\x03SELECT 1 FROM a_table_that_is_there WHERE a_column = 5 AND b_column = 7 AND c = 13",
		"P\x00\x00\x00\x16SELECT 1 FROM a_table_that_is_there WHERE a_column = ? AND b_column = ? AND c = ", "\x01\x00\x00\x00\x0e", "*1\r\n$4\r\nPING\r\n",
		"\x00\x00\x00\x1d\x00\x03\x00\x01\x00\x00\x00\x02\x00\x07console", "\x00\x00\x00\x08\x00\x03\x00\x00\x00\x00\x00\x01", "\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03", "SSH-2.0-x\r\n", "",
		"\xd4\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00", "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01",
	} {
		for n := range len(other) + 1 {
			if got := sniff([]byte(other[:n])); got != l7.Neither {
				t.Errorf("%q: %v", other[:n], got)
			}
		}
	}
}

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
		p.ended = append(p.ended, fmt.Sprintf("%s %q %v %s", c.Operation, c.Text, complete, c.Error))
	}
	p.free = append(p.free, c)
}

func (p *player) Learn(string, []byte) {}

func TestDoesNotAllocate(t *testing.T) {
	p := &player{quiet: true}
	conn := Proto.New(p)
	say := func(side l7.Side, text string) *event.Chunk { return &event.Chunk{Data: []byte(text)} }
	conn.Data(l7.Asks, say(l7.Asks, msg('P', "s1\x00SELECT a FROM t WHERE b = $1\x00\x00\x00")+msg('S', "")))
	conn.Data(l7.Answers, say(l7.Answers, msg('1', "")+msg('Z', "I")))
	rows := msg('T', "\x00\x01a\x00") + msg('D', "\x00\x01\x00\x00\x00\x011") + msg('C', "SELECT 1\x00") + msg('Z', "I")
	simple, simpleAnswer := say(l7.Asks, msg('Q', "SELECT a FROM t WHERE b = 'x'\x00")), say(l7.Answers, rows)
	run, runAnswer := say(l7.Asks, msg('B', "\x00s1\x00\x00\x00\x00\x00\x00\x00")+msg('E', "\x00\x00\x00\x00\x00")+msg('S', "")), say(l7.Answers, msg('2', "")+rows)
	unnamed := say(l7.Asks, msg('P', "\x00SELECT a FROM t WHERE b = $1\x00\x00\x00")+msg('B', "\x00\x00\x00\x00\x00\x00\x00\x00")+msg('E', "\x00\x00\x00\x00\x00")+msg('S', ""))
	unnamedAnswer := say(l7.Answers, msg('1', "")+msg('2', "")+rows)
	once := func() {
		conn.Data(l7.Asks, simple)
		conn.Data(l7.Answers, simpleAnswer)
		conn.Data(l7.Asks, run)
		conn.Data(l7.Answers, runAnswer)
		conn.Data(l7.Asks, unnamed)
		conn.Data(l7.Answers, unnamedAnswer)
	}
	once()
	if n := testing.AllocsPerRun(200, once); n != 0 {
		t.Errorf("%v allocations for three queries", n)
	}
	if p.open != 0 {
		t.Errorf("%d calls are open", p.open)
	}
}

// Statements are forgotten one by one, their bytes are counted right, and one
// that was forgotten has no words.
func TestManyStatements(t *testing.T) {
	p := &player{}
	c := Proto.New(p).(*conn)
	long := strings.Repeat("a_column + ", 80)
	for i := range 2000 {
		c.Data(l7.Asks, &event.Chunk{Data: []byte(msg('P', fmt.Sprintf("s%d\x00SELECT %s b FROM t\x00\x00\x00", i, long)) + msg('S', ""))})
		c.Data(l7.Answers, &event.Chunk{Data: []byte(msg('1', "") + msg('Z', "I"))})
	}
	total := 0
	for _, st := range c.named {
		total += len(st.Bytes())
	}
	if len(c.named) > maxStatements || c.bytes > maxWords+2000 || total != c.bytes {
		t.Errorf("%d statements of %d bytes, %d counted", len(c.named), total, c.bytes)
	}
	for i := range 2000 {
		c.Data(l7.Asks, &event.Chunk{Data: []byte(msg('C', fmt.Sprintf("Ss%d\x00", i)) + msg('S', ""))})
		c.Data(l7.Answers, &event.Chunk{Data: []byte(msg('3', "") + msg('Z', "I"))})
	}
	if len(c.named) != 0 || c.bytes != 0 {
		t.Errorf("%d statements, %d bytes are left", len(c.named), c.bytes)
	}
	c.Data(l7.Asks, &event.Chunk{Data: []byte(msg('B', "\x00s1\x00\x00\x00\x00\x00\x00\x00") + msg('E', "\x00\x00\x00\x00\x00") + msg('S', ""))})
	c.Data(l7.Answers, &event.Chunk{Data: []byte(msg('2', "") + msg('C', "DELETE 1\x00") + msg('Z', "I"))})
	if last := p.ended[len(p.ended)-1]; last != `DELETE "" true ` || p.open != 0 {
		t.Errorf("the last call is %s, %d are open", last, p.open)
	}
}

func BenchmarkSimpleQuery(b *testing.B) {
	p := &player{quiet: true}
	conn := Proto.New(p)
	ask := &event.Chunk{Data: []byte(msg('Q', "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;\x00"))}
	answer := &event.Chunk{Data: []byte(msg('T', "\x00\x01abalance\x00") + msg('D', "\x00\x01\x00\x00\x00\x010") + msg('C', "SELECT 1\x00") + msg('Z', "I"))}
	b.ReportAllocs()
	for b.Loop() {
		conn.Data(l7.Asks, ask)
		conn.Data(l7.Answers, answer)
	}
}

func BenchmarkPrepared(b *testing.B) {
	p := &player{quiet: true}
	conn := Proto.New(p)
	conn.Data(l7.Asks, &event.Chunk{Data: []byte(msg('P', "s1\x00SELECT abalance FROM pgbench_accounts WHERE aid = $1\x00\x00\x00") + msg('S', ""))})
	conn.Data(l7.Answers, &event.Chunk{Data: []byte(msg('1', "") + msg('Z', "I"))})
	ask := &event.Chunk{Data: []byte(msg('B', "\x00s1\x00\x00\x00\x00\x00\x00\x00") + msg('E', "\x00\x00\x00\x00\x00") + msg('S', ""))}
	answer := &event.Chunk{Data: []byte(msg('2', "") + msg('D', "\x00\x01\x00\x00\x00\x010") + msg('C', "SELECT 1\x00") + msg('Z', "I"))}
	b.ReportAllocs()
	for b.Loop() {
		conn.Data(l7.Asks, ask)
		conn.Data(l7.Answers, answer)
	}
}
