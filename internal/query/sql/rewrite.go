package sql

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

// names knows the columns of all tables by their SQL name.
type names map[string]event.Type

func namesOf(schemas []*segment.Schema) names {
	all := names{}
	for _, s := range schemas {
		for i, name := range s.SQL {
			all[strings.ToLower(name)] = s.Table.Columns[i].Type
		}
	}
	return all
}

// edit replaces bytes of a statement.
type edit struct {
	from, until int
	with        string
}

// rewrite makes times and durations numbers: times are Unix nanoseconds, as
// their columns are.
//
//	now()                       the moment the query began
//	ago('15m')                  now() - 15 minutes; units ns us ms s m h d w
//	duration('5ms')             5000000
//	now() - '1h'                the same as ago('1h')
//	time > '2026-11-20 02:00'   text beside a time column: RFC 3339 or parts of it, UTC
//	tcp_rtt_ns > '5ms'          text beside a duration column
func rewrite(s string, all []token, n names, now int64) (string, error) {
	var edits []edit
	var err error
	for i := range all {
		var e edit
		switch {
		case calls(all, i, "now") && all[i+2].is(")"):
			e, err = rewriteNow(all, i, now)
		case calls(all, i, "ago") && all[i+2].kind == text && all[i+3].is(")"):
			e, err = constant(all, i, func(d int64) int64 { return now - d })
		case calls(all, i, "duration") && all[i+2].kind == text && all[i+3].is(")"):
			e, err = constant(all, i, func(d int64) int64 { return d })
		case all[i].kind == text:
			e, err = rewriteText(all, i, n)
		}
		if err != nil {
			return "", err
		}
		if e.until > 0 && (len(edits) == 0 || e.from >= edits[len(edits)-1].until) {
			edits = append(edits, e)
		}
	}
	var b strings.Builder
	at := 0
	for _, e := range edits {
		b.WriteString(s[at:e.from])
		b.WriteString(e.with)
		at = e.until
	}
	b.WriteString(s[at:])
	return b.String(), nil
}

// calls tells whether token i begins a call of a function.
func calls(all []token, i int, function string) bool {
	return all[i].kind == word && strings.EqualFold(all[i].text, function) && i+3 < len(all) && all[i+1].is("(")
}

func rewriteNow(all []token, i int, now int64) (edit, error) {
	e := edit{all[i].from, all[i+2].until, strconv.FormatInt(now, 10)}
	if i+4 < len(all) && (all[i+3].is("-") || all[i+3].is("+")) && all[i+4].kind == text {
		d, ok := Duration(all[i+4].text)
		if !ok {
			return e, badDuration(all[i+4].text)
		}
		if all[i+3].is("-") {
			d = -d
		}
		e.until, e.with = all[i+4].until, strconv.FormatInt(now+d, 10)
	}
	return e, nil
}

func constant(all []token, i int, value func(int64) int64) (edit, error) {
	d, ok := Duration(all[i+2].text)
	if !ok {
		return edit{}, badDuration(all[i+2].text)
	}
	return edit{all[i].from, all[i+3].until, strconv.FormatInt(value(d), 10)}, nil
}

func badDuration(s string) error {
	return &Error{Message: fmt.Sprintf("%q is not a duration", s), Hint: "write '90s', '15m', '1h30m' or '2d'"}
}

// rewriteText makes text that is compared with a time or duration a number.
func rewriteText(all []token, i int, n names) (edit, error) {
	t, ok := comparedWith(all, i, n)
	if !ok {
		return edit{}, nil
	}
	value := all[i].text
	switch t {
	case event.Time:
		ns, ok := Time(value)
		if !ok {
			return edit{}, &Error{Message: fmt.Sprintf("%q is compared with a time, but is none", value), Hint: "write '2026-11-20T02:00:00Z', or ago('1h')"}
		}
		return edit{all[i].from, all[i].until, strconv.FormatInt(ns, 10)}, nil
	case event.Duration:
		if d, ok := Duration(value); ok {
			return edit{all[i].from, all[i].until, strconv.FormatInt(d, 10)}, nil
		}
	}
	return edit{}, nil
}

// comparedWith finds the type of the column that text at i is compared with.
func comparedWith(all []token, i int, n names) (event.Type, bool) {
	if i > 1 && comparison(all[i-1]) {
		return n.column(all[i-2])
	}
	if i+2 < len(all) && comparison(all[i+1]) {
		c := i + 2
		for c+2 < len(all) && all[c+1].is(".") { // table.column
			c += 2
		}
		return n.column(all[c])
	}
	if i > 1 && all[i-1].is("between") {
		return n.column(all[i-2])
	}
	if i > 3 && all[i-1].is("and") && all[i-3].is("between") {
		return n.column(all[i-4])
	}
	return inList(all, i, n)
}

// inList finds the column before IN ( ... text.
func inList(all []token, i int, n names) (event.Type, bool) {
	for j := i - 1; j > 1; j-- {
		switch {
		case all[j].is("(") && all[j-1].is("in"):
			c := j - 2
			if all[c].is("not") {
				c--
			}
			if c < 0 {
				return 0, false
			}
			return n.column(all[c])
		case all[j].is(","), all[j].kind == text, all[j].kind == number:
		default:
			return 0, false
		}
	}
	return 0, false
}

func comparison(t token) bool {
	if t.kind != symbol {
		return false
	}
	switch t.text {
	case "=", "==", "<", ">", "<=", ">=", "<>", "!=":
		return true
	}
	return false
}

func (n names) column(t token) (event.Type, bool) {
	name, ok := t.name()
	if !ok {
		return 0, false
	}
	kind, ok := n[strings.ToLower(name)]
	return kind, ok
}

// timeForms are the ways to write a time, UTC where there is no zone.
var timeForms = []string{
	time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999",
	"2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02",
}

// Time reads a time as Unix nanoseconds.
func Time(s string) (int64, bool) {
	for _, form := range timeForms {
		if t, err := time.Parse(form, s); err == nil && t.Year() > 1678 && t.Year() < 2262 {
			return t.UnixNano(), true
		}
	}
	return 0, false
}

// Duration reads Go's durations, and days and weeks.
func Duration(s string) (int64, bool) {
	s = strings.TrimSpace(s)
	for _, u := range []struct {
		suffix string
		unit   time.Duration
	}{{"d", 24 * time.Hour}, {"w", 7 * 24 * time.Hour}} {
		if digits, ok := strings.CutSuffix(s, u.suffix); ok {
			n, err := strconv.ParseFloat(digits, 64)
			if err != nil || n < 0 || n > 100_000 {
				return 0, false
			}
			return int64(n * float64(u.unit)), true
		}
	}
	d, err := time.ParseDuration(s)
	return int64(d), err == nil
}
