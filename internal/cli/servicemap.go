package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ghostlight/internal/api"
)

func (r *root) mapCommand() *cobra.Command {
	var since, until, output string
	var fs filters
	cmd := &cobra.Command{
		Use:   "map [TERM...]",
		Short: "Show which services talk to whom",
		Long: `Show the edges of the service map as a table, busiest first: who talks to whom over
which port, how much, how many requests and how fast, and what went wrong. -o json
gives the whole map.`,
		Example: `  ghostlight map
  ghostlight map --since 1h --service checkout`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, words []string) error {
			return r.showMap(cmd.Context(), &fs, since, until, output, words)
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "begin, as in flows (default 5m)")
	cmd.Flags().StringVar(&until, "until", "", "end, as --since")
	r.serverFlags(cmd)
	r.outputFlag(cmd, &output)
	fs.flag(cmd, "service", "service", "service, of either end", nil)
	fs.flag(cmd, "port", "port", "port, of either end", isNumber(16))
	fs.notFlag(cmd)
	return cmd
}

func (r *root) showMap(ctx context.Context, fs *filters, since, until, output string, words []string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	filter, err := fs.text(words)
	if err != nil {
		return err
	}
	params := url.Values{}
	for name, value := range map[string]string{"since": since, "until": until} {
		if value == "" {
			continue
		}
		at, err := r.term.moment(value)
		if err != nil {
			return usagef("--%s: %w", name, err)
		}
		params.Set(name, at)
	}
	if filter != "" {
		params.Set("filter", filter)
	}
	c, err := r.connect(ctx)
	if err != nil {
		return err
	}
	var m api.Map
	raw, err := c.object(ctx, "/api/v1/map", params, &m)
	switch {
	case err != nil:
		return err
	case output == "json":
		return r.raw(raw)
	}
	return r.edges(m, output == "wide")
}

// raw passes an answer on, ended by one line break.
func (r *root) raw(answer []byte) error {
	_, err := r.out.WriteString(strings.TrimSpace(string(answer)) + "\n")
	return err
}

func (r *root) edges(m api.Map, wide bool) error {
	names := map[string]string{}
	for _, n := range m.Nodes {
		names[n.ID] = n.Name
		if n.Hosts > 1 {
			names[n.ID] += " (" + strconv.Itoa(n.Hosts) + ")"
		}
	}
	slices.SortStableFunc(m.Edges, func(a, b api.Edge) int {
		return cmp.Or(-cmp.Compare(a.BytesPerSecond, b.BytesPerSecond), -cmp.Compare(a.Requests, b.Requests), -cmp.Compare(a.Connections, b.Connections))
	})
	g := &grid{term: r.term, right: []bool{false, false, false, true, true, true, true, true, true, true, true, true}}
	head := []string{"CLIENT", "SERVER", "OVER", "RATE", "REQUESTS", "ERRORS", "P99", "CONNECTIONS", "OPEN", "FAILED", "RETRANSMITS", "DROPS"}
	if wide {
		head = append(head, "SENT / RECEIVED", "RTT", "PROTOCOLS")
	}
	g.add(heads(head...)...)
	for _, e := range m.Edges {
		row := []cell{
			{clean(names[e.Source]), plainStyle}, {clean(names[e.Target]), plainStyle}, {over(e), plainStyle},
			{bytesText(int64(e.BytesPerSecond)) + "/s", plainStyle},
			number(e.Requests, plainStyle), number(e.Errors, red), {spanOrNone(e.P99NS), plainStyle}, number(e.Connections, plainStyle), number(e.Open, plainStyle),
			number(e.Failures, red), number(e.Retransmits, yellow), number(e.Drops, yellow),
		}
		if wide {
			row = append(row, cell{bytesText(e.BytesSent) + " / " + bytesText(e.BytesReceived), plainStyle}, cell{spanOrNone(e.RTTNS), plainStyle}, cell{clean(strings.Join(e.Protocols, " ")), dim})
		}
		g.add(row...)
	}
	if err := g.flush(r.out); err != nil {
		return err
	}
	r.out.Flush() // the table comes before what is said of it
	if len(m.Edges) == 0 {
		r.note("nobody talked in the last %s", spanText(time.Duration(m.WindowNS)))
	}
	if !m.Complete {
		r.note("not complete: records of this time were lost")
	}
	return nil
}

func heads(names ...string) []cell {
	cells := make([]cell, len(names))
	for i, n := range names {
		cells[i] = cell{n, bold}
	}
	return cells
}

func over(e api.Edge) string {
	if e.Port == 0 {
		return clean(e.Transport)
	}
	return clean(e.Transport) + "/" + strconv.FormatInt(e.Port, 10)
}

func number(n int64, s style) cell {
	if n == 0 {
		return cell{"0", dim}
	}
	return cell{strconv.FormatInt(n, 10), s}
}

func spanOrNone(ns int64) string {
	if ns == 0 {
		return ""
	}
	return spanText(time.Duration(ns))
}

// jsonLine writes v as one line of JSON.
func (r *root) jsonLine(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return r.raw(line)
}
