// Package l7 says what a protocol is. One folder below holds one protocol: its
// parser, its recorded traffic, and optionally sniff.h, which tells the kernel
// side whose bytes these are. A parser is pure: chunks of bytes in, calls out.
//
//	correlate -> Conn.Data(side, chunk) -> Stream -> parser -> Out.Begin(call) ... Out.End(call)
package l7

import "ghostlight/internal/event"

// Proto describes one protocol. Each folder exports exactly one, named Proto.
type Proto struct {
	Name string // of the requests it finds, as the protocol column shows it
	Doc  string
	// Datagram says that it speaks over UDP too: there, each chunk is a message.
	Datagram bool
	// Sniff tells whose words a connection's first bytes in one way are, if they
	// are this protocol's at all. The prefix may be cut anywhere; connections are
	// met in the middle of their life too, so any message counts, not only the
	// first. It must be strict: the first protocol that says yes gets them. It is
	// the twin of sniff.h, which may be more generous.
	Sniff func(prefix []byte) Side
	// New follows one connection.
	New func(Out) Conn
}

// Side tells who speaks.
type Side uint8

// Asks are the bytes from the client to the server, Answers those back.
const (
	Neither Side = iota
	Asks
	Answers
)

// Other returns the other side.
func (s Side) Other() Side { return Asks + Answers - s }

// String returns the side's name.
func (s Side) String() string { return [...]string{"neither", "asks", "answers", ""}[s&3] }

// Conn is a parser at work on one connection. Calls come from one goroutine, in
// the order the kernel moved the bytes as far as that is known: an answer may be
// seen before its request was, and bytes may be missing anywhere. Whatever the
// bytes say, it must not panic, not loop and not grow beyond its bounds.
type Conn interface {
	// Data takes the next bytes of one way. They are borrowed.
	Data(side Side, c *event.Chunk)
	// Missing says that n bytes of one way were never seen (n is 0 if nobody
	// knows how many): the parser finds its place again.
	Missing(side Side, n uint64)
	// Close ends every call that is still open.
	Close()
}

// Idler is a Conn with something to do while nothing is moved: to end an answer
// whose length nobody told. It is called about once a second while the
// connection has open calls.
type Idler interface {
	Idle(now int64)
}

// Upgrader is a Conn that hands its connection on: an HTTP/1 connection becomes
// a WebSocket or HTTP/2.
type Upgrader interface {
	// Upgraded is asked after each Data; nil says that what follows is its own.
	Upgraded() *Upgrade
}

// Upgrade is what a connection becomes: the bytes that follow are another
// protocol's.
type Upgrade struct {
	Proto  string        // its name
	Mark   Mark          // where the asking side goes on, at the time of the answer
	Words  event.Request // of the request that asked for it, in memory of their own
	Remote event.Trace
	Rest   event.Chunk // what stood behind the answer in its last chunk; Len 0 if nothing did. Borrowed.
}

// Heir is a Conn that wants to know how its connection began as another
// protocol's.
type Heir interface {
	Inherit(*Upgrade)
}

// HandOver gives a new Conn of u.Proto what it has to begin with.
func (u *Upgrade) HandOver(to Conn) {
	if h, ok := to.(Heir); ok {
		h.Inherit(u)
	}
	if u.Rest.Len > 0 {
		to.Data(Answers, &u.Rest)
	}
}

// Out takes what a parser finds.
type Out interface {
	// Begin opens a call whose request begins at m. The caller fills the words of
	// the request's family before the parser returns from Data, so that what the
	// call causes elsewhere finds them.
	Begin(m *Mark) *Call
	// End closes a call and takes it back: the parser must forget it. Complete
	// says that its last byte was seen.
	End(c *Call, complete bool)
	// Learn tells that addr is what the host asked for as name (DNS).
	Learn(name string, addr []byte)
}

// Notebook is an Out that remembers what one connection says of things that
// others name by a UUID only.
type Notebook interface {
	// Note says that id is what is called name. The name is borrowed.
	Note(id [16]byte, name []byte)
	// Noted returns that name, empty if nobody told. It lives as long as the call
	// that asks.
	Noted(id [16]byte) string
}
