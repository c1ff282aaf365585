package mongodb

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	reference "github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/test/story"
)

func TestStories(t *testing.T) { story.Run(t, Proto) }

func FuzzMongoDB(f *testing.F) { story.Fuzz(f, Proto) }

var stories = []string{"hello", "none", "snappy", "zlib", "zstd"}

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

// Every message of the stories is told by its beginning, and nothing of the
// other protocols.
func TestSniff(t *testing.T) {
	told := 0
	for _, name := range stories {
		for _, s := range steps(t, name) {
			told++
			for n := range min(len(s.Data), 64) + 1 {
				got := sniff(s.Data[:n])
				if n > headerSize && got != s.Side || n <= headerSize && got != l7.Neither {
					t.Errorf("%s: %q is %v", name, s.Data[:n], got)
				}
			}
		}
	}
	if told < 50 {
		t.Errorf("only %d messages", told)
	}
	for _, other := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nServer: x\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03",
		"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x04\x00\x10\x00\x00", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00\x00",
		"\x00\x00\x00\x08\x04\xd2\x16\x2f", "\x00\x00\x00\x4e\x00\x03\x00\x00user\x00me\x00database\x00db\x00\x00", "J\x00\x00\x00\x0a8.0.36\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"Q\x00\x00\x00\x0dSELECT 1\x00", "SSH-2.0-OpenSSH_9.2\r\n", "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n", "\x00\x00\x00\x1d\x00\x12\x00\x04\x00\x00\x00\x01\x00\x04test\x00\x03abc\x00\x00",
		"\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x04test\x00\x00\x01\x00\x01", strings.Repeat("\x00", 64), strings.Repeat("\xff", 64), strings.Repeat("\x01\x00\x00\x00", 16),
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
		p.ended = append(p.ended, story.Line(c))
	}
	p.free = append(p.free, c)
}

func (p *player) Learn(string, []byte) {}

func TestDoesNotAllocate(t *testing.T) {
	for _, name := range []string{"hello", "none", "snappy", "zlib"} {
		p := &player{quiet: true}
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
		if n := testing.AllocsPerRun(100, once); n >= 1 { // the pool may be emptied meanwhile
			t.Errorf("%s: %v allocations", name, n)
		}
		if p.open != 0 {
			t.Errorf("%s: %d calls are open", name, p.open)
		}
	}
}

// message makes an OP_MSG of a document's elements.
func message(id, answerTo, flags uint32, elements string) []byte {
	doc := binary.LittleEndian.AppendUint32(nil, uint32(5+len(elements)))
	doc = append(append(doc, elements...), 0)
	var b []byte
	for _, w := range []uint32{uint32(headerSize + 5 + len(doc)), id, answerTo, uint32(opMsg), flags} {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return append(append(b, 0), doc...)
}

const (
	find = "\x02find\x00\x02\x00\x00\x00t\x00\x02$db\x00\x02\x00\x00\x00d\x00"
	fine = "\x10ok\x00\x01\x00\x00\x00"
)

func TestManyOpen(t *testing.T) {
	p := &player{}
	conn := Proto.New(p)
	for i := range 2 * maxOpen {
		b := message(uint32(i), 0, 0, find)
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

// An exhausted cursor, or a server that tells its state, replies more than once:
// the call is over with the first. A checksum is no section.
func TestExhaust(t *testing.T) {
	p := &player{}
	conn := Proto.New(p)
	ask := message(1, 0, checksumPresent|1<<16, find)
	ask = append(ask, 1, 2, 3, 4)
	binary.LittleEndian.PutUint32(ask, uint32(len(ask)))
	conn.Data(l7.Asks, &event.Chunk{Time: 1, Data: ask, Len: len(ask)})
	for i := range uint32(3) {
		b := message(100+i, []uint32{1, 100, 101}[i], moreToCome, fine)
		conn.Data(l7.Answers, &event.Chunk{Time: 2, Data: b, Len: len(b)})
	}
	conn.Close()
	if len(p.ended) != 1 || !strings.Contains(p.ended[0], `target="t" namespace="d" summary="find t" link=4294967297 asked=53 answered=34 complete`) {
		t.Error(p.ended)
	}
}

// Whichever way an error is told.
func TestErrors(t *testing.T) {
	const code7 = "\x10code\x00\x07\x00\x00\x00"
	for _, c := range []struct{ reply, want string }{
		{fine, ""},
		{"\x01ok\x00\x00\x00\x00\x00\x00\x00\xf0\x3f", ""},
		{"\x01ok\x00\x00\x00\x00\x00\x00\x00\x00\x00" + code7, `outcome="7" error="7"`},
		{"\x08ok\x00\x00", `error="_OTHER"`},
		{code7 + "\x12ok\x00\x00\x00\x00\x00\x00\x00\x00\x00" + "\x02codeName\x00\x05\x00\x00\x00Host\x00", `outcome="7" error="Host"`},
		{code7 + "\x10ok\x00\x00\x00\x00\x00" + "\x02codeName\x00\x05\x00\x00\x00a b'\x00", `outcome="7" error="7"`},
		{"\x03writeConcernError\x00\x10\x00\x00\x00" + "\x10code\x00\x40\x00\x00\x00\x00" + fine, `outcome="64" error="WriteConcernFailed"`},
		{code7 + fine, ""},
	} {
		p := &player{}
		conn := Proto.New(p)
		ask, b := message(1, 0, 0, find), message(2, 1, 0, c.reply)
		conn.Data(l7.Asks, &event.Chunk{Time: 1, Data: ask, Len: len(ask)})
		conn.Data(l7.Answers, &event.Chunk{Time: 2, Data: b, Len: len(b)})
		_, got, _ := strings.Cut(p.ended[0], `summary="find t"`)
		got, _, _ = strings.Cut(got, " link")
		if strings.TrimSpace(got) != c.want {
			t.Errorf("%q: %s, want %s", c.reply, got, c.want)
		}
	}
}

// What is unpacked is the beginning of what was packed, however much of it is
// here.
func TestUnpack(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	u := &unpacker{}
	for range 60 {
		plain := make([]byte, r.IntN(3000))
		for i := range plain {
			plain[i] = byte(r.IntN(1 + r.IntN(40)))
			if i > 100 && r.IntN(3) == 0 {
				plain[i] = plain[i-1-r.IntN(99)]
			}
		}
		var z bytes.Buffer
		zw := zlib.NewWriter(&z)
		zw.Write(plain)
		zw.Close()
		for id, packed := range map[byte][]byte{compressorNone: plain, compressorSnappy: reference.Encode(nil, plain), compressorZlib: z.Bytes(), compressorZstd: w.EncodeAll(plain, nil)} {
			for range 20 {
				n := len(packed)
				if r.IntN(3) > 0 {
					n = r.IntN(n + 1)
				}
				head := binary.LittleEndian.AppendUint32(nil, uint32(opMsg))
				head = append(binary.LittleEndian.AppendUint32(head, uint32(len(plain))), id)
				op, got := u.open(append(head, packed[:n]...))
				if op != opMsg || !bytes.HasPrefix(plain, got) {
					t.Fatalf("compressor %d, %d of %d: %q is no beginning", id, n, len(packed), got)
				}
				if n == len(packed) && len(got) < min(len(plain), askHead) {
					t.Fatalf("compressor %d: %d of %d bytes", id, len(got), len(plain))
				}
			}
		}
	}
}

// A small message that would become huge costs no more than a small one.
func TestBomb(t *testing.T) {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	plain := make([]byte, 64<<20)
	head := append(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, uint32(opMsg)), 1<<26), compressorZstd)
	packed := append(head, w.EncodeAll(plain, nil)...)
	u := &unpacker{}
	u.open(packed)
	r := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			u.open(packed)
		}
	})
	if r.AllocedBytesPerOp() > 1<<20 {
		t.Errorf("%d bytes to open %d", r.AllocedBytesPerOp(), len(packed))
	}
}

// No value of a command, a document or an error is kept, wherever bytes are
// missing.
func TestKeepsNoSecrets(t *testing.T) {
	for _, name := range []string{"none", "snappy", "zlib", "zstd"} {
		all := steps(t, name)
		for cut := range 200 {
			p := &player{}
			conn := Proto.New(p)
			for _, s := range all {
				n := min(cut, len(s.Data))
				conn.Data(s.Side, &event.Chunk{Time: 1, Data: s.Data[:n/2], Len: n / 2})
				conn.Missing(s.Side, uint64(n-n/2))
				conn.Data(s.Side, &event.Chunk{Time: 1, Data: s.Data[n:], Len: len(s.Data) - n})
			}
			conn.Close()
			if found := strings.Join(p.ended, ""); strings.Contains(found, "zqx") {
				t.Fatalf("%s: %s", name, found)
			}
		}
	}
}

func BenchmarkFind(b *testing.B) {
	for _, name := range []string{"none", "snappy", "zlib", "zstd"} {
		b.Run(name, func(b *testing.B) {
			p := &player{quiet: true}
			conn, traffic := Proto.New(p), steps(b, name)[2:4]
			ask := &event.Chunk{Time: 1, Data: traffic[0].Data, Len: len(traffic[0].Data)}
			answer := &event.Chunk{Time: 2, Data: traffic[1].Data, Len: len(traffic[1].Data)}
			b.ReportAllocs()
			for b.Loop() {
				conn.Data(l7.Asks, ask)
				conn.Data(l7.Answers, answer)
			}
		})
	}
}
