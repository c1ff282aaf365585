// Package api is the HTTP face of Ghostlight: it answers questions about what
// is stored and how the agent fares, on loopback and on a unix socket.
//
//	listener -> secured -> guard (Host, Origin, token) -> mux -> route's bounds -> handler -> store
//
// The table of routes is the API: parameters are checked and the OpenAPI
// description is written by it.
package api

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
)

// Backend is what the agent gives the API to answer from. Store, Status and
// Doctor must be set; they are called from any goroutine.
type Backend struct {
	Store   *store.Store
	Status  func() Status
	Doctor  func() Doctor
	SQL     SQL          // nil: our own engine over Store
	Metrics http.Handler // nil: /metrics says that there are none
	UI      http.Handler // nil: no web page
	Version string
	Log     *slog.Logger // nil: silence
	// Checkpoint is how often every process is told anew. The tree of a moment
	// is made of what was told in the two such spans before it; 0 reads all.
	Checkpoint time.Duration
	Now        func() time.Time // nil: time.Now
}

// Server answers requests. It is made by New.
type Server struct {
	Backend
	mux     *http.ServeMux
	now     func() time.Time
	schemas []*segment.Schema
	streams chan struct{} // one slot a follower
	openapi []byte
}

// New returns a server that answers from b.
func New(b Backend) (*Server, error) {
	s := &Server{Backend: b, now: b.Now, streams: make(chan struct{}, maxStreams)}
	if s.now == nil {
		s.now = time.Now
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.SQL == nil {
		s.SQL = SQLOf(b.Store)
	}
	var err error
	if s.schemas, err = segment.Schemas(event.Tables); err != nil {
		return nil, fmt.Errorf("prepare the tables: %w", err)
	}
	if s.openapi, err = describe(b.Version); err != nil {
		return nil, fmt.Errorf("describe the API: %w", err)
	}
	s.mount()
	return s, nil
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", mediaText)
	w.Write([]byte("ok\n")) // the client may be gone
	return nil
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	if s.Metrics == nil {
		return wrong(http.StatusNotFound, "", "this agent has no metrics")
	}
	s.Metrics.ServeHTTP(w, r)
	return nil
}

func (s *Server) doctor(w http.ResponseWriter, _ *http.Request) error { return answer(w, s.Doctor()) }

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", mediaJSON)
	w.Write(s.openapi) // the client may be gone
	return nil
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	values, err := parseQuery(r)
	if err != nil {
		return err
	}
	going, err := truth("follow", values.Get("follow"))
	switch {
	case err != nil:
		return err
	case !going:
		return answer(w, s.Status())
	}
	out, done, err := s.stream(w)
	if err != nil {
		return err
	}
	defer done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		body, err := json.Marshal(s.Status())
		if err != nil {
			return err
		}
		out.event("status", body)
		if err := out.flush(); err != nil {
			return nil // the client went
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return nil
		}
	}
}

// Fields is the vocabulary: what can be filtered on and selected.
type Fields struct {
	Tables  []Table             `json:"tables"`
	Aliases map[string][]string `json:"aliases"` // short names in filters, and the columns each stands for
}

// Table is one table of Fields.
type Table struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Columns []Column `json:"columns"`
}

// Column is one column of Table. Type is string, int, bool, time (RFC 3339),
// duration (nanoseconds), strings or map.
type Column struct {
	Name string `json:"name"` // in JSON and in filters
	SQL  string `json:"sql"`
	Type string `json:"type"`
	Doc  string `json:"doc"`
}

func (s *Server) fields(w http.ResponseWriter, _ *http.Request) error {
	f := Fields{Aliases: query.Aliases}
	for i := range event.Tables {
		t := &event.Tables[i]
		table := Table{Name: t.Name, Kind: t.Kind.String()}
		for j := range t.Columns {
			c := &t.Columns[j]
			table.Columns = append(table.Columns, Column{c.Name, c.SQLName(), typeName(c.Type), c.Doc})
		}
		f.Tables = append(f.Tables, table)
	}
	return answer(w, f)
}

func typeName(t event.Type) string {
	return [...]string{"", "string", "int", "bool", "time", "duration", "strings", "map"}[t]
}

// answer sends v as JSON. Encoding comes first, so that an error can be told.
func answer(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaJSON)
	w.Write(append(body, '\n')) // the client may be gone
	return nil
}
