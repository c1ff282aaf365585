package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ghostlight/internal/api"
	"ghostlight/internal/config"
)

func (r *root) statusCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the agent fares: losses, cost, budget, store",
		Example: `  ghostlight status
  ghostlight status -o json | jq .lost.total`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.status(cmd.Context(), output) },
	}
	r.serverFlags(cmd)
	r.outputFlag(cmd, &output)
	return cmd
}

func (r *root) status(ctx context.Context, output string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	c, err := r.connect(ctx)
	if err != nil {
		return err
	}
	var s api.Status
	raw, err := c.object(ctx, "/api/v1/status", nil, &s)
	switch {
	case err != nil:
		return err
	case output == "json":
		return r.raw(raw)
	}
	g := &grid{term: r.term}
	line := func(name string, st style, format string, args ...any) {
		g.add(cell{name, dim}, cell{clean(fmt.Sprintf(format, args...)), st})
	}
	line("agent", plainStyle, "ghostlight %s, up %s", s.Version, spanText(time.Duration(s.UptimeNS)))
	line("host", plainStyle, "%s, Linux %s %s", s.Host.Name, s.Host.Kernel, s.Host.Arch)
	line("events", plainStyle, "%s, %s/s", countText(s.Events.Total), digits(s.Events.PerSecond))
	line("lost", unlessZero(s.Lost.Total), "%s", lostText(s.Lost))
	line("cost", plainStyle, "agent %s of a core, %s; with programs %s", percentText(s.Agent.CPUPercent), binaryText(s.Agent.RSSBytes), percentText(s.Budget.CPUPercent))
	line("budget", budgetStyle(s.Budget), "%s", budgetText(s.Budget))
	line("store", plainStyle, "%s", storeText(s.Store, r.term))
	if s.Store.Error != "" {
		line("", red, "cannot write: %s", s.Store.Error)
	}
	line("features", plainStyle, "%s", featuresText(s.FeaturesOff))
	if err := g.flush(r.out); err != nil {
		return err
	}
	if err := r.sensors(s.Sensors); err != nil || output != "wide" {
		return err
	}
	return r.programs(s.Programs)
}

func unlessZero(n uint64) style {
	if n == 0 {
		return plainStyle
	}
	return red
}

func lostText(l api.Lost) string {
	if l.Total == 0 {
		return "nothing"
	}
	var parts []string
	for _, s := range l.ByStage {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %s %s", countText(s.Count), s.Stage, s.Sensor)))
	}
	return countText(l.Total) + " records: " + strings.Join(parts, ", ")
}

func budgetStyle(b api.Budget) style {
	if b.State == api.BudgetOK {
		return plainStyle
	}
	return yellow
}

func budgetText(b api.Budget) string {
	cpu, memory := "no limit", "no limit"
	if b.CPULimitPercent > 0 {
		cpu = percentText(b.CPULimitPercent)
	}
	if b.MemoryLimitBytes > 0 {
		memory = binaryText(b.MemoryLimitBytes)
	}
	text := fmt.Sprintf("%s (CPU %s of %s, memory %s of %s)", b.State, percentText(b.CPUPercent), cpu, binaryText(b.MemoryBytes), memory)
	if len(b.Shed) > 0 {
		text += "; let go: " + strings.Join(b.Shed, ", ")
	}
	return text
}

func storeText(s api.Store, t Terminal) string {
	text := fmt.Sprintf("%s rows, %s; keeps %s and %s", countText(uint64(s.Rows)), binaryText(s.Bytes),
		config.Duration(s.RetentionNS), binaryText(s.RetentionBytes))
	if s.Oldest != nil {
		text += "; oldest " + t.clock(*s.Oldest)
	}
	return text
}

func featuresText(off int) string {
	if off == 0 {
		return "all on"
	}
	return fmt.Sprintf("%d off on this host: ghostlight doctor says which", off)
}

func (r *root) sensors(all []api.Sensor) error {
	g := &grid{term: r.term, right: []bool{false, false, true, true}}
	g.add()
	g.add(heads("SENSOR", "STATE", "EVENTS", "LOST", "")...)
	for _, s := range all {
		state := map[string]style{api.SensorRunning: green, api.SensorFailed: red, api.SensorShed: yellow}[s.State]
		text := s.Doc
		if s.Error != "" {
			text = s.Error
		}
		g.add(cell{clean(s.Name), plainStyle}, cell{clean(s.State), state}, cell{countText(s.Events), plainStyle}, cell{countText(s.Lost), unlessZero(s.Lost)}, cell{clean(text), dim})
	}
	return g.flush(r.out)
}

func (r *root) programs(all []api.Program) error {
	g := &grid{term: r.term, right: []bool{false, false, true, true, true}}
	g.add()
	g.add(heads("PROGRAM", "SENSOR", "RUNS", "PER RUN", "CPU")...)
	for _, p := range all {
		g.add(cell{clean(p.Name), plainStyle}, cell{clean(p.Sensor), plainStyle}, cell{countText(p.Runs), plainStyle},
			cell{spanText(time.Duration(p.NSPerRun)), plainStyle}, cell{percentText(p.CPUPercent), plainStyle})
	}
	return g.flush(r.out)
}
