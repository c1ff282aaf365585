package segment

import (
	"bytes"
	"hash/maphash"
)

// interned is a dictionary made of several.
type interned struct {
	Dict
	seed  maphash.Seed
	slots []uint32 // of codes: an open hash table, at most half full
	to    []uint32 // by code of the dictionary that was merged last
}

func (d *interned) reset() {
	d.Data, d.Ends = d.Data[:0], append(d.Ends[:0], 0)
	if d.slots == nil {
		d.seed, d.slots = maphash.MakeSeed(), make([]uint32, 64)
	}
	clear(d.slots)
}

// merge adds a dictionary; d.to then tells where its codes went.
func (d *interned) merge(more *Dict) {
	n := more.Len()
	d.to = sized(d.to, n)
	d.to[0] = 0
	for code := 1; code < n; code++ {
		d.to[code] = d.add(more.Data[more.Ends[code-1]:more.Ends[code]])
	}
}

// add returns the code of a string, which may be empty.
func (d *interned) add(s []byte) uint32 {
	if 2*d.Len() >= len(d.slots) {
		d.grow()
	}
	at := d.slot(s)
	if d.slots[at] == 0 {
		d.slots[at] = d.push(s)
	}
	return d.slots[at]
}

func (d *interned) push(s []byte) uint32 {
	d.Data = append(d.Data, s...)
	d.Ends = append(d.Ends, uint32(len(d.Data)))
	return uint32(len(d.Ends) - 1)
}

// slot returns the place of a string, or the free one where it belongs.
func (d *interned) slot(s []byte) uint64 {
	mask := uint64(len(d.slots) - 1)
	at := maphash.Bytes(d.seed, s) & mask
	for d.slots[at] != 0 && !bytes.Equal(d.Cell(d.slots[at]), s) {
		at = (at + 1) & mask
	}
	return at
}

func (d *interned) grow() {
	d.slots = make([]uint32, 2*len(d.slots))
	for code := 1; code < d.Len(); code++ {
		d.slots[d.slot(d.Cell(uint32(code)))] = uint32(code)
	}
}

// parts is what the cells of a list or map column are made of: by code of a
// cell, the codes of its elements. A map has two: of keys and of values.
type parts [2]struct {
	dict  interned
	codes []int32
	ends  []uint32 // by code of the cell
}

// split cuts the cells of a dictionary at NUL and deals the parts out in turn
// to the first ways halves.
func (p *parts) split(d *Dict, ways int) {
	for half := range ways {
		p[half].dict.reset()
		p[half].codes, p[half].ends = p[half].codes[:0], append(p[half].ends[:0], 0)
	}
	for code := 1; code < d.Len(); code++ {
		cell, more := d.Cell(uint32(code)), true
		for half := 0; more; half = (half + 1) % ways {
			var part []byte
			part, cell, more = bytes.Cut(cell, []byte{0})
			p[half].codes = append(p[half].codes, int32(p[half].dict.add(part)))
		}
		for half := range ways {
			if len(p[half].codes) < len(p[0].codes) { // a key without a value
				p[half].codes = append(p[half].codes, int32(p[half].dict.add(nil)))
			}
			p[half].ends = append(p[half].ends, uint32(len(p[half].codes)))
		}
	}
}

// of returns the codes of the elements of a cell.
func (p *parts) of(half int, code uint32) []int32 {
	if code == 0 {
		return nil
	}
	h := &p[half]
	return h.codes[h.ends[code-1]:h.ends[code]]
}

// intDict numbers the distinct values of a column of numbers while there are
// few of them.
type intDict struct {
	values []int64
	slots  [2 * mostRepeated]uint16 // 1 + index in values
}

// mostRepeated is the most distinct numbers a dictionary has.
const mostRepeated = 2048

const hashBits = 52 // 64 - log2(len(slots))

// index gives each value its number. It returns false as soon as there are too
// many: more than an eighth.
func (d *intDict) index(values []int64, codes []int32) bool {
	limit := min(max(16, len(values)/8), mostRepeated)
	d.values = d.values[:0]
	clear(d.slots[:])
	for i, v := range values {
		at := uint64(v) * 0x9e3779b97f4a7c15 >> hashBits
		for d.slots[at] != 0 && d.values[d.slots[at]-1] != v {
			at = (at + 1) % uint64(len(d.slots))
		}
		if d.slots[at] == 0 {
			if len(d.values) == limit {
				return false
			}
			d.values = append(d.values, v)
			d.slots[at] = uint16(len(d.values))
		}
		codes[i] = int32(d.slots[at] - 1)
	}
	return true
}
