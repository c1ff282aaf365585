package segment

import (
	"encoding/binary"
	"math/bits"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"ghostlight/internal/event"
)

// Pages as https://parquet.apache.org/docs/file-format tells: of a column and
// row group at most one dictionary, then data pages (version 2).

// pageBytes of strings that have no dictionary make a page.
const pageBytes = 128 << 10

// leastCompressed is the size from which zstd is tried.
const leastCompressed = 32

// tellingBytes make a page that tells of the column's other pages too.
const tellingBytes = 4 << 10

// deltas has no state.
var deltas delta.BinaryPackedEncoding

// newEncoder returns one whose memory is of the size of a page.
func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(pageBytes),
		zstd.WithZeroFrames(true), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
}

// levels tell where values are absent and, in lists, where rows begin.
type levels struct {
	again   []byte // repetition; empty where no column repeats
	defined []byte // empty where none can be absent
}

func (l *levels) reset() { l.again, l.defined = l.again[:0], l.defined[:0] }

// chunk is the column chunk that is being written.
type chunk struct {
	leaf   *leaf
	meta   format.ColumnMetaData
	levels []byte // encoded
	again  int    // bytes of levels that are repetition levels
	plain  []byte // of the page
	packed []byte // of a part of it: lengths, levels, compressed
	header thriftBuffer
	zstd   *zstd.Encoder
	length []int32
}

// thriftBuffer is what an encoder writes to.
type thriftBuffer struct {
	bytes   []byte
	encoder *thrift.Encoder
}

func (b *thriftBuffer) Write(p []byte) (int, error) {
	b.bytes = append(b.bytes, p...)
	return len(p), nil
}

// encode returns the bytes of a Thrift struct until the next call.
func (b *thriftBuffer) encode(v any) ([]byte, error) {
	if b.encoder == nil {
		b.encoder = thrift.NewEncoder(new(thrift.CompactProtocol).NewWriter(b))
	}
	b.bytes = b.bytes[:0]
	err := b.encoder.Encode(v)
	return b.bytes, err
}

// begin begins a chunk of a leaf.
func (f *writer) begin(leaf int) *chunk {
	c := &f.chunk
	c.leaf = &f.leaves[leaf]
	c.meta = format.ColumnMetaData{
		Type: c.leaf.kind, PathInSchema: c.leaf.path, Codec: format.Zstd, DataPageOffset: f.offset,
	}
	return c
}

// end adds the chunk to the row group.
func (f *writer) end() {
	g := &f.groups[len(f.groups)-1]
	g.Columns = append(g.Columns, format.ColumnChunk{MetaData: f.chunk.meta})
	g.TotalByteSize += f.chunk.meta.TotalUncompressedSize
	g.TotalCompressedSize += f.chunk.meta.TotalCompressedSize
}

// void writes the chunk of a column without any value: one page of levels.
func (f *writer) void(leaf, rows int) error {
	c := f.begin(leaf)
	c.levels, c.again = c.levels[:0], 0
	if c.leaf.repeated {
		c.levels = appendRun(c.levels, rows)
		c.again = len(c.levels)
	}
	c.levels = appendRun(c.levels, rows)
	c.plain = c.plain[:0]
	err := f.page(format.Plain, rows, rows, rows)
	f.end()
	return err
}

// appendRun appends n levels of 0.
func appendRun(b []byte, n int) []byte { return append(binary.AppendUvarint(b, uint64(n)<<1), 0) }

// level encodes levels of values from..to.
func (c *chunk) level(l *levels, from, to int) (err error) {
	c.levels, c.again = c.levels[:0], 0
	if len(l.again) > 0 {
		if err := c.appendLevels(l.again[from:to], 1); err != nil {
			return err
		}
		c.again = len(c.levels)
		return c.appendLevels(l.defined[from:to], 2)
	}
	if len(l.defined) > 0 {
		return c.appendLevels(l.defined[from:to], 1)
	}
	return nil
}

func (c *chunk) appendLevels(levels []byte, width int) (err error) {
	e := rle.Encoding{BitWidth: width}
	c.packed, err = e.EncodeLevels(c.packed, levels)
	c.levels = append(c.levels, c.packed...)
	return err
}

// page writes c.levels and c.plain as a data page.
func (f *writer) page(encoding format.Encoding, values, nulls, rows int) error {
	c := &f.chunk
	body, compressed := c.compress()
	h := format.PageHeader{
		Type:                 format.DataPageV2,
		UncompressedPageSize: int32(len(c.levels) + len(c.plain)),
		CompressedPageSize:   int32(len(c.levels) + len(body)),
		DataPageHeaderV2: thrift.New(format.DataPageHeaderV2{
			NumValues: int32(values), NumNulls: int32(nulls), NumRows: int32(rows), Encoding: encoding,
			RepetitionLevelsByteLength: int32(c.again), DefinitionLevelsByteLength: int32(len(c.levels) - c.again),
			IsCompressed: thrift.New(compressed),
		}),
	}
	c.meta.NumValues += int64(values)
	c.meta.Statistics.NullCount += int64(nulls)
	c.encoded(encoding)
	return f.add(&h, c.levels, body)
}

// compress returns the body of the page, compressed where that saves a tenth:
// readers pay for it too. A column of which a page did not is not tried again
// in this file.
func (c *chunk) compress() (body []byte, compressed bool) {
	if len(c.plain) < leastCompressed || c.leaf.dense {
		return c.plain, false
	}
	c.packed = c.zstd.EncodeAll(c.plain, c.packed[:0])
	if 10*len(c.packed) > 9*len(c.plain) {
		c.leaf.dense = len(c.plain) >= tellingBytes
		return c.plain, false
	}
	return c.packed, true
}

// dictionary writes c.plain as the dictionary page.
func (f *writer) dictionary(n int) (err error) {
	c := &f.chunk
	c.packed = c.zstd.EncodeAll(c.plain, c.packed[:0])
	h := format.PageHeader{
		Type:                 format.DictionaryPage,
		UncompressedPageSize: int32(len(c.plain)),
		CompressedPageSize:   int32(len(c.packed)),
		DictionaryPageHeader: thrift.New(format.DictionaryPageHeader{NumValues: int32(n), Encoding: format.Plain}),
	}
	c.meta.DictionaryPageOffset = f.offset
	c.encoded(format.Plain)
	err = f.add(&h, nil, c.packed)
	c.meta.DataPageOffset = f.offset
	return err
}

func (c *chunk) encoded(e format.Encoding) {
	for _, other := range c.meta.Encoding {
		if other == e {
			return
		}
	}
	c.meta.Encoding = append(c.meta.Encoding, e)
}

// add writes a page.
func (f *writer) add(h *format.PageHeader, levels, body []byte) error {
	header, err := f.chunk.header.encode(h)
	if err != nil {
		return err
	}
	f.write(header)
	f.write(levels)
	f.write(body)
	f.chunk.meta.TotalUncompressedSize += int64(len(header)) + int64(h.UncompressedPageSize)
	f.chunk.meta.TotalCompressedSize += int64(len(header)) + int64(h.CompressedPageSize)
	return nil
}

// numbers writes the cells of f.ints.
func (f *writer) numbers(leaf int, t event.Type, required bool) error {
	rows := len(f.ints)
	low, high, nulls := intBounds(f.ints)
	if nulls == rows {
		return f.void(leaf, rows)
	}
	c := f.begin(leaf)
	f.levels.reset()
	if !required {
		f.ints = f.presentInts(nulls)
	}
	if err := c.level(&f.levels, 0, len(f.levels.defined)); err != nil {
		return err
	}
	if t != event.Bool {
		c.meta.Statistics.MinValue = binary.LittleEndian.AppendUint64(nil, uint64(low))
		c.meta.Statistics.MaxValue = binary.LittleEndian.AppendUint64(nil, uint64(high))
	}
	encoding, err := f.encodeInts(t)
	if err == nil {
		err = f.page(encoding, rows, nulls, rows)
	}
	f.end()
	return err
}

// presentInts makes the levels and returns the cells that have a value.
func (f *writer) presentInts(nulls int) []int64 {
	defined := sized(f.levels.defined, len(f.ints))
	f.levels.defined = defined
	if nulls == 0 {
		for i := range defined {
			defined[i] = 1
		}
		return f.ints
	}
	n := 0
	for i, v := range f.ints {
		defined[i] = 0
		if v != event.Null {
			defined[i] = 1
			f.ints[n] = v
			n++
		}
	}
	return f.ints[:n]
}

// encodeInts puts f.ints into c.plain, and their dictionary into the file if
// they have one.
func (f *writer) encodeInts(t event.Type) (encoding format.Encoding, err error) {
	c := &f.chunk
	if t == event.Bool {
		c.plain = appendBits(c.plain[:0], f.ints)
		return format.Plain, nil
	}
	f.dense = sized(f.dense, len(f.ints))
	if t == event.Time || !f.repeat.index(f.ints, f.dense) {
		c.plain, err = deltas.EncodeInt64(c.plain, f.ints)
		return format.DeltaBinaryPacked, err
	}
	c.plain = c.plain[:0]
	for _, v := range f.repeat.values {
		c.plain = binary.LittleEndian.AppendUint64(c.plain, uint64(v))
	}
	if err := f.dictionary(len(f.repeat.values)); err != nil {
		return 0, err
	}
	return format.RLEDictionary, c.encodeCodes(f.dense, len(f.repeat.values))
}

func appendBits(b []byte, cells []int64) []byte {
	for i := 0; i < len(cells); i += 8 {
		var eight byte
		for bit, v := range cells[i:min(i+8, len(cells))] {
			eight |= byte(v&1) << bit
		}
		b = append(b, eight)
	}
	return b
}

// encodeCodes puts codes of a dictionary of n entries into c.plain.
func (c *chunk) encodeCodes(codes []int32, n int) (err error) {
	e := rle.Encoding{BitWidth: max(1, bits.Len(uint(n-1)))}
	c.packed, err = e.EncodeInt32(c.packed, codes)
	c.plain = append(append(c.plain[:0], byte(e.BitWidth)), c.packed...)
	return err
}

// strings writes a column of strings: one dictionary for all sources, or pages
// of each where they hardly repeat.
func (f *writer) strings(leaf int, required, repeats bool) error {
	if repeats {
		f.merge()
		f.present(f.codes, required)
		return f.texts(leaf, &f.dict.Dict, true)
	}
	c := f.begin(leaf)
	defer f.end()
	for i := range f.vectors {
		f.present(f.vectors[i].Codes, required)
		if err := f.plainTexts(c, &f.vectors[i].Dict); err != nil {
			return err
		}
	}
	return nil
}

// present makes the levels and f.dense of codes.
func (f *writer) present(codes []uint32, required bool) {
	f.levels.reset()
	f.dense = sized(f.dense, len(codes))
	if required {
		for i, code := range codes {
			f.dense[i] = int32(code) - 1
		}
		return
	}
	f.levels.defined = sized(f.levels.defined, len(codes))
	n := 0
	for i, code := range codes {
		f.dense[n] = int32(code) - 1
		some := min(code, 1)
		f.levels.defined[i] = byte(some)
		n += int(some)
	}
	f.dense = f.dense[:n]
}

// elements writes one half of the parts of the cells of f.codes: definition 0
// no list, 2 an element; repetition 1 goes on.
func (f *writer) elements(leaf, half int) error {
	f.levels.reset()
	f.dense = f.dense[:0]
	for _, code := range f.codes {
		all := f.parts.of(half, code)
		if len(all) == 0 {
			f.levels.again = append(f.levels.again, 0)
			f.levels.defined = append(f.levels.defined, 0)
		}
		var again byte
		for _, element := range all {
			f.dense = append(f.dense, element-1)
			f.levels.again = append(f.levels.again, again)
			f.levels.defined = append(f.levels.defined, 2)
			again = 1
		}
	}
	d := &f.parts[half].dict.Dict
	return f.texts(leaf, d, d.Len()-1 <= max(64, len(f.dense)/2))
}

// texts writes the strings f.dense are the codes of.
func (f *writer) texts(leaf int, d *Dict, dictionary bool) (err error) {
	if len(f.dense) == 0 {
		return f.void(leaf, len(f.codes))
	}
	c := f.begin(leaf)
	if dictionary {
		err = f.codedTexts(c, d)
	} else {
		err = f.plainTexts(c, d)
	}
	f.end()
	return err
}

func (f *writer) codedTexts(c *chunk, d *Dict) error {
	n := d.Len() - 1
	c.plain = c.plain[:0]
	for code := range n {
		cell := d.Cell(uint32(code + 1))
		c.plain = binary.LittleEndian.AppendUint32(c.plain, uint32(len(cell)))
		c.plain = append(c.plain, cell...)
	}
	if err := f.dictionary(n); err != nil {
		return err
	}
	if err := c.encodeCodes(f.dense, n); err != nil {
		return err
	}
	values := f.values()
	if err := c.level(&f.levels, 0, values); err != nil {
		return err
	}
	return f.page(format.RLEDictionary, values, values-len(f.dense), f.rowsOf(0, values))
}

// values returns how many levels there are, or values where there are none.
func (f *writer) values() int { return max(len(f.dense), len(f.levels.defined)) }

// rowsOf counts the rows that begin among levels from..to.
func (f *writer) rowsOf(from, to int) int {
	if len(f.levels.again) == 0 {
		return to - from
	}
	n := 0
	for _, again := range f.levels.again[from:to] {
		n += int(1 - again)
	}
	return n
}

// plainTexts writes strings that hardly repeat, some pages of them.
func (f *writer) plainTexts(c *chunk, d *Dict) error {
	all := f.values()
	value := 0
	for from := 0; from < all; {
		to, last, bytes := from, value, 0
		for ; to < all && (bytes < pageBytes || f.goesOn(to)); to++ {
			if f.hasValue(to) {
				bytes += len(d.Cell(uint32(f.dense[last] + 1)))
				last++
			}
		}
		if err := c.encodeTexts(f.dense[value:last], d); err != nil {
			return err
		}
		if err := c.level(&f.levels, from, to); err != nil {
			return err
		}
		if err := f.page(format.DeltaLengthByteArray, to-from, to-from-(last-value), f.rowsOf(from, to)); err != nil {
			return err
		}
		from, value = to, last
	}
	return nil
}

func (f *writer) hasValue(i int) bool { return len(f.levels.defined) == 0 || f.levels.defined[i] != 0 }

func (f *writer) goesOn(i int) bool { return len(f.levels.again) > 0 && f.levels.again[i] != 0 }

// encodeTexts puts lengths, then bytes, into c.plain.
func (c *chunk) encodeTexts(codes []int32, d *Dict) (err error) {
	c.length = sized(c.length, len(codes))
	for i, code := range codes {
		c.length[i] = int32(d.Ends[code+1] - d.Ends[code])
	}
	c.plain, err = deltas.EncodeInt32(c.plain, c.length)
	for _, code := range codes {
		c.plain = append(c.plain, d.Data[d.Ends[code]:d.Ends[code+1]]...)
	}
	return err
}
