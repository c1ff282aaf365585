package kafka

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/test/story"
)

func TestStories(t *testing.T) { story.Run(t, Proto) }

func FuzzKafka(f *testing.F) { story.Fuzz(f, Proto) }

// steps reads a recorded connection.
func steps(t testing.TB, name string) []story.Step {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	traffic, _, _ := strings.Cut(string(text), "----\n")
	steps, err := story.Parse(traffic)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

// Every request of the stories is told by its beginning, no answer is, and
// nothing of the other protocols.
func TestSniff(t *testing.T) {
	asked := 0
	for _, name := range []string{"produce", "produce-old", "fetch", "fetch-old", "group", "metadata", "offsets", "offsets-old", "noack", "producer"} {
		for _, s := range steps(t, name) {
			for n := range min(len(s.Data), 40) + 1 {
				got := sniff(s.Data[:n])
				enough := 15
				if len(s.Data) > 6 && s.Data[5] == 0 { // produce: the acknowledgements it wants
					enough = 26
				}
				if s.Side == l7.Asks && n >= enough && got != l7.Asks || n < 14 && got != l7.Neither || s.Side == l7.Answers && got != l7.Neither {
					t.Errorf("%s: %q is %v", name, s.Data[:n], got)
				}
			}
			if s.Side == l7.Asks {
				asked++
			}
		}
	}
	if asked < 20 {
		t.Errorf("only %d requests", asked)
	}
	for _, other := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nServer: x\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03",
		"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x04\x00\x10\x00\x00", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00\x00",
		"\x00\x00\x00\x08\x04\xd2\x16\x2f", "\x00\x00\x00\x4e\x00\x03\x00\x00user\x00me\x00database\x00db\x00\x00", "J\x00\x00\x00\x0a8.0.36\x00\x00\x00\x00\x00\x00\x00",
		"Q\x00\x00\x00\x0dSELECT 1\x00", "SSH-2.0-OpenSSH_9.2\r\n", "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n", "\x3b\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00\x00\x00\x00\x00\x00",
		"\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x04test\x00\x00\x01\x00\x01", strings.Repeat("\x00", 64), strings.Repeat("\xff", 64),
	} {
		for n := range len(other) + 1 {
			if got := sniff([]byte(other[:n])); got != l7.Neither {
				t.Errorf("%q: %v", other[:n], got)
			}
		}
	}
}

// player is an Out that uses its calls again, and a notebook.
type player struct {
	free  []*l7.Call
	ended []string
	noted map[[16]byte]string
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
		p.ended = append(p.ended, story.Line(c))
	}
	p.free = append(p.free, c)
}

func (p *player) Learn(string, []byte) {}

func (p *player) Note(id [16]byte, name []byte) {
	if p.noted[id] == "" {
		p.noted[id] = string(name)
	}
}

func (p *player) Noted(id [16]byte) string { return p.noted[id] }

func play(c l7.Conn, steps []story.Step) {
	for _, s := range steps {
		c.Data(s.Side, &event.Chunk{Time: 1, Data: s.Data, Len: len(s.Data) + s.More, Sent: s.Side == l7.Answers, Transport: event.TCP})
	}
}

// Topics that stand by their ids get the names that another connection told.
func TestTopicsByID(t *testing.T) {
	p := &player{noted: map[[16]byte]string{}}
	for _, name := range []string{"metadata", "produce", "fetch", "offsets"} {
		conn := Proto.New(p)
		play(conn, steps(t, name))
		conn.Close()
	}
	all := strings.Join(p.ended, "")
	if len(p.noted) != 2 || strings.Contains(all, topicID) {
		t.Errorf("%d names, %s", len(p.noted), all)
	}
	for _, want := range []string{`operation="produce" target="orders"`, `operation="produce" target="payments"`, `operation="fetch" target="orders"`, `operation="offset_commit" target="orders"`} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in\n%s", want, all)
		}
	}
}

func TestDoesNotAllocate(t *testing.T) {
	for _, name := range []string{"produce", "produce-old", "noack", "metadata", "offsets"} {
		p := &player{quiet: true, noted: map[[16]byte]string{}}
		conn, traffic := Proto.New(p), steps(t, name)
		chunks := make([]event.Chunk, len(traffic))
		for i, s := range traffic {
			chunks[i] = event.Chunk{Time: 1, Data: s.Data, Len: len(s.Data), Transport: event.TCP}
		}
		once := func() {
			for i := range chunks {
				conn.Data(traffic[i].Side, &chunks[i])
			}
		}
		once()
		if n := testing.AllocsPerRun(100, once); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if p.open != 0 {
			t.Errorf("%s: %d calls are open", name, p.open)
		}
	}
}

// request makes one of a kind without a body.
func request(key, version, correlation int) []byte {
	b := binary.BigEndian.AppendUint32(nil, 10)
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(correlation))
	return append(b, 0xff, 0xff)
}

func TestManyOpen(t *testing.T) {
	p := &player{}
	conn := Proto.New(p)
	for i := range 2 * maxOpen {
		b := request(12, 3, i)
		conn.Data(l7.Asks, &event.Chunk{Time: 1, Data: b, Len: len(b)})
	}
	if p.open != maxOpen {
		t.Errorf("%d calls are open", p.open)
	}
	conn.Close()
	if p.open != 0 || len(p.ended) != maxOpen {
		t.Errorf("%d calls are open, %d ended", p.open, len(p.ended))
	}
}

// A version that is newer than what we know has a head like any other.
func TestNewer(t *testing.T) {
	p := &player{}
	conn := Proto.New(p)
	b := append(request(0, 99, 7), 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	conn.Data(l7.Asks, &event.Chunk{Time: 1, Data: b, Len: len(b)})
	answer := []byte("\x00\x00\x00\x08\x00\x00\x00\x07\x00zzz")
	conn.Data(l7.Answers, &event.Chunk{Time: 2, Data: answer, Len: len(answer)})
	if len(p.ended) != 1 || !strings.Contains(p.ended[0], `operation="produce" link=4294967303 asked=15 answered=12 complete`) {
		t.Error(p.ended)
	}
}

// Errors of single partitions fail the call, whichever version says them.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		key, version int
		answer       string // behind the correlation id
		want         string
	}{
		{0, 0, "\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x02" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05" + "\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00\x00\x05", "NOT_LEADER_FOR_PARTITION"},
		{1, 7, "\x00\x00\x00\x00\x00\x46\x00\x00\x00\x00\x00\x00\x00\x00", "FETCH_SESSION_ID_NOT_FOUND"},
		{12, 0, "\x00\x1b", "REBALANCE_IN_PROGRESS"},
		{12, 4, "\x00\x00\x00\x00\x00\x00\x1b\x00", "REBALANCE_IN_PROGRESS"},
		{19, 5, "\x00\x00\x00\x00\x00\x02\x02t\x00\x24\x00", "TOPIC_ALREADY_EXISTS"},
		{18, 3, "\x00\x23\x01\x00\x00\x00\x00\x00", "UNSUPPORTED_VERSION"},
		{36, 0, "\x00\x3a\xff\xff\x00\x00\x00\x00", "SASL_AUTHENTICATION_FAILED"},
		{12, 0, "\x7f\xff", "_OTHER"},
		{12, 0, "\x00\x00", ""},
	} {
		p := &player{}
		conn := Proto.New(p)
		b := request(c.key, c.version, 1)
		conn.Data(l7.Asks, &event.Chunk{Time: 1, Data: b, Len: len(b)})
		answer := binary.BigEndian.AppendUint32(nil, uint32(4+len(c.answer)))
		answer = append(answer, "\x00\x00\x00\x01"+c.answer...)
		conn.Data(l7.Answers, &event.Chunk{Time: 2, Data: answer, Len: len(answer)})
		has := len(p.ended) == 1 && strings.Contains(p.ended[0], fmt.Sprintf("error=%q", c.want))
		if c.want != "" && !has || c.want == "" && strings.Contains(p.ended[0], "error=") {
			t.Errorf("%d version %d: %q, want %s", c.key, c.version, p.ended, c.want)
		}
	}
}

// Nothing of records is kept.
func TestKeepsNoRecords(t *testing.T) {
	for _, name := range []string{"produce", "produce-old", "fetch", "fetch-old", "noack"} {
		all := steps(t, name)
		if !slices.ContainsFunc(all, func(s story.Step) bool { return strings.Contains(string(s.Data), "zqxsecret") }) {
			t.Fatalf("%s: there is no secret", name)
		}
		for cut := range 200 {
			p := &player{noted: map[[16]byte]string{}}
			conn := Proto.New(p)
			for _, s := range all {
				n := min(cut, len(s.Data))
				conn.Missing(s.Side, uint64(n))
				conn.Data(s.Side, &event.Chunk{Time: 1, Data: s.Data[n:], Len: len(s.Data) - n})
			}
			conn.Close()
			if found := strings.Join(p.ended, ""); strings.Contains(found, "zqx") {
				t.Fatalf("%s: %s", name, found)
			}
		}
	}
}

func BenchmarkProduce(b *testing.B) {
	p := &player{quiet: true, noted: map[[16]byte]string{}}
	conn, traffic := Proto.New(p), steps(b, "produce")[2:4]
	ask := &event.Chunk{Time: 1, Data: traffic[0].Data, Len: len(traffic[0].Data)}
	answer := &event.Chunk{Time: 2, Data: traffic[1].Data, Len: len(traffic[1].Data)}
	b.ReportAllocs()
	for b.Loop() {
		conn.Data(l7.Asks, ask)
		conn.Data(l7.Answers, answer)
	}
}
