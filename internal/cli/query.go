package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ghostlight/internal/api"
)

func (r *root) queryCommand() *cobra.Command {
	var output string
	var limit int
	var fields bool
	cmd := &cobra.Command{
		Use:   "query SQL",
		Short: "Ask with SQL: one SELECT over requests, flows, processes, alerts and lost",
		Long: `Run one SELECT statement over the tables requests, flows, processes, alerts and
lost. Columns are the paths of the JSON with underscores: destination_port,
process_pid, http_route. --fields lists them all. Times are RFC 3339 text in UTC,
durations nanoseconds; time > ago('15m') bounds what is read.

"-" reads the statement from standard input.`,
		Example: `  ghostlight query --fields
  ghostlight query "select service_name, count(*) n from flows where time > ago('1h') group by 1 order by n desc limit 10"
  ghostlight query -o json "select * from flows where tcp_close_reason = 'refused'"`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case fields && len(args) == 0:
				return r.fields(cmd.Context(), output)
			case len(args) != 1 || fields:
				return usagef("give one SQL statement, in quotes (see %s --help)", cmd.CommandPath())
			}
			return r.query(cmd.Context(), args[0], limit, output)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "rows at most (default 10000)")
	cmd.Flags().BoolVar(&fields, "fields", false, "list the tables and their columns")
	r.serverFlags(cmd)
	r.outputFlag(cmd, &output)
	return cmd
}

const maxStatement = 1 << 20

func (r *root) query(ctx context.Context, sql string, limit int, output string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	if limit < 0 {
		return usagef("--limit %d: a number of rows", limit)
	}
	if sql == "-" {
		text, err := io.ReadAll(io.LimitReader(r.term.In, maxStatement))
		if err != nil {
			return fmt.Errorf("read the statement: %w", err)
		}
		sql = string(text)
	}
	c, err := r.connect(ctx)
	if err != nil {
		return err
	}
	body, err := json.Marshal(api.Question{SQL: sql, Limit: limit})
	if err != nil {
		return err
	}
	if output == "json" {
		return r.queryLines(ctx, c, body)
	}
	resp, err := c.send(ctx, "POST", "/api/v1/query", nil, body, "application/json")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var a struct {
		api.Answer
		Rows [][]json.RawMessage `json:"rows"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if err := r.answer(a.Columns, a.Rows); err != nil {
		return err
	}
	r.out.Flush() // the table comes before what is said of it
	if output == "wide" {
		r.note("%d rows of %s in %s, plan %s", len(a.Rows), countText(a.Stats.RowsScanned), spanText(time.Duration(a.Stats.DurationNS)), a.Stats.Plan)
	}
	if !a.Complete {
		r.note("not complete: a limit cut the rows (--limit), or records of this time were lost")
	}
	return nil
}

// queryLines passes rows on, one object a line.
func (r *root) queryLines(ctx context.Context, c *client, body []byte) error {
	resp, err := c.send(ctx, "POST", "/api/v1/query", nil, body, "application/x-ndjson")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(r.out, resp.Body); err != nil {
		return fmt.Errorf("the answer breaks off: %w", err)
	}
	if resp.Trailer.Get("Ghostlight-Complete") == "false" {
		r.out.Flush()
		r.note("not complete: a limit cut the rows (--limit), or records of this time were lost")
	}
	return nil
}

// answer writes rows as a table; numbers are aligned to the right.
func (r *root) answer(columns []api.AnswerColumn, rows [][]json.RawMessage) error {
	g := &grid{term: r.term, right: make([]bool, len(columns))}
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = clean(c.Name)
		g.right[i] = numeric(rows, i)
	}
	g.add(heads(names...)...)
	for _, row := range rows {
		cells := make([]cell, len(row))
		for i, value := range row {
			cells[i] = cell{text: valueText(value)}
		}
		g.add(cells...)
	}
	return g.flush(r.out)
}

func numeric(rows [][]json.RawMessage, column int) bool {
	some := false
	for _, row := range rows {
		switch v := row[column]; {
		case len(v) == 0 || v[0] == '"':
			return false
		case v[0] != 'n':
			some = true
		}
	}
	return some
}

// valueText shows a cell.
func valueText(v json.RawMessage) string {
	switch {
	case bytes.Equal(v, []byte("null")):
		return ""
	case len(v) > 0 && v[0] == '"':
		var s string
		if json.Unmarshal(v, &s) == nil {
			return clean(strings.ReplaceAll(s, "\x00", " "))
		}
	}
	return string(v)
}

// fields lists what can be selected and filtered on.
func (r *root) fields(ctx context.Context, output string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	c, err := r.connect(ctx)
	if err != nil {
		return err
	}
	var f api.Fields
	raw, err := c.object(ctx, "/api/v1/fields", nil, &f)
	switch {
	case err != nil:
		return err
	case output == "json":
		return r.raw(raw)
	}
	g := &grid{term: r.term}
	for _, t := range f.Tables {
		g.add(cell{clean(t.Name), bold})
		for _, col := range t.Columns {
			g.add(cell{"  " + clean(col.SQL), plainStyle}, cell{clean(col.Type), dim}, cell{clean(col.Doc), plainStyle})
		}
	}
	return g.flush(r.out)
}
