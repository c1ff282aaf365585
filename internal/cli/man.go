package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (r *root) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man FOLDER",
		Short:   "Write the manual pages into a folder",
		Example: "  ghostlight man /usr/local/share/man/man1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("make the folder: %w", err)
			}
			top := cmd.Root()
			top.DisableAutoGenTag = true
			made := time.Unix(0, 0).UTC() // the same pages from the same program
			header := &doc.GenManHeader{Title: "GHOSTLIGHT", Section: "1", Source: "Ghostlight", Manual: "Ghostlight", Date: &made}
			return doc.GenManTree(top, header, args[0])
		},
	}
}
