package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// A table has a row for what was asked and a column for each kernel.
type table struct {
	title   string
	columns []string
	rows    []string // in the order they came
	cells   map[[2]string]string
}

func newTable(title string) *table {
	return &table{title: title, cells: map[[2]string]string{}}
}

func (t *table) set(row, column, cell string) {
	if !slices.Contains(t.columns, column) {
		t.columns = append(t.columns, column)
	}
	if !slices.Contains(t.rows, row) {
		t.rows = append(t.rows, row)
	}
	t.cells[[2]string{row, column}] = cell
}

// print leaves out an empty table; a cell nobody set is a question mark.
func (t *table) print(out io.Writer) error {
	if len(t.rows) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "\n%s\t%s\n", t.title, strings.Join(t.columns, "\t"))
	for _, row := range t.rows {
		fmt.Fprint(w, row)
		for _, column := range t.columns {
			cell, ok := t.cells[[2]string{row, column}]
			if !ok {
				cell = "?"
			}
			fmt.Fprint(w, "\t", cell)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// capability is the smoke suite's test with a subtest for each capability.
const capability = "TestCapability/"

// addCapabilities adds a column from the smoke suite: passed is yes.
func (t *table) addCapabilities(column string, rs results) {
	var names []test
	for test := range rs {
		if strings.HasSuffix(test.pkg, smoke) && strings.HasPrefix(test.name, capability) {
			names = append(names, test)
		}
	}
	slices.SortFunc(names, compareTests)
	words := map[verdict]string{passed: "yes", skipped: "-", failed: "FAIL"}
	for _, test := range names {
		t.set(strings.TrimPrefix(test.name, capability), column, words[rs[test].verdict])
	}
}

// addDoctor adds a column from what `ghostlight doctor -o json` printed. Of
// any nesting it takes two kinds of objects: a hook has `what` and `tier`
// (empty if none works), a probe has `name` and a boolean `ok`.
func (t *table) addDoctor(column, printed string) error {
	values := json.NewDecoder(strings.NewReader(printed))
	for {
		var v any
		if err := values.Decode(&v); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read what doctor printed: %w", err)
		}
		t.addReports(column, v)
	}
}

func (t *table) addReports(column string, v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			t.addReports(column, e)
		}
	case map[string]any:
		if row, cell, ok := report(v); ok {
			t.set(row, column, cell)
			return
		}
		for _, key := range sortedKeys(v) {
			t.addReports(column, v[key])
		}
	}
}

func report(v map[string]any) (row, cell string, ok bool) {
	what, isHook := v["what"].(string)
	tier, hasTier := v["tier"].(string)
	if isHook && hasTier {
		return what, orDash(tier), true
	}
	name, isProbe := v["name"].(string)
	works, hasOK := v["ok"].(bool)
	if !isProbe || !hasOK {
		return "", "", false
	}
	if works {
		return name, "yes", true
	}
	return name, "-", true
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
