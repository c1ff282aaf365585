package sqltext

// Words are what was read of a query, to be kept: its memory is one piece.
type Words struct {
	memory                          []byte // text, then summary
	text                            int    // where the summary begins
	operation, targetFrom, targetTo int    // in the summary
}

// Set copies what q read.
func (w *Words) Set(q *Query) {
	w.memory = append(append(w.memory[:0], q.Text...), q.Summary...)
	w.text = len(q.Text)
	w.operation, w.targetFrom, w.targetTo = q.operationEnd, q.targetFrom, q.targetEnd
}

// Bytes returns the memory, for Split.
func (w *Words) Bytes() []byte { return w.memory }

// Split cuts a copy of Bytes into its words.
func (w *Words) Split(all string) (text, summary, operation, target string) {
	text, summary = all[:w.text], all[w.text:]
	return text, summary, summary[:w.operation], summary[w.targetFrom:w.targetTo]
}
