package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"ghostlight/test/vm/plan"
)

// A machine is one kernel to boot, and where its two serial lines are kept.
type machine struct {
	kernel  kernel
	initrd  string
	log     string // the frames
	console string // the kernel's messages
	timeout time.Duration
}

// The kernel's warnings reach the console, and an oops ends the machine at
// once, with its evidence there. Its watchdogs are off: on a busy host they
// would bark at the emulation, and a machine that hangs meets our time limit.
const commandLine = "console=ttyS0 loglevel=5 panic=1 oops=panic nowatchdog rcupdate.rcu_cpu_stall_suppress=1" +
	" lsm=landlock,lockdown,yama,integrity,bpf"

// Software emulation, as a nested /dev/kvm may hang; and in one thread, as
// with one per processor kernels that patch their own code oops.
func (m machine) args() []string {
	return []string{
		"-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "2048",
		"-nodefaults", "-display", "none", "-no-reboot", "-net", "none",
		"-serial", "file:" + m.console, "-serial", "stdio",
		"-kernel", filepath.Join(m.kernel.dir, m.kernel.Image), "-initrd", m.initrd,
		"-append", commandLine,
	}
}

// boot runs the machine until it powers off, hands its frames to emit and tells
// the CPU time it took. It fails if the machine does not end by itself, in time
// and whole.
func (m machine) boot(ctx context.Context, emit func(plan.Frame)) (cpu time.Duration, err error) {
	ctx, stop := context.WithTimeoutCause(ctx, m.timeout, fmt.Errorf("not done after %v", m.timeout))
	defer stop()
	log, err := os.Create(m.log)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	var complaints strings.Builder
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", m.args()...)
	cmd.Stderr = &complaints
	line, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("%w: install qemu-system-x86", err)
	}
	done := false
	lost, err := plan.Read(io.TeeReader(line, log), func(f plan.Frame) {
		done = done || f.Done
		emit(f)
	})
	err = errors.Join(err, cmd.Wait(), context.Cause(ctx), log.Close())
	if err != nil && complaints.Len() > 0 {
		err = fmt.Errorf("%w\n%s", err, complaints.String())
	}
	if lost > 0 {
		err = errors.Join(err, fmt.Errorf("lost %d frames", lost))
	}
	if !done {
		err = errors.Join(err, fmt.Errorf("the guest ended early; its console says last:\n%s", tail(m.console, 25)))
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), err
}

func tail(file string, lines int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

var alarm = regexp.MustCompile(`BUG:|WARNING:|Oops:|general protection|Kernel panic|UBSAN:|KASAN:`)

// alarms are the lines of the console in which the kernel says it is broken.
func alarms(console string) (lines []string, err error) {
	f, err := os.Open(console)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	for in.Scan() {
		if alarm.MatchString(in.Text()) {
			lines = append(lines, strings.TrimSpace(in.Text()))
		}
	}
	return lines, in.Err()
}
