package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

// Recovery says what Open found.
type Recovery struct {
	Rows      uint64   // read back from the log
	TornBytes int64    // cut from ends of the log: a crash while it was written
	TornFiles int      //
	Merged    int      // segments removed: a crash came after their rows were merged into another
	Broken    []string // files that cannot be read, set aside under these names
	LostRows  uint64   // rows of broken segments, as the gaps in the numbers tell
	Errors    []string // what could not be mended, for instance on a read-only disk
}

// Recovery returns what Open found.
func (s *Store) Recovery() Recovery { return s.recovery }

// recover loads the segments and reads the log of what had none.
func (s *Store) recover() {
	for _, t := range s.tables {
		files := s.loadSegments(t)
		t.replace(func(v *view) {
			v.files = files
			if n := len(files); n > 0 {
				v.current = newBlock(t.schema, files[n-1].Next())
			}
		})
	}
	paths, _ := filepath.Glob(filepath.Join(s.dir, "wal", "*.wal")) // the pattern is sound
	slices.Sort(paths)                                              // table by table, by number
	for _, path := range paths {
		s.replay(path)
	}
	s.countGaps()
	s.recovery.Errors = slices.Compact(s.recovery.Errors)
}

// loadSegments opens the segments of a table, oldest first.
func (s *Store) loadSegments(t *table) (files []*file) {
	folder := filepath.Join(s.dir, t.schema.Table.Name)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		switch filepath.Ext(path) {
		case ".tmp":
			s.note(os.Remove(path))
		case ".parquet":
			if f, err := segment.Open(path, t.schema, s.cache); err != nil {
				s.setAside(path, err)
			} else {
				files = append(files, &file{File: f})
			}
		}
	}
	slices.SortFunc(files, func(a, b *file) int { return cmp.Or(cmp.Compare(a.Seq, b.Seq), cmp.Compare(b.Next(), a.Next())) })
	return s.disjoint(files)
}

// disjoint sets aside a file whose rows another one has: a copy. It removes one
// whose rows were merged into another: a crash came between.
func (s *Store) disjoint(files []*file) (kept []*file) {
	for _, f := range files {
		if n := len(kept); n > 0 && f.Seq < kept[n-1].Next() {
			f.File.Close()
			if last := kept[n-1]; last.Merged && f.Next() <= last.Next() {
				s.note(os.Remove(f.Path))
				s.recovery.Merged++
				continue
			}
			s.setAside(f.Path, errors.New("another segment has its rows"))
			continue
		}
		kept = append(kept, f)
	}
	return kept
}

func (s *Store) note(err error) {
	if err != nil {
		s.recovery.Errors = append(s.recovery.Errors, err.Error())
	}
}

func (s *Store) setAside(path string, why error) {
	to := path + ".broken"
	s.options.Log.Warn("set a file aside", "file", to, "error", why)
	s.note(os.Rename(path, to))
	s.recovery.Broken = append(s.recovery.Broken, to)
}

// replay reads one file of the log back into memory.
func (s *Store) replay(path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		s.note(err)
		return
	}
	r := readLog(data, s.schemas())
	if r.schema == nil {
		s.replayFailed(path, data, r)
		return
	}
	t := s.table(r.schema.Table.Kind)
	torn := len(data) - r.whole
	if torn > 0 {
		s.recovery.TornBytes += int64(torn)
		s.recovery.TornFiles++
		s.note(os.Truncate(path, int64(r.whole)))
	}
	v := t.acquire()
	defer v.release()
	if r.rows == 0 || r.seq < v.next() {
		s.note(os.Remove(path)) // a crash came between the segment and the removal
		return
	}
	p := r.pack()
	t.replace(func(next *view) {
		next.packed = append(next.packed, p)
		next.current = newBlock(t.schema, p.extent.Next())
	})
	s.logs.adopt(logKey{t, r.seq}, path, r)
	s.recovery.Rows += uint64(r.rows)
}

// replayFailed deals with a file whose header cannot be read.
func (s *Store) replayFailed(path string, data []byte, r replayed) {
	if r.foreign {
		s.setAside(path, errors.New("not a log of this store, or its beginning is damaged"))
		return
	}
	s.recovery.TornBytes += int64(len(data))
	s.recovery.TornFiles++
	s.note(os.Remove(path))
}

func (s *Store) schemas() []*segment.Schema { return s.Tables() }

func (l *logs) adopt(key logKey, path string, r replayed) {
	if l.files == nil {
		l.files = map[logKey]*logFile{}
	}
	l.files[key] = &logFile{path: path, size: int64(r.whole), rows: r.rows}
}

// countGaps tells how many rows the broken segments had.
func (s *Store) countGaps() {
	if len(s.recovery.Broken) == 0 {
		return
	}
	for _, t := range s.tables {
		v := t.acquire()
		for i := 1; i < len(v.files); i++ {
			s.recovery.LostRows += v.files[i].Seq - v.files[i-1].Next()
		}
		v.release()
	}
	if s.recovery.LostRows > 0 {
		s.lose(int(s.recovery.LostRows))
	}
}

// replayed is a block as its log tells it.
type replayed struct {
	schema  *segment.Schema // nil: the header could not be read
	foreign bool            // the header is whole, but not of this store
	seq     uint64
	rows    int
	whole   int   // bytes that are whole records
	column  []int // of the schema, by column of the file; -1: not known here
	types   []event.Type
	ints    [][]int64 // by column of the file
	codes   [][]uint32
	dicts   []segment.Dict
}

// readLog reads as many whole records as there are. It never fails: what
// cannot be read is the torn end.
func readLog(data []byte, schemas []*segment.Schema) (r replayed) {
	payload, n := nextFrame(data)
	if n == 0 {
		r.foreign = len(data) >= frameBytes && len(data)-frameBytes >= int(binary.LittleEndian.Uint32(data))
		return r
	}
	if !r.header(payload, schemas) {
		r.foreign = true
		return r
	}
	r.whole = n
	for {
		payload, n := nextFrame(data[r.whole:])
		if n == 0 || !r.record(payload) {
			return r
		}
		r.whole += n
	}
}

// nextFrame returns the next payload and the bytes it takes with its frame, 0
// if there is no whole one. The payload has 8 readable bytes after it.
func nextFrame(data []byte) ([]byte, int) {
	if len(data) < frameBytes {
		return nil, 0
	}
	n := int(binary.LittleEndian.Uint32(data))
	if n > len(data)-frameBytes {
		return nil, 0
	}
	payload := data[frameBytes : frameBytes+n]
	sum := crc32.Update(crc32.Checksum(data[:4], castagnoli), castagnoli, payload)
	if sum != binary.LittleEndian.Uint32(data[4:]) {
		return nil, 0
	}
	return append(make([]byte, 0, n+8), payload...), frameBytes + n
}

func (r *replayed) header(b []byte, schemas []*segment.Schema) bool {
	rest, ok := strings.CutPrefix(string(b), logMagic)
	d := decoder{b: []byte(rest)}
	name := d.text()
	seq := d.uvarint()
	columns := d.uvarint()
	at := slices.IndexFunc(schemas, func(s *segment.Schema) bool { return s.Table.Name == string(name) })
	if !ok || d.bad || at < 0 || columns > 1<<12 {
		return false
	}
	schema := schemas[at]
	for range columns {
		name, t := d.text(), event.Type(d.byte())
		to, known := schema.Index[string(name)]
		if !known || schema.Table.Columns[to].Type != t {
			to = -1
		}
		r.column, r.types = append(r.column, to), append(r.types, t)
	}
	if d.bad {
		return false
	}
	r.schema, r.seq = schema, seq
	r.ints, r.codes = make([][]int64, columns), make([][]uint32, columns)
	r.dicts = make([]segment.Dict, columns)
	for i := range r.dicts {
		r.dicts[i].Ends = []uint32{0}
	}
	return true
}

// record adds the rows of one record, all or none.
func (r *replayed) record(b []byte) bool {
	d := decoder{b: b}
	first, n := d.uvarint(), int(d.uvarint())
	if d.bad || first != uint64(r.rows) || n <= 0 || n > mostRecord {
		return false
	}
	for i, t := range r.types {
		if segment.IsInt(t) {
			p := d.packed(n)
			if d.bad {
				return false
			}
			r.ints[i] = slices.Grow(r.ints[i][:r.rows], n)[:r.rows+n]
			p.Ints(r.ints[i][r.rows:])
			continue
		}
		if !r.strings(&d, i, n) {
			return false
		}
	}
	r.rows += n
	return true
}

func (r *replayed) strings(d *decoder, i, n int) bool {
	dict := &r.dicts[i]
	for more := d.uvarint(); more > 0 && !d.bad; more-- {
		dict.Data = append(dict.Data, d.text()...)
		dict.Ends = append(dict.Ends, uint32(len(dict.Data)))
	}
	p := d.packed(n)
	if d.bad {
		return false
	}
	r.codes[i] = slices.Grow(r.codes[i][:r.rows], n)[:r.rows+n]
	p.Codes(r.codes[i][r.rows:])
	return true
}

// pack makes the block of it, with the columns this store has.
func (r *replayed) pack() *packed {
	n := r.rows
	p := &packed{extent: segment.Extent{Seq: r.seq, Len: n}, opened: time.Now()}
	p.columns = make([]packedColumn, len(r.schema.Table.Columns))
	for i := range p.columns {
		from := slices.Index(r.column, i)
		p.columns[i] = r.packColumn(i, from)
		p.size += p.columns[i].size()
	}
	p.extent.Oldest, p.extent.Newest = timesOf(r, p)
	return p
}

func (r *replayed) packColumn(i, from int) packedColumn {
	switch {
	case r.schema.IsInt(i) && from >= 0:
		return packColumn(&segment.Vector{Ints: r.ints[from][:r.rows]})
	case r.schema.IsInt(i):
		return voidColumn(true)
	case from >= 0:
		return packColumn(&segment.Vector{Codes: r.codes[from][:r.rows], Dict: r.dicts[from]})
	}
	return voidColumn(false)
}

func timesOf(r *replayed, p *packed) (oldest, newest int64) {
	times := make([]int64, r.rows)
	p.columns[r.schema.Time].cells.Ints(times)
	return slices.Min(times), slices.Max(times)
}

// decoder reads the fields of a record. After the first one that is not there
// it is bad and gives zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	n, k := binary.Uvarint(d.b)
	if k <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[k:]
	return n
}

func (d *decoder) text() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	s := d.b[:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) packed(n int) segment.Packed {
	p, rest, err := segment.ReadPacked(d.b, n)
	if err != nil {
		d.bad = true
	}
	d.b = rest
	return p
}
