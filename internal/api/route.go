package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"ghostlight/internal/config"
)

// route is one entry of the API: what the mux, the checks of parameters and the
// OpenAPI description are made of.
type route struct {
	method, path string
	summary      string
	params       []param
	body         any            // a value of the type of the request's body; nil: none
	answer       map[string]any // a value by media type, for the description
	streams      bool           // lives as long as the client wants
	serve        func(*Server, http.ResponseWriter, *http.Request) error
}

// param is one query parameter.
type param struct {
	name, kind, doc string // kind is a type of JSON Schema
}

var (
	since   = param{"since", "string", "begin: a span back from now (15m, 1h, 2d) or a time (RFC 3339)"}
	until   = param{"until", "string", "end, as since"}
	last    = param{"last", "integer", "keep the newest N rows (default 1000); 0 keeps all, and with follow, unless since is given, none"}
	filter  = param{"filter", "string", "terms that must all hold: field:value, -field:value, field>=10; blanks separate"}
	follow  = param{"follow", "boolean", "go on with server-sent events as things happen"}
	at      = param{"at", "string", "the moment of the tree: a span back from now or a time (RFC 3339); default now"}
	events  = param{"events", "boolean", "the records themselves instead of the tree"}
	sqlText = param{"sql", "string", "one SELECT statement"}
	sortOf  = param{"sort", "string", "newest (default), slowest or errors, which are those that failed, newest first"}
	traced  = param{"last", "integer", "at most N traces (default 50, at most 1000; 0 is 1000)"}
	columns = param{"columns", "integer", "steps of time (default 120, at most 1000)"}
	limitOf = param{"limit", "integer", "rows at most"}
)

const (
	mediaJSON   = "application/json"
	mediaNDJSON = "application/x-ndjson"
	mediaSSE    = "text/event-stream"
	mediaText   = "text/plain"
	mediaHTML   = "text/html"
)

// routes is the whole API.
var routes = []route{
	{method: "GET", path: "/api/v1/flows", summary: "Connections and datagram flows, oldest first.",
		params: []param{since, until, last, filter, follow}, streams: true, serve: (*Server).flows,
		answer: map[string]any{mediaJSON: rowsOf("flows"), mediaNDJSON: rowOf("flows"), mediaSSE: rowOf("flows")}},
	{method: "GET", path: "/api/v1/requests", summary: "Requests of every protocol, as each end on this host saw them, oldest first.",
		params: []param{since, until, last, filter, follow}, streams: true, serve: (*Server).requests,
		answer: map[string]any{mediaJSON: rowsOf("requests"), mediaNDJSON: rowOf("requests"), mediaSSE: rowOf("requests")}},
	{method: "GET", path: "/api/v1/traces", summary: "Traces of which a request matches.",
		params: []param{since, until, traced, filter, sortOf}, serve: (*Server).traces,
		answer: map[string]any{mediaJSON: Traces{}}},
	{method: "GET", path: "/api/v1/trace/{id}", summary: "One trace: its spans as a tree, and its critical path.",
		params: []param{since, until}, serve: (*Server).trace,
		answer: map[string]any{mediaJSON: TraceDetail{}}},
	{method: "GET", path: "/api/v1/services", summary: "Rate, errors and durations of every service and its routes, the worst first.",
		params: []param{since, until, filter}, serve: (*Server).services,
		answer: map[string]any{mediaJSON: Services{}}},
	{method: "GET", path: "/api/v1/services/{name}", summary: "One service: all of its routes, and how it did over time.",
		params: []param{since, until, filter}, serve: (*Server).service,
		answer: map[string]any{mediaJSON: ServiceDetail{}}},
	{method: "GET", path: "/api/v1/heatmap", summary: "How long requests took over time, counted exactly.",
		params: []param{since, until, filter, columns}, serve: (*Server).heatmap,
		answer: map[string]any{mediaJSON: Heatmap{}}},
	{method: "GET", path: "/api/v1/overview", summary: "What changed, how the services do, and the hosts.",
		params: []param{since, until, filter}, serve: (*Server).overview,
		answer: map[string]any{mediaJSON: Overview{}}},
	{method: "GET", path: "/api/v1/processes", summary: "The processes at a moment, or what happened to processes.",
		params: []param{at, events, since, until, last, filter, follow}, streams: true, serve: (*Server).processes,
		answer: map[string]any{mediaJSON: rowsOf("processes"), mediaNDJSON: rowOf("processes"), mediaSSE: rowOf("processes")}},
	{method: "GET", path: "/api/v1/map", summary: "Services and who talks to whom.",
		params: []param{since, until, filter}, serve: (*Server).serviceMap,
		answer: map[string]any{mediaJSON: Map{}}},
	{method: "GET", path: "/api/v1/query", summary: "The answer to a SQL statement.",
		params: []param{sqlText, limitOf}, serve: (*Server).query,
		answer: map[string]any{mediaJSON: Answer{}, mediaNDJSON: map[string]any{}}},
	{method: "POST", path: "/api/v1/query", summary: "The answer to a SQL statement.",
		body: Question{}, serve: (*Server).query,
		answer: map[string]any{mediaJSON: Answer{}, mediaNDJSON: map[string]any{}}},
	{method: "GET", path: "/api/v1/status", summary: "How the agent fares: losses, cost, budget, store.",
		params: []param{follow}, streams: true, serve: (*Server).status,
		answer: map[string]any{mediaJSON: Status{}, mediaSSE: Status{}}},
	{method: "GET", path: "/api/v1/doctor", summary: "What this host can and cannot do, and why.",
		serve: (*Server).doctor, answer: map[string]any{mediaJSON: Doctor{}}},
	{method: "GET", path: "/api/v1/fields", summary: "The columns of every table, and the short names of filters.",
		serve: (*Server).fields, answer: map[string]any{mediaJSON: Fields{}}},
	{method: "GET", path: "/api/v1/openapi.json", summary: "This description.",
		serve: (*Server).openAPI, answer: map[string]any{mediaJSON: map[string]any{}}},
	{method: "GET", path: "/healthz", summary: "Whether the agent answers; needs no token.",
		serve: (*Server).health, answer: map[string]any{mediaText: ""}},
	{method: "GET", path: "/metrics", summary: "Metrics in the text format of Prometheus.",
		serve: (*Server).metrics, answer: map[string]any{mediaText: ""}},
}

// mount makes the mux: the routes, and the web page under everything else.
func (s *Server) mount() {
	s.mux = http.NewServeMux()
	methods := map[string][]string{}
	for _, rt := range routes {
		s.mux.Handle(rt.method+" "+rt.path, s.handler(rt))
		methods[rt.path] = append(methods[rt.path], rt.method)
	}
	for path, allowed := range methods {
		s.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			s.refuse(w, r, wrong(http.StatusMethodNotAllowed, "", "%s takes %s", path, strings.Join(allowed, " and ")))
		})
	}
	s.mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, wrong(http.StatusNotFound, "/api/v1/openapi.json has them all", "there is no %.200s", r.URL.Path))
	})
	if s.UI != nil {
		s.mux.Handle("/", s.UI)
	}
}

// handler puts around a route what all have in common: bounds, and errors told
// in one form.
func (s *Server) handler(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if r.ContentLength != 0 {
			control.SetReadDeadline(time.Now().Add(maxStall)) // not every transport can
		}
		if err := rt.check(r); err != nil {
			s.refuse(w, r, err)
			return
		}
		if !rt.streams {
			ctx, cancel := context.WithTimeout(r.Context(), maxAnswer)
			defer cancel()
			r = r.WithContext(ctx)
		}
		out := &writer{ResponseWriter: w, control: control}
		if err := rt.serve(s, out, r); err != nil {
			out.fail(s, r, err)
		}
	})
}

// check refuses parameters that the route has not: a typo must not be an
// answer to another question.
func (rt route) check(r *http.Request) error {
	values, err := parseQuery(r)
	if err != nil {
		return err
	}
	known := []string{}
	for _, p := range rt.params {
		known = append(known, p.name)
	}
	for name, given := range values {
		if !slices.Contains(known, name) {
			hint := "it takes: " + strings.Join(known, ", ")
			if near := config.Nearest(name, known); near != "" {
				hint = "did you mean " + near + "?"
			} else if len(known) == 0 {
				hint = "it takes none"
			}
			return wrong(http.StatusBadRequest, hint, "%s has no parameter %.80q", rt.path, name)
		}
		if len(given) > 1 {
			return wrong(http.StatusBadRequest, "", "the parameter %s is given twice", name)
		}
	}
	return nil
}

// writer knows whether an answer has begun, and drops clients that do not take
// it.
type writer struct {
	http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (w *writer) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	w.begun = true
	w.control.SetWriteDeadline(time.Now().Add(maxStall)) // not every transport can
	return w.ResponseWriter.Write(b)
}

// Flush sends what was written.
func (w *writer) Flush() error {
	w.control.SetWriteDeadline(time.Now().Add(maxStall))
	return w.control.Flush()
}

// Unwrap lets http.ResponseController find what is below.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// fail tells the error if it still can. An answer that had begun is cut off, so
// that no client takes a part for the whole.
func (w *writer) fail(s *Server, r *http.Request, err error) {
	if !w.begun {
		s.refuse(w, r, err)
		return
	}
	if r.Context().Err() == nil {
		s.Log.Warn("an answer was cut off", "path", r.URL.Path, "error", err)
	}
	panic(http.ErrAbortHandler)
}
