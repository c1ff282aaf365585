package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ghostlight/internal/segment"
)

// file is a segment that closes itself when no view has it any more.
type file struct {
	*segment.File
	refs   atomic.Int64
	single bool // it could not be merged; under Store.flushing
}

func (f *file) release() {
	if f.refs.Add(-1) == 0 {
		f.File.Close() // it was only read
	}
}

// writeFunc is segment.Write or segment.Merge.
type writeFunc = func(io.Writer, *segment.Schema, []segment.Source) ([]segment.Extent, error)

// runFlush turns packed blocks into segments and deletes old ones. It ends
// when the store is closed.
func (s *Store) runFlush() {
	defer s.running.Done()
	tick := time.NewTicker(min(30*time.Second, max(s.options.FlushAge/4, 10*time.Millisecond)))
	defer tick.Stop()
	for {
		select {
		case <-s.wakeFlush:
		case <-tick.C:
			s.sealAged()
		case <-s.closed:
			return
		}
		s.flushAll(false) // the error is in Status
		s.Retain()
		s.Compact()
		if s.faulty() {
			s.pause(2 * time.Second)
			poke(s.wakeFlush)
		}
	}
}

func (s *Store) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.closed:
	}
}

// sealAged seals the blocks that were begun long ago.
func (s *Store) sealAged() {
	s.writing.Lock()
	defer s.writing.Unlock()
	for _, t := range s.tables {
		b := t.view.Load().current
		if !b.opened.IsZero() && time.Since(b.opened) >= s.options.FlushAge {
			t.seal()
		}
	}
}

// flushAll writes the segments that are due, or all.
func (s *Store) flushAll(all bool) error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	for _, t := range s.tables {
		for {
			due := s.due(t, all)
			if len(due) == 0 {
				break
			}
			if err := s.flush(t, due); err != nil {
				s.fail(opFlush, err)
				return fmt.Errorf("flush %s: %w", t.schema.Table.Name, err)
			}
			s.mend(opFlush)
		}
	}
	return nil
}

// due returns the oldest packed blocks of a table if they make a segment.
func (s *Store) due(t *table, all bool) []*packed {
	v := t.acquire()
	defer v.release()
	rows := 0
	for i, p := range v.packed {
		rows += p.extent.Len
		if rows >= s.options.FlushRows {
			return v.packed[:i+1]
		}
	}
	if rows > 0 && (all || time.Since(v.packed[0].opened) >= s.options.FlushAge) {
		return v.packed
	}
	return nil
}

// flush writes packed blocks as one segment and puts it in their place.
func (s *Store) flush(t *table, blocks []*packed) error {
	if err := s.occupyAgain(); err != nil {
		return err
	}
	for _, p := range blocks {
		p.flushing.Store(true)
		defer p.flushing.Store(false)
	}
	sources := make([]segment.Source, len(blocks))
	for i, p := range blocks {
		sources[i] = p
	}
	path, err := s.writeSegment(t, sources, segment.Write)
	if err != nil {
		return err
	}
	f, err := segment.Open(path, t.schema, s.cache)
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	t.replace(func(v *view) {
		v.packed = slices.DeleteFunc(v.packed, func(p *packed) bool { return slices.Contains(blocks, p) })
		v.files = append(v.files, &file{File: f})
	})
	poke(s.wakeLog) // to remove the log of the blocks
	return nil
}

func (s *Store) occupyAgain() error {
	s.logs.lock.Lock()
	defer s.logs.lock.Unlock()
	return s.occupy()
}

// writeSegment writes to a temporary name, forces it to disk and renames it.
func (s *Store) writeSegment(t *table, sources []segment.Source, write writeFunc) (path string, err error) {
	oldest := sources[0].Extent().Oldest
	for _, source := range sources {
		oldest = min(oldest, source.Extent().Oldest)
	}
	minute := time.Unix(0, oldest).UTC().Format("20060102T1504Z")
	folder := filepath.Join(s.dir, t.schema.Table.Name)
	path = filepath.Join(folder, fmt.Sprintf("%s-%020d.parquet", minute, sources[0].Extent().Seq))
	tmp, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return "", err
	}
	_, err = write(tmp, t.schema, sources)
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(tmp.Name()))
	}
	return path, syncDir(folder)
}

// bound drops the oldest packed blocks while there are too many: the disk is
// full, or slower than the records come. The caller holds s.writing.
func (s *Store) bound() {
	var size int64
	for _, t := range s.tables {
		for _, p := range t.view.Load().packed {
			size += int64(p.size)
		}
	}
	for size > s.options.MemoryBytes {
		t, p := s.oldestPacked()
		if p == nil {
			return
		}
		t.replace(func(v *view) {
			v.packed = slices.DeleteFunc(v.packed, func(other *packed) bool { return other == p })
		})
		size -= int64(p.size)
		s.lose(p.extent.Len)
	}
}

func (s *Store) oldestPacked() (from *table, oldest *packed) {
	for _, t := range s.tables {
		for _, p := range t.view.Load().packed {
			if !p.flushing.Load() && (oldest == nil || p.opened.Before(oldest.opened)) {
				from, oldest = t, p
			}
		}
	}
	return from, oldest
}

// Retain deletes segments that are too old or too many.
func (s *Store) Retain() {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	if now, ok := s.clock.trusted(s.options.Now()); ok {
		cutoff := now.Add(-time.Duration(s.bounds.retention.Load())).UnixNano()
		for _, t := range s.tables {
			s.unlink(t, s.aged(t, cutoff))
		}
	}
	for s.segmentBytes() > s.bounds.bytes.Load() {
		t := s.oldestTable()
		if t == nil {
			return
		}
		s.unlink(t, 1)
	}
}

// aged returns how many of a table's oldest segments are too old. Segments go
// in the order they came: one whose rows have times in the future (the clock
// was set back since) goes with the ones after it.
func (s *Store) aged(t *table, cutoff int64) (n int) {
	v := t.acquire()
	defer v.release()
	for i, f := range v.files {
		if f.Newest < cutoff {
			n = i + 1
		}
	}
	return n
}

func (s *Store) segmentBytes() (n int64) {
	for _, t := range s.tables {
		v := t.acquire()
		for _, f := range v.files {
			n += f.Size
		}
		v.release()
	}
	return n
}

// oldestTable returns the table whose first segment is the oldest.
func (s *Store) oldestTable() (oldest *table) {
	var newest int64
	for _, t := range s.tables {
		v := t.acquire()
		if len(v.files) > 0 && (oldest == nil || v.files[0].Newest < newest) {
			oldest, newest = t, v.files[0].Newest
		}
		v.release()
	}
	return oldest
}

// unlink deletes the first n segments. Who reads them keeps them open.
func (s *Store) unlink(t *table, n int) {
	if n == 0 {
		return
	}
	var gone []*file
	t.replace(func(v *view) {
		gone = v.files[:n]
		v.files = v.files[n:]
	})
	for _, f := range gone {
		s.remove(f)
	}
}

// clock tells whether the wall clock may be used to delete: not while it has
// just leapt forward, which a mistake does as well as a suspended host.
type clock struct {
	lock  sync.Mutex
	wall  time.Time
	real  time.Time
	until time.Time
}

const (
	leap  = 5 * time.Minute
	grace = 10 * time.Minute
)

func (c *clock) start(wall time.Time) { c.wall, c.real = wall, time.Now() }

func (c *clock) trusted(wall time.Time) (time.Time, bool) {
	c.lock.Lock()
	defer c.lock.Unlock()
	now := time.Now()
	if wall.Round(0).Sub(c.wall.Round(0))-now.Sub(c.real) > leap {
		c.until = now.Add(grace)
	}
	c.wall, c.real = wall, now
	return wall, now.After(c.until)
}
