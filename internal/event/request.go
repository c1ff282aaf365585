package event

import (
	"net/netip"
	"slices"
	"unsafe"
)

// Chunk is what one call moved through a socket, as the capturing sensors saw
// it. It is no record: correlate feeds chunks to the protocols' parsers, and
// what they find becomes a Request.
type Chunk struct {
	Time   int64  // when the call ended
	Ready  int64  // received only: when the first of these bytes could be read; 0 if unknown
	Conn   uint64 // socket cookie
	Offset uint64 // position of the first byte among all that went this way since the sensor knows the connection
	Seq    uint32 // TCP sequence number of the first byte, the same at both ends; 0 if unknown
	Len    int    // bytes that were moved
	Data   []byte // the first of them, as many as were captured. Borrowed.

	Sent   bool  // by the process; else received
	TLS    bool  // plaintext of an encrypted connection
	Closed bool  // the connection ended: nothing was moved
	Opened bool  // this thread asks for the connection: nothing was moved, and the addresses are not known
	Proto  uint8 // the kernel's guess: index in the catalogue's protocols plus one; 0 is none

	Transport     Transport // 0 is a Unix socket
	Local, Remote netip.AddrPort
	NetNS         uint32

	PID, TID  uint32
	CgroupID  uint64
	Goroutine uint64 // 0 outside of Go
	Waker     uint64 // goroutine that made this one runnable, if known
}

// Role is the part a process plays in a request.
type Role uint8

// The roles.
const (
	Client Role = iota + 1
	Server
)

// String returns the role's name.
func (r Role) String() string { return [...]string{"", "client", "server", ""}[r&3] }

// Family is a group of protocols that the OpenTelemetry semantic conventions
// describe alike. It decides which columns a request's words stand in.
type Family uint8

// The families.
const (
	HTTP Family = iota + 1
	RPC
	DB
	Messaging
	DNS
)

// Request is one exchange as one of its ends saw it: a server's from the
// moment its first byte was readable to the moment the answer's last byte was
// handed to the kernel, a client's from the first byte handed over to the last
// byte of the answer read. Texts are borrowed like the Batch: copy to keep.
type Request struct {
	Time        int64 // monotonic nanoseconds
	DurationNS  int64
	FirstByteNS int64 // from Time to the answer's first byte; 0 if there was none
	QueueNS     int64 // server: how long the request's bytes lay in the socket before they were read

	Role        Role
	Protocol    string // name of the l7 protocol: http, grpc, postgresql, ...
	Version     string // of the protocol, as it names itself: 1.1, 2
	Transport   Transport
	Source      netip.AddrPort // the client
	Destination netip.AddrPort
	Conn        uint64 // socket cookie: flow.id of the flow that carried it
	NetNS       uint32
	PID, TID    uint32
	PeerPID     uint32
	CgroupID    uint64
	Goroutine   uint64

	Trace Trace

	// What it was, in the words of its family:
	//
	//	           HTTP                 RPC                DB                    Messaging         DNS
	Family    Family
	System    string // -            rpc.system.name    db.system.name        messaging.system  -
	Operation string // method       rpc.method         db.operation.name     operation.name    type of the question
	Target    string // -            -                  db.collection.name    destination.name  name of the question
	Namespace string // -            -                  db.namespace          -                 -
	Summary   string // -            -                  db.query.summary      -                 -
	Text      string // url.path     -                  db.query.text, masked -                 -
	Query     string // url.query    -                  -                     -                 -
	Route     string // http.route   -                  -                     -                 -
	Status    int32  // status code  -                  -                     -                 -
	Outcome   string // -            status_code        status_code           -                 rcode

	Error         string // error.type; empty if it went well
	RequestBytes  int64
	ResponseBytes int64
	TLS           bool

	Who      *Who // filled by enrich
	Peer     *Who
	Complete bool // seen from its first to its last byte

	Attrs []Attr
}

// Trace places a request among others. All zero is unknown.
type Trace struct {
	ID       [16]byte
	Span     [8]byte
	Parent   [8]byte // span that caused this one; zero for the first of a trace
	Inferred bool    // the parent was concluded from what a thread did, not told by a header or a connection
}

// Text copies p into the batch's own memory and returns it as a string that
// lives until Reset.
func (b *Batch) Text(p []byte) string {
	if len(p) == 0 {
		return ""
	}
	at := b.reserve(len(p))
	copy(at, p)
	return unsafe.String(unsafe.SliceData(at), len(at))
}

// TextOf is Text of a string.
func (b *Batch) TextOf(s string) string {
	return b.Text(unsafe.Slice(unsafe.StringData(s), len(s)))
}

// Bytes copies p into the batch's own memory until Reset.
func (b *Batch) Bytes(p []byte) []byte {
	at := b.reserve(len(p))
	copy(at, p)
	return at
}

// arenaBytes is how much of a batch's memory is kept between batches.
const arenaBytes = 256 << 10

// reserve returns n bytes of the arena. A full arena is left to those who hold
// texts in it and a new one begun.
func (b *Batch) reserve(n int) []byte {
	if cap(b.arena)-len(b.arena) < n {
		b.arena = make([]byte, 0, max(n, arenaBytes))
	}
	from := len(b.arena)
	b.arena = b.arena[:from+n]
	return b.arena[from : from+n : from+n]
}

// KeepAttrs copies attrs into the batch's own memory until Reset.
func (b *Batch) KeepAttrs(attrs []Attr) []Attr {
	if len(attrs) == 0 {
		return nil
	}
	from := len(b.attrs)
	b.attrs = slices.Grow(b.attrs, len(attrs))
	b.attrs = append(b.attrs, attrs...)
	return b.attrs[from:len(b.attrs):len(b.attrs)]
}

// Attr returns the value of an attribute, empty if r has none of that key.
func (r *Request) Attr(key string) string {
	for _, a := range r.Attrs {
		if a.Key == key {
			return a.Value
		}
	}
	return ""
}
