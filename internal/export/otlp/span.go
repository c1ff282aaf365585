package otlp

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"ghostlight/internal/aggregate"
	"ghostlight/internal/event"
)

// Span kinds (opentelemetry/proto/trace/v1/trace.proto).
const (
	kindServer   = 2
	kindClient   = 3
	kindProducer = 4
	kindConsumer = 5
)

// maxText bounds an attribute: a query text can be long.
const maxText = 4096

// bounded is a text as a backend takes it: UTF-8, and not too long.
func bounded(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// appendSpan writes a request as a Span.
func appendSpan(m message, r *event.Request, wall int64) message {
	id, span := r.Trace.ID, r.Trace.Span
	if id == [16]byte{} { // nothing is known of its trace: it is one of its own
		binary.NativeEndian.PutUint64(id[:], rand.Uint64()|1)
	}
	if span == [8]byte{} {
		binary.NativeEndian.PutUint64(span[:], rand.Uint64()|1)
	}
	m.bytes(1, id[:])
	m.bytes(2, span[:])
	if r.Trace.Parent != [8]byte{} {
		m.bytes(4, r.Trace.Parent[:])
	}
	m = spanName(m, r)
	m.varint(6, spanKind(r))
	m.fixed64(7, uint64(r.Time+wall))
	m.fixed64(8, uint64(r.Time+wall+max(r.DurationNS, 0)))
	m = requestAttrs(m, r)
	if r.Error != "" {
		at := m.open(15)
		m.varint(3, 2) // STATUS_CODE_ERROR; error.type says which
		m.close(at)
	}
	m.fixed32(16, 1) // sampled: all are
	return m
}

func spanKind(r *event.Request) uint64 {
	if r.Role == event.Server {
		return kindServer
	}
	if r.Family != event.Messaging {
		return kindClient
	}
	switch r.Operation {
	case "produce", "publish", "send":
		return kindProducer
	case "fetch", "receive", "consume", "process", "poll":
		return kindConsumer
	}
	return kindClient
}

// spanName is what the conventions call such a span.
func spanName(m message, r *event.Request) message {
	first, second := r.Operation, ""
	switch r.Family {
	case event.HTTP:
		if second = r.Route; first == "_OTHER" || first == "" {
			first = "HTTP"
		}
	case event.DB:
		if second = r.Target; r.Summary != "" {
			first, second = r.Summary, ""
		} else if first == "" {
			first = r.System
		}
	case event.Messaging:
		second = r.Target
	case event.DNS:
		first, second = "DNS", r.Operation
	}
	if first == "" {
		first = r.Protocol
	}
	first, second = bounded(first), bounded(second)
	if second == "" {
		m.text(5, first)
		return m
	}
	m.tag(5, wireBytes)
	m = binary.AppendUvarint(m, uint64(len(first)+1+len(second)))
	m = append(m, first...)
	m = append(m, ' ')
	return append(m, second...)
}

// attributes is the field of a Span that holds them.
const attributes = 9

func requestAttrs(m message, r *event.Request) message {
	word := func(key, value string) { m.attr(attributes, key, bounded(value)) }
	switch r.Family {
	case event.HTTP:
		m = httpAttrs(m, r)
	case event.RPC:
		word("rpc.system.name", r.System)
		word("rpc.method", r.Operation)
		word("rpc.response.status_code", r.Outcome)
	case event.DB:
		word("db.system.name", r.System)
		word("db.operation.name", r.Operation)
		word("db.collection.name", r.Target)
		word("db.namespace", r.Namespace)
		word("db.query.summary", r.Summary)
		word("db.query.text", r.Text)
		word("db.response.status_code", r.Outcome)
	case event.Messaging:
		word("messaging.system", r.System)
		word("messaging.operation.name", r.Operation)
		word("messaging.destination.name", r.Target)
	case event.DNS:
		word("dns.question.name", r.Target)
		word("dns.question.type", r.Operation)
		word("dns.response.code", r.Outcome)
	}
	word("error.type", r.Error)
	m = networkAttrs(m, r)
	return ownAttrs(m, r)
}

func httpAttrs(m message, r *event.Request) message {
	word := func(key, value string) { m.attr(attributes, key, bounded(value)) }
	word("http.request.method", r.Operation)
	word("url.scheme", aggregate.Scheme(r.TLS))
	if r.Role == event.Server {
		word("http.route", r.Route)
		word("url.path", r.Text)
		word("url.query", r.Query)
	} else {
		word("url.template", r.Route)
		m = fullURL(m, r)
	}
	if r.Status > 0 {
		m.attrInt(attributes, "http.response.status_code", int64(r.Status))
	}
	m.attrInt(attributes, "http.request.size", r.RequestBytes)
	m.attrInt(attributes, "http.response.size", r.ResponseBytes)
	return m
}

// fullURL is what a client asked for, as far as it was seen.
func fullURL(m message, r *event.Request) message {
	host := r.Attr("server.address")
	if r.Text == "" || host == "" && !r.Destination.IsValid() {
		return m
	}
	kv := m.open(attributes)
	m.text(1, "url.full")
	value := m.open(2)
	at := m.open(1)
	m = append(append(m, aggregate.Scheme(r.TLS)...), "://"...)
	m = appendHost(m, host, r)
	m = append(m, bounded(r.Text)...)
	if r.Query != "" {
		m = append(append(m, '?'), bounded(r.Query)...)
	}
	m.close(at)
	m.close(value)
	m.close(kv)
	return m
}

// appendHost writes the name under which a client knows the server, else its
// address, and the port unless the scheme says it.
func appendHost(m message, name string, r *event.Request) message {
	addr := r.Destination.Addr().Unmap()
	isV6 := name == "" && addr.Is6() || strings.Contains(name, ":")
	if isV6 {
		m = append(m, '[')
	}
	if name != "" {
		m = append(m, bounded(name)...)
	} else {
		m = addr.AppendTo(m)
	}
	if isV6 {
		m = append(m, ']')
	}
	if port := serverPort(r); port != 0 && port != map[bool]int64{false: 80, true: 443}[r.TLS] {
		m = strconv.AppendInt(append(m, ':'), port, 10)
	}
	return m
}

func networkAttrs(m message, r *event.Request) message {
	m.attr(attributes, "network.protocol.name", bounded(r.Protocol))
	m.attr(attributes, "network.protocol.version", bounded(r.Version))
	if name := r.Attr("server.address"); name != "" {
		m.attr(attributes, "server.address", bounded(name))
	} else {
		m = addrAttr(m, "server.address", r.Destination)
	}
	if port := serverPort(r); port > 0 {
		m.attrInt(attributes, "server.port", port)
	}
	if r.Transport == 0 {
		m.attr(attributes, "network.transport", "unix")
		return m
	}
	m.attr(attributes, "network.transport", r.Transport.String())
	local, peer := r.Source, r.Destination
	if r.Role == event.Server {
		local, peer = peer, local
		m = addrAttr(m, "client.address", peer)
		m = portAttr(m, "client.port", peer)
	}
	m = addrAttr(m, "network.local.address", local)
	m = portAttr(m, "network.local.port", local)
	m = addrAttr(m, "network.peer.address", peer)
	return portAttr(m, "network.peer.port", peer)
}

// serverPort is the one that the client asked for, behind
// a proxy it may be another than the socket's.
func serverPort(r *event.Request) int64 {
	if n, ok := whole(r.Attr("server.port")); ok && n < 1<<16 {
		return n
	}
	return int64(r.Destination.Port())
}

// whole reads a number of few digits.
func whole(s string) (n int64, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || i >= 18 {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, s != ""
}

func portAttr(m message, key string, a netip.AddrPort) message {
	if a.Port() > 0 {
		m.attrInt(attributes, key, int64(a.Port()))
	}
	return m
}

func addrAttr(m message, key string, a netip.AddrPort) message {
	if !a.Addr().IsValid() {
		return m
	}
	kv := m.open(attributes)
	m.text(1, key)
	value := m.open(2)
	at := m.open(1)
	m = a.Addr().Unmap().AppendTo(m)
	m.close(at)
	m.close(value)
	m.close(kv)
	return m
}

// ownAttrs is what no convention knows, and what the protocol told beyond the
// words of its family.
func ownAttrs(m message, r *event.Request) message {
	if r.Peer != nil {
		m.attr(attributes, "service.peer.name", bounded(r.Peer.Service))
	}
	if r.TID > 0 {
		m.attrInt(attributes, "thread.id", int64(r.TID))
	}
	if r.Role == event.Server && r.QueueNS > 0 {
		m.attrInt(attributes, "ghostlight.queue_ns", r.QueueNS)
	}
	if r.Trace.Inferred {
		m.attrBool(attributes, "ghostlight.trace.inferred", true)
	}
	if !r.Complete {
		m.attrBool(attributes, "ghostlight.complete", false)
	}
	for _, a := range r.Attrs {
		m = toldAttr(m, a)
	}
	return m
}

// numbers are attributes that the conventions have as integers.
var numbers = map[string]bool{
	"db.operation.batch.size": true, "db.response.returned_rows": true, "messaging.batch.message_count": true,
}

// toldAttr writes what a protocol told, unless it has its place already.
func toldAttr(m message, a event.Attr) message {
	if a.Key == "server.address" || a.Key == "server.port" {
		return m
	}
	if n, ok := whole(a.Value); ok && numbers[a.Key] {
		m.attrInt(attributes, a.Key, n)
		return m
	}
	m.attr(attributes, a.Key, bounded(a.Value))
	return m
}
