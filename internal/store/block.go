package store

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

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
	seed     seed
	idle     columns  // memory of the columns that have no value yet; the writer's
	intern   []intern // by column; the writer's
	groups   []group
	group    []int // by column
	scratch  []byte
}

// columns is the memory of a block; it is replaced as a whole when one grows.
// A column that has no value yet has none: most columns of most tables.
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

// intern finds the code of a string: an open hash table.
type intern struct {
	slots []uint64 // upper half of the hash, code; 0 is free
	codes uint32   // used
	bytes uint32   // used
	last  uint32   // the code found last
	rows  int      // that had a value
	plain bool     // its values hardly repeat: each gets a code, none is looked for
}

const (
	startRows  = 256
	startCodes = 16
	startBytes = 256

	// After plainAfter values a column is plain if 7 of 8 were different.
	plainAfter = 512
	// fewCodes are so few that the last is likely to be the next.
	fewCodes = 6
	// chunkRows of a batch are copied at a time, so that they stay in the
	// processor's cache while the columns pass over them.
	chunkRows = 256
)

func newBlock(s *segment.Schema, seq uint64) *block {
	b := &block{schema: s, capacity: startRows, seed: newSeed()}
	n := len(s.Table.Columns)
	b.idle = newColumns(n)
	b.columns.Store(&b.idle)
	b.intern = make([]intern, n)
	b.groups, b.group = groups(s.Table)
	b.reset(seq)
	return b
}

func newColumns(n int) columns {
	return columns{ints: make([][]int64, n), codes: make([][]uint32, n), dicts: make([]dict, n)}
}

// reset empties the block and keeps its memory. Nobody reads it.
func (b *block) reset(seq uint64) {
	b.seq = seq
	b.rows.Store(0)
	b.oldest.Store(math.MaxInt64)
	b.newest.Store(math.MinInt64)
	b.opened = time.Time{}
	for i := range b.intern {
		clear(b.intern[i].slots)
		b.intern[i] = intern{slots: b.intern[i].slots, codes: 1}
	}
	used := b.columns.Load()
	for i := range b.intern {
		if used.ints[i] != nil {
			b.idle.ints[i] = used.ints[i]
		}
		if used.codes[i] != nil {
			b.idle.codes[i], b.idle.dicts[i] = used.codes[i], used.dicts[i]
		}
	}
	none := newColumns(len(b.intern))
	b.columns.Store(&none)
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

// useInts gives a column memory. The rows before have no value.
func (b *block) useInts(column int) []int64 {
	old := b.columns.Load()
	c := &columns{ints: slices.Clone(old.ints), codes: old.codes, dicts: old.dicts}
	cells := sized(b.idle.ints[column], b.capacity)
	b.idle.ints[column] = nil
	for row := range int(b.rows.Load()) {
		cells[row] = event.Null
	}
	c.ints[column] = cells
	b.columns.Store(c)
	return cells
}

func (b *block) useCodes(column int) []uint32 {
	old := b.columns.Load()
	c := &columns{ints: old.ints, codes: slices.Clone(old.codes), dicts: slices.Clone(old.dicts)}
	codes := sized(b.idle.codes[column], b.capacity)
	clear(codes[:b.rows.Load()])
	d := b.idle.dicts[column]
	if d.ends == nil {
		d = dict{make([]byte, startBytes), make([]uint32, startCodes)}
		b.intern[column].slots = make([]uint64, 2*startCodes)
	}
	b.idle.codes[column], b.idle.dicts[column] = nil, dict{}
	c.codes[column], c.dicts[column] = codes, d
	b.columns.Store(c)
	return codes
}

// append copies rows from..from+n of the batch. There must be room.
func (b *block) append(batch *event.Batch, from, n int) {
	at := int(b.rows.Load())
	for i := range b.groups[1:] {
		b.groups[i+1].pick(batch, from, n)
	}
	for i := range b.schema.Table.Columns {
		c := &b.schema.Table.Columns[i]
		rows := b.groups[b.group[i]].rows
		rows = rows[:min(n, len(rows))]
		if c.Int != nil {
			b.appendInts(i, at, n, rows, batch, from)
		} else {
			b.appendStrings(i, at, n, rows, batch, from)
		}
	}
	b.publish(at, n)
}

// cell returns the bytes of a cell until the next call.
func (b *block) cell(c *event.Column, batch *event.Batch, row int) []byte {
	if c.Text != nil {
		return bytesOf(c.Text(batch, row))
	}
	b.scratch = c.Append(b.scratch[:0], batch, row)
	return b.scratch
}

// bytesOf returns the bytes of s, which are only read.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// group is an event.Group and the rows of a part of a batch that are in it. The
// first group is that of all rows.
type group struct {
	of   *event.Group
	rows []int32
}

func (g *group) pick(batch *event.Batch, from, n int) {
	g.rows = g.rows[:0]
	for row := range n {
		if g.of.Has(batch, from+row) {
			g.rows = append(g.rows, int32(row))
		}
	}
}

// groups finds the groups of a table, and the one of each column.
func groups(table *event.Table) (all []group, of []int) {
	every := make([]int32, chunkRows)
	for i := range every {
		every[i] = int32(i)
	}
	all = []group{{nil, every}}
	for i := range table.Columns {
		g := table.Columns[i].Group
		at := slices.IndexFunc(all, func(other group) bool { return other.of == g })
		if at < 0 {
			at = len(all)
			all = append(all, group{of: g, rows: make([]int32, 0, chunkRows)})
		}
		of = append(of, at)
	}
	return all, of
}

// appendInts sets the cells of n rows from at: those of rows are asked for.
func (b *block) appendInts(column, at, n int, rows []int32, batch *event.Batch, from int) {
	get := b.schema.Table.Columns[column].Int
	cells := b.columns.Load().ints[column]
	if cells == nil {
		for len(rows) > 0 && get(batch, from+int(rows[0])) == event.Null {
			rows = rows[1:]
		}
		if len(rows) == 0 {
			return
		}
		cells = b.useInts(column)
	}
	cells = cells[at : at+n]
	if len(rows) < n {
		for row := range cells {
			cells[row] = event.Null
		}
	}
	for _, row := range rows {
		cells[row] = get(batch, from+int(row))
	}
}

func (b *block) appendStrings(column, at, n int, rows []int32, batch *event.Batch, from int) {
	c := &b.schema.Table.Columns[column]
	codes := b.columns.Load().codes[column]
	if codes == nil {
		for len(rows) > 0 && len(b.cell(c, batch, from+int(rows[0]))) == 0 {
			rows = rows[1:]
		}
		if len(rows) == 0 {
			return
		}
		codes = b.useCodes(column)
	}
	in := &b.intern[column]
	d := &b.columns.Load().dicts[column]
	codes = codes[at : at+n]
	clear(codes)
	for _, row := range rows {
		cell := b.cell(c, batch, from+int(row))
		if len(cell) == 0 {
			continue
		}
		in.rows++
		code, slot := in.find(d, cell, &b.seed)
		if code == 0 {
			code = b.push(column, cell)
			in.keep(code, slot)
			d = &b.columns.Load().dicts[column]
		}
		codes[row] = code
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

// find returns the code of a string, or 0 and what keep needs to know of it.
func (in *intern) find(d *dict, s []byte, seed *seed) (code uint32, slot uint64) {
	if in.plain {
		return 0, 0
	}
	if in.codes <= fewCodes && in.last != 0 && equal(d.cell(in.last), s) {
		return in.last, 0
	}
	h := seed.hash(s)
	slots := in.slots
	mask := uint64(len(slots) - 1)
	for at := h >> 32 & mask; slots[at] != 0; at = (at + 1) & mask {
		slot := slots[at]
		if uint32(slot>>32) == uint32(h>>32) && equal(d.cell(uint32(slot)), s) {
			in.last = uint32(slot)
			return in.last, 0
		}
	}
	return 0, h >> 32 << 32
}

// keep remembers a new string. The table stays half empty, and is given up
// where it is of no use.
func (in *intern) keep(code uint32, slot uint64) {
	if in.plain {
		return
	}
	in.plain = in.rows >= plainAfter && int(in.codes) > in.rows/8*7
	if 2*int(in.codes) > len(in.slots) {
		old := in.slots
		in.slots = make([]uint64, 2*len(old))
		for _, slot := range old {
			in.put(slot)
		}
	}
	in.put(slot | uint64(code))
}

func (in *intern) put(slot uint64) {
	if slot == 0 {
		return
	}
	mask := uint64(len(in.slots) - 1)
	at := slot >> 32 & mask
	for in.slots[at] != 0 {
		at = (at + 1) & mask
	}
	in.slots[at] = slot
}

// equal is for short strings, to which a call costs more than the comparison.
func equal(a, b []byte) bool {
	n := len(a)
	if n != len(b) {
		return false
	}
	if n < 8 || n > 16 {
		return string(a) == string(b)
	}
	return binary.LittleEndian.Uint64(a) == binary.LittleEndian.Uint64(b) &&
		binary.LittleEndian.Uint64(a[n-8:]) == binary.LittleEndian.Uint64(b[n-8:])
}

// seed makes hashes that nobody foresees: others choose the strings.
type seed struct {
	short [2]uint64
	long  maphash.Seed
}

func newSeed() seed { return seed{[2]uint64{rand.Uint64(), rand.Uint64()}, maphash.MakeSeed()} }

func (d *seed) hash(s []byte) uint64 {
	var x, y uint64
	n := len(s)
	switch {
	case n > 32:
		return maphash.Bytes(d.long, s)
	case n > 16:
		high, low := bits.Mul64(binary.LittleEndian.Uint64(s)^d.short[0], binary.LittleEndian.Uint64(s[8:])^d.short[1])
		x, y = binary.LittleEndian.Uint64(s[n-16:])^high, binary.LittleEndian.Uint64(s[n-8:])^low
	case n >= 8:
		x, y = binary.LittleEndian.Uint64(s), binary.LittleEndian.Uint64(s[n-8:])
	case n >= 4:
		x, y = uint64(binary.LittleEndian.Uint32(s)), uint64(binary.LittleEndian.Uint32(s[n-4:]))
	default:
		x = uint64(s[0])<<16 | uint64(s[n/2])<<8 | uint64(s[n-1])
	}
	high, low := bits.Mul64(x^d.short[0], y^d.short[1]^uint64(n))
	return high ^ low
}

func (d *dict) cell(code uint32) []byte {
	return d.data[d.ends[code-1]:d.ends[code]]
}

// push adds a string to the dictionary.
func (b *block) push(column int, s []byte) uint32 {
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
	return code
}

func (b *block) growDict(column, more int) *dict {
	old := b.columns.Load()
	in := &b.intern[column]
	c := &columns{ints: old.ints, codes: old.codes, dicts: slices.Clone(old.dicts)}
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
	v := &blockView{schema: b.schema, from: from, n: int(b.rows.Load()), seq: b.seq, oldest: b.oldest.Load(), newest: b.newest.Load()}
	v.columns = b.columns.Load()
	return v
}

// blockView is the rows from..n of a block.
type blockView struct {
	schema         *segment.Schema
	columns        *columns
	seq            uint64
	from, n        int
	oldest, newest int64
}

func (v *blockView) Extent() segment.Extent {
	return segment.Extent{Seq: v.seq + uint64(v.from), Len: v.n - v.from, Oldest: v.oldest, Newest: v.newest}
}

func (v *blockView) Bounds(int) (low, high int64, ok bool) { return 0, 0, false }

// Void tells that no row of the block has a value in the column.
func (v *blockView) Void(column int) bool {
	return v.columns.ints[column] == nil && v.columns.codes[column] == nil
}

// Full is not known.
func (v *blockView) Full(int) bool { return false }

func (v *blockView) Column(column int, b *segment.Buffer) (segment.Vector, error) {
	if v.Void(column) {
		c := voidColumn(v.schema.IsInt(column))
		return c.unpack(0, v.n-v.from, b), nil
	}
	if ints := v.columns.ints[column]; ints != nil {
		return segment.Vector{Ints: ints[v.from:v.n]}, nil
	}
	codes := v.columns.codes[column][v.from:v.n]
	var most uint32
	for _, c := range codes {
		most = max(most, c)
	}
	return segment.Vector{Codes: codes, Dict: v.dict(column, most)}, nil
}

// dict returns as much of a dictionary as rows use whose greatest code is most.
// Codes are given in order, so everything below is filled.
func (v *blockView) dict(column int, most uint32) segment.Dict {
	d := &v.columns.dicts[column]
	return segment.Dict{Data: d.data, Ends: d.ends[:most+1]}
}

// pack returns a column with its numbers packed into memory, if that is enough.
func (v *blockView) pack(column int, memory []byte) packedColumn {
	if v.Void(column) {
		return voidColumn(v.schema.IsInt(column))
	}
	if ints := v.columns.ints[column]; ints != nil {
		return packedColumn{cells: segment.PackInts(ints[v.from:v.n], memory)}
	}
	cells, most := segment.PackCodes(v.columns.codes[column][v.from:v.n], memory)
	return packedColumn{cells: cells, dict: v.dict(column, most)}
}

// noEnds are the ends of an empty dictionary.
var noEnds = []uint32{0}

func voidColumn(ints bool) packedColumn {
	if ints {
		return packedColumn{cells: segment.PackInts(nil, nil)}
	}
	none, _ := segment.PackCodes(nil, nil)
	return packedColumn{cells: none, dict: segment.Dict{Ends: noEnds}}
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
		p.columns[i] = v.pack(i, nil).kept()
		p.size += p.columns[i].size()
	}
	return p
}

func packColumn(v *segment.Vector) packedColumn {
	if v.Ints != nil {
		return packedColumn{cells: segment.PackInts(v.Ints, nil)}
	}
	cells, _ := segment.PackCodes(v.Codes, nil)
	return packedColumn{cells: cells, dict: v.Dict}.kept()
}

// kept returns the column with a dictionary of its own.
func (c packedColumn) kept() packedColumn {
	if n := c.dict.Len(); n > 1 {
		c.dict = segment.Dict{Data: bytes.Clone(c.dict.Data[:c.dict.Ends[n-1]]), Ends: slices.Clone(c.dict.Ends)}
	}
	return c
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

// pack returns a column as it is.
func (p *packed) pack(column int, _ []byte) packedColumn { return p.columns[column] }

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

func (t packedTail) pack(column int, _ []byte) packedColumn {
	c := t.columns[column]
	c.cells = c.cells.From(t.skip)
	return c
}

func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
