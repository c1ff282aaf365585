package http1

import (
	"bytes"

	"ghostlight/internal/l7"
)

// answer says whether bytes are what they might be.
type answer uint8

const (
	no answer = iota
	maybe
	yes
)

// methods that are kept as they are: RFC 9110, PATCH (RFC 5789) and QUERY.
var methods = [...]string{"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE", "QUERY"}

// others are methods that are told as _OTHER, and that a lost place may be found
// again by: "ST /" may be the rest of "POST /".
var others = [...]string{
	"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "PURGE", "SUBSCRIBE", "NOTIFY",
}

const longestMethod = 24

// sniff knows HTTP/1 by a request line of which the method and the beginning of
// the target are there, or by a status line as far as its version.
func sniff(prefix []byte) l7.Side {
	if len(prefix) >= len("HTTP/") && isStatusLine(prefix) != no {
		return l7.Answers
	}
	switch isRequestLine(prefix) {
	case yes:
		return l7.Asks
	case maybe:
		if isAsking(prefix) {
			return l7.Asks
		}
	}
	return l7.Neither
}

// isStatusLine looks at the beginning of "HTTP/1.1 200 OK".
func isStatusLine(b []byte) answer {
	const form = "HTTP/1.0 000"
	for i := range min(len(b), len(form)) {
		if form[i] == '0' {
			if b[i] < '0' || b[i] > '9' {
				return no
			}
		} else if b[i] != form[i] {
			return no
		}
	}
	if len(b) < len(form) {
		return maybe
	}
	if b[9] == '0' || len(b) > len(form) && b[12] > ' ' {
		return no
	}
	return yes
}

// isRequestLine looks at the beginning of "GET /path HTTP/1.1".
func isRequestLine(b []byte) answer {
	if end := bytes.IndexByte(b, '\n'); end >= 0 {
		line := bytes.TrimSuffix(b[:end], []byte{'\r'})
		if len(line) < len("A / HTTP/1.1") || isVersion(line[len(line)-9:]) != yes {
			return no
		}
		b = line[:len(line)-9]
		n := methodLen(b)
		if n == 0 || n == len(b) || !isTarget(b[n+1:]) || len(b) == n+1 {
			return no
		}
		return yes
	}
	n := methodLen(b)
	if n == len(b) {
		if n > longestMethod {
			return no
		}
		return maybe
	}
	if n == 0 || b[n] != ' ' {
		return no
	}
	target := b[n+1:]
	if end := bytes.IndexByte(target, ' '); end >= 0 {
		if end == 0 || isVersion(target[end:]) == no {
			return no
		}
		target = target[:end]
	}
	if !isTarget(target) {
		return no
	}
	return maybe
}

// isVersion looks at the beginning of " HTTP/1.1".
func isVersion(b []byte) answer {
	const form = " HTTP/1."
	b = bytes.TrimSuffix(b, []byte{'\r'})
	n := min(len(b), len(form))
	if string(b[:n]) != form[:n] || len(b) > len(form)+1 {
		return no
	}
	if len(b) <= len(form) {
		return maybe
	}
	if c := b[len(form)]; c < '0' || c > '9' {
		return no
	}
	return yes
}

// methodLen returns how many bytes of b could be a method. All methods in use
// are of capitals, and few have a hyphen.
func methodLen(b []byte) int {
	for i, c := range b[:min(len(b), longestMethod+1)] {
		if (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return i
		}
	}
	return min(len(b), longestMethod+1)
}

// isTarget reports that b is a target as far as it goes: no blanks in it.
func isTarget(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// isAsking reports that b begins with a method we know and the beginning of a
// target that suits it.
func isAsking(b []byte) bool {
	n := methodLen(b)
	if n+1 >= len(b) || b[n] != ' ' || !isMethod(b[:n]) {
		return false
	}
	target := b[n+1:]
	if target[0] == '/' || target[0] == '*' || string(b[:n]) == "CONNECT" {
		return true
	}
	const scheme = "http"
	k := min(len(target), len(scheme))
	return string(target[:k]) == scheme[:k]
}

// isBeginning reports that b is the beginning of a request whose method we have
// heard of.
func isBeginning(b []byte) bool {
	n := methodLen(b)
	if n < len(b) {
		return isAsking(b) || n+1 == len(b) && b[n] == ' ' && isMethod(b[:n])
	}
	for _, m := range methods {
		if n <= len(m) && string(b) == m[:n] {
			return true
		}
	}
	for _, m := range others {
		if n <= len(m) && string(b) == m[:n] {
			return true
		}
	}
	return false
}

// isMethod reports that we have heard of a method.
func isMethod(b []byte) bool {
	if known(b) != "" {
		return true
	}
	for _, m := range others {
		if string(b) == m {
			return true
		}
	}
	return false
}

// known returns the constant of a known method.
func known(b []byte) string {
	for _, m := range methods {
		if string(b) == m {
			return m
		}
	}
	return ""
}
