package sqltext

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

var rewrite = flag.Bool("rewrite", false, "write what is read into testdata")

const queries = "testdata/queries.txt"

func TestRead(t *testing.T) {
	text, err := os.ReadFile(queries)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	var q Query
	n := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "\t") {
			continue
		}
		got.WriteString(line + "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		o, sql := parseCase(t, line)
		q.Read(sql, o)
		n++
		fmt.Fprintf(&got, "\t%s\n\toperation=%q target=%q summary=%q\n", q.Text, q.Operation, q.Target, q.Summary)
		if bytes.Contains(q.Text, []byte("secret")) || bytes.Contains(q.Text, []byte("hunter2")) {
			t.Errorf("%s: a literal shows: %s", line, q.Text)
		}
	}
	if n < 50 {
		t.Fatalf("only %d queries", n)
	}
	if *rewrite {
		if err := os.WriteFile(queries, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got.String() != string(text) {
		t.Errorf("read:\n%s\nwant:\n%s", got.String(), text)
	}
}

func parseCase(t *testing.T, line string) (o Options, sql []byte) {
	t.Helper()
	how, quoted, _ := strings.Cut(line, ": ")
	for _, w := range strings.Fields(how) {
		switch w {
		case "postgresql":
			o.Dialect = PostgreSQL
		case "mysql":
			o.Dialect = MySQL
		case "cut":
			o.Cut = true
		case "backslash":
			o.Escapes = Backslash
		case "standard":
			o.Escapes = Standard
		default:
			t.Fatalf("what is %q?", w)
		}
	}
	s, err := strconv.Unquote(quoted)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return o, []byte(s)
}

// However long the query, its texts are bounded and end with a whole word.
func TestBounds(t *testing.T) {
	var q Query
	sql := "SELECT " + strings.Repeat("a_long_column + ", 500) + "x FROM " + strings.Repeat("some_table, ", 500) + "t"
	q.Read([]byte(sql), Options{})
	if len(q.Text) > MaxText || len(q.Summary) > MaxSummary {
		t.Errorf("text %d, summary %d bytes", len(q.Text), len(q.Summary))
	}
	if !bytes.HasSuffix(q.Summary, []byte(" some_table")) || string(q.Target) != "some_table" {
		t.Errorf("summary %q, target %q", q.Summary, q.Target)
	}
	q.Read([]byte(strings.Repeat("(", 1000)+"SELECT a FROM t"), Options{})
	if string(q.Operation) != "SELECT" {
		t.Errorf("operation %q", q.Operation)
	}
}

// Whatever a truncated query ends with, no literal and no half name shows.
func TestCutAnywhere(t *testing.T) {
	text, err := os.ReadFile(queries)
	if err != nil {
		t.Fatal(err)
	}
	var q Query
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '\t' || line[0] == '#' {
			continue
		}
		o, sql := parseCase(t, line)
		q.Read(sql, o)
		whole := " " + string(q.Summary) + " "
		o.Cut = true
		for n := range sql {
			q.Read(sql[:n], o)
			if !strings.HasPrefix(whole, " "+string(q.Summary)+" ") && len(q.Summary) > 0 {
				t.Errorf("%s cut at %d: summary %q is no beginning of %q", line, n, q.Summary, whole)
			}
			if bytes.Contains(q.Text, []byte("secr")) || bytes.Contains(q.Text, []byte("hunt")) {
				t.Errorf("%s cut at %d: %q", line, n, q.Text)
			}
		}
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	var q Query
	sql := []byte("INSERT INTO orders (a, b) VALUES (1, 'x'), (2, 'y') ON CONFLICT DO NOTHING /* c */; SELECT * FROM \"a b\" JOIN c USING (id) WHERE x IN (1,2,3)")
	q.Read(sql, Options{})
	if n := testing.AllocsPerRun(100, func() { q.Read(sql, Options{}) }); n != 0 {
		t.Errorf("%v allocations a query", n)
	}
}

func BenchmarkRead(b *testing.B) {
	var q Query
	sql := []byte("SELECT abalance, name FROM pgbench_accounts a JOIN pgbench_branches b ON a.bid = b.bid WHERE aid = 123456 AND name = 'somebody'")
	b.SetBytes(int64(len(sql)))
	b.ReportAllocs()
	for b.Loop() {
		q.Read(sql, Options{})
	}
}

// FuzzRead reads anything.
func FuzzRead(f *testing.F) {
	f.Add([]byte("SELECT 'a' FROM t /* x */ -- y\n"), uint8(0))
	f.Add([]byte("SELECT E'\\'' $a$ $a$ `x` \"y\" IN (1,2) VALUES (1),(2)"), uint8(3))
	f.Fuzz(func(t *testing.T, sql []byte, how uint8) {
		var q Query
		q.Read(sql, options(how))
		if len(q.Text) > MaxText || len(q.Summary) > MaxSummary {
			t.Errorf("text %d, summary %d bytes", len(q.Text), len(q.Summary))
		}
		if !utf8.Valid(q.Text) || !utf8.Valid(q.Summary) {
			t.Errorf("%q, %q", q.Text, q.Summary)
		}
	})
}

func options(how uint8) Options {
	return Options{Dialect: Dialect(how & 1), Escapes: Escapes(how >> 1 % 3), Cut: how&128 != 0}
}

// FuzzSecret builds queries in which each literal holds a secret, escaped as the
// server would want it, cuts them anywhere, and looks for it. The server's
// setting is told to the reader or is not.
func FuzzSecret(f *testing.F) {
	for seed := range uint64(50) {
		f.Add([]byte{byte(seed), 39, 92, 39, 34, 92}, seed)
	}
	f.Fuzz(func(t *testing.T, noise []byte, seed uint64) {
		if len(noise) > 64 || !utf8.Valid(noise) {
			return
		}
		r := rand.New(rand.NewPCG(seed, 3))
		dialect, server := Dialect(r.IntN(2)), Backslash+Escapes(r.IntN(2))
		sql := withSecrets(r, noise, dialect, server)
		o := Options{Dialect: dialect, Escapes: server}
		if r.IntN(2) == 0 {
			o.Escapes = Unknown
		}
		if r.IntN(2) == 0 {
			o.Cut, sql = true, sql[:r.IntN(len(sql)+1)]
		}
		var q Query
		q.Read(sql, o)
		if bytes.Contains(q.Text, []byte(secret[:4])) || bytes.Contains(q.Summary, []byte(secret[:4])) {
			t.Errorf("seed %d, %+v, server %d: %q\nreads %q\n%q", seed, o, server, sql, q.Text, q.Summary)
		}
	})
}

const secret = "7ZQX81KJ"

// withSecrets writes a query of many literals.
func withSecrets(r *rand.Rand, noise []byte, d Dialect, server Escapes) []byte {
	b := []byte("SELECT a FROM t WHERE ")
	between := []string{" = ", ", ", " IN (", ") AND (b, ", " VALUES (", "), (", " || ", "\n", " FROM ", " -- " + secret + "'\n", " /* " + secret + "' */ ", " JOIN ", " [", "] "}
	for range 1 + r.IntN(8) {
		b = append(b, between[r.IntN(len(between))]...)
		content := append(append([]byte{}, cutNoise(r, noise)...), secret...)
		content = append(content, cutNoise(r, noise)...)
		b = appendLiteral(b, r, content, d, server)
		if r.IntN(3) == 0 {
			b = append(b, " x"...)
		}
	}
	return b
}

// cutNoise returns a piece of noise that is valid UTF-8, without NUL, which ends
// a text.
func cutNoise(r *rand.Rand, noise []byte) []byte {
	piece := noise[:r.IntN(len(noise)+1)]
	for !utf8.Valid(piece) {
		piece = piece[:len(piece)-1]
	}
	return bytes.ReplaceAll(piece, []byte{0}, nil)
}

func appendLiteral(b []byte, r *rand.Rand, content []byte, d Dialect, server Escapes) []byte {
	quoted := func(quote byte, esc Escapes) {
		b = append(b, quote)
		for _, c := range content {
			switch {
			case c == quote && esc == Backslash && r.IntN(2) == 0:
				b = append(b, '\\', c)
			case c == quote:
				b = append(b, c, c)
			case c == '\\' && esc == Backslash:
				b = append(b, c, c)
			default:
				b = append(b, c)
			}
		}
		b = append(b, quote)
	}
	switch r.IntN(6) {
	case 0:
		return append(append(b, "4"...), secret...) // a number
	case 1:
		if d == PostgreSQL && !bytes.Contains(content, []byte("$")) {
			return append(append(append(b, " $q$"...), content...), "$q$"...)
		}
	case 2:
		if d == PostgreSQL {
			b = append(b, " E"...)
			quoted('\'', Backslash)
			return b
		}
		quoted('"', server)
		return b
	case 3:
		b = append(b, " N"...)
	}
	quoted('\'', server)
	return b
}

func TestWords(t *testing.T) {
	var q Query
	var w Words
	text, summary, operation, target := w.Split(string(w.Bytes()))
	if text+summary+operation+target != "" {
		t.Error("the zero Words say something")
	}
	q.Read([]byte("UPDATE a.b SET c = 1"), Options{})
	w.Set(&q)
	q.Read([]byte("SELECT 1"), Options{})
	text, summary, operation, target = w.Split(string(w.Bytes()))
	if text != "UPDATE a.b SET c = ?" || summary != "UPDATE a.b" || operation != "UPDATE" || target != "a.b" {
		t.Errorf("%q %q %q %q", text, summary, operation, target)
	}
}

func TestTraceparent(t *testing.T) {
	var q Query
	for _, c := range []struct {
		sql  string
		d    Dialect
		want string
	}{
		{"SELECT 1 /*traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',tracestate='congo%3Dt61'*/", PostgreSQL, "4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7"},
		{"/* service='a',traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00' */ SELECT 1", MySQL, "4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7"},
		{"SELECT '/*traceparent=''00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01''*/'", PostgreSQL, "00000000000000000000000000000000 0000000000000000"},
		{"SELECT 1 /*traceparent='00-4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-01'*/", PostgreSQL, "00000000000000000000000000000000 0000000000000000"},
		{"SELECT 1 /*traceparent='00-00000000000000000000000000000000-00f067aa0ba902b7-01'*/", PostgreSQL, "00000000000000000000000000000000 0000000000000000"},
		{"SELECT 1 /*traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", PostgreSQL, "00000000000000000000000000000000 0000000000000000"},
	} {
		q.Read([]byte(c.sql), Options{Dialect: c.d})
		if got := fmt.Sprintf("%x %x", q.TraceID, q.ParentID); got != c.want {
			t.Errorf("%s: %s", c.sql, got)
		}
	}
}
