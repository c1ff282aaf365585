package main

import (
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	in := `{"Action":"output","Package":"p","Test":"A","Output":"x.go:1: noise\n"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"B","Output":"=== RUN B\n"}
{"Action":"output","Package":"p","Test":"B","Output":"    x.go:2: kprobe (since Linux 4.1): none here\n"}
{"Action":"skip","Package":"p","Test":"B"}
{"Action":"output","Package":"p","Test":"C","Output":"    x.go:3: broken\n"}
{"Action":"fail","Package":"p","Test":"C"}
{"Action":"fail","Package":"p","Elapsed":1}
# p [build failed]
`
	tl, out := tally{output: map[string][]string{}}, &strings.Builder{}
	if err := tl.read(strings.NewReader(in), out); err != nil {
		t.Fatal(err)
	}
	if tl.passed != 1 || tl.failed != 2 || tl.skipped != 1 {
		t.Errorf("%d passed, %d failed, %d skipped", tl.passed, tl.failed, tl.skipped)
	}
	for _, want := range []string{"x.go:3: broken", "FAIL p", "build failed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	if strings.Contains(out.String(), "noise") {
		t.Error("the output of a test that passed is shown")
	}
	if len(tl.skips) != 1 || !strings.Contains(tl.skips[0], "none here") {
		t.Errorf("skips %q", tl.skips)
	}
}
