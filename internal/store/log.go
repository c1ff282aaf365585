package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"ghostlight/internal/segment"
)

// The log has one file for each block, so that a file can go as soon as its
// block is in a segment. docs/format/store.md tells the bytes.
const (
	logMagic   = "ghostlight log 1\n"
	frameBytes = 8
	mostRecord = 1 << 20 // rows of a record
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// logs are the files of the blocks that are in memory only. Its lock is held
// by the log goroutine and by Sync; Append and readers never take it.
type logs struct {
	lock  sync.Mutex
	files map[logKey]*logFile
	dirty bool // written since the last sync
	frame []byte
	// memory for the numbers of one column of an open block.
	memory []byte
}

type logKey struct {
	table *table
	seq   uint64
}

type logFile struct {
	path  string
	disk  *os.File // nil: complete, or not begun
	size  int64    // bytes that are whole records
	rows  int      // rows that are in it
	codes []int    // by column: dictionary entries that are in it, the empty one included
	dirty bool
}

func logName(dir, table string, seq uint64) string {
	return filepath.Join(dir, "wal", fmt.Sprintf("%s-%020d.wal", table, seq))
}

// runLog writes what came, a quarter of Sync after it came, and syncs once in
// Sync. Where nothing comes it sleeps. It ends when the store is closed.
func (s *Store) runLog() {
	defer s.running.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	synced := time.Now()
	for more := false; ; {
		if !more {
			select {
			case <-s.wakeLog:
			case <-s.closed:
				return
			}
		}
		every := time.Duration(s.bounds.sync.Load())
		quarter := every / 4
		wait := quarter
		if s.faulty() {
			wait = max(quarter, time.Second)
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-s.closed:
			return
		}
		drain(s.wakeLog)
		due := time.Since(synced) >= every-quarter/2
		err := s.logs.write(s, due)
		if due {
			synced = time.Now()
		}
		more = err != nil || s.logs.unsynced()
	}
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func (l *logs) unsynced() bool {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.dirty
}

// write brings the log up to date and, if asked, forces it to disk.
func (l *logs) write(s *Store, sync bool) error {
	l.lock.Lock()
	defer l.lock.Unlock()
	err := s.occupy()
	for _, t := range s.tables {
		if err != nil {
			break
		}
		err = l.writeTable(s.dir, t)
	}
	if err == nil && sync {
		err = l.sync()
	}
	l.sweepTables(s)
	if err != nil {
		s.fail(opLog, err)
		return fmt.Errorf("write log: %w", err)
	}
	s.mend(opLog)
	return nil
}

func (l *logs) writeTable(dir string, t *table) error {
	v := t.acquire()
	defer v.release()
	for _, p := range v.packed {
		if err := l.writeSource(dir, t, p.extent.Seq, p.extent.Len, p); err != nil {
			return err
		}
	}
	b := v.current.view(0)
	l.memory = sized(l.memory, 8*(b.n+1))
	return l.writeSource(dir, t, b.seq, b.n, b)
}

// logged is rows in memory whose columns the log takes as they are packed.
type logged interface {
	segment.Source
	pack(column int, memory []byte) packedColumn
}

func (l *logs) writeSource(dir string, t *table, seq uint64, n int, source logged) error {
	key := logKey{t, seq}
	f := l.files[key]
	if n == 0 || f != nil && f.rows >= n {
		return nil
	}
	if f == nil {
		f = &logFile{path: logName(dir, t.schema.Table.Name, seq)}
		if l.files == nil {
			l.files = map[logKey]*logFile{}
		}
		l.files[key] = f
	}
	if f.disk == nil {
		if err := l.begin(f, t.schema, seq); err != nil {
			return err
		}
	}
	return l.append(f, tailOf(source, seq+uint64(f.rows)).(logged))
}

// begin makes the file, or makes it anew.
func (l *logs) begin(f *logFile, schema *segment.Schema, seq uint64) error {
	disk, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	f.disk, f.size, f.rows = disk, 0, 0
	f.codes = make([]int, len(schema.Table.Columns))
	for i := range f.codes {
		f.codes[i] = 1
	}
	l.frame = append(l.frame[:0], make([]byte, frameBytes)...)
	l.frame = appendLogHeader(l.frame, schema, seq)
	if err := l.flush(f); err != nil {
		disk.Close()
		f.disk = nil
		return err
	}
	return syncDir(filepath.Dir(f.path))
}

func appendLogHeader(b []byte, schema *segment.Schema, seq uint64) []byte {
	b = append(b, logMagic...)
	b = appendText(b, schema.Table.Name)
	b = binary.AppendUvarint(b, seq)
	b = binary.AppendUvarint(b, uint64(len(schema.Table.Columns)))
	for _, c := range schema.Table.Columns {
		b = append(appendText(b, c.Name), byte(c.Type))
	}
	return b
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// append writes rows as one record.
func (l *logs) append(f *logFile, rows logged) error {
	count := rows.Extent().Len
	b := append(l.frame[:0], make([]byte, frameBytes)...)
	b = binary.AppendUvarint(b, uint64(f.rows))
	b = binary.AppendUvarint(b, uint64(count))
	codes := slices.Clone(f.codes)
	for i := range codes {
		c := rows.pack(i, l.memory)
		if c.dict.Ends != nil {
			b, codes[i] = appendEntries(b, &c.dict, codes[i])
		}
		b = c.cells.Append(b)
	}
	l.frame = b
	if err := l.flush(f); err != nil {
		return err
	}
	f.rows += count
	f.codes = codes
	return nil
}

// appendEntries adds the entries of a dictionary that the file has not yet.
func appendEntries(b []byte, d *segment.Dict, have int) ([]byte, int) {
	more := max(0, d.Len()-have)
	b = binary.AppendUvarint(b, uint64(more))
	for code := have; code < have+more; code++ {
		b = appendText(b, d.Cell(uint32(code)))
	}
	return b, have + more
}

// flush frames what l.frame holds and writes it after the last whole record.
// What a failed write left is cut, so that the file stays whole.
func (l *logs) flush(f *logFile) error {
	binary.LittleEndian.PutUint32(l.frame, uint32(len(l.frame)-frameBytes))
	sum := crc32.Update(crc32.Checksum(l.frame[:4], castagnoli), castagnoli, l.frame[frameBytes:])
	binary.LittleEndian.PutUint32(l.frame[4:], sum)
	if _, err := f.disk.WriteAt(l.frame, f.size); err != nil {
		return errors.Join(err, f.disk.Truncate(f.size))
	}
	f.size += int64(len(l.frame))
	f.dirty, l.dirty = true, true
	if cap(l.frame) > 1<<20 {
		l.frame = nil
	}
	return nil
}

// sync forces the files to disk. The kernel forgets what it could not write
// once it told so: such a file is written anew from memory.
func (l *logs) sync() error {
	var all error
	for _, f := range l.files {
		if !f.dirty {
			continue
		}
		f.dirty = false
		if err := fdatasync(f.disk); err != nil {
			f.disk.Close()
			f.disk, f.rows = nil, 0
			all = errors.Join(all, err)
		}
	}
	l.dirty = all != nil
	return all
}

// sweep removes the files whose rows are in a segment, or gone.
func (l *logs) sweep(s *Store) {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.sweepTables(s)
}

func (l *logs) sweepTables(s *Store) {
	for _, t := range s.tables {
		v := t.acquire()
		live := map[uint64]bool{v.current.seq: true}
		for _, p := range v.packed {
			live[p.extent.Seq] = true
		}
		v.release()
		for key, f := range l.files {
			if key.table == t && !live[key.seq] {
				f.close()
				os.Remove(f.path) // what cannot be removed is removed at the next start
				delete(l.files, key)
			}
		}
	}
}

func (f *logFile) close() {
	if f.disk != nil {
		f.disk.Close()
		f.disk = nil
	}
}

func (l *logs) close() {
	l.lock.Lock()
	defer l.lock.Unlock()
	for _, f := range l.files {
		f.close()
	}
}

// bytes returns the size of the log.
func (l *logs) bytes() (n int64) {
	l.lock.Lock()
	defer l.lock.Unlock()
	for _, f := range l.files {
		n += f.size
	}
	return n
}
