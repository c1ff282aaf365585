package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// Question is the body of POST /api/v1/query.
type Question struct {
	SQL   string `json:"sql"`
	Limit int    `json:"limit,omitempty"` // rows at most; 0 is the usual limit
}

// Answer is the answer to a Question. Cells are numbers, booleans, strings or null.
type Answer struct {
	Columns  []AnswerColumn `json:"columns"`
	Rows     [][]any        `json:"rows"`
	Complete bool           `json:"complete"` // false where a limit cut the rows, or records were lost
	Stats    AnswerStats    `json:"stats"`
}

// AnswerColumn is one column of an Answer.
type AnswerColumn struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// AnswerStats tells what the answer took. Plan is native where our own engine
// ran the statement, and sqlite where SQLite did.
type AnswerStats struct {
	RowsScanned uint64 `json:"rows_scanned"`
	DurationNS  int64  `json:"duration_ns"`
	Plan        string `json:"plan"`
}

// SQL runs one statement: head is called once, before the first row. Cells are
// int64, float64, bool, string or nil. What the client did wrong is a *Problem.
type SQL func(ctx context.Context, q Question, head func([]AnswerColumn) error, row func([]any) error) (complete bool, stats AnswerStats, err error)

const (
	usualLimit = 10000
	maxLimit   = 1000000
)

func (s *Server) query(w http.ResponseWriter, r *http.Request) error {
	q, err := question(r)
	if err != nil {
		return err
	}
	// What fits into the buffer is not sent before it is known to be right.
	out := answerWriter{w: w, buf: bufio.NewWriterSize(w, 256<<10), lines: wantsLines(r)}
	complete, stats, err := s.SQL(r.Context(), q, out.head, out.row)
	if err != nil {
		return err
	}
	return out.end(complete, stats)
}

func question(r *http.Request) (q Question, err error) {
	if r.Method == http.MethodPost {
		q, err = questionOfBody(r)
	} else {
		values := r.URL.Query()
		q.SQL = values.Get("sql")
		q.Limit, err = count("limit", values.Get("limit"), 0)
	}
	switch {
	case err != nil:
		return q, err
	case strings.TrimSpace(q.SQL) == "":
		return q, wrong(http.StatusBadRequest, `{"sql": "select ..."}`, "there is no SQL statement")
	case q.Limit < 0 || q.Limit > maxLimit:
		return q, wrong(http.StatusBadRequest, "", "limit: %d is not between 1 and %d", q.Limit, maxLimit)
	case q.Limit == 0:
		q.Limit = usualLimit
	}
	return q, nil
}

func questionOfBody(r *http.Request) (q Question, err error) {
	// A form of another page could send text/plain without asking us first.
	if media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(media) != mediaJSON {
		return q, wrong(http.StatusUnsupportedMediaType, "", "the body must be %s", mediaJSON)
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return q, err
		}
		return q, wrong(http.StatusBadRequest, `{"sql": "select ...", "limit": 100}`, "the body cannot be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return q, wrong(http.StatusBadRequest, "", "the body must be one JSON object")
	}
	return q, nil
}

// answerWriter writes the rows of an answer as they come: as one object, or as
// one object a line with the columns as its keys.
type answerWriter struct {
	w       http.ResponseWriter
	buf     *bufio.Writer
	lines   bool
	keys    []string // of a line: `"name":`
	rows    int
	scratch []byte
}

func (a *answerWriter) head(columns []AnswerColumn) error {
	if a.lines {
		a.w.Header().Set("Content-Type", mediaNDJSON)
		a.w.Header().Set("Trailer", "Ghostlight-Complete")
		a.keys = keysOf(columns)
		return nil
	}
	a.w.Header().Set("Content-Type", mediaJSON)
	list, err := json.Marshal(columns)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.buf, `{"columns":%s,"rows":[`, list)
	return err
}

// keysOf names the values of a line. A name that comes twice gets a number, so
// that no value hides another.
func keysOf(columns []AnswerColumn) []string {
	keys, seen := make([]string, len(columns)), map[string]bool{}
	for i, c := range columns {
		name := c.Name
		for n := 2; seen[name]; n++ {
			name = c.Name + "_" + strconv.Itoa(n)
		}
		seen[name] = true
		key, _ := json.Marshal(name) // a string always can
		keys[i] = string(key) + ":"
	}
	return keys
}

func (a *answerWriter) row(cells []any) error {
	b := a.scratch[:0]
	if !a.lines && a.rows > 0 {
		b = append(b, ',', '\n')
	}
	opening, closing := byte('['), byte(']')
	if a.lines {
		opening, closing = '{', '}'
	}
	b = append(b, opening)
	for i, c := range cells {
		if i > 0 {
			b = append(b, ',')
		}
		if a.lines {
			b = append(b, a.keys[i]...)
		}
		b = appendCell(b, c)
	}
	b = append(b, closing)
	if a.lines {
		b = append(b, '\n')
	}
	a.rows++
	a.scratch = b
	_, err := a.buf.Write(b)
	return err
}

func appendCell(b []byte, c any) []byte {
	switch c := c.(type) {
	case int64:
		return strconv.AppendInt(b, c, 10)
	case float64:
		if math.IsNaN(c) || math.IsInf(c, 0) {
			return append(b, "null"...)
		}
		return strconv.AppendFloat(b, c, 'g', -1, 64)
	case bool:
		return strconv.AppendBool(b, c)
	case string:
		text, _ := json.Marshal(c) // a string always can
		return append(b, text...)
	}
	return append(b, "null"...)
}

func (a *answerWriter) end(complete bool, stats AnswerStats) error {
	if a.lines {
		a.w.Header().Set("Ghostlight-Complete", strconv.FormatBool(complete)) // it follows the rows
		return a.buf.Flush()
	}
	tail, err := json.Marshal(stats)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.buf, `],"complete":%t,"stats":%s}`+"\n", complete, tail)
	return a.buf.Flush()
}
