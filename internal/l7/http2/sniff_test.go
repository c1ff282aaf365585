package http2

import (
	"path/filepath"
	"strings"
	"testing"

	"ghostlight/internal/l7"
)

// The first chunk of each way of each recorded connection is known by any first
// part of it that is long enough; never for the other way.
func TestSniffFirst(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no stories")
	}
	for _, file := range files {
		if strings.Contains(file, "_middle") {
			continue
		}
		seen := map[l7.Side]bool{}
		for _, s := range chunks(t, strings.TrimSuffix(filepath.Base(file), ".txt")) {
			if seen[s.Side] {
				continue
			}
			seen[s.Side] = true
			for n := range len(s.Data) + 1 {
				got := sniff(s.Data[:n])
				enough := n >= 6 && s.Side == l7.Asks || n >= headBytes+6
				if got != s.Side && (enough || got != l7.Neither) {
					t.Fatalf("%s: %d bytes of %s are %s", file, n, s.Side, got)
				}
			}
		}
	}
}

// Of a connection met anywhere, most chunks tell their side, none the other.
func TestSniffMiddle(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	told, all := map[l7.Side]int{}, map[l7.Side]int{}
	for _, file := range files {
		for i, s := range chunks(t, strings.TrimSuffix(filepath.Base(file), ".txt")) {
			for n := range len(s.Data) + 1 {
				if got := sniff(s.Data[:n]); got == s.Side.Other() {
					t.Fatalf("%s: %d bytes of chunk %d are %s: %q", file, n, i, got, s.Data[:n])
				}
			}
			if len(s.Data) > headBytes && s.Data[3] == headers {
				all[s.Side]++
				if sniff(s.Data) == s.Side {
					told[s.Side]++
				}
			}
		}
	}
	for side, n := range all {
		if told[side]*10 < n*7 {
			t.Errorf("only %d of %d chunks that begin with HEADERS are known as %s", told[side], n, side)
		}
	}
}

// openings are the first bytes of other protocols.
var openings = map[string]string{
	"http request":          "GET /index.html HTTP/1.1\r\nHost: a.example\r\n\r\n",
	"http answer":           "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
	"post":                  "POST / HTTP/1.1\r\n\r\n",
	"propfind":              "PROPFIND / HTTP/1.1\r\n\r\n",
	"tls hello":             "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09",
	"tls record":            "\x17\x03\x03\x00\x45\x00\x00\x00\x00\x00\x00\x00\x01\x85\x86\x87\x88",
	"postgres startup":      "\x00\x00\x00\x54\x00\x03\x00\x00user\x00postgres\x00database\x00shop\x00\x00",
	"postgres ssl":          "\x00\x00\x00\x08\x04\xd2\x16\x2f",
	"postgres query":        "Q\x00\x00\x00\x0dSELECT 1\x00",
	"postgres ok":           "R\x00\x00\x00\x08\x00\x00\x00\x00S\x00\x00\x00\x16application_name\x00\x00",
	"mysql greeting":        "\x4a\x00\x00\x00\x0a8.0.36\x00\x08\x00\x00\x00abcdefgh\x00\xff\xff",
	"mysql query":           "\x09\x00\x00\x00\x03SELECT 1",
	"mysql ok":              "\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00",
	"mysql long":            "\x00\x00\x01\x04\x04\x00\x00\x00\x01\x83\x86",
	"redis":                 "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n",
	"redis ok":              "+OK\r\n",
	"kafka versions":        "\x00\x00\x00\x1a\x00\x12\x00\x03\x00\x00\x00\x01\x00\x07console\x00\x05kafka\x04\x33\x2e\x39\x00",
	"kafka answer":          "\x00\x00\x01\x04\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	"mongo":                 "\x3d\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00\x00\x00\x00\x00\x00",
	"dns over tcp":          "\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01",
	"dns":                   "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01",
	"ssh":                   "SSH-2.0-OpenSSH_9.2\r\n",
	"amqp":                  "AMQP\x00\x00\x09\x01",
	"websocket":             "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
	"zeros":                 strings.Repeat("\x00", 64),
	"ones":                  strings.Repeat("\xff", 64),
	"text":                  strings.Repeat("lorem ipsum ", 5),
	"window update, alone":  "\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x10\x00",
	"data, alone":           "\x00\x00\x05\x00\x01\x00\x00\x00\x01hello",
	"settings of no kind":   "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x77\x00\x00\x00\x01",
	"settings of a stream":  "\x00\x00\x06\x04\x00\x00\x00\x00\x01\x00\x03\x00\x00\x00\x01",
	"headers of no stream":  "\x00\x00\x02\x01\x05\x00\x00\x00\x00\x82\x84",
	"headers, even":         "\x00\x00\x02\x01\x05\x00\x00\x00\x02\x82\x84",
	"headers, unknown flag": "\x00\x00\x02\x01\x45\x00\x00\x00\x01\x82\x84",
	"headers, reserved bit": "\x00\x00\x02\x01\x05\x80\x00\x00\x01\x82\x84",
	"headers of no request": "\x00\x00\x02\x01\x05\x00\x00\x00\x01\x90\x84",
	"headers, then noise":   "\x00\x00\x02\x01\x05\x00\x00\x00\x01\x82\x84XXXXXXXXXXXX",
}

func TestSniffOthers(t *testing.T) {
	for name, text := range openings {
		for n := range len(text) + 1 {
			if name == "headers, then noise" && n < len(text) {
				continue
			}
			if got := sniff([]byte(text[:n])); got != l7.Neither {
				t.Errorf("%s: %d bytes are %s", name, n, got)
			}
		}
	}
}
