package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestAlarms(t *testing.T) {
	file := filepath.Join(t.TempDir(), "console")
	text := "[ 0.9] mtrr: your CPUs had inconsistent settings\r\n" +
		"[ 3.0] guest: ghostlight/internal/kernel\r\n" +
		"[ 4.1] WARNING: CPU: 1 PID: 7 at kernel/bpf/ringbuf.c:1\r\n" +
		"[ 5.2] BUG: sleeping function called from invalid context\r\n" +
		"[ 6.3] Kernel panic - not syncing: Fatal exception" // no newline: it died here
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := alarms(file)
	want := []string{
		"[ 4.1] WARNING: CPU: 1 PID: 7 at kernel/bpf/ringbuf.c:1",
		"[ 5.2] BUG: sleeping function called from invalid context",
		"[ 6.3] Kernel panic - not syncing: Fatal exception",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if last := tail(file, 1); last != want[2] {
		t.Errorf("tail: %q", last)
	}
	if _, err := alarms(file + ".gone"); err == nil {
		t.Error("no error for a console that is not there")
	}
}
