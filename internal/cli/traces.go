package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ghostlight/internal/api"
)

func (r *root) tracesCommand() *cobra.Command {
	q := &question{root: r}
	var last int
	var order string
	cmd := &cobra.Command{
		Use:     "traces [ID | TERM...]",
		Aliases: []string{"trace"},
		Short:   "Show what requests caused: a list of traces, or one as a waterfall",
		Long: `Show traces: all requests that one request caused, across processes, with no header
injected and no change to any application. Without an ID it lists those of which a
request matches the filters, the newest last.

With an ID it draws a waterfall: a line for each request, a bar for when it ran. █ is
time on the critical path, which would have to get shorter for the whole to do so; ░
is the rest. "?" marks a parent that was concluded from what a thread did, and "^"
one that is not stored.

TERMs are filters as in "ghostlight requests".`,
		Example: `  ghostlight traces                                 # the newest 20
  ghostlight traces --sort slowest --since 1h --service checkout
  ghostlight traces --sort errors --route '/pay/*'
  ghostlight traces 11111111111111111111111111111111
  ghostlight traces 11111111111111111111111111111111 -o json | jq .critical_path`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, words []string) error {
			if len(words) == 1 && isTraceID(words[0]) {
				return q.trace(cmd.Context(), words[0])
			}
			return q.traces(cmd.Context(), words, order, last)
		},
	}
	q.flags(cmd, "all, of the slowest 15m")
	cmd.Flags().IntVar(&last, "last", usualLast, "at most N traces")
	cmd.Flags().StringVar(&order, "sort", "newest", "newest, slowest or errors (those that failed)")
	cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions([]string{"newest", "slowest", "errors"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// isTraceID tells whether a word is 32 hexadecimal digits.
func isTraceID(word string) bool {
	return len(word) == 32 && strings.Trim(strings.ToLower(word), "0123456789abcdef") == ""
}

func (q *question) traces(ctx context.Context, words []string, order string, last int) error {
	params, err := q.params(words)
	if err != nil {
		return err
	}
	if err := isOneOf("newest", "slowest", "errors")(order); err != nil {
		return usagef("--sort: %w", err)
	}
	if last < 1 || last > 1000 {
		return usagef("--last %d: 1 to 1000 traces", last)
	}
	params.Set("sort", order)
	params.Set("last", strconv.Itoa(last))
	var all api.Traces
	if shown, err := q.ask(ctx, "/api/v1/traces", params, &all); shown || err != nil {
		return err
	}
	if order != "slowest" {
		slices.Reverse(all.Traces) // as everywhere, the newest is next to the prompt
	}
	g := &grid{term: q.term, right: []bool{4: true, 5: true}}
	for _, t := range all.Traces {
		g.add(q.traceCells(&t)...)
	}
	if err := g.flush(q.out); err != nil {
		return err
	}
	if err := q.out.Flush(); err != nil { // it comes before what is said of it
		return err
	}
	if len(all.Traces) == 0 {
		q.note("no traces match; a wider time (--since 1d) or fewer filters may find some")
	}
	q.remarkWhole(all.Complete)
	return nil
}

func (q *question) traceCells(t *api.TraceBrief) []cell {
	outcome := cell{clean(firstOf(t.Root.Status, "ok")), plainStyle}
	switch {
	case t.Root.Error != "":
		outcome = cell{failure + firstOf(t.Root.Status, t.Root.Error), red}
	case t.Errors > 0:
		outcome.text, outcome.style = outcome.text+" ("+strconv.Itoa(t.Errors)+" "+strings.TrimSpace(failure)+" within)", yellow
	}
	var remarks []string
	if !t.Complete {
		remarks = append(remarks, "(not seen whole)")
	}
	if q.output == "wide" {
		remarks = append(remarks, "services="+clean(strings.Join(t.Services, ",")))
		if t.Inferred {
			remarks = append(remarks, "inferred")
		}
	}
	return []cell{
		{q.term.clock(t.Time), dim}, {clean(t.Root.Service), plainStyle}, {cut(clean(t.Root.Name), longWhat), bold}, outcome,
		{spanText(time.Duration(t.DurationNS)), plainStyle}, {plural(t.Spans, "span"), plainStyle}, {plural(len(t.Services), "service"), plainStyle},
		{t.TraceID, dim}, {strings.Join(remarks, "  "), dim},
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// spanRecord is a span as the API sends it.
type spanRecord struct {
	requestRecord
	Name     string
	OffsetNS int64 `json:"offset_ns"`
	Depth    int
	SelfNS   int64 `json:"self_ns"`
	Critical bool
	Orphan   bool
}

// trace draws one trace.
func (q *question) trace(ctx context.Context, id string) error {
	params, err := q.params(nil)
	if err != nil {
		return err
	}
	if params.Has("filter") {
		return usagef("a trace is shown as a whole: it takes no filter")
	}
	var t api.TraceDetail
	if shown, err := q.ask(ctx, "/api/v1/trace/"+url.PathEscape(id), params, &t); shown || err != nil {
		return err
	}
	spans := make([]spanRecord, len(t.Spans))
	for i, raw := range t.Spans {
		if err := json.Unmarshal(raw, &spans[i]); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
	}
	fmt.Fprintf(q.out, "%s  %s  %s  %s  %s\n", q.term.paint(bold, "trace "+t.TraceID), q.term.clock(t.Time),
		spanText(time.Duration(t.DurationNS)), plural(len(spans), "span"), clean(strings.Join(t.Services, " ")))
	if err := q.waterfall(&t, spans); err != nil {
		return err
	}
	if err := q.out.Flush(); err != nil { // it comes before what is said of it
		return err
	}
	if !t.Complete {
		q.note("not complete: spans are missing, or were not seen whole")
	}
	return nil
}

// Bounds of the columns of a waterfall.
const (
	leastBar    = 8
	mostOutcome = 14
	mostLevels  = 24
)

// waterfall writes a line for each span: who did what, how it went, how long it
// took, and a bar for when.
func (q *question) waterfall(t *api.TraceDetail, spans []spanRecord) error {
	labels, outcomes, took := branches(spans), make([]cell, len(spans)), make([]string, len(spans))
	var wide [3]int
	room := q.term.columns()
	for i := range spans {
		s := &spans[i]
		labels[i] = cut(labels[i]+s.label(), 2*room/5)
		outcomes[i], took[i] = s.outcome(), spanText(s.duration())
		outcomes[i].text = cut(outcomes[i].text, mostOutcome)
		wide[0], wide[1], wide[2] = max(wide[0], width(labels[i])), max(wide[1], width(outcomes[i].text)), max(wide[2], width(took[i]))
	}
	bar := max(leastBar, room-wide[0]-wide[1]-wide[2]-6)
	critical := map[string][]api.PathPart{}
	for _, p := range t.CriticalPath {
		critical[p.SpanID] = append(critical[p.SpanID], p)
	}
	for i := range spans {
		s := &spans[i]
		line := labels[i] + strings.Repeat(" ", wide[0]-width(labels[i])) + "  " +
			q.term.paint(outcomes[i].style, outcomes[i].text) + strings.Repeat(" ", wide[1]-width(outcomes[i].text)) + "  " +
			strings.Repeat(" ", wide[2]-width(took[i])) + took[i] + "  " +
			q.term.bar(s, critical[s.Trace.SpanID], t.DurationNS, bar)
		if q.output == "wide" {
			line += "  " + q.term.paint(dim, "self="+quoteBlanks(spanText(time.Duration(s.SelfNS)))+"  "+s.more())
		}
		if _, err := q.out.WriteString(strings.TrimRight(line, " ") + "\n"); err != nil {
			return err
		}
	}
	return nil
}

// branches draws the tree that leads to each span. From the last one up it is
// known at which levels more are to come.
func branches(spans []spanRecord) []string {
	stems := make([]string, len(spans))
	var more [mostLevels + 1]bool
	for i := len(spans) - 1; i >= 0; i-- {
		depth := min(max(0, spans[i].Depth), mostLevels)
		var b strings.Builder
		for level := 1; level <= depth; level++ {
			b.WriteString(branch[level == depth][more[level]])
		}
		stems[i] = b.String()
		more[depth] = true
		clear(more[depth+1:])
	}
	return stems
}

// branch is a piece of the tree, by whether it ends at a span and whether more
// come below.
var branch = map[bool]map[bool]string{true: {true: "├ ", false: "└ "}, false: {true: "│ ", false: "  "}}

// label is the span's end and what was asked.
func (s *spanRecord) label() string {
	mark := ""
	switch {
	case s.Orphan:
		mark = "^ "
	case s.Trace.Inferred:
		mark = "? "
	}
	return mark + s.own() + " " + s.arrow() + " " + s.other() + "  " + clean(s.Name)
}

// bar draws when a span ran in a line of n characters. A span always shows, be
// it ever so short.
func (t Terminal) bar(s *spanRecord, critical []api.PathPart, whole int64, n int) string {
	line := []rune(strings.Repeat(" ", n))
	fill := func(from, to int64, r rune) {
		a := int(float64(from) / float64(max(1, whole)) * float64(n))
		b := int(math.Ceil(float64(to) / float64(max(1, whole)) * float64(n)))
		a = min(max(0, a), n-1)
		for i := a; i < min(n, max(b, a+1)); i++ {
			line[i] = r
		}
	}
	fill(s.OffsetNS, s.OffsetNS+s.DurationNS, '░')
	for _, p := range critical {
		fill(p.FromNS, p.ToNS, '█')
	}
	style := cyan
	if s.Error.Type != "" {
		style = red
	}
	text := strings.Trim(string(line), " ")
	before := strings.Index(string(line), text)
	return strings.Repeat(" ", before) + t.paint(style, text) + strings.Repeat(" ", n-before-width(text))
}
