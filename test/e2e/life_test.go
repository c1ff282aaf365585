package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Killed while it writes, the agent starts again and lacks at most the last
// second.
func TestKillWhileWriting(t *testing.T) {
	data := t.TempDir()
	rounds := 3
	for round := range rounds {
		a := startIn(t, data, nil)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		go func() { // ended by the listener
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		// Connections with the time each was over, until the kill.
		var over []time.Time
		for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			c.Read(make([]byte, 1))
			c.Close()
			over = append(over, time.Now())
			time.Sleep(2 * time.Millisecond)
		}
		killed := time.Now()
		a.kill()
		l.Close()

		b := startIn(t, data, nil)
		want := 0
		for _, o := range over {
			if killed.Sub(o) > 1500*time.Millisecond { // the last second, and the time a record is on its way
				want++
			}
		}
		got := b.rows("query", "select count(*) as n from flows where direction = 'outbound' and destination_port = "+port)
		if n := got[0].num("n"); n < want || n > len(over) {
			t.Errorf("round %d: %d connections of %d are stored, want at least %d", round, n, len(over), want)
		} else {
			t.Logf("round %d: %d of %d connections are stored, at least %d had to be", round, n, len(over), want)
		}
		b.stop()
	}
}

// A store that ends in the middle of a write is cut, not refused.
func TestTornStore(t *testing.T) {
	data := t.TempDir()
	a := startIn(t, data, nil)
	run(t, "true")
	time.Sleep(2500 * time.Millisecond)
	a.kill()
	torn := 0
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "wal") {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() < 100 {
			return err
		}
		torn++
		return os.Truncate(path, info.Size()-7)
	})
	if err != nil || torn == 0 {
		t.Fatalf("%d log files to tear, %v", torn, err)
	}
	b := startIn(t, data, nil)
	if n := len(b.rows("processes", "--events", "--since", "5m", "--last", "10")); n == 0 {
		t.Error("nothing is left of the store")
	}
}

// Without root, with the capabilities that the documentation names, on a user
// of its own.
func TestWithoutRoot(t *testing.T) {
	needRoot(t)
	data := t.TempDir()
	for dir := data; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(data, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(binary), 0o755); err != nil {
		t.Fatal(err)
	}
	caps := "+bpf,+perfmon,+net_admin,+sys_ptrace,+dac_read_search"
	a := startIn(t, data, []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
		"--inh-caps=-all," + caps, "--ambient-caps=-all," + caps, "--bounding-set=-all," + caps, "--"})
	port := nginx(t)
	run(t, "curl", "-s", "-o", "/dev/null", "http://127.0.0.1:"+port)
	rows := a.flows(2, "--port", port, "command:curl,nginx", "--since", "1m")
	end(t, rows, "outbound").want(t, map[string]any{"process.executable.name": "curl", "peer.service.name": "nginx"})

	var d struct {
		OK      bool
		User    struct{ Missing []string }
		Sensors []struct {
			Name, Error string
			OK          bool
		}
	}
	a.get("/api/v1/doctor", &d)
	if !d.OK || len(d.User.Missing) > 0 {
		t.Errorf("doctor: %+v", d)
	}
	for _, s := range d.Sensors {
		if !s.OK {
			t.Errorf("sensor %s does not run without root: %s", s.Name, s.Error)
		}
	}
}

// Secrets in arguments reach neither the API nor the disk.
func TestSecretsAreNotStored(t *testing.T) {
	a := start(t)
	const secret = "hunter2hunter2"
	run(t, "/bin/true", "--password", secret, "token="+secret, "https://me:"+secret+"@example.org/?api_key="+secret, "harmless")
	eventually(t, 10*time.Second, "the process is stored", func() error {
		if out := a.cli("processes", "--events", "--since", "1m", "-o", "json"); !strings.Contains(out, "harmless") {
			return fmt.Errorf("no such process")
		}
		return nil
	})
	if out := a.cli("processes", "--events", "--since", "1m", "-o", "json"); strings.Contains(out, secret) {
		t.Error("the API tells the secret")
	}
	a.stop()
	err := filepath.WalkDir(a.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDoctor(t *testing.T) {
	needRoot(t)
	out, err := exec.Command(binary, "doctor").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"tp_btf", "kprobe", "process", "tcp"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("doctor does not speak of %s:\n%s", want, out)
		}
	}
	none := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--", binary, "doctor", "-o", "json")
	if out, _ := none.CombinedOutput(); none.ProcessState.ExitCode() != 1 {
		t.Errorf("where nothing can run doctor exits with %d:\n%s", none.ProcessState.ExitCode(), out)
	}
}

// What would open the door to others is refused.
func TestUnsafeListen(t *testing.T) {
	cmd := exec.Command(binary, "run", "--listen", "0.0.0.0:0", "--socket", "off", "--data", t.TempDir())
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "TLS") && !strings.Contains(string(out), "tls") {
		t.Errorf("%v\n%s", err, out)
	}
	a := start(t)
	r, err := http.NewRequest("GET", a.url+"/api/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "evil.example.org"
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode/100 != 4 {
		t.Errorf("a rebound name gets %s", answer.Status)
	}
}

func TestBrokenConfigNamesTheLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("listen: 127.0.0.1:0\nbudget:\n  cpuu: 3%\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(binary, "run", "--config", file, "--data", t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "c.yaml:3") {
		t.Errorf("%v\n%s", err, out)
	}
}

// With no agent running, the client attaches by itself and says so.
func TestFlowsWithoutAgent(t *testing.T) {
	needRoot(t)
	port := nginx(t)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "flows", "--follow", "--port", port, "-o", "json")
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	go func() { // ended by the context
		for ctx.Err() == nil {
			exec.Command("curl", "-s", "-o", "/dev/null", "http://127.0.0.1:"+port).Run()
			time.Sleep(200 * time.Millisecond)
		}
	}()
	buf := make([]byte, 10)
	if _, err := out.Read(buf); err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	if !strings.Contains(errs.String(), "agent") {
		t.Errorf("it does not say that it attached by itself: %q", &errs)
	}
}

// A container's flows carry its id and name, from a real container.
func TestContainer(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("podman"); err != nil {
		t.Fatal("podman is missing: run test/setup.sh")
	}
	a := start(t)
	port := nginx(t)
	p := newPodman(t)
	name := fmt.Sprintf("gle-shop-%d", os.Getpid())
	p.run(t, "run", "-d", "--name", name, "--network=host", "--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:1000", p.image,
		"/bin/busybox", "sh", "-c", "while true; do /bin/busybox wget -q -O /dev/null http://127.0.0.1:"+port+"/; /bin/busybox sleep 0.5; done")
	id := strings.TrimSpace(p.run(t, "ps", "-a", "--no-trunc", "--format", "{{.ID}}"))
	eventually(t, 20*time.Second, "a flow with the container's id and name", func() error {
		rows := a.rows("flows", "--port", port, "--last", "50", "direction:outbound")
		for _, r := range rows {
			if r.str("container.id") == id && r.str("container.name") == name && r.str("service.name") == name {
				return nil
			}
		}
		if len(rows) > 0 {
			return fmt.Errorf("container %s %s: the last flow is %s", name, id, rows[len(rows)-1])
		}
		return fmt.Errorf("no flow")
	})
}

// podman with storage of its own, and an image of busybox alone.
type podman struct {
	args  []string
	env   []string
	image string
}

func newPodman(t *testing.T) *podman {
	t.Helper()
	dir, err := os.MkdirTemp("", "ghostlight-podman-")
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "containers.conf")
	write(t, conf, "[engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"file\"\n")
	home := filepath.Join(dir, "home")
	write(t, filepath.Join(home, ".config/containers/policy.json"), `{"default":[{"type":"insecureAcceptAnything"}]}`)
	p := &podman{image: "localhost/busybox:e2e",
		args: []string{"podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"},
		env:  append(os.Environ(), "CONTAINERS_CONF="+conf, "HOME="+home),
	}
	rootfs := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "tmp", "proc", "sys", "dev", "etc"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "cp", "/bin/busybox", filepath.Join(rootfs, "bin/busybox"))
	run(t, "ln", "-s", "busybox", filepath.Join(rootfs, "bin/sh"))
	run(t, "tar", "-C", rootfs, "-cf", filepath.Join(dir, "image.tar"), ".")
	p.run(t, "import", "-q", filepath.Join(dir, "image.tar"), p.image)
	t.Cleanup(func() {
		p.command("rm", "-f", "-a", "-t", "0").Run()
		// Its monitor may still be writing its last words.
		for range 50 {
			if os.RemoveAll(dir) == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("podman left something in %s", dir)
	})
	return p
}

func (p *podman) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.args[0], append(p.args[1:], args...)...)
	cmd.Env = p.env
	return cmd
}

func (p *podman) run(t *testing.T, args ...string) string {
	t.Helper()
	var errs bytes.Buffer
	cmd := p.command(args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("podman %s: %v\n%s%s", args[0], err, out, &errs)
	}
	return string(out)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
