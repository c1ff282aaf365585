package cli

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func (r *root) requestsCommand() *cobra.Command {
	l := &listing{root: r, path: "/api/v1/requests", event: "request", what: "requests"}
	cmd := &cobra.Command{
		Use:     "requests [TERM...]",
		Aliases: []string{"request", "req"},
		Short:   "Show requests: who asked whom for what, how it went, how long it took",
		Long: `Show the requests of every protocol (HTTP, gRPC, DNS, SQL, Redis, Kafka, ...), oldest
first, encrypted ones too. Without a time range it shows the newest 20, with one the
newest 1000.

Each line is one end of a request: on the left the end the record belongs to, on the
right the other one; the arrow points from the client to the server. A request
between two processes of this host has two lines: the client's time less the server's
is what the way there and back took. ✗ marks a failure. "queue" is how long the
request lay in the server's socket before the process read it, which no measurement
inside the process can see.

TERMs are filters of the form field:value, -field:value, field>=10; all must hold,
and the same field twice means either. A bare word is a service, command, container,
address, path, route, method, table or topic. "--" comes before a TERM that begins
with a minus.

With no agent running, it watches by itself: for 5 s, or with -f until Ctrl-C.`,
		Example: `  ghostlight requests                               # the newest 20
  ghostlight requests -f --status error             # what fails, as it happens
  ghostlight requests --since 1h --service checkout --slower 500ms
  ghostlight requests -f --protocol postgresql --not --operation SELECT
  ghostlight requests --route '/pay/*' --status 5xx,404 -o wide
  ghostlight requests --since 15m --last 0 -o json | jq .duration_ns`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, words []string) error {
			l.requestPage()
			return l.run(cmd.Context(), words)
		},
	}
	l.flags(cmd)
	r.outputFlag(cmd, &l.output)
	l.filters.requestFlags(cmd)
	r.completeServices(cmd)
	return cmd
}

// requestFlags adds the filters that requests have.
func (f *filters) requestFlags(cmd *cobra.Command) {
	f.flag(cmd, "service", "service", "service, of either end", nil)
	f.flag(cmd, "peer", "peer", "service or container at the other end", nil)
	f.flag(cmd, "protocol", "protocol", "http, grpc, dns, postgresql, redis, ...", nil)
	f.flag(cmd, "status", "status", "error, ok, a code (404, NOT_FOUND), or a class (5xx)", nil)
	f.flag(cmd, "route", "route", "HTTP route (/pay/{id}) or RPC method; * is anything", nil)
	f.flag(cmd, "path", "path", "path as it was asked for; * is anything", nil)
	f.flag(cmd, "method", "method", "HTTP method", nil)
	f.flag(cmd, "operation", "operation", "SELECT, GET, produce, ...: of databases, RPC, messaging and DNS", nil)
	f.flag(cmd, "target", "target", "table, topic, or name that was asked for", nil)
	f.flag(cmd, "role", "role", "the end that was seen: client or server", isOneOf("client", "server"))
	f.flag(cmd, "slower", "slower", "took at least so long (100ms)", isDuration)
	f.flag(cmd, "faster", "faster", "took less (5ms)", isDuration)
	f.flag(cmd, "trace", "trace", "trace id", nil)
	f.flag(cmd, "pid", "pid", "process id, of either end", isNumber(32))
	f.flag(cmd, "command", "command", "name of the executable", nil)
	f.flag(cmd, "container", "container", "name or id of the container", nil)
	f.flag(cmd, "address", "address", "address or network (10.0.0.0/8), of either end", isAddress)
	f.flag(cmd, "port", "port", "port, of either end", isNumber(16))
	f.notFlag(cmd)
	for flag, values := range map[string][]string{
		"role":     {"client", "server"},
		"status":   {"error", "ok", "2xx", "3xx", "4xx", "5xx"},
		"method":   {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"},
		"protocol": {"http", "grpc", "websocket", "dns", "postgresql", "mysql", "redis", "kafka", "mongodb"},
	} {
		cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}

func isDuration(s string) error {
	if _, err := time.ParseDuration(s); err != nil {
		return fmt.Errorf("%q is no duration: write 5ms, 1.5s or 2m", s)
	}
	return nil
}

// longWhat is how much of a path or query a compact line shows.
const longWhat = 60

// requestPage makes l show requests in the chosen form.
func (l *listing) requestPage() {
	if l.output == "json" {
		l.showRaw()
		return
	}
	g := &grid{term: l.term, right: []bool{6: true}}
	l.flush = func() error { return g.flush(l.out) }
	l.show = func(row []byte) error {
		var q requestRecord
		if err := json.Unmarshal(row, &q); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		g.add(l.requestCells(&q)...)
		return nil
	}
}

func (l *listing) requestCells(q *requestRecord) []cell {
	what := q.what()
	if l.output != "wide" {
		what = cut(what, longWhat)
	}
	cells := []cell{
		{l.term.clock(q.Time), dim}, {q.own(), plainStyle}, {q.arrow(), dim}, {q.other(), plainStyle},
		{what, bold}, q.outcome(), {spanText(q.duration()), plainStyle}, {q.remarks(), yellow},
	}
	if l.output == "wide" {
		cells = append(cells, cell{q.more(), dim})
	}
	return cells
}
