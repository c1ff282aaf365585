package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ghostlight/internal/api"
	"ghostlight/internal/config"
)

func (r *root) processesCommand() *cobra.Command {
	l := &listing{root: r, path: "/api/v1/processes", event: "process", what: "processes", extra: url.Values{"events": {"true"}}}
	var events bool
	var at string
	cmd := &cobra.Command{
		Use:     "processes [TERM...]",
		Aliases: []string{"process", "ps"},
		Short:   "Show the tree of processes at any moment, or what happened to them",
		Long: `Show the processes of this host as a tree: as they are, or as they were at a
moment (--at). With --events, or one of --follow, --since, --until and --last, show
what happened to processes instead: fork, exec, exit.

TERMs are filters of the form field:value, -field:value, field>=10; all must hold.
Of a filtered tree only what matches is shown.

With no agent running, it watches by itself for as long as it runs.`,
		Example: `  ghostlight processes                           # the tree, now
  ghostlight processes --at 14:05                # the tree at five past two
  ghostlight processes -f --not --command sh     # what starts and ends
  ghostlight processes --since 1h 'process.exit.code>0'
  ghostlight processes --container web -o json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, words []string) error {
			if events || l.follow || l.since != "" || l.until != "" || l.last >= 0 {
				if at != "" {
					return usagef("--at is of the tree: with events give --since and --until")
				}
				l.eventPage()
				return l.run(cmd.Context(), words)
			}
			return l.tree(cmd.Context(), at, words)
		},
	}
	l.flags(cmd)
	cmd.Flags().BoolVar(&events, "events", false, "what happened instead of the tree: fork, exec, exit")
	cmd.Flags().StringVar(&at, "at", "", "the moment of the tree, as --since (default now)")
	r.outputFlag(cmd, &l.output)
	l.filters.flag(cmd, "pid", "pid", "process id", isNumber(32))
	l.filters.flag(cmd, "command", "command", "name of the executable", nil)
	l.filters.flag(cmd, "container", "container", "name or id of the container", nil)
	l.filters.flag(cmd, "service", "service", "service", nil)
	l.filters.notFlag(cmd)
	return cmd
}

// eventPage makes l show what happens to processes.
func (l *listing) eventPage() {
	if l.output == "json" {
		l.showRaw()
		return
	}
	g := &grid{term: l.term}
	l.flush = func() error { return g.flush(l.out) }
	l.show = func(row []byte) error {
		var p processRecord
		if err := json.Unmarshal(row, &p); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		cells := []cell{{l.term.clock(p.Time), dim}, p.action(), {who(p.Process.name(), p.Process.PID), plainStyle}}
		if l.output == "wide" {
			cells = append(cells, cell{"parent " + strconv.Itoa(p.Process.ParentPID), dim}, cell{p.user(), plainStyle}, cell{p.place(), plainStyle})
		}
		g.add(append(cells, cell{p.detail(), plainStyle})...)
		return nil
	}
}

func (p *processRecord) action() cell {
	switch {
	case p.Action == "exit" && (p.Process.Exit.Code != 0 || p.Process.Exit.Signal != 0):
		return cell{"exit", red}
	case p.Action == "exit":
		return cell{"exit", dim}
	case p.Action == "exec":
		return cell{"exec", green}
	}
	return cell{clean(p.Action), plainStyle}
}

func (p *processRecord) detail() string {
	switch {
	case p.Action == "exit" && p.Process.Exit.Signal != 0:
		return "killed by signal " + strconv.Itoa(p.Process.Exit.Signal)
	case p.Action == "exit":
		return "code " + strconv.Itoa(p.Process.Exit.Code)
	case p.Action == "fork":
		return "by " + strconv.Itoa(p.Process.ParentPID)
	}
	return p.Process.command()
}

func (p *processRecord) user() string {
	if p.Process.User.ID == nil {
		return ""
	}
	return strconv.FormatInt(*p.Process.User.ID, 10)
}

// place is where a process belongs: its container, or else its service.
func (p *processRecord) place() string {
	if name := containerName(p.Container.Name, p.Container.ID); name != "" {
		return clean(name)
	}
	return clean(p.Service.Name)
}

// tree shows the processes of a moment.
func (l *listing) tree(ctx context.Context, at string, words []string) error {
	if err := checkOutput(l.output); err != nil {
		return err
	}
	filter, err := l.filters.text(words)
	if err != nil {
		return err
	}
	params := url.Values{}
	if filter != "" {
		params.Set("filter", filter)
	}
	if at != "" {
		if at, err = l.term.moment(at); err != nil {
			return usagef("--at: %w", err)
		}
		params.Set("at", at)
	}
	c, err := l.connectOrAttach(ctx)
	if err != nil {
		return err
	}
	if c.attached {
		l.note("no agent is running: looking without one (ghostlight run keeps a history)")
		params.Del("at")
	}
	resp, err := c.get(ctx, l.path, params, "application/x-ndjson")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var all []*processRecord
	l.showRaw()
	err = lines(resp.Body, func(row []byte) error {
		if l.output == "json" {
			return l.show(row)
		}
		p := &processRecord{}
		all = append(all, p)
		if err := json.Unmarshal(row, p); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if l.output != "json" {
		if err := l.grow(all); err != nil {
			return err
		}
	}
	l.out.Flush() // the tree comes before what is said of it
	if len(all) == 0 && l.output != "json" {
		l.nothing(ctx, c, at)
	}
	l.remarkLost(resp.Header)
	return nil
}

// nothing says that the tree is empty, and why, where the moment lies before
// everything that is kept.
func (l *listing) nothing(ctx context.Context, c *client, at string) {
	var s api.Status
	if _, err := c.object(ctx, "/api/v1/status", nil, &s); err == nil && s.Store.Oldest != nil && l.term.before(at, *s.Store.Oldest) {
		l.note("nothing is known of that moment: the oldest record is of %s", s.Store.Oldest.In(l.term.Zone).Format(time.DateTime))
		return
	}
	l.note("no processes match")
}

// before tells whether a moment, as a user gave it, is earlier than another.
func (t Terminal) before(moment string, than time.Time) bool {
	if d, err := config.ParseDuration(moment); err == nil {
		return t.Now().Add(-d).Before(than)
	}
	at, err := time.Parse(time.RFC3339Nano, moment)
	return err == nil && at.Before(than)
}

// grow writes the tree: children below their parents, by pid. A process whose
// parent is not among all is a root.
func (l *listing) grow(all []*processRecord) error {
	byExec, byPID := map[string]*processRecord{}, map[int]*processRecord{}
	for _, p := range all {
		byExec[p.Process.ExecID], byPID[p.Process.PID] = p, p
	}
	children := map[*processRecord][]*processRecord{}
	for _, p := range all {
		parent := byExec[p.Process.Parent.ExecID]
		if parent == nil || p.Process.Parent.ExecID == "" {
			// The parent may have executed something else since.
			parent = byPID[p.Process.ParentPID]
		}
		if parent == p || l.loops(p, parent, byPID) {
			parent = nil
		}
		children[parent] = append(children[parent], p)
	}
	for _, siblings := range children {
		slices.SortFunc(siblings, func(a, b *processRecord) int { return cmp.Compare(a.Process.PID, b.Process.PID) })
	}
	g := &grid{term: l.term, right: []bool{true, true}}
	if len(all) == 0 {
		return nil
	}
	g.add(cell{"PID", bold}, cell{"UID", bold}, cell{"WHERE", bold}, cell{"COMMAND", bold})
	l.branch(g, children, nil, "", 0)
	return g.flush(l.out)
}

// loops tells whether p is above its own parent, which only lost records can
// make seem so.
func (l *listing) loops(p, parent *processRecord, byPID map[int]*processRecord) bool {
	for range 1024 {
		if parent == nil {
			return false
		}
		if parent == p {
			return true
		}
		parent = byPID[parent.Process.ParentPID]
	}
	return true
}

const maxTree = 512 // levels

func (l *listing) branch(g *grid, children map[*processRecord][]*processRecord, parent *processRecord, stem string, depth int) {
	if depth > maxTree {
		return
	}
	siblings := children[parent]
	for i, p := range siblings {
		knot, next := "├─ ", "│  "
		if i == len(siblings)-1 {
			knot, next = "└─ ", "   "
		}
		if parent == nil {
			knot, next = "", ""
		}
		line := stem + knot + p.Process.command()
		if l.output != "wide" {
			line = cut(line, 160)
		} else if p.Process.Cwd != "" {
			line += "  cwd=" + quoteBlanks(clean(p.Process.Cwd))
		}
		g.add(cell{strconv.Itoa(p.Process.PID), plainStyle}, cell{p.user(), dim}, cell{cut(p.place(), 32), cyan}, cell{strings.TrimRight(line, " "), plainStyle})
		l.branch(g, children, p, stem+next, depth+1)
	}
}
