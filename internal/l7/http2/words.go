package http2

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// methodOf returns a method as the semantic conventions name it.
func methodOf(m []byte) string {
	switch string(m) {
	case "":
		return ""
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "HEAD":
		return "HEAD"
	case "PUT":
		return "PUT"
	case "DELETE":
		return "DELETE"
	case "CONNECT":
		return "CONNECT"
	case "OPTIONS":
		return "OPTIONS"
	case "TRACE":
		return "TRACE"
	case "PATCH":
		return "PATCH"
	case "QUERY":
		return "QUERY"
	}
	return "_OTHER"
}

// ask writes the request's words into a call.
func ask(c *l7.Call, f *fields) {
	c.Protocol, c.Version, c.Family = "http", "2", event.HTTP
	c.Operation = methodOf(f.value[method])
	if c.Operation == "_OTHER" {
		c.Add("http.request.method_original", c.Keep(f.value[method]))
	}
	where, query, _ := bytes.Cut(f.value[path], []byte("?"))
	c.Text, c.Query = c.Keep(where), c.Keep(query)
	askWhom(c, f.value[authority])
	if agent := f.value[userAgent]; len(agent) > 0 {
		c.Add("user_agent.original", c.Keep(agent))
	}
	if isGRPC(f.value[contentType]) {
		becomeRPC(c)
	}
	remote(&c.Remote, f)
}

// askWhom adds the server as the client named it, without a user's name and
// password.
func askWhom(c *l7.Call, whom []byte) {
	whom = whom[bytes.LastIndexByte(whom, '@')+1:]
	host, port := whom, []byte(nil)
	if i := bytes.LastIndexByte(whom, ':'); i > bytes.LastIndexByte(whom, ']') {
		host, port = whom[:i], whom[i+1:]
	}
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	if len(host) > 0 {
		c.Add("server.address", c.Keep(host))
	}
	if len(port) > 0 {
		c.Add("server.port", c.Keep(port))
	}
}

func isGRPC(contentType []byte) bool {
	return bytes.HasPrefix(contentType, []byte("application/grpc"))
}

// becomeRPC says that the call is a gRPC call. Its path is the method's name.
func becomeRPC(c *l7.Call) {
	c.Protocol, c.Version, c.Family, c.System = "grpc", "", event.RPC, "grpc"
	c.Operation, c.Text, c.Query = strings.TrimPrefix(c.Text, "/"), "", ""
}

// resetNames are the codes of RST_STREAM and GOAWAY (RFC 9113, 7) as error.type.
var resetNames = [...]string{
	"", "protocol_error", "internal_error", "flow_control_error", "settings_timeout", "stream_closed", "frame_size_error",
	"refused_stream", "cancelled", "compression_error", "connect_error", "enhance_your_calm", "inadequate_security", "http_1_1_required",
}

const (
	noError       = 0
	refusedStream = 7
	cancelled     = 8
)

func resetName(code uint32) string {
	if int(code) < len(resetNames) {
		return resetNames[code]
	}
	return "unknown_error"
}

// The statuses of gRPC that are needed by number.
const (
	rpcOK               = 0
	rpcCancelled        = 1
	rpcUnknown          = 2
	rpcDeadlineExceeded = 4
	rpcPermissionDenied = 7
	rpcExhausted        = 8
	rpcUnimplemented    = 12
	rpcInternal         = 13
	rpcUnavailable      = 14
	rpcUnauthenticated  = 16
	rpcUntold           = -1
)

var rpcNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
	"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// isServersFault are the statuses that are errors of the server too (semantic
// conventions for gRPC); to the client all but OK are.
var isServersFault = [len(rpcNames)]bool{rpcUnknown: true, rpcDeadlineExceeded: true, rpcUnimplemented: true, rpcInternal: true, rpcUnavailable: true, 15: true}

// rpcStatus reads grpc-status. A number that has no name is UNKNOWN.
func rpcStatus(text []byte) int8 {
	n := number(text)
	switch {
	case n < 0:
		return rpcUntold
	case n >= int64(len(rpcNames)):
		return rpcUnknown
	}
	return int8(n)
}

// rpcStatusOfHTTP is what a client makes of an answer that is no gRPC.
func rpcStatusOfHTTP(status int32) int8 {
	switch status {
	case 0, 200:
		return rpcUntold
	case 400:
		return rpcInternal
	case 401:
		return rpcUnauthenticated
	case 403:
		return rpcPermissionDenied
	case 404:
		return rpcUnimplemented
	case 429, 502, 503, 504:
		return rpcUnavailable
	}
	return rpcUnknown
}

// rpcStatusOfReset is what the end of a stream without a status means.
func rpcStatusOfReset(code uint32) int8 {
	switch code {
	case refusedStream:
		return rpcUnavailable
	case cancelled:
		return rpcCancelled
	case 11: // ENHANCE_YOUR_CALM
		return rpcExhausted
	case 12: // INADEQUATE_SECURITY
		return rpcPermissionDenied
	}
	return rpcInternal
}

// number reads a decimal number; -1 if there is none.
func number(text []byte) int64 {
	if len(text) == 0 || len(text) > 18 {
		return -1
	}
	n := int64(0)
	for _, c := range text {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// timeoutOf reads grpc-timeout: up to eight digits and a unit; 0 if there is
// none.
func timeoutOf(text []byte) time.Duration {
	if len(text) < 2 || len(text) > 9 {
		return 0
	}
	n := max(number(text[:len(text)-1]), 0)
	switch text[len(text)-1] {
	case 'H':
		return time.Duration(min(n, 1e6)) * time.Hour
	case 'M':
		return time.Duration(n) * time.Minute
	case 'S':
		return time.Duration(n) * time.Second
	case 'm':
		return time.Duration(n) * time.Millisecond
	case 'u':
		return time.Duration(n) * time.Microsecond
	case 'n':
		return time.Duration(n)
	}
	return 0
}

// answer writes what became of a stream's call into it.
func answer(c *l7.Call, s *stream) {
	if c.Family == event.RPC {
		answerRPC(c, s)
		return
	}
	c.Status = s.status
	if s.wasReset && !s.done[l7.Answers] {
		c.Error = resetName(s.code)
		return
	}
	if s.status >= 500 || s.status >= 400 && c.Role == event.Client {
		var digits [4]byte
		c.Error = c.Keep(strconv.AppendInt(digits[:0], int64(s.status), 10))
	}
}

func answerRPC(c *l7.Call, s *stream) {
	status := s.rpcStatus
	if status == rpcUntold {
		status = rpcStatusOfHTTP(s.status)
	}
	if status == rpcUntold && s.wasReset && !s.done[l7.Answers] && !s.holed {
		status = rpcStatusOfReset(s.code)
		if status == rpcCancelled && s.timeout > 0 && s.seen-c.Time >= int64(s.timeout) {
			status = rpcDeadlineExceeded // the client gave up when its time was over
		}
	}
	if status != rpcUntold {
		c.Outcome = rpcNames[status]
		if status != rpcOK && (c.Role == event.Client || isServersFault[status]) {
			c.Error = c.Outcome
		}
	}
	countMessages(c, s)
}

// countMessages adds how many messages a streaming call had, as this end sees
// it; of a way whose boundaries were not all seen it says nothing.
func countMessages(c *l7.Call, s *stream) {
	sent, received := &s.messages[l7.Asks], &s.messages[l7.Answers]
	if sent.count < 2 && received.count < 2 {
		return
	}
	if c.Role == event.Server {
		sent, received = received, sent
	}
	addCount(c, "rpc.grpc.messages.sent", sent)
	addCount(c, "rpc.grpc.messages.received", received)
}

func addCount(c *l7.Call, key string, m *messages) {
	if m.lost {
		return
	}
	var digits [20]byte
	c.Add(key, c.Keep(strconv.AppendInt(digits[:0], int64(m.count), 10)))
}
