package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// peer is a real server that counts what it serves.
type peer struct {
	name     string
	language string // of the paced client
	where    string // SQL: its requests of the benchmark, and only those
	port     string
	url      string
	cmd      *exec.Cmd
	count    func(*peer) (int, error)
	saturate func(p *peer, connections, seconds int) (shot, error)
	close    func() error
}

// kind is a server that can be started.
type kind struct {
	name  string
	start func(b *bench, pin ...string) (*peer, error)
}

var kinds = []kind{
	{"nginx", (*bench).nginx},
	{"Go net/http", (*bench).goWeb},
	{"redis", (*bench).redis},
}

var encrypted = kind{"nginx, TLS by OpenSSL", (*bench).nginxTLS}

// onCPU is the beginning of a command that stays on one CPU.
func onCPU(n int) []string { return []string{"taskset", "-c", strconv.Itoa(n)} }

func command(pin []string, args ...string) *exec.Cmd {
	args = append(append([]string(nil), pin...), args...)
	return exec.Command(args[0], args[1:]...)
}

const nginxConf = `daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 512; }
http {
	access_log off;
	keepalive_requests 1000000000;
	server {
		listen 127.0.0.1:%[1]s%[2]s;
		location = ` + benchPath + ` { return 200 "ok\n"; }
	}
	server {
		listen 127.0.0.1:%[3]s;
		location = /served { stub_status; }
	}
}
`

func (b *bench) nginx(pin ...string) (*peer, error) { return b.nginxWith("http", "", pin) }

func (b *bench) nginxTLS(pin ...string) (*peer, error) {
	return b.nginxWith("https", " ssl;\n\t\tssl_certificate cert.pem;\n\t\tssl_certificate_key key.pem", pin)
}

// nginxWith starts an nginx of one process. Its counter stands on a port of its
// own, so that asking for it is no request of the benchmark.
func (b *bench) nginxWith(scheme, options string, pin []string) (*peer, error) {
	dir, err := os.MkdirTemp("", "ghostlight-nginx-")
	if err != nil {
		return nil, err
	}
	port, counter := freePort(), freePort()
	p := &peer{name: "nginx", language: "http", port: port, url: scheme + "://127.0.0.1:" + port + benchPath, where: "url_path = '" + benchPath + "'", saturate: wrk}
	conf := fmt.Sprintf(nginxConf, port, options, counter)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o600), certificate(dir)); err != nil {
		return nil, err
	}
	looks := 0
	p.count = func(*peer) (int, error) {
		looks++
		n, err := stubStatus("http://127.0.0.1:" + counter + "/served")
		return n - looks, err // it counts the looks too, this one included
	}
	p.close = func() error { return os.RemoveAll(dir) }
	p.cmd = command(pin, "nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
	return p, p.begin()
}

// stubStatus returns the third number of nginx's third line: all requests.
func stubStatus(url string) (int, error) {
	text, err := body(url)
	if err != nil {
		return 0, err
	}
	lines := strings.Split(text, "\n")
	if len(lines) < 3 {
		return 0, fmt.Errorf("stub_status says %q", text)
	}
	numbers := strings.Fields(lines[2])
	if len(numbers) < 3 {
		return 0, fmt.Errorf("stub_status says %q", text)
	}
	return strconv.Atoi(numbers[2])
}

func body(url string) (string, error) {
	r, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return string(text), err
}

// certificate writes cert.pem and key.pem for 127.0.0.1.
func certificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
	)
}

func (b *bench) goWeb(pin ...string) (*peer, error) {
	port := freePort()
	p := &peer{name: "Go net/http", language: "http", port: port, url: "http://127.0.0.1:" + port + benchPath, where: "url_path = '" + benchPath + "'", saturate: wrk}
	p.cmd = command(pin, b.self, "web", port)
	if len(pin) > 0 {
		p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.close = in.Close
	p.count = func(*peer) (int, error) {
		text, err := body("http://127.0.0.1:" + port + "/served")
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(text)
	}
	return p, p.begin()
}

func (b *bench) redis(pin ...string) (*peer, error) {
	p := &peer{name: "redis", language: "redis", port: freePort(), where: "db_operation_name = 'GET'", count: commandStats, saturate: redisBenchmark}
	p.close = func() error { return nil }
	p.cmd = command(pin, "redis-server", "--port", p.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning")
	return p, p.begin()
}

// commandStats asks redis how many GET it served.
func commandStats(p *peer) (int, error) {
	c, err := net.Dial("tcp", "127.0.0.1:"+p.port)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "INFO commandstats\r\n"); err != nil {
		return 0, err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	size, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "$")))
	if err != nil {
		return 0, err
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(text), "cmdstat_get:calls=")
	if !found {
		return 0, nil
	}
	number, _, _ := strings.Cut(rest, ",")
	return strconv.Atoi(number)
}

// begin starts the server and waits until it listens.
func (p *peer) begin() error {
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return err
	}
	return wait(p.name+" listens", func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+p.port)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// end stops the server, which may end by the signal.
func (p *peer) end() error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.cmd.Wait()
	return p.close()
}

func (p *peer) served() (int, error) { return p.count(p) }

// cpuTime is the CPU time of all threads of a running process, to the
// nanosecond.
func cpuTime(pid int) (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil { // CPUCLOCK_SCHED of the process: see clock_getcpuclockid(3)
		return 0, fmt.Errorf("CPU time of %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// shot is what a load saw of its server.
type shot struct {
	requests float64
	perSec   float64
	p50, p99 time.Duration
	cpu      time.Duration // of the load itself
}

// wrk asks as fast as the server answers, from CPU 1.
func wrk(p *peer, connections, seconds int) (s shot, err error) {
	cmd := command(onCPU(1), "wrk", "-t1", "-c"+strconv.Itoa(connections), "-d"+strconv.Itoa(seconds), "--latency", p.url)
	out, err := cmd.Output()
	if err != nil {
		return s, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	s.cpu = cpuOf(cmd.ProcessState)
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case f[0] == "50%":
			s.p50, err = time.ParseDuration(f[1])
		case f[0] == "99%":
			s.p99, err = time.ParseDuration(f[1])
		case f[1] == "requests" && len(f) > 2 && f[2] == "in":
			s.requests, err = strconv.ParseFloat(f[0], 64)
		case f[0] == "Requests/sec:":
			s.perSec, err = strconv.ParseFloat(f[1], 64)
		case f[0] == "Non-2xx":
			err = errors.New(line)
		}
		if err != nil {
			return s, fmt.Errorf("wrk said %q: %w", line, err)
		}
	}
	if s.requests == 0 {
		return s, fmt.Errorf("wrk said %q", out)
	}
	return s, nil
}

// redisBenchmark asks about as long: it is told a number, not a time.
func redisBenchmark(p *peer, connections, seconds int) (s shot, err error) {
	requests := seconds * 60_000
	if connections == 1 {
		requests = seconds * 15_000
	}
	cmd := command(onCPU(1), "redis-benchmark", "-p", p.port, "-c", strconv.Itoa(connections), "-n", strconv.Itoa(requests), "-t", "get", "--csv")
	out, err := cmd.Output()
	if err != nil {
		return s, fmt.Errorf("redis-benchmark: %w", err)
	}
	s.requests, s.cpu = float64(requests), cpuOf(cmd.ProcessState)
	// "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	cells := strings.Split(strings.ReplaceAll(lines[len(lines)-1], `"`, ""), ",")
	if len(cells) != 8 || cells[0] != "GET" {
		return s, fmt.Errorf("redis-benchmark said %q", out)
	}
	milliseconds := func(text string) (d time.Duration) {
		v, bad := strconv.ParseFloat(text, 64)
		err = errors.Join(err, bad)
		return time.Duration(v * float64(time.Millisecond))
	}
	s.p50, s.p99 = milliseconds(cells[4]), milliseconds(cells[6])
	rate, bad := strconv.ParseFloat(cells[1], 64)
	s.perSec = rate
	return s, errors.Join(err, bad)
}

// answers reports whether the peer speaks as it should before it is measured.
func (p *peer) answers() error {
	if p.url == "" {
		_, err := p.served()
		return err
	}
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} // it made the certificate itself
	r, err := c.Get(p.url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", p.url, r.Status)
	}
	return nil
}
