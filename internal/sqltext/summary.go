package sqltext

// maxKeyword is longer than any keyword that matters here.
const maxKeyword = 24

// summary finds operations and their targets. Depth is that of parentheses; of
// the first 64 each has its own bits.
type summary struct {
	start  bool   // of a statement
	done   bool   // the summary is full
	quiet  bool   // GRANT, REVOKE: what looks like operations is none
	with   bool   // of a WITH: an operation may follow a parenthesis
	define bool   // CREATE, ALTER, DROP, START: what, comes next
	index  bool   // its table stands behind ON
	want   want   // what the next name is
	ops    uint64 // an operation was seen here: FROM has a table behind it
	from   uint64 // a comma has a table behind it
	last   keyword

	operationEnd          int
	targetFrom, targetEnd int
}

type want uint8

const (
	nothing  want = iota
	table         // behind INTO, UPDATE, TABLE
	relation      // behind FROM and JOIN: a table, or a function
	thing         // a target that is no table: a procedure, a schema
)

// keyword is what a word means here.
type keyword uint8

const (
	other   keyword = iota
	anyOp           // SELECT
	opTable         // an operation with a table behind it
	op
	from
	join
	into
	clause // ends the tables
	before // may stand between an operation and its table
	object // TABLE, VIEW, ...
	thingObject
	indexObject
	userObject
	on
	as
	distinct
)

// keywordOf tells what the word in upper case means.
func keywordOf(w string) keyword {
	switch w {
	case "SELECT":
		return anyOp
	case "INSERT", "UPDATE":
		return opTable
	case "DELETE", "MERGE":
		return op
	case "FROM":
		return from
	case "JOIN", "STRAIGHT_JOIN":
		return join
	case "INTO":
		return into
	case "WHERE", "SET", "GROUP", "ORDER", "HAVING", "LIMIT", "RETURNING", "UNION", "INTERSECT", "EXCEPT", "WINDOW", "OFFSET", "FETCH", "FOR", "VALUES", "OUTFILE", "DUMPFILE":
		return clause
	case "ONLY", "LATERAL", "IF", "NOT", "EXISTS", "IGNORE", "LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "QUICK", "CONCURRENTLY", "TEMP", "TEMPORARY", "UNLOGGED", "TABLES":
		return before
	case "TABLE", "VIEW":
		return object
	case "FUNCTION", "PROCEDURE", "SEQUENCE", "SCHEMA", "DATABASE", "TYPE", "EXTENSION", "TRIGGER", "EVENT", "DOMAIN":
		return thingObject
	case "INDEX":
		return indexObject
	case "USER", "ROLE", "SERVER", "TABLESPACE", "PUBLICATION", "SUBSCRIPTION", "POLICY", "TRANSACTION":
		return userObject
	case "ON":
		return on
	case "AS", "EXPLAIN", "ANALYZE", "VERBOSE":
		return as
	case "DISTINCT":
		return distinct
	}
	return other
}

func bit(depth int) uint64 {
	if depth > 63 {
		return 0
	}
	return 1 << depth
}

// summarise takes the next token.
func (q *Query) summarise(t *token, depth int) {
	switch t.kind {
	case word:
		q.summariseWord(t, depth)
	case name:
		q.take(t)
		q.last, q.start = other, false
	case punct:
		q.summarisePunct(t, depth)
	default:
		q.want, q.start, q.last = nothing, false, other
	}
}

func (q *Query) summarisePunct(t *token, depth int) {
	switch t.char {
	case ',':
		if q.from&bit(depth) != 0 {
			q.want = relation
		}
	case '(':
		inner := bit(depth + 1)
		q.ops, q.from = q.ops&^inner, q.from&^inner
		if q.want != nothing { // a subquery or tables in parentheses
			q.ops, q.from = q.ops|inner, q.from|inner
		}
	case ';':
		operation, from, to, done := q.operationEnd, q.targetFrom, q.targetEnd, q.done
		q.summary = summary{start: true, done: done, operationEnd: operation, targetFrom: from, targetEnd: to}
	default:
		q.want = nothing
	}
}

func (q *Query) summariseWord(t *token, depth int) {
	if q.prev.is('.') && q.prev.to == t.from {
		return // part of a name
	}
	var upper [maxKeyword]byte
	w := upper[:0]
	if t.to-t.from <= maxKeyword {
		for _, c := range q.src[t.from:t.to] {
			if isLetter(c) {
				c &^= 0x20
			}
			w = append(w, c)
		}
	}
	k := keywordOf(string(w))
	if q.start {
		q.start = false
		q.begin(w, k, depth)
	} else {
		q.follow(t, w, k, depth)
	}
	q.last = k
}

// begin takes the first word of a statement.
func (q *Query) begin(w []byte, k keyword, depth int) {
	for _, c := range w {
		if !isLetter(c) && c != '_' {
			return
		}
	}
	if string(w) == "WITH" {
		q.with = true
		return
	}
	q.operation(w, k, depth)
	switch string(w) {
	case "COPY":
		q.ops &^= bit(depth) // its FROM names no table
		q.want = table
	case "REPLACE", "TRUNCATE", "LOCK":
		q.want = table
	case "CALL", "EXECUTE", "EXEC", "USE":
		q.want = thing
	case "CREATE", "ALTER", "DROP", "START":
		q.define = true
	case "GRANT", "REVOKE":
		q.quiet = true
	case "SHOW":
		q.ops &^= bit(depth) // its FROM names no table
	case "EXPLAIN", "DESCRIBE", "DESC", "PREPARE", "DECLARE":
		q.with = true
	}
}

// follow takes a word within a statement.
func (q *Query) follow(t *token, w []byte, k keyword, depth int) {
	switch k {
	case anyOp:
		q.operation(w, k, depth)
		q.from &^= bit(depth)
		return
	case opTable, op:
		if q.prev.is('(') || q.with && q.prev.is(')') || q.last == as {
			q.operation(w, k, depth)
		}
		return
	case from:
		q.want = nothing
		if q.ops&bit(depth) != 0 && q.last != distinct {
			q.want, q.from = relation, q.from|bit(depth)
		}
		return
	case join:
		if q.ops&bit(depth) != 0 {
			q.want = relation
		}
		return
	case into:
		if q.ops&bit(depth) != 0 {
			q.want = table
		}
		return
	case clause:
		q.want, q.from = nothing, q.from&^bit(depth)
		return
	case before:
		return
	case object, thingObject, indexObject, userObject:
		if q.define && depth == 0 {
			q.defines(w, k)
		} else if q.want != nothing && k != object {
			q.take(t)
		}
		return
	case on:
		if q.index {
			q.index, q.want = false, table
			return
		}
	}
	q.take(t)
}

// operation adds one.
func (q *Query) operation(w []byte, k keyword, depth int) {
	if q.quiet || len(w) == 0 || !q.add(w) {
		return
	}
	if q.operationEnd == 0 {
		q.operationEnd = len(q.Summary)
	}
	q.ops |= bit(depth)
	q.want = nothing
	if k == opTable {
		q.want = table
		q.from |= bit(depth)
	}
}

// defines adds to CREATE and the like what it is that they create.
func (q *Query) defines(w []byte, k keyword) {
	q.define = false
	first := len(q.Summary) == q.operationEnd
	if !q.add(w) {
		return
	}
	if first {
		q.operationEnd = len(q.Summary)
	}
	switch k {
	case object:
		q.want = table
	case thingObject:
		q.want = thing
	case indexObject:
		q.index = true
	}
}

// take adds the name at t, with its qualifiers, if one is due.
func (q *Query) take(t *token) {
	if q.want == nothing {
		return
	}
	wanted := q.want
	q.want = nothing
	to, ok := q.nameEnd(t)
	if !ok || !q.add(q.src[t.from:to]) {
		return
	}
	isTable := wanted == table || wanted == relation && q.after(to) != '('
	if isTable && q.targetEnd == 0 {
		q.targetFrom, q.targetEnd = len(q.Summary)-(to-t.from), len(q.Summary)
	}
}

// nameEnd returns where the qualified name that begins with t ends. One that was
// cut is none.
func (q *Query) nameEnd(t *token) (int, bool) {
	l := lexer{src: q.src, Options: q.Options, at: t.to}
	for l.peek(l.at) == '.' {
		part := token{from: l.at + 1}
		if part.from == len(l.src) {
			return l.at, !l.Cut
		}
		if c := l.src[part.from]; !isNameStart(c) && c != '"' && c != '`' {
			break
		}
		l.token(&part)
		if part.kind != word && part.kind != name {
			return 0, false
		}
		l.at = part.to
	}
	return l.at, !l.Cut || l.at < len(l.src)
}

// after returns the first byte behind i that is not blank.
func (q *Query) after(i int) byte {
	for q.peek(i) == ' ' || q.peek(i) == '\n' {
		i++
	}
	return q.peek(i)
}

// add adds a word to the summary, whole or not at all.
func (q *Query) add(w []byte) bool {
	if q.done || len(q.Summary)+1+len(w) > MaxSummary {
		q.done = true
		return false
	}
	if len(q.Summary) > 0 {
		q.Summary = append(q.Summary, ' ')
	}
	q.Summary = append(q.Summary, w...)
	return true
}
