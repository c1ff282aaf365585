package mapped

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"ghostlight/internal/kernel"
)

func TestLine(t *testing.T) {
	for text, want := range map[string]File{
		"7f57a0-7f57b0 r-xp 0001f000 fe:0a 1311  /usr/lib/libssl.so.3":      {ID: ID{0xfe, 0xa, 1311}, Path: "/usr/lib/libssl.so.3"},
		"7f57a0-7f57b0 r-xp 0001f000 00:21 7 /a name with blanks (deleted)": {ID: ID{0, 0x21, 7}, Path: "/a name with blanks (deleted)"},
		"7f57a0-7f57b0 r--p 0001f000 fe:0a 1311  /usr/lib/libssl.so.3":      {},
		"7f57a0-7f57b0 r-xp 00000000 00:00 0  [vdso]":                       {},
		"7f57a0-7f57b0 rwxp 00000000 00:00 0":                               {},
		"7f57a0-7f57b0 r-xp 00000000 fe0a 1311  /usr/lib/libssl.so.3":       {},
		"7f57a0-7f57b0 r-xp 00000000 fe:0a x131  /usr/lib/libssl.so.3":      {},
		"r-xp": {},
		"":     {},
	} {
		if got, ok := line([]byte(text)); got != want || ok != (want != File{}) {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(append(bytes.Repeat([]byte{255}, mmap2Name), "/lib/x\x00"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, ok := mmap2(b)
		if ok && file.Path[0] != '/' {
			t.Errorf("%+v", file)
		}
		line(b)
	})
}

// What a process maps is told while it is mapped, and by the same name as of
// one that runs.
func TestWatch(t *testing.T) {
	if err := kernel.HaveUprobe.Have(); err != nil { // both are perf_event_open with the right to trace
		t.Skip(err)
	}
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd := exec.Command("sleep", "10")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	told := map[File]bool{}
	pid := uint32(cmd.Process.Pid)
	for end := time.Now().Add(5 * time.Second); len(told) < 3 && time.Now().Before(end); {
		if err := w.Wait(time.Second); err != nil {
			t.Fatal(err)
		}
		w.Drain(func(f File) {
			if f.PID == pid {
				told[f] = true
			}
		})
	}
	n := 0
	Of(pid, func(f File) {
		n++
		if !told[f] {
			t.Errorf("%+v was not told, but %v", f, told)
		}
	})
	if n < 2 {
		t.Errorf("sleep maps %d files", n)
	}
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := w.Wait(time.Minute); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}
