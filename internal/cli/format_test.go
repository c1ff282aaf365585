package cli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func newHTTPServer(h http.Handler) *httptest.Server { return httptest.NewServer(h) }

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 78: "78 B", 999: "999 B", 1000: "1 kB", 1234: "1.23 kB", 12345: "12.3 kB", 123456: "123 kB", 999499: "999 kB", 999500: "1 MB", 5123456: "5.12 MB", 1 << 62: "4.61 EB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestSpanText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ns", 999: "999 ns", 1000: "1 µs", 34 * time.Microsecond: "34 µs", 999499: "999 µs", 999500: "1 ms", 1234567: "1.23 ms",
		time.Second: "1 s", 12345 * time.Millisecond: "12.3 s", 59960 * time.Millisecond: "1m0s", 200 * time.Second: "3m20s", 7530 * time.Second: "2h5m", 100 * time.Hour: "4d4h", -time.Second: "-1 s",
	} {
		if got := spanText(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}

// Names come from whoever runs a program on the host: they must not reach the
// terminal as commands.
func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "größe 漢字": "größe 漢字", "\x1b[31mred": `\x1b[31mred`, "a\nb\r": `a\nb\r`, "\x07": `\a`, "\u009b2J": `\u009b2J`, "\u202eabc": `\u202eabc`, "bad\xff": `bad\xff`, "tab\t": `tab\t`, "\x00": `\x00`,
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[31m\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range clean(s) {
			if r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x202e || r == 0xfffd && !strings.ContainsRune(s, 0xfffd) {
				t.Errorf("%q lets %U through", s, r)
			}
		}
	})
}

func TestMoment(t *testing.T) {
	term := Terminal{Zone: time.FixedZone("", 2*3600), Now: func() time.Time { return now }} // 14:01 there
	for in, want := range map[string]string{
		"15m": "15m", "2d": "2d", "2026-01-31T12:00:00Z": "2026-01-31T12:00:00Z", "2026-01-31T12:00:00+02:00": "2026-01-31T10:00:00Z",
		"14:00": "2026-01-31T12:00:00Z", "14:00:30": "2026-01-31T12:00:30Z", "15:00": "2026-01-30T13:00:00Z", "2026-01-30": "2026-01-29T22:00:00Z",
		"2026-01-30 10:00": "2026-01-30T08:00:00Z", "yesterday": "", "": "", "-15m": "",
	} {
		got, err := term.moment(in)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

// Colours are there on demand, and never the only sign.
func TestColour(t *testing.T) {
	server, _ := agentOf(t)
	plain, _, _ := run(t, Agent{}, nil, "flows", "--server", server)
	coloured, _, _ := run(t, Agent{}, nil, "flows", "--server", server, "--color", "always")
	if strings.Contains(plain, "\x1b") || !strings.Contains(coloured, "\x1b[31mrefused\x1b[0m") {
		t.Errorf("%s\n%s", plain, coloured)
	}
	for _, code := range []style{dim, bold, red, green, yellow, cyan} {
		coloured = strings.ReplaceAll(coloured, "\x1b["+string(code)+"m", "")
	}
	if strings.ReplaceAll(coloured, "\x1b[0m", "") != plain {
		t.Error("without its colours the text is another")
	}
}
