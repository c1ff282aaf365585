package segment

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ghostlight/internal/event"
)

// madeOf is a source whose strings are in a dictionary, as the store has them.
type madeOf struct {
	extent  Extent
	vectors []Vector
}

func (m madeOf) Extent() Extent                          { return m.extent }
func (m madeOf) Bounds(int) (low, high int64, ok bool)   { return 0, 0, false }
func (m madeOf) Column(i int, _ *Buffer) (Vector, error) { return m.vectors[i], nil }
func (m madeOf) Void(i int) bool                         { return m.all(i, false) }
func (m madeOf) Full(i int) bool                         { return m.all(i, true) }

// all tells whether all cells of a column have a value, or have none.
func (m madeOf) all(i int, value bool) bool {
	for _, c := range m.vectors[i].Ints {
		if (c != event.Null) != value {
			return false
		}
	}
	for _, c := range m.vectors[i].Codes {
		if (c != 0) != value {
			return false
		}
	}
	return true
}

// kinds of columns: how their cells are made. Some sources get another one.
var kinds = []func(r *rand.Rand, t event.Type) any{
	func(*rand.Rand, event.Type) any { return nil },
	func(r *rand.Rand, t event.Type) any { return value(r, t, 1) },
	func(r *rand.Rand, t event.Type) any { return value(r, t, 5) },
	func(r *rand.Rand, t event.Type) any { return value(r, t, 1<<40) },
	func(r *rand.Rand, t event.Type) any { return some(r, value(r, t, 300)) },
	func(r *rand.Rand, t event.Type) any { return some(r, value(r, t, 1<<40)) },
}

func some(r *rand.Rand, v any) any {
	if r.IntN(3) == 0 {
		return nil
	}
	return v
}

func value(r *rand.Rand, t event.Type, distinct int64) any {
	n := r.Int64N(distinct)
	text := func(n int64) string { return strings.Repeat("é", int(n%4)) + fmt.Sprint(n) }
	switch t {
	case event.Bool:
		return n & 1
	case event.String:
		return text(n) + strings.Repeat("x", int(n%50))
	case event.Strings:
		return []string{text(n), "a\x00\x00" + text(n), "\x00", text(n / 2)}[n%4]
	case event.Map:
		return []string{"k\x00" + text(n), "k\x00\x00k2\x00" + text(n), text(n) + "\x00v", "\x00"}[n%4]
	}
	return n - distinct/2
}

func made(r *rand.Rand, t *event.Table, seq uint64, rows int) madeOf {
	m := madeOf{extent: Extent{Seq: seq, Len: rows, Oldest: -1 << 60, Newest: 1 << 60}}
	for _, c := range t.Columns {
		kind := kinds[r.IntN(len(kinds))]
		if c.Type == event.Time {
			kind = kinds[3]
		}
		m.vectors = append(m.vectors, vector(r, c.Type, kind, rows))
	}
	return m
}

func vector(r *rand.Rand, t event.Type, kind func(*rand.Rand, event.Type) any, rows int) (v Vector) {
	v.Dict.Ends = []uint32{0}
	known := map[string]uint32{}
	for range rows {
		switch cell := kind(r, t).(type) {
		case int64:
			v.Ints = append(v.Ints, cell)
		case string:
			code := known[cell]
			if code == 0 {
				v.Dict.Data = append(v.Dict.Data, cell...)
				v.Dict.Ends = append(v.Dict.Ends, uint32(len(v.Dict.Data)))
				code = uint32(len(v.Dict.Ends) - 1)
				known[cell] = code
			}
			v.Codes = append(v.Codes, code)
		default:
			if IsInt(t) {
				v.Ints = append(v.Ints, event.Null)
			} else {
				v.Codes = append(v.Codes, 0)
			}
		}
	}
	return v
}

// TestWrite writes sources of all shapes and reads every cell back, then makes
// one file of that file, and reads it again.
func TestWrite(t *testing.T) {
	s, err := NewSchema(&table)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 60 {
		seed := uint64(round)
		r := rand.New(rand.NewPCG(seed, 7))
		var sources []Source
		var want []string
		seq := uint64(r.IntN(100))
		for range 1 + r.IntN(5) {
			m := made(r, &table, seq, 1+r.IntN([]int{20, 600, 6000}[round%3]))
			sources = append(sources, m)
			want = append(want, jsonOf(t, s, m)...)
			seq = m.extent.Next() + uint64(r.IntN(2)*r.IntN(9))
		}
		first := segmentOf(t, s, sources)
		checkRows(t, seed, s, first, want)
		second := segmentOf(t, s, groupsOf(first))
		checkRows(t, seed, s, second, want)
		first.Close()
		second.Close()
	}
}

func groupsOf(f *File) (all []Source) {
	for i := range f.Groups {
		all = append(all, f.Group(i))
	}
	return all
}

func segmentOf(t *testing.T, s *Schema, sources []Source) *File {
	t.Helper()
	var b bytes.Buffer
	if _, err := Write(&b, s, sources); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.parquet")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, s, NewCache(1))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func jsonOf(t *testing.T, s *Schema, source Source) (all []string) {
	t.Helper()
	r := NewRows(s, source)
	for i := range r.Len {
		all = append(all, string(r.AppendJSON(nil, i)))
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return all
}

func checkRows(t *testing.T, seed uint64, s *Schema, f *File, want []string) {
	t.Helper()
	var got []string
	for _, g := range groupsOf(f) {
		got = append(got, jsonOf(t, s, g)...)
	}
	if len(got) != len(want) {
		t.Fatalf("seed %d: %d rows, want %d", seed, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("seed %d, row %d:\n got %s\nwant %s", seed, i, got[i], want[i])
		}
	}
}
