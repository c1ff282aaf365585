package segment

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/parquet-go/parquet-go"

	"ghostlight/internal/event"
)

// readBytes is read from a file at a time.
const readBytes = 32 << 10

// Cache keeps the parsed footers of the files that were read last, which
// otherwise cost a millisecond each time. Only readers take its lock.
type Cache struct {
	lock  sync.Mutex
	files []*File // the one used last comes last
	limit int
}

// NewCache returns a cache for n files.
func NewCache(n int) *Cache { return &Cache{limit: n} }

// File is a Parquet file of rows of one table. It is safe for many readers.
type File struct {
	Path    string
	Size    int64
	Groups  []Extent // its row groups
	Extent           // of all of them
	Merged  bool     // its rows were in other files before
	Foreign bool     // it has columns the table has not

	schema *Schema
	cache  *Cache
	disk   *os.File
	footer *footer // of cache.lock
}

// footer is what is parsed of a file.
type footer struct {
	file *parquet.File
	leaf []int // by column of the table: its first leaf, -1 if it is not there
}

// Open reads what is needed to find a file's rows.
func Open(path string, s *Schema, cache *Cache) (*File, error) {
	disk, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f := &File{Path: path, schema: s, cache: cache, disk: disk}
	if err := f.check(); err != nil {
		disk.Close()
		return nil, fmt.Errorf("read segment %s: %w", path, err)
	}
	return f, nil
}

func (f *File) check() error {
	info, err := f.disk.Stat()
	if err != nil {
		return err
	}
	f.Size = info.Size()
	foot, err := f.parse()
	if err != nil {
		return err
	}
	f.Groups, err = decodeGroups(foot.file)
	if err != nil {
		return err
	}
	f.Extent = whole(f.Groups)
	_, f.Merged = foot.file.Lookup(keyMerged)
	f.Foreign = foot.foreign(f.schema)
	return nil
}

func whole(groups []Extent) Extent {
	all := groups[0]
	for _, g := range groups[1:] {
		all.Len += g.Len
		all.Oldest, all.Newest = min(all.Oldest, g.Oldest), max(all.Newest, g.Newest)
	}
	return all
}

// Next returns the number after the file's last row: numbers may skip between
// row groups.
func (f *File) Next() uint64 { return f.Groups[len(f.Groups)-1].Next() }

// Close closes the file.
func (f *File) Close() error {
	f.cache.forget(f)
	return f.disk.Close()
}

var errGroups = errors.New("its row groups are not those its metadata tell")

func decodeGroups(p *parquet.File) ([]Extent, error) {
	text, _ := p.Lookup(keyGroups)
	b, err := hex.DecodeString(text)
	if err != nil || len(b) == 0 || len(b) != 24*len(p.RowGroups()) {
		return nil, errGroups
	}
	groups := make([]Extent, len(p.RowGroups()))
	for i, g := range p.RowGroups() {
		groups[i] = Extent{
			Seq:    binary.BigEndian.Uint64(b[24*i:]),
			Oldest: int64(binary.BigEndian.Uint64(b[24*i+8:])),
			Newest: int64(binary.BigEndian.Uint64(b[24*i+16:])),
			Len:    int(g.NumRows()),
		}
		if groups[i].Len <= 0 || groups[i].Len > 1<<24 || i > 0 && groups[i].Seq < groups[i-1].Next() {
			return nil, errGroups
		}
	}
	return groups, nil
}

// parse opens the Parquet file. Footers are untrusted bytes, and the library
// panics on some of them.
func (f *File) parse() (foot *footer, err error) {
	defer caught(&err)
	p, err := parquet.OpenFile(f.disk, f.Size, &parquet.FileConfig{
		SkipPageIndex: true, SkipBloomFilters: true, ReadBufferSize: readBytes, ReadMode: parquet.ReadModeSync, OptimisticRead: false,
	})
	if err != nil {
		return nil, err
	}
	foot = &footer{file: p, leaf: make([]int, len(f.schema.SQL))}
	for i := range foot.leaf {
		foot.leaf[i] = f.schema.find(p.Schema(), i)
	}
	return foot, nil
}

// foreign tells whether the file has columns that are not read.
func (foot *footer) foreign(s *Schema) bool {
	known := 0
	for i, leaf := range foot.leaf {
		if leaf < 0 {
			continue
		}
		if known++; s.Table.Columns[i].Type == event.Map {
			known++
		}
	}
	return known != len(foot.file.Schema().Columns())
}

// find returns the first leaf of a column if it has the right shape.
func (s *Schema) find(p *parquet.Schema, column int) int {
	name := s.SQL[column]
	path := []string{name}
	want := parquet.ByteArray
	switch s.Table.Columns[column].Type {
	case event.Strings:
		path = []string{name, "list", "element"}
	case event.Map:
		path = []string{name, "key_value", "key"}
	case event.Bool:
		want = parquet.Boolean
	case event.Int, event.Time, event.Duration:
		want = parquet.Int64
	}
	leaf, ok := p.Lookup(path...)
	if !ok || leaf.Node.Type().Kind() != want {
		return -1
	}
	return leaf.ColumnIndex
}

func caught(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("not a sound Parquet file: %v", r)
	}
}

// open returns the parsed footer, from the cache if it is there.
func (f *File) open() (*footer, error) {
	c := f.cache
	c.lock.Lock()
	defer c.lock.Unlock()
	if f.footer == nil {
		foot, err := f.parse()
		if err != nil {
			return nil, fmt.Errorf("read segment %s: %w", f.Path, err)
		}
		f.footer = foot
	}
	c.use(f)
	return f.footer, nil
}

func (c *Cache) use(f *File) {
	for i, other := range c.files {
		if other == f {
			copy(c.files[i:], c.files[i+1:])
			c.files[len(c.files)-1] = f
			return
		}
	}
	if len(c.files) >= c.limit {
		c.files[0].footer = nil
		copy(c.files, c.files[1:])
		c.files = c.files[:len(c.files)-1]
	}
	c.files = append(c.files, f)
}

func (c *Cache) forget(f *File) {
	c.lock.Lock()
	defer c.lock.Unlock()
	f.footer = nil
	for i, other := range c.files {
		if other == f {
			c.files = append(c.files[:i], c.files[i+1:]...)
			return
		}
	}
}

// Group returns a row group as a source.
func (f *File) Group(i int) Source { return &group{f, i} }

type group struct {
	file  *File
	index int
}

func (g *group) Extent() Extent { return g.file.Groups[g.index] }

func (g *group) chunk(column int) (parquet.ColumnChunk, []parquet.ColumnChunk, error) {
	foot, err := g.file.open()
	if err != nil {
		return nil, nil, err
	}
	if foot.leaf[column] < 0 {
		return nil, nil, nil
	}
	all := foot.file.RowGroups()[g.index].ColumnChunks()
	return all[foot.leaf[column]], all, nil
}

func (g *group) Bounds(column int) (low, high int64, ok bool) {
	if t := g.file.schema.Table.Columns[column].Type; !IsInt(t) || t == event.Bool {
		return 0, 0, false
	}
	chunk, _, err := g.chunk(column)
	if err != nil || chunk == nil {
		return 0, 0, false
	}
	c, ok := chunk.(*parquet.FileColumnChunk)
	if !ok {
		return 0, 0, false
	}
	least, most, ok := c.Bounds()
	if !ok || least.IsNull() || most.IsNull() {
		return 0, 0, false
	}
	return least.Int64(), most.Int64(), true
}

// Full and Void tell a writer what it need not read.
func (g *group) Full(column int) bool {
	chunk, _, err := g.chunk(column)
	c, ok := chunk.(*parquet.FileColumnChunk)
	return err == nil && ok && c.Node().Required()
}

func (g *group) Void(column int) bool {
	chunk, _, err := g.chunk(column)
	return err == nil && (chunk == nil || nothing(chunk))
}

func (g *group) Column(column int, b *Buffer) (v Vector, err error) {
	defer caught(&err)
	n := g.Extent().Len
	chunk, all, err := g.chunk(column)
	if err != nil {
		return v, err
	}
	r := reader{n: n, b: b}
	t := g.file.schema.Table.Columns[column].Type
	if IsInt(t) {
		r.startInts()
		if chunk != nil && !nothing(chunk) {
			err = r.pages(chunk, r.intPage)
		}
		return Vector{Ints: r.b.Ints}, r.done(err, chunk)
	}
	r.startCodes()
	switch {
	case chunk == nil || nothing(chunk):
	case t == event.String:
		err = r.pages(chunk, r.stringPage)
	case t == event.Strings:
		err = r.lists(chunk)
	default:
		err = r.maps(chunk, all[chunk.Column()+1])
	}
	return Vector{Codes: r.b.Codes, Dict: Dict{r.b.Data, r.b.Ends}}, r.done(err, chunk)
}

// nothing tells whether all cells of a chunk are null.
func nothing(chunk parquet.ColumnChunk) bool {
	c, ok := chunk.(*parquet.FileColumnChunk)
	return ok && c.NumValues() > 0 && c.NullCount() == c.NumValues()
}

// reader decodes the pages of one column chunk into a buffer.
type reader struct {
	n, row int
	b      *Buffer
	dict   uint32 // first code of the chunk's dictionary, 0 if it was not read
}

func (r *reader) startInts() {
	r.b.Ints = resized(r.b.Ints, r.n)
	for i := range r.b.Ints {
		r.b.Ints[i] = event.Null
	}
}

func (r *reader) startCodes() {
	r.b.Codes = resized(r.b.Codes, r.n)
	clear(r.b.Codes)
	r.b.Data, r.b.Ends = r.b.Data[:0], append(r.b.Ends[:0], 0)
}

func resized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

func (r *reader) done(err error, chunk parquet.ColumnChunk) error {
	if err == nil && chunk != nil && r.row != r.n && r.row != 0 {
		return errShort
	}
	return err
}

func (r *reader) pages(chunk parquet.ColumnChunk, each func(parquet.Page) error) error {
	pages := chunk.Pages()
	defer pages.Close()
	for {
		p, err := pages.ReadPage()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		err = each(p)
		parquet.Release(p)
		if err != nil {
			return err
		}
	}
}

func (r *reader) intPage(p parquet.Page) error {
	rows := int(p.NumRows())
	if r.row+rows > r.n {
		return errShort
	}
	out := r.b.Ints[r.row : r.row+rows]
	r.row += rows
	data := p.Data()
	at := 0
	levels := p.DefinitionLevels()
	present := func(i int) bool { return len(levels) == 0 || levels[i] != 0 }
	switch d := p.Dictionary(); {
	case d != nil:
		values := d.Page().Data()
		ints, codes := values.Int64(), data.Int32()
		for i := range out {
			if present(i) {
				out[i] = ints[codes[at]]
				at++
			}
		}
	case p.Type().Kind() == parquet.Boolean:
		bits := data.Boolean()
		for i := range out {
			if present(i) {
				out[i] = int64(bits[at/8]>>(at%8)) & 1
				at++
			}
		}
	case len(levels) == 0:
		copy(out, data.Int64())
	default:
		ints := data.Int64()
		for i := range out {
			if levels[i] != 0 {
				out[i] = ints[at]
				at++
			}
		}
	}
	return nil
}

// codesOf returns the code of each value of a page that is not null.
func (r *reader) codesOf(p parquet.Page) func(i int) uint32 {
	data := p.Data()
	if d := p.Dictionary(); d != nil {
		if r.dict == 0 {
			values := d.Page().Data()
			r.dict = r.addAll(values.ByteArray())
		}
		indexes, first := data.Int32(), r.dict
		return func(i int) uint32 { return first + uint32(indexes[i]) }
	}
	first := r.addAll(data.ByteArray())
	return func(i int) uint32 { return first + uint32(i) }
}

// addAll adds strings to the dictionary and returns the code of the first.
func (r *reader) addAll(data []byte, offsets []uint32) uint32 {
	first := uint32(len(r.b.Ends))
	if len(offsets) == 0 {
		return first
	}
	base := uint32(len(r.b.Data)) - offsets[0]
	r.b.Data = append(r.b.Data, data[offsets[0]:offsets[len(offsets)-1]]...)
	for _, o := range offsets[1:] {
		r.b.Ends = append(r.b.Ends, base+o)
	}
	return first
}

func (r *reader) stringPage(p parquet.Page) error {
	rows := int(p.NumRows())
	if r.row+rows > r.n {
		return errShort
	}
	code := r.codesOf(p)
	out := r.b.Codes[r.row : r.row+rows]
	r.row += rows
	levels := p.DefinitionLevels()
	at := 0
	for i := range out {
		if len(levels) == 0 || levels[i] != 0 {
			out[i] = code(at)
			at++
		}
	}
	return nil
}

// lists joins the elements of each row into one cell.
func (r *reader) lists(chunk parquet.ColumnChunk) error {
	items := reader{n: r.n, b: &Buffer{}}
	items.startCodes()
	row := -1
	err := items.elements(chunk, func(newRow bool, code uint32, some bool) error {
		if newRow {
			if row++; row >= r.n {
				return errShort
			}
		}
		if row < 0 || !some {
			return nil
		}
		r.extend(row, newRow, items.cell(code))
		return nil
	})
	r.row = row + 1
	return err
}

// maps joins keys and values of each row into one cell.
func (r *reader) maps(keys, values parquet.ColumnChunk) error {
	type item struct {
		code uint32
		some bool
		row  bool
	}
	k := reader{n: r.n, b: &Buffer{}}
	k.startCodes()
	var all []item
	err := k.elements(keys, func(newRow bool, code uint32, some bool) error {
		all = append(all, item{code, some, newRow})
		return nil
	})
	if err != nil {
		return err
	}
	v := reader{n: r.n, b: &Buffer{}}
	v.startCodes()
	row, at := -1, 0
	err = v.elements(values, func(newRow bool, code uint32, some bool) error {
		if at >= len(all) || all[at].row != newRow || all[at].some != some {
			return errShort
		}
		key := all[at]
		at++
		if newRow {
			if row++; row >= r.n {
				return errShort
			}
		}
		if row < 0 || !some {
			return nil
		}
		r.extend(row, newRow, k.cell(key.code))
		r.extend(row, false, v.cell(code))
		return nil
	})
	r.row = row + 1
	return err
}

func (r *reader) cell(code uint32) []byte {
	d := Dict{r.b.Data, r.b.Ends}
	return d.Cell(code)
}

// extend adds an element to the newest cell, or begins it.
func (r *reader) extend(row int, first bool, item []byte) {
	if first {
		r.b.Ends = append(r.b.Ends, uint32(len(r.b.Data)))
		r.b.Codes[row] = uint32(len(r.b.Ends) - 1)
	} else {
		r.b.Data = append(r.b.Data, 0)
	}
	r.b.Data = append(r.b.Data, item...)
	r.b.Ends[len(r.b.Ends)-1] = uint32(len(r.b.Data))
}

// elements calls each for every element of a repeated column, and once for a
// row without any.
func (r *reader) elements(chunk parquet.ColumnChunk, each func(newRow bool, code uint32, some bool) error) error {
	return r.pages(chunk, func(p parquet.Page) error {
		code := r.codesOf(p)
		again, defined := p.RepetitionLevels(), p.DefinitionLevels()
		if len(again) != len(defined) {
			return errShort
		}
		at := 0
		for i := range defined {
			if defined[i] < 2 {
				if err := each(again[i] == 0, 0, false); err != nil {
					return err
				}
				continue
			}
			if err := each(again[i] == 0, code(at), true); err != nil {
				return err
			}
			at++
		}
		return nil
	})
}
