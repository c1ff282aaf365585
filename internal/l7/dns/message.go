package dns

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// Bounds of what is read of one message.
const (
	maxName    = 1024 // bytes of a name as text: 255 on the wire, each of which may become four
	maxWire    = 255  // RFC 1035, 3.1
	maxJumps   = 32   // of compression
	maxRecords = 64
	maxAliases = 8 // that are followed
	maxShown   = 8 // addresses
)

// head is what every message begins with (RFC 1035, 4.1.1).
type head struct {
	id                       uint16
	answer                   bool
	code                     int
	questions, answers       int
	authorities, additionals int
}

const headSize = 12

func header(b []byte) (h head, ok bool) {
	if len(b) < headSize {
		return h, false
	}
	word := func(at int) int { return int(binary.BigEndian.Uint16(b[at:])) }
	h = head{
		id: uint16(word(0)), answer: b[2]&0x80 != 0, code: int(b[3] & 0x0f),
		questions: word(4), answers: word(6), authorities: word(8), additionals: word(10),
	}
	return h, b[2]&0x78 == 0 // opcode QUERY
}

type question struct {
	name []byte // as text, in lower case
	kind uint16
	hash uint64
	end  int // where the records begin
}

// question reads the question. Nobody asks two at once.
func (c *conn) question(h head, b []byte) (q question, ok bool) {
	if h.questions != 1 {
		return q, false
	}
	name, at := appendName(c.asked[:0], b, headSize)
	if at < 0 || at+4 > len(b) {
		return q, false
	}
	q = question{name: name, kind: binary.BigEndian.Uint16(b[at:]), end: at + 4}
	q.hash = 14695981039346656037 // FNV-1a
	for _, x := range name {
		q.hash = (q.hash ^ uint64(x)) * 1099511628211
	}
	q.hash = (q.hash ^ uint64(q.kind)) * 1099511628211
	return q, true
}

// appendName appends the name at b[at:] as text in lower case and returns where
// it ends, -1 if it is none. Each pointer of the compression must lead further
// back, so that it ends.
func appendName(dst, b []byte, at int) (name []byte, next int) {
	next = -1
	wire, before := 0, at
	for range maxWire {
		if at >= len(b) {
			return dst, -1
		}
		n := int(b[at])
		switch {
		case n == 0:
			if next < 0 {
				next = at + 1
			}
			if wire == 0 {
				dst = append(dst, '.')
			}
			return dst, next
		case n&0xc0 == 0xc0:
			if at+1 >= len(b) {
				return dst, -1
			}
			to := n&0x3f<<8 | int(b[at+1])
			if to >= before || to < headSize {
				return dst, -1
			}
			if next < 0 {
				next = at + 2
			}
			at, before = to, to
			continue
		case n > 63 || at+1+n > len(b):
			return dst, -1
		}
		if wire += 1 + n; wire > maxWire {
			return dst, -1
		}
		if wire > 1+n {
			dst = append(dst, '.')
		}
		dst = appendLabel(dst, b[at+1:at+1+n])
		at += 1 + n
	}
	return dst, -1
}

// appendLabel writes a label as RFC 4343 does, in lower case: resolvers mix
// cases to make answers hard to forge.
func appendLabel(dst, label []byte) []byte {
	for _, x := range label {
		switch {
		case x >= 'A' && x <= 'Z':
			dst = append(dst, x|0x20)
		case x == '.' || x == '\\':
			dst = append(dst, '\\', x)
		case x <= ' ' || x > '~':
			dst = append(dst, '\\', '0'+x/100, '0'+x/10%10, '0'+x%10)
		default:
			dst = append(dst, x)
		}
	}
	return dst
}

// The types of records that mean something to us.
const (
	typeA     = 1
	typeCNAME = 5
	typeAAAA  = 28
	typeOPT   = 41
)

// record is one of an answer.
type record struct {
	owner int // where its name begins
	kind  uint16
	ttl   uint32
	data  int // where its data begins
	size  int
	next  int
}

// recordAt reads the frame of a record; ok is false if it is not all here.
func recordAt(b []byte, at int) (r record, ok bool) {
	end := skipName(b, at)
	if end < 0 || end+10 > len(b) {
		return r, false
	}
	r = record{owner: at, kind: binary.BigEndian.Uint16(b[end:]), ttl: binary.BigEndian.Uint32(b[end+4:]), data: end + 10, size: int(binary.BigEndian.Uint16(b[end+8:]))}
	r.next = r.data + r.size
	return r, r.next <= len(b)
}

// skipName returns where a name ends, -1 if that is not here.
func skipName(b []byte, at int) int {
	for range maxWire {
		switch {
		case at >= len(b):
			return -1
		case b[at] == 0:
			return at + 1
		case b[at]&0xc0 == 0xc0:
			return at + 2
		case b[at] > 63:
			return -1
		}
		at += 1 + int(b[at])
	}
	return -1
}

// records reads what the answer says: the addresses of the question's name,
// whatever aliases lead to them, and the upper bits of the response code
// (RFC 6891, 6.1.3).
func (c *conn) records(call *l7.Call, h head, q question, b []byte) (code int) {
	if h.answers > 0 && (q.kind == typeA || q.kind == typeAAAA) {
		c.addresses(call, q, b, min(h.answers, maxRecords))
	}
	at := q.end
	for range min(h.answers+h.authorities+h.additionals, maxRecords) {
		r, ok := recordAt(b, at)
		if !ok {
			return 0
		}
		if r.kind == typeOPT {
			return int(r.ttl>>24) << 4
		}
		at = r.next
	}
	return 0
}

func (c *conn) addresses(call *l7.Call, q question, b []byte, n int) {
	name := q.name
	for range maxAliases {
		to := c.aliasOf(name, q.end, b, n)
		if to == nil {
			break
		}
		name = to
	}
	c.text = c.text[:0]
	shown, at := 0, q.end
	for range n {
		r, ok := recordAt(b, at)
		if !ok {
			break
		}
		at = r.next
		if !isAddress(r) || !c.owns(name, b, r) {
			continue
		}
		addr := b[r.data:r.next]
		if call.Role == event.Client { // else it is not this host that asked
			c.out.Learn(call.Target, addr)
		}
		if shown++; shown <= maxShown {
			c.show(addr)
		}
	}
	if len(c.text) > 0 {
		call.Add("dns.answers", call.Keep(c.text))
	}
}

func isAddress(r record) bool {
	return r.kind == typeA && r.size == 4 || r.kind == typeAAAA && r.size == 16
}

// owns reports whether a record is about name.
func (c *conn) owns(name, b []byte, r record) bool {
	owner, end := appendName(c.owner[:0], b, r.owner)
	return end >= 0 && string(owner) == string(name)
}

// aliasOf returns what name is another name for, nil if it is the real one.
func (c *conn) aliasOf(name []byte, at int, b []byte, n int) []byte {
	for range n {
		r, ok := recordAt(b, at)
		if !ok {
			return nil
		}
		at = r.next
		if r.kind != typeCNAME || !c.owns(name, b, r) {
			continue
		}
		to, end := appendName(c.alias[:0], b, r.data)
		if end < 0 {
			return nil
		}
		return to
	}
	return nil
}

func (c *conn) show(addr []byte) {
	a, ok := netip.AddrFromSlice(addr)
	if !ok {
		return
	}
	if len(c.text) > 0 {
		c.text = append(c.text, ',')
	}
	c.text = a.AppendTo(c.text)
}

// codes are the response codes by their numbers (RFC 6895, 2.3).
var codes = [...]string{
	"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE", "DSOTYPENI",
	16: "BADVERS", 17: "BADKEY", 18: "BADTIME", 19: "BADMODE", 20: "BADNAME", 21: "BADALG", 22: "BADTRUNC", 23: "BADCOOKIE",
}

func codeName(call *l7.Call, code int) string {
	if code < len(codes) && codes[code] != "" {
		return codes[code]
	}
	return numbered(call, "RCODE", code)
}

// types are the types of records that are asked for.
var types = map[uint16]string{
	1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 13: "HINFO", 15: "MX", 16: "TXT", 28: "AAAA", 29: "LOC", 33: "SRV", 35: "NAPTR", 39: "DNAME", 43: "DS",
	44: "SSHFP", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 50: "NSEC3", 52: "TLSA", 53: "SMIMEA", 61: "OPENPGPKEY", 64: "SVCB", 65: "HTTPS", 99: "SPF",
	249: "TKEY", 250: "TSIG", 251: "IXFR", 252: "AXFR", 255: "ANY", 256: "URI", 257: "CAA",
}

func typeName(call *l7.Call, kind uint16) string {
	if name := types[kind]; name != "" {
		return name
	}
	return numbered(call, "TYPE", int(kind)) // RFC 3597, 5
}

func numbered(call *l7.Call, prefix string, n int) string {
	var text [16]byte
	return call.Keep(strconv.AppendInt(append(text[:0], prefix...), int64(n), 10))
}
