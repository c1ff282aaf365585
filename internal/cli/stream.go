package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ghostlight/internal/config"
)

// listing is a command that shows rows of a table, of the past or as they come.
type listing struct {
	*root
	path, event string // of the API
	what        string // in sentences: flows
	filters     filters

	follow       bool
	since, until string
	last         int
	output       string
	filtered     bool
	extra        url.Values // parameters that only this listing has

	show  func(row []byte) error // adds a row to the page
	flush func() error           // writes the page
}

const (
	usualLast = 20   // without a time range: a page, as peers do
	rangeLast = 1000 // with one: enough to read, not enough to drown
)

func (l *listing) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVarP(&l.follow, "follow", "f", false, "go on as things happen, until Ctrl-C")
	f.StringVar(&l.since, "since", "", "begin: 15m, 2h, 3d back from now, 14:05, or 2026-01-31T12:00:00Z")
	f.StringVar(&l.until, "until", "", "end, as --since")
	f.IntVar(&l.last, "last", -1, "the newest N; 0 is all, with -f none (default 20, with a time range 1000)")
	f.Lookup("last").DefValue = "0" // the text says it better than -1
	l.serverFlags(cmd)
}

func (r *root) outputFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVarP(into, "output", "o", "compact", "compact, wide, or json (one object a line)")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"compact", "wide", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

func checkOutput(output string) error {
	if err := isOneOf("compact", "wide", "json")(output); err != nil {
		return usagef("--output: %w", err)
	}
	return nil
}

// run asks and shows.
func (l *listing) run(ctx context.Context, words []string) error {
	params, err := l.params(words)
	if err != nil {
		return err
	}
	c, err := l.connectOrAttach(ctx)
	switch {
	case err != nil:
		return err
	case c.attached:
		return l.watch(ctx, c, params)
	case l.follow:
		return l.live(ctx, c, params)
	}
	return l.past(ctx, c, params)
}

func (l *listing) params(words []string) (url.Values, error) {
	if err := checkOutput(l.output); err != nil {
		return nil, err
	}
	filter, err := l.filters.text(words)
	if err != nil {
		return nil, err
	}
	l.filtered = filter != ""
	params := url.Values{}
	for name, values := range l.extra {
		params[name] = values
	}
	for name, value := range map[string]string{"since": l.since, "until": l.until} {
		if value == "" {
			continue
		}
		at, err := l.term.moment(value)
		if err != nil {
			return nil, usagef("--%s: %w", name, err)
		}
		params.Set(name, at)
	}
	if filter != "" {
		params.Set("filter", filter)
	}
	switch {
	case l.last < -1:
		return nil, usagef("--last %d: a number of rows, or 0 for all", l.last)
	case l.follow && l.until != "":
		return nil, usagef("--follow has no end: it cannot go with --until")
	}
	return params, nil
}

// newest returns how many rows to ask for.
func (l *listing) newest() int {
	switch {
	case l.last >= 0:
		return l.last
	case l.since == "" && l.until == "":
		return usualLast
	}
	return rangeLast
}

// past shows what was stored.
func (l *listing) past(ctx context.Context, c *client, params url.Values) error {
	params.Set("last", strconv.Itoa(l.newest()))
	resp, err := c.get(ctx, l.path, params, "application/x-ndjson")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	shown := uint64(0)
	err = lines(resp.Body, func(row []byte) error {
		shown++
		if err := l.show(row); err != nil {
			return err
		}
		if shown%rangeLast == 0 {
			return l.flush()
		}
		return nil
	})
	if err = errors.Join(err, l.flush()); err != nil {
		return err
	}
	l.remarks(resp.Header, shown)
	return nil
}

// remarks says what the rows do not: that there are more, or that some are
// missing.
func (l *listing) remarks(h http.Header, shown uint64) {
	matched, _ := strconv.ParseUint(h.Get("Ghostlight-Matched"), 10, 64) // 0 if it is not there
	l.out.Flush()                                                        // the page comes before what is said of it
	switch {
	case shown == 0 && l.output != "json":
		l.note("no %s match%s", l.what, l.emptyHint())
	case matched > shown && l.last < 0 && l.newest() == rangeLast:
		l.note("these are the newest %d of %d %s; --last 0 shows all of them", shown, matched, l.what)
	}
	l.remarkLost(h)
}

// remarkLost says that some are missing.
func (l *listing) remarkLost(h http.Header) {
	lost := h.Get("Ghostlight-Lost")
	if h.Get("Ghostlight-Complete") == "false" && lost != "" && lost != "0" {
		l.note("not complete: %s records of this time were lost", lost)
	}
}

func (l *listing) emptyHint() string {
	if l.filtered || l.since != "" {
		return "; a wider time (--since 1d) or fewer filters may find some"
	}
	return " yet; -f shows them as they happen"
}

// live shows the newest rows, then all that come.
func (l *listing) live(ctx context.Context, c *client, params url.Values) error {
	params.Set("follow", "true")
	params.Set("last", strconv.Itoa(l.newest()))
	resp, err := c.get(ctx, l.path, params, "text/event-stream")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	err = messages(resp.Body, l.message, func() error {
		if err := l.flush(); err != nil {
			return err
		}
		return l.out.Flush()
	})
	if ctx.Err() != nil {
		return ctx.Err() // we left; that an agent of our own went too is no news
	}
	return err
}

func (l *listing) message(event string, data []byte) error {
	switch event {
	case l.event:
		return l.show(data)
	case "lost":
		return l.lost(data)
	}
	return nil
}

// lost shows, between the rows, that some are missing here.
func (l *listing) lost(data []byte) error {
	var gap struct {
		Count uint64 `json:"count"`
		Stage string `json:"stage"`
	}
	if err := json.Unmarshal(data, &gap); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if err := l.flush(); err != nil {
		return err
	}
	if l.output == "json" {
		_, err := fmt.Fprintf(l.out, `{"kind":"lost","time":%q,"lost":{"stage":%q,"count":%d}}`+"\n", l.term.Now().UTC().Format(time.RFC3339Nano), gap.Stage, gap.Count)
		return err
	}
	_, err := fmt.Fprintln(l.out, l.term.paint(yellow, fmt.Sprintf("... %d %s are missing here: they came faster than they were read ...", gap.Count, l.what)))
	return err
}

// watch shows what an agent of our own sees: there is no past, so it goes on for
// a moment even when it was not asked to follow.
func (l *listing) watch(ctx context.Context, c *client, params url.Values) error {
	going := "for " + spanText(l.term.Look) + "; -f goes on until Ctrl-C"
	if l.follow {
		going = "until Ctrl-C"
	}
	l.note("no agent is running: watching without one %s (ghostlight run keeps a history)", going)
	if !l.follow {
		limited, cancel := context.WithTimeout(ctx, l.term.Look)
		defer cancel()
		ctx = limited
	}
	params.Del("since")
	params.Del("until")
	if l.last < 0 {
		l.last = 0 // all of the few there are
	}
	params.Set("since", "1h")
	err := l.live(ctx, c, params)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return l.flush()
	}
	return err
}

// moment turns what a person writes into what the API takes: a span stays one,
// a time of day or date in the terminal's zone becomes a full time.
func (t Terminal) moment(text string) (string, error) {
	if _, err := config.ParseDuration(text); err == nil {
		return text, nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at.UTC().Format(time.RFC3339Nano), nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, t.Zone); err == nil {
			return at.UTC().Format(time.RFC3339Nano), nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if at, err := time.ParseInLocation(layout, text, t.Zone); err == nil {
			y, m, d := t.Now().In(t.Zone).Date()
			at = time.Date(y, m, d, at.Hour(), at.Minute(), at.Second(), 0, t.Zone)
			if at.After(t.Now()) {
				at = at.AddDate(0, 0, -1) // the last time the clock showed it
			}
			return at.UTC().Format(time.RFC3339Nano), nil
		}
	}
	return "", fmt.Errorf("%q is no time: write a span like 15m, 2h, 3d, a time like 14:05, or %s", text, strings.Replace(time.RFC3339, "Z07:00", "Z", 1))
}
