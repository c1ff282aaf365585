package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"ghostlight/internal/api"
	"ghostlight/internal/catalog"
	"ghostlight/internal/config"
	"ghostlight/internal/export"
)

// Options is what Run needs beside the configuration.
type Options struct {
	UI     http.Handler         // the web page
	Reload <-chan config.Config // configurations read anew; nil: none come
	Ready  func()               // called once clients can come
	Log    *slog.Logger
}

// Run watches this host and answers questions about it until ctx ends.
func Run(ctx context.Context, cfg config.Config, o Options) (err error) {
	listen, err := api.ListenOf(cfg)
	if err != nil {
		return err
	}
	a, err := Open(cfg, o.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	server, err := a.server(o.UI)
	if err != nil {
		return err
	}
	// What ends the agent ends the server, and the other way round.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { // ended by stop, or by the agent's end
		select {
		case <-a.Done():
			stop(a.Err())
		case <-ctx.Done():
		}
	}()
	go a.takeOver(ctx, o.Reload) // ended by stop
	return errors.Join(server.Serve(ctx, listen, o.Ready), cause(ctx))
}

// cause is why ctx ended, if it was not asked to.
func cause(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// takeOver hands new configurations to the loop.
func (a *Agent) takeOver(ctx context.Context, reload <-chan config.Config) {
	for {
		select {
		case <-ctx.Done():
			return
		case cfg := <-reload:
			select {
			case a.reload <- cfg:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (a *Agent) server(ui http.Handler) (*api.Server, error) {
	b := api.Backend{
		Store: a.store, Status: a.Status, Doctor: a.Doctor, SQL: api.SQLOf(a.store), UI: ui, Version: Version(), Log: a.log, Checkpoint: checkpointEvery,
	}
	for _, s := range a.Servers() {
		if s.Path() == "/metrics" {
			b.Metrics = s
		}
	}
	return api.New(b)
}

// Attach watches this host for one command: what it sees goes to a temporary
// store, and the transport is the only way to it. done ends it all.
func Attach(ctx context.Context, log *slog.Logger) (way http.RoundTripper, done func() error, err error) {
	dir, err := os.MkdirTemp("", "ghostlight-")
	if err != nil {
		return nil, nil, fmt.Errorf("make a temporary store: %w", err)
	}
	cfg := config.Default()
	cfg.Data = dir
	a, err := Open(cfg, log)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	done = func() error { return errors.Join(a.Close(), os.RemoveAll(dir)) }
	server, err := a.server(nil)
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return server.InProcess(ctx), done, nil
}

// CheckConfig tells what is wrong in the parts of the configuration that only
// sensors and exporters understand.
func CheckConfig(cfg config.Config) error {
	var sensors, exporters []string
	var errs []error
	for _, d := range catalog.Sensors {
		sensors = append(sensors, d.Name)
		part := cfg.Sensor(d.Name)
		_, err := d.New(part.Options)
		errs = append(errs, part.Blame(err))
	}
	for _, d := range catalog.Exporters {
		exporters = append(exporters, d.Name)
		part := cfg.Exporter(d.Name)
		e, err := d.New(export.Env{Decode: part.Options, Self: func() []export.Metric { return nil }})
		if err == nil {
			err = e.Close()
		}
		errs = append(errs, part.Blame(err))
	}
	return errors.Join(append(errs, cfg.CheckNames(sensors, exporters))...)
}
