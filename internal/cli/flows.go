package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

func (r *root) flowsCommand() *cobra.Command {
	l := &listing{root: r, path: "/api/v1/flows", event: "flow", what: "flows"}
	cmd := &cobra.Command{
		Use:     "flows [TERM...]",
		Aliases: []string{"flow", "observe"},
		Short:   "Show connections: who talks to whom, how much, and how it ended",
		Long: `Show TCP connections, UDP flows and dropped packets, oldest first. Without a time
range it shows the newest 20, with one the newest 1000.

Each line is one end of a connection: on the left the end the record belongs to,
on the right the other one; the arrow points from the client to the server. Bytes
are what the left end sent / received. A connection between two processes of this
host has two lines. A connection that lives long has a line every now and then,
and their bytes add up.

TERMs are filters of the form field:value, -field:value, field>=10; all must hold,
and the same field twice means either. A bare word is a command, service, container
or address. "--" comes before a TERM that begins with a minus.

With no agent running, it watches by itself: for 5 s, or with -f until Ctrl-C.`,
		Example: `  ghostlight flows                                  # the newest 20
  ghostlight flows -f --port 443 --not --command curl
  ghostlight flows --since 1h --verdict error       # what failed in the last hour
  ghostlight flows --address 10.0.0.0/8 'tcp.rtt_ns>5ms'
  ghostlight flows --since 14:00 --until 14:05 --last 0 -o json | jq .bytes.sent`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, words []string) error {
			l.page()
			return l.run(cmd.Context(), words)
		},
	}
	l.flags(cmd)
	r.outputFlag(cmd, &l.output)
	l.filters.flag(cmd, "pid", "pid", "process id, of either end", isNumber(32))
	l.filters.flag(cmd, "command", "command", "name of the executable", nil)
	l.filters.flag(cmd, "container", "container", "name or id of the container", nil)
	l.filters.flag(cmd, "service", "service", "service, of either end", nil)
	l.filters.flag(cmd, "address", "address", "address or network (10.0.0.0/8), of either end", isAddress)
	l.filters.flag(cmd, "port", "port", "port, of either end", isNumber(16))
	l.filters.flag(cmd, "transport", "transport", "tcp, udp, icmp, ...", nil)
	l.filters.flag(cmd, "verdict", "verdict", "forwarded, dropped or error", isOneOf("forwarded", "dropped", "error"))
	l.filters.notFlag(cmd)
	for flag, values := range map[string][]string{"transport": {"tcp", "udp", "icmp", "icmpv6", "sctp"}, "verdict": {"forwarded", "dropped", "error"}} {
		cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return cmd
}

// page makes l show flows in the chosen form.
func (l *listing) page() {
	if l.output == "json" {
		l.showRaw()
		return
	}
	g := &grid{term: l.term}
	l.flush = func() error { return g.flush(l.out) }
	l.show = func(row []byte) error {
		var f flowRecord
		if err := json.Unmarshal(row, &f); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		g.add(l.flowCells(&f)...)
		return nil
	}
}

func (l *listing) flowCells(f *flowRecord) []cell {
	own, arrow, other := f.ends()
	cells := []cell{
		{l.term.clock(f.Time), dim}, {f.transport(), plainStyle},
		{own, plainStyle}, {arrow, dim}, {other, plainStyle},
		f.outcome(),
		{bytesText(f.Bytes.Sent) + " / " + bytesText(f.Bytes.Received), plainStyle},
		{f.remarks(), plainStyle},
	}
	if l.output == "wide" {
		cells = append(cells, cell{f.more(), dim})
	}
	return cells
}

// showRaw passes rows on as they come, one a line.
func (l *listing) showRaw() {
	l.flush = func() error { return nil }
	l.show = func(row []byte) error {
		if _, err := l.out.Write(row); err != nil {
			return err
		}
		return l.out.WriteByte('\n')
	}
}
