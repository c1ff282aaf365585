package http2

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
	"ghostlight/test/story"
)

// said is what a call says, by its stream.
type said struct {
	found
	calls map[uint64]event.Request
	twice bool
}

func (s *said) End(c *l7.Call, complete bool) {
	r := c.Request
	r.Complete = complete
	for _, text := range []*string{&r.Operation, &r.Text, &r.Query, &r.Outcome, &r.Error} {
		*text = strings.Clone(*text)
	}
	_, s.twice = s.calls[c.Link]
	s.calls[c.Link] = r
	s.found.End(c, complete)
}

// hear plays a connection of which the harm function loses something.
func hear(steps []story.Step, harm func(*story.Step) (missing bool)) *said {
	s := &said{calls: map[uint64]event.Request{}}
	s.quiet = true
	c := newConn(s)
	for i, step := range steps {
		if harm(&step) {
			c.Missing(step.Side, uint64(step.More))
			continue
		}
		c.Data(step.Side, &event.Chunk{Time: int64(i+1) * 1e6, Len: len(step.Data) + step.More, Data: step.Data, Sent: step.Side == l7.Answers})
	}
	c.Close()
	return s
}

// Whatever is lost of a connection: what is said of a call is what would have
// been said, only less; and a call that is said to be complete is whole.
func TestLossTellsNoLies(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	complete, poor := 0, 0
	for _, file := range files {
		steps := chunks(t, strings.TrimSuffix(filepath.Base(file), ".txt"))
		if slices.ContainsFunc(steps, func(s story.Step) bool { return s.More > 0 }) {
			continue
		}
		whole := hear(steps, func(*story.Step) bool { return false })
		for range 100 {
			lossy := hear(steps, func(s *story.Step) bool { return lose(r, s) })
			if lossy.open != 0 || lossy.twice {
				t.Fatalf("%s: %d calls open, one twice: %v", file, lossy.open, lossy.twice)
			}
			for link, got := range lossy.calls {
				if lie := compare(got, whole.calls[link]); lie != "" {
					t.Fatalf("%s: stream %d: %s", file, link, lie)
				}
				if got.Complete {
					complete++
				} else {
					poor++
				}
			}
		}
	}
	if complete == 0 || poor == 0 {
		t.Errorf("%d calls complete, %d not: nothing was tried", complete, poor)
	}
}

// lose takes something from a step.
func lose(r *rand.Rand, s *story.Step) (missing bool) {
	switch r.IntN(12) {
	case 0: // not captured to its end
		n := r.IntN(len(s.Data) + 1)
		s.More += len(s.Data) - n
		s.Data = s.Data[:n]
	case 1: // not seen, and counted
		s.More, s.Data = len(s.Data), nil
		return true
	case 2: // not seen at all
		s.More, s.Data = 0, nil
		return true
	}
	return false
}

func compare(got, want event.Request) string {
	if got.Protocol == "http" && want.Protocol == "grpc" { // its content-type was lost
		want.Operation, want.Text, want.Outcome, want.Status = "POST", "/"+want.Operation, "", 200
	}
	for _, w := range [][3]string{
		{"method", got.Operation, want.Operation}, {"path", got.Text, want.Text}, {"query", got.Query, want.Query},
		{"outcome", got.Outcome, want.Outcome}, {"status", number0(got.Status), number0(want.Status)},
	} {
		if w[1] != w[2] && (w[1] != "" || got.Complete) {
			return fmt.Sprintf("%s is %q, was %q (complete %v)", w[0], w[1], w[2], got.Complete)
		}
	}
	if got.Complete && (got.RequestBytes != want.RequestBytes || got.ResponseBytes != want.ResponseBytes || got.Error != want.Error || got.Protocol != want.Protocol) {
		return fmt.Sprintf("it is complete: %+v, was %+v", got, want)
	}
	return ""
}

func number0(n int32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
