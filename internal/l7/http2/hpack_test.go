package http2

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// pair is a header as the encoder of these tests takes it.
type pair struct{ name, value string }

// encoder writes header blocks as RFC 7541 says, with a table of its own.
type encoder struct {
	r     *rand.Rand
	pairs []pair // newest first
	max   int
}

// codes are those of each byte, to pack texts with.
var codes = func() (codes [256]uint32) {
	var next uint32
	for bits := 1; bits <= longBits; bits++ {
		next <<= 1
		for sym := range 256 {
			if int(huffmanBits[sym]) == bits {
				codes[sym] = next
				next++
			}
		}
	}
	return codes
}()

func pack(s string) (out []byte) {
	var window uint64
	have := 0
	for i := range len(s) {
		n := int(huffmanBits[s[i]])
		window, have = window<<n|uint64(codes[s[i]]), have+n
		for ; have >= 8; have -= 8 {
			out = append(out, byte(window>>(have-8)))
		}
	}
	if have > 0 {
		out = append(out, byte(window<<(8-have))|byte(1<<(8-have)-1))
	}
	return out
}

func appendInt(dst []byte, first byte, prefix, n int) []byte {
	mask := 1<<prefix - 1
	if n < mask {
		return append(dst, first|byte(n))
	}
	dst = append(dst, first|byte(mask))
	for n -= mask; n >= 128; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

func (e *encoder) text(dst []byte, s string) []byte {
	if e.r.IntN(2) == 0 {
		p := pack(s)
		return append(appendInt(dst, 0x80, 7, len(p)), p...)
	}
	return append(appendInt(dst, 0, 7, len(s)), s...)
}

var staticNames = map[string]int{":authority": 1, ":method": 2, ":path": 4, ":status": 8, "content-type": 31, "user-agent": 58, "cookie": 32, "authorization": 23}

func (e *encoder) block(pairs []pair) []byte {
	var out []byte
	if e.r.IntN(8) == 0 {
		e.max = e.r.IntN(600)
		e.trim(0)
		out = appendInt(out, 0x20, 5, e.max)
	}
	for _, p := range pairs {
		if i := slices.Index(e.pairs, p); i >= 0 {
			out = appendInt(out, 0x80, 7, 62+i)
			continue
		}
		keep := e.r.IntN(4) > 0
		first, prefix := byte(0x10*e.r.IntN(2)), 4
		if keep {
			first, prefix = 0x40, 6
		}
		i, ok := staticNames[p.name]
		if j := slices.IndexFunc(e.pairs, func(q pair) bool { return q.name == p.name }); j >= 0 && !ok {
			i = 62 + j
		}
		out = appendInt(out, first, prefix, i)
		if i == 0 {
			out = e.text(out, p.name)
		}
		out = e.text(out, p.value)
		if keep {
			e.trim(len(p.name) + len(p.value) + entryBytes)
			e.pairs = append([]pair{p}, e.pairs...)
			e.trim(0)
		}
	}
	return out
}

func (e *encoder) trim(room int) {
	used := room
	for i, p := range e.pairs {
		if used += len(p.name) + len(p.value) + entryBytes; used > e.max {
			e.pairs = e.pairs[:i]
			return
		}
	}
}

func (e *encoder) request() []pair {
	return []pair{
		{":method", []string{"GET", "POST", "PURGE"}[e.r.IntN(3)]},
		{":path", fmt.Sprint("/item/", e.r.IntN(12))},
		{":authority", fmt.Sprint("host", e.r.IntN(3))},
		{"cookie", fmt.Sprint("secret", e.r.IntN(30))},
		{"traceparent", fmt.Sprintf("00-%032x-%016x-01", e.r.IntN(20)+1, e.r.IntN(20)+1)},
		{"x-anything", strings.Repeat("x", e.r.IntN(40))},
		{"grpc-status", fmt.Sprint(e.r.IntN(17))},
	}
}

var wanted = map[string]field{":method": method, ":path": path, ":authority": authority, "traceparent": traceparent, "grpc-status": grpcStatus}

// From the first block on every field is right; from any later block on, no
// field is wrong, what is not known is counted, and soon all of it is known.
func TestTableJoinedAnywhere(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		e := &encoder{r: r, max: defaultTable}
		var whole, joined table
		whole.begin()
		joined.forget()
		join := r.IntN(20)
		for n := range 60 {
			pairs := e.request()
			block := e.block(pairs)
			checkBlock(t, &whole, block, pairs, true)
			if n >= join {
				checkBlock(t, &joined, block, pairs, false)
			}
		}
		for _, tb := range []*table{&whole, &joined} {
			if strings.Contains(string(tb.text), "secret") {
				t.Fatal("a cookie is kept")
			}
			if tb.used > defaultTable || len(tb.entries) > 2*defaultTable/entryBytes || len(tb.text) > 4*defaultTable {
				t.Fatalf("%d bytes, %d entries, %d bytes of text", tb.used, len(tb.entries), len(tb.text))
			}
		}
	}
}

func checkBlock(t *testing.T, tb *table, block []byte, pairs []pair, all bool) {
	t.Helper()
	var f fields
	f.reset()
	if !tb.decode(block, &f) {
		t.Fatalf("cannot read %x", block)
	}
	if all && f.unknown > 0 {
		t.Fatalf("%d fields are unknown", f.unknown)
	}
	for _, p := range pairs {
		name, ok := wanted[p.name]
		if !ok {
			continue
		}
		got := f.value[name]
		if got == nil && !all && f.unknown > 0 {
			continue
		}
		if string(got) != p.value {
			t.Fatalf("%s is %q, want %q", p.name, got, p.value)
		}
	}
}

// RFC 7541, C.4 and C.6: requests with Huffman codes, answers with evictions.
func TestTableRFC(t *testing.T) {
	for _, s := range []struct {
		max    int
		name   field
		blocks [][2]string
	}{
		{4096, path, [][2]string{
			{"828684418cf1e3c2e5f23a6ba0ab90f4ff", "/"},
			{"828684be5886a8eb10649cbf", "/"},
			{"828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", "/index.html"},
		}},
		{256, status, [][2]string{
			{"488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3", "302"},
			{"4883640effc1c0bf", "307"},
			{"88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007", "200"},
		}},
	} {
		var tb table
		tb.begin()
		tb.max = s.max
		var f fields
		for _, b := range s.blocks {
			block, err := hex.DecodeString(b[0])
			if err != nil {
				t.Fatal(err)
			}
			f.reset()
			if !tb.decode(block, &f) || string(f.value[s.name]) != b[1] || f.unknown != 0 || tb.missed {
				t.Errorf("%s: %q, %d unknown", b[0], f.value[s.name], f.unknown)
			}
		}
		if s.name == path && string(f.value[authority]) != "www.example.com" {
			t.Errorf("authority %q", f.value[authority])
		}
	}
}

// What cannot be read makes the table worthless, not the process.
func TestTableMalformed(t *testing.T) {
	for _, bad := range []string{
		"80",                       // index 0
		"ff",                       // a number without its end
		"ffffffffffff0f",           // a number too large
		"41",                       // no value
		"4105aabb",                 // a value that is not all there
		"4181fe",                   // bits that are no code's
		"4184ffffffff",             // the end of a text inside of it
		"00ff80808001",             // a name longer than all there is
		"3fffffff7f",               // a table size too large
		"40" + "84ffffffff" + "00", // a bad name
	} {
		block, err := hex.DecodeString(bad)
		if err != nil {
			t.Fatal(err)
		}
		var tb table
		tb.begin()
		var f fields
		f.reset()
		if tb.decode(block, &f) || !tb.missed {
			t.Errorf("%s was read", bad)
		}
	}
}

// A table that its encoder makes larger than ours keeps what we have room for.
func TestTableBounds(t *testing.T) {
	e := &encoder{r: rand.New(rand.NewPCG(1, 1)), max: 1 << 20}
	var tb table
	tb.begin()
	var f fields
	f.reset()
	if !tb.decode(appendInt(nil, 0x20, 5, 1<<20), &f) || !tb.missed || tb.max != maxTable {
		t.Fatalf("missed %v, max %d", tb.missed, tb.max)
	}
	for i := range 20000 {
		f.reset()
		block := appendInt(nil, 0x40, 6, 4)
		block = e.text(block, fmt.Sprint("/", i, strings.Repeat("y", i%3000)))
		if !tb.decode(block, &f) {
			t.Fatal("not read")
		}
	}
	if tb.used > maxTable || len(tb.entries) > 2*maxTable/entryBytes || cap(tb.text) > 6*maxTable {
		t.Errorf("%d bytes used, %d entries, %d bytes of text", tb.used, len(tb.entries), cap(tb.text))
	}
}

// An attacker's block of a few bytes cannot make much text.
func TestFieldsBounds(t *testing.T) {
	var tb table
	tb.begin()
	var f fields
	f.reset()
	block := append(appendInt(nil, 0x44, 6, 4), appendInt(nil, 0, 7, 3900)...)
	block = append(block, strings.Repeat("z", 3900)...)
	block = append(block, strings.Repeat("\xbe", 12000)...)
	tb.decode(block, &f)
	if cap(f.text) > 64<<10 {
		t.Errorf("%d bytes of text", cap(f.text))
	}
}

func TestHuffmanAllBytes(t *testing.T) {
	var all []byte
	for i := range 256 {
		all = append(all, byte(i))
	}
	got, ok := code.append(nil, pack(string(all)), 1000)
	if !ok || string(got) != string(all) {
		t.Errorf("%v %q", ok, got)
	}
	if got, ok := code.append(nil, pack(string(all)), 10); ok || len(got) != 10 {
		t.Errorf("%v, %d bytes in room for 10", ok, len(got))
	}
}

// FuzzTable reads arbitrary header blocks, cut at a byte of 0xFF 0xFF, into one
// table.
func FuzzTable(f *testing.F) {
	e := &encoder{r: rand.New(rand.NewPCG(3, 3)), max: defaultTable}
	var seed []byte
	for range 20 {
		block := e.block(e.request())
		f.Add(block)
		seed = append(append(seed, block...), 0xff, 0xff)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, all []byte) {
		if len(all) > maxFrame {
			return
		}
		var tb table
		tb.begin()
		var said fields
		for _, block := range bytes.Split(all, []byte{0xff, 0xff}) {
			said.reset()
			tb.decode(block, &said)
			used := 0
			for _, e := range tb.entries[tb.dead:] {
				used += int(e.size)
			}
			if used != tb.used || tb.used > tb.max || tb.max > maxTable {
				t.Fatalf("%d bytes are used, it says %d of %d", used, tb.used, tb.max)
			}
			if cap(said.text) > int(fieldCount)*4*maxValue {
				t.Fatalf("%d bytes of text", cap(said.text))
			}
		}
	})
}
