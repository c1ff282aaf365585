package segment

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"reflect"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"ghostlight/internal/event"
)

// How segments are written. A row group is what a reader decodes at a time; a
// page is what a column buffers while it is written, so 40 columns take 1 MB.
const (
	GroupRows = 16 << 10
	pageBytes = 32 << 10

	// sampled cells decide whether a column gets a dictionary.
	sampled = 2048
)

// Keys of the file's metadata.
const (
	keySeq    = "ghostlight.seq"    // sequence number of the first row
	keyGroups = "ghostlight.groups" // by row group: first number, oldest, newest, big endian hexadecimal
)

var codec = &zstd.Codec{Level: zstd.SpeedFastest}

// Write writes the rows of sources, oldest first, as one Parquet file and
// returns its row groups.
func Write(w io.Writer, s *Schema, sources []Source) ([]Extent, error) {
	if len(sources) == 0 {
		return nil, nil
	}
	first := NewRows(s, sources[0])
	pw := parquet.NewGenericWriter[any](w, &parquet.WriterConfig{
		CreatedBy:            "ghostlight",
		Schema:               s.parquet(first),
		PageBufferSize:       pageBytes,
		DataPageVersion:      2,
		DataPageStatistics:   false,
		ColumnIndexSizeLimit: parquet.DefaultWriterConfig().ColumnIndexSizeLimit,
		ColumnPageBuffers:    parquet.NewChunkBufferPool(16 << 10),
		Compression:          codec,
	})
	groups, err := writeGroups(pw, first, sources)
	if err != nil {
		return nil, err
	}
	pw.SetKeyValueMetadata(keySeq, fmt.Sprint(groups[0].Seq))
	pw.SetKeyValueMetadata(keyGroups, encodeGroups(groups))
	return groups, pw.Close()
}

// writeGroups puts as many sources into a row group as fit.
func writeGroups(pw *parquet.GenericWriter[any], rows *Rows, sources []Source) (groups []Extent, err error) {
	for len(sources) > 0 {
		group := sources[0].Extent()
		n := 1
		for n < len(sources) && group.Next() == sources[n].Extent().Seq && group.Len+sources[n].Extent().Len <= GroupRows {
			e := sources[n].Extent()
			group.Len += e.Len
			group.Oldest, group.Newest = min(group.Oldest, e.Oldest), max(group.Newest, e.Newest)
			n++
		}
		if err := writeGroup(pw.ColumnWriters(), rows, sources[:n]); err != nil {
			return nil, err
		}
		if err := pw.Flush(); err != nil {
			return nil, err
		}
		groups = append(groups, group)
		sources = sources[n:]
	}
	return groups, nil
}

func writeGroup(columns []*parquet.ColumnWriter, rows *Rows, sources []Source) error {
	out := cells{values: make([]parquet.Value, 0, 1024)}
	for _, source := range sources {
		rows.Reset(source)
		leaf := 0
		for i, c := range rows.Schema.Table.Columns {
			v, err := rows.Column(i)
			if err != nil {
				return err
			}
			out.leaf = leaf
			out.writer = columns[leaf]
			switch c.Type {
			case event.Bool:
				err = out.bools(v)
			case event.String:
				err = out.strings(v)
			case event.Strings:
				err = out.lists(v)
			case event.Map:
				err = out.maps(v, columns[leaf+1])
				leaf++
			default:
				err = out.ints(v, i == rows.Schema.Time)
			}
			if err != nil {
				return fmt.Errorf("column %s: %w", c.Name, err)
			}
			leaf++
		}
	}
	return nil
}

// cells turns a vector into the values of one leaf column.
type cells struct {
	values []parquet.Value
	writer *parquet.ColumnWriter
	leaf   int
}

// flush writes what has gathered; it is called between rows only.
func (o *cells) flush(always bool) error {
	if len(o.values) < 1000 && !always || len(o.values) == 0 {
		return nil
	}
	_, err := o.writer.WriteRowValues(o.values)
	o.values = o.values[:0]
	return err
}

func (o *cells) ints(v *Vector, required bool) error {
	level := 1
	if required {
		level = 0
	}
	null := parquet.NullValue().Level(0, 0, o.leaf)
	for _, n := range v.Ints {
		if n == event.Null && !required {
			o.values = append(o.values, null)
		} else {
			o.values = append(o.values, parquet.Int64Value(n).Level(0, level, o.leaf))
		}
		if err := o.flush(false); err != nil {
			return err
		}
	}
	return o.flush(true)
}

func (o *cells) bools(v *Vector) error {
	null := parquet.NullValue().Level(0, 0, o.leaf)
	for _, n := range v.Ints {
		if n == event.Null {
			o.values = append(o.values, null)
		} else {
			o.values = append(o.values, parquet.BooleanValue(n != 0).Level(0, 1, o.leaf))
		}
		if err := o.flush(false); err != nil {
			return err
		}
	}
	return o.flush(true)
}

func (o *cells) strings(v *Vector) error {
	null := parquet.NullValue().Level(0, 0, o.leaf)
	for _, code := range v.Codes {
		if cell := v.Dict.Cell(code); len(cell) == 0 {
			o.values = append(o.values, null)
		} else {
			o.values = append(o.values, parquet.ByteArrayValue(cell).Level(0, 1, o.leaf))
		}
		if err := o.flush(false); err != nil {
			return err
		}
	}
	return o.flush(true)
}

// lists writes a LIST: definition 0 no list, 2 an element; repetition 1 goes on.
func (o *cells) lists(v *Vector) error {
	null := parquet.NullValue().Level(0, 0, o.leaf)
	for _, code := range v.Codes {
		cell := v.Dict.Cell(code)
		if len(cell) == 0 {
			o.values = append(o.values, null)
		}
		repeated := 0
		for more := len(cell) > 0; more; {
			var item []byte
			item, cell, more = bytes.Cut(cell, []byte{0})
			o.values = append(o.values, parquet.ByteArrayValue(item).Level(repeated, 2, o.leaf))
			repeated = 1
		}
		if err := o.flush(false); err != nil {
			return err
		}
	}
	return o.flush(true)
}

// maps writes a MAP, which is a list of keys and one of values.
func (o *cells) maps(v *Vector, values *parquet.ColumnWriter) error {
	keyWriter, keyLeaf := o.writer, o.leaf
	for half := range 2 {
		o.writer, o.leaf = keyWriter, keyLeaf+half
		if half == 1 {
			o.writer = values
		}
		null := parquet.NullValue().Level(0, 0, o.leaf)
		for _, code := range v.Codes {
			cell := v.Dict.Cell(code)
			if len(cell) == 0 {
				o.values = append(o.values, null)
			}
			repeated := 0
			for more := len(cell) > 0; more; {
				var pair [2][]byte
				pair[0], cell, _ = bytes.Cut(cell, []byte{0})
				pair[1], cell, more = bytes.Cut(cell, []byte{0})
				o.values = append(o.values, parquet.ByteArrayValue(pair[half]).Level(repeated, 2, o.leaf))
				repeated = 1
			}
			if err := o.flush(false); err != nil {
				return err
			}
		}
		if err := o.flush(true); err != nil {
			return err
		}
	}
	return nil
}

// record is a group whose fields keep the order of the table; parquet.Group
// would sort them by name.
type record struct {
	parquet.Group
	fields []parquet.Field
}

func (r record) Fields() []parquet.Field { return r.fields }

type field struct {
	parquet.Node
	name string
}

func (f field) Name() string { return f.name }

func (f field) Value(base reflect.Value) reflect.Value {
	return base.MapIndex(reflect.ValueOf(f.name))
}

// parquet returns the schema of a file. The rows that will be first in it
// decide which columns are worth a dictionary.
func (s *Schema) parquet(rows *Rows) *parquet.Schema {
	r := record{Group: parquet.Group{}}
	for i := range s.Table.Columns {
		n := s.node(i, rows)
		r.Group[s.SQL[i]] = n
		r.fields = append(r.fields, field{n, s.SQL[i]})
	}
	return parquet.NewSchema(s.Table.Name, r)
}

func (s *Schema) node(i int, rows *Rows) parquet.Node {
	switch s.Table.Columns[i].Type {
	case event.Bool:
		return parquet.Optional(parquet.Leaf(parquet.BooleanType))
	case event.Strings:
		return parquet.Optional(parquet.List(text(true)))
	case event.Map:
		return parquet.Optional(parquet.Map(text(true), parquet.Required(text(true))))
	case event.String:
		return parquet.Optional(text(repeats(rows, i)))
	case event.Time:
		n := parquet.Encoded(parquet.Timestamp(parquet.Nanosecond), &parquet.DeltaBinaryPacked)
		if i == s.Time {
			return parquet.Required(n)
		}
		return parquet.Optional(n)
	}
	if repeats(rows, i) {
		return parquet.Optional(parquet.Encoded(parquet.Int(64), &parquet.RLEDictionary))
	}
	return parquet.Optional(parquet.Encoded(parquet.Int(64), &parquet.DeltaBinaryPacked))
}

func text(dictionary bool) parquet.Node {
	if dictionary {
		return parquet.Encoded(parquet.String(), &parquet.RLEDictionary)
	}
	return parquet.Encoded(parquet.String(), &parquet.DeltaLengthByteArray)
}

// repeats tells whether a column has few distinct values: at most a quarter of
// the first rows.
func repeats(rows *Rows, column int) bool {
	v, err := rows.Column(column)
	if err != nil {
		return true
	}
	n := min(rows.Len, sampled)
	if v.Ints == nil {
		return v.Dict.Len() <= max(64, rows.Len/2)
	}
	distinct := map[int64]struct{}{}
	for _, c := range v.Ints[:n] {
		distinct[c] = struct{}{}
	}
	return len(distinct) <= max(16, n/8)
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
