package http1

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// kernel moves bytes as the capturing sensor shows them: some of each call, and
// some of each turn.
type kernel struct {
	conn   l7.Conn
	now    int64
	way    l7.Side
	left   int
	loses  func() bool // a call is not seen at all
	offset [3]uint64
}

const (
	captureCall = 1024 // as in sniff.h
	captureTurn = 4096
)

func (k *kernel) move(side l7.Side, p []byte) {
	k.now++
	if k.way != side {
		k.way, k.left = side, captureTurn
	}
	if k.left == 0 && (sniff(p[:min(len(p), 32)]) != l7.Neither || bytes.HasPrefix(p, []byte("0\r\n\r\n"))) {
		k.left = captureTurn
	}
	n := min(len(p), captureCall, k.left)
	k.left -= n
	k.offset[side] += uint64(len(p))
	if k.loses != nil && k.loses() {
		k.conn.Missing(side, uint64(len(p)))
		return
	}
	k.conn.Data(side, &event.Chunk{
		Time: k.now, Sent: side == l7.Answers, Len: len(p), Data: p[:n], Offset: k.offset[side] - uint64(len(p)), PID: 1,
	})
}

// write moves a message by calls of any length.
func (k *kernel) write(r *rand.Rand, side l7.Side, p []byte) {
	for len(p) > 0 {
		n := min(len(p), 1+r.IntN(1<<r.IntN(15)))
		if r.IntN(3) == 0 {
			n = len(p)
		}
		k.move(side, p[:n])
		p = p[n:]
	}
}

// message makes a head with a body of any length, in chunks or not.
func message(r *rand.Rand, first string) []byte {
	var b bytes.Buffer
	body := strings.Repeat("x", r.IntN(1<<r.IntN(16)))
	fmt.Fprintf(&b, "%s\r\nHost: a\r\n", first)
	if r.IntN(2) == 0 {
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
		return b.Bytes()
	}
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	for len(body) > 0 {
		n := 1 + r.IntN(len(body))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	b.WriteString("0\r\n\r\n")
	return b.Bytes()
}

// Whatever part of bodies was captured, every request is found, with its status
// and its sizes, and known to be complete: its end by its own words, or by the
// next request.
func TestCapturedInPart(t *testing.T) {
	for range 300 {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 3))
		var want, got []string
		k := &kernel{conn: Proto.New(&kept{seen: func(c *l7.Call, complete bool) {
			got = append(got, fmt.Sprint(c.Text, " ", c.Status, " ", c.RequestBytes, " ", c.ResponseBytes, " ", complete))
		}})}
		for i := range 20 {
			status := 200 + r.IntN(2)*300
			ask := message(r, fmt.Sprintf("POST /%d HTTP/1.1", i))
			answer := message(r, fmt.Sprintf("HTTP/1.1 %d X", status))
			want = append(want, fmt.Sprintf("/%d %d %d %d true", i, status, len(ask), len(answer)))
			k.write(r, l7.Asks, ask)
			k.write(r, l7.Answers, answer)
		}
		k.move(l7.Asks, []byte("GET /end HTTP/1.1\r\n\r\n"))
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("seed %d:\n%s\nwant\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// When bytes are missing anywhere, no answer is given to another request, and
// what is said to be complete is.
func TestMissing(t *testing.T) {
	found := 0
	for range 300 {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 4))
		k := &kernel{loses: func() bool { return r.IntN(10) == 0 }}
		sizes := map[string][2]int64{}
		k.conn = Proto.New(&kept{seen: func(c *l7.Call, complete bool) {
			if c.Status != 0 && c.Text != fmt.Sprintf("/%d", c.Status) {
				t.Errorf("seed %d: %s has the answer %d", seed, c.Text, c.Status)
			}
			if got := [2]int64{c.RequestBytes, c.ResponseBytes}; complete && got != sizes[c.Text] {
				t.Errorf("seed %d: %s has the sizes %d, want %d", seed, c.Text, got, sizes[c.Text])
			}
			if complete {
				found++
			}
		}})
		for i := range 20 {
			ask := message(r, fmt.Sprintf("POST /%d HTTP/1.1", 400+i))
			answer := message(r, fmt.Sprintf("HTTP/1.1 %d X", 400+i))
			sizes[fmt.Sprintf("/%d", 400+i)] = [2]int64{int64(len(ask)), int64(len(answer))}
			k.write(r, l7.Asks, ask)
			k.write(r, l7.Answers, answer)
		}
		k.conn.Close()
	}
	if found < 300*20/4 {
		t.Errorf("%d of %d requests were found complete", found, 300*20)
	}
}
