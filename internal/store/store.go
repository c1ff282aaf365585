// Package store keeps the records: the newest in memory, all of them in a
// write-ahead log within a second, and full blocks in Parquet segments.
//
//	Append -> open block -> (8 k rows) packed block -> (64 k rows or 10 min) segment
//	               \______________\____ log goroutine: write, fsync each second
//
// Append never waits for a disk, and readers never lock the writer: they take
// one pointer and see every row that was appended before.
package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/segment"
)

// Options say how much is kept and how safely.
type Options struct {
	Retention      time.Duration // age at which rows go; default 24 h
	RetentionBytes int64         // size of all segments at which the oldest goes; default 2 GiB
	// Sync is how often the log is forced to disk; default 1 s. It is written
	// four times as often, so that a crash of the process loses a quarter of
	// Sync, and one of the machine what came since the last sync.
	Sync        time.Duration
	FlushAge    time.Duration // age at which rows go from memory to a segment; default 10 min
	FlushRows   int           // rows of a segment; default 65,536
	BlockRows   int           // rows of an open block; default 8,192
	MemoryBytes int64         // bound of the packed blocks that wait for a segment; default 16 MiB
	Now         func() time.Time
	Log         *slog.Logger
}

func (o Options) withDefaults() Options {
	setDefault(&o.Retention, 24*time.Hour)
	setDefault(&o.RetentionBytes, 2<<30)
	setDefault(&o.Sync, time.Second)
	setDefault(&o.FlushAge, 10*time.Minute)
	setDefault(&o.FlushRows, 64<<10)
	setDefault(&o.BlockRows, segment.GroupRows/2)
	setDefault(&o.MemoryBytes, 16<<20)
	o.BlockRows = min(max(o.BlockRows, startRows), mostRecord)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func setDefault[T int | int64 | time.Duration](v *T, to T) {
	if *v <= 0 {
		*v = to
	}
}

// maxStringBytes bounds the dictionaries of a block: arguments may be long.
const maxStringBytes = 4 << 20

// footers that are kept parsed.
const footers = 32

// ErrLocked says that another process uses the folder.
var ErrLocked = errors.New("the data folder is used by another process; stop it, or give this one a folder of its own with --data")

// Store is the rows of all tables.
type Store struct {
	dir      string
	options  Options
	bounds   bounds
	tables   []*table
	cache    *segment.Cache
	recovery Recovery

	writing sync.Mutex // Append, and sealing a block because of its age
	pending atomic.Uint64
	lost    atomic.Uint64

	lock     *os.File // of the folder; nil while there is none to write to
	faults   faults
	logs     logs
	flushing sync.Mutex // one flush or retention at a time
	clock    clock

	wakeLog   chan struct{}
	wakeFlush chan struct{}
	closed    chan struct{}
	closing   sync.Once
	running   sync.WaitGroup
}

// Open opens the store in dir and recovers what a crash left. A folder that
// cannot be used is no error: the store then lives in memory, says so in
// Status, and tries again. Only a folder that another process uses is one.
func Open(dir string, tables []event.Table, o Options) (*Store, error) {
	schemas, err := segment.Schemas(tables)
	if err != nil {
		return nil, err
	}
	s := &Store{
		dir: dir, options: o.withDefaults(), cache: segment.NewCache(footers),
		wakeLog: make(chan struct{}, 1), wakeFlush: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	s.SetRetention(s.options.Retention, s.options.RetentionBytes)
	s.SetSync(s.options.Sync)
	s.clock.start(s.options.Now())
	for _, schema := range schemas {
		t := &table{schema: schema}
		t.publish(&view{table: t, current: newBlock(schema, 0)})
		s.tables = append(s.tables, t)
	}
	if err := s.occupy(); errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	} else if err != nil {
		s.fail(opLog, err)
	}
	s.recover()
	s.running.Add(2) // both end when closed is closed
	go s.runLog()
	go s.runFlush()
	return s, nil
}

// bounds are the options that change while the store is open. They are read
// without a lock, because who changes them must not wait for a disk.
type bounds struct {
	retention, bytes, sync atomic.Int64
}

// SetRetention changes how much is kept. What is too much now goes soon; zero
// is the default, as in Options.
func (s *Store) SetRetention(age time.Duration, bytes int64) {
	o := Options{Retention: age, RetentionBytes: bytes}.withDefaults()
	s.bounds.retention.Store(int64(o.Retention))
	s.bounds.bytes.Store(o.RetentionBytes)
	poke(s.wakeFlush)
}

// SetSync changes how often the log is forced to disk.
func (s *Store) SetSync(every time.Duration) {
	s.bounds.sync.Store(int64(Options{Sync: every}.withDefaults().Sync))
}

// occupy makes the folder and locks it.
func (s *Store) occupy() error {
	if s.lock != nil && !s.faulty() {
		return nil
	}
	for _, sub := range append(s.names(), "wal") {
		if err := os.MkdirAll(filepath.Join(s.dir, sub), 0o750); err != nil {
			return err
		}
	}
	if s.lock != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	if err := flock(f); err != nil {
		f.Close()
		return err
	}
	s.lock = f
	return nil
}

func (s *Store) names() (all []string) {
	for _, t := range s.tables {
		all = append(all, t.schema.Table.Name)
	}
	return all
}

func (s *Store) table(k event.Kind) *table {
	for _, t := range s.tables {
		if t.schema.Table.Kind == k {
			return t
		}
	}
	return nil
}

// Tables returns the schemas of the store.
func (s *Store) Tables() []*segment.Schema {
	all := make([]*segment.Schema, len(s.tables))
	for i, t := range s.tables {
		all[i] = t.schema
	}
	return all
}

// Append copies the records of a batch. It is called by one goroutine, never
// waits for a disk and cannot fail: what has no room is counted in Status.
func (s *Store) Append(b *event.Batch) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for _, t := range s.tables {
		if n := t.schema.Table.Len(b); n > 0 {
			s.appendTo(t, b, n)
		}
	}
	if s.pending.Load() > 0 {
		s.appendLost()
	}
	poke(s.wakeLog)
}

func (s *Store) appendTo(t *table, batch *event.Batch, n int) {
	for from := 0; from < n; {
		b := t.view.Load().current
		room := b.room(min(n-from, chunkRows), s.options.BlockRows)
		if room == 0 {
			s.seal(t)
			continue
		}
		if b.opened.IsZero() {
			b.opened = time.Now()
		}
		b.append(batch, from, room)
		from += room
		if b.stringBytes() > maxStringBytes {
			s.seal(t)
		}
	}
	t.ring()
}

func (s *Store) seal(t *table) {
	t.seal()
	s.bound()
	poke(s.wakeFlush)
}

// appendLost tells in the table of losses what the store itself let go of.
func (s *Store) appendLost() {
	t := s.table(event.KindLost)
	if t == nil {
		return
	}
	n := s.pending.Swap(0)
	s.appendTo(t, &event.Batch{Lost: []event.Lost{{Time: s.options.Now().UnixNano(), Stage: "store", Count: n}}}, 1)
}

// lose counts rows that are gone before they could be kept.
func (s *Store) lose(n int) {
	s.lost.Add(uint64(n))
	s.pending.Add(uint64(n))
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Snapshot returns all rows there are now. It must be closed.
func (s *Store) Snapshot() *Snapshot {
	snap := &Snapshot{tables: s.tables, views: make([]*view, len(s.tables)), newest: make([]*blockView, len(s.tables))}
	for i, t := range s.tables {
		snap.views[i] = t.acquire()
		snap.newest[i] = snap.views[i].current.view(0)
	}
	return snap
}

// Close writes everything to segments and ends the store.
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() {
		close(s.closed)
		s.running.Wait()
		err = s.closeFiles()
	})
	return err
}

func (s *Store) closeFiles() error {
	s.sealAll()
	err := s.flushAll(true)
	if err != nil {
		err = errors.Join(err, s.logs.write(s, true)) // what has no segment stays in the log
	} else {
		s.logs.sweep(s)
	}
	s.logs.close()
	for _, t := range s.tables {
		t.replace(func(v *view) { v.files = nil })
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
		s.lock = nil
	}
	return err
}

func (s *Store) sealAll() {
	s.writing.Lock()
	defer s.writing.Unlock()
	for _, t := range s.tables {
		t.seal()
	}
}

// Sync returns when everything appended before is in the log or in a segment.
func (s *Store) Sync() error { return s.logs.write(s, true) }
