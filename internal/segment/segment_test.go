package segment

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ghostlight/internal/event"
)

// TestPacked packs numbers of every width, with and without absent ones.
func TestPacked(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for width := range 64 {
		for _, nulls := range []bool{false, true} {
			cells := make([]int64, 1+r.IntN(50))
			for i := range cells {
				cells[i] = int64(r.Uint64()>>(63-width)) * (1 - 2*int64(r.IntN(2)))
				if nulls && r.IntN(3) == 0 || cells[i] == math.MinInt64 {
					cells[i] = event.Null
				}
			}
			checkPacked(t, cells)
		}
	}
	for _, cells := range [][]int64{{}, {event.Null}, {0}, {event.Null, event.Null}, {math.MaxInt64, math.MinInt64 + 1}, {math.MaxInt64, event.Null, math.MinInt64 + 1}, {-1, -1}} {
		checkPacked(t, cells)
	}
}

func checkPacked(t *testing.T, cells []int64) {
	t.Helper()
	p := PackInts(cells, nil)
	written := p.Append(nil)
	back, rest, err := ReadPacked(append(written, make([]byte, 8)...)[:len(written)], len(cells))
	if err != nil || len(rest) != 0 {
		t.Fatalf("%v: %v, %d left", cells, err, len(rest))
	}
	for _, q := range []Packed{p, back} {
		got := make([]int64, len(cells))
		q.Ints(got)
		for i, c := range cells {
			if got[i] != c {
				t.Fatalf("%v: got %v", cells, got)
			}
			if low, high, ok := q.Bounds(); c != event.Null && ok && (c < low || c > high) {
				t.Fatalf("%d is outside of %d..%d", c, low, high)
			}
		}
		if n := len(cells); n > 1 {
			tail := q.From(n / 2)
			half := make([]int64, n-n/2)
			tail.Ints(half)
			if half[0] != cells[n/2] {
				t.Fatalf("from %d of %v: %v", n/2, cells, half)
			}
		}
	}
	codes := make([]uint32, len(cells))
	for i, c := range cells {
		codes[i] = uint32(c) >> 1
	}
	q, most := PackCodes(codes, nil)
	if len(codes) > 0 && most != slices.Max(codes) {
		t.Fatalf("codes %v: the greatest is %d", codes, most)
	}
	got := make([]uint32, len(codes))
	q.Codes(got)
	for i := range codes {
		if got[i] != codes[i] {
			t.Fatalf("codes %v: got %v", codes, got)
		}
	}
}

// rowsOf is a source of given cells, for tests.
type rowsOf struct {
	n     int
	ints  map[int][]int64
	texts map[int][]string
	table *event.Table
}

func (s rowsOf) Extent() Extent                        { return Extent{Seq: 7, Len: s.n, Oldest: 1, Newest: 9} }
func (s rowsOf) Bounds(int) (low, high int64, ok bool) { return 0, 0, false }
func (s rowsOf) Column(i int, _ *Buffer) (Vector, error) {
	if IsInt(s.table.Columns[i].Type) {
		v := Vector{Ints: make([]int64, s.n)}
		for row := range v.Ints {
			v.Ints[row] = event.Null
			if cells := s.ints[i]; cells != nil {
				v.Ints[row] = cells[row]
			}
		}
		return v, nil
	}
	v := Vector{Codes: make([]uint32, s.n), Dict: Dict{Ends: []uint32{0}}}
	for row, text := range s.texts[i] {
		if text == "" {
			continue
		}
		v.Dict.Data = append(v.Dict.Data, text...)
		v.Dict.Ends = append(v.Dict.Ends, uint32(len(v.Dict.Data)))
		v.Codes[row] = uint32(len(v.Dict.Ends) - 1)
	}
	return v, nil
}

var table = event.Table{Kind: event.KindAlert, Name: "t", Columns: []event.Column{
	{Name: "time", Type: event.Time}, {Name: "a.b.n", Type: event.Int}, {Name: "a.ok", Type: event.Bool}, {Name: "a.b.s", Type: event.String},
	{Name: "list", Type: event.Strings}, {Name: "attributes", Type: event.Map}, {Name: "took", Type: event.Duration},
}}

func sample() rowsOf {
	return rowsOf{n: 3, table: &table,
		ints:  map[int][]int64{0: {1, 5, 9}, 1: {-4, event.Null, math.MaxInt64}, 2: {1, 0, event.Null}, 6: {event.Null, 0, 3}},
		texts: map[int][]string{3: {"x\"\\\n\x01\xff é\u2028", "", "y"}, 4: {"one\x00\x00three", "alone", ""}, 5: {"k\x00v\x00k2\x00", "", "only\x00x"}},
	}
}

var wantJSON = []string{
	`{"kind":"alert","time":"1970-01-01T00:00:00.000000001Z","a":{"b":{"n":-4,"s":"x\"\\\n\u0001� é` + "\u2028" + `"},"ok":true},"list":["one","","three"],"attributes":{"k":"v","k2":""}}`,
	`{"kind":"alert","time":"1970-01-01T00:00:00.000000005Z","a":{"ok":false},"list":["alone"],"took":0}`,
	`{"kind":"alert","time":"1970-01-01T00:00:00.000000009Z","a":{"b":{"n":9223372036854775807,"s":"y"}},"attributes":{"only":"x"},"took":3}`,
}

// TestJSON writes rows from memory and from a file, byte for byte.
func TestJSON(t *testing.T) {
	s, err := NewSchema(&table)
	if err != nil {
		t.Fatal(err)
	}
	f := written(t, s, sample())
	defer f.Close()
	for _, source := range []Source{sample(), f.Group(0)} {
		r := NewRows(s, source)
		for i, want := range wantJSON {
			got := r.AppendJSON(nil, i)
			if string(got) != want || !json.Valid(got) {
				t.Errorf("row %d:\n got %s\nwant %s", i, got, want)
			}
		}
		if r.Err() != nil {
			t.Error(r.Err())
		}
	}
	if low, high, ok := f.Group(0).Bounds(1); !ok || low != -4 || high != math.MaxInt64 {
		t.Errorf("bounds %d..%d %v", low, high, ok)
	}
	if e := f.Extent; e.Seq != 7 || e.Len != 3 || e.Oldest != 1 || e.Newest != 9 {
		t.Errorf("%+v", e)
	}
}

func written(t testing.TB, s *Schema, source Source) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.parquet")
	var b bytes.Buffer
	if _, err := Write(&b, s, []Source{source}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, s, NewCache(2))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// FuzzSegment damages a file: it is refused, or read, but nothing else.
func FuzzSegment(f *testing.F) {
	s, err := NewSchema(&table)
	if err != nil {
		f.Fatal(err)
	}
	sound := written(f, s, sample())
	data, err := os.ReadFile(sound.Path)
	if err != nil {
		f.Fatal(err)
	}
	sound.Close()
	f.Add(uint16(0), byte(0), uint16(0))
	f.Add(uint16(100), byte(1), uint16(0))
	f.Add(uint16(len(data)-20), byte(255), uint16(0))
	f.Add(uint16(0), byte(0), uint16(30))
	f.Fuzz(func(t *testing.T, at uint16, flip byte, cut uint16) {
		bad := bytes.Clone(data[:max(0, len(data)-int(cut))])
		if len(bad) > 0 {
			bad[int(at)%len(bad)] ^= flip
		}
		path := filepath.Join(t.TempDir(), "x.parquet")
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		file, err := Open(path, s, NewCache(1))
		if err != nil {
			return
		}
		defer file.Close()
		for i := range file.Groups {
			r := NewRows(s, file.Group(i))
			for row := range min(r.Len, 10) {
				r.AppendJSON(nil, row)
			}
		}
	})
}
