package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"ghostlight/internal/config"
)

// Listen says where the API is heard.
type Listen struct {
	Address string // host:port, or config.Off
	Socket  string // path, or config.Off
	Cert    string // PEM files; both or none
	Key     string
	Token   string // empty: none is asked for
}

// ListenOf takes from the configuration what concerns the API, and reads the
// token's file.
func ListenOf(c config.Config) (Listen, error) {
	l := Listen{Address: c.Listen, Socket: c.Socket, Cert: c.TLS.Cert, Key: c.TLS.Key, Token: string(c.Token)}
	if c.TokenFile != "" {
		token, err := ReadToken(c.TokenFile)
		if err != nil {
			return l, err
		}
		l.Token = token
	}
	return l, l.check()
}

const minToken = 16

// check refuses what would show the host to the network: an address beyond
// loopback needs both a certificate and a token.
func (l Listen) check() error {
	var missing []string
	if l.Address != config.Off && exposed(l.Address) {
		if l.Cert == "" || l.Key == "" {
			missing = append(missing, "a certificate (tls.cert and tls.key)")
		}
		if l.Token == "" {
			missing = append(missing, "a token (token_file)")
		}
	}
	switch {
	case missing != nil:
		return fmt.Errorf("refuse to listen on %s: it can be reached from other hosts, and everything this host does would show. That needs %s; or listen on 127.0.0.1",
			l.Address, strings.Join(missing, " and "))
	case l.Token != "" && len(l.Token) < minToken:
		return fmt.Errorf("the token has %d characters: it needs at least %d (try: openssl rand -hex 32)", len(l.Token), minToken)
	}
	return nil
}

// ReadToken reads a token from a file that only its owner and group can read.
func ReadToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("read the token: %w", err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("read the token: %s is not a regular file", path)
	case info.Mode().Perm()&0o007 != 0:
		return "", fmt.Errorf("read the token: everybody can open %s (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	b := make([]byte, 4096)
	n, _ := f.Read(b)
	token := strings.TrimSpace(string(b[:n]))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("read the token: %s must hold one word", path)
	}
	return token, nil
}

// open makes the listeners, or none if one of them cannot be had.
func (l Listen) open() (tcp, unix net.Listener, err error) {
	if err := l.check(); err != nil {
		return nil, nil, err
	}
	if l.Socket != config.Off && l.Socket != "" {
		if unix, err = listenUnix(l.Socket); err != nil {
			return nil, nil, err
		}
	}
	if l.Address != config.Off && l.Address != "" {
		if tcp, err = l.listenTCP(); err != nil {
			if unix != nil {
				unix.Close()
			}
			return nil, nil, err
		}
	}
	return tcp, unix, nil
}

func (l Listen) listenTCP() (net.Listener, error) {
	c := certificate{cert: l.Cert, key: l.Key}
	if l.Cert != "" {
		if _, err := c.get(nil); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen("tcp", l.Address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w: is another ghostlight running? (--listen takes another address)", err)
	case err != nil:
		return nil, err
	case l.Cert == "":
		return limit(listener, maxConns), nil
	}
	return tls.NewListener(limit(listener, maxConns), &tls.Config{
		MinVersion: tls.VersionTLS13, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"},
	}), nil
}

// certificate reads its files again when they change, so that renewing one
// needs no restart.
type certificate struct {
	cert, key string

	mu     sync.Mutex
	loaded *tls.Certificate
	as     time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := time.Time{}
	for _, path := range []string{c.cert, c.key} {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(changed) {
			changed = info.ModTime()
		}
	}
	if c.loaded != nil && changed.Equal(c.as) {
		return c.loaded, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	switch {
	case err == nil:
		c.loaded, c.as = &pair, changed
	case c.loaded == nil:
		return nil, fmt.Errorf("load the certificate: %w", err)
	}
	return c.loaded, nil // half-written files: the old one serves on
}

// listenUnix makes a socket that only its owner can open. A socket that a dead
// agent left is taken over; one that answers is not.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the unix socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: ownerOnly}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("%w (socket: takes another path, or off)", err)
	}
	return limit(l, maxConns), nil
}

// ownerOnly sets the mode before the socket has a name: bind(2) gives the new
// file the mode of the socket's own inode, less the umask, so there is no
// moment at which others could open it.
func ownerOnly(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) })
	return errors.Join(err, failed)
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at the unix socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is not a socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another agent answers on %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("look at the unix socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove a stale unix socket: %w", err)
	}
	return nil
}
