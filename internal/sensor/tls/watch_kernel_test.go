package tls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
	"ghostlight/internal/sensor/l7cap"
	"ghostlight/internal/wire"
)

// watch is the sensor at work, beside the one of sockets.
type watch struct {
	t       testing.TB
	kernel  *kernel.Kernel
	sensors [2]sensor.Instance
	objects [2]*kernel.Object
	reader  *kernel.Reader
	files   *files

	mu     sync.Mutex
	chunks []event.Chunk
}

func asIs(any) error { return nil }

// uringHook is the one of l7cap's that a kernel with all the rest may lack.
const uringHook = "bytes that io_uring moves"

// begin starts both sensors. They look around at once.
func begin(t testing.TB) *watch {
	t.Helper()
	for _, p := range []*kernel.Probe{kernel.HaveBTF, kernel.HaveRing, haveSockets, kernel.HaveUprobe, kernel.HaveTaskStorage, haveCookie} {
		if err := p.Have(); err != nil {
			t.Skip(err)
		}
	}
	k, err := kernel.New(32 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	w := &watch{t: t, kernel: k}
	if w.reader, err = k.NewReader(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.reader.Close() })
	w.begin(0, l7cap.Sensor)
	w.begin(1, Sensor)
	w.files = w.sensors[1].(*instance).files
	stop, stopped := make(chan bool), make(chan bool)
	t.Cleanup(func() { close(stop); <-stopped })
	go func() { // ends with stop
		defer close(stopped)
		for range time.Tick(10 * time.Millisecond) {
			select {
			case <-stop:
				return
			default:
				w.drain()
			}
		}
	}()
	return w
}

// begin starts a sensor.
func (w *watch) begin(i uint16, def sensor.Def) {
	w.t.Helper()
	in, err := def.New(asIs)
	if err != nil {
		w.t.Fatal(err)
	}
	spec, err := in.Spec()
	if err != nil {
		w.t.Fatal(err)
	}
	o, reports, err := w.kernel.Load(def.Name, i, spec, def.Hooks)
	for _, r := range reports {
		if r.Tier == "" && !r.Twin && !(r.What == uringHook && kernel.HaveUringRequests.Have() != nil) {
			w.t.Errorf("%s: %+v", r.What, r.Tiers)
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if s, ok := in.(sensor.Starter); ok {
		if err := s.Start(o, &event.Batch{}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.sensors[i], w.objects[i] = in, o
}

// reload begins this sensor anew, with some of its ways.
func (w *watch) reload(ways []kernel.Hook) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.kernel.Unload(w.objects[1]); err != nil {
		w.t.Fatal(err)
	}
	def := Sensor
	def.Hooks = ways
	w.begin(1, def)
	w.files = w.sensors[1].(*instance).files
}

// probed waits until a file whose name ends so has probes.
func (w *watch) probed(end string) *attached {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		w.files.mu.Lock()
		for _, a := range w.files.attached {
			if strings.HasSuffix(a.path, end) {
				w.files.mu.Unlock()
				return a
			}
		}
		w.files.mu.Unlock()
	}
	w.t.Fatalf("%s has no probes", end)
	return nil
}

// drain keeps what the ring holds.
func (w *watch) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.reader.Drain(256, func(raw []byte) {
		h, err := wire.View[wire.Header](raw)
		var b event.Batch
		if err == nil {
			err = w.sensors[h.Sensor].Decode(h, raw, &b)
		}
		if err != nil {
			w.t.Error(err)
		}
		w.chunks = append(w.chunks, b.Chunks...)
	}) > 0 {
	}
}

// seen returns all chunks since the last clear.
func (w *watch) seen() []event.Chunk {
	w.drain()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.chunks)
}

func (w *watch) clear() {
	w.drain()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chunks = nil
}

// side is what one end of the test's connections said.
type side struct {
	requests, responses []said
}

type said struct {
	id   string // of the request, and of the response to it
	peer uint16
	event.Chunk
}

// at returns what the processes said of which local(c) is true, in plaintext.
func (w *watch) at(is func(c *event.Chunk) bool) (s side) {
	w.t.Helper()
	first := map[uint64]string{} // what Go's reader in the background took
	for _, c := range w.seen() {
		if !c.TLS || c.Closed || !is(&c) {
			continue
		}
		one := said{peer: c.Remote.Port(), Chunk: c}
		if len(c.Data) == 1 && !c.Sent {
			first[c.Conn] = string(c.Data)
			continue
		}
		text := string(c.Data)
		if !c.Sent {
			text = first[c.Conn] + text
			first[c.Conn] = ""
		}
		switch {
		case strings.HasPrefix(text, "GET /"):
			one.id, _, _ = strings.Cut(text[len("GET /"):], " ")
			s.requests = append(s.requests, one)
		case strings.HasPrefix(text, "HTTP/1."):
			if _, rest, ok := strings.Cut(text, "X-Id: "); ok {
				one.id, _, _ = strings.Cut(rest, "\r")
			}
			s.responses = append(s.responses, one)
		}
	}
	return s
}

// server sees chunks of the server's end, client those of the other.
func server(port int) func(*event.Chunk) bool {
	return func(c *event.Chunk) bool { return int(c.Local.Port()) == port }
}

func client(port int) func(*event.Chunk) bool {
	return func(c *event.Chunk) bool { return int(c.Remote.Port()) == port }
}

// certificate makes one for localhost, and returns the names of its files.
func certificate(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	bits, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: bits}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// need finds a program that the test is nothing without.
func need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(program, " is missing: run test/setup.sh")
	}
	return path
}

// start runs a program for the time of the test.
func start(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out lines
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, out.String())
		}
	})
	return cmd
}

// lines is what a program says.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// freePort returns one that nobody listened at a moment ago.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// listening waits for a server.
func listening(t testing.TB, port int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
			return
		}
	}
	t.Fatalf("nobody listens at %d", port)
}

// script writes a program's text to a file.
func script(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// truth is what the clients saw: request id -> port of the client that sent it.
type truth map[string]uint16

// curl runs clients at once, each of which asks for many things through one
// connection. What is asked for names the port from which it is asked.
func curl(t testing.TB, port, clients, requests int, more ...string) truth {
	t.Helper()
	saw := truth{}
	var wait sync.WaitGroup
	var mu sync.Mutex
	for n := range clients {
		wait.Go(func() {
			var from int
			var out []byte
			for range 5 {
				from = freePort(t)
				url := fmt.Sprintf("https://127.0.0.1:%d/c%d-[1-%d]-%d", port, n, requests, from)
				args := append([]string{"-sk", "--http1.1", "--local-port", fmt.Sprint(from), "-w", "%{http_code}\n", "-o", "/dev/null"}, more...)
				cmd := exec.Command("curl", append(args, url)...)
				var err error
				if out, err = cmd.CombinedOutput(); err == nil {
					break
				}
				if cmd.ProcessState.ExitCode() != 45 { // somebody took the port
					t.Errorf("curl: %v, %s", err, out)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for i, line := range slices.Collect(strings.Lines(string(out))) {
				if line == "200\n" {
					saw[fmt.Sprintf("c%d-%d-%d", n, i+1, from)] = uint16(from)
				}
			}
		})
	}
	wait.Wait()
	if len(saw) != clients*requests {
		t.Fatalf("%d of %d requests were answered", len(saw), clients*requests)
	}
	return saw
}

// compare fails unless both ways of one end are exactly the truth. port tells
// the client's port of a chunk.
func (w *watch) compare(who string, s side, saw truth, port func(*event.Chunk) uint16) {
	w.t.Helper()
	for way, list := range map[string][]said{"requests": s.requests, "responses": s.responses} {
		count := map[string]int{}
		wrong := 0
		for _, one := range list {
			count[one.id]++
			if saw[one.id] != port(&one.Chunk) {
				wrong++
			}
		}
		missing := 0
		for id := range saw {
			if count[id] != 1 {
				missing++
			}
		}
		if len(list) != len(saw) || wrong > 0 || missing > 0 {
			w.t.Errorf("%s: %d %s of %d, %d on the wrong connection, %d missing or told again", who, len(list), way, len(saw), wrong, missing)
		}
	}
}

func remotePort(c *event.Chunk) uint16 { return c.Remote.Port() }
func localPort(c *event.Chunk) uint16  { return c.Local.Port() }

// settle gives the last calls time to return.
func settle() { time.Sleep(100 * time.Millisecond) }

// both compares what was seen at both ends.
func (w *watch) both(port int, saw truth) {
	w.t.Helper()
	settle()
	w.compare("server", w.at(server(port)), saw, remotePort)
	w.compare("client", w.at(client(port)), saw, localPort)
	// Of the whole host: who else is busy here may lose what is not ours.
	for i, o := range w.objects {
		if n, err := o.Lost(); n > 0 || err != nil {
			w.t.Logf("sensor %d: %d lost, %v", i, n, err)
		}
	}
}
