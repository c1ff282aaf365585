package store

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ghostlight/internal/event"
)

// duck asks DuckDB one statement and returns the rows as JSON.
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

// TestDuckDB asks that DuckDB reads the segments as they are.
func TestDuckDB(t *testing.T) {
	if !hasDuckDB() {
		t.Skip("probe: node with @duckdb/node-api in NODE_PATH")
	}
	dir := t.TempDir()
	s := open(t, dir, Options{BlockRows: 1024, FlushRows: 2000})
	var b event.Batch
	b.Wall = wall
	for i := 0; i < 5000; i += 100 {
		someFlows(&b, i, 100)
		b.Processes = append(b.Processes, event.Process{Time: int64(i), Action: event.Exec, PID: 1, Who: &people[0]})
		s.Append(&b)
	}
	must(t, s.Close())
	flows := "'" + filepath.Join(dir, "flows", "*.parquet") + "'"
	for _, c := range []struct{ statement, want string }{
		{"select count(*), min(flow_id), max(flow_id), sum(bytes_sent)::bigint from " + flows, `[["5000","0","4999","12497500"]]`},
		{"select typeof(time), typeof(end_time), typeof(complete), typeof(process_command_args), typeof(attributes), typeof(source_port), typeof(service_name) from " + flows + " limit 1",
			`[["TIMESTAMP WITH TIME ZONE","TIMESTAMP WITH TIME ZONE","BOOLEAN","VARCHAR[]","MAP(VARCHAR, VARCHAR)","BIGINT","VARCHAR"]]`},
		{"select epoch_ns(time), process_command_args, attributes['k'], complete, container_id from " + flows + " where flow_id = 3", `[["1700000000000003000",["curl","-v","http://x"],"v",false,null]]`},
		{"select service_name, count(*) from " + flows + " group by 1 order by 1", `[["back\\slash","1666"],["nginx","1667"],["shop","1667"]]`},
		{"select count(*) from " + flows + " where tcp_close_reason is null and source_address like '10.0.1.%'", `[["171"]]`},
		{"select count(*) from '" + filepath.Join(dir, "processes", "*.parquet") + "' where action = 'exec'", `[["50"]]`},
	} {
		out, err := exec.Command("node", "-e", duck, c.statement).CombinedOutput()
		got := strings.TrimSpace(string(out))
		if err != nil || got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.statement, got, c.want)
		} else {
			t.Logf("%s: %s", c.statement, got)
		}
	}
}
