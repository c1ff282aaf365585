package store

import (
	"context"
	"errors"
	"slices"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

// Where a cursor may begin, beside a sequence number.
const (
	Oldest uint64 = 0         // at the oldest row there is
	Newest uint64 = 1<<64 - 1 // after the newest row there is
)

// ErrClosed says that the store was closed while a cursor waited.
var ErrClosed = errors.New("store: closed")

// Cursor reads the rows of one table as they come. It is for one goroutine.
type Cursor struct {
	store *Store
	table *table
	next  uint64
	wake  chan struct{} // of size 1: Append never waits
	held  *view
	rows  *segment.Rows
}

// Follow returns a cursor that gives the rows of a kind from a sequence
// number, Oldest or Newest. It returns nil for a kind the store has not.
func (s *Store) Follow(kind event.Kind, from uint64) *Cursor {
	t := s.table(kind)
	if t == nil {
		return nil
	}
	c := &Cursor{store: s, table: t, wake: make(chan struct{}, 1), rows: segment.NewRows(t.schema, nil)}
	v := t.acquire()
	c.next = min(from, v.next())
	if from == Oldest {
		c.next = v.first()
	}
	v.release()
	t.watch(c)
	return c
}

// Next waits for rows. They are valid until the next call. lost tells how many
// rows before them were gone before they could be read.
func (c *Cursor) Next(ctx context.Context) (rows *segment.Rows, lost uint64, err error) {
	c.letGo()
	for {
		v := c.table.acquire()
		if source := v.from(c.next); source != nil {
			c.held = v
			c.rows.Reset(source)
			lost = c.rows.Seq - c.next
			c.next = c.rows.Next()
			return c.rows, lost, nil
		}
		v.release()
		select {
		case <-c.wake:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-c.store.closed:
			return nil, 0, ErrClosed
		}
	}
}

// Seq returns the sequence number of the next row the cursor will give.
func (c *Cursor) Seq() uint64 { return c.next }

// Close ends the cursor; the rows it gave are no longer valid.
func (c *Cursor) Close() {
	c.letGo()
	c.table.unwatch(c)
}

func (c *Cursor) letGo() {
	if c.held != nil {
		c.rows.Reset(nil)
		c.held.release()
		c.held = nil
	}
}

func (t *table) watch(c *Cursor) { t.edit(func(all []*Cursor) []*Cursor { return append(all, c) }) }

func (t *table) unwatch(c *Cursor) {
	t.edit(func(all []*Cursor) []*Cursor {
		return slices.DeleteFunc(all, func(other *Cursor) bool { return other == c })
	})
}

func (t *table) edit(change func([]*Cursor) []*Cursor) {
	t.cursoring.Lock()
	defer t.cursoring.Unlock()
	var all []*Cursor
	if old := t.cursors.Load(); old != nil {
		all = slices.Clone(*old)
	}
	all = change(all)
	t.cursors.Store(&all)
}

// ring wakes the cursors; it never waits.
func (t *table) ring() {
	all := t.cursors.Load()
	if all == nil {
		return
	}
	for _, c := range *all {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// next returns the sequence number after the newest row.
func (v *view) next() uint64 { return v.current.seq + uint64(v.current.rows.Load()) }

// first returns the sequence number of the oldest row.
func (v *view) first() uint64 {
	switch {
	case len(v.files) > 0:
		return v.files[0].Seq
	case len(v.packed) > 0:
		return v.packed[0].extent.Seq
	}
	return v.current.seq
}

// from returns the rest of the run of rows that holds seq, or the first run
// after it, nil if there is no newer row.
func (v *view) from(seq uint64) segment.Source {
	if seq >= v.current.seq {
		if b := v.current.view(int(seq - v.current.seq)); b.n > b.from {
			return b
		}
		return nil
	}
	for _, f := range v.files {
		if f.Next() <= seq {
			continue
		}
		for i, g := range f.Groups {
			if g.Next() > seq {
				return tailOf(f.Group(i), seq)
			}
		}
	}
	for _, p := range v.packed {
		if p.extent.Next() > seq {
			return tailOf(p, seq)
		}
	}
	if b := v.current.view(0); b.n > 0 {
		return b
	}
	return nil
}

// tail is a source without its first rows.
type tail struct {
	segment.Source
	skip int
}

func tailOf(s segment.Source, seq uint64) segment.Source {
	e := s.Extent()
	if seq <= e.Seq {
		return s
	}
	skip := int(seq - e.Seq)
	switch s := s.(type) {
	case *packed:
		return packedTail{s, skip}
	case *blockView:
		rest := *s
		rest.from += skip
		return &rest
	}
	return tail{s, skip}
}

func (t tail) Extent() segment.Extent { return skipped(t.Source.Extent(), t.skip) }

func skipped(e segment.Extent, rows int) segment.Extent {
	e.Seq += uint64(rows)
	e.Len -= rows
	return e
}

func (t tail) Column(column int, b *segment.Buffer) (segment.Vector, error) {
	v, err := t.Source.Column(column, b)
	switch {
	case err != nil:
	case v.Ints != nil:
		v.Ints = v.Ints[min(t.skip, len(v.Ints)):]
	default:
		v.Codes = v.Codes[min(t.skip, len(v.Codes)):]
	}
	return v, err
}
