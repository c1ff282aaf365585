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

// field cuts a header line into its name and value.
func field(line []byte) (name, value []byte) {
	i := bytes.IndexByte(line, ':')
	if i < 0 {
		return nil, nil
	}
	return line[:i], trim(line[i+1:])
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
		name, value := field(line)
		switch len(name) {
		case 2:
			if is(name, "b3") {
				h.parseB3(value, c)
			}
		case 4:
			if is(name, "host") {
				host = value
			}
		case 6:
			if is(name, "expect") {
				h.expects = is(value, "100-continue")
			}
		case 7:
			if is(name, "upgrade") {
				h.upgrade = upgradeTo(value)
			}
		case 10:
			if is(name, "user-agent") {
				agent = value
			}
		case 11:
			switch {
			case is(name, "traceparent"):
				h.parseTraceparent(value, c)
			case is(name, "x-b3-spanid"):
				h.parseB3Span(value, c)
			}
		case 12:
			if is(name, "x-b3-traceid") {
				h.parseB3Trace(value, c)
			}
		case 14:
			if is(name, "content-length") {
				h.length = number(value)
			}
		case 17:
			if is(name, "transfer-encoding") {
				h.parseCoding(value)
			}
		}
	}
	addHost(c, host)
	if len(agent) > 0 {
		c.Add("user_agent.original", c.Keep(agent[:min(len(agent), keepAgent)]))
	}
	return h
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
		name, value := field(line)
		switch len(name) {
		case 7:
			if is(name, "upgrade") {
				h.upgrade = upgradeTo(value)
			}
		case 10:
			if is(name, "connection") {
				h.closes = is(value, "close") || h.closes && !is(value, "keep-alive")
			}
		case 12:
			if is(name, "content-type") {
				const stream = "text/event-stream"
				h.events = len(value) >= len(stream) && is(value[:len(stream)], stream)
			}
		case 14:
			if is(name, "content-length") {
				h.length = number(value)
			}
		case 17:
			if is(name, "transfer-encoding") {
				h.parseCoding(value)
			}
		}
	}
	return h
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
