package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
)

// A test is one test or subtest; with no name, its package as a whole.
type test struct{ pkg, name string }

func (t test) String() string {
	if t.name == "" {
		return t.pkg
	}
	return t.pkg + " " + t.name
}

type verdict string

const (
	passed  verdict = "pass"
	failed  verdict = "fail"
	skipped verdict = "skip"
)

// A result is a test's verdict and, unless it passed, what it printed.
type result struct {
	verdict verdict
	why     string
}

type results map[test]result

const unfinished = "did not finish"

// maxWhy bounds what is kept of a test's output: the first lines, where a
// panic says what it is, and the last, with the verdict.
const maxWhy = 40

// readEvents adds the tests in a stream of test2json's events, as go test
// -json prints them, and returns how many lines were torn. A test that began
// and has no verdict failed: its process or its machine died.
func (rs results) readEvents(in io.Reader) (torn int, err error) {
	lines := bufio.NewReader(in)
	output := map[test][]string{}
	for {
		line, err := lines.ReadBytes('\n')
		if len(strings.TrimSpace(string(line))) > 0 && !rs.event(line, output) {
			torn++
		}
		if errors.Is(err, io.EOF) {
			return torn, nil
		}
		if err != nil {
			return torn, err
		}
	}
}

func (rs results) event(line []byte, output map[test][]string) bool {
	var e struct{ Action, Package, Test, Output string }
	if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
		return false
	}
	t := test{e.Package, e.Test}
	switch e.Action {
	case "run":
		rs[t] = result{failed, unfinished}
	case "output":
		output[t] = append(output[t], e.Output)
		if len(output[t]) > maxWhy {
			output[t] = slices.Delete(output[t], maxWhy/2, maxWhy/2+1)
		}
		if r, ok := rs[t]; ok && r.verdict == failed && t.name != "" {
			rs[t] = result{failed, unfinished + why("\n", output[t])}
		}
	case "pass":
		rs.set(t, result{verdict: passed})
	case "skip":
		rs.set(t, result{skipped, strings.TrimPrefix(why("; ", output[t]), "; ")})
	case "fail":
		rs.set(t, result{failed, strings.TrimPrefix(why("\n", output[t]), "\n")})
	}
	return true
}

// set keeps no verdict of a whole package but a failure that is no test's: a
// panic outside tests, a time limit, a process killed.
func (rs results) set(t test, r result) {
	if t.name != "" {
		rs[t] = r
		return
	}
	if r.verdict == failed && rs.count(t.pkg, failed) == 0 {
		rs[t] = r
	}
}

func (rs results) count(pkg string, v verdict) (n int) {
	for t, r := range rs {
		if (pkg == "" || t.pkg == pkg) && r.verdict == v {
			n++
		}
	}
	return n
}

// sorted lists the tests with a verdict, by package and name.
func (rs results) sorted(v verdict) []test {
	var list []test
	for t, r := range rs {
		if r.verdict == v {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, compareTests)
	return list
}

func compareTests(a, b test) int { return strings.Compare(a.String(), b.String()) }

var (
	frameLine = regexp.MustCompile(`^\s*(=== |--- |PASS$|FAIL$|FAIL\s|exit status )`)
	position  = regexp.MustCompile(`^\s*\w+\.go:\d+: `)
)

// why is what a test said, without the lines go test adds, each after sep.
func why(sep string, output []string) string {
	var b strings.Builder
	for _, line := range output {
		line = strings.Trim(line, "\r\n\x16")
		if strings.TrimSpace(line) == "" || frameLine.MatchString(line) {
			continue
		}
		b.WriteString(sep)
		b.WriteString(strings.TrimSpace(position.ReplaceAllString(line, "")))
	}
	return b.String()
}

// skippedEverywhere lists the tests that ran on none of the machines that
// have them: those that are no test at all.
func skippedEverywhere(machines ...results) []test {
	ran, skips := map[test]bool{}, map[test]bool{}
	for _, rs := range machines {
		for t, r := range rs {
			if r.verdict == skipped {
				skips[t] = true
			} else {
				ran[t] = true
			}
		}
	}
	var list []test
	for t := range skips {
		if !ran[t] {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, compareTests)
	return list
}
