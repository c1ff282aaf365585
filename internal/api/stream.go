package api

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
)

// events is an open answer of server-sent events.
type eventStream struct {
	w   *writer
	buf *bufio.Writer
}

// stream begins one, if there is a place for another follower. The caller ends
// it by done.
func (s *Server) stream(w http.ResponseWriter) (out eventStream, done func(), err error) {
	select {
	case s.streams <- struct{}{}:
	default:
		w.Header().Set("Retry-After", "5")
		return out, nil, wrong(http.StatusServiceUnavailable, "close some", "%d clients follow already", maxStreams)
	}
	to := w.(*writer)
	w.Header().Set("Content-Type", mediaSSE)
	w.Header().Set("X-Accel-Buffering", "no") // proxies must not wait for more
	w.WriteHeader(http.StatusOK)
	out = eventStream{to, bufio.NewWriterSize(to, 16<<10)}
	return out, func() { <-s.streams }, nil
}

// event adds one event; data has no line breaks.
func (e eventStream) event(name string, data []byte) {
	e.buf.WriteString("event: ")
	e.buf.WriteString(name)
	e.buf.WriteString("\ndata: ")
	e.buf.Write(data)
	e.buf.WriteString("\n\n")
}

// flush sends what was added; its error says that the client is gone.
func (e eventStream) flush() error {
	if err := e.buf.Flush(); err != nil {
		return err
	}
	return e.w.Flush()
}

func (e eventStream) lost(n uint64) {
	e.event("lost", append(strconv.AppendUint([]byte(`{"count":`), n, 10), `,"stage":"cursor"}`...))
}

const pingEvery = 15 * time.Second

// follow sends the newest rows that were asked for, and then rows as they come,
// with no gap between: the cursor begins where the snapshot ends.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, q query.Request) error {
	snapshot := s.Store.Snapshot()
	next := end(snapshot, q.Kind)
	backlog, err := s.backlog(r.Context(), snapshot, q)
	snapshot.Close()
	if err != nil {
		return err
	}
	cursor := s.Store.Follow(q.Kind, next)
	defer cursor.Close()
	out, done, err := s.stream(w)
	if err != nil {
		return err
	}
	defer done()

	var row []byte
	name := q.Kind.String()
	for i := range backlog.Len {
		row = backlog.AppendJSON(row[:0], i)
		out.event(name, row)
	}
	if out.flush() != nil {
		return nil // the client went
	}
	var picks []int32
	for {
		wait, cancel := context.WithTimeout(r.Context(), pingEvery)
		rows, lost, err := cursor.Next(wait)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			out.buf.WriteString(": ping\n\n")
		case err != nil:
			return nil // the client went, or we stop
		}
		if lost > 0 {
			out.lost(lost)
		}
		if rows != nil {
			if picks, err = q.Filter.Match(rows, picks[:0]); err != nil {
				return err
			}
			for _, i := range picks {
				row = rows.AppendJSON(row[:0], int(i))
				out.event(name, row)
			}
		}
		if out.flush() != nil {
			return nil // the client went
		}
	}
}

// backlog is what a follower gets first: nothing unless it asked, and never
// more than fits into memory.
func (s *Server) backlog(ctx context.Context, snapshot *store.Snapshot, q query.Request) (*segment.Rows, error) {
	if q.Last == 0 && q.Since == 0 {
		return &segment.Rows{}, nil
	}
	if q.Last == 0 || q.Last > maxHeld {
		q.Last = maxHeld
	}
	ctx, cancel := context.WithTimeout(ctx, maxAnswer)
	defer cancel()
	result, err := query.Select(ctx, snapshot, q)
	return result.Rows, err
}

// end returns the sequence number after the newest row of a snapshot.
func end(s *store.Snapshot, k event.Kind) uint64 {
	sources := s.Sources(k)
	if len(sources) == 0 {
		return store.Oldest
	}
	return sources[len(sources)-1].Extent().Next()
}
