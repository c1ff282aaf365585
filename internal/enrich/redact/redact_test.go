package redact

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite testdata")

// The files hold cases: input, a line ----, output. Arguments are separated by
// ¦ and newlines written \n. A line "deny: x y" extends the rules from there
// on; "cut: " before an input says that its end is missing.
func TestCases(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	total := 0
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { total += runFile(t, file) })
	}
	if total < 80 {
		t.Errorf("%d cases, want 80 at least", total)
	}
}

func runFile(t *testing.T, file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	rules, cases := New(nil), 0
	for i := 0; i < len(lines); i++ {
		if extra, ok := strings.CutPrefix(lines[i], "deny: "); ok {
			rules = New(strings.Fields(extra))
		}
		if lines[i] != "----" || i == 0 || i+1 >= len(lines) {
			continue
		}
		input, cut := strings.CutPrefix(lines[i-1], "cut: ")
		got := encode(rules.Args(nil, decode(input), cut))
		cases++
		if again := encode(rules.Args(nil, decode(got), cut)); again != got {
			t.Errorf("%s:%d: not idempotent\nonce  %s\ntwice %s", file, i, got, again)
		}
		if *update {
			lines[i+1] = got
		} else if got != lines[i+1] {
			t.Errorf("%s:%d\ninput %s\ngot   %s\nwant  %s", file, i, lines[i-1], got, lines[i+1])
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return cases
}

func decode(s string) []byte {
	return []byte(strings.NewReplacer("¦", "\x00", `\n`, "\n").Replace(s))
}

func encode(b []byte) string {
	return strings.NewReplacer("\x00", "¦", "\n", `\n`).Replace(string(b))
}

func TestArgsAllocatesNothing(t *testing.T) {
	rules, dst := New([]string{"license"}), make([]byte, 0, 1024)
	src := decode("curl¦-H¦Authorization: Bearer abc¦--data¦{\"password\":\"x\"}¦https://u:p@h/?token=1&q=2")
	if n := testing.AllocsPerRun(100, func() { dst = rules.Args(dst[:0], src, false) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if !bytes.Contains(dst, []byte("token=***&q=2")) {
		t.Errorf("%s", encode(dst))
	}
}

// Time grows with the length only, whatever is repeated.
func TestLinear(t *testing.T) {
	rules := New([]string{"license"})
	for _, unit := range []string{"a,", "-,", "://a:b", "a=", "token ", "--x ", "set ", "'", "\"", "[", "password:", "Bearer ", "-----BEGIN ", "eyJ,", "%3D", "a@tcp(,"} {
		took := func(n int) time.Duration {
			src, dst := []byte(strings.Repeat(unit, n/len(unit))), make([]byte, 0, 4*n)
			best := time.Hour
			for range 5 {
				begin := time.Now()
				rules.Args(dst, src, true)
				best = min(best, time.Since(begin))
			}
			return best
		}
		if short, long := took(4<<10), took(128<<10); long > 300*short {
			t.Errorf("%q: 32 times the length takes %.0f times as long", unit, float64(long)/float64(short))
		}
	}
}
