package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// events turns a file of testdata/printed into test2json's events. There the
// byte 0x16, which marks the lines of -test.v=test2json, is shown as its sign.
func events(t testing.TB, file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	printed := strings.ReplaceAll(string(b), "\u2416", "\x16")
	out, err := goEnv{"."}.toEvents(context.Background(), "pkg", []byte(printed))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func parse(t testing.TB, stream string) (results, int) {
	rs := results{}
	torn, err := rs.readEvents(strings.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	return rs, torn
}

func (rs results) lines() string {
	var b strings.Builder
	for _, v := range []verdict{passed, failed, skipped} {
		for _, t := range rs.sorted(v) {
			fmt.Fprintf(&b, "%s %v %q\n", v, t, rs[t].why)
		}
	}
	return b.String()
}

func printedFiles(t testing.TB) []string {
	files, err := filepath.Glob("testdata/printed/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	return files
}

func TestReadEvents(t *testing.T) {
	var b strings.Builder
	for _, file := range printedFiles(t) {
		rs, torn := parse(t, events(t, file))
		fmt.Fprintf(&b, "%s: %d torn\n%s\n", filepath.Base(file), torn, rs.lines())
	}
	golden(t, "results.txt", b.String())
}

// However a stream is cut, no test passes that had not passed, and each that
// began has a verdict.
func TestReadEventsTorn(t *testing.T) {
	stream := events(t, "testdata/printed/whole.txt")
	whole, _ := parse(t, stream)
	for at := range len(stream) {
		rs, torn := parse(t, stream[:at])
		if torn > 1 {
			t.Fatalf("cut at %d: %d torn lines", at, torn)
		}
		for _, test := range rs.sorted(passed) {
			if whole[test].verdict != passed {
				t.Fatalf("cut at %d: %v passed", at, test)
			}
		}
		began := strings.Count(stream[:at], "}\n") > 0 && strings.Contains(stream[:at], `"run"`)
		if began && len(rs) == 0 && torn == 0 {
			t.Fatalf("cut at %d: no test", at)
		}
	}
}

func TestReadEventsForeignLines(t *testing.T) {
	rs, torn := parse(t, "# build output\n"+events(t, "testdata/printed/passed.txt")+"\n{\"x\":1}\n")
	if torn != 2 || rs[test{"pkg", "TestA"}].verdict != passed {
		t.Errorf("%d torn, %v", torn, rs)
	}
}

func TestSkippedEverywhere(t *testing.T) {
	at := func(name string, v verdict) results { return results{{"pkg", name}: {verdict: v}} }
	for name, c := range map[string]struct {
		machines []results
		want     []string
	}{
		"none":            {},
		"here and there":  {machines: []results{at("T", skipped), at("T", passed)}},
		"failed once":     {machines: []results{at("T", skipped), at("T", failed)}},
		"everywhere":      {machines: []results{at("T", skipped), at("T", skipped)}, want: []string{"T"}},
		"only one has it": {machines: []results{at("T", skipped), at("U", passed)}, want: []string{"T"}},
	} {
		var got []string
		for _, t := range skippedEverywhere(c.machines...) {
			got = append(got, t.name)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func FuzzReadEvents(f *testing.F) {
	for _, file := range printedFiles(f) {
		f.Add(events(f, file))
	}
	f.Fuzz(func(t *testing.T, stream string) {
		rs, torn := parse(t, stream)
		if lines := strings.Count(stream, "\n") + 1; torn > lines || len(rs) > lines {
			t.Fatalf("%d tests and %d torn of %d lines", len(rs), torn, lines)
		}
		for test, r := range rs {
			if r.verdict != passed && r.verdict != failed && r.verdict != skipped {
				t.Fatalf("%v: verdict %q", test, r.verdict)
			}
		}
	})
}
