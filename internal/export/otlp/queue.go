package otlp

import (
	"sync"

	"ghostlight/internal/event"
)

// signal is what a backend takes by its own way.
type signal uint8

const (
	traces signal = iota
	metrics
	logs
	signals
)

// String returns the name, as options and paths have it.
func (s signal) String() string { return [...]string{"traces", "metrics", "logs"}[s] }

// chunk is some records, written already: to encode is to copy them off the
// batch. The sender sorts them by process.
type chunk struct {
	text    message
	entries []entry
}

// entry is one record of a chunk.
type entry struct {
	who      *event.Who
	signal   signal
	from, to int
}

func (c *chunk) size() int { return len(c.text) + 32*len(c.entries) }

func (c *chunk) count(s signal) (n int) {
	for i := range c.entries {
		if c.entries[i].signal == s {
			n++
		}
	}
	return n
}

// queue is what waits to be sent, bounded by bytes. One goroutine fills it and
// never waits; one empties it.
type queue struct {
	limit, batch int
	wake         chan struct{} // something can be taken

	mu    sync.Mutex
	open  *chunk   // that is being filled
	full  []*chunk // first in, first out
	spare *chunk   // an empty one, for its memory
	bytes int      // of all chunks, also that which is being sent
}

func newQueue(limit, batch int) *queue {
	return &queue{limit: limit, batch: min(batch, limit), wake: make(chan struct{}, 1), open: &chunk{}}
}

// add takes a record that encode appends, unless there is no room.
func (q *queue) add(who *event.Who, s signal, encode func(message) message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes >= q.limit {
		return false
	}
	c := q.open
	before, from := c.size(), len(c.text)
	c.text = encode(c.text)
	c.entries = append(c.entries, entry{who, s, from, len(c.text)})
	q.bytes += c.size() - before
	if c.size() >= q.batch {
		q.closeChunk()
	}
	return true
}

// closeChunk makes the open chunk one that waits.
func (q *queue) closeChunk() {
	q.full = append(q.full, q.open)
	if q.open, q.spare = q.spare, nil; q.open == nil {
		q.open = &chunk{}
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns the oldest chunk; with all, the one that is being filled too.
// It returns nil if there is none. Whoever took it gives it back.
func (q *queue) take(all bool) *chunk {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.full) == 0 && all && len(q.open.entries) > 0 {
		q.closeChunk()
	}
	if len(q.full) == 0 {
		return nil
	}
	c := q.full[0]
	q.full = append(q.full[:0], q.full[1:]...)
	return c
}

// giveBack says that a chunk is done with.
func (q *queue) giveBack(c *chunk) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= c.size()
	clear(c.entries) // let go of pointers
	c.text, c.entries = c.text[:0], c.entries[:0]
	if cap(c.text) <= 2*q.batch {
		q.spare = c
	}
}

func (q *queue) size() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// request writes the export request of one signal of a chunk: its records by
// process.
func (c *chunk) request(m message, s signal, host []event.Attr, version string) message {
	var order []*event.Who
	byWho := map[*event.Who][]entry{}
	for _, e := range c.entries {
		if e.signal != s {
			continue
		}
		if byWho[e.who] == nil {
			order = append(order, e.who)
		}
		byWho[e.who] = append(byWho[e.who], e)
	}
	for _, who := range order {
		m = resourceOf(m, who, host, version, func(m message) message {
			for _, e := range byWho[who] {
				m.bytes(2, c.text[e.from:e.to])
			}
			return m
		})
	}
	return m
}
