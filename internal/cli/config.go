package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"ghostlight/internal/api"
	"ghostlight/internal/config"
)

func (r *root) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check a configuration file, or show the effective configuration",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("config what? check FILE or print")
		},
	}
	cmd.AddCommand(r.configCheck(), r.configPrint())
	return cmd
}

func (r *root) configCheck() *cobra.Command {
	return &cobra.Command{
		Use:     "check FILE",
		Short:   "Say what is wrong in a configuration file, with the line",
		Example: "  ghostlight config check /etc/ghostlight/config.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := config.Read(args[0])
			if err == nil && r.agent.CheckConfig != nil {
				err = r.agent.CheckConfig(c)
			}
			if err == nil {
				_, err = api.ListenOf(c)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(r.out, "%s is right\n", args[0])
			return err
		},
	}
}

func (r *root) configPrint() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Show the configuration that run would have with the same flags, secrets hidden",
		Example: `  ghostlight config print
  ghostlight config print --config /etc/ghostlight/config.yaml --listen off`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := s.read()
			if err != nil {
				return err
			}
			return c.Print(r.out)
		},
	}
	s.flags(cmd)
	s.check = r.agent.CheckConfig
	return cmd
}
