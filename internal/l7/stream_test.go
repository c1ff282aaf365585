package l7

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"ghostlight/internal/event"
)

// lines is a parser of the simplest protocol there is: a length byte, and that
// many bytes.
func lines(s *Stream, c *event.Chunk, out *[]string) {
	s.Feed(c)
	defer s.Rest()
	for {
		b := s.Bytes()
		if len(b) == 0 {
			return
		}
		n := 1 + int(b[0])
		if len(b) < n {
			if s.Cut() {
				*out = append(*out, fmt.Sprintf("%d:%s~", s.Mark().Offset, b[1:]))
				s.Next(n)
				continue
			}
			return
		}
		*out = append(*out, fmt.Sprintf("%d:%s", s.Mark().Offset, b[1:n]))
		s.Next(n)
	}
}

// However the bytes are cut into chunks, the messages and their places are the
// same.
func TestStreamAnyCut(t *testing.T) {
	var wire []byte
	var want []string
	for _, m := range []string{"one", "", "three", strings.Repeat("x", 200), "five"} {
		want = append(want, fmt.Sprintf("%d:%s", len(wire), m))
		wire = append(append(wire, byte(len(m))), m...)
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		var s Stream
		var got []string
		for at := 0; at < len(wire); {
			n := 1 + r.IntN(min(len(wire)-at, 1+r.IntN(100)))
			lines(&s, &event.Chunk{Offset: uint64(at), Len: n, Data: wire[at : at+n]}, &got)
			at += n
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("seed %d:\n%q\nwant\n%q", seed, got, want)
		}
	}
}

// A body that was not captured is stepped over, and the message behind it is
// found.
func TestStreamHole(t *testing.T) {
	var s Stream
	var got []string
	long := append([]byte{100}, strings.Repeat("y", 20)...)
	lines(&s, &event.Chunk{Len: 60, Data: long}, &got)                                     // 60 of 101 bytes moved, 21 captured
	lines(&s, &event.Chunk{Offset: 60, Len: 30}, &got)                                     // 90
	lines(&s, &event.Chunk{Offset: 90, Len: 15, Data: []byte("12345678901\x03abc")}, &got) // the end, and the next
	if want := "0:" + strings.Repeat("y", 20) + "~|101:abc"; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestStreamLost(t *testing.T) {
	var s Stream
	s.Feed(&event.Chunk{Len: 5, Data: []byte("ab")})
	s.Rest() // three bytes of an incomplete message were not captured
	if !s.Lost() {
		t.Error("the place is not lost")
	}
	s.Found()
	s.Feed(&event.Chunk{Len: 2, Data: []byte("cd")})
	if string(s.Bytes()) != "cd" || s.Lost() {
		t.Errorf("after Found: %q", s.Bytes())
	}
	s.Next(10)
	s.Rest()
	if s.Missing(8); s.Lost() || s.Waiting() != 0 {
		t.Error("what was to be stepped over anyway is missed")
	}
	if s.Missing(1); !s.Lost() {
		t.Error("a byte that nobody stepped over is not missed")
	}
}

// The mark of a message is that of the chunk in which it began.
func TestStreamMark(t *testing.T) {
	var s Stream
	s.Feed(&event.Chunk{Time: 1, Seq: 100, Len: 1, Data: []byte("G")})
	s.Rest()
	s.Feed(&event.Chunk{Time: 2, Seq: 101, Offset: 1, Len: 5, Data: []byte("ET|PO")})
	if m := s.Mark(); m.Time != 1 || m.Seq != 100 {
		t.Errorf("the first message is at %+v", m)
	}
	s.Next(4)
	if m := s.Mark(); m.Time != 2 || m.Seq != 104 || m.Offset != 4 {
		t.Errorf("the second message is at %+v", m)
	}
	s.Rest()
	s.Feed(&event.Chunk{Time: 3, Seq: 106, Offset: 6, Len: 2, Data: []byte("ST")})
	if m := s.Mark(); m.Time != 2 || m.Seq != 104 || string(s.Bytes()) != "POST" {
		t.Errorf("the second message is at %+v: %q", m, s.Bytes())
	}
}

func TestStreamDoesNotAllocate(t *testing.T) {
	var s Stream
	c := &event.Chunk{Len: 8, Data: []byte("\x03abc\x03de")}
	out := 0
	if n := testing.AllocsPerRun(100, func() {
		s.Feed(c)
		for len(s.Bytes()) > 3 {
			s.Next(4)
			out++
		}
		s.Rest()
		s.Lose()
		s.Found()
	}); n != 0 {
		t.Errorf("%v allocations a chunk", n)
	}
}
