// Ghostlight shows what a Linux host is doing: who talks to whom, every process
// and every connection, and says what it could not see.
package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"

	"ghostlight/internal/agent"
	"ghostlight/internal/api"
	"ghostlight/internal/cli"
	"ghostlight/internal/config"
	"ghostlight/ui"
)

func main() {
	own := make(chan (<-chan struct{}), 1) // the agent of a command that found none
	code := cli.Main(cli.Agent{
		Version: agent.Version(),
		Run: func(ctx context.Context, s cli.Start) error {
			return agent.Run(ctx, s.Config, agent.Options{UI: ui.Handler(), Reload: s.Reload, Ready: s.Ready, Log: s.Log})
		},
		Attach: func(ctx context.Context) (http.RoundTripper, error) {
			way, gone, err := agent.Attach(ctx, slog.New(slog.DiscardHandler))
			if err == nil {
				own <- gone
			}
			return way, err
		},
		Doctor: func(context.Context) (api.Doctor, error) {
			return agent.Examine(config.Default()), nil
		},
		CheckConfig: agent.CheckConfig,
	}, cli.Standard(), os.Args[1:])
	select {
	case gone := <-own:
		<-gone // detached and its temporary store removed
	default:
	}
	os.Exit(code)
}
