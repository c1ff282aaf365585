// Ghostlight shows what a Linux host is doing.
//
//	ghostlight run -> agent (ring, sensors, store) <- API <- commands, web page, Prometheus
package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"time"

	"ghostlight/internal/agent"
	"ghostlight/internal/api"
	"ghostlight/internal/catalog"
	"ghostlight/internal/cli"
	"ghostlight/internal/config"
	"ghostlight/ui"
)

func main() {
	os.Exit(cli.Main(cli.Agent{
		Version: agent.Version(), Run: run, Attach: attach, Doctor: doctor, CheckConfig: checkConfig,
	}, cli.Standard(), os.Args[1:]))
}

// run watches the host and serves what it sees until ctx ends.
func run(ctx context.Context, s cli.Start) error {
	if err := checkConfig(s.Config); err != nil {
		return err
	}
	listen, err := api.ListenOf(s.Config)
	if err != nil {
		return err
	}
	a, err := agent.Open(s.Config, s.Log)
	if err != nil {
		return err
	}
	server, err := serve(a, s.Log)
	if err != nil {
		return errors.Join(err, a.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // ended by stop
		defer stop() // an agent that stopped watching must not look alive
		for {
			select {
			case c := <-s.Reload:
				a.Reload(c)
			case <-a.Done():
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	err = server.Serve(ctx, listen, s.Ready)
	return errors.Join(err, a.Close(), a.Err())
}

// checkpointEvery is how often the agent tells of every process anew.
const checkpointEvery = time.Hour

func serve(a *agent.Agent, log *slog.Logger) (*api.Server, error) {
	b := api.Backend{
		Store: a.Store(), Status: a.Status, Doctor: a.Doctor, SQL: api.SQLOf(a.Store()), UI: ui.Handler(),
		Version: agent.Version(), Log: log, Checkpoint: checkpointEvery,
	}
	for _, e := range a.Servers() {
		if e.Path() == "/metrics" {
			b.Metrics = e
		}
	}
	return api.New(b)
}

// attach watches for one command, with a store that goes when it ends.
func attach(ctx context.Context) (http.RoundTripper, func() error, error) {
	dir, err := os.MkdirTemp("", "ghostlight-")
	if err != nil {
		return nil, nil, err
	}
	c := config.Default()
	c.Data = dir
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	a, err := agent.Open(c, log)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	done := func() error { return errors.Join(a.Close(), os.RemoveAll(dir)) }
	server, err := serve(a, log)
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return server.InProcess(ctx), done, nil
}

func doctor(context.Context) (api.Doctor, error) { return agent.Examine(config.Default()), nil }

func checkConfig(c config.Config) error {
	var sensors, exporters []string
	for _, d := range catalog.Sensors {
		sensors = append(sensors, d.Name)
	}
	for _, d := range catalog.Exporters {
		exporters = append(exporters, d.Name)
	}
	return c.CheckNames(sensors, exporters)
}
