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
	pageBytes = 16 << 10

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
	layouts := s.layouts(sources)
	pw := parquet.NewGenericWriter[any](w, &parquet.WriterConfig{
		CreatedBy:            "ghostlight",
		Schema:               s.parquet(first, layouts),
		PageBufferSize:       pageBytes,
		DataPageVersion:      2,
		SkipPageBounds:       s.textPaths(),
		SkipPageStatistics:   s.textPaths(),
		ColumnIndexSizeLimit: parquet.DefaultWriterConfig().ColumnIndexSizeLimit,
		ColumnPageBuffers:    parquet.NewChunkBufferPool(16 << 10),
		Compression:          codec,
	})
	groups, err := writeGroups(pw, first, sources, layouts)
	if err != nil {
		return nil, err
	}
	pw.SetKeyValueMetadata(keySeq, fmt.Sprint(groups[0].Seq))
	pw.SetKeyValueMetadata(keyGroups, encodeGroups(groups))
	return groups, pw.Close()
}

// writeGroups puts as many sources into a row group as fit.
func writeGroups(pw *parquet.GenericWriter[any], rows *Rows, sources []Source, layouts []layout) (groups []Extent, err error) {
	out := cells{values: make([]parquet.Value, 0, valuesAtOnce)}
	for len(sources) > 0 {
		group := sources[0].Extent()
		n := 1
		for n < len(sources) && group.Next() == sources[n].Extent().Seq && group.Len+sources[n].Extent().Len <= GroupRows {
			e := sources[n].Extent()
			group.Len += e.Len
			group.Oldest, group.Newest = min(group.Oldest, e.Oldest), max(group.Newest, e.Newest)
			n++
		}
		if err := out.group(pw.ColumnWriters(), rows, sources[:n], layouts); err != nil {
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

// layout is how a file keeps a column.
type layout struct {
	leaf     int
	required bool // no cell of the file is without a value
}

func (o *cells) group(columns []*parquet.ColumnWriter, rows *Rows, sources []Source, layouts []layout) error {
	for _, source := range sources {
		rows.Reset(source)
		for i, c := range rows.Schema.Table.Columns {
			l := layouts[i]
			o.leaf, o.required, o.writer = l.leaf, l.required, columns[l.leaf]
			if err := o.column(rows, i, c.Type, columns); err != nil {
				return fmt.Errorf("column %s: %w", c.Name, err)
			}
		}
	}
	return nil
}

const valuesAtOnce = 1024

// cells turns a vector into the values of one leaf column.
type cells struct {
	values   []parquet.Value
	dict     []parquet.Value
	buffer   Buffer
	writer   *parquet.ColumnWriter
	leaf     int
	required bool
}

func (o *cells) column(rows *Rows, i int, t event.Type, columns []*parquet.ColumnWriter) error {
	if void(rows.source, i) {
		if err := o.voids(rows.Len); err != nil || t != event.Map {
			return err
		}
		o.leaf++
		o.writer = columns[o.leaf]
		return o.voids(rows.Len)
	}
	got, err := rows.source.Column(i, &o.buffer) // one buffer for all columns in turn
	if err != nil {
		return err
	}
	v := &got
	switch t {
	case event.Bool:
		return o.ints(v, func(n int64) parquet.Value { return parquet.BooleanValue(n != 0) })
	case event.String:
		return o.strings(v)
	case event.Strings:
		return o.lists(v)
	case event.Map:
		return o.maps(v, columns[o.leaf+1])
	}
	if o.required {
		return o.fullInts(v)
	}
	return o.ints(v, parquet.Int64Value)
}

// flush writes what has gathered; it is called between rows only.
func (o *cells) flush(always bool) error {
	if len(o.values) < valuesAtOnce-24 && !always || len(o.values) == 0 {
		return nil
	}
	_, err := o.writer.WriteRowValues(o.values)
	o.values = o.values[:0]
	return err
}

func (o *cells) level() int {
	if o.required {
		return 0
	}
	return 1
}

func (o *cells) null() parquet.Value { return parquet.NullValue().Level(0, 0, o.leaf) }

func (o *cells) voids(n int) error {
	o.values = o.values[:0]
	for range min(n, valuesAtOnce) {
		o.values = append(o.values, o.null())
	}
	for ; n > 0; n -= valuesAtOnce {
		if _, err := o.writer.WriteRowValues(o.values[:min(n, valuesAtOnce)]); err != nil {
			return err
		}
	}
	o.values = o.values[:0]
	return nil
}

// fullInts writes a required column, which needs no levels.
func (o *cells) fullInts(v *Vector) error {
	for at := 0; at < len(v.Ints); at += valuesAtOnce {
		for _, n := range v.Ints[at:min(at+valuesAtOnce, len(v.Ints))] {
			o.values = append(o.values, parquet.Int64Value(n))
		}
		if err := o.flush(true); err != nil {
			return err
		}
	}
	return nil
}

func (o *cells) ints(v *Vector, value func(int64) parquet.Value) error {
	null, level := o.null(), o.level()
	for _, n := range v.Ints {
		if n == event.Null {
			o.values = append(o.values, null)
		} else {
			o.values = append(o.values, value(n).Level(0, level, o.leaf))
		}
		if err := o.flush(false); err != nil {
			return err
		}
	}
	return o.flush(true)
}

func (o *cells) strings(v *Vector) error {
	o.dict = append(o.dict[:0], o.null())
	level := o.level()
	for code := 1; code < v.Dict.Len(); code++ {
		o.dict = append(o.dict, parquet.ByteArrayValue(v.Dict.Cell(uint32(code))).Level(0, level, o.leaf))
	}
	for at := 0; at < len(v.Codes); at += valuesAtOnce {
		for _, code := range v.Codes[at:min(at+valuesAtOnce, len(v.Codes))] {
			o.values = append(o.values, o.dict[code])
		}
		if err := o.flush(true); err != nil {
			return err
		}
	}
	return nil
}

// lists writes a LIST: definition 0 no list, 2 an element; repetition 1 goes on.
func (o *cells) lists(v *Vector) error {
	null := o.null()
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
		null := o.null()
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
func (s *Schema) parquet(rows *Rows, layouts []layout) *parquet.Schema {
	r := record{Group: parquet.Group{}}
	for i := range s.Table.Columns {
		n := s.node(i, rows)
		if !layouts[i].required {
			n = parquet.Optional(n)
		}
		r.Group[s.SQL[i]] = n
		r.fields = append(r.fields, field{n, s.SQL[i]})
	}
	return parquet.NewSchema(s.Table.Name, r)
}

// layouts gives each column its leaf and tells which need no nulls.
func (s *Schema) layouts(sources []Source) []layout {
	all := make([]layout, len(s.Table.Columns))
	leaf := 0
	for i, c := range s.Table.Columns {
		all[i] = layout{leaf: leaf, required: c.Type != event.Strings && c.Type != event.Map}
		for _, source := range sources {
			all[i].required = all[i].required && full(source, i)
		}
		if leaf++; c.Type == event.Map {
			leaf++
		}
	}
	return all
}

// textPaths are the columns without bounds for each page: comparing all
// strings costs more than it saves.
func (s *Schema) textPaths() (all [][]string) {
	for i, c := range s.Table.Columns {
		switch c.Type {
		case event.String:
			all = append(all, []string{s.SQL[i]})
		case event.Strings:
			all = append(all, []string{s.SQL[i], "list", "element"})
		case event.Map:
			all = append(all, []string{s.SQL[i], "key_value", "key"}, []string{s.SQL[i], "key_value", "value"})
		}
	}
	return all
}

func (s *Schema) node(i int, rows *Rows) parquet.Node {
	switch s.Table.Columns[i].Type {
	case event.Bool:
		return parquet.Leaf(parquet.BooleanType)
	case event.Strings:
		return parquet.List(text(true))
	case event.Map:
		return parquet.Map(text(true), text(true))
	case event.String:
		return text(repeats(rows, i))
	case event.Time:
		return parquet.Encoded(parquet.Timestamp(parquet.Nanosecond), &parquet.DeltaBinaryPacked)
	}
	if repeats(rows, i) {
		return parquet.Encoded(parquet.Int(64), &parquet.RLEDictionary)
	}
	return parquet.Encoded(parquet.Int(64), &parquet.DeltaBinaryPacked)
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
	v, err := rows.source.Column(column, &Buffer{})
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
