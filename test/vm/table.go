package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"ghostlight/internal/api"
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

// addDoctor adds a column from what `ghostlight doctor -o json` printed: the
// kernel's features, then what each sensor wants to see and by which tier.
func (t *table) addDoctor(column, printed string) error {
	var d api.Doctor
	if err := json.Unmarshal([]byte(printed), &d); err != nil {
		return fmt.Errorf("read what doctor printed: %w", err)
	}
	for _, p := range d.Probes {
		t.set(p.Name, column, yesNo[p.OK])
	}
	for _, s := range d.Sensors {
		for _, h := range s.Hooks {
			t.set(s.Name+": "+h.What, column, orDash(h.Tier))
		}
	}
	return nil
}

var yesNo = map[bool]string{true: "yes", false: "-"}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
