package mysql

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

func FuzzMySQL(f *testing.F) { story.Fuzz(f, Proto) }

func TestSecrets(t *testing.T) { story.Secrets(t, Proto, "invented", "copied", "native_password") }

// pack makes packets of payloads, counting from seq.
func pack(seq byte, payloads ...string) string {
	var b strings.Builder
	for _, p := range payloads {
		head := binary.LittleEndian.AppendUint32(nil, uint32(len(p)))
		head[3] = seq
		seq++
		b.Write(head)
		b.WriteString(p)
	}
	return b.String()
}

const (
	ok     = "\x00\x00\x00\x02\x00\x00\x00"
	eof    = "\xfe\x00\x00\x02\x00"
	column = "\x03def\x00\x01t\x00\x01a\x00\x0c\x3f\x00\x01\x00\x00\x00\x08\x81\x00\x00\x00\x00"
	hello  = "\x0d\xa2\x3b\x00\x00\x00\x00\x01\x2d\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00app\x00\x00shop\x00"
)

func TestSniff(t *testing.T) {
	for _, c := range []struct {
		bytes string
		from  int
		want  l7.Side
	}{
		{pack(0, "\x0a8.0.36\x00\x08\x00\x00\x00saltsalt\x00\xff\xf7"), 8, l7.Answers},
		{pack(0, "\x0a5.5.5-10.11.19-MariaDB\x00\x08\x00\x00\x00"), 8, l7.Answers},
		{pack(1, hello), 32, l7.Asks},
		{pack(0, "\x03SELECT 1"), 6, l7.Asks},
		{pack(0, "\x03\x00\x01SELECT 1"), 8, l7.Asks},
		{pack(0, "\x16SELECT a FROM t WHERE b = ?"), 6, l7.Asks},
		{pack(0, "\x17\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\x08\x00"), 14, l7.Asks},
		{pack(0, "\x02shop"), 9, l7.Asks},
		{pack(0, "\x0e"), 5, l7.Asks},
		{pack(1, ok), 11, l7.Answers},
		{pack(1, "\xff\x28\x04#42000You have an error"), 13, l7.Answers},
		{pack(1, "\x01", column, eof), 13, l7.Answers},
	} {
		for n := range len(c.bytes) + 1 {
			got := sniff([]byte(c.bytes[:n]))
			if n >= c.from && got != c.want || n < c.from && got != l7.Neither {
				t.Errorf("%q: %v, want %v", c.bytes[:n], got, c.want)
			}
		}
	}
	for _, other := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "*1\r\n$4\r\nPING\r\n",
		"\x00\x00\x00\x08\x04\xd2\x16\x2f", "Q\x00\x00\x00\x16SELECT count(*) x\x00", "Q\x00\x00\x00\x0dSELECT 1\x00", "P\x00\x00\x00\x16\x00SELECT $1\x00\x00\x00",
		"B\x00\x00\x00\x17\x00s1\x00\x00\x00\x00\x01\x00\x00\x00\x05hello\x00\x00", "\x00\x00\x00\x1d\x00\x03\x00\x01\x00\x00\x00\x02\x00\x07console", "SSH-2.0-x\r\n", "",
		"\xd4\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00\x00\x00\x00\x00", "\xd4\x00\x00\x00\x17\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00", "\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03",
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
		p.ended = append(p.ended, fmt.Sprintf("%s %q %s rows=%s %v %s", c.Operation, c.Text, c.Namespace, c.Attr("db.response.returned_rows"), complete, c.Error))
	}
	p.free = append(p.free, c)
}

func (p *player) Learn(string, []byte) {}

func talk(lines ...string) []string {
	p := &player{}
	conn := Proto.New(p)
	for i, line := range lines {
		conn.Data(l7.Asks+l7.Side(i%2), &event.Chunk{Data: []byte(line)})
	}
	conn.Close()
	return p.ended
}

// What clients ask for that the recorded ones did not.
func TestTalks(t *testing.T) {
	greeting := pack(0, "\x0a8.0.36\x00\x08\x00\x00\x00saltsalt\x00\xff\xff\x2d\x02\x00\xff\xff\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	able := func(flags uint32) string {
		b := []byte(hello)
		binary.LittleEndian.PutUint32(b, capProtocol41|capSecure|capDatabase|flags)
		return pack(1, string(b))
	}
	okInPlace := "\xfe\x00\x00\x02\x00\x00\x00"
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"no EOF packets", []string{"", greeting, able(capDeprecateEOF), pack(2, ok), pack(0, "\x03SELECT a FROM t"), pack(1, "\x01", column, "\x011", "\x012", okInPlace), pack(0, "\x03SELECT a FROM t"), pack(1, "\x01", column, okInPlace)},
			`SELECT "SELECT a FROM t" shop rows=2 true |SELECT "SELECT a FROM t" shop rows=0 true `},
		{"no EOF packets, met in the middle", []string{pack(0, "\x03SELECT a FROM t"), pack(1, "\x01", column, "\x011", okInPlace), pack(0, "\x03SELECT a FROM t"), pack(1, "\x01", column, okInPlace)},
			`SELECT "SELECT a FROM t"  rows=1 true |SELECT "SELECT a FROM t"  rows=0 true `},
		{"attributes", []string{"", greeting, able(capAttributes), pack(2, ok), pack(0, "\x03\x01\x01\x00\x01\xfe\x00\x04name\x08invented"+"SELECT 'x'"), pack(1, ok), pack(0, "\x03\x00\x01SELECT 2"), pack(1, ok)},
			`SELECT "SELECT ?" shop rows= true |SELECT "SELECT ?" shop rows= true `},
		{"attributes, met in the middle", []string{pack(0, "\x03\x00\x01SELECT 2"), pack(1, ok), pack(0, "\x03\x01\x01\x00\x01\xfe\x00\x04name\x08invented"+"SELECT 'x'"), pack(1, ok)},
			`SELECT "SELECT ?"  rows= true |SELECT "SELECT ?"  rows= true `},
		{"TLS", []string{"", greeting, pack(1, hello[:1]+"\xae"+hello[2:32]), "\x16\x03\x01", pack(0, "\x03SELECT 1"), pack(1, ok)}, ``},
		{"compression", []string{"", greeting, able(capCompress), pack(2, ok), pack(0, "\x03SELECT 1"), pack(1, ok)}, ``},
		{"prepared and executed at once", []string{pack(0, "\x16SELECT a FROM t WHERE b = ?") + pack(0, "\x17\xff\xff\xff\xff\x00\x01\x00\x00\x00"), pack(1, "\x00\x05\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00", column, eof, column, eof) + pack(1, "\x01", column, eof, "\x00\x00\x01", eof),
			pack(0, "\x17\x05\x00\x00\x00\x00\x01\x00\x00\x00"), pack(1, "\x01", column, eof, eof), pack(0, "\x19\x05\x00\x00\x00") + pack(0, "\x17\x05\x00\x00\x00\x00\x01\x00\x00\x00"), pack(1, "\xff\xdb\x04#HY000Unknown prepared statement")},
			`PREPARE "SELECT a FROM t WHERE b = ?"  rows= true |SELECT "SELECT a FROM t WHERE b = ?"  rows=1 true |SELECT "SELECT a FROM t WHERE b = ?"  rows=0 true |EXECUTE ""  rows= true 1243`},
		{"a cursor", []string{pack(0, "\x16SELECT a FROM t"), pack(1, "\x00\x05\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00", column, eof), pack(0, "\x17\x05\x00\x00\x00\x01\x01\x00\x00\x00"), pack(1, "\x01", column, "\xfe\x00\x00\x42\x00"),
			pack(0, "\x1c\x05\x00\x00\x00\x02\x00\x00\x00"), pack(1, "\x00\x00\x01", "\x00\x00\x02", "\xfe\x00\x00\x82\x00")},
			`PREPARE "SELECT a FROM t"  rows= true |SELECT "SELECT a FROM t"  rows=0 true |FETCH "SELECT a FROM t"  rows=2 true `},
		{"a database is chosen", []string{pack(0, "\x03USE `my db`"), pack(1, ok), pack(0, "\x02none"), pack(1, "\xff\x19\x04#42000x"), pack(0, "\x0e"), pack(1, ok)}, "USE \"USE `my db`\"  rows= true |USE \"\" my db rows= true 1049|PING \"\" my db rows= true "},
		{"a file of more than 255 packets", []string{pack(0, "\x03LOAD DATA LOCAL INFILE 'x' INTO TABLE t"), pack(1, "\xfbx"), strings.Repeat(pack(0, "\x03SELECT invented"), 3) + pack(5, ""), pack(6, ok)}, `LOAD "LOAD DATA LOCAL INFILE ? INTO TABLE t"  rows= true `},
		{"progress", []string{pack(0, "\x03ALTER TABLE t ADD a int"), pack(1, "\xff\xff\xff\x01\x01\x02\x00\x00\x00", ok)}, `ALTER TABLE "ALTER TABLE t ADD a int"  rows= true `},
		{"known columns", []string{pack(0, "\x17\x05\x00\x00\x00\x00\x01\x00\x00\x00"), pack(1, "\x01\x00", "\x00\x00\x01", eof)}, `EXECUTE ""  rows=1 true `},
	} {
		if got := strings.Join(talk(c.lines...), "|"); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// A query and an answer longer than a packet are one.
func TestLongPackets(t *testing.T) {
	p := &player{}
	conn := Proto.New(p)
	full := "\xff\xff\xff\x00\x03INSERT INTO t VALUES ('invented"
	conn.Data(l7.Asks, &event.Chunk{Data: []byte(full), Len: fullPacket + 4})
	conn.Data(l7.Asks, &event.Chunk{Data: []byte("\x05\x00\x00\x01\x03SEL'")})
	conn.Data(l7.Answers, &event.Chunk{Data: []byte(pack(2, ok))})
	conn.Data(l7.Asks, &event.Chunk{Data: []byte(pack(0, "\x03SELECT a FROM t"))})
	conn.Data(l7.Answers, &event.Chunk{Data: []byte(pack(1, "\x01", column, eof) + "\xff\xff\xff\x04\xfe\x00\x00\x00\x01\x00\x00\x00\x00xx"), Len: len(pack(1, "\x01", column, eof)) + 4 + fullPacket})
	conn.Data(l7.Answers, &event.Chunk{Data: []byte("\x05\x00\x00\x05" + eof + "\x05\x00\x00\x06" + eof)})
	want := `INSERT "INSERT INTO t VALUES (?"  rows= true |SELECT "SELECT a FROM t"  rows=1 true `
	if got := strings.Join(p.ended, "|"); got != want || p.open != 0 {
		t.Errorf("%s\nwant %s, %d open", got, want, p.open)
	}
}

func TestDoesNotAllocate(t *testing.T) {
	p := &player{quiet: true}
	conn := Proto.New(p)
	say := func(text string) *event.Chunk { return &event.Chunk{Data: []byte(text)} }
	conn.Data(l7.Asks, say(pack(0, "\x16SELECT a FROM t WHERE b = ?")))
	conn.Data(l7.Answers, say(pack(1, "\x00\x05\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00", column, eof, column, eof)))
	answer := say(pack(1, "\x01", column, eof, "\x011", eof))
	query, execute := say(pack(0, "\x03SELECT a FROM t WHERE b = 'x'")), say(pack(0, "\x17\x05\x00\x00\x00\x00\x01\x00\x00\x00"))
	once := func() {
		conn.Data(l7.Asks, query)
		conn.Data(l7.Answers, answer)
		conn.Data(l7.Asks, execute)
		conn.Data(l7.Answers, answer)
	}
	once()
	if n := testing.AllocsPerRun(200, once); n != 0 {
		t.Errorf("%v allocations for two queries", n)
	}
	if p.open != 0 {
		t.Errorf("%d calls are open", p.open)
	}
}

// Statements are forgotten one by one and their bytes are counted right.
func TestManyStatements(t *testing.T) {
	p := &player{quiet: true}
	c := Proto.New(p).(*conn)
	long := strings.Repeat("a_column + ", 80)
	id := func(i int) string { return string(binary.LittleEndian.AppendUint32(nil, uint32(i))) }
	for i := range 2000 {
		c.Data(l7.Asks, &event.Chunk{Data: []byte(pack(0, "\x16SELECT "+long+"b FROM t"))})
		c.Data(l7.Answers, &event.Chunk{Data: []byte(pack(1, "\x00"+id(i)+"\x00\x00\x00\x00\x00\x00\x00"))})
	}
	total := 0
	for _, st := range c.byID {
		total += len(st.Bytes())
	}
	if len(c.byID) == 0 || len(c.byID) > maxStatements || total > maxWords+2000 || total != c.bytes {
		t.Errorf("%d statements of %d bytes, %d counted", len(c.byID), total, c.bytes)
	}
	for i := range 2000 {
		c.Data(l7.Asks, &event.Chunk{Data: []byte(pack(0, "\x19"+id(i)))})
	}
	if len(c.byID) != 0 || c.bytes != 0 || p.open != 0 {
		t.Errorf("%d statements, %d bytes, %d calls are left", len(c.byID), c.bytes, p.open)
	}
}

func BenchmarkQuery(b *testing.B) {
	p := &player{quiet: true}
	conn := Proto.New(p)
	ask := &event.Chunk{Data: []byte(pack(0, "\x03SELECT name FROM users WHERE id = 17"))}
	answer := &event.Chunk{Data: []byte(pack(1, "\x01", column, eof, "\x03n17", eof))}
	b.ReportAllocs()
	for b.Loop() {
		conn.Data(l7.Asks, ask)
		conn.Data(l7.Answers, answer)
	}
}
