package tcp

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ghostlight/internal/event"
)

// The test's own binary plays other processes: what follows a role's name is
// done in a process of its own, whose file 3 is a listener.
const roleVariable = "GHOSTLIGHT_TEST_TCP_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := play(role); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func play(role string) error {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	c, err := l.Accept()
	if err != nil {
		return err
	}
	switch role {
	case "read":
		_, err = io.Copy(io.Discard, c)
	case "close":
	case "keep":
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	c.Close()
	return err
}

// other is a process that plays a role.
type other struct {
	*exec.Cmd
	stdin io.WriteCloser
}

func start(t *testing.T, role string, l net.Listener) *other {
	t.Helper()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	o := &other{Cmd: exec.Command("/proc/self/exe")}
	o.Env = append(os.Environ(), roleVariable+"="+role)
	o.ExtraFiles = []*os.File{file}
	o.Stderr = os.Stderr
	out, err := o.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if o.stdin, err = o.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := o.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = o.Process.Kill()
		_ = o.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		t.Fatal(line, err)
	}
	return o
}

func (o *other) pid() uint32 { return uint32(o.Process.Pid) }

// A parent listens, its child accepts: the connection is the child's.
func TestOwnerIsTheWorker(t *testing.T) {
	w := begin(t, defaults)
	for _, role := range []string{"read", "close"} {
		t.Run(role, func(t *testing.T) {
			w.t = t
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			worker := start(t, role, l)
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if role == "read" {
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
			} else if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Fatal(err)
			}
			source := addrOf(c.LocalAddr())
			c.Close()
			cl, s := w.want(1, end(event.Outbound, source))[0], w.want(1, end(event.Inbound, source))[0]
			if cl.PID != self || s.PID != worker.pid() {
				t.Errorf("client %d, want %d; server %d, want %d", cl.PID, self, s.PID, worker.pid())
			}
			if s.PeerPID != self {
				t.Errorf("the server's peer %d, want %d", s.PeerPID, self)
			}
			if role == "read" && cl.PeerPID != worker.pid() {
				t.Errorf("the client's peer %d, want %d", cl.PeerPID, worker.pid())
			}
			if cl.CgroupID == 0 || s.CgroupID == 0 {
				t.Error("no cgroup")
			}
		})
	}
}

// Nobody accepts: the connection is the listener's.
func TestOwnerIsTheListener(t *testing.T) {
	w := begin(t, defaults)
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0", ":0"} {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		source := addrOf(c.LocalAddr())
		c.Close()
		if s := w.want(1, end(event.Inbound, source))[0]; s.PID != self || s.CgroupID == 0 || s.TCP.CloseReason != event.ResetSent {
			t.Error(listen, show([]event.Flow{s}))
		}
	}
}

// Two containers: each end in a network namespace of its own.
func TestOwnersAcrossNetworks(t *testing.T) {
	a, b := newNetwork(t), newNetwork(t)
	wireTogether(a, b)
	w := begin(t, defaults)
	var l net.Listener
	var c net.Conn
	var err error
	b.do(func() { l, err = net.Listen("tcp", "10.77.0.2:0") })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	worker := start(t, "read", l)
	a.do(func() { c, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	source := addrOf(c.LocalAddr())
	c.Close()
	cl, s := w.want(1, end(event.Outbound, source))[0], w.want(1, end(event.Inbound, source))[0]
	if cl.NetNS == s.NetNS || cl.NetNS == 0 || s.NetNS == 0 {
		t.Errorf("namespaces %d and %d", cl.NetNS, s.NetNS)
	}
	if cl.PID != self || cl.PeerPID != worker.pid() || s.PID != worker.pid() || s.PeerPID != self {
		t.Error(show([]event.Flow{cl, s}))
	}
	if cl.Sent.Bytes != 100_000 || s.Received.Bytes != 100_000 {
		t.Error(show([]event.Flow{cl, s}))
	}
}

// The same addresses in two namespaces are two connections.
func TestLoopbackOfTwoNetworks(t *testing.T) {
	a, b := newNetwork(t), newNetwork(t)
	w := begin(t, defaults)
	var pairs [2]*pair
	for i, n := range []*network{a, b} {
		n.do(func() {
			l, err := net.Listen("tcp", "127.0.0.1:7077")
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7078}}
			c, err := d.Dial("tcp", "127.0.0.1:7077")
			if err != nil {
				t.Error(err)
				return
			}
			s, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			pairs[i] = &pair{client: c.(*net.TCPConn), server: s.(*net.TCPConn), source: addrOf(c.LocalAddr())}
		})
	}
	if t.Failed() {
		return
	}
	for _, p := range pairs {
		p.echo(t, 10)
	}
	pairs[0].close()
	pairs[1].close()
	flows := w.want(4, func(f *event.Flow) bool { return f.Destination.Port() == 7077 && f.TCP.State != listen })
	for _, f := range flows {
		if f.PID != self || f.PeerPID != self || f.Sent.Bytes != 10 {
			t.Error(show([]event.Flow{f}))
		}
	}
}

// Both ends speak MPTCP where the kernel has it: its first subflow is the
// connection.
func TestMPTCP(t *testing.T) {
	const payload = 100_000
	w := begin(t, defaults)
	l, err := net.Listen("tcp", "127.0.0.1:0") // MPTCP, as Go does
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var d net.Dialer
	d.SetMultipathTCP(true)
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{client: c.(*net.TCPConn), server: s.(*net.TCPConn), source: addrOf(c.LocalAddr())}
	p.echo(t, payload)
	p.close()
	for _, d := range []event.Direction{event.Outbound, event.Inbound} {
		f := w.want(1, end(d, p.source))[0]
		if f.Sent.Bytes != payload || f.Received.Bytes != payload || f.PID != self || f.PeerPID != self || f.TCP.CloseReason == event.StillOpen {
			t.Error(show([]event.Flow{f}))
		}
	}
}
