package segment

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"

	"ghostlight/internal/event"
)

// member is one key of the JSON object: a column, or an object of its own.
type member struct {
	key     string // as it is written: "key":
	name    string
	column  int // -1: an object
	members []member
}

func addMember(in []member, path []string, column int) []member {
	if len(path) == 1 {
		return append(in, newMember(path[0], column))
	}
	for i := range in {
		if in[i].name == path[0] && in[i].column < 0 {
			in[i].members = addMember(in[i].members, path[1:], column)
			return in
		}
	}
	m := newMember(path[0], -1)
	m.members = addMember(nil, path[1:], column)
	return append(in, m)
}

func newMember(name string, column int) member {
	return member{key: string(appendString(nil, []byte(name))) + ":", name: name, column: column}
}

// AppendJSON adds a row as a JSON object: "kind" first, keys nested by the
// dots of the column names, absent values left out, times in RFC 3339 (UTC).
func (r *Rows) AppendJSON(dst []byte, row int) []byte {
	dst = append(dst, `{"kind":"`...)
	dst = append(dst, r.Schema.Table.Kind.String()...)
	dst = append(dst, '"')
	return append(r.appendMembers(dst, r.Schema.members, row), '}')
}

func (r *Rows) appendMembers(dst []byte, members []member, row int) []byte {
	for i := range members {
		m := &members[i]
		start := len(dst)
		if dst[start-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(dst, m.key...)
		value := len(dst)
		if m.column >= 0 {
			dst = r.AppendValue(dst, m.column, row)
		} else if dst = r.appendMembers(append(dst, '{'), m.members, row); len(dst) > value+1 {
			dst = append(dst, '}')
		} else {
			dst = dst[:value]
		}
		if len(dst) == value {
			dst = dst[:start]
		}
	}
	return dst
}

// AppendValue adds one cell as JSON, nothing where there is no value.
func (r *Rows) AppendValue(dst []byte, column, row int) []byte {
	t := r.Schema.Table.Columns[column].Type
	if IsInt(t) {
		return appendInt(dst, t, r.Int(column, row))
	}
	cell := r.Bytes(column, row)
	if len(cell) == 0 {
		return dst
	}
	switch t {
	case event.Strings:
		return AppendList(dst, cell)
	case event.Map:
		return AppendMap(dst, cell)
	}
	return appendString(dst, cell)
}

func appendInt(dst []byte, t event.Type, n int64) []byte {
	switch {
	case n == event.Null:
		return dst
	case t == event.Bool:
		return strconv.AppendBool(dst, n != 0)
	case t == event.Time:
		dst = append(dst, '"')
		dst = time.Unix(0, n).UTC().AppendFormat(dst, time.RFC3339Nano)
		return append(dst, '"')
	}
	return strconv.AppendInt(dst, n, 10)
}

// AppendList adds a list cell as a JSON array.
func AppendList(dst, cell []byte) []byte {
	dst = append(dst, '[')
	for more := len(cell) > 0; more; {
		var item []byte
		item, cell, more = bytes.Cut(cell, []byte{0})
		dst = appendString(dst, item)
		if more {
			dst = append(dst, ',')
		}
	}
	return append(dst, ']')
}

// AppendMap adds a map cell as a JSON object.
func AppendMap(dst, cell []byte) []byte {
	dst = append(dst, '{')
	for more := len(cell) > 0; more; {
		var key, value []byte
		key, cell, _ = bytes.Cut(cell, []byte{0})
		value, cell, more = bytes.Cut(cell, []byte{0})
		dst = append(appendString(dst, key), ':')
		dst = appendString(dst, value)
		if more {
			dst = append(dst, ',')
		}
	}
	return append(dst, '}')
}

const hexDigits = "0123456789abcdef"

// appendString adds s in quotes. Bytes that are not UTF-8 become U+FFFD.
func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[from:i]...), "\ufffd"...)
				from = i + 1
			}
			i += n
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}
