package segment

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"ghostlight/internal/event"
)

// duck asks DuckDB one statement and prints the rows as JSON.
const duck = `
const {DuckDBInstance} = require('@duckdb/node-api');
(async () => {
  const c = await (await DuckDBInstance.create(':memory:')).connect();
  const r = await c.runAndReadAll(process.argv[1]);
  console.log(JSON.stringify(r.getRowsJson()));
})().catch(e => { console.error(String(e)); process.exit(1); });`

// hasDuckDB is the probe for DuckDB as a node module (npm install
// @duckdb/node-api, found by NODE_PATH).
func hasDuckDB() bool {
	if os.Getenv("NODE_PATH") == "" { // asked here too, so that a cached result knows of it
		return false
	}
	return exec.Command("node", "-e", "require('@duckdb/node-api')").Run() == nil
}

// TestDuckDB has DuckDB read files of all shapes and compares every cell:
// another reader than ours must see in our pages what we do.
func TestDuckDB(t *testing.T) {
	if !hasDuckDB() {
		t.Skip("probe: node with @duckdb/node-api in NODE_PATH")
	}
	s, err := NewSchema(&table)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 8))
		var sources []Source
		var want [][]any
		for range 3 {
			m := made(r, &table, uint64(len(want)), 1+r.IntN([]int{20, 700, 9000}[seed%3]))
			sources = append(sources, m)
			want = append(want, cellsOf(m)...)
		}
		f := segmentOf(t, s, sources)
		// Numbers as text: JavaScript's are not exact.
		out, err := exec.Command("node", "-e", duck, `select epoch_us("time")::varchar, a_b_n::varchar, a_ok, a_b_s, list, map_entries(attributes), took::varchar from '`+f.Path+`'`).Output()
		f.Close()
		if err != nil {
			t.Fatalf("seed %d: %v %s", seed, err, out)
		}
		var got [][]any
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		compareCells(t, seed, got, want)
	}
}

func compareCells(t *testing.T, seed uint64, got, want [][]any) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("seed %d: DuckDB reads %d rows, want %d", seed, len(got), len(want))
	}
	for i := range got {
		for column := range got[i] {
			g, _ := json.Marshal(got[i][column]) // of JSON and of plain values: cannot fail
			w, _ := json.Marshal(want[i][column])
			if string(g) != string(w) {
				t.Fatalf("seed %d, row %d, column %s: DuckDB reads %s, want %s", seed, i, table.Columns[column].Name, g, w)
			}
		}
	}
}

// cellsOf gives the cells of a source as DuckDB's JSON has them.
func cellsOf(m madeOf) [][]any {
	all := make([][]any, m.extent.Len)
	for i, c := range table.Columns {
		v := m.vectors[i]
		for row := range all {
			var cell any
			switch {
			case v.Codes != nil:
				cell = textOf(c.Type, string(v.Dict.Cell(v.Codes[row])), v.Codes[row] != 0)
			case v.Ints[row] == event.Null:
			case c.Type == event.Bool:
				cell = v.Ints[row] != 0
			case c.Type == event.Time: // DuckDB's have microseconds
				cell = strconv.FormatInt(v.Ints[row]/1000, 10)
			default:
				n, _ := json.Marshal(v.Ints[row]) // a number: cannot fail
				cell = string(n)
			}
			all[row] = append(all[row], cell)
		}
	}
	return all
}

func textOf(t event.Type, text string, some bool) any {
	if !some {
		return nil
	}
	parts := strings.Split(text, "\x00")
	switch t {
	case event.Strings:
		return parts
	case event.Map:
		entries := []map[string]string{}
		for i := 0; i+1 < len(parts); i += 2 {
			entries = append(entries, map[string]string{"key": parts[i], "value": parts[i+1]})
		}
		return entries
	}
	return text
}
