package store

import (
	"errors"
	"os"
	"slices"

	"ghostlight/internal/segment"
)

// Small segments come from restarts and from quiet times. Neighbours are made
// one, a few at a time, in an order that no crash disturbs:
//
//	write .tmp, force to disk -> rename, force folder -> new view -> remove the old
//
// Until the last is removed its rows are in two files. Open knows the merged
// one, and removes what is left of those it was made of.

// compactFiles are merged at a time: neighbours none of which has more rows
// than the others together, so that a row is written again only into a file of
// twice the size.
const compactFiles = 4

// Compact merges small neighbours, at most once in each table, and returns how
// many segments are gone. The store does so by itself after a segment was
// written, and when nothing happens.
func (s *Store) Compact() (gone int) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	for _, t := range s.tables {
		if s.faulty() {
			return gone
		}
		gone += s.compact(t)
	}
	return gone
}

func (s *Store) compact(t *table) (gone int) {
	v := t.acquire()
	defer v.release() // holds the old files open
	old := s.small(v.files)
	if old == nil {
		return 0
	}
	merged, err := s.merge(t, old)
	if err != nil {
		s.options.Log.Warn("small segments stay as they are", "table", t.schema.Table.Name, "error", err)
		for _, f := range old {
			f.single = true
		}
		return 0
	}
	t.replace(func(v *view) {
		at := slices.Index(v.files, old[0])
		v.files = slices.Replace(v.files, at, at+len(old), merged)
	})
	for _, f := range old {
		if f.Path != merged.Path { // the merged one may have the name of the first
			s.remove(f)
		}
	}
	return len(old) - 1
}

// small returns the first neighbours that are worth to be merged.
func (s *Store) small(files []*file) []*file {
	for i := 0; i+compactFiles <= len(files); i++ {
		if some := files[i : i+compactFiles]; s.mergeable(some) {
			return some
		}
	}
	return nil
}

// mergeable keeps to the size of a segment, and to an eighth of the retention:
// the rows of a file go when its newest does.
func (s *Store) mergeable(files []*file) bool {
	rows, most := 0, 0
	oldest, newest := files[0].Oldest, files[0].Newest
	for _, f := range files {
		if f.single || f.Foreign {
			return false
		}
		rows += f.Len
		most = max(most, f.Len)
		oldest, newest = min(oldest, f.Oldest), max(newest, f.Newest)
	}
	return rows <= s.options.FlushRows && 2*most <= rows && newest-oldest <= s.bounds.retention.Load()/8
}

func (s *Store) merge(t *table, old []*file) (*file, error) {
	var sources []segment.Source
	for _, f := range old {
		for i := range f.Groups {
			sources = append(sources, f.Group(i))
		}
	}
	path, err := s.writeSegment(t, sources, segment.Merge)
	if err != nil {
		return nil, err
	}
	f, err := segment.Open(path, t.schema, s.cache)
	if err != nil {
		return nil, err
	}
	return &file{File: f}, nil
}

func (s *Store) remove(f *file) {
	if err := os.Remove(f.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.fail(opFlush, err)
	}
}
