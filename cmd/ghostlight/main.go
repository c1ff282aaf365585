// Ghostlight shows what a Linux host is doing.
//
//	ghostlight run -> agent: ring, sensors, enrich, store <- API <- commands, web page, Prometheus
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
		Version:     agent.Version(),
		Run:         run,
		Attach:      attach,
		Doctor:      doctor,
		CheckConfig: agent.CheckConfig,
	}, cli.Standard(), os.Args[1:]))
}

func run(ctx context.Context, s cli.Start) error {
	return agent.Run(ctx, s.Config, agent.Options{UI: ui.Handler(), Reload: s.Reload, Ready: s.Ready, Log: s.Log})
}

// attach watches for one command, which says itself what concerns its user.
func attach(ctx context.Context) (http.RoundTripper, func() error, error) {
	return agent.Attach(ctx, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
}

func doctor(context.Context) (api.Doctor, error) { return agent.Examine(config.Default()), nil }
