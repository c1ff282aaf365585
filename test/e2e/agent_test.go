package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ghostlight/internal/kernel"
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "ghostlight-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "ghostlight")
		build := exec.Command("go", "build", "-o", binary, "ghostlight/cmd/ghostlight")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// agent is a running Ghostlight.
type agent struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	data string
	log  *transcript
	done chan error
}

// transcript is what a process says, read while it speaks.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// needRoot skips where the kernel does not let us load programs. It lets root,
// and CI runs as root.
func needRoot(t *testing.T) {
	t.Helper()
	switch err := kernel.HaveTpBTF.Have(); {
	case err == nil:
	case os.Geteuid() == 0:
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// start runs an agent on a free port with a store of its own.
func start(t *testing.T, args ...string) *agent {
	t.Helper()
	return startIn(t, t.TempDir(), nil, args...)
}

// startIn runs it on the given store, through the given command (setpriv...).
func startIn(t *testing.T, data string, through []string, args ...string) *agent {
	t.Helper()
	needRoot(t)
	port := freePort(t)
	a := &agent{t: t, data: data, url: "http://127.0.0.1:" + port, log: &transcript{}, done: make(chan error, 1)}
	line := append(through, binary, "run", "--listen", "127.0.0.1:"+port, "--socket", "off", "--data", data)
	line = append(line, args...)
	a.cmd = exec.Command(line[0], line[1:]...)
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { a.done <- a.cmd.Wait() }()
	t.Cleanup(a.stop)
	eventually(t, 30*time.Second, "the agent answers", func() error {
		select {
		case err := <-a.done:
			a.done <- err
			t.Fatalf("the agent ended: %v\n%s", err, a.log)
		default:
		}
		r, err := http.Get(a.url + "/healthz")
		if err != nil {
			return err
		}
		r.Body.Close()
		if r.StatusCode != 200 {
			return errors.New(r.Status)
		}
		return nil
	})
	return a
}

// stop ends the agent as systemd would.
func (a *agent) stop() {
	if a.cmd.ProcessState != nil {
		return
	}
	a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-a.done:
		a.done <- err
		if err != nil {
			a.t.Errorf("the agent ended with %v\n%s", err, a.log)
		}
	case <-time.After(20 * time.Second):
		a.cmd.Process.Kill()
		a.t.Errorf("the agent did not stop\n%s", a.log)
	}
	if a.t.Failed() {
		a.t.Logf("the agent said:\n%s", a.log)
	}
}

// kill ends it as the out-of-memory killer would.
func (a *agent) kill() {
	a.t.Helper()
	if err := a.cmd.Process.Kill(); err != nil {
		a.t.Fatal(err)
	}
	a.done <- <-a.done
}

// cli runs a client command and returns its standard output.
func (a *agent) cli(args ...string) string {
	a.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(binary, append(args, "--server", a.url)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		a.t.Fatalf("ghostlight %s: %v\n%s%s", strings.Join(args, " "), err, out.Bytes(), errs.Bytes())
	}
	return out.String()
}

// row is one record of `-o json`.
type row map[string]any

// rows runs a client command with -o json.
func (a *agent) rows(args ...string) []row {
	a.t.Helper()
	var rows []row
	d := json.NewDecoder(strings.NewReader(a.cli(append(args, "-o", "json")...)))
	for {
		var r row
		err := d.Decode(&r)
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			a.t.Fatalf("ghostlight %s: %v", strings.Join(args, " "), err)
		}
		rows = append(rows, r)
	}
}

// get reads a JSON answer of the API.
func (a *agent) get(path string, into any) {
	a.t.Helper()
	r, err := http.Get(a.url + path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != 200 {
		a.t.Fatalf("%s: %s %v\n%s", path, r.Status, err, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		a.t.Fatalf("%s: %v\n%s", path, err, body)
	}
}

// at follows a path of names ("source.port") into nested JSON.
func (r row) at(path string) any {
	var v any = map[string]any(r)
	for name := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func (r row) num(path string) int {
	n, _ := r.at(path).(float64)
	return int(n)
}

func (r row) str(path string) string {
	s, _ := r.at(path).(string)
	return s
}

// want compares fields and reports each that differs.
func (r row) want(t *testing.T, fields map[string]any) {
	t.Helper()
	for path, want := range fields {
		got := r.at(path)
		if n, ok := got.(float64); ok {
			got = int(n)
		}
		if got != want {
			t.Errorf("%s is %v, want %v in\n%s", path, got, want, r)
		}
	}
}

func (r row) String() string {
	b, _ := json.MarshalIndent(map[string]any(r), "", "  ")
	return string(b)
}

// eventually calls fn until it returns nil, or fails the test with its last
// error.
func eventually(t *testing.T, limit time.Duration, what string, fn func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v (after %v)", what, err, limit)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// flows waits until the filter matches at least n records that satisfy every
// check, and returns them.
func (a *agent) flows(n int, args ...string) (found []row) {
	a.t.Helper()
	eventually(a.t, 15*time.Second, strings.Join(args, " "), func() error {
		found = a.rows(append([]string{"flows", "--last", "100"}, args...)...)
		if len(found) < n {
			return fmt.Errorf("%d flows of %d", len(found), n)
		}
		return nil
	})
	return found
}

// end returns the record of one direction.
func end(t *testing.T, rows []row, direction string) row {
	t.Helper()
	for _, r := range rows {
		if r.str("direction") == direction {
			return r
		}
	}
	t.Fatalf("no %s record in %v", direction, rows)
	return nil
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// run runs a command to its end and returns its output.
func run(t *testing.T, line ...string) string {
	t.Helper()
	out, err := exec.Command(line[0], line[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(line, " "), err, out)
	}
	return string(out)
}

// background runs a command until the test ends.
func background(t *testing.T, line ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(line[0], line[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", line[0], out.Bytes())
		}
	})
	return cmd
}

// listening waits until something accepts on the port.
func listening(t *testing.T, port string) {
	t.Helper()
	eventually(t, 15*time.Second, "port "+port+" is open", func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return err
		}
		return c.Close()
	})
}
