package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"ghostlight/internal/api"
)

// errNothingRuns makes doctor's exit code.
var errNothingRuns = errors.New("nothing can run on this host")

func (r *root) doctorCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Show what works on this host, what does not, why, and what that costs you",
		Long: `Show what this host can and cannot do. If an agent runs, it tells which way each
sensor took; else every sensor is attached for a moment.

-o wide shows the reason for every way that was not taken. The exit code is 1 if
nothing can run here.`,
		Example: `  sudo ghostlight doctor
  ghostlight doctor -o json | jq '.probes[] | select(.ok == false)'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.doctor(cmd.Context(), output) },
	}
	r.serverFlags(cmd)
	r.outputFlag(cmd, &output)
	return cmd
}

func (r *root) doctor(ctx context.Context, output string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	d, err := r.diagnose(ctx)
	if err != nil {
		return err
	}
	if output == "json" {
		err = r.jsonLine(d)
	} else {
		err = r.diagnosis(d, output == "wide")
	}
	if err == nil && !d.OK {
		return errNothingRuns
	}
	return err
}

// diagnose asks the agent that runs, or looks itself.
func (r *root) diagnose(ctx context.Context) (api.Doctor, error) {
	var d api.Doctor
	c, err := r.connect(ctx)
	if err == nil {
		_, err = c.object(ctx, "/api/v1/doctor", nil, &d)
		return d, err
	}
	if r.server != "" || r.agent.Doctor == nil {
		return d, err
	}
	return r.agent.Doctor(ctx)
}

func (r *root) diagnosis(d api.Doctor, wide bool) error {
	g := &grid{term: r.term}
	line := func(name string, s style, format string, args ...any) {
		g.add(cell{name, dim}, cell{clean(fmt.Sprintf(format, args...)), s})
	}
	line("kernel", plainStyle, "Linux %s %s, lockdown %s", d.Kernel, d.Arch, d.Lockdown)
	line("user", plainStyle, "uid %d", d.User.UID)
	if len(d.User.Missing) > 0 {
		line("", red, "lacks %s", strings.Join(d.User.Missing, ", "))
	}
	if err := g.flush(r.out); err != nil {
		return err
	}
	if err := r.reports(d.Sensors, wide); err != nil {
		return err
	}
	if err := r.probes(d.Probes); err != nil {
		return err
	}
	for _, n := range d.Notes {
		fmt.Fprintf(r.out, "\nnote: %s", clean(n))
	}
	if len(d.Notes) > 0 {
		fmt.Fprintln(r.out)
	}
	verdict, s := "Ghostlight can run here.", green
	if !d.OK {
		verdict, s = "Nothing can run here.", red
	}
	_, err := fmt.Fprintf(r.out, "\n%s\n", r.term.paint(s, verdict))
	return err
}

// sign is the first cell of a line that says yes or no.
func sign(ok bool) cell {
	if ok {
		return cell{"yes", green}
	}
	return cell{"NO", red}
}

func (r *root) reports(all []api.SensorReport, wide bool) error {
	g := &grid{term: r.term}
	for _, s := range all {
		g.add()
		g.add(sign(s.OK), cell{clean(s.Name), bold}, cell{clean(s.Doc), dim})
		if s.Error != "" {
			g.add(cell{}, cell{}, cell{clean(s.Error), red})
		}
		for _, h := range s.Hooks {
			if h.Tier != "" {
				g.add(sign(true), cell{"  " + clean(h.What), plainStyle}, cell{"by " + clean(h.Tier), plainStyle})
			} else {
				g.add(sign(false), cell{"  " + clean(h.What), plainStyle}, cell{"you miss: " + clean(h.Without), yellow})
			}
			for _, t := range h.Tiers {
				if !t.Taken && (wide || h.Tier == "") {
					g.add(cell{}, cell{}, cell{"not by " + clean(t.Name) + ": " + clean(t.Reason), dim})
				}
			}
		}
		for _, f := range s.Sights {
			g.add(sign(f.OK), cell{"  " + clean(f.Kind) + " in " + clean(f.File), plainStyle}, cell{clean(f.Note) + processes(f.PIDs), dim})
		}
	}
	return g.flush(r.out)
}

func (r *root) probes(all []api.Probe) error {
	g := &grid{term: r.term}
	g.add()
	g.add(heads("", "KERNEL FEATURE", "SINCE", "")...)
	for _, p := range all {
		last := cell{}
		if !p.OK {
			last = cell{"you miss: " + clean(p.Loss) + " (" + clean(p.Reason) + ")", dim}
		}
		g.add(sign(p.OK), cell{clean(p.Name), plainStyle}, cell{clean(p.Since), plainStyle}, last)
	}
	return g.flush(r.out)
}

// processes names some.
func processes(pids []uint32) string {
	const most = 5
	var b strings.Builder
	for i, p := range pids {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(pids)-most)
			break
		}
		fmt.Fprintf(&b, "%s %d", map[bool]string{true: "; process", false: ","}[i == 0], p)
	}
	return b.String()
}
