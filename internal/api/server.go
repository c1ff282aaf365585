package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"ghostlight/internal/config"
)

// What a client may take of us.
const (
	maxBody    = 1 << 20
	maxHeader  = 64 << 10
	maxStreams = 64               // followers at a time
	maxConns   = 512              // connections at a time and listener
	maxAnswer  = 60 * time.Second // to find an answer
	maxStall   = 20 * time.Second // for a client to send its body, or to take the next piece
	drain      = 5 * time.Second  // to finish what was begun when we stop
)

// Serve answers on what l names until ctx ends, then lets requests finish for a
// few seconds. ready is called once clients can come.
func (s *Server) Serve(ctx context.Context, l Listen, ready func()) error {
	tcp, unix, err := l.open()
	if err != nil {
		return err
	}
	// Followers never finish by themselves: their context ends with ours.
	running, stop := context.WithCancel(ctx)
	defer stop()
	var servers []*http.Server
	failed := make(chan error, 2)
	serve := func(listener net.Listener, h http.Handler) {
		srv := s.server(running, h)
		servers = append(servers, srv)
		go func() { failed <- srv.Serve(listener) }() // ends by Shutdown below
	}
	if unix != nil {
		serve(unix, secured(s.mux))
	}
	if tcp != nil {
		serve(tcp, secured(s.guard(l, s.mux)))
	}
	ready()
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("serve the API: %w", err)
	}
	stop()
	grace, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	for _, srv := range servers {
		if e := srv.Shutdown(grace); e != nil {
			err = errors.Join(err, srv.Close())
		}
	}
	return err
}

func (s *Server) server(ctx context.Context, h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}

// InProcess returns a transport to s that no other process can reach, until ctx
// ends: how a command talks to an agent of its own.
func (s *Server) InProcess(ctx context.Context) http.RoundTripper {
	pipes := &pipeListener{conns: make(chan net.Conn), done: ctx.Done()}
	srv := s.server(ctx, secured(s.mux))
	go srv.Serve(pipes) // ends when ctx does
	return &http.Transport{DialContext: pipes.dial}
}

type pipeListener struct {
	conns chan net.Conn
	done  <-chan struct{}
}

func (p *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Close() error   { return nil }
func (p *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: config.Off, Net: "unix"} }

// limit lets n connections be open at a time; the next one waits.
func limit(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &counted{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type counted struct {
	net.Conn
	free func()
}

func (c *counted) Close() error {
	defer c.free()
	return c.Conn.Close()
}
