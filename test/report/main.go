// Command report reads `go test -json` and prints what a person wants to know:
// a line per package, the output of what failed, and every skip with its
// reason. It exits with 1 if anything failed, and saves the raw stream for the
// kernel matrix, which must know what this host skipped.
//
//	go test -json ./... | go run ./test/report -save host.json
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is a line of test2json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

// tally is what became of the tests.
type tally struct {
	passed, failed, skipped int
	output                  map[string][]string // of tests that have not passed
	skips                   []string
}

func main() {
	save := flag.String("save", "", "keep the raw stream in this `file`")
	flag.Parse()
	in := io.Reader(os.Stdin)
	if *save != "" {
		f, err := os.Create(*save)
		if err != nil {
			fmt.Fprintln(os.Stderr, "report:", err)
			os.Exit(1)
		}
		defer f.Close()
		in = io.TeeReader(os.Stdin, f)
	}
	t := tally{output: map[string][]string{}}
	if err := t.read(in, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	for _, s := range t.skips {
		fmt.Println("skipped:", s)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	if t.failed > 0 || t.passed == 0 {
		os.Exit(1)
	}
}

func (t *tally) read(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(out, lines.Text()) // what the compiler says
			continue
		}
		t.add(e, out)
	}
	return lines.Err()
}

func (t *tally) add(e event, out io.Writer) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		if e.Package == "" {
			fmt.Fprint(out, e.Output)
			return
		}
		t.output[key] = append(t.output[key], e.Output)
	case "pass":
		t.finish(e, &t.passed, "ok", out)
		delete(t.output, key)
	case "skip":
		if e.Test != "" {
			t.skips = append(t.skips, key+": "+reason(t.output[key]))
		}
		t.finish(e, &t.skipped, "-", out)
	case "fail":
		fmt.Fprint(out, strings.Join(t.output[key], ""))
		t.finish(e, &t.failed, "FAIL", out)
	}
}

func (t *tally) finish(e event, n *int, word string, out io.Writer) {
	if e.Test == "" {
		if word == "FAIL" {
			*n++ // a package that does not build runs no test
		}
		fmt.Fprintf(out, "%-4s %s (%.1fs)\n", word, e.Package, e.Elapsed)
		return
	}
	*n++
}

// reason is the line of a skipped test that says why.
func reason(output []string) string {
	i := slices.IndexFunc(output, func(s string) bool { return strings.Contains(s, ".go:") })
	if i < 0 {
		return "no reason given"
	}
	return strings.TrimSpace(output[i])
}
