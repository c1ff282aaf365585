// Package route folds the variable parts of URL paths, so that requests can be
// counted by route: by the user's patterns where one fits, else by what it
// learns of each service's paths.
//
//	/api/v1/users/42/orders/9f86d081 -> segments by their shape -> /api/v1/users/{id}/orders/{hash}
//	/u/alice, /u/bob, ... (50 names)  -> too many for words       -> /u/{name}
//
// A service has a bounded number of routes; what comes after is {*}.
package route

import (
	"fmt"
	"strings"
)

// The bounds.
const (
	maxRoutes   = 200 // of a service
	maxServices = 1024
	maxWords    = 50 // different words at one place, before names are told from words
	maxSegments = 16
)

// Other is the route of what is beyond the bounds.
const Other = "/{*}"

// Table knows the routes of every service. It belongs to one goroutine.
type Table struct {
	patterns []pattern
	services map[string]*service
}

type service struct {
	root   segment
	routes int
}

// segment is a place in a service's tree of paths.
type segment struct {
	words map[string]*segment
	param *segment // takes what is no word
	route string   // of paths that end here
	hits  uint64
}

// New returns a table without learnt routes. Patterns look like
// "/api/v1/{controller}/{id}" and "/static/**".
func New(patterns []string) (*Table, error) {
	t := &Table{services: map[string]*service{}}
	for _, p := range patterns {
		compiled, err := compile(p)
		if err != nil {
			return nil, err
		}
		t.patterns = append(t.patterns, compiled)
	}
	return t, nil
}

// Of returns the route of a path that a service was asked for. It learns from
// found paths only, so that a scan for holes makes no routes.
func (t *Table) Of(name, path string, found bool) string {
	if len(path) == 0 || path[0] != '/' {
		return "" // CONNECT, *
	}
	for i := range t.patterns {
		if t.patterns[i].matches(path) {
			return t.patterns[i].text
		}
	}
	s := t.services[name]
	if s == nil {
		if !found || len(t.services) >= maxServices {
			return Other
		}
		s = &service{}
		t.services[strings.Clone(name)] = s
	}
	return t.walk(s, path, found)
}

// walk goes down the tree along the path, and grows it where it may.
func (t *Table) walk(s *service, path string, found bool) string {
	at, n := &s.root, 0
	for word := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
		if path == "/" {
			break
		}
		if n++; n > maxSegments {
			return Other
		}
		if at = at.step(word, found); at == nil {
			return Other
		}
	}
	at.hits++
	if at.route == "" {
		if !found || s.routes >= maxRoutes {
			return Other
		}
		s.routes++
		at.route = s.name(path)
	}
	return at.route
}

// step returns the place a word leads to, nil if there is none and none may be
// made.
func (at *segment) step(word string, found bool) *segment {
	if next := at.words[word]; next != nil {
		next.hits++
		return next
	}
	if kind(word) == "" && at.param == nil && len(at.words) < maxWords {
		if !found {
			return nil
		}
		if at.words == nil {
			at.words = map[string]*segment{}
		}
		next := &segment{hits: 1}
		at.words[strings.Clone(word)] = next
		return next
	}
	if at.param == nil {
		if !found {
			return nil
		}
		at.param = &segment{}
		if len(at.words) >= maxWords {
			at.fold()
		}
	}
	at.param.hits++
	return at.param
}

// fold turns the rare words of a place into names: a word of the API is asked
// for again and again, a customer's name is not.
func (at *segment) fold() {
	var total uint64
	for _, s := range at.words {
		total += s.hits
	}
	often := max(total/uint64(len(at.words)), 4) // the mean
	for w, s := range at.words {
		if s.hits <= often {
			delete(at.words, w)
		}
	}
}

// name spells the route of a path, as the tree has it.
func (s *service) name(path string) string {
	if path == "/" {
		return "/" // not path: that is borrowed
	}
	var b strings.Builder
	at := &s.root
	for word := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
		b.WriteByte('/')
		next := at.words[word]
		if next != nil {
			b.WriteString(word)
		} else if next = at.param; next != nil {
			b.WriteString(placeholder(word))
		} else {
			break
		}
		at = next
	}
	return b.String()
}

func placeholder(word string) string {
	if k := kind(word); k != "" {
		return "{" + k + "}"
	}
	return "{name}"
}

// kind says what a segment is by its shape, empty for a word.
func kind(s string) string {
	var digits, hexes, letters, upper, marks int
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F':
			hexes++
		case c >= 'g' && c <= 'z' || c >= 'G' && c <= 'Z':
			letters++
		default:
			marks++
		}
		if s[i] >= 'A' && s[i] <= 'Z' {
			upper++
		}
	}
	switch n := len(s); {
	case n == 0:
		return ""
	case digits == n:
		return "id"
	case n == 36 && marks == 4 && letters == 0 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-':
		return "uuid"
	case isDate(s):
		return "date"
	case n >= 8 && digits > 0 && digits+hexes == n:
		return "hash"
	case n >= 16 && marks == 0 && digits >= 2 && (upper > 0 || digits*4 >= n):
		return "hash" // base64, base62, ULID
	case strings.IndexByte(s, '@') > 0:
		return "email"
	case strings.Contains(s, "***"):
		return "secret"
	case digits > 0 && digits+marks == n:
		return "id" // 12-34, 1.5
	case digits*2 >= n && n >= 4:
		return "id" // ord_1042, a1234
	case n > 64:
		return "text"
	}
	return ""
}

// isDate reports whether s begins like 2026-11-20.
func isDate(s string) bool {
	if len(s) < 10 || s[4] != '-' || s[7] != '-' {
		return false
	}
	for _, i := range [...]int{0, 1, 2, 3, 5, 6, 8, 9} {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// pattern is one of the user's.
type pattern struct {
	text     string
	segments []string // empty takes any segment
	rest     bool     // and whatever follows
}

func compile(text string) (pattern, error) {
	p := pattern{text: text}
	if !strings.HasPrefix(text, "/") {
		return p, fmt.Errorf("route pattern %q must begin with a slash", text)
	}
	parts := strings.Split(strings.TrimSuffix(text[1:], "/"), "/")
	for i, s := range parts {
		switch {
		case s == "**" && i == len(parts)-1:
			p.rest = true
			return p, nil
		case s == "**":
			return p, fmt.Errorf("route pattern %q: ** can only be its last segment", text)
		case s == "*", strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") && len(s) > 2, strings.HasPrefix(s, ":") && len(s) > 1:
			p.segments = append(p.segments, "")
		case strings.ContainsAny(s, "{}*"):
			return p, fmt.Errorf("route pattern %q: %q is neither a word nor {name}, :name, * or **", text, s)
		default:
			p.segments = append(p.segments, s)
		}
	}
	return p, nil
}

func (p *pattern) matches(path string) bool {
	rest := strings.TrimSuffix(path[1:], "/")
	done := false
	for _, want := range p.segments {
		if done {
			return false
		}
		word := rest
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			word, rest = rest[:i], rest[i+1:]
		} else {
			done = true
		}
		if want != "" && want != word || want == "" && word == "" && len(p.segments) > 1 {
			return false
		}
	}
	return done || p.rest
}
