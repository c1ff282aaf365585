// Package sql answers SQL over the store. A statement is first made plain
// (times and durations become numbers), then, if it is one of the simple
// shapes that dashboards are made of, worked out natively; everything else is
// SQLite's, which sees the tables as virtual ones.
//
//	text -> tokens -> rewrite -> plan -> native: query.Aggregate, or a scan
//	                              \----> SQLite: vtab over a snapshot
package sql

import (
	"fmt"
	"strings"
)

// kind of a token.
type kind uint8

const (
	end    kind = iota
	word        // an identifier or keyword
	quoted      // an identifier in quotes
	number      // 1, 1.5, 1e9, 0x10
	text        // 'a string'
	symbol      // an operator or bracket
)

type token struct {
	kind  kind
	text  string // as written; of a string or quoted name what it means
	from  int    // bytes of the statement
	until int
}

// is tells whether a token is a keyword or symbol, whatever its case.
func (t token) is(s string) bool {
	return (t.kind == word || t.kind == symbol) && strings.EqualFold(t.text, s)
}

// name tells whether a token is an identifier, and gives it.
func (t token) name() (string, bool) { return t.text, t.kind == word || t.kind == quoted }

// tokens splits a statement. The last token is the end.
func tokens(s string) (all []token, err error) {
	for at := 0; ; {
		at = skipBlank(s, at)
		if at >= len(s) {
			return append(all, token{end, "", len(s), len(s)}), nil
		}
		t, err := next(s, at)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
		at = t.until
	}
}

func skipBlank(s string, at int) int {
	for at < len(s) {
		switch rest := s[at:]; {
		case rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\n' || rest[0] == '\r' || rest[0] == '\f':
			at++
		case strings.HasPrefix(rest, "--"):
			i := strings.IndexByte(rest, '\n')
			if i < 0 {
				return len(s)
			}
			at += i + 1
		case strings.HasPrefix(rest, "/*"):
			i := strings.Index(rest[2:], "*/")
			if i < 0 {
				return len(s)
			}
			at += i + 4
		default:
			return at
		}
	}
	return at
}

func next(s string, at int) (token, error) {
	switch c := s[at]; {
	case c == '\'':
		return enclosed(s, at, '\'', text)
	case c == '"' || c == '`':
		return enclosed(s, at, c, quoted)
	case c == '[':
		return enclosed(s, at, ']', quoted)
	case c >= '0' && c <= '9', c == '.' && at+1 < len(s) && isDigit(s[at+1]):
		return span(s, at, number, numberEnd(s, at)), nil
	case isLetter(c):
		i := at
		for i < len(s) && (isLetter(s[i]) || isDigit(s[i]) || s[i] == '$') {
			i++
		}
		return span(s, at, word, i), nil
	}
	for _, op := range []string{"->>", "->", "<=", ">=", "<>", "!=", "==", "||", "<<", ">>"} {
		if strings.HasPrefix(s[at:], op) {
			return span(s, at, symbol, at+len(op)), nil
		}
	}
	return span(s, at, symbol, at+1), nil
}

func span(s string, from int, k kind, until int) token { return token{k, s[from:until], from, until} }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func numberEnd(s string, at int) int {
	i := at
	for i < len(s) {
		c := s[i]
		sign := (c == '+' || c == '-') && (s[i-1]|0x20) == 'e' && !strings.HasPrefix(strings.ToLower(s[at:i]), "0x")
		if !isDigit(c) && !isLetter(c) && c != '.' && (i == at || !sign) {
			break
		}
		i++
	}
	return i
}

// enclosed reads up to a closing quote; the quote twice is the quote itself.
func enclosed(s string, at int, quote byte, k kind) (token, error) {
	var b strings.Builder
	for i := at + 1; i < len(s); i++ {
		if s[i] != quote {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == quote && quote != ']' {
			b.WriteByte(quote)
			i++
			continue
		}
		return token{k, b.String(), at, i + 1}, nil
	}
	return token{}, &Error{Message: fmt.Sprintf("the quote at %d is not closed", at), Hint: `text is written in single quotes: 'nginx'`}
}
