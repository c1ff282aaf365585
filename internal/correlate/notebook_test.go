package correlate

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// What one connection noted another reads; the oldest notes go.
func TestNotebook(t *testing.T) {
	c := New(Options{})
	a, b := &conn{c: c}, &conn{c: c}
	id := func(i int) (id [16]byte) {
		binary.BigEndian.PutUint64(id[:], uint64(i))
		return id
	}
	for i := range maxNoted + 10 {
		name := fmt.Appendf(nil, "topic-%d", i)
		a.Note(id(i), name)
		a.Note(id(i), name)
		name[0] = 'x' // it was borrowed
	}
	if got := b.Noted(id(9)); got != "" {
		t.Errorf("%q is still there", got)
	}
	if got := b.Noted(id(10)); got != "topic-10" || len(c.noted.names) != maxNoted {
		t.Errorf("%q, %d names", got, len(c.noted.names))
	}
	a.Note(id(10), []byte("other"))
	if got := b.Noted(id(10)); got != "other" {
		t.Errorf("%q", got)
	}
}
