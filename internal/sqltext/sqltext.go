// Package sqltext reads a query as far as it was captured: its text with every
// literal masked, its first operation and table, and its summary. It knows no
// grammar, only tokens, so that truncated and foreign SQL is read too.
//
//	sql -> token -> Text     what was asked, "?" for each literal
//	             -> Summary  operations and their targets, in order
//
// Where a literal ends depends on settings of the connection that may be
// unknown. Wherever the possible readings differ, all that follows is masked:
// part of a name may be lost, part of a literal never shows.
package sqltext

import "bytes"

// Bounds of what is kept of a query. The summary's is the one the OpenTelemetry
// conventions name (db.query.summary).
const (
	MaxText    = 1024
	MaxSummary = 255
)

// Dialect is whose SQL it is: what quotes a string, what begins a comment.
type Dialect uint8

// The dialects.
const (
	PostgreSQL Dialect = iota
	MySQL              // and MariaDB
)

// Escapes tells whether a backslash in a plain string escapes what follows.
type Escapes uint8

// Settings of a connection: standard_conforming_strings, NO_BACKSLASH_ESCAPES.
const (
	Unknown Escapes = iota
	Backslash
	Standard
)

// Options say how a text is to be read.
type Options struct {
	Dialect Dialect
	Escapes Escapes
	Cut     bool // the text goes on, but was not captured
}

// Query is a query that was read. Its texts live until the next Read: its
// memory is used again.
type Query struct {
	Text      []byte // each literal is "?", comments are left out, lists are folded
	Summary   []byte // operations in upper case and targets as written
	Operation []byte // first operation
	Target    []byte // first table or view, as written
	// TraceID and ParentID are those of a comment's traceparent, zero if there is
	// none.
	TraceID  [16]byte
	ParentID [8]byte

	lexer
	masker
	summary
}

// Read reads sql.
func (q *Query) Read(sql []byte, o Options) {
	q.Text, q.Summary, q.Operation, q.Target = q.Text[:0], q.Summary[:0], nil, nil
	q.lexer = lexer{src: sql, Options: o}
	q.masker, q.summary = masker{}, summary{start: true}
	for depth := 0; ; {
		t := q.next()
		if t.kind == end {
			break
		}
		if t.closes() && depth > 0 {
			depth--
		}
		if t.is(';') {
			depth = 0
		}
		q.summarise(&t, depth)
		q.mask(&t, depth)
		if t.opens() {
			depth++
		}
		q.prev = t
		if t.kind == hidden {
			break
		}
	}
	q.src = nil
	q.TraceID, q.ParentID = q.trace, q.parent
	q.Text = bytes.TrimRight(q.Text, "; ")
	q.Operation = q.Summary[:q.operationEnd]
	q.Target = q.Summary[q.targetFrom:q.targetEnd]
}
