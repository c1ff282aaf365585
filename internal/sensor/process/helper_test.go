package process

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests run their own binary as the process to be watched: it is static, so
// it works in a chroot and in a virtual machine without other programs.
const helperVariable = "PROCESS_TEST_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperVariable) {
	case "":
		os.Exit(m.Run())
	case "true":
		os.Exit(0)
	case "seven":
		os.Exit(7)
	case "wait":
		waitForEOF()
	case "threads":
		for range 8 {
			go func() { runtime.LockOSThread(); time.Sleep(time.Second) }()
		}
		time.Sleep(50 * time.Millisecond)
		os.Exit(0)
	case "leader":
		endLeader()
		waitForEOF()
	case "bind":
		bindAndExec(os.Args[1], os.Args[2])
	case "thread-exec":
		execFromThread()
	}
	os.Exit(99)
}

// bindAndExec runs in a mount namespace of its own, mounts one folder over the
// other and becomes ./prog there.
func bindAndExec(from, to string) {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount(from, to, "", unix.MS_BIND, "")
	}
	if err == nil {
		err = os.Chdir(to)
	}
	if err == nil {
		err = syscall.Exec("./prog", []string{"./prog"}, []string{helperVariable + "=true"})
	}
	panic(err)
}

func waitForEOF() {
	os.Stdout.Write([]byte{'.'})
	os.Stdin.Read(make([]byte, 1))
	os.Exit(9)
}

// endLeader ends the first thread of the process, and returns on another.
func endLeader() {
	gone := make(chan struct{})
	for range 64 {
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == unix.Getpid() {
				time.AfterFunc(50*time.Millisecond, func() { close(gone) })
				syscall.Syscall(syscall.SYS_EXIT, 3, 0, 0)
			}
			time.Sleep(time.Hour)
		}()
	}
	<-gone
}

// execFromThread becomes the helper "seven" from a thread that is not the
// first: the kernel gives it the pid and the start time of the first.
func execFromThread() {
	runtime.LockOSThread()
	done := make(chan struct{})
	for range 4 {
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() != unix.Getpid() {
				syscall.Exec("/proc/self/exe", []string{"from-thread"}, []string{helperVariable + "=seven"})
			}
			close(done)
		}()
	}
	<-done
	time.Sleep(time.Second)
}

// fork makes a child that ends with the given code without an exec.
func fork(code uintptr) (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if child == 0 && errno == 0 {
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, code, 0, 0)
		}
	}
	if errno != 0 {
		return 0, errno
	}
	_, err = syscall.Wait4(int(child), nil, 0, nil)
	return int(child), err
}

// long returns arguments of exactly n bytes with their NULs, after arg0.
func long(arg0 string, n int) []string {
	args := []string{arg0}
	for n -= len(arg0) + 1; n > 0; {
		size := min(n, 100)
		if n-size == 1 { // no room for a NUL alone would be left as an argument
			size--
		}
		args = append(args, strings.Repeat("x", size-1))
		n -= size
	}
	return args
}
