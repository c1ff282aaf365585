package aggregate

import (
	"unicode/utf8"

	"ghostlight/internal/event"
)

// Edge is who calls whom, by service. A client elsewhere has no name.
type Edge struct {
	Client, Server string
	Protocol       string
	Type           string // connection_type of service graphs: database, messaging_system or empty
}

// Calls is what went over an edge.
type Calls struct {
	Edge
	AtServer Side
	AtClient Side
	Overflow bool // of all edges that would have been too many
}

// Side is what one end of an edge saw: nothing where it is elsewhere.
type Side struct {
	Durations Histogram
	Failed    uint64
}

// Side returns the end whose counts stand for the edge: the server's, or the
// client's where the server is elsewhere.
func (c *Calls) Side() *Side {
	if c.AtServer.Durations.Count > 0 {
		return &c.AtServer
	}
	return &c.AtClient
}

// edge counts who calls whom. s is the series of the request.
func (t *Table) edge(s *Series, r *event.Request) {
	if r.Family == event.DNS {
		return
	}
	isServer := r.Role == event.Server
	c, e := s.calls, edgeOf(r, isServer)
	if c == nil || c.Overflow || c.Edge != e {
		c = t.calls(e)
		s.calls = c
	}
	side := &c.AtClient
	if isServer {
		side = &c.AtServer
	}
	side.Durations.Add(r.DurationNS)
	if r.Error != "" {
		side.Failed++
	}
}

var connectionTypes = [event.DNS + 1]string{event.DB: "database", event.Messaging: "messaging_system"}

func edgeOf(r *event.Request, isServer bool) Edge {
	e := Edge{Client: service(r.Who), Server: service(r.Peer), Protocol: r.Protocol, Type: connectionTypes[r.Family]}
	if isServer {
		e.Client, e.Server = e.Server, e.Client
	} else if r.Peer == nil {
		e.Server = r.Attr("server.address")
	}
	return e
}

func (t *Table) calls(e Edge) *Calls {
	if c := t.edges[e]; c != nil {
		return c
	}
	if full := len(t.edges) >= t.limit; !full || !utf8.ValidString(e.Client) || !utf8.ValidString(e.Server) {
		e.Client, e.Server, e.Protocol = kept(e.Client), kept(e.Server), kept(e.Protocol)
		if c := t.edges[e]; c != nil {
			return c
		}
	}
	if len(t.edges) >= t.limit {
		if t.beyond == nil {
			t.beyond = newCalls(Edge{})
			t.beyond.Overflow = true
		}
		return t.beyond
	}
	t.edges[e] = newCalls(e)
	return t.edges[e]
}

func newCalls(e Edge) *Calls {
	return &Calls{Edge: e, AtServer: Side{Durations: newHistogram(HTTPServer)}, AtClient: Side{Durations: newHistogram(HTTPClient)}}
}

func service(w *event.Who) string {
	if w == nil {
		return ""
	}
	return w.Service
}

// Calls returns every edge as it is now, the overflow last.
func (t *Table) Calls() []Calls {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Calls, 0, len(t.edges)+1)
	for _, c := range t.edges {
		all = append(all, c.copied())
	}
	if t.beyond != nil {
		all = append(all, t.beyond.copied())
	}
	return all
}

func (c *Calls) copied() Calls {
	d := *c
	d.AtServer.Durations, d.AtClient.Durations = c.AtServer.Durations.copied(), c.AtClient.Durations.copied()
	return d
}
