package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
)

func (s *Server) processes(w http.ResponseWriter, r *http.Request) error {
	values, err := parseQuery(r)
	if err != nil {
		return err
	}
	records, err := truth("events", values.Get("events"))
	if err != nil {
		return err
	}
	sel, err := s.selection(r)
	if err != nil {
		return err
	}
	if records {
		if values.Has("at") {
			return wrong(http.StatusBadRequest, "give since and until", "events have no single moment: at goes with the tree")
		}
		return s.rows(w, r, event.KindProcess, sel)
	}
	if values.Has("since") || values.Has("until") || values.Has("last") || sel.follow {
		return wrong(http.StatusBadRequest, "add events=true, or give at", "the tree is of one moment")
	}
	at, err := moment("at", values.Get("at"), s.now())
	if err != nil {
		return err
	}
	if at == 0 {
		at = s.now().UnixNano()
	}
	return s.tree(w, r, at, sel.filter)
}

// tree answers with the newest row of every process alive at a moment. The
// store is read twice: to find these rows, and to send them.
func (s *Server) tree(w http.ResponseWriter, r *http.Request, at int64, filter string) error {
	ctx, cancel := context.WithTimeout(r.Context(), maxAnswer)
	defer cancel()
	q := query.Request{Kind: event.KindProcess, Until: at + 1}
	f, err := s.filter(q.Kind, filter)
	if err != nil {
		return err
	}
	q.Since = s.toldSince(at)
	snapshot := s.Store.Snapshot()
	defer snapshot.Close()
	alive, result, err := living(ctx, snapshot, q)
	if err != nil {
		return err
	}
	out := newRowWriter(w, r, "processes")
	out.counted = false
	out.begin(result)
	var picks, kept []int32
	_, err = query.Each(ctx, snapshot, q, func(rows *segment.Rows, all []int32) error {
		kept = kept[:0]
		for _, i := range all {
			if _, found := slices.BinarySearch(alive, rows.Seq+uint64(i)); found {
				kept = append(kept, i)
			}
		}
		if len(kept) == 0 {
			return nil
		}
		var err error
		if picks, err = f.Match(rows, picks[:0]); err != nil {
			return err
		}
		for _, i := range kept {
			if _, found := slices.BinarySearch(picks, i); found {
				out.row(rows, int(i))
			}
		}
		return out.err
	})
	if err != nil {
		return err
	}
	return out.endTree(result, at)
}

// toldSince returns a time after which every process alive at a moment was told
// of: the agent tells all of them when it starts, and at every checkpoint. What
// was told before that may have ended while nobody watched.
func (s *Server) toldSince(at int64) int64 {
	since := int64(0)
	if s.Checkpoint > 0 {
		since = max(1, at-int64(2*s.Checkpoint))
	}
	if started := s.Status().Started; !started.IsZero() && started.UnixNano() <= at {
		since = max(since, started.UnixNano())
	}
	return since
}

// life is the newest thing known of a pid.
type life struct {
	time, start int64
	seq         uint64
	exited      bool
}

// living returns the sequence numbers of the rows that tell of processes alive
// at the end of q, sorted. A pid has one process at a time, so the newest row
// of a pid counts, whatever execution it tells of.
func living(ctx context.Context, snapshot *store.Snapshot, q query.Request) ([]uint64, query.Result, error) {
	schema := snapshot.Schema(q.Kind)
	var (
		timeCol   = schema.Index["time"]
		actionCol = schema.Index["action"]
		pidCol    = schema.Index["process.pid"]
		startCol  = schema.Index["process.start_ns"]
		byPID     = map[int64]life{}
	)
	result, err := query.Each(ctx, snapshot, q, func(rows *segment.Rows, picks []int32) error {
		for _, i := range picks {
			row := int(i)
			now := life{
				time: rows.Int(timeCol, row), start: rows.Int(startCol, row),
				seq: rows.Seq + uint64(row), exited: string(rows.Bytes(actionCol, row)) == event.Exit.String(),
			}
			pid := rows.Int(pidCol, row)
			if old, known := byPID[pid]; !known || now.follows(old) {
				byPID[pid] = now
			}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, result, err
	}
	alive := make([]uint64, 0, len(byPID))
	for _, l := range byPID {
		if !l.exited {
			alive = append(alive, l.seq)
		}
	}
	slices.Sort(alive)
	return alive, result, nil
}

// disorder is how far records of several CPUs may come out of order.
const disorder = int64(time.Second)

// follows tells whether l tells of a later state than old. Of two processes of
// one pid the later one counts; when both are of the same second their times
// of creation decide, and nothing follows the exit of the same process.
func (l life) follows(old life) bool {
	near := max(l.time-old.time, old.time-l.time) < disorder
	switch {
	case near && l.start != old.start:
		return l.start > old.start
	case near && l.exited != old.exited:
		return l.exited
	}
	return l.time >= old.time
}

func (o *rowWriter) endTree(result query.Result, at int64) error {
	if !o.lines {
		b := append(o.scratch[:0], `],"at":"`...)
		b = time.Unix(0, at).UTC().AppendFormat(b, time.RFC3339Nano)
		b = append(b, `","complete":`...)
		if result.Complete {
			b = append(b, "true}\n"...)
		} else {
			b = append(b, "false}\n"...)
		}
		o.buf.Write(b)
	}
	return o.buf.Flush()
}
