package cli

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ghostlight/internal/api"
)

func (r *root) servicesCommand() *cobra.Command {
	q := &question{root: r}
	cmd := &cobra.Command{
		Use:     "services [NAME]",
		Aliases: []string{"service", "svc"},
		Short:   "Show rate, errors and durations of every service, the worst first",
		Long: `Show how the services of this host and those they ask do: requests, share of errors,
and durations. The worst comes first: by errors, then by how much slower it became
within the time. With a NAME, show its routes, whom it calls and who calls it.

A service of this host is measured at itself, one elsewhere at its clients here; the
latter is marked "external". ✗ marks errors.`,
		Example: `  ghostlight services
  ghostlight services --since 1h
  ghostlight services checkout                      # its routes, calls and callers
  ghostlight services checkout --since 10:00 --until 10:30 --status 5xx
  ghostlight services -o json | jq '.services[] | {name, p99_ns}'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return q.service(cmd.Context(), args[0])
			}
			return q.services(cmd.Context())
		},
	}
	q.flags(cmd, "15m")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return r.serviceNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// completeServices completes --service.
func (r *root) completeServices(cmd *cobra.Command) {
	cmd.RegisterFlagCompletionFunc("service", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return r.serviceNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
	})
}

// serviceNames asks the agent which services there are, for the shell: with
// little patience and no words.
func (r *root) serviceNames(ctx context.Context) (names []string) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := r.connect(ctx)
	if err != nil {
		return nil
	}
	var all api.Services
	if _, err := c.object(ctx, "/api/v1/services", nil, &all); err != nil {
		return nil
	}
	for _, s := range all.Services {
		names = append(names, clean(s.Name))
	}
	return names
}

// question is a command that asks for one object about requests.
type question struct {
	*root
	filters      filters
	since, until string
	output       string
}

func (q *question) flags(cmd *cobra.Command, window string) {
	cmd.Flags().StringVar(&q.since, "since", "", "begin: 15m, 2h, 3d back from now, 14:05, or 2026-01-31T12:00:00Z (default "+window+")")
	cmd.Flags().StringVar(&q.until, "until", "", "end, as --since")
	q.serverFlags(cmd)
	q.outputFlag(cmd, &q.output)
	q.filters.requestFlags(cmd)
	q.completeServices(cmd)
}

func (q *question) params(words []string) (url.Values, error) {
	if err := checkOutput(q.output); err != nil {
		return nil, err
	}
	filter, err := q.filters.text(words)
	if err != nil {
		return nil, err
	}
	params := url.Values{}
	if filter != "" {
		params.Set("filter", filter)
	}
	for name, value := range map[string]string{"since": q.since, "until": q.until} {
		if value == "" {
			continue
		}
		at, err := q.term.moment(value)
		if err != nil {
			return nil, usagef("--%s: %w", name, err)
		}
		params.Set(name, at)
	}
	return params, nil
}

// ask gets the answer and, for -o json, passes it on.
func (q *question) ask(ctx context.Context, path string, params url.Values, into any) (shown bool, err error) {
	c, err := q.connectOrAttach(ctx)
	if err != nil {
		return false, err
	}
	if c.attached {
		if err := q.lookOn(ctx); err != nil {
			return false, err
		}
		params.Del("since")
		params.Del("until")
	}
	raw, err := c.object(ctx, path, params, into)
	if err != nil || q.output != "json" {
		return false, err
	}
	return true, q.raw(raw)
}

// lookOn lets an agent of our own see something first.
func (q *question) lookOn(ctx context.Context) error {
	q.note("no agent is running: watching without one for %s (ghostlight run keeps a history)", spanText(q.term.Look))
	select {
	case <-time.After(q.term.Look):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (q *question) services(ctx context.Context) error {
	params, err := q.params(nil)
	if err != nil {
		return err
	}
	var all api.Services
	if shown, err := q.ask(ctx, "/api/v1/services", params, &all); shown || err != nil {
		return err
	}
	g := &grid{term: q.term, right: redRight}
	silent := 0
	for _, s := range all.Services {
		if s.Requests == 0 && q.output != "wide" {
			silent++
			continue
		}
		if len(g.rows) == 0 {
			g.add(heads("SERVICE", "REQUESTS", "RATE", "ERRORS", "P50", "P90", "P99", "MAX", "PROTOCOLS", "WORST ROUTE")...)
		}
		name := clean(s.Name)
		if s.Kind != "service" {
			name += " (external)"
		}
		g.add(append(redCells(name, s.RED), cell{clean(strings.Join(s.Protocols, " ")), dim}, worstRoute(s))...)
	}
	if err := g.flush(q.out); err != nil {
		return err
	}
	if err := q.out.Flush(); err != nil { // it comes before what is said of it
		return err
	}
	if silent == len(all.Services) {
		q.note("no requests match in the last %s", spanText(time.Duration(all.WindowNS)))
	} else if silent > 0 {
		q.note("%d more only ask others; -o wide shows them", silent)
	}
	q.remarkWhole(all.Complete)
	return nil
}

// redRight says which columns of a table of RED are aligned to the right.
var redRight = []bool{false, true, true, true, true, true, true, true}

func redCells(name string, r api.RED) []cell {
	errors := cell{"0", dim}
	if r.Errors > 0 {
		errors = cell{failure + countText(uint64(r.Errors)) + " (" + percentText(100*r.ErrorRate) + ")", red}
	}
	return []cell{
		{name, bold}, {countText(uint64(r.Requests)), plainStyle}, {digits(r.Rate) + "/s", plainStyle}, errors,
		{spanOrNone(r.P50NS), plainStyle}, {spanOrNone(r.P90NS), plainStyle}, {spanOrNone(r.P99NS), plainStyle}, {spanOrNone(r.MaxNS), plainStyle},
	}
}

// worstRoute names the route that fails most, or, if none does, the first one.
func worstRoute(s api.Service) cell {
	if len(s.Routes) == 0 {
		return cell{"", plainStyle}
	}
	worst := s.Routes[0]
	if worst.Errors > 0 {
		return cell{cut(clean(worst.Name), longWhat), red}
	}
	return cell{cut(clean(worst.Name), longWhat), plainStyle}
}

func (q *question) remarkWhole(complete bool) {
	if !complete {
		q.note("not complete: records of this time were lost, or are too many to tell apart")
	}
}

// service shows one of them.
func (q *question) service(ctx context.Context, name string) error {
	params, err := q.params(nil)
	if err != nil {
		return err
	}
	var s api.ServiceDetail
	if shown, err := q.ask(ctx, "/api/v1/services/"+url.PathEscape(name), params, &s); shown || err != nil {
		return err
	}
	g := &grid{term: q.term, right: redRight}
	g.add(heads(clean(s.Name), "REQUESTS", "RATE", "ERRORS", "P50", "P90", "P99", "MAX", "OVER "+spanText(time.Duration(s.WindowNS)))...)
	counts := make([]uint32, len(s.Buckets))
	for i, b := range s.Buckets {
		counts[i] = uint32(b.Requests)
	}
	g.add(append(redCells("all", s.RED), cell{sparkline(counts, sparkWidth), cyan})...)
	for _, route := range s.Routes {
		g.add(append(redCells("  "+cut(clean(route.Name), longWhat), route.RED), cell{sparkline(route.Heat, sparkWidth), cyan})...)
	}
	if err := g.flush(q.out); err != nil {
		return err
	}
	for _, part := range []struct {
		head  string
		calls []api.Call
	}{{"CALLS", s.Calls}, {"CALLED BY", s.Callers}} {
		if err := q.calls(part.head, part.calls); err != nil {
			return err
		}
	}
	if err := q.out.Flush(); err != nil { // it comes before what is said of it
		return err
	}
	q.remarkWhole(s.Complete)
	return nil
}

func (q *question) calls(head string, calls []api.Call) error {
	if len(calls) == 0 {
		return nil
	}
	if _, err := q.out.WriteString("\n"); err != nil {
		return err
	}
	g := &grid{term: q.term, right: []bool{false, true, true, true}}
	g.add(heads(head, "REQUESTS", "ERRORS", "P99")...)
	for _, c := range calls {
		errors := cell{"0", dim}
		if c.Errors > 0 {
			errors = cell{failure + countText(uint64(c.Errors)), red}
		}
		g.add(cell{clean(c.Service), plainStyle}, cell{strconv.FormatInt(c.Requests, 10), plainStyle}, errors, cell{spanOrNone(c.P99NS), plainStyle})
	}
	return g.flush(q.out)
}

const sparkWidth = 30

// sparkline draws counts over time, joined to n bars.
func sparkline(counts []uint32, n int) string {
	if len(counts) == 0 {
		return ""
	}
	n = min(n, len(counts))
	joined := make([]uint64, n)
	most := uint64(0)
	for i, c := range counts {
		at := i * n / len(counts)
		joined[at] += uint64(c)
		most = max(most, joined[at])
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, c := range joined {
		if c == 0 {
			b.WriteRune(' ')
			continue
		}
		fmt.Fprintf(&b, "%c", bars[(c*uint64(len(bars))-1)/most])
	}
	return b.String()
}
