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
	os.Exit(cli.Main(cli.Agent{
		Version: agent.Version(),
		Run: func(ctx context.Context, s cli.Start) error {
			return agent.Run(ctx, s.Config, agent.Options{UI: ui.Handler(), Reload: s.Reload, Ready: s.Ready, Log: s.Log})
		},
		Attach: func(ctx context.Context) (http.RoundTripper, func() error, error) {
			return agent.Attach(ctx, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
		},
		Doctor:      func(context.Context) (api.Doctor, error) { return agent.Examine(config.Default()), nil },
		CheckConfig: agent.CheckConfig,
	}, cli.Standard(), os.Args[1:]))
}
