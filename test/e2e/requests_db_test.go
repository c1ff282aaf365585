package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// input runs a client that reads its orders from standard input, so that no
// secret is in its command line.
func input(t *testing.T, orders string, line ...string) (out string, pid int) {
	t.Helper()
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdin = strings.NewReader(orders)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", line[0], err, b, &errs)
	}
	return string(b), cmd.Process.Pid
}

func redis(t *testing.T) *peer {
	t.Helper()
	p := newPeer(t)
	p.pid = background(t, "redis-server", "--port", p.port, "--bind", "127.0.0.1", "--save", "").Process.Pid
	listening(t, p.port)
	return p
}

func askRedis(t *testing.T, p *peer) []asked {
	t.Helper()
	const n, piped, kept = 2000, 160, 20
	bench := func(command string, n int, flags ...string) (pid int) {
		t.Helper()
		cmd := exec.Command("redis-benchmark", append(flags, "-p", p.port, "-n", strconv.Itoa(n), "-t", command, "-q")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return cmd.Process.Pid
	}
	get, incr := bench("get", n, "-P", "1", "-c", "4"), bench("incr", piped, "-P", "8", "-c", "2")
	_, pid := input(t, strings.Repeat("SET password "+secret()+"\n", kept), "redis-cli", "-p", p.port)
	count := func(command string, want int) func() {
		return func() {
			t.Helper()
			stats := run(t, "redis-cli", "-p", p.port, "info", "commandstats")
			if !strings.Contains(stats, fmt.Sprintf("cmdstat_%s:calls=%d,", command, want)) {
				t.Errorf("%d times %s was asked for: the server's count is\n%s", want, command, stats)
			}
		}
	}
	return []asked{
		{what: "db_operation_name = 'GET'", is: "protocol = 'redis' and db_system_name = 'redis' and error_type is null", n: n, client: get, served: count("get", n)},
		{what: "db_operation_name = 'INCR'", is: "protocol = 'redis' and error_type is null", n: piped, client: incr, served: count("incr", piped)},
		{what: "db_operation_name = 'SET'", is: "protocol = 'redis'", n: kept, client: pid, served: count("set", kept)},
	}
}

// database is a PostgreSQL with a table that is read and one that counts.
func database(t *testing.T) *peer {
	t.Helper()
	p := newPeer(t)
	p.port = postgres(t)
	run(t, "psql", "-h", "127.0.0.1", "-p", p.port, "-U", "postgres", "-q", "-c", "create table hits (n int, mode text)")
	return p
}

func askDatabase(t *testing.T, p *peer) []asked {
	t.Helper()
	const n = 50
	var all []asked
	for _, mode := range []string{"simple", "extended", "prepared"} {
		script := filepath.Join(filepath.Dir(p.served), mode)
		write(t, script, "\\set n random(1, 100)\nselect name as "+mode+" from items where id = :n and secret <> '"+secret()+"';\ninsert into hits values (:n, '"+mode+"');\n")
		bench := exec.Command("pgbench", "-h", "127.0.0.1", "-p", p.port, "-U", "postgres", "-n", "-c", "2", "-t", strconv.Itoa(n/2), "-M", mode, "-f", script, "postgres")
		if out, err := bench.CombinedOutput(); err != nil || !strings.Contains(string(out), fmt.Sprintf(": %d/%d", n, n)) {
			t.Fatalf("pgbench: %v\n%s", err, out)
		}
		who := " and (process_pid = " + strconv.Itoa(bench.Process.Pid) + " or peer_pid = " + strconv.Itoa(bench.Process.Pid) + ")"
		all = append(all,
			asked{what: "db_query_summary = 'SELECT items'" + who, is: "protocol = 'postgresql' and db_system_name = 'postgresql' and db_operation_name = 'SELECT' and db_query_text like '%as " + mode + " from items%'", n: n, client: bench.Process.Pid},
			asked{what: "db_query_summary = 'INSERT hits'" + who, is: "db_operation_name = 'INSERT'", n: n, client: bench.Process.Pid, served: func() {
				t.Helper()
				got := run(t, "psql", "-h", "127.0.0.1", "-p", p.port, "-U", "postgres", "-qAtc", "select count(*) from hits where mode = '"+mode+"'")
				if strings.TrimSpace(got) != strconv.Itoa(n) {
					t.Errorf("%d rows were inserted, the table has %s", n, got)
				}
			}})
	}
	_, pid := input(t, strings.Repeat("select nothing from nowhere;\n", 20), "psql", "-h", "127.0.0.1", "-p", p.port, "-U", "postgres", "-q", "-v", "ON_ERROR_STOP=0")
	return append(all, asked{what: "db_query_summary = 'SELECT nowhere'", is: "db_response_status_code = '42P01' and error_type = '42P01'", n: 20, client: pid})
}

// mariadb is a server that lets everybody in.
func mariadb(t *testing.T) *peer {
	t.Helper()
	p := newPeer(t)
	dir, err := os.MkdirTemp("", "ghostlight-maria-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	run(t, "mariadb-install-db", "--no-defaults", "--datadir="+dir+"/data", "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root")
	p.pid = background(t, "mariadbd", "--no-defaults", "--datadir="+dir+"/data", "--user=root", "--port="+p.port, "--bind-address=127.0.0.1",
		"--socket="+dir+"/socket", "--pid-file="+dir+"/pid", "--skip-grant-tables").Process.Pid
	listening(t, p.port)
	input(t, "create database shop; create table shop.numbers as select 1 n, 'x' secret;", "mariadb", "--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", p.port)
	return p
}

func askMariaDB(t *testing.T, p *peer) []asked {
	t.Helper()
	const n = 50
	const status = "show global status like 'Com_select';\n"
	orders := status + strings.Repeat("select n from numbers where secret <> '"+secret()+"';\n", n) + status +
		"prepare numbered from 'select n from numbers where n = ?';\n" + strings.Repeat("set @n = 1; execute numbered using @n;\n", n)
	out, pid := input(t, orders, "mariadb", "--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", p.port, "-N", "-B", "shop")
	var counts []int
	for line := range strings.Lines(out) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "Com_select\t"); ok {
			counts = append(counts, atoi(t, value))
		}
	}
	if len(counts) != 2 || counts[1]-counts[0] != n {
		t.Fatalf("%d rows were asked for: the server's counts are %v", n, counts)
	}
	return []asked{
		{what: "db_query_summary = 'SELECT numbers'", is: "protocol = 'mysql' and db_system_name in ('mysql', 'mariadb') and db_operation_name = 'SELECT' and db_namespace = 'shop'", n: n, client: pid},
		{what: "db_operation_name = 'EXECUTE'", is: "protocol = 'mysql'", n: n, client: pid},
	}
}
