package http1

import (
	"bytes"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// head is what a head says about the bytes that follow it.
type head struct {
	length  int64 // of Content-Length; -1 if there is none
	chunked bool
	coded   bool // Transfer-Encoding ends in something else than chunked
	expects bool // 100-continue
	events  bool // text/event-stream
	closes  bool // the connection ends with this answer
	upgrade string
	status  int32
	traced  bool // by a traceparent, which wins over b3
	b3      [16]byte
	span    [8]byte
}

// Longer values are cut.
const (
	keepTarget = 2048
	keepHost   = 255
	keepAgent  = 256
)

// endOfHead returns the length of the head that b begins with, 0 if its end is
// not there: an empty line. The first from bytes were searched before.
func endOfHead(b []byte, from int) int {
	at := max(from-3, 0)
	for {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0
		}
		at += i + 1
		if at < len(b) && b[at] == '\n' {
			return at + 1
		}
		if at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n' {
			return at + 2
		}
	}
}

// nextLine cuts the first line off b.
func nextLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return b, nil
	}
	line, rest = b[:i], b[i+1:]
	if i > 0 && line[i-1] == '\r' {
		line = line[:i-1]
	}
	return line, rest
}

// valueOf returns the value of a header line of the name given in lower case.
func valueOf(line []byte, name string) (value []byte, ok bool) {
	n := len(name)
	if len(line) <= n || line[n] != ':' || !is(line[:n], name) {
		return nil, false
	}
	return trim(line[n+1:]), true
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// is compares a name with one in lower case.
func is(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// lastIs reports whether the last of the values in a list is the one given.
func lastIs(list []byte, lower string) bool {
	if i := bytes.LastIndexByte(list, ','); i >= 0 {
		list = trim(list[i+1:])
	}
	return is(list, lower)
}

// parseAsk fills the call from a request's head.
func parseAsk(b []byte, c *l7.Call) head {
	h := head{length: -1}
	line, b := nextLine(b)
	parseRequestLine(line, c)
	var host, agent []byte
	for len(b) > 0 {
		line, b = nextLine(b)
		if len(line) == 0 || b == nil { // the end, or a line that was cut
			break
		}
		h.askLine(line, c, &host, &agent)
	}
	addHost(c, host)
	if len(agent) > 0 {
		c.Add("user_agent.original", c.Keep(agent[:min(len(agent), keepAgent)]))
	}
	return h
}

// askLine reads one line of a request's head. Most say nothing to us, which
// their first letter tells.
func (h *head) askLine(line []byte, c *l7.Call, host, agent *[]byte) {
	switch line[0] | 0x20 {
	case 'b':
		if v, ok := valueOf(line, "b3"); ok {
			h.parseB3(v, c)
		}
	case 'h':
		if v, ok := valueOf(line, "host"); ok {
			*host = v
		}
	case 'e':
		if v, ok := valueOf(line, "expect"); ok {
			h.expects = is(v, "100-continue")
		}
	case 'u':
		if v, ok := valueOf(line, "user-agent"); ok {
			*agent = v
		} else if v, ok := valueOf(line, "upgrade"); ok {
			h.upgrade = upgradeTo(v)
		}
	case 'x':
		if v, ok := valueOf(line, "x-b3-spanid"); ok {
			h.parseB3Span(v, c)
		} else if v, ok := valueOf(line, "x-b3-traceid"); ok {
			h.parseB3Trace(v, c)
		}
	case 'c':
		if v, ok := valueOf(line, "content-length"); ok {
			h.length = number(v)
		}
	case 't':
		if v, ok := valueOf(line, "traceparent"); ok {
			h.parseTraceparent(v, c)
		} else if v, ok := valueOf(line, "transfer-encoding"); ok {
			h.parseCoding(v)
		}
	}
}

// parseAnswer reads an answer's head.
func parseAnswer(b []byte) head {
	line, b := nextLine(b)
	h := head{length: -1, closes: line[7] == '0'}
	h.status = int32(line[9]-'0')*100 + int32(line[10]-'0')*10 + int32(line[11]-'0')
	for len(b) > 0 {
		line, b = nextLine(b)
		if len(line) == 0 || b == nil {
			break
		}
		h.answerLine(line)
	}
	return h
}

// answerLine reads one line of an answer's head.
func (h *head) answerLine(line []byte) {
	switch line[0] | 0x20 {
	case 'u':
		if v, ok := valueOf(line, "upgrade"); ok {
			h.upgrade = upgradeTo(v)
		}
	case 'c':
		if v, ok := valueOf(line, "connection"); ok {
			h.closes = is(v, "close") || h.closes && !is(v, "keep-alive")
		} else if v, ok := valueOf(line, "content-type"); ok {
			const stream = "text/event-stream"
			h.events = len(v) >= len(stream) && is(v[:len(stream)], stream)
		} else if v, ok := valueOf(line, "content-length"); ok {
			h.length = number(v)
		}
	case 't':
		if v, ok := valueOf(line, "transfer-encoding"); ok {
			h.parseCoding(v)
		}
	}
}

func (h *head) parseCoding(value []byte) {
	h.chunked = lastIs(value, "chunked")
	h.coded = !h.chunked
}

// other is a protocol we do not know.
const other = "other"

// upgradeTo returns the l7 protocol that a connection becomes.
func upgradeTo(value []byte) string {
	switch {
	case is(value, "websocket"):
		return "websocket"
	case is(value, "h2c"):
		return "http2"
	}
	return other
}

// number returns the value of a Content-Length, -1 if it makes no sense.
func number(b []byte) int64 {
	if len(b) == 0 || len(b) > 18 {
		return -1
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// parseRequestLine fills the call from "GET /path?query HTTP/1.1", of which the
// end may be missing.
func parseRequestLine(line []byte, c *l7.Call) {
	c.Family, c.Protocol, c.Version = event.HTTP, Proto.Name, "1.1"
	n := methodLen(line)
	method := line[:n]
	target := line[min(n+1, len(line)):]
	if i := bytes.IndexByte(target, ' '); i >= 0 {
		if v := target[i:]; v[len(v)-1] == '0' {
			c.Version = "1.0"
		}
		target = target[:i]
	}
	c.Operation = known(method)
	if c.Operation == "" {
		c.Operation = "_OTHER"
		c.Add("http.request.method_original", c.Keep(method))
	}
	parseTarget(target, c)
}

// parseTarget knows the four forms of RFC 9112, section 3.2.
func parseTarget(target []byte, c *l7.Call) {
	if c.Operation == "CONNECT" {
		addHost(c, target)
		return
	}
	if i := bytes.Index(target, []byte("://")); i > 0 && target[0] != '/' {
		target = target[i+3:]
		end := bytes.IndexAny(target, "/?")
		if end < 0 {
			end = len(target)
		}
		addHost(c, target[:end])
		target = target[end:]
	}
	path, query, _ := bytes.Cut(target, []byte{'?'})
	c.Query = c.Keep(query[:min(len(query), keepTarget)])
	if len(path) == 0 {
		c.Text = "/"
		return
	}
	c.Text = c.Keep(path[:min(len(path), keepTarget)])
}

// addHost adds server.address and server.port, once: a target's authority wins
// over the Host header. Who asks is left out, there may be a password.
func addHost(c *l7.Call, authority []byte) {
	if i := bytes.LastIndexByte(authority, '@'); i >= 0 {
		authority = authority[i+1:]
	}
	if len(authority) == 0 || len(authority) > keepHost || c.Attr("server.address") != "" {
		return
	}
	host, port := authority, []byte(nil)
	if i := bytes.LastIndexByte(authority, ':'); i >= 0 && number(authority[i+1:]) >= 0 {
		host, port = authority[:i], authority[i+1:]
	}
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	if len(host) == 0 {
		return
	}
	c.Add("server.address", c.Keep(host))
	if len(port) > 0 && len(port) <= 5 {
		c.Add("server.port", c.Keep(port))
	}
}
