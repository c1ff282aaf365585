package event

import (
	"encoding/hex"
	"net/netip"
)

func requestInt(name string, t Type, doc string, get func(*Request) int64) Column {
	return Column{Name: name, Type: t, Doc: doc, Int: func(b *Batch, i int) int64 { return get(&b.Requests[i]) }}
}

func requestStr(name, doc string, get func(*Request) string) Column {
	return text(name, doc, func(b *Batch, i int) string { return get(&b.Requests[i]) })
}

// families are the groups of the columns that only one family has.
var families = [...]*Group{HTTP: only(HTTP), RPC: only(RPC), DB: only(DB), Messaging: only(Messaging), DNS: only(DNS)}

func only(f Family) *Group {
	return &Group{Has: func(b *Batch, row int) bool { return b.Requests[row].Family == f }}
}

// requestWord is a text that stands in this column for one family only.
func requestWord(family Family, name, doc string, get func(*Request) string) Column {
	c := requestStr(name, doc, func(r *Request) string {
		if r.Family != family {
			return ""
		}
		return get(r)
	})
	c.Group = families[family]
	return c
}

func requestAddr(name, doc string, get func(*Request) netip.Addr) Column {
	return Column{Name: name, Type: String, Doc: doc, Append: func(dst []byte, b *Batch, i int) []byte { return appendAddr(dst, get(&b.Requests[i])) }}
}

func requestID(name, doc string, get func(*Request) []byte) Column {
	return Column{Name: name, Type: String, Doc: doc, Append: func(dst []byte, b *Batch, i int) []byte { return appendID(dst, get(&b.Requests[i])) }}
}

var requestColumns = []Column{
	{Name: "time", Type: Time, Doc: "server: the request's first byte was readable; client: it was handed to the kernel", Int: func(b *Batch, i int) int64 { return b.Requests[i].Time + b.Wall }},
	requestInt("duration_ns", Duration, "until the last byte of the answer was handed to the kernel (server) or read (client)", func(r *Request) int64 { return r.DurationNS }),
	requestInt("time_to_first_byte_ns", Duration, "until the first byte of the answer", func(r *Request) int64 { return positive(r.FirstByteNS) }),
	requestInt("queue_ns", Duration, "server: how long the request lay in the socket before the process read it", func(r *Request) int64 { return serverOnly(r, r.QueueNS) }),
	requestStr("role", "server or client: the end this record was seen at", func(r *Request) string { return r.Role.String() }),
	requestStr("protocol", "http, grpc, websocket, dns, postgresql, mysql, redis, kafka, mongodb, ...", func(r *Request) string { return r.Protocol }),
	requestStr("network.protocol.version", "version of the protocol: 1.1, 2", func(r *Request) string { return r.Version }),
	requestStr("network.transport", "tcp, udp or unix", func(r *Request) string { return requestTransport(r) }),
	requestStr("network.type", "ipv4 or ipv6", func(r *Request) string { return networkType(r.Source.Addr()) }),
	requestAddr("source.address", "the client's address", func(r *Request) netip.Addr { return r.Source.Addr() }),
	requestInt("source.port", Int, "the client's port", func(r *Request) int64 { return port(r.Source) }),
	requestAddr("destination.address", "the server's address", func(r *Request) netip.Addr { return r.Destination.Addr() }),
	requestInt("destination.port", Int, "the server's port", func(r *Request) int64 { return port(r.Destination) }),
	requestInt("flow.id", Int, "socket cookie: the flow that carried it", func(r *Request) int64 { return int64(r.Conn) }),
	requestInt("process.pid", Int, "process at this end", func(r *Request) int64 { return positive(int64(r.PID)) }),
	requestInt("thread.id", Int, "thread that handled it", func(r *Request) int64 { return positive(int64(r.TID)) }),
	requestInt("go.goroutine.id", Int, "goroutine that handled it", func(r *Request) int64 { return positive(int64(r.Goroutine)) }),
	requestStr("process.exec_id", "its execution", func(r *Request) string { return r.who().ExecID }),
	requestStr("process.executable.path", "its executable", func(r *Request) string { return r.who().Executable }),
	requestStr("process.executable.name", "last element of the path", func(r *Request) string { return r.who().Name }),
	requestStr("container.id", "container at this end", func(r *Request) string { return r.who().container().ID }),
	requestStr("container.name", "its name", func(r *Request) string { return r.who().container().Name }),
	requestStr("service.name", "service at this end", func(r *Request) string { return r.who().Service }),
	requestInt("peer.pid", Int, "process at the other end, if it is on this host", func(r *Request) int64 { return positive(int64(r.PeerPID)) }),
	requestStr("peer.service.name", "service at the other end, if it is on this host", func(r *Request) string { return r.peer().Service }),
	requestStr("peer.container.name", "container at the other end, if it is on this host", func(r *Request) string { return r.peer().container().Name }),
	requestID("trace.trace_id", "trace it belongs to", func(r *Request) []byte { return r.Trace.ID[:] }),
	requestID("trace.span_id", "its own span", func(r *Request) []byte { return r.Trace.Span[:] }),
	requestID("trace.parent_span_id", "span that caused it", func(r *Request) []byte { return r.Trace.Parent[:] }),
	requestInt("trace.inferred", Bool, "the parent was concluded from what a thread did, not told by a header or a connection", func(r *Request) int64 { return boolean(r.Trace.Inferred) }),
	requestWord(HTTP, "http.request.method", "method", func(r *Request) string { return r.Operation }),
	requestWord(HTTP, "http.route", "path with its variable parts folded", func(r *Request) string { return r.Route }),
	requestInt("http.response.status_code", Int, "status code", func(r *Request) int64 { return httpStatus(r) }),
	requestWord(HTTP, "url.path", "path as it was asked for", func(r *Request) string { return r.Text }),
	requestWord(HTTP, "url.query", "query, secret values redacted", func(r *Request) string { return r.Query }),
	requestWord(RPC, "rpc.system.name", "grpc, ...", func(r *Request) string { return r.System }),
	requestWord(RPC, "rpc.method", "package.Service/Method", func(r *Request) string { return r.Operation }),
	requestWord(RPC, "rpc.response.status_code", "OK, NOT_FOUND, ...", func(r *Request) string { return r.Outcome }),
	requestWord(DB, "db.system.name", "postgresql, mysql, redis, mongodb, ...", func(r *Request) string { return r.System }),
	requestWord(DB, "db.operation.name", "SELECT, GET, find, ...", func(r *Request) string { return r.Operation }),
	requestWord(DB, "db.collection.name", "table or collection", func(r *Request) string { return r.Target }),
	requestWord(DB, "db.namespace", "database", func(r *Request) string { return r.Namespace }),
	requestWord(DB, "db.query.summary", "operations and tables, in the order they appear", func(r *Request) string { return r.Summary }),
	requestWord(DB, "db.query.text", "query with its literals masked", func(r *Request) string { return r.Text }),
	requestWord(DB, "db.response.status_code", "the database's own code of an error", func(r *Request) string { return r.Outcome }),
	requestWord(Messaging, "messaging.system", "kafka, ...", func(r *Request) string { return r.System }),
	requestWord(Messaging, "messaging.operation.name", "produce, fetch, ...", func(r *Request) string { return r.Operation }),
	requestWord(Messaging, "messaging.destination.name", "topic or queue", func(r *Request) string { return r.Target }),
	requestWord(DNS, "dns.question.name", "name that was asked for", func(r *Request) string { return r.Target }),
	requestWord(DNS, "dns.question.type", "A, AAAA, SRV, ...", func(r *Request) string { return r.Operation }),
	requestWord(DNS, "dns.response.code", "NOERROR, NXDOMAIN, ...", func(r *Request) string { return r.Outcome }),
	requestStr("error.type", "why it failed: a status code, a database's code, timeout, ...; absent if it went well", func(r *Request) string { return r.Error }),
	requestInt("size.request", Int, "bytes of the request, head and body", func(r *Request) int64 { return r.RequestBytes }),
	requestInt("size.response", Int, "bytes of the answer, head and body", func(r *Request) int64 { return r.ResponseBytes }),
	requestInt("tls", Bool, "it travelled encrypted", func(r *Request) int64 { return boolean(r.TLS) }),
	requestInt("complete", Bool, "seen from its first to its last byte", func(r *Request) int64 { return boolean(r.Complete) }),
	{Name: "attributes", Type: Map, Doc: "everything else", Append: func(dst []byte, b *Batch, i int) []byte { return appendAttrs(dst, b.Requests[i].Attrs) }},
}

func (r *Request) who() *Who  { return r.Who.orNone() }
func (r *Request) peer() *Who { return r.Peer.orNone() }

func requestTransport(r *Request) string {
	if r.Transport == 0 {
		return "unix"
	}
	return r.Transport.String()
}

func serverOnly(r *Request, n int64) int64 {
	if r.Role != Server {
		return Null
	}
	return n
}

func httpStatus(r *Request) int64 {
	if r.Family != HTTP {
		return Null
	}
	return positive(int64(r.Status))
}

// appendID writes an id in hexadecimal; all zero is no id.
func appendID(dst, id []byte) []byte {
	for _, c := range id {
		if c != 0 {
			return hex.AppendEncode(dst, id)
		}
	}
	return dst
}
