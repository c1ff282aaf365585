package http1

import (
	"fmt"
	"strings"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/test/story"
)

func TestStories(t *testing.T) { story.Run(t, Proto) }

func FuzzHTTP1(f *testing.F) { story.Fuzz(f, Proto) }

// One's own messages are known as soon as enough of them is there.
func TestSniff(t *testing.T) {
	for _, c := range []struct {
		text   string
		side   l7.Side
		enough int // bytes that tell
	}{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", l7.Asks, len("GET /")},
		{"POST /a?b HTTP/1.0\r\n\r\n", l7.Asks, len("POST /")},
		{"OPTIONS * HTTP/1.1\r\n", l7.Asks, len("OPTIONS *")},
		{"CONNECT a:443 HTTP/1.1\r\n", l7.Asks, len("CONNECT a")},
		{"GET http://a/ HTTP/1.1\r\n", l7.Asks, len("GET h")},
		{"PROPFIND /dav HTTP/1.1\r\n", l7.Asks, len("PROPFIND /")},
		{"FROBNICATE /dav HTTP/1.1\r\n", l7.Asks, len("FROBNICATE /dav HTTP/1.1\r\n")},
		{"HTTP/1.1 200 OK\r\n", l7.Answers, len("HTTP/")},
		{"HTTP/1.1 404\r\n", l7.Answers, len("HTTP/")},
	} {
		for n := range len(c.text) + 1 {
			want := l7.Neither
			if n >= c.enough {
				want = c.side
			}
			if got := sniff([]byte(c.text[:n])); got != want {
				t.Errorf("%q is of %v, want %v", c.text[:n], got, want)
			}
		}
	}
}

// Nobody else's are, however they are cut.
func TestSniffOthers(t *testing.T) {
	for _, text := range []string{
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "*2\r\n$3\r\nGET\r\n", "GET key\r\n", "GET\r\n", "PING\r\n", "+OK\r\n",
		"Q\x00\x00\x00\x0dSELECT 1\x00", "P\x00\x00\x00\x20\x00GET /", "\x00\x00\x00\x08\x04\xd2\x16\x2f",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x00\x00\x12\x04\x00\x00\x00\x00\x00", "H\x00\x00\x00\x04",
		"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", "SSH-2.0-OpenSSH_9.2\r\n", "RTSP/1.0 200 OK\r\n", "HTTP/2 200\r\n",
		"EHLO a.example\r\n", "220 mail ESMTP\r\n", "STAT /\r\n", "SET /a b\r\n", "get /a\r\n", "GET  / HTTP/1.1\r\n",
		"POST /a SIP/2.0\r\n", "OPTIONS rtsp://a/b RTSP/1.0\r\n",
	} {
		if side := sniff([]byte(text)); side != l7.Neither {
			t.Errorf("%q is of %v", text, side)
		}
	}
}

// kept is an Out that reuses one call after the other.
type kept struct {
	free  []*l7.Call
	calls int
	whole int
	seen  func(*l7.Call, bool)
}

func (k *kept) Begin(m *l7.Mark) *l7.Call {
	if len(k.free) == 0 {
		k.free = append(k.free, &l7.Call{})
	}
	c := k.free[len(k.free)-1]
	k.free = k.free[:len(k.free)-1]
	c.Reset()
	c.Start(m)
	return c
}

func (k *kept) End(c *l7.Call, complete bool) {
	k.calls++
	if complete {
		k.whole++
	}
	if k.seen != nil {
		k.seen(c, complete)
	}
	k.free = append(k.free, c)
}

func (k *kept) Learn(string, []byte) {}

func server(text string, time int64) *event.Chunk {
	return &event.Chunk{Time: time, Sent: strings.HasPrefix(text, "HTTP/"), Len: len(text), Data: []byte(text), Seq: 1, PID: 1}
}

// heads are real ones: a browser's request through nginx, curl's to Go.
var heads = map[string][2]string{
	"nginx": {
		"GET /shop/items/42?page=2&sort=price HTTP/1.1\r\nHost: shop.example.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nReferer: http://shop.example.test/shop\r\nConnection: keep-alive\r\nCookie: session=invented-invented-invented-invented\r\nUpgrade-Insecure-Requests: 1\r\nPriority: u=0, i\r\n\r\n",
		"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Fri, 20 Nov 2026 14:08:30 GMT\r\nContent-Type: text/html\r\nContent-Length: 615\r\nLast-Modified: Fri, 20 Nov 2026 14:07:58 GMT\r\nConnection: keep-alive\r\nETag: \"6b00543e-267\"\r\nAccept-Ranges: bytes\r\n\r\n" + strings.Repeat("x", 615),
	},
	"go": {
		"GET /items/42 HTTP/1.1\r\nHost: 127.0.0.1:18311\r\nUser-Agent: Go-http-client/1.1\r\nTraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nAccept-Encoding: gzip\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Fri, 20 Nov 2026 14:08:41 GMT\r\nContent-Length: 19\r\n\r\n{\"path\":\"/items/2\"}",
	},
	"chunked": {
		"POST /n/1 HTTP/1.1\r\nHost: localhost:18311\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
		"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\nDate: Fri, 20 Nov 2026 14:09:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngot \r\n2\r\n6\n\r\n0\r\n\r\n",
	},
	"events": {
		"GET /events HTTP/1.1\r\nHost: a\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 18\r\n\r\ndata: a\n\ndata: b\n\n",
	},
}

func TestAllocations(t *testing.T) {
	for name, texts := range heads {
		out := &kept{}
		c := Proto.New(out)
		asks, answers := server(texts[0], 1), server(texts[1], 2)
		if n := testing.AllocsPerRun(100, func() {
			c.Data(l7.Asks, asks)
			c.Data(l7.Answers, answers)
		}); n != 0 {
			t.Errorf("%s: %v allocations a request", name, n)
		}
		if out.calls != 101 || out.whole != out.calls {
			t.Errorf("%s: %d calls, %d of them complete", name, out.calls, out.whole)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for name, texts := range heads {
		b.Run(name, func(b *testing.B) {
			out := &kept{}
			c := Proto.New(out)
			asks, answers := server(texts[0], 1), server(texts[1], 2)
			b.ReportAllocs()
			for b.Loop() {
				c.Data(l7.Asks, asks)
				c.Data(l7.Answers, answers)
			}
			if out.whole < b.N {
				b.Fatalf("%d of %d complete", out.whole, b.N)
			}
		})
	}
}

// An answer that is seen before its request finds it, if it was moved after it.
func TestAnswerFirst(t *testing.T) {
	var got []string
	out := &kept{seen: func(c *l7.Call, complete bool) {
		got = append(got, fmt.Sprintf("%s %d %v %d/%d", c.Text, c.Status, complete, c.DurationNS, c.ResponseBytes))
	}}
	c := Proto.New(out)
	c.Data(l7.Answers, server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 20))
	c.Data(l7.Asks, server("GET /a HTTP/1.1\r\n\r\n", 10))
	c.Data(l7.Asks, server("GET /b HTTP/1.1\r\n\r\n", 30))
	c.Data(l7.Answers, server("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 40))
	c.Data(l7.Answers, server("HTTP/1.1 408 Too late\r\nContent-Length: 0\r\n\r\n", 50)) // on its own
	c.Data(l7.Asks, server("GET /c HTTP/1.1\r\n\r\n", 60))
	c.Close()
	want := "/a 200 true 10/38|/b 500 true 10/38|/c 0 false 0/0"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("%s, want %s", s, want)
	}
}

// The error is told as each end sees it.
func TestError(t *testing.T) {
	for _, c := range []struct {
		status string
		sent   bool // by the client we are
		want   string
	}{{"404", false, ""}, {"404", true, "404"}, {"503", false, "503"}, {"200", true, ""}, {"599", true, "599"}} {
		var got string
		conn := Proto.New(&kept{seen: func(c *l7.Call, _ bool) { got = c.Error }})
		conn.Data(l7.Asks, &event.Chunk{Time: 1, Sent: c.sent, Len: 18, Data: []byte("GET / HTTP/1.1\r\n\r\n")})
		conn.Data(l7.Answers, server("HTTP/1.1 "+c.status+" X\r\nContent-Length: 0\r\n\r\n", 2))
		if got != c.want {
			t.Errorf("%s, sent by us %v: error %q, want %q", c.status, c.sent, got, c.want)
		}
	}
}

// However many requests wait, what is kept is bounded, and answers find theirs
// again.
func TestBound(t *testing.T) {
	var last string
	out := &kept{seen: func(c *l7.Call, complete bool) { last = fmt.Sprint(c.Text, " ", c.Status, " ", complete) }}
	c := Proto.New(out).(*conn)
	for i := range 3*maxOpen + 7 {
		c.Data(l7.Asks, server(fmt.Sprintf("GET /%d HTTP/1.1\r\n\r\n", i), 1))
	}
	if len(c.open) > maxOpen {
		t.Fatalf("%d calls are open", len(c.open))
	}
	for range 3*maxOpen + 7 {
		c.Data(l7.Answers, server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 2))
	}
	if want := fmt.Sprintf("/%d 200 true", 3*maxOpen+6); last != want || len(c.open) != 0 || out.whole != 7 {
		t.Errorf("the last call is %q, want %q; %d are open, %d complete", last, want, len(c.open), out.whole)
	}
}

// What an upgraded connection begins with is handed on.
func TestUpgrade(t *testing.T) {
	c := Proto.New(&kept{})
	ask := server("GET /chat?room=1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 1)
	c.Data(l7.Asks, ask)
	if c.(l7.Upgrader).Upgraded() != nil {
		t.Error("upgraded by asking")
	}
	c.Data(l7.Answers, server("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x02hi", 2))
	u := c.(l7.Upgrader).Upgraded()
	if u == nil || u.Proto != "websocket" || u.Words.Text != "/chat" || u.Words.Query != "room=1" || u.Words.Role != event.Server {
		t.Fatalf("upgraded to %+v", u)
	}
	if string(u.Rest.Data) != "\x81\x02hi" || u.Rest.Len != 4 || u.Mark.Offset != uint64(ask.Len) || u.Mark.Sent {
		t.Errorf("%+v, %+v", u.Rest, u.Mark)
	}
}
