package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ghostlight/internal/config"
)

const secretToken = "0123456789abcdef-secret"

// TestGuard: who may ask on a TCP listener.
func TestGuard(t *testing.T) {
	s, _ := newServer(t, func(b *Backend) {
		b.UI = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "page") })
	})
	for name, c := range map[string]struct {
		target, host, address, token string
		header                       []string
		want                         int
	}{
		"plain":               {want: 200},
		"localhost":           {host: "localhost:4100", want: 200},
		"localhost as a root": {host: "LOCALHOST.:4100", want: 200},
		"IPv6":                {host: "[::1]:4100", want: 200},
		"IPv6 without a port": {host: "[::1]", want: 200},
		"127.0.0.2":           {host: "127.0.0.2", want: 200},
		"rebound name":        {host: "evil.example:4100", want: 421},
		"name like ours":      {host: "localhost.evil.example", want: 421},
		"address elsewhere":   {host: "10.0.0.1:4100", want: 421},
		"rebound page":        {target: "/", host: "evil.example:4100", want: 421},
		"own origin":          {header: []string{"Origin", "http://127.0.0.1:4100"}, want: 200},
		"other origin":        {header: []string{"Origin", "http://evil.example"}, want: 403},
		"other port":          {header: []string{"Origin", "http://127.0.0.1:8080"}, want: 403},
		"other scheme":        {header: []string{"Origin", "https://127.0.0.1:4100"}, want: 403},
		"null origin":         {header: []string{"Origin", "null"}, want: 403},
		"fetch of ours":       {header: []string{"Sec-Fetch-Site", "same-origin"}, want: 200},
		"image elsewhere":     {header: []string{"Sec-Fetch-Site", "cross-site"}, want: 403},
		"same site":           {header: []string{"Sec-Fetch-Site", "same-site"}, want: 403},
		"link to the API":     {header: []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, want: 403},
		"link to the page":    {target: "/", header: []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, want: 200},
		"frame of the page":   {target: "/", header: []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, want: 403},
		"no token":            {token: secretToken, want: 401},
		"no token, page":      {target: "/", token: secretToken, want: 401},
		"no token, metrics":   {target: "/metrics", token: secretToken, want: 401},
		"no token, health":    {target: "/healthz", token: secretToken, want: 200},
		"wrong token":         {token: secretToken, header: []string{"Authorization", "Bearer wrong"}, want: 401},
		"empty token":         {token: secretToken, header: []string{"Authorization", "Bearer "}, want: 401},
		"token":               {token: secretToken, header: []string{"Authorization", "Bearer " + secretToken}, want: 200},
		"token as a password": {token: secretToken, header: []string{"Authorization", basic("me", secretToken)}, want: 200},
		"wrong password":      {token: secretToken, header: []string{"Authorization", basic(secretToken, "")}, want: 401},
		"exposed":             {address: "0.0.0.0:4100", token: secretToken, host: "web-1.example", header: []string{"Authorization", "Bearer " + secretToken}, want: 200},
		"exposed, no token":   {address: "0.0.0.0:4100", token: secretToken, host: "web-1.example", want: 401},
	} {
		t.Run(name, func(t *testing.T) {
			l := Listen{Address: or(c.address, "127.0.0.1:4100"), Token: c.token}
			r := httptest.NewRequest("GET", or(c.target, "/api/v1/fields"), nil)
			r.Host = or(c.host, "127.0.0.1:4100")
			for i := 0; i < len(c.header); i += 2 {
				r.Header.Set(c.header[i], c.header[i+1])
			}
			w := httptest.NewRecorder()
			secured(s.guard(l, s.mux)).ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("%d, want %d: %s", w.Code, c.want, w.Body)
			}
			for _, h := range []string{"Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options"} {
				if w.Header().Get(h) == "" {
					t.Errorf("no %s", h)
				}
			}
			if w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Error("another origin may read")
			}
		})
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func basic(user, password string) string {
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

// Beyond loopback, TLS and a token are asked for before anything is opened.
func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		l    Listen
		want string // in the error; empty: it is fine
	}{
		{Listen{Address: "127.0.0.1:4100"}, ""},
		{Listen{Address: "localhost:4100"}, ""},
		{Listen{Address: "[::1]:4100"}, ""},
		{Listen{Address: config.Off}, ""},
		{Listen{Address: "0.0.0.0:4100"}, "a certificate (tls.cert and tls.key) and a token (token_file)"},
		{Listen{Address: ":4100"}, "a certificate"},
		{Listen{Address: "[::]:4100"}, "a certificate"},
		{Listen{Address: "10.0.0.5:4100", Token: secretToken}, "needs a certificate (tls.cert and tls.key);"},
		{Listen{Address: "10.0.0.5:4100", Cert: "c", Key: "k"}, "needs a token (token_file);"},
		{Listen{Address: "myhost:4100"}, "a certificate"},
		{Listen{Address: "localhost.example:4100"}, "a certificate"},
		{Listen{Address: "10.0.0.5:4100", Cert: "c", Key: "k", Token: secretToken}, ""},
		{Listen{Address: "127.0.0.1:4100", Token: "short"}, "at least 16"},
	} {
		err := c.l.check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.l.Address, err, c.want)
		}
		if err != nil && c.want == "" {
			continue
		}
		if c.want != "" {
			if _, _, err := c.l.open(); err == nil {
				t.Errorf("%s: opened all the same", c.l.Address)
			}
		}
	}
}

func TestReadToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	write := func(text string, mode os.FileMode) string {
		os.Remove(path)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		got, err := ReadToken(path)
		if err != nil {
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the secret: %v", err)
			}
			return "error"
		}
		return got
	}
	for _, c := range []struct {
		text string
		mode os.FileMode
		want string
	}{{"secret1\n", 0o600, "secret1"}, {"secret1", 0o640, "secret1"}, {"secret1", 0o644, "error"}, {"", 0o600, "error"}, {"secret 1", 0o600, "error"}} {
		if got := write(c.text, c.mode); got != c.want {
			t.Errorf("%q %o: %s", c.text, c.mode, got)
		}
	}
}

// The socket is its owner's alone from its first moment.
func TestUnixSocket(t *testing.T) {
	s, _ := newServer(t)
	path := filepath.Join(t.TempDir(), "run", "g.sock")
	client := serve(t, s, Listen{Address: config.Off, Socket: path, Token: secretToken})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// No token and any Host: who can open the socket may ask.
	resp, err := client.Get("http://anything/api/v1/fields")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
	// A second agent is refused while the first one lives.
	if _, err := listenUnix(path); err == nil || !strings.Contains(err.Error(), "another agent answers") {
		t.Errorf("got %v", err)
	}
}

func TestStaleUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "g.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("got %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("a file was removed")
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	pool := writeCertificate(t, dir, 1)
	var log bytes.Buffer
	s, _ := newServer(t, func(b *Backend) {
		b.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	address := freeAddress(t)
	serve(t, s, Listen{Address: address, Socket: config.Off, Cert: dir + "/cert", Key: dir + "/key", Token: secretToken})

	client := func(c *tls.Config) *http.Client {
		return &http.Client{Transport: &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true, DisableKeepAlives: true}}
	}
	get := func(c *tls.Config, token string) (*http.Response, error) {
		r, _ := http.NewRequest("GET", "https://"+address+"/api/v1/fields", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := client(c).Do(r)
		if err == nil {
			resp.Body.Close()
		}
		return resp, err
	}
	resp, err := get(&tls.Config{RootCAs: pool}, secretToken)
	if err != nil || resp.StatusCode != 200 || resp.TLS.Version != tls.VersionTLS13 {
		t.Fatalf("%v %v", resp, err)
	}
	if resp, err := get(&tls.Config{RootCAs: pool}, "a guess that is long"); err != nil || resp.StatusCode != 401 {
		t.Errorf("a wrong token: %v %v", resp, err)
	}
	if _, err := get(&tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS12}, secretToken); err == nil {
		t.Error("TLS 1.2 was taken")
	}
	if resp, err := http.Get("http://" + address + "/api/v1/fields"); err == nil && resp.StatusCode == 200 {
		t.Error("plain HTTP was answered")
	}
	// A renewed certificate is taken without a restart.
	renewed := writeCertificate(t, dir, 2)
	if err := os.Chtimes(dir+"/cert", time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := get(&tls.Config{RootCAs: renewed}, secretToken); err != nil {
		t.Errorf("the renewed certificate is not used: %v", err)
	}
	if strings.Contains(log.String(), secretToken) || strings.Contains(log.String(), "a guess that is long") {
		t.Errorf("a token is in the log:\n%s", log.String())
	}
}

func TestBadCertificate(t *testing.T) {
	l := Listen{Address: freeAddress(t), Socket: config.Off, Cert: "/nonexistent", Key: "/nonexistent", Token: secretToken}
	if _, _, err := l.open(); err == nil || !strings.Contains(err.Error(), "load the certificate") {
		t.Errorf("got %v", err)
	}
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, _, err = Listen{Address: l.Addr().String(), Socket: config.Off}.open()
	if err == nil || !strings.Contains(err.Error(), "is another ghostlight running?") {
		t.Errorf("got %v", err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func writeCertificate(t *testing.T, dir string, serial int64) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint("test ", serial)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return pool
}

// Stopping ends followers at once and lets answers finish.
func TestStopEndsFollowers(t *testing.T) {
	s, _ := newServer(t)
	path := filepath.Join(t.TempDir(), "g.sock")
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.Serve(ctx, Listen{Address: config.Off, Socket: path}, func() { close(ready) }) }()
	<-ready
	resp, err := unixClient(path).Get("http://x/api/v1/flows?follow=true&last=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	if line, err := in.ReadString('\n'); err != nil || line != "event: flow\n" {
		t.Fatalf("%q %v", line, err)
	}
	began := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > drain {
		t.Errorf("it took %v", took)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestLimits(t *testing.T) {
	s, _ := newServer(t, func(b *Backend) { b.SQL = fakeSQL })
	large := `{"sql": "` + strings.Repeat("x", maxBody) + `"}`
	if w := ask(s, "POST", "/api/v1/query", large, "Content-Type", "application/json"); w.Code != 413 {
		t.Errorf("a large body: %d %s", w.Code, w.Body)
	}
	if w := ask(s, "GET", "/api/v1/flows?filter="+strings.Repeat("a", maxFilter+1), ""); w.Code != 400 {
		t.Errorf("a large filter: %d", w.Code)
	}
	for range maxStreams {
		s.streams <- struct{}{}
	}
	if w := ask(s, "GET", "/api/v1/status?follow=true", ""); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("one follower too many: %d %s", w.Code, w.Body)
	}
}
