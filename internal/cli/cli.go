// Package cli is the commands of Ghostlight: it asks an agent over its API and
// shows the answer to a person or a script.
//
//	arguments -> filters and time range -> API (a socket, an address, or an agent of our own) -> lines
package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"ghostlight/internal/api"
	"ghostlight/internal/config"
)

// Agent is what the commands need of an agent; the commands know none of its
// parts.
type Agent struct {
	Version string
	// Run watches the host until ctx ends.
	Run func(ctx context.Context, s Start) error
	// Attach watches the host until done is called, keeps what it sees in a
	// temporary store, and returns a transport to its API. It returns once the
	// hooks are attached and what was there before has been told.
	Attach func(ctx context.Context) (to http.RoundTripper, done func() error, err error)
	// Doctor looks at this host without watching it.
	Doctor func(ctx context.Context) (api.Doctor, error)
	// CheckConfig tells what is wrong in the parts of sensors and exporters.
	CheckConfig func(c config.Config) error
}

// Start is what `ghostlight run` gives an agent.
type Start struct {
	Config config.Config
	Reload <-chan config.Config // a configuration read anew, after SIGHUP; already checked
	Ready  func()               // to be called when clients can come
	Log    *slog.Logger
}

// The exit codes.
const (
	exitOK    = 0
	exitError = 1 // it did not work, or, for doctor, nothing can run
	exitUsage = 2 // it was asked for in the wrong way
)

// Terminal is where a command reads and writes.
type Terminal struct {
	In       io.Reader
	Out, Err io.Writer
	Colour   bool          // Out is a terminal that shows colours
	Width    int           // characters in a line of Out; 0 if it is no terminal
	Look     time.Duration // how long flows watches without an agent and without -f
	Zone     *time.Location
	Now      func() time.Time
	Agents   []string // where agents of this host may answer; nil: in their usual places
}

// Standard is the process's own terminal.
func Standard() Terminal {
	return Terminal{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Colour: showsColour(os.Stdout), Width: widthOf(os.Stdout), Look: 5 * time.Second, Zone: time.Local, Now: time.Now}
}

// showsColour follows no-color.org.
func showsColour(f *os.File) bool {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// widthOf returns how many characters fit into a line of a terminal.
func widthOf(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// columns is the width to draw for: that of the terminal, within reason.
func (t Terminal) columns() int {
	if t.Width <= 0 {
		return usualWidth
	}
	return min(max(leastWidth, t.Width), mostWidth)
}

const (
	leastWidth = 60
	usualWidth = 120
	mostWidth  = 200
)

// patience is how long a command has to end in good order. timeout(1) and
// terminals may send one signal twice: that is not impatience.
const patience = time.Second

// Main runs one command and returns the exit code. An interrupt ends it in good
// order; another one, a second later, at once.
func Main(a Agent, t Terminal, args []string) int {
	signal.Ignore(syscall.SIGPIPE) // a write to a closed pipe fails instead, and is the end
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { time.AfterFunc(patience, stop) })
	return (&root{agent: a, term: t}).main(ctx, t.Out, args)
}

func (r *root) main(ctx context.Context, out io.Writer, args []string) int {
	r.out = bufio.NewWriterSize(out, 32<<10)
	cmd := r.command()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	for _, done := range r.done {
		err = errors.Join(err, done())
	}
	if flushed := r.out.Flush(); err == nil {
		err = flushed
	}
	return r.report(ctx, err)
}

// report tells the error, once, and finds its exit code.
func (r *root) report(ctx context.Context, err error) int {
	var usage usageError
	var problem *api.Problem
	switch {
	case err == nil, errors.Is(err, syscall.EPIPE):
		return exitOK
	case errors.Is(err, errNothingRuns):
		return exitError // doctor has said it
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(r.term.Err, "ghostlight: %v\n", err)
		return exitUsage
	case strings.HasPrefix(err.Error(), "unknown command"): // cobra's own error has no type
		fmt.Fprintf(r.term.Err, "ghostlight: %s\n", suggested(err.Error()))
		return exitUsage
	case errors.As(err, &problem) && problem.Status == http.StatusBadRequest:
		fmt.Fprintf(r.term.Err, "ghostlight: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(r.term.Err, "ghostlight: %v\n", err)
	return exitError
}

// suggested turns cobra's suggestions into one sentence.
func suggested(message string) string {
	first, rest, found := strings.Cut(message, "\n")
	first = strings.TrimSuffix(first, ` for "ghostlight"`)
	_, rest, _ = strings.Cut(rest, "?")
	if !found || strings.TrimSpace(rest) == "" {
		return first + " (see ghostlight --help)"
	}
	return first + "; did you mean " + strings.Join(strings.Fields(rest), " or ") + "?"
}

// usageError is a command given in the wrong way.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// root is what all commands share.
type root struct {
	agent Agent
	term  Terminal
	out   *bufio.Writer

	done []func() error // to be called at the end

	server, tokenFile, caFile string
	colour                    string
}

func (r *root) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ghostlight",
		Short: "Shows what a Linux host is doing: every process, connection and request",
		Long: `Ghostlight shows what a Linux host is doing: every process, every connection and
every request, live and afterwards, by eBPF and with no change to any application.

Start the agent with "ghostlight run"; the other commands ask it. Without one,
requests, traces, services, flows and processes watch by themselves.

Exit codes: 0 it worked, 1 it did not (for doctor: nothing can run here),
2 the command was given in a wrong way.`,
		Example: `  sudo ghostlight run               # watch, keep a history, serve http://127.0.0.1:4100
  ghostlight requests -f            # requests as they happen
  ghostlight services               # rate, errors and durations, the worst first
  ghostlight flows -f               # connections as they happen
  ghostlight processes              # the tree of processes
  ghostlight doctor                 # what works on this host, and what does not`,
		Version:           r.agent.Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: r.prepare,
	}
	cmd.SetOut(r.out)
	cmd.SetErr(r.term.Err)
	cmd.SetIn(r.term.In)
	cmd.SetVersionTemplate("ghostlight {{.Version}}\n")
	cmd.SetFlagErrorFunc(flagError)
	cmd.SuggestionsMinimumDistance = 2
	cmd.PersistentFlags().StringVar(&r.colour, "color", "auto", "colours: auto, always or never")
	cmd.RegisterFlagCompletionFunc("color", cobra.FixedCompletions([]string{"auto", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.AddCommand(r.runCommand(), r.requestsCommand(), r.tracesCommand(), r.servicesCommand(), r.flowsCommand(), r.processesCommand(), r.mapCommand(), r.queryCommand(),
		r.statusCommand(), r.doctorCommand(), r.configCommand(), r.versionCommand(), r.manCommand())
	for _, sub := range cmd.Commands() {
		strictArgs(sub)
	}
	return cmd
}

// strictArgs makes wrong arguments a usage error, in all commands below too.
func strictArgs(cmd *cobra.Command) {
	check := cmd.Args
	if check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usagef("%w (see %s --help)", err, c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		strictArgs(sub)
	}
}

func (r *root) prepare(*cobra.Command, []string) error {
	switch r.colour {
	case "auto":
	case "always":
		r.term.Colour = true
	case "never":
		r.term.Colour = false
	default:
		return usagef("--color %s: it is auto, always or never", r.colour)
	}
	return nil
}

// flagError adds the flag that was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	name, found := strings.CutPrefix(err.Error(), "unknown flag: --")
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	near := config.Nearest(name, known)
	if found && near != "" {
		return usagef("unknown flag --%s; did you mean --%s?", name, near)
	}
	return usagef("%w (see %s --help)", err, cmd.CommandPath())
}

// note tells a person something beside the answer.
func (r *root) note(format string, args ...any) {
	fmt.Fprintf(r.term.Err, "ghostlight: "+format+"\n", args...)
}

func (r *root) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: cobra.NoArgs,
		Example: "  ghostlight version",
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(r.out, "ghostlight %s\n", r.agent.Version)
			return err
		},
	}
}
