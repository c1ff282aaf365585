package segment

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go/format"

	"ghostlight/internal/event"
)

// GroupRows is the most rows of a row group: what a reader decodes at a time,
// and of one column what Write holds.
const GroupRows = 16 << 10

// Keys of the file's metadata.
const (
	keySeq    = "ghostlight.seq"    // sequence number of the first row
	keyMerged = "ghostlight.merged" // set where the rows were in other files before
	keyGroups = "ghostlight.groups" // by row group: first number, oldest, newest, big endian hexadecimal
)

// Write writes the rows of sources, oldest first, as one Parquet file and
// returns its row groups.
//
//	sources -> cells of one column -> codes and levels -> pages -> w
//	             one row group at a time                    \-> footer
//
// Columns come as codes into dictionaries and leave as such, so that no value
// is looked at row by row.
func Write(w io.Writer, s *Schema, sources []Source) ([]Extent, error) {
	return write(w, s, sources, false)
}

// Merge writes the rows of other files.
func Merge(w io.Writer, s *Schema, sources []Source) ([]Extent, error) {
	return write(w, s, sources, true)
}

func write(w io.Writer, s *Schema, sources []Source, merged bool) ([]Extent, error) {
	if len(sources) == 0 {
		return nil, nil
	}
	f, err := newWriter(w, s, sources)
	if err != nil {
		return nil, err
	}
	var groups []Extent
	for len(sources) > 0 {
		n, group := grouped(sources)
		if err := f.group(group, sources[:n]); err != nil {
			return nil, err
		}
		groups = append(groups, group)
		sources = sources[n:]
	}
	return groups, f.close(groups, merged)
}

// grouped returns how many sources make the next row group: as many as fit.
func grouped(sources []Source) (n int, group Extent) {
	group = sources[0].Extent()
	for n = 1; n < len(sources); n++ {
		e := sources[n].Extent()
		if group.Next() != e.Seq || group.Len+e.Len > GroupRows {
			break
		}
		group.Len += e.Len
		group.Oldest, group.Newest = min(group.Oldest, e.Oldest), max(group.Newest, e.Newest)
	}
	return n, group
}

// known is a source that can tell about a column without reading it.
type known interface {
	Full(column int) bool // every cell has a value
	Void(column int) bool // none has
}

func full(s Source, column int) bool {
	k, ok := s.(known)
	return ok && k.Full(column)
}

func void(s Source, column int) bool {
	k, ok := s.(known)
	return ok && k.Void(column)
}

// writer writes one file.
type writer struct {
	out      *bufio.Writer
	offset   int64
	schema   *Schema
	leaves   []leaf
	first    []int // by column of the table: its first leaf
	required []bool
	groups   []format.RowGroup
	rows     int64

	buffers []Buffer // by source
	ints    []int64
	vectors []Vector // by source
	codes   []uint32 // of cells: 0 is none
	dense   []int32  // of values, from 0
	levels  levels
	dict    interned
	parts   parts
	repeat  intDict
	chunk   chunk
}

func newWriter(w io.Writer, s *Schema, sources []Source) (f *writer, err error) {
	f = &writer{out: bufio.NewWriterSize(w, 32<<10), schema: s}
	f.required = make([]bool, len(s.Table.Columns))
	for i, c := range s.Table.Columns {
		f.required[i] = c.Type != event.Strings && c.Type != event.Map
		for _, source := range sources {
			f.required[i] = f.required[i] && full(source, i)
		}
	}
	f.leaves, f.first = s.leaves()
	f.write([]byte(magic))
	f.chunk.zstd, err = newEncoder()
	return f, err
}

// write keeps count; bufio keeps the first error for close.
func (f *writer) write(b []byte) {
	f.out.Write(b)
	f.offset += int64(len(b))
}

// group writes a row group, column by column.
func (f *writer) group(extent Extent, sources []Source) error {
	g := format.RowGroup{NumRows: int64(extent.Len), FileOffset: f.offset, Ordinal: int16(len(f.groups))}
	f.rows += g.NumRows
	f.groups = append(f.groups, g)
	for i, c := range f.schema.Table.Columns {
		if err := f.column(i, extent.Len, sources); err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
	}
	return nil
}

func (f *writer) column(i, rows int, sources []Source) error {
	leaf := f.first[i]
	t := f.schema.Table.Columns[i].Type
	if voids(sources, i) {
		err := f.void(leaf, rows)
		if t == event.Map && err == nil {
			err = f.void(leaf+1, rows)
		}
		return err
	}
	if IsInt(t) {
		if err := f.gatherInts(i, rows, sources); err != nil {
			return err
		}
		return f.numbers(leaf, t, f.required[i])
	}
	repeats, err := f.gatherCodes(i, rows, sources)
	if err != nil {
		return err
	}
	if t == event.String {
		return f.strings(leaf, f.required[i], repeats)
	}
	f.merge()
	if t == event.Strings {
		f.parts.split(&f.dict.Dict, 1)
		return f.elements(leaf, 0)
	}
	f.parts.split(&f.dict.Dict, 2)
	if err := f.elements(leaf, 0); err != nil {
		return err
	}
	return f.elements(leaf+1, 1)
}

func voids(sources []Source, column int) bool {
	for _, s := range sources {
		if !void(s, column) {
			return false
		}
	}
	return true
}

// gatherInts puts the cells of the sources after one another.
func (f *writer) gatherInts(column, rows int, sources []Source) error {
	f.ints = sized(f.ints, rows)
	at := 0
	for _, s := range sources {
		n := s.Extent().Len
		to := f.ints[at : at+n : at+n]
		v, err := s.Column(column, &Buffer{Ints: to[:0]})
		if err != nil {
			return err
		}
		if len(v.Ints) != n {
			return errShort
		}
		if &v.Ints[0] != &to[0] {
			copy(to, v.Ints)
		}
		at += n
	}
	return nil
}

// gatherCodes takes the columns of the sources. repeats tells that a
// dictionary of them is worth while: not if half of the cells are different.
func (f *writer) gatherCodes(column, rows int, sources []Source) (repeats bool, err error) {
	for len(f.buffers) < len(sources) {
		f.buffers = append(f.buffers, Buffer{})
	}
	f.vectors = sized(f.vectors, len(sources))
	distinct := 0
	for i, s := range sources {
		f.vectors[i], err = s.Column(column, &f.buffers[i])
		if err != nil {
			return false, err
		}
		if len(f.vectors[i].Codes) != s.Extent().Len {
			return false, errShort
		}
		distinct += f.vectors[i].Dict.Len() - 1
	}
	return distinct <= max(64, rows/2), nil
}

// merge makes one dictionary of those of f.vectors, and f.codes.
func (f *writer) merge() {
	f.codes = f.codes[:0]
	f.dict.reset()
	for i := range f.vectors {
		v := &f.vectors[i]
		f.dict.merge(&v.Dict)
		for _, code := range v.Codes {
			f.codes = append(f.codes, f.dict.to[code])
		}
	}
}

func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

func encodeGroups(groups []Extent) string {
	var b []byte
	for _, g := range groups {
		b = binary.BigEndian.AppendUint64(b, g.Seq)
		b = binary.BigEndian.AppendUint64(b, uint64(g.Oldest))
		b = binary.BigEndian.AppendUint64(b, uint64(g.Newest))
	}
	return hex.EncodeToString(b)
}
