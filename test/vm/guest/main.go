// Guest is the first process of a test machine: it mounts what tests need,
// inserts modules, runs the plan's jobs and powers off.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ghostlight/test/vm/plan"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: runs only as the first process of a test machine")
		os.Exit(1)
	}
	if err := run(); err != nil {
		fmt.Println("guest:", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // should that fail, the host's time limit ends us
}

// mount -> plan -> modules -> loopback -> jobs -> done
func run() error {
	mountErr := mountAll() // /dev first: without it there is no line to report on
	line, err := openLine()
	if err != nil {
		return errors.Join(mountErr, err)
	}
	g := guest{frames: plan.NewWriter(line)}
	g.note(mountErr)
	p, err := readPlan()
	g.note(err)
	for _, file := range p.Modules {
		g.note(insert(file))
	}
	g.note(raiseLoopback())
	for _, j := range p.Jobs {
		if err := g.run(j); err != nil {
			return err
		}
	}
	return errors.Join(g.frames.Write(plan.Frame{Done: true}), drain(line))
}

type guest struct {
	frames *plan.Writer
}

// note tells the host of an error that does not stop us; it decides.
func (g guest) note(err error) {
	if err != nil {
		g.frames.Write(plan.Frame{Note: err.Error()})
	}
}

var mounts = []struct{ kind, dir string }{
	{"devtmpfs", "/dev"},
	{"devpts", "/dev/pts"},
	{"tmpfs", "/dev/shm"},
	{"proc", "/proc"},
	{"sysfs", "/sys"},
	{"tracefs", "/sys/kernel/tracing"},
	{"debugfs", "/sys/kernel/debug"},
	{"securityfs", "/sys/kernel/security"},
	{"bpf", "/sys/fs/bpf"},
	{"cgroup2", "/sys/fs/cgroup"},
	{"tmpfs", "/tmp"},
	{"tmpfs", "/run"},
}

func mountAll() error {
	var errs []error
	for _, m := range mounts {
		os.MkdirAll(m.dir, 0o755) // /sys has its own folders
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.dir, err))
		}
	}
	errs = append(errs, os.Chmod("/tmp", 0o1777))
	return errors.Join(errs...)
}

// openLine opens the serial port raw: no echo, no added carriage returns.
func openLine() (*os.File, error) {
	line, err := os.OpenFile(plan.Line, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open serial line: %w", err)
	}
	t, err := unix.IoctlGetTermios(int(line.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("read serial settings: %w", err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = t.Cflag&^unix.CBAUD | unix.B115200 | unix.CLOCAL
	return line, unix.IoctlSetTermios(int(line.Fd()), unix.TCSETS, t)
}

// drain waits until the port has sent everything; powering off would cut it.
func drain(line *os.File) error {
	return unix.IoctlSetInt(int(line.Fd()), unix.TCSBRK, 1)
}

func readPlan() (p plan.Plan, err error) {
	b, err := os.ReadFile(plan.Path)
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(b, &p)
}

func insert(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("insert %s: %w", file, err)
	}
	return nil
}

func raiseLoopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("raise loopback: %w", err)
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("raise loopback: %w", err)
	}
	return nil
}

// run runs one job and sends its output line by line. The error is of the
// serial line: without it nothing more makes sense.
func (g guest) run(j plan.Job) error {
	// The console tells which job the kernel's messages belong to.
	os.WriteFile("/dev/kmsg", []byte("<4>guest: "+j.Name), 0)
	start := time.Now()
	cmd, out, err := begin(j)
	if err != nil {
		return g.frames.Write(plan.Frame{Job: j.Name, End: &plan.End{Code: -1, Error: err.Error()}})
	}
	defer out.Close()
	timer := time.AfterFunc(j.Timeout, func() { kill(cmd) })
	ended := make(chan error, 1)
	go func() { // ends with the job, at the latest when the timer kills it
		err := cmd.Wait()
		timer.Stop()
		kill(cmd)                                            // what the job left behind
		out.SetReadDeadline(time.Now().Add(5 * time.Second)) // and what hides from that
		ended <- err
	}()
	if err := g.forward(j.Name, out); err != nil {
		return err
	}
	end := &plan.End{}
	if err := <-ended; err != nil {
		end.Error = err.Error()
	}
	end.Code, end.Elapsed = cmd.ProcessState.ExitCode(), time.Since(start)
	return g.frames.Write(plan.Frame{Job: j.Name, End: end})
}

// begin starts a job in a session, and so a process group, of its own.
func begin(j plan.Job) (*exec.Cmd, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	cmd := exec.Command(j.Args[0], j.Args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = j.Dir, w, w
	cmd.Env = []string{"PATH=/bin", "HOME=/root", "USER=root", "TMPDIR=/tmp", "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		r.Close()
		return nil, nil, err
	}
	return cmd, r, nil
}

func kill(cmd *exec.Cmd) { unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }

// forward sends what a job prints until it ends or out's deadline passes.
func (g guest) forward(job string, r io.Reader) error {
	lines := bufio.NewReaderSize(r, plan.MaxOut)
	for {
		part, err := lines.ReadSlice('\n')
		if len(part) > 0 {
			out := strings.ToValidUTF8(string(part), "\uFFFD")
			if err := g.frames.Write(plan.Frame{Job: job, Out: out}); err != nil {
				return err
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil
		}
	}
}
