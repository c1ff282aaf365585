package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"ghostlight/internal/api"
	"ghostlight/internal/config"
)

// client asks one agent.
type client struct {
	name     string // as a person calls it
	base     string
	token    string
	http     *http.Client
	attached bool // the agent is our own, for as long as we run
}

const defaultAddress = "http://127.0.0.1:4100"

func (r *root) serverFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.server, "server", "", "agent to ask: an http(s) URL, host:port or unix:PATH (default: this host's)")
	cmd.Flags().StringVar(&r.tokenFile, "token-file", "", "file with the bearer token of the agent")
	cmd.Flags().StringVar(&r.caFile, "ca-file", "", "file with the certificate (PEM) that signed the agent's")
}

// errNoAgent says that nobody answers where an agent would be.
var errNoAgent = errors.New("no agent is running on this host: start one with: ghostlight run")

// connect finds the agent that was asked for, or else one on this host: by its
// socket, which needs no token, then by its address.
func (r *root) connect(ctx context.Context) (*client, error) {
	token := ""
	if r.tokenFile != "" {
		var err error
		if token, err = api.ReadToken(r.tokenFile); err != nil {
			return nil, err
		}
	}
	if r.server != "" {
		return r.dial(r.server, token)
	}
	agents := r.term.Agents
	if agents == nil {
		agents = []string{"unix:" + config.DefaultSocket(), "unix:" + config.SystemSocket, defaultAddress}
	}
	var refused error
	for _, server := range agents {
		c, err := r.dial(server, token)
		if err != nil {
			return nil, err
		}
		err = c.healthy(ctx)
		if err == nil {
			return c, nil
		}
		if errors.Is(err, fs.ErrPermission) {
			refused = fmt.Errorf("an agent may be running, but its socket %s is not yours: try with sudo", strings.TrimPrefix(server, "unix:"))
		}
	}
	if refused != nil {
		return nil, refused
	}
	return nil, errNoAgent
}

// connectOrAttach is connect for commands that can watch by themselves.
func (r *root) connectOrAttach(ctx context.Context) (*client, error) {
	c, err := r.connect(ctx)
	if !errors.Is(err, errNoAgent) || r.agent.Attach == nil {
		return c, err
	}
	transport, done, err := r.agent.Attach(ctx)
	if err != nil {
		return nil, fmt.Errorf("no agent is running on this host, and watching without one failed: %w", err)
	}
	r.done = append(r.done, done)
	return &client{base: "http://localhost", http: &http.Client{Transport: transport}, attached: true}, nil
}

func (r *root) dial(server, token string) (*client, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: 2}
	c := &client{name: server, token: token, http: &http.Client{Transport: transport, CheckRedirect: noRedirect}}
	if path, ok := strings.CutPrefix(server, "unix:"); ok {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		c.base = "http://localhost"
		return c, nil
	}
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("--server %q: write an http(s) URL, host:port or unix:PATH", server)
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return nil, usagef("--server %q: only scheme, host and port (the token goes into --token-file)", server)
	}
	if token != "" && u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, usagef("--server %q: a token is not sent over plain http to another host: use https", server)
	}
	c.base = u.Scheme + "://" + u.Host
	if r.caFile != "" {
		if transport.TLSClientConfig, err = trusting(r.caFile); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func trusting(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read --ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read --ca-file: %s has no certificate in PEM", file)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}

// noRedirect keeps the token from following a redirect elsewhere.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// healthy asks whether an agent answers.
func (c *client) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	resp, err := c.send(ctx, "GET", "/healthz", nil, nil, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16))
	if err == nil && string(body) != "ok\n" {
		err = errors.New("something else answers")
	}
	return err
}

// get asks for an answer in one of the forms the API has.
func (c *client) get(ctx context.Context, path string, params url.Values, accept string) (*http.Response, error) {
	return c.send(ctx, "GET", path, params, nil, accept)
}

// object asks for one JSON object.
func (c *client) object(ctx context.Context, path string, params url.Values, into any) (raw []byte, err error) {
	resp, err := c.get(ctx, path, params, "application/json")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if raw, err = io.ReadAll(resp.Body); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return raw, nil
}

// send returns an answer that is no error, or the error it tells of.
func (c *client) send(ctx context.Context, method, path string, params url.Values, body []byte, accept string) (*http.Response, error) {
	address := c.base + path
	if len(params) > 0 {
		address += "?" + params.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(err, c.name)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, c.problem(resp)
	}
	return resp, nil
}

func unreachable(err error, name string) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the whole URL
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no agent answers at %s: %w", name, err)
	}
	return err
}

func (c *client) problem(resp *http.Response) error {
	var told struct {
		Error *api.Problem `json:"error"`
	}
	err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&told)
	if err != nil || told.Error == nil || told.Error.Message == "" {
		return fmt.Errorf("%s answers %s: is that a ghostlight agent?", c.name, resp.Status)
	}
	told.Error.Status = resp.StatusCode
	if resp.StatusCode == http.StatusUnauthorized {
		told.Error.Hint = "give it with --token-file"
	}
	return told.Error
}

// lines calls f for each line of an answer, without its end.
func lines(r io.Reader, f func(line []byte) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), 16<<20)
	for in.Scan() {
		if err := f(in.Bytes()); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("the answer breaks off: %w", err)
	}
	return nil
}

// messages calls f for each server-sent event. idle is called where what came
// together has been handled.
func messages(r io.Reader, f func(event string, data []byte) error, idle func() error) error {
	event := ""
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		var long []byte
		for errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, line...)
			line, err = in.ReadSlice('\n')
		}
		if long != nil {
			line = append(long, line...)
		}
		if errors.Is(err, io.EOF) {
			return errors.New("the agent went away")
		}
		if err != nil {
			return fmt.Errorf("the agent went away: %w", err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if name, ok := bytes.CutPrefix(line, []byte("event: ")); ok {
			event = string(name)
		}
		if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			if err := f(event, data); err != nil {
				return err
			}
		}
		if in.Buffered() == 0 {
			if err := idle(); err != nil {
				return err
			}
		}
	}
}
