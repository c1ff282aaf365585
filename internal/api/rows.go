package api

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
)

const (
	defaultLast = 1000
	maxHeld     = 20000 // rows in memory for one answer; for more the store is read twice
)

func (s *Server) flows(w http.ResponseWriter, r *http.Request) error {
	sel, err := s.selection(r)
	if err != nil {
		return err
	}
	return s.rows(w, r, event.KindFlow, sel)
}

func (s *Server) requests(w http.ResponseWriter, r *http.Request) error {
	sel, err := s.selection(r)
	if err != nil {
		return err
	}
	return s.rows(w, r, event.KindRequest, sel)
}

// rows answers with the newest rows of a kind, oldest of them first, in the
// form the client asked for.
func (s *Server) rows(w http.ResponseWriter, r *http.Request, kind event.Kind, sel selection) error {
	q, err := s.request(kind, sel)
	if err != nil {
		return err
	}
	if sel.follow {
		if sel.last < 0 && sel.since != 0 {
			q.Last = defaultLast
		}
		return s.follow(w, r, q)
	}
	snapshot := s.Store.Snapshot()
	defer snapshot.Close()
	out := newRowWriter(w, r, s.schema(kind).Table.Name)
	if sel.last == 0 || sel.last > maxHeld {
		return s.readTwice(out, r, snapshot, q)
	}
	if sel.last < 0 {
		q.Last = defaultLast
	}
	// Counting all that match is worth its price where a range bounds it.
	q.Count = sel.since != 0
	ctx, cancel := context.WithTimeout(r.Context(), maxAnswer)
	defer cancel()
	result, err := query.Select(ctx, snapshot, q)
	if err != nil {
		return err
	}
	out.begin(result)
	for i := range result.Rows.Len {
		out.row(result.Rows, i)
	}
	return out.end(result)
}

// readTwice counts first and sends then, without keeping a row in memory.
func (s *Server) readTwice(out *rowWriter, r *http.Request, snapshot *store.Snapshot, q query.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), maxAnswer)
	defer cancel()
	newest := uint64(q.Last)
	q.Last = 0
	result, err := query.Each(ctx, snapshot, q, func(*segment.Rows, []int32) error { return nil })
	if err != nil {
		return err
	}
	var skip uint64
	if newest > 0 && result.Matched > newest {
		skip = result.Matched - newest
	}
	out.begin(result)
	_, err = query.Each(r.Context(), snapshot, q, func(rows *segment.Rows, picks []int32) error {
		n := min(skip, uint64(len(picks)))
		skip -= n
		for _, i := range picks[n:] {
			out.row(rows, int(i))
		}
		return out.err
	})
	if err != nil {
		return err
	}
	return out.end(result)
}

func (s *Server) request(kind event.Kind, sel selection) (query.Request, error) {
	f, err := s.filter(kind, sel.filter)
	return query.Request{Kind: kind, Since: sel.since, Until: sel.until, Last: max(0, sel.last), Filter: f}, err
}

// filter reads the filter language; its mistakes are the client's.
func (s *Server) filter(kind event.Kind, text string) (*query.Filter, error) {
	f, err := query.Parse(s.schema(kind), text)
	var syntax *query.SyntaxError
	if errors.As(err, &syntax) {
		return nil, wrong(http.StatusBadRequest, syntax.Hint, "filter: %s", syntax.Message)
	}
	return f, err
}

func (s *Server) schema(kind event.Kind) *segment.Schema {
	for _, schema := range s.schemas {
		if schema.Table.Kind == kind {
			return schema
		}
	}
	return nil
}

// wantsLines tells whether the client asked for one object a line.
func wantsLines(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), mediaNDJSON)
}

// rowWriter writes rows as one JSON object or as one object a line. The first
// error of writing stays in err.
type rowWriter struct {
	w       http.ResponseWriter
	buf     *bufio.Writer
	table   string
	lines   bool
	counted bool // it is known how many rows match
	rows    int
	scratch []byte
	err     error
}

func newRowWriter(w http.ResponseWriter, r *http.Request, table string) *rowWriter {
	return &rowWriter{w: w, buf: bufio.NewWriterSize(w, 32<<10), table: table, lines: wantsLines(r), counted: true}
}

// begin tells what is known before the rows.
func (o *rowWriter) begin(result query.Result) {
	h := o.w.Header()
	if o.counted {
		h.Set("Ghostlight-Matched", strconv.FormatUint(result.Matched, 10))
	}
	h.Set("Ghostlight-Complete", strconv.FormatBool(result.Complete))
	h.Set("Ghostlight-Lost", strconv.FormatUint(result.Lost, 10))
	h.Set("Vary", "Accept")
	if o.lines {
		h.Set("Content-Type", mediaNDJSON)
		return
	}
	h.Set("Content-Type", mediaJSON)
	o.buf.WriteString(`{"` + o.table + `":[`)
}

func (o *rowWriter) row(rows *segment.Rows, i int) {
	o.scratch = o.scratch[:0]
	if !o.lines && o.rows > 0 {
		o.scratch = append(o.scratch, ',', '\n')
	}
	o.scratch = rows.AppendJSON(o.scratch, i)
	o.raw(o.scratch)
}

func (o *rowWriter) raw(row []byte) {
	o.rows++
	if _, err := o.buf.Write(row); err != nil {
		o.err = err
	}
	if o.lines {
		o.buf.WriteByte('\n')
	}
}

func (o *rowWriter) end(result query.Result) error {
	if !o.lines {
		b := append(o.scratch[:0], `],"matched":`...)
		b = strconv.AppendUint(b, result.Matched, 10)
		b = append(b, `,"complete":`...)
		b = strconv.AppendBool(b, result.Complete)
		b = append(b, `,"lost":`...)
		b = strconv.AppendUint(b, result.Lost, 10)
		o.buf.Write(append(b, "}\n"...))
	}
	return o.buf.Flush()
}
