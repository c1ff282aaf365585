package sqltext

// row is where a list of rows behind VALUES is.
type row uint8

const (
	noRow row = iota
	rowDue
	firstRow
	rowClosed
	rowAgain // a comma after a row
	nextRow  // left out
)

// masker writes the text.
type masker struct {
	full   bool
	row    row
	rows   int    // depth of the rows
	fold   uint64 // bit per depth: a run of operands is one
	ran    bool   // the last thing written was an operand
	comma  bool   // a comma is held back
	spaced bool   // with a space before it
	list   bool   // IN, ARRAY: the list that may follow is to be folded
}

// mask writes t.
func (q *Query) mask(t *token, depth int) {
	if !q.inRows(t, depth) {
		return
	}
	operand := t.kind == literal || t.kind == hidden || t.kind == param
	if q.isFolded(depth) && q.ran {
		if operand && q.comma {
			q.comma = false
			return
		}
		if t.is(',') && !q.comma {
			q.comma, q.spaced = true, t.space
			return
		}
	}
	q.flush()
	if t.opens() {
		q.setFold(depth+1, q.list || q.row == firstRow && q.rows == depth)
	}
	q.list = t.kind == word && (q.says(t, "IN") || q.says(t, "ARRAY"))
	q.ran = operand
	if operand && t.kind != param {
		q.write("?", t.space)
		return
	}
	q.writeSource(t)
}

// inRows follows VALUES (..), (..) and reports whether t is to be written: only
// the first row is.
func (q *Query) inRows(t *token, depth int) bool {
	switch q.row {
	case noRow, rowDue, rowClosed:
		switch {
		case q.row == rowDue && t.is('('):
			q.row, q.rows = firstRow, depth
		case q.row == rowClosed && t.is(',') && depth == q.rows:
			q.row, q.spaced = rowAgain, t.space
			return false
		case t.kind == word && q.says(t, "VALUES"):
			q.row = rowDue
		default:
			q.row = noRow
		}
	case firstRow:
		if t.is(')') && depth == q.rows {
			q.row = rowClosed
		}
	case rowAgain:
		if t.is('(') {
			q.row = nextRow
			return false
		}
		q.row = noRow
		q.write(",", q.spaced)
	case nextRow:
		if t.is(')') && depth == q.rows {
			q.row = rowClosed
		}
		return false
	}
	return true
}

func (q *Query) isFolded(depth int) bool { return depth < 64 && q.fold>>depth&1 == 1 }

func (q *Query) setFold(depth int, on bool) {
	if depth >= 64 {
		return
	}
	q.fold &^= 1 << depth
	if on {
		q.fold |= 1 << depth
	}
}

// flush writes the comma that was held back.
func (q *Query) flush() {
	if q.comma {
		q.comma = false
		q.write(",", q.spaced)
	}
}

func (q *Query) write(s string, space bool) {
	if q.full || len(q.Text)+len(s) >= MaxText {
		q.full = true
		return
	}
	if space && len(q.Text) > 0 {
		q.Text = append(q.Text, ' ')
	}
	q.Text = append(q.Text, s...)
}

func (q *Query) writeSource(t *token) {
	if q.full || len(q.Text)+t.to-t.from >= MaxText {
		q.full = true
		return
	}
	if t.space && len(q.Text) > 0 {
		q.Text = append(q.Text, ' ')
	}
	q.Text = append(q.Text, q.src[t.from:t.to]...)
}

// says reports whether t is the keyword, which is in upper case.
func (q *Query) says(t *token, keyword string) bool {
	if t.to-t.from != len(keyword) {
		return false
	}
	for i, c := range q.src[t.from:t.to] {
		if isLetter(c) {
			c &^= 0x20
		}
		if c != keyword[i] {
			return false
		}
	}
	return true
}
