package store

import (
	"sync"
	"sync/atomic"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

// table is everything the store has of one kind of record.
type table struct {
	schema *segment.Schema
	view   atomic.Pointer[view]
	change sync.Mutex // held by who replaces the view; readers never take it
	spare  atomic.Pointer[block]
	// cursors that want to be woken; copied when it changes.
	cursors   atomic.Pointer[[]*Cursor]
	cursoring sync.Mutex
	dropped   atomic.Uint64 // rows let go because memory was full
}

// view is all rows of a table at one moment: segments, full blocks that wait
// for theirs, and the block being filled. Sequence numbers rise from the first
// to the last. It is never changed; who replaces it makes another. It holds
// its files open and its block from being used again until nobody reads it.
type view struct {
	refs    atomic.Int64
	table   *table
	files   []*file
	packed  []*packed
	current *block
}

// acquire returns the newest view; release gives it back.
func (t *table) acquire() *view {
	for {
		v := t.view.Load()
		if n := v.refs.Load(); n > 0 && v.refs.CompareAndSwap(n, n+1) {
			return v
		}
	}
}

func (v *view) release() {
	if v.refs.Add(-1) > 0 {
		return
	}
	for _, f := range v.files {
		f.release()
	}
	if v.current.refs.Add(-1) == 0 {
		v.table.spare.CompareAndSwap(nil, v.current)
	}
}

// replace puts an edited copy of the view in its place.
func (t *table) replace(edit func(next *view)) {
	t.change.Lock()
	defer t.change.Unlock()
	old := t.view.Load()
	next := &view{table: t, files: append([]*file(nil), old.files...), packed: append([]*packed(nil), old.packed...), current: old.current}
	edit(next)
	t.publish(next)
	old.release()
}

func (t *table) publish(v *view) {
	v.refs.Store(1)
	for _, f := range v.files {
		f.refs.Add(1)
	}
	v.current.refs.Add(1)
	t.view.Store(v)
}

// empty returns a block for rows from seq, by preference one that was used
// before. A block that had grown for a burst is let go after a quiet one.
func (t *table) empty(seq uint64, reuse bool) *block {
	if b := t.spare.Swap(nil); b != nil && reuse {
		b.reset(seq)
		return b
	}
	return newBlock(t.schema, seq)
}

// seal packs the current block and begins another. The caller holds the
// store's writing lock.
func (t *table) seal() {
	b := t.view.Load().current
	if b.rows.Load() == 0 {
		return
	}
	p := pack(b)
	full := 4*int(b.rows.Load()) >= b.capacity
	next := t.empty(p.extent.Next(), full)
	t.replace(func(v *view) {
		v.packed = append(v.packed, p)
		v.current = next
	})
}

// sources lists the rows of a view, oldest first; of its block those that
// newest has.
func (v *view) sources(newest *blockView) []segment.Source {
	all := make([]segment.Source, 0, 4*len(v.files)+len(v.packed)+1)
	for _, f := range v.files {
		for i := range f.Groups {
			all = append(all, f.Group(i))
		}
	}
	for _, p := range v.packed {
		all = append(all, p)
	}
	if newest.n > 0 {
		all = append(all, newest)
	}
	return all
}

// Snapshot is all rows the store had at one moment. What it holds stays
// readable until Close, also when retention deletes it meanwhile. Rows that
// come later are not in it, though its blocks are filled on.
type Snapshot struct {
	tables []*table
	views  []*view
	newest []*blockView // of the block of each view
}

// Schema returns the table of a kind, nil if the store has none.
func (s *Snapshot) Schema(k event.Kind) *segment.Schema {
	for _, t := range s.tables {
		if t.schema.Table.Kind == k {
			return t.schema
		}
	}
	return nil
}

// Schemas returns all tables.
func (s *Snapshot) Schemas() []*segment.Schema {
	all := make([]*segment.Schema, len(s.tables))
	for i, t := range s.tables {
		all[i] = t.schema
	}
	return all
}

// Sources returns the runs of rows of a kind, in the order they came.
func (s *Snapshot) Sources(k event.Kind) []segment.Source {
	for i, t := range s.tables {
		if t.schema.Table.Kind == k {
			return s.views[i].sources(s.newest[i])
		}
	}
	return nil
}

// Close lets go of the snapshot.
func (s *Snapshot) Close() {
	for _, v := range s.views {
		v.release()
	}
	s.views, s.newest = nil, nil
}
