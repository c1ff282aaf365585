package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ghostlight/internal/api"
	"ghostlight/internal/config"
)

// settings is the flags that stand over the configuration file.
type settings struct {
	file                                   string
	listen, socket, data, tokenFile, level string
	tlsCert, tlsKey                        string
	changed                                func(flag string) bool
	check                                  func(config.Config) error // of sensors and exporters; nil: none
}

func (s *settings) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.file, "config", "", "configuration file (YAML); flags stand over it")
	f.StringVar(&s.listen, "listen", "", "address of the HTTP API and the web page, or off (default 127.0.0.1:4100)")
	f.StringVar(&s.socket, "socket", "", "path of the unix socket, or off")
	f.StringVar(&s.data, "data", "", "folder of the store")
	f.StringVar(&s.tokenFile, "token-file", "", "file with the token that requests must carry")
	f.StringVar(&s.tlsCert, "tls-cert", "", "certificate chain (PEM)")
	f.StringVar(&s.tlsKey, "tls-key", "", "its private key (PEM)")
	f.StringVar(&s.level, "log-level", "", "debug, info, warn or error (default info)")
	s.changed = f.Changed
}

// read returns the effective configuration: defaults, file, flags.
func (s *settings) read() (config.Config, error) {
	c := config.Default()
	if s.file != "" {
		var err error
		if c, err = config.Read(s.file); err != nil {
			return c, err
		}
	}
	for flag, over := range map[string]func(){
		"listen": func() { c.Listen = s.listen }, "socket": func() { c.Socket = s.socket },
		"data": func() { c.Data = s.data }, "token-file": func() { c.TokenFile, c.Token = s.tokenFile, "" },
		"tls-cert": func() { c.TLS.Cert = s.tlsCert }, "tls-key": func() { c.TLS.Key = s.tlsKey },
		"log-level": func() { c.Log.Level = s.level },
	} {
		if s.changed(flag) {
			over()
		}
	}
	if err := c.Check(); err != nil {
		return c, usageError{err} // Read has checked the file: it is a flag
	}
	if s.check != nil {
		if err := s.check(c); err != nil {
			return c, err
		}
	}
	_, err := api.ListenOf(c)
	return c, err
}

func (r *root) runCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Watch this host: the agent",
		Long: `Watch this host, keep what happened, and serve it: to the other commands, on
http://127.0.0.1:4100 (web page and API) and on a unix socket, and to Prometheus on
/metrics. It needs no configuration.

It runs until SIGINT or SIGTERM, and then writes everything to disk. SIGHUP reads
the configuration file again; what cannot change while running is said in the log.
Under systemd it takes Type=notify.`,
		Example: `  sudo ghostlight run
  sudo ghostlight run --config /etc/ghostlight/config.yaml
  sudo ghostlight run --listen 127.0.0.1:4200 --data /tmp/ghostlight`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context(), &s) },
	}
	s.flags(cmd)
	s.check = r.agent.CheckConfig
	return cmd
}

func (r *root) run(ctx context.Context, s *settings) error {
	if r.agent.Run == nil {
		return errors.New("this build has no agent")
	}
	c, err := s.read()
	if err != nil {
		return err
	}
	level := &slog.LevelVar{}
	log := logger(r.term.Err, c.Log, level)
	reload := make(chan config.Config)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // ended by stop
		w := watcher{settings: s, started: c, current: c, level: level, log: log, reload: reload}
		w.loop(ctx, hangup)
	}()
	err = r.agent.Run(ctx, Start{Config: c, Reload: reload, Log: log, Ready: func() {
		notify("READY=1")
		log.Info("watching", "listen", c.Listen, "socket", c.Socket, "data", c.Data)
	}})
	notify("STOPPING=1")
	return err
}

func logger(w io.Writer, c config.Log, level *slog.LevelVar) *slog.Logger {
	level.Set(levelOf(c.Level))
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func levelOf(name string) slog.Level {
	return map[string]slog.Level{"debug": slog.LevelDebug, "warn": slog.LevelWarn, "error": slog.LevelError}[name] // else info, which is 0
}

// watcher reads the configuration again when it is told to.
type watcher struct {
	settings *settings
	started  config.Config // what keys that are not live go by
	current  config.Config // what the others go by
	level    *slog.LevelVar
	log      *slog.Logger
	reload   chan<- config.Config
}

func (w *watcher) loop(ctx context.Context, hangup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			notify("RELOADING=1\nMONOTONIC_USEC=" + monotonicMicroseconds())
			w.again(ctx)
			notify("READY=1")
		}
	}
}

// again gives the agent the new configuration, if there is one and it is right.
func (w *watcher) again(ctx context.Context) {
	c, err := w.settings.read()
	if err != nil {
		w.log.Error("the configuration is wrong: going on with the old one", "error", err)
		return
	}
	var now, later []string
	for _, change := range config.Diff(w.started, c) {
		if change.Restart {
			later = append(later, change.Key)
		}
	}
	for _, change := range config.Diff(w.current, c) {
		if !change.Restart {
			now = append(now, change.Key)
		}
	}
	if len(later) > 0 {
		w.log.Warn("these changes take a restart", "keys", strings.Join(later, " "))
	}
	w.log.Info("the configuration was read again", "changed", strings.Join(now, " "))
	w.level.Set(levelOf(c.Log.Level))
	select {
	case w.reload <- c:
		w.current = c
	case <-ctx.Done():
	}
}

// notify tells the service manager, if there is one (sd_notify(3)).
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return // nobody listens: we run on
	}
	defer conn.Close()
	conn.Write([]byte(state))
}

func monotonicMicroseconds() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return "0"
	}
	return fmt.Sprint(now.Nano() / 1000)
}
