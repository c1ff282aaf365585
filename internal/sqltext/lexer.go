package sqltext

import (
	"bytes"
	"unicode/utf8"
)

type kind uint8

const (
	end     kind = iota
	hidden       // a literal whose end is not known: nothing behind it is read
	literal      // string, number, boolean
	param        // $1 or ?
	word         // keyword or name
	name         // quoted name
	punct        // one other character
)

// token is a piece of the source.
type token struct {
	kind     kind
	space    bool // white space or a comment before it
	escaped  bool // a string that knows backslashes, whatever the setting
	char     byte // of a punct
	from, to int
}

func (t *token) is(c byte) bool { return t.kind == punct && t.char == c }
func (t *token) opens() bool    { return t.is('(') || t.is('[') }
func (t *token) closes() bool   { return t.is(')') || t.is(']') }

type lexer struct {
	Options
	src    []byte
	at     int
	prev   token
	inHint bool // between /*! and its end
	trace  [16]byte
	parent [8]byte
}

// next returns the next token.
func (l *lexer) next() token {
	t := token{from: l.at}
	if !l.blank() {
		t.kind, t.from, t.space = hidden, l.at, true
		return t
	}
	t.space = l.at > t.from
	t.from = l.at
	if l.at >= len(l.src) {
		return t
	}
	l.token(&t)
	if l.Cut && t.to >= len(l.src) && (t.kind == word || t.kind == param) {
		t.kind = end // nobody knows what it would have become
	}
	l.at = t.to
	return t
}

func (l *lexer) token(t *token) {
	c := l.src[t.from]
	switch {
	case c == '\'' || c == '"' && l.Dialect == MySQL:
		l.str(t, t.from, l.escapes(t))
	case c == '"' || c == '`' && l.Dialect == MySQL:
		l.quotedName(t, c)
	case c == '$':
		l.dollar(t)
	case isDigit(c) || c == '.' && isDigit(l.peek(t.from+1)) && !l.names(t.from) || (c == '-' || c == '+') && l.isSign(t.from):
		l.number(t)
	case isNameStart(c):
		l.word(t)
	case c == '?' && l.Dialect == MySQL:
		t.kind, t.to = param, t.from+1
	default:
		t.kind, t.char, t.to = punct, c, t.from+1
	}
}

// peek returns the byte at i, 0 behind the end.
func (l *lexer) peek(i int) byte {
	if i < len(l.src) {
		return l.src[i]
	}
	return 0
}

// names reports whether the token before i is a name that touches it.
func (l *lexer) names(i int) bool {
	return l.prev.to == i && (l.prev.kind == word || l.prev.kind == name)
}

// isSign reports whether the sign at i belongs to the number behind it.
func (l *lexer) isSign(i int) bool {
	n := l.peek(i + 1)
	if !isDigit(n) && (n != '.' || !isDigit(l.peek(i+2))) {
		return false
	}
	return l.prev.kind == punct && !l.prev.closes()
}

// escapes returns how the string at t treats backslashes.
func (l *lexer) escapes(t *token) Escapes {
	if l.prev.escaped || l.prev.to == t.from && l.prev.kind == literal {
		return Unknown // it may continue the one before, E'..' '..', or belong to what it touches
	}
	return l.Escapes
}

// str reads a string whose quote stands at i. Where readings differ the rest is
// hidden: behind an escaped quote if nobody knows whether it is one, or if the
// backslash may be the second byte of a character (Shift-JIS, GBK).
func (l *lexer) str(t *token, i int, esc Escapes) {
	quote := l.src[i]
	t.kind, t.to = hidden, len(l.src)
	for j := i + 1; j < len(l.src); j++ {
		switch l.src[j] {
		case '\\':
			run := 1
			for l.peek(j+run) == '\\' {
				run++
			}
			wide := l.src[j-1] >= utf8.RuneSelf && esc != Standard
			if l.peek(j+run) == quote && (wide || esc == Unknown && run%2 == 1) {
				return
			}
			j += run - 1
			if esc == Backslash && run%2 == 1 {
				j++
			}
		case quote:
			if l.peek(j+1) != quote {
				t.kind, t.to = literal, j+1
				return
			}
			j++
		}
	}
}

// quotedName reads "name" or `name`. One that is no UTF-8 may have ended
// elsewhere.
func (l *lexer) quotedName(t *token, quote byte) {
	t.kind, t.to = hidden, len(l.src)
	for j := t.from + 1; j < len(l.src); j++ {
		if l.src[j] != quote {
			continue
		}
		if l.peek(j+1) == quote {
			j++
			continue
		}
		if utf8.Valid(l.src[t.from : j+1]) {
			t.kind, t.to = name, j+1
		}
		return
	}
}

// dollar reads $1, $tag$..$tag$ or, in MySQL, a name.
func (l *lexer) dollar(t *token) {
	i := t.from + 1
	if isDigit(l.peek(i)) && l.Dialect == PostgreSQL {
		for isDigit(l.peek(i)) {
			i++
		}
		t.kind, t.to = param, i
		return
	}
	for i < len(l.src) && isNameByte(l.src[i]) && l.src[i] != '$' {
		i++
	}
	switch {
	case i >= len(l.src) && l.Cut:
		t.kind, t.to = hidden, i
	case l.peek(i) != '$' && l.Dialect == MySQL && i > t.from+1:
		l.word(t)
	case l.peek(i) != '$':
		t.kind, t.char, t.to = punct, '$', t.from+1
	default:
		l.dollarString(t, i+1)
	}
}

func (l *lexer) dollarString(t *token, body int) {
	tag := l.src[t.from:body]
	n := bytes.Index(l.src[body:], tag)
	if n < 0 || l.Dialect == MySQL || !utf8.Valid(tag) { // to MySQL it may be a name as well
		t.kind, t.to = hidden, len(l.src)
		return
	}
	t.kind, t.to = literal, body+n+len(tag)
}

// number reads a number with all that touches it: 1.5e-3, 0xff, 1_000.
func (l *lexer) number(t *token) {
	i := t.from
	if l.src[i] == '-' || l.src[i] == '+' {
		i++
	}
	for plain := true; i < len(l.src); i++ {
		c := l.src[i]
		if plain && (c == 'e' || c == 'E') && (l.peek(i+1) == '-' || l.peek(i+1) == '+') && isDigit(l.peek(i+2)) {
			i++
		} else if c != '.' && c != '_' && !isDigit(c) && !isLetter(c) {
			break
		}
		plain = plain && (isDigit(c) || c == '.')
	}
	t.kind, t.to = literal, i
}

// word reads a keyword or a name, and the string that it may be the prefix of.
func (l *lexer) word(t *token) {
	i := t.from + 1
	for i < len(l.src) && isNameByte(l.src[i]) {
		i++
	}
	w := l.src[t.from:i]
	switch {
	case !utf8.Valid(w):
		if l.Cut && i == len(l.src) {
			t.kind, t.to = word, i // cut within a character: left out
			return
		}
		t.kind, t.to = hidden, len(l.src)
	case l.peek(i) == '\'' && len(w) == 1 && isPrefix(w[0]):
		l.prefixed(t, i)
	case isBoolean(w):
		t.kind, t.to = literal, i
	default:
		t.kind, t.to = word, i
	}
}

// prefixed reads E'..', N'..', X'..' or B'..' whose quote stands at i.
func (l *lexer) prefixed(t *token, i int) {
	esc := l.Escapes
	if l.src[t.from]|0x20 == 'e' && l.Dialect == PostgreSQL {
		esc, t.escaped = Backslash, true
	}
	l.str(t, i, esc)
}

func isPrefix(c byte) bool {
	switch c | 0x20 {
	case 'e', 'n', 'x', 'b':
		return true
	}
	return false
}

func isBoolean(w []byte) bool {
	return len(w) == 4 && bytes.EqualFold(w, []byte("true")) || len(w) == 5 && bytes.EqualFold(w, []byte("false"))
}

// blank steps over white space and comments. It returns false where nobody
// knows how the text goes on.
func (l *lexer) blank() bool {
	for l.at < len(l.src) {
		c := l.src[l.at]
		switch {
		case c <= ' ':
			l.at++
		case c == '-' && l.peek(l.at+1) == '-' && l.isDashComment(), c == '#' && l.Dialect == MySQL:
			l.lineComment()
		case c == '/' && l.peek(l.at+1) == '*':
			if !l.blockComment() {
				return false
			}
		case c == '*' && l.peek(l.at+1) == '/' && l.inHint:
			l.at += 2
			l.inHint = false
		default:
			return true
		}
	}
	return true
}

// isDashComment: MySQL wants a blank behind the dashes.
func (l *lexer) isDashComment() bool {
	return l.Dialect == PostgreSQL || l.peek(l.at+2) <= ' '
}

func (l *lexer) lineComment() {
	for l.at < len(l.src) {
		c := l.src[l.at]
		if c == '\n' || c == '\r' && l.Dialect == PostgreSQL || c == 0 {
			return
		}
		l.at++
	}
}

// blockComment steps over a comment. PostgreSQL's nest. What MySQL reads as code
// if its version is right, /*!50000 .. */, is read on if it is harmless both
// ways.
func (l *lexer) blockComment() bool {
	if l.Dialect == MySQL {
		return l.mysqlComment()
	}
	from := l.at
	for depth := 0; l.at < len(l.src); l.at++ {
		switch {
		case l.src[l.at] == '/' && l.peek(l.at+1) == '*':
			depth++
			l.at++
		case l.src[l.at] == '*' && l.peek(l.at+1) == '/':
			depth--
			l.at++
		}
		if depth == 0 {
			l.at++
			l.comment(l.src[from:l.at])
			return true
		}
	}
	return true
}

func (l *lexer) mysqlComment() bool {
	body := l.src[l.at+2:]
	n := bytes.Index(body, []byte("*/"))
	code := bytes.HasPrefix(body, []byte("!")) || bytes.HasPrefix(body, []byte("M!"))
	hint := code || bytes.HasPrefix(body, []byte("+"))
	switch {
	case hint && (n < 0 || bytes.ContainsAny(body[:n], "'\"`#$\\/-") || !utf8.Valid(body[:n])):
		return false
	case n < 0:
		l.at = len(l.src)
	case code:
		l.at += 2 + bytes.IndexByte(body, '!') + 1
		for isDigit(l.peek(l.at)) {
			l.at++
		}
		l.inHint = true
	default:
		l.comment(body[:n])
		l.at += 2 + n + 2
	}
	return true
}

func isDigit(c byte) bool     { return c-'0' < 10 }
func isLetter(c byte) bool    { return c|0x20-'a' < 26 }
func isNameStart(c byte) bool { return isLetter(c) || c == '_' || c >= utf8.RuneSelf }
func isNameByte(c byte) bool  { return isNameStart(c) || isDigit(c) || c == '$' }
