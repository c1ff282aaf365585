package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// spent is what a process took until it ended.
type spent struct {
	cpu    time.Duration
	ops    int // what it says it did
	failed int
}

// load runs this program as a load to its end.
func (b *bench) load(args ...string) (spent, error) {
	cmd := exec.Command(b.self, args...)
	out, err := cmd.Output()
	if err != nil {
		return spent{}, fmt.Errorf("%v: %w", args, err)
	}
	s := spent{cpu: cpuOf(cmd.ProcessState)}
	if _, err := fmt.Sscan(string(out), &s.ops, &s.failed); err != nil {
		return spent{}, fmt.Errorf("%v printed %q: %w", args, out, err)
	}
	return s, nil
}

func cpuOf(p *os.ProcessState) time.Duration { return p.UserTime() + p.SystemTime() }

// server runs this program as the server of a load.
type server struct {
	cmd  *exec.Cmd
	in   io.Closer
	port string
}

func (b *bench) serve() (*server, error) {
	s := &server{port: freePort()}
	s.cmd = exec.Command(b.self, "serve", s.port)
	in, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	s.in = in
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	return s, wait("the server listens", func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+s.port)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// end stops the server and returns its CPU time.
func (s *server) end() (time.Duration, error) {
	if err := errors.Join(s.in.Close(), s.cmd.Wait()); err != nil {
		return 0, err
	}
	return cpuOf(s.cmd.ProcessState), nil
}

// watcher is a running agent, or another tool beside it.
type watcher struct {
	cmd *exec.Cmd
	url string
	dir string
}

// watch starts the agent with an empty store and waits until it has settled.
func (b *bench) watch() (*watcher, error) {
	w, err := b.launch()
	if err != nil {
		return nil, err
	}
	if err := wait("the agent answers", func() error { _, err := w.status(); return err }); err != nil {
		return nil, err
	}
	time.Sleep(2 * time.Second) // the start's own work is not what we measure
	return w, nil
}

// launch starts the agent with an empty store.
func (b *bench) launch() (*watcher, error) {
	dir, err := os.MkdirTemp("", "ghostlight-bench-")
	if err != nil {
		return nil, err
	}
	port := freePort()
	w := &watcher{dir: dir, url: "http://127.0.0.1:" + port}
	w.cmd = exec.Command(b.agent, "run", "--listen", "127.0.0.1:"+port, "--socket", "off", "--data", dir)
	w.cmd.Stderr = os.Stderr
	return w, w.cmd.Start()
}

// status is what we read of the agent's own account.
type status struct {
	Lost   struct{ Total uint64 }
	Events struct{ Total uint64 }
	Budget struct{ Shed []string }
}

func (w *watcher) status() (s status, err error) {
	r, err := http.Get(w.url + "/api/v1/status")
	if err != nil {
		return s, err
	}
	defer r.Body.Close()
	return s, json.NewDecoder(r.Body).Decode(&s)
}

// count asks the store by SQL.
func (w *watcher) count(sql string) (int, error) {
	body, err := json.Marshal(map[string]string{"sql": sql})
	if err != nil {
		return 0, err
	}
	r, err := http.Post(w.url+"/api/v1/query", "application/json", strings.NewReader(string(body)))
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	var answer struct{ Rows [][]float64 }
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if len(answer.Rows) != 1 {
		return 0, fmt.Errorf("%q has %d rows", sql, len(answer.Rows))
	}
	return int(answer.Rows[0][0]), nil
}

// cpu is the CPU time of the running process so far, from /proc/PID/stat.
func (w *watcher) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memory returns a line of /proc/PID/status in MiB: VmRSS, RssAnon, VmHWM.
func (w *watcher) memory(name string) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, found := strings.Cut(string(b), name+":")
	if !found {
		return 0 // it has ended
	}
	kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kib / 1024
}

func (w *watcher) end() error {
	w.cmd.Process.Signal(syscall.SIGTERM)
	err := w.cmd.Wait()
	if w.dir == "" {
		return nil // another tool, which may end by the signal
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

func wait(what string, fn func() error) error {
	var err error
	for range 100 {
		if err = fn(); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	exitOn(err)
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func release() string {
	var u syscall.Utsname
	if syscall.Uname(&u) != nil {
		return "?"
	}
	var b []byte
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	version, _, _ := strings.Cut(string(b), "-")
	return version
}

func machine() string {
	model := runtime.GOARCH
	b, _ := os.ReadFile("/proc/cpuinfo")
	if _, rest, found := strings.Cut(string(b), "model name\t: "); found {
		model, _, _ = strings.Cut(rest, "\n")
	}
	return fmt.Sprintf("%d CPUs (%s)", runtime.NumCPU(), model)
}
