// Package segment is rows in columns: how they look to a reader, how they are
// packed in memory and in the log, and how they are kept in Parquet files.
//
//	event.Batch -> store's open block -> Packed -> Parquet row group
//	                        \______________\____________\__ Rows, for every reader
//
// Only event.Table knows the fields; nothing here names one.
package segment

import (
	"ghostlight/internal/event"
)

// Dict is the distinct strings of a column. Code 0 is the empty string, which
// stands for "no value"; Ends[c-1] and Ends[c] bound the bytes of code c.
type Dict struct {
	Data []byte
	Ends []uint32 // Ends[0] is 0
}

// Len returns the number of codes, the empty string included.
func (d *Dict) Len() int { return max(1, len(d.Ends)) }

// Cell returns the string of a code.
func (d *Dict) Cell(code uint32) []byte {
	if code == 0 || int(code) >= len(d.Ends) {
		return nil
	}
	return d.Data[d.Ends[code-1]:d.Ends[code]]
}

// Vector is one column of a run of rows: Ints for numbers, times and booleans
// (event.Null where there is no value), Codes into Dict for everything else.
type Vector struct {
	Ints  []int64
	Codes []uint32
	Dict  Dict
}

// Buffer is memory a Source may decode a column into.
type Buffer struct {
	Ints  []int64
	Codes []uint32
	Data  []byte
	Ends  []uint32
}

// Extent says which rows something holds: Len rows from sequence number Seq,
// with times between Oldest and Newest (Unix nanoseconds).
type Extent struct {
	Seq            uint64
	Len            int
	Oldest, Newest int64
}

// Next returns the sequence number after the last row.
func (e Extent) Next() uint64 { return e.Seq + uint64(e.Len) }

// Source gives the columns of a run of rows. Column may decode into b, which
// stays untouched until the caller is done with the vector.
type Source interface {
	Extent() Extent
	Column(column int, b *Buffer) (Vector, error)
	// Bounds returns limits of a number column without reading it. Null cells
	// are not inside of them. ok is false where nothing is known.
	Bounds(column int) (low, high int64, ok bool)
}

// Rows is a run of rows of one table. Columns are read when they are first
// asked for. It belongs to one goroutine, and its memory is used again by the
// next Reset.
type Rows struct {
	Schema *Schema
	Extent
	source Source
	vector []Vector
	loaded []bool
	buffer []Buffer
	err    error
}

// NewRows returns the rows of a source.
func NewRows(s *Schema, source Source) *Rows {
	r := &Rows{Schema: s}
	r.Reset(source)
	return r
}

// Reset makes r the rows of another source of the same table.
func (r *Rows) Reset(source Source) {
	if n := len(r.Schema.Table.Columns); len(r.vector) != n {
		r.vector, r.loaded, r.buffer = make([]Vector, n), make([]bool, n), make([]Buffer, n)
	}
	clear(r.vector)
	clear(r.loaded)
	r.source, r.err = source, nil
	if source != nil {
		r.Extent = source.Extent()
	}
}

// Table returns the schema of the rows.
func (r *Rows) Table() *event.Table { return r.Schema.Table }

// Err returns the first error met while reading a column. The cells of such a
// column are Null.
func (r *Rows) Err() error { return r.err }

// Bounds returns limits of a number column without reading it.
func (r *Rows) Bounds(column int) (low, high int64, ok bool) { return r.source.Bounds(column) }

// Column returns a whole column.
func (r *Rows) Column(column int) (*Vector, error) {
	v := &r.vector[column]
	if r.loaded[column] {
		return v, nil
	}
	got, err := r.source.Column(column, &r.buffer[column])
	if err == nil && len(got.Ints) != r.Len && len(got.Codes) != r.Len {
		err = errShort
	}
	r.loaded[column] = true
	if err == nil {
		*v = got
		return v, nil
	}
	if r.err == nil {
		r.err = err
	}
	*v = r.absent(column)
	return v, err
}

func (r *Rows) absent(column int) Vector {
	if !r.Schema.IsInt(column) {
		return Vector{Codes: make([]uint32, r.Len)}
	}
	v := Vector{Ints: make([]int64, r.Len)}
	for i := range v.Ints {
		v.Ints[i] = event.Null
	}
	return v
}

// Int returns a cell of a number column, event.Null where there is no value.
func (r *Rows) Int(column, row int) int64 {
	if !r.loaded[column] {
		r.Column(column) // the error is kept in r.err
	}
	return r.vector[column].Ints[row]
}

// Bytes returns a cell of a string column. It is valid until r is reset.
func (r *Rows) Bytes(column, row int) []byte {
	if !r.loaded[column] {
		r.Column(column) // the error is kept in r.err
	}
	v := &r.vector[column]
	return v.Dict.Cell(v.Codes[row])
}
