package query

import (
	"context"
	"errors"
	"math"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
)

// Key is a column rows are grouped by. A number is first rounded: divided by
// Divide, and multiplied again by Multiply, where these are not 0.
type Key struct {
	Column           int
	Divide, Multiply int64
}

// Function is what is worked out of a column for each group.
type Function uint8

// The functions. Rows without a value in the column are passed over.
const (
	CountRows Function = iota // no column
	Count
	Sum
	Min
	Max
	Avg
	Quantile
)

// Measure is a function of a column.
type Measure struct {
	Function Function
	Column   int
	Quantile float64
}

// Grouping says how matching rows are put together.
type Grouping struct {
	Keys     []Key
	Measures []Measure
	// MaxGroups bounds the memory; beyond it Aggregate gives ErrGroups.
	MaxGroups int
}

// Errors of Aggregate.
var (
	ErrGroups   = errors.New("query: more groups than the limit; group by something coarser or filter more")
	ErrOverflow = errors.New("integer overflow") // as SQLite says it
)

// Groups is the answer: by group, its keys and measures.
type Groups struct {
	Len      int
	Result   Result
	keys     []keyValues
	measures []measure
	of       [][]uint32 // by group: the number of each key's value; nil with one key
}

// Aggregate groups the matching rows. Without keys there is exactly one group,
// also of no rows.
func Aggregate(ctx context.Context, s *store.Snapshot, r Request, g Grouping) (*Groups, error) {
	schema := s.Schema(r.Kind)
	if schema == nil {
		return nil, ErrTable
	}
	a := newAggregation(schema, g)
	if a.countsOnly() {
		return a.count(ctx, s, r)
	}
	result, err := Each(ctx, s, r, a.add)
	if err != nil {
		return nil, err
	}
	return a.finish(result)
}

type aggregation struct {
	schema *segment.Schema
	g      Grouping
	out    Groups
	ids    []uint32 // by pick: the group
	more   []uint32
	local  []uint32
	pairs  []map[uint64]uint32 // by key after the first: (group so far, key) -> group
	paired [][]uint64          // the same, by group
}

func newAggregation(s *segment.Schema, g Grouping) *aggregation {
	a := &aggregation{schema: s, g: g}
	if g.MaxGroups <= 0 {
		a.g.MaxGroups = 50_000
	}
	for _, k := range g.Keys {
		a.out.keys = append(a.out.keys, newKeyValues(s, k))
	}
	for range max(0, len(g.Keys)-1) {
		a.pairs, a.paired = append(a.pairs, map[uint64]uint32{}), append(a.paired, nil)
	}
	for _, m := range g.Measures {
		a.out.measures = append(a.out.measures, measure{Measure: m, text: m.Function != CountRows && !s.IsInt(m.Column)})
	}
	if len(g.Keys) == 0 {
		a.grow(1)
	}
	return a
}

// countsOnly tells whether nothing but the number of all rows is wanted.
func (a *aggregation) countsOnly() bool {
	for _, m := range a.g.Measures {
		if m.Function != CountRows {
			return false
		}
	}
	return len(a.g.Keys) == 0
}

// count needs no column but those of the filter, and none where a run lies in
// the time range as a whole.
func (a *aggregation) count(ctx context.Context, s *store.Snapshot, r Request) (*Groups, error) {
	sc := newScan(s, r)
	for _, source := range sc.sources {
		if sc.countOnly(source.Extent(), math.MaxInt64) {
			continue
		}
		if _, err := sc.next(ctx, source); err != nil {
			return nil, err
		}
	}
	for i := range a.out.measures {
		a.out.measures[i].count[0] = int64(sc.result.Matched)
	}
	return a.finish(sc.result)
}

func (a *aggregation) finish(result Result) (*Groups, error) {
	a.out.Result = result
	for i := range a.out.measures {
		if a.out.measures[i].overflow {
			return nil, ErrOverflow
		}
	}
	return &a.out, nil
}

// grow makes room for n groups.
func (a *aggregation) grow(n int) {
	for i := range a.out.measures {
		a.out.measures[i].grow(n)
	}
	a.out.Len = n
}

// add puts the picked rows of a run into their groups.
func (a *aggregation) add(rows *segment.Rows, picks []int32) error {
	if err := a.group(rows, picks); err != nil {
		return err
	}
	for i := range a.out.measures {
		m := &a.out.measures[i]
		if m.Function == CountRows {
			for _, id := range a.ids {
				m.count[id]++
			}
			continue
		}
		v, err := rows.Column(m.Column)
		if err != nil {
			continue // the rows count as without a value; the scan tells of it
		}
		if m.text {
			m.addText(v, picks, a.ids)
		} else {
			m.addInts(v.Ints, picks, a.ids)
		}
	}
	return nil
}

// group finds the group of each picked row.
func (a *aggregation) group(rows *segment.Rows, picks []int32) error {
	a.ids = sized(a.ids, len(picks))
	if len(a.g.Keys) == 0 {
		clear(a.ids)
		return nil
	}
	for k := range a.out.keys {
		v, _ := rows.Column(a.g.Keys[k].Column) // unreadable cells are null
		if k == 0 {
			a.out.keys[k].number(v, picks, a.ids, &a.local)
			continue
		}
		a.more = sized(a.more, len(picks))
		a.out.keys[k].number(v, picks, a.more, &a.local)
		a.pair(k)
	}
	n := a.out.keys[0].len()
	if len(a.out.keys) > 1 {
		n = len(a.out.of)
	}
	if n > a.g.MaxGroups || a.tooMany() {
		return ErrGroups
	}
	a.grow(n)
	return nil
}

// tooMany tells whether what leads to the groups is beyond the limit.
func (a *aggregation) tooMany() bool {
	for i := range a.out.keys {
		if a.out.keys[i].len() > a.g.MaxGroups {
			return true
		}
	}
	for _, p := range a.pairs {
		if len(p) > a.g.MaxGroups {
			return true
		}
	}
	return false
}

// pair turns (group so far, value of key k) into groups.
func (a *aggregation) pair(k int) {
	pairs, last := a.pairs[k-1], k == len(a.out.keys)-1
	var was uint64
	var group uint32
	for i, id := range a.ids {
		both := uint64(id)<<32 | uint64(a.more[i])
		if i == 0 || both != was {
			var ok bool
			if group, ok = pairs[both]; !ok {
				group = uint32(len(pairs))
				pairs[both] = group
				a.paired[k-1] = append(a.paired[k-1], both)
				if last {
					a.out.of = append(a.out.of, a.parts(k, both))
				}
			}
			was = both
		}
		a.ids[i] = group
	}
}

// parts returns the values of all keys of a new group.
func (a *aggregation) parts(k int, both uint64) []uint32 {
	parts := make([]uint32, len(a.out.keys))
	parts[k] = uint32(both)
	left := uint32(both >> 32)
	for k--; k > 0; k-- {
		pair := a.paired[k-1][left]
		parts[k], left = uint32(pair), uint32(pair>>32)
	}
	parts[0] = left
	return parts
}

func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n+n/4)[:n]
	}
	return s[:n]
}

// keyValues numbers the distinct values of a key.
type keyValues struct {
	Key
	text   bool
	ints   []int64
	byInt  map[int64]uint32
	texts  []string
	byText map[string]uint32
}

func newKeyValues(s *segment.Schema, k Key) keyValues {
	return keyValues{Key: k, text: !s.IsInt(k.Column), byInt: map[int64]uint32{}, byText: map[string]uint32{}}
}

func (k *keyValues) len() int { return max(len(k.ints), len(k.texts)) }

func (k *keyValues) number(v *segment.Vector, picks []int32, ids []uint32, local *[]uint32) {
	if k.text {
		k.numberTexts(v, picks, ids, local)
		return
	}
	var was int64
	var id uint32
	for i, row := range picks {
		n := v.Ints[row]
		if i == 0 || n != was {
			was, id = n, k.int(n)
		}
		ids[i] = id
	}
}

func (k *keyValues) int(n int64) uint32 {
	if !isNull(n) && k.Divide != 0 {
		n /= k.Divide
		if k.Multiply != 0 {
			n *= k.Multiply
		}
	}
	id, ok := k.byInt[n]
	if !ok {
		id = uint32(len(k.ints))
		k.byInt[n], k.ints = id, append(k.ints, n)
	}
	return id
}

// numberTexts numbers each entry of the dictionary once.
func (k *keyValues) numberTexts(v *segment.Vector, picks []int32, ids []uint32, local *[]uint32) {
	*local = sized(*local, v.Dict.Len())
	known := *local
	clear(known)
	for i, row := range picks {
		code := v.Codes[row]
		if known[code] == 0 {
			known[code] = 1 + k.textID(v.Dict.Cell(code))
		}
		ids[i] = known[code] - 1
	}
}

func (k *keyValues) textID(cell []byte) uint32 {
	id, ok := k.byText[string(cell)]
	if !ok {
		id = uint32(len(k.texts))
		text := string(cell)
		k.byText[text], k.texts = id, append(k.texts, text)
	}
	return id
}

// measure is a function's state, by group.
type measure struct {
	Measure
	text     bool
	overflow bool
	count    []int64
	sum      []int64
	low      []int64
	texts    [][]byte
	hist     []Histogram
}

func (m *measure) grow(n int) {
	more := n - len(m.count)
	if more <= 0 {
		return
	}
	m.count = append(m.count, make([]int64, more)...)
	switch m.Function {
	case Sum, Avg:
		m.sum = append(m.sum, make([]int64, more)...)
	case Min, Max:
		m.low = append(m.low, make([]int64, more)...)
		if m.text {
			m.texts = append(m.texts, make([][]byte, more)...)
		}
	case Quantile:
		m.hist = append(m.hist, make([]Histogram, more)...)
	}
}

func (m *measure) addInts(cells []int64, picks []int32, ids []uint32) {
	for i, row := range picks {
		n, id := cells[row], ids[i]
		if isNull(n) {
			continue
		}
		switch m.Function {
		case Sum, Avg:
			next := m.sum[id] + n
			m.overflow = m.overflow || (next > m.sum[id]) != (n > 0)
			m.sum[id] = next
		case Min:
			if m.count[id] == 0 || n < m.low[id] {
				m.low[id] = n
			}
		case Max:
			if m.count[id] == 0 || n > m.low[id] {
				m.low[id] = n
			}
		case Quantile:
			m.hist[id].Add(n)
		}
		m.count[id]++
	}
}

func (m *measure) addText(v *segment.Vector, picks []int32, ids []uint32) {
	for i, row := range picks {
		cell, id := v.Dict.Cell(v.Codes[row]), ids[i]
		if len(cell) == 0 {
			continue
		}
		switch was := m.texts; m.Function {
		case Min:
			if was[id] == nil || string(cell) < string(was[id]) {
				m.texts[id] = append(was[id][:0], cell...)
			}
		case Max:
			if was[id] == nil || string(cell) > string(was[id]) {
				m.texts[id] = append(was[id][:0], cell...)
			}
		}
		m.count[id]++
	}
}

// Key returns the value of key k of a group: int64, string or nil.
func (g *Groups) Key(group, k int) any {
	id := uint32(group)
	if len(g.keys) > 1 {
		id = g.of[group][k]
	}
	if g.keys[k].text {
		if g.keys[k].texts[id] == "" {
			return nil
		}
		return g.keys[k].texts[id]
	}
	if n := g.keys[k].ints[id]; n != event.Null {
		return n
	}
	return nil
}

// Measure returns measure i of a group: int64, float64, string or nil.
func (g *Groups) Measure(group, i int) any {
	m := &g.measures[i]
	n := m.count[group]
	switch {
	case m.Function == CountRows || m.Function == Count:
		return n
	case n == 0:
		return nil
	case m.Function == Sum:
		return m.sum[group]
	case m.Function == Avg:
		return float64(m.sum[group]) / float64(n)
	case m.Function == Quantile:
		v, _ := m.hist[group].Quantile(m.Quantile)
		return v
	case m.text:
		return string(m.texts[group])
	}
	return m.low[group]
}

// Histogram returns the distribution behind a quantile, to merge it elsewhere.
func (g *Groups) Histogram(group, i int) *Histogram {
	if g.measures[i].Function != Quantile {
		return nil
	}
	return &g.measures[i].hist[group]
}
