package query

import (
	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

// Match adds to picks[:0] the numbers of the rows that match, in order.
func (f *Filter) Match(rows *segment.Rows, picks []int32) ([]int32, error) {
	var m matcher
	return m.run(f, rows, 0, 0, picks)
}

// matcher is the memory of a scan.
type matcher struct {
	ready []prepared
	hits  [][]byte
}

// prepared is a test on the columns of one run of rows.
type prepared struct {
	test
	ints  []int64
	codes []uint32
	dict  segment.Dict
	hit   []byte // by code: 0 not yet known, 1 matches, 2 does not
	void  bool   // no code matches
}

// compareAll finds the codes that equal want, and tells whether there are any.
func compareAll(hit []byte, d *segment.Dict, want []byte) (some bool) {
	hit[0] = 2
	from := uint32(0)
	for code := 1; code < d.Len(); code++ {
		until := d.Ends[code]
		hit[code] = 2
		if int(until-from) == len(want) && string(d.Data[from:until]) == string(want) {
			hit[code], some = 1, true
		}
		from = until
	}
	return some
}

func (p *prepared) holds(row int32) bool {
	if p.match == nil {
		n := p.ints[row]
		return n >= p.low && n <= p.high
	}
	code := p.codes[row]
	if p.hit[code] == 0 {
		p.hit[code] = 2
		if p.match(p.dict.Cell(code)) {
			p.hit[code] = 1
		}
	}
	return p.hit[code] == 1
}

// run gives the rows of a time range (0: open) that match.
func (m *matcher) run(f *Filter, rows *segment.Rows, since, until int64, picks []int32) ([]int32, error) {
	picks = picks[:0]
	if f != nil && m.impossible(f, rows) {
		return picks, nil
	}
	picks, err := inTime(rows, since, until, picks)
	if err != nil || f == nil {
		return picks, err
	}
	for i := range f.terms {
		if len(picks) == 0 {
			return picks, nil
		}
		if picks, err = m.narrow(&f.terms[i], rows, picks); err != nil {
			return picks[:0], err
		}
	}
	return picks, nil
}

// impossible tells whether the bounds of a column already say no.
func (m *matcher) impossible(f *Filter, rows *segment.Rows) bool {
	for i := range f.terms {
		if f.terms[i].outside(rows) {
			return true
		}
	}
	return false
}

func (t *term) outside(rows *segment.Rows) bool {
	if t.negate {
		return false
	}
	for i := range t.tests {
		one := &t.tests[i]
		if one.match != nil {
			return false
		}
		low, high, ok := rows.Bounds(one.column)
		if !ok || one.low <= high && one.high >= low {
			return false
		}
	}
	return true
}

func inTime(rows *segment.Rows, since, until int64, picks []int32) ([]int32, error) {
	if rows.Oldest >= since && (until == 0 || rows.Newest < until) || since == 0 && until == 0 {
		for i := range rows.Len {
			picks = append(picks, int32(i))
		}
		return picks, nil
	}
	v, err := rows.Column(rows.Schema.Time)
	if err != nil {
		return picks, err
	}
	for i, t := range v.Ints {
		if t >= since && (until == 0 || t < until) {
			picks = append(picks, int32(i))
		}
	}
	return picks, nil
}

// narrow keeps the picks for which a term holds.
func (m *matcher) narrow(t *term, rows *segment.Rows, picks []int32) ([]int32, error) {
	if err := m.prepare(t, rows); err != nil {
		return picks, err
	}
	kept := picks[:0]
	if len(m.ready) == 1 && m.ready[0].void && !t.negate {
		return kept, nil
	}
	if len(m.ready) == 1 && m.ready[0].match == nil && !t.negate {
		one := &m.ready[0]
		for _, row := range picks {
			if n := one.ints[row]; n >= one.low && n <= one.high {
				kept = append(kept, row)
			}
		}
		return kept, nil
	}
	for _, row := range picks {
		if m.any(row) != t.negate {
			kept = append(kept, row)
		}
	}
	return kept, nil
}

func (m *matcher) any(row int32) bool {
	for i := range m.ready {
		if m.ready[i].holds(row) {
			return true
		}
	}
	return false
}

func (m *matcher) prepare(t *term, rows *segment.Rows) error {
	m.ready = m.ready[:0]
	for i := range t.tests {
		v, err := rows.Column(t.tests[i].column)
		if err != nil {
			return err
		}
		p := prepared{test: t.tests[i], ints: v.Ints, codes: v.Codes, dict: v.Dict}
		if p.match != nil {
			p.hit = m.hitsOf(i, p.dict.Len())
		}
		if p.equal != nil {
			p.void = !compareAll(p.hit, &p.dict, p.equal)
		}
		m.ready = append(m.ready, p)
	}
	return nil
}

func (m *matcher) hitsOf(i, n int) []byte {
	for len(m.hits) <= i {
		m.hits = append(m.hits, nil)
	}
	if cap(m.hits[i]) < n {
		m.hits[i] = make([]byte, n+n/2)
	}
	m.hits[i] = m.hits[i][:n]
	clear(m.hits[i])
	return m.hits[i]
}

// isNull tells whether a cell has no value.
func isNull(n int64) bool { return n == event.Null }
