package redact

import "bytes"

// Query appends the redacted form of a URL's query to dst: values of denied keys
// are replaced, the others are looked at like any text. cut says that the query
// lacks its end.
func (r *Rules) Query(dst, query []byte, cut bool) []byte {
	for len(query) > 0 {
		n := bytes.IndexAny(query, "&;")
		pair, sep := query, []byte(nil)
		if n >= 0 {
			pair, sep, query = query[:n], query[n:n+1], query[n+1:]
		} else {
			query = nil
		}
		dst = r.pair(dst, pair, cut && n < 0)
		dst = append(dst, sep...)
	}
	return dst
}

func (r *Rules) pair(dst, pair []byte, cut bool) []byte {
	key, value, ok := bytes.Cut(pair, []byte("="))
	if !ok {
		return r.Args(dst, pair, cut)
	}
	dst = append(append(dst, key...), '=')
	var name [maxWord]byte
	if len(value) > 0 && (len(key) > maxWord || r.judge(decoded(name[:0], key)) != harmless) {
		return append(dst, mask...)
	}
	return r.Args(dst, value, cut)
}

// decoded undoes percent-encoding and +, as far as it is right.
func decoded(dst, b []byte) []byte {
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '%' && i+2 < len(b) && isHex(b[i+1]) && isHex(b[i+2]):
			dst = append(dst, hexValue(b[i+1])<<4|hexValue(b[i+2]))
			i += 2
		case b[i] == '+':
			dst = append(dst, ' ')
		default:
			dst = append(dst, b[i])
		}
	}
	return dst
}

func isHex(c byte) bool { return isDigit(c) || lower(c) >= 'a' && lower(c) <= 'f' }

func hexValue(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return lower(c) - 'a' + 10
}

// shortSegment is the length up to which an element of a path is taken for a
// word or an id: no token that is known by its shape is shorter.
const shortSegment = 16

// IsPlain reports whether a URL's path is of short elements without a mark that
// could set off a secret, as most are: Path leaves those as they are.
func IsPlain(path string) bool {
	length := 0
	for i := range len(path) {
		switch length++; path[i] {
		case '/':
			length = 1
		case '=', ':', '@':
			return false
		}
		if length > shortSegment {
			return false
		}
	}
	return true
}

// Path appends the redacted form of a URL's path to dst: elements that have the
// shape of a token are replaced.
func (r *Rules) Path(dst, path []byte) []byte {
	for len(path) > 0 {
		n := bytes.IndexByte(path[1:], '/') + 1
		if n == 0 {
			n = len(path)
		}
		segment := path[:n]
		path = path[n:]
		if len(segment) <= shortSegment && bytes.IndexAny(segment, "=:@") < 0 {
			dst = append(dst, segment...)
			continue
		}
		if segment[0] == '/' {
			dst, segment = append(dst, '/'), segment[1:]
		}
		dst = r.Args(dst, segment, false)
	}
	return dst
}
