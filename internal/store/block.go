package store

import (
	"bytes"
	"hash/maphash"
	"math"
	"sync/atomic"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

// A block is rows in columns that grow at their end. One goroutine writes;
// readers take the count of rows first and the columns second, so that what
// they take has at least that many rows. Nothing below the count changes.
type block struct {
	schema   *segment.Schema
	seq      uint64
	columns  atomic.Pointer[columns]
	rows     atomic.Int64
	oldest   atomic.Int64
	newest   atomic.Int64
	refs     atomic.Int64 // views that hold it; at 0 its memory is used again
	opened   time.Time    // when the first row came; the writer's
	capacity int
	seed     maphash.Seed
	intern   []intern // by column; the writer's
	scratch  []byte
}

// columns is the memory of a block; it is replaced as a whole when one grows.
type columns struct {
	ints  [][]int64
	codes [][]uint32
	dicts []dict
}

// dict is a dictionary that is being filled. Its slices have their full
// length; what of them is used is the writer's to know, and codes never point
// beyond it.
type dict struct {
	data []byte
	ends []uint32
}

// intern finds the code of a string: an open hash table of codes.
type intern struct {
	slots []uint32
	codes uint32 // used
	bytes uint32 // used
}

const (
	startRows  = 256
	startCodes = 16
	startBytes = 256
)

func newBlock(s *segment.Schema, seq uint64) *block {
	b := &block{schema: s, capacity: startRows, seed: maphash.MakeSeed()}
	n := len(s.Table.Columns)
	c := &columns{ints: make([][]int64, n), codes: make([][]uint32, n), dicts: make([]dict, n)}
	b.intern = make([]intern, n)
	for i := range n {
		if s.IsInt(i) {
			c.ints[i] = make([]int64, startRows)
			continue
		}
		c.codes[i] = make([]uint32, startRows)
		c.dicts[i] = dict{make([]byte, startBytes), make([]uint32, startCodes)}
		b.intern[i].slots = make([]uint32, 2*startCodes)
	}
	b.columns.Store(c)
	b.reset(seq)
	return b
}

// reset empties the block and keeps its memory.
func (b *block) reset(seq uint64) {
	b.seq = seq
	b.rows.Store(0)
	b.oldest.Store(math.MaxInt64)
	b.newest.Store(math.MinInt64)
	b.opened = time.Time{}
	for i := range b.intern {
		clear(b.intern[i].slots)
		b.intern[i].codes, b.intern[i].bytes = 1, 0
	}
}

// room returns how many of want rows fit, growing up to limit.
func (b *block) room(want, limit int) int {
	have := int(b.rows.Load())
	for b.capacity < have+want && b.capacity < limit {
		b.growRows(min(2*b.capacity, limit))
	}
	return min(want, b.capacity-have)
}

func (b *block) growRows(capacity int) {
	old := b.columns.Load()
	c := &columns{ints: make([][]int64, len(old.ints)), codes: make([][]uint32, len(old.codes)), dicts: old.dicts}
	for i := range old.ints {
		c.ints[i] = grown(old.ints[i], capacity)
		c.codes[i] = grown(old.codes[i], capacity)
	}
	b.capacity = capacity
	b.columns.Store(c)
}

func grown[T any](s []T, n int) []T {
	if s == nil {
		return nil
	}
	return append(make([]T, 0, n), s...)[:n]
}

// append copies rows from..from+n of the batch. There must be room.
func (b *block) append(batch *event.Batch, from, n int) {
	at := int(b.rows.Load())
	for i := range b.schema.Table.Columns {
		if get := b.schema.Table.Columns[i].Int; get != nil {
			cells := b.columns.Load().ints[i][at : at+n]
			for row := range cells {
				cells[row] = get(batch, from+row)
			}
			continue
		}
		b.appendStrings(i, at, batch, from, n)
	}
	b.publish(at, n)
}

func (b *block) appendStrings(column, at int, batch *event.Batch, from, n int) {
	get := b.schema.Table.Columns[column].Append
	codes := b.columns.Load().codes[column][at : at+n]
	var last uint32
	var lastCell []byte
	for row := range codes {
		b.scratch = get(b.scratch[:0], batch, from+row)
		if row == 0 || !bytes.Equal(b.scratch, lastCell) {
			last = b.code(column, b.scratch)
			d := &b.columns.Load().dicts[column]
			lastCell = d.cell(last)
		}
		codes[row] = last
	}
}

// publish makes n rows from at visible.
func (b *block) publish(at, n int) {
	oldest, newest := b.oldest.Load(), b.newest.Load()
	for _, t := range b.columns.Load().ints[b.schema.Time][at : at+n] {
		oldest, newest = min(oldest, t), max(newest, t)
	}
	b.oldest.Store(oldest)
	b.newest.Store(newest)
	b.rows.Store(int64(at + n))
}

// code returns the code of a string, which it adds if it is new.
func (b *block) code(column int, s []byte) uint32 {
	if len(s) == 0 {
		return 0
	}
	in := &b.intern[column]
	d := &b.columns.Load().dicts[column]
	mask := uint64(len(in.slots) - 1)
	at := maphash.Bytes(b.seed, s) & mask
	for ; in.slots[at] != 0; at = (at + 1) & mask {
		if bytes.Equal(d.cell(in.slots[at]), s) {
			return in.slots[at]
		}
	}
	return b.addCode(column, s, at)
}

func (d *dict) cell(code uint32) []byte {
	if code == 0 {
		return nil
	}
	return d.data[d.ends[code-1]:d.ends[code]]
}

func (b *block) addCode(column int, s []byte, slot uint64) uint32 {
	in := &b.intern[column]
	d := &b.columns.Load().dicts[column]
	if int(in.codes) == len(d.ends) || int(in.bytes)+len(s) > len(d.data) {
		d = b.growDict(column, len(s))
	}
	code := in.codes
	copy(d.data[in.bytes:], s)
	in.bytes += uint32(len(s))
	d.ends[code] = in.bytes
	in.codes++
	in.slots[slot] = code
	if 2*int(in.codes) > len(in.slots) {
		in.rehash(d, b.seed)
	}
	return code
}

func (b *block) growDict(column, more int) *dict {
	old := b.columns.Load()
	in := &b.intern[column]
	c := &columns{ints: old.ints, codes: old.codes, dicts: append([]dict(nil), old.dicts...)}
	d := &c.dicts[column]
	if int(in.codes) == len(d.ends) {
		d.ends = grown(d.ends, 2*len(d.ends))
	}
	if size := len(d.data); int(in.bytes)+more > size {
		for size < int(in.bytes)+more {
			size *= 2
		}
		d.data = grown(d.data, size)
	}
	b.columns.Store(c)
	return d
}

func (in *intern) rehash(d *dict, seed maphash.Seed) {
	in.slots = make([]uint32, 2*len(in.slots))
	mask := uint64(len(in.slots) - 1)
	for code := uint32(1); code < in.codes; code++ {
		at := maphash.Bytes(seed, d.cell(code)) & mask
		for in.slots[at] != 0 {
			at = (at + 1) & mask
		}
		in.slots[at] = code
	}
}

// stringBytes returns how much of the dictionaries is used.
func (b *block) stringBytes() (n int) {
	for i := range b.intern {
		n += int(b.intern[i].bytes)
	}
	return n
}

// view returns the rows that are there now, without the first from, as a
// source for readers.
func (b *block) view(from int) *blockView {
	v := &blockView{from: from, n: int(b.rows.Load()), seq: b.seq, oldest: b.oldest.Load(), newest: b.newest.Load()}
	v.columns = b.columns.Load()
	return v
}

// blockView is the rows from..n of a block.
type blockView struct {
	columns        *columns
	seq            uint64
	from, n        int
	oldest, newest int64
}

func (v *blockView) Extent() segment.Extent {
	return segment.Extent{Seq: v.seq + uint64(v.from), Len: v.n - v.from, Oldest: v.oldest, Newest: v.newest}
}

func (v *blockView) Bounds(int) (low, high int64, ok bool) { return 0, 0, false }

// Column needs to know how much of a dictionary its rows use: the greatest
// code among them. Codes are given in order, so everything below is filled.
func (v *blockView) Column(column int, _ *segment.Buffer) (segment.Vector, error) {
	if ints := v.columns.ints[column]; ints != nil {
		return segment.Vector{Ints: ints[v.from:v.n]}, nil
	}
	codes := v.columns.codes[column][v.from:v.n]
	d := &v.columns.dicts[column]
	var most uint32
	for _, c := range codes {
		most = max(most, c)
	}
	return segment.Vector{Codes: codes, Dict: segment.Dict{Data: d.data, Ends: d.ends[:most+1]}}, nil
}

// packed is a full block in a fraction of its memory.
type packed struct {
	extent  segment.Extent
	columns []packedColumn
	size    int
	opened  time.Time

	flushing atomic.Bool // it is being written to a segment: not to be dropped
}

type packedColumn struct {
	cells segment.Packed
	dict  segment.Dict
}

// pack copies a block whose writing is over.
func pack(b *block) *packed {
	v := b.view(0)
	p := &packed{extent: v.Extent(), columns: make([]packedColumn, len(b.schema.Table.Columns)), opened: b.opened}
	for i := range p.columns {
		c, _ := v.Column(i, nil) // memory: cannot fail
		p.columns[i] = packColumn(&c)
		p.size += p.columns[i].size()
	}
	return p
}

func packColumn(v *segment.Vector) packedColumn {
	if v.Ints != nil {
		return packedColumn{cells: segment.PackInts(v.Ints)}
	}
	used := v.Dict.Ends[v.Dict.Len()-1]
	return packedColumn{cells: segment.PackCodes(v.Codes), dict: segment.Dict{
		Data: bytes.Clone(v.Dict.Data[:used]),
		Ends: append([]uint32(nil), v.Dict.Ends...),
	}}
}

func (c *packedColumn) size() int { return c.cells.Size() + len(c.dict.Data) + 4*len(c.dict.Ends) }

func (p *packed) Extent() segment.Extent { return p.extent }

func (p *packed) Bounds(column int) (low, high int64, ok bool) {
	return p.columns[column].cells.Bounds()
}

func (p *packed) Column(column int, b *segment.Buffer) (segment.Vector, error) {
	return p.columns[column].unpack(0, p.extent.Len, b), nil
}

// Full and Void tell the writer of segments which columns need no nulls.
func (p *packed) Full(column int) bool { return p.columns[column].cells.Full() }

func (p *packed) Void(column int) bool { return p.columns[column].cells.Void() }

// unpack gives the cells from..n.
func (c *packedColumn) unpack(from, n int, b *segment.Buffer) segment.Vector {
	cells := c.cells.From(from)
	if c.dict.Ends == nil {
		b.Ints = sized(b.Ints, n-from)
		cells.Ints(b.Ints)
		return segment.Vector{Ints: b.Ints}
	}
	b.Codes = sized(b.Codes, n-from)
	cells.Codes(b.Codes)
	return segment.Vector{Codes: b.Codes, Dict: c.dict}
}

// packedTail is a packed block without its first rows.
type packedTail struct {
	*packed
	skip int
}

func (t packedTail) Extent() segment.Extent { return skipped(t.extent, t.skip) }

func (t packedTail) Column(column int, b *segment.Buffer) (segment.Vector, error) {
	return t.columns[column].unpack(t.skip, t.extent.Len, b), nil
}

func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
