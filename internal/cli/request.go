package cli

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// requestRecord is a row of requests as the API sends it.
type requestRecord struct {
	Time        time.Time
	DurationNS  int64 `json:"duration_ns"`
	FirstByteNS int64 `json:"time_to_first_byte_ns"`
	QueueNS     int64 `json:"queue_ns"`
	Role        string
	Protocol    string
	Network     struct {
		Transport string
		Protocol  struct{ Version string }
	}
	Source, Destination struct {
		Address string
		Port    *int
	}
	Process   processPart
	Container struct{ ID, Name string }
	Service   struct{ Name string }
	Peer      struct {
		PID       int
		Service   struct{ Name string }
		Container struct{ Name string }
	}
	Trace struct {
		TraceID  string `json:"trace_id"`
		SpanID   string `json:"span_id"`
		ParentID string `json:"parent_span_id"`
		Inferred bool
	}
	HTTP struct {
		Request  struct{ Method string }
		Response struct {
			Status int `json:"status_code"`
		}
		Route string
	}
	URL struct{ Path, Query string }
	RPC struct {
		Method   string
		Response struct {
			Status string `json:"status_code"`
		}
	}
	DB struct {
		Operation, Collection struct{ Name string }
		Namespace             string
		Query                 struct{ Summary, Text string }
		Response              struct {
			Status string `json:"status_code"`
		}
	}
	Messaging struct{ Operation, Destination struct{ Name string } }
	DNS       struct {
		Question struct{ Name, Type string }
		Response struct{ Code string }
	}
	Error      struct{ Type string }
	Size       struct{ Request, Response int64 }
	TLS        bool
	Complete   *bool
	Attributes map[string]string
}

// duration is how long it took.
func (q *requestRecord) duration() time.Duration { return time.Duration(q.DurationNS) }

// own names the end the record belongs to.
func (q *requestRecord) own() string {
	at := q.Source
	if q.Role == "server" {
		at = q.Destination
	}
	return firstOf(q.Service.Name, q.Process.name(), at.Address, "?")
}

// other names the other end: a service of this host, the name the client asked
// for, or an address. A client's port tells nobody anything.
func (q *requestRecord) other() string {
	if q.Role == "server" {
		return firstOf(q.Peer.Service.Name, q.Peer.Container.Name, q.Source.Address, "?")
	}
	address := q.Destination.Address
	if q.Destination.Port != nil && *q.Destination.Port > 0 {
		address = net.JoinHostPort(address, strconv.Itoa(*q.Destination.Port))
	}
	return firstOf(q.Peer.Service.Name, q.Peer.Container.Name, q.Attributes["server.address"], address, "?")
}

// arrow points from the client to the server.
func (q *requestRecord) arrow() string {
	if q.Role == "server" {
		return "<-"
	}
	return "->"
}

// firstOf returns the first text that is not empty, harmless to a terminal.
func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" && t != "." { // the base of an empty path
			return clean(t)
		}
	}
	return ""
}

// what says what was asked for, as precisely as it is known.
func (q *requestRecord) what() string {
	switch {
	case q.HTTP.Request.Method != "" || q.URL.Path != "":
		path := q.URL.Path
		if path == "" {
			path = q.HTTP.Route
		}
		if q.URL.Query != "" {
			path += "?" + q.URL.Query
		}
		return joined(q.HTTP.Request.Method, path)
	case q.RPC.Method != "":
		return clean(q.RPC.Method)
	case q.DB.Query.Summary != "":
		return clean(q.DB.Query.Summary)
	case q.DB.Operation.Name != "" || q.DB.Collection.Name != "":
		return joined(q.DB.Operation.Name, q.DB.Collection.Name)
	case q.Messaging.Operation.Name != "":
		return joined(q.Messaging.Operation.Name, q.Messaging.Destination.Name)
	case q.DNS.Question.Name != "":
		return joined(q.DNS.Question.Type, q.DNS.Question.Name)
	}
	return clean(q.Protocol)
}

func joined(a, b string) string { return clean(strings.TrimSpace(a + " " + b)) }

// status is the protocol's own word for how it went.
func (q *requestRecord) status() string {
	if q.HTTP.Response.Status > 0 {
		return strconv.Itoa(q.HTTP.Response.Status)
	}
	return clean(firstOf(q.RPC.Response.Status, q.DB.Response.Status, q.DNS.Response.Code))
}

// failure marks what went wrong; colour is not the only sign.
const failure = "✗ "

// outcome tells how it went: 200, ok, or after a cross why it failed.
func (q *requestRecord) outcome() cell {
	status, reason := q.status(), clean(q.Error.Type)
	switch {
	case reason != "" && (status == "" || status == reason):
		return cell{failure + reason, red}
	case reason != "":
		return cell{failure + status + " " + reason, red}
	case q.HTTP.Response.Status >= 400:
		return cell{status, yellow}
	case status != "" && status != "OK" && status != "NOERROR":
		return cell{status, yellow}
	case status == "" && (q.HTTP.Request.Method != "" || q.URL.Path != ""):
		return cell{"no answer", yellow}
	}
	return cell{"ok", plainStyle}
}

// A wait in the socket is worth a word from this share of the duration and this
// length on.
const (
	queueShare = 20
	queueLeast = 100 * time.Microsecond
)

// remarks is what a person should notice beside the duration.
func (q *requestRecord) remarks() string {
	var all []string
	if wait := time.Duration(q.QueueNS); wait >= queueLeast && wait >= q.duration()/queueShare {
		all = append(all, "(queue "+spanText(wait)+")")
	}
	if q.Complete != nil && !*q.Complete {
		all = append(all, "(not seen whole)")
	}
	return strings.Join(all, "  ")
}

// more is the rest of what is known, for the wide view.
func (q *requestRecord) more() string {
	var b strings.Builder
	add := func(key, value string) {
		if value != "" && value != "0 ns" {
			fmt.Fprintf(&b, "  %s=%s", key, quoteBlanks(clean(value)))
		}
	}
	add("protocol", strings.TrimSuffix(q.Protocol+"/"+q.Network.Protocol.Version, "/"))
	add("tls", map[bool]string{true: "yes"}[q.TLS])
	add("route", q.HTTP.Route)
	add("query", q.DB.Query.Text)
	add("database", q.DB.Namespace)
	add("first_byte", spanText(time.Duration(q.FirstByteNS)))
	add("queue", spanText(time.Duration(q.QueueNS)))
	add("size", bytesText(q.Size.Request)+" / "+bytesText(q.Size.Response))
	add("client", end("", q.Source.Address, q.Source.Port))
	add("server", end("", q.Destination.Address, q.Destination.Port))
	if q.Process.PID > 0 {
		add("process", who(q.Process.name(), q.Process.PID))
	}
	add("container", containerName(q.Container.Name, q.Container.ID))
	add("trace", q.Trace.TraceID)
	add("span", q.Trace.SpanID)
	return strings.TrimSpace(b.String())
}
