package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"ghostlight/test/vm/plan"
)

const mark = "\x16"

// replay feeds frames as a machine would have sent them.
func replay(x *matrix, frames ...plan.Frame) *outcome {
	ctx := context.Background()
	o := &outcome{kernel: kernel{Series: "6.1"}, results: results{}, elapsed: time.Second}
	x.runs = append(x.runs, o)
	printed := map[string]*bytes.Buffer{}
	for _, f := range frames {
		x.frame(ctx, o, printed, f)
	}
	x.missing(ctx, o, printed)
	return o
}

func newMatrix(tests ...string) *matrix {
	return &matrix{env: goEnv{"."}, suites: []suite{{pkg: "pkg", tests: tests}}}
}

func out(text string) plan.Frame { return plan.Frame{Job: "pkg", Out: text} }

func end(code int, err string) plan.Frame {
	return plan.Frame{Job: "pkg", End: &plan.End{Code: code, Error: err}}
}

func TestMatrixVerdict(t *testing.T) {
	run, pass := mark+"=== RUN   TestA\n", mark+"--- PASS: TestA (0.00s)\n"
	skip := mark + "--- SKIP: TestA (0.00s)\n"
	ok := mark + "PASS\n"
	for name, c := range map[string]struct {
		frames []plan.Frame
		host   results
		want   string // in the error or the report; empty if all is well
	}{
		"passed":            {frames: []plan.Frame{out(run), out(pass), out(ok), end(0, "")}},
		"failed":            {frames: []plan.Frame{out(run), out(mark + "--- FAIL: TestA (0.00s)\n"), end(1, "exit status 1")}, want: "failed on 6.1: pkg TestA"},
		"never ran":         {want: "did not run"},
		"ran no test":       {frames: []plan.Frame{out("testing: warning: no tests to run\n"), out(ok), end(0, "")}, want: "did not run"},
		"machine died":      {frames: []plan.Frame{out(run)}, want: "did not finish"},
		"killed after pass": {frames: []plan.Frame{out(run), out(pass), out(ok), end(-1, "signal: killed")}, want: "signal: killed"},
		"cannot start":      {frames: []plan.Frame{end(-1, "exec format error")}, want: "exec format error"},
		"guest complains":   {frames: []plan.Frame{{Note: "insert veth: refused"}, out(run), out(pass), out(ok), end(0, "")}, want: "insert veth: refused"},
		"skipped, no host":  {frames: []plan.Frame{out(run), out(skip), out(ok), end(0, "")}},
		"skipped on both": {frames: []plan.Frame{out(run), out(skip), out(ok), end(0, "")},
			host: results{{"pkg", "TestA"}: {verdict: skipped}}, want: "skipped everywhere"},
		"host runs it": {frames: []plan.Frame{out(run), out(skip), out(ok), end(0, "")},
			host: results{{"pkg", "TestA"}: {verdict: passed}}},
		"host skips another": {frames: []plan.Frame{out(run), out(pass), out(ok), end(0, "")},
			host: results{{"pkg", "TestB"}: {verdict: skipped}}},
	} {
		x := newMatrix("TestA")
		replay(x, c.frames...)
		var report bytes.Buffer
		err := x.conclude(&report, c.host)
		if (err != nil) != (c.want != "") {
			t.Errorf("%s: error %v\n%s", name, err, report.String())
			continue
		}
		if err != nil && !strings.Contains(err.Error()+report.String(), c.want) {
			t.Errorf("%s: no %q in: %v\n%s", name, c.want, err, report.String())
		}
	}
}

func TestMatrixDoctor(t *testing.T) {
	x := newMatrix()
	x.doctor = true
	doctor := func(code int, text string) []plan.Frame {
		return []plan.Frame{{Job: doctorJob, Out: text}, {Job: doctorJob, End: &plan.End{Code: code}}}
	}
	replay(x, doctor(0, `{
	"ok": true,
	"probes": [{"name": "fentry", "ok": false}, {"name": "tp_btf", "ok": true}],
	"sensors": [{"name": "tcp", "ok": true, "hooks": [{"what": "close", "tier": "tp_btf tcp_destroy_sock"}, {"what": "reset", "tier": ""}]}]
}
`)...)
	var report bytes.Buffer
	if err := x.conclude(&report, nil); err != nil {
		t.Fatal(err)
	}
	golden(t, "doctor.txt", report.String())

	for name, frames := range map[string][]plan.Frame{"exit 1": doctor(1, "{}\n"), "no JSON": doctor(0, "{\n"), "did not run": nil} {
		x := newMatrix()
		x.doctor = true
		replay(x, frames...)
		if err := x.conclude(&report, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
