package store

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"syscall"
)

// The things that can fail by themselves.
const (
	opLog = iota
	opFlush
	ops
)

type faults [ops]atomic.Pointer[string]

// Status is how the store is doing.
type Status struct {
	Bytes          int64 // of segments and log
	MemoryBytes    int64 // of packed blocks that wait for a segment
	Rows           uint64
	Oldest, Newest int64  // bounds of the rows' times, Unix nanoseconds; 0 if there are none
	Lost           uint64 // rows the store had no room for since it was opened
	Error          string // why records are in memory only, and what to do; empty if all is well
	Tables         []TableStatus
}

// TableStatus is a part of Status.
type TableStatus struct {
	Name           string
	Rows           uint64
	Bytes          int64 // of segments
	Segments       int
	Oldest, Newest int64
}

// Status returns how the store is doing.
func (s *Store) Status() Status {
	st := Status{Bytes: s.logs.bytes(), Oldest: math.MaxInt64, Newest: math.MinInt64, Lost: s.lost.Load()}
	for _, t := range s.tables {
		one, packed := t.status()
		st.Tables = append(st.Tables, one)
		st.Bytes += one.Bytes
		st.MemoryBytes += packed
		st.Rows += one.Rows
		if one.Rows > 0 {
			st.Oldest, st.Newest = min(st.Oldest, one.Oldest), max(st.Newest, one.Newest)
		}
	}
	if st.Rows == 0 {
		st.Oldest, st.Newest = 0, 0
	}
	for i := range s.faults {
		if text := s.faults[i].Load(); text != nil {
			st.Error = *text
		}
	}
	return st
}

func (t *table) status() (st TableStatus, packedBytes int64) {
	v := t.acquire()
	defer v.release()
	st = TableStatus{Name: t.schema.Table.Name, Segments: len(v.files), Oldest: math.MaxInt64, Newest: math.MinInt64}
	for _, f := range v.files {
		st.Rows += uint64(f.Len)
		st.Bytes += f.Size
		st.Oldest, st.Newest = min(st.Oldest, f.Oldest), max(st.Newest, f.Newest)
	}
	for _, p := range v.packed {
		st.Rows += uint64(p.extent.Len)
		packedBytes += int64(p.size)
		st.Oldest, st.Newest = min(st.Oldest, p.extent.Oldest), max(st.Newest, p.extent.Newest)
	}
	if e := v.current.view(0).Extent(); e.Len > 0 {
		st.Rows += uint64(e.Len)
		st.Oldest, st.Newest = min(st.Oldest, e.Oldest), max(st.Newest, e.Newest)
	}
	if st.Rows == 0 {
		st.Oldest, st.Newest = 0, 0
	}
	return st, packedBytes
}

// fail keeps why something cannot be written and what a person can do.
func (s *Store) fail(op int, err error) {
	text := fmt.Sprintf("%v; %s. Until then records are kept in memory only, as many as fit.", err, advice(s.dir, err))
	if old := s.faults[op].Swap(&text); old == nil {
		s.options.Log.Error("the store cannot write", "dir", s.dir, "error", err)
	}
}

func advice(dir string, err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space on the disk of " + dir + ", or lower the retention"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EROFS):
		return "make " + dir + " writable for this user, or choose another folder with --data"
	case errors.Is(err, ErrLocked):
		return "stop the other process that uses " + dir
	}
	return "look at the disk of " + dir
}

func (s *Store) mend(op int) {
	if old := s.faults[op].Swap(nil); old != nil {
		s.options.Log.Info("the store can write again", "dir", s.dir)
	}
}

func (s *Store) faulty() bool {
	return s.faults[opLog].Load() != nil || s.faults[opFlush].Load() != nil
}
