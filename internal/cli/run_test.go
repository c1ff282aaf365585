package cli

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The service manager hears of ready and of the end (sd_notify(3)).
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	agent := Agent{Run: func(_ context.Context, s Start) error { s.Ready(); return nil }}
	if _, errs, code := run(t, agent, nil, "run", "--socket", "off"); code != 0 {
		t.Fatal(errs)
	}
	var got []string
	b := make([]byte, 100)
	for range 2 {
		l.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b[:n]))
	}
	if s := strings.Join(got, " "); s != "READY=1 STOPPING=1" {
		t.Errorf("got %s", s)
	}
}
