package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// bytesText writes an amount with three significant digits: 78 B, 1.2 kB.
func bytesText(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	return scaled(float64(n), "B")
}

// countText writes a number with three significant digits: 950, 12.4 k.
func countText(n uint64) string {
	if n < 1000 {
		return strconv.FormatUint(n, 10)
	}
	return scaled(float64(n), "")
}

// binaryText writes an amount of memory or disk in the units limits are given
// in: 28.6 MiB.
func binaryText(n int64) string {
	x, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if x < 1023.5 {
			break
		}
		x, unit = x/1024, u
	}
	return digits(x) + " " + unit
}

func scaled(x float64, unit string) string {
	prefixes := "kMGTPE"
	for i, p := range prefixes {
		x /= 1000
		if x < 999.5 || i == len(prefixes)-1 {
			return digits(x) + " " + string(p) + unit
		}
	}
	return ""
}

// digits writes x with three significant digits and no zeros at the end.
func digits(x float64) string {
	if x == 0 || math.IsNaN(x) {
		return "0"
	}
	places := max(0, 2-int(math.Floor(math.Log10(math.Abs(x)))))
	s := strconv.FormatFloat(x, 'f', min(places, 6), 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// spanText writes a duration with three significant digits up to a minute, and
// as 3m20s, 2h5m or 3d4h beyond.
func spanText(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + spanText(-d)
	case d < time.Microsecond:
		return strconv.FormatInt(int64(d), 10) + " ns"
	case d < time.Millisecond-500:
		return digits(float64(d)/1e3) + " µs"
	case d < time.Second-500*time.Microsecond:
		return digits(float64(d)/1e6) + " ms"
	case d < time.Minute-50*time.Millisecond:
		return digits(float64(d)/1e9) + " s"
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

func percentText(p float64) string { return digits(p) + " %" }

// clean makes text from the host harmless to a terminal: control characters,
// which could move its cursor or recolour it, and direction marks, which could
// make a name read as another, are shown and not sent.
func clean(s string) string {
	ok := func(r rune) bool { return r != utf8.RuneError && unicode.IsPrint(r) }
	if strings.IndexFunc(s, func(r rune) bool { return !ok(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case ok(r):
			b.WriteString(s[i : i+n])
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
		i += n
	}
	return b.String()
}

// width counts the characters of a text without escapes.
func width(s string) int { return utf8.RuneCountInString(s) }

// cut shortens s to n characters.
func cut(s string, n int) string {
	if width(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// style is a colour of the terminal; colours are never the only sign.
type style string

const (
	plainStyle style = ""
	dim        style = "2"
	bold       style = "1"
	red        style = "31"
	green      style = "32"
	yellow     style = "33"
	cyan       style = "36"
)

// paint colours s, if the terminal shows colours.
func (t Terminal) paint(s style, text string) string {
	if !t.Colour || s == plainStyle || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// grid is lines of cells in aligned columns. Cells are kept until widths are
// known: of everything that is there, and never less than before, so that a
// live view is steady.
type grid struct {
	term   Terminal
	widths []int
	right  []bool // columns that are aligned to the right
	rows   [][]cell
}

type cell struct {
	text  string
	style style
}

const maxWidth = 64 // a longer cell pushes its own line only

func (g *grid) add(cells ...cell) { g.rows = append(g.rows, cells) }

// flush writes the lines that were added.
func (g *grid) flush(w interface{ WriteString(string) (int, error) }) error {
	for _, row := range g.rows {
		for i, c := range row {
			if len(g.widths) <= i {
				g.widths = append(g.widths, 0)
			}
			if last := i == len(row)-1; last && !g.toRight(i) {
				continue // nothing comes after it
			}
			if n := width(c.text); n <= maxWidth {
				g.widths[i] = max(g.widths[i], n)
			}
		}
	}
	for _, row := range g.rows {
		if _, err := w.WriteString(g.line(row) + "\n"); err != nil {
			return err
		}
	}
	g.rows = g.rows[:0]
	return nil
}

func (g *grid) toRight(column int) bool { return column < len(g.right) && g.right[column] }

func (g *grid) line(row []cell) string {
	var b strings.Builder
	for i, c := range row {
		if i > 0 {
			b.WriteString("  ")
		}
		space := strings.Repeat(" ", max(0, g.widths[i]-width(c.text)))
		switch {
		case g.toRight(i):
			b.WriteString(space + g.term.paint(c.style, c.text))
		case i == len(row)-1:
			b.WriteString(g.term.paint(c.style, c.text))
		default:
			b.WriteString(g.term.paint(c.style, c.text) + space)
		}
	}
	return strings.TrimRight(b.String(), " ")
}
