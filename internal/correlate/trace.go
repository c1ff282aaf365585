package correlate

import (
	"encoding/binary"
	"net/netip"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// How a request finds what caused it, with no header injected:
//
//	server <- client   both ends of one connection see the same bytes: the call
//	                   with the same stream or sequence number
//	client <- server   the request that the thread (or goroutine, or the one that
//	                   woke it) was working on: the last one it heard of, be it
//	                   that the request came or that the answer to one of its own
//	                   calls came. Of a new connection, the one it was working on
//	                   when it asked for the connection
//	header             a traceparent or b3 header wins over both
//
// A request handed to another thread is not followed: it begins a trace of its
// own rather than join a wrong one.
type traces struct {
	asked   map[uint64]asked // by socket cookie
	cause   map[actor]*cause
	serving int // of the causes, those with a request at hand
	free    []*span
	idle    []*cause
}

// actor is who moves bytes: a goroutine, or a thread.
type actor struct {
	id        uint64
	pid       uint32
	goroutine bool
}

// cause is what an actor is working on.
type cause struct {
	span    *span // of the server's call it heard of last
	serving int   // server's calls it began and that are open
}

// span is the place of a call in its trace. It outlives the call while others
// point to it.
type span struct {
	id       [8]byte
	traceID  [16]byte // told by a header, or concluded of the first call
	parent   *span
	remote   [8]byte // parent told by a header, if parent is nil
	inferred bool
	open     bool
	refs     int
	cause    *cause // of a server's call: what who began it is working on
	isServer bool
}

// An actor stays when it has nothing at hand: most come back at once. They go
// when they are this many, and more than those at work.
const (
	maxActors  = 32768
	idleActors = 1024
)

func (t *traces) init() { t.cause, t.asked = map[actor]*cause{}, map[uint64]asked{} }

func (t *traces) span() *span {
	if n := len(t.free); n > 0 {
		s := t.free[n-1]
		t.free = t.free[:n-1]
		return s
	}
	return &span{}
}

func (s *span) keep() *span {
	if s != nil {
		s.refs++
	}
	return s
}

func (t *traces) drop(s *span) {
	for s != nil {
		if s.refs--; s.refs > 0 {
			return
		}
		parent := s.parent
		*s = span{}
		if len(t.free) < freeExchanges {
			t.free = append(t.free, s)
		}
		s = parent
	}
}

// ended says that the call of s is over.
func (t *traces) ended(s *span) {
	if s == nil {
		return
	}
	s.open = false
	if c := s.cause; c != nil {
		s.cause = nil
		if c.serving--; c.serving == 0 {
			t.serving--
			t.rest(c)
		}
	}
	t.drop(s)
}

// rest leaves an actor without anything at hand.
func (t *traces) rest(c *cause) {
	t.drop(c.span)
	*c = cause{}
}

// sweep forgets the actors that have nothing at hand, if there are many.
func (t *traces) sweep() {
	if len(t.cause)-t.serving <= idleActors+t.serving {
		return
	}
	for a, c := range t.cause {
		if c.serving == 0 {
			delete(t.cause, a)
			t.idle = append(t.idle, c)
		}
	}
}

// maxDepth bounds the climb to the first call of a trace.
const maxDepth = 64

// trace returns the ids as they are known now.
func (s *span) trace() event.Trace {
	if s == nil {
		return event.Trace{}
	}
	root := s
	for range maxDepth {
		if root.parent == nil || root.remote != [8]byte{} {
			break
		}
		root = root.parent
	}
	tr := event.Trace{ID: root.traceID, Span: s.id, Parent: s.remote, Inferred: s.inferred}
	if s.parent != nil && s.remote == [8]byte{} {
		tr.Parent = s.parent.id
	}
	return tr
}

// link gives a call its place.
func (k *conn) link(x *exchange) {
	t := &k.c.traces
	s := t.span()
	*s = span{open: true, refs: 1}
	x.span, x.linked = s, true
	s.id, s.traceID = k.ids(x)
	who := actorOf(&x.Asked)
	if k.now != nil { // who read the end of a head, not who was woken by its first byte
		who = actor{pid: k.now.PID, id: idOf(k.now.TID, k.now.Goroutine), goroutine: k.now.Goroutine != 0}
		x.PID, x.TID, x.Goroutine = k.now.PID, k.now.TID, k.now.Goroutine
	}
	k.meet(x)
	if x.Role == event.Client {
		t.adopt(s, k, who, x.Asked.Waker)
	}
	if x.Remote.ID != [16]byte{} { // the application's own ids win
		s.traceID = x.Remote.ID
		if s.parent == nil || s.parent.trace().ID != x.Remote.ID {
			s.remote = x.Remote.Parent
		}
	}
	if x.Role == event.Server {
		s.isServer = true
		t.serve(s, who)
	}
}

// meet joins both ends of one exchange: the server's call is caused by the
// client's. Either may be seen first.
func (k *conn) meet(x *exchange) {
	if p := k.peer; p != nil {
		for _, y := range p.calls {
			if y.linked && same(x, y) {
				join(x, y)
				return
			}
		}
	}
	k.c.held.claim(k, x)
}

func join(x, y *exchange) {
	client, server := x, y
	if x.Role == event.Server {
		client, server = y, x
	}
	if server.span.parent == nil && client.Role == event.Client && server.Role == event.Server {
		server.span.parent = client.span.keep()
	}
}

// same reports whether two calls, at the two ends of one connection, are one.
func same(x, y *exchange) bool {
	switch {
	case x.Link != 0 || y.Link != 0:
		return x.Link == y.Link
	case x.TLS:
		return x.Asked.Offset == y.Asked.Offset
	case x.Asked.Seq != 0 && y.Asked.Seq != 0:
		return x.Asked.Seq == y.Asked.Seq
	}
	return len(x.conn.calls) == 1 && len(y.conn.calls) == 1 // only one can be meant
}

// asked is a connection that a thread asked for while it worked on a request.
type asked struct {
	span     *span
	inferred bool
}

// maxAsked bounds the connections that are asked for and have not spoken.
const maxAsked = 4096

// open notes on whose behalf a connection is asked for.
func (t *traces) open(ch *event.Chunk) {
	c := t.cause[actor{pid: ch.PID, id: idOf(ch.TID, ch.Goroutine), goroutine: ch.Goroutine != 0}]
	if c == nil || c.span == nil || !c.span.open || len(t.asked) >= maxAsked {
		return
	}
	if _, ok := t.asked[ch.Conn]; !ok {
		t.asked[ch.Conn] = asked{c.span.keep(), c.serving != 1}
	}
}

// forget lets go of connections whose request is over before they spoke.
func (t *traces) forget() {
	for id, a := range t.asked {
		if !a.span.open {
			delete(t.asked, id)
			t.drop(a.span)
		}
	}
}

// adopt finds the server's call on whose behalf a client's call is made.
func (t *traces) adopt(s *span, k *conn, who actor, waker uint64) {
	if a, ok := t.asked[k.key.cookie]; ok { // the next call on it has its own cause
		delete(t.asked, k.key.cookie)
		if a.span.open {
			s.parent, s.inferred = a.span, a.inferred
			return
		}
		t.drop(a.span)
	}
	c := t.cause[who]
	if (c == nil || c.serving == 0) && waker != 0 {
		c = t.cause[actor{pid: who.pid, id: waker, goroutine: true}]
	}
	if c == nil || c.span == nil || !c.span.open {
		return
	}
	s.parent = c.span.keep()
	// A thread with one request at hand works on that one. With more it is an
	// event loop, and what it heard of last is the likely cause.
	s.inferred = c.serving != 1
}

// serve notes that a server's call has begun.
func (t *traces) serve(s *span, who actor) {
	c := t.cause[who]
	if c == nil {
		t.sweep()
		if len(t.cause) >= maxActors {
			s.isServer = false
			return
		}
		c = t.newCause()
		t.cause[who] = c
	}
	if c.serving++; c.serving == 1 {
		t.serving++
	}
	s.cause = c
	t.turn(c, s)
}

func (t *traces) newCause() *cause {
	if n := len(t.idle); n > 0 {
		c := t.idle[n-1]
		t.idle = t.idle[:n-1]
		return c
	}
	return &cause{}
}

// heard notes that an actor read an answer: it goes on with the request for
// which it had asked.
func (t *traces) heard(k *conn, x *exchange) {
	if x == nil || x.span == nil || k.now == nil {
		return
	}
	parent := x.span.parent
	if parent == nil || !parent.open || !parent.isServer {
		return
	}
	if c := t.cause[actor{pid: k.now.PID, id: idOf(k.now.TID, k.now.Goroutine), goroutine: k.now.Goroutine != 0}]; c != nil && c.serving > 0 {
		t.turn(c, parent)
	}
}

func (t *traces) turn(c *cause, s *span) {
	if c.span == s {
		return
	}
	t.drop(c.span)
	c.span = s.keep()
}

func actorOf(m *l7.Mark) actor {
	return actor{pid: m.PID, id: idOf(m.TID, m.Goroutine), goroutine: m.Goroutine != 0}
}

func idOf(tid uint32, goroutine uint64) uint64 {
	if goroutine != 0 {
		return goroutine
	}
	return uint64(tid)
}

// ids returns the span's id, and the id of the trace it begins if nothing caused
// it. Of plain TCP both follow from the connection and the place in it, so that
// two hosts that see the two ends of one exchange agree without talking.
func (k *conn) ids(x *exchange) (id [8]byte, trace [16]byte) {
	h := k.seed
	if x.Asked.Seq != 0 && !x.TLS {
		h = mix(h ^ uint64(x.Asked.Seq))
	} else {
		h = mix(mix(h^k.key.cookie) ^ uint64(x.Asked.Time))
	}
	h = mix(h ^ x.Link)
	binary.BigEndian.PutUint64(trace[:8], mix(h^1))
	binary.BigEndian.PutUint64(trace[8:], mix(h^2)|1)
	binary.BigEndian.PutUint64(id[:], mix(h^uint64(x.Role)<<8)|1)
	return id, trace
}

func hashAddr(h uint64, a netip.AddrPort) uint64 {
	b := a.Addr().As16() // of an IPv4 address its mapped form
	h = mix(h ^ binary.BigEndian.Uint64(b[:8]))
	h = mix(h ^ binary.BigEndian.Uint64(b[8:]))
	return mix(h ^ uint64(a.Port()))
}

// mix is the finaliser of splitmix64.
func mix(v uint64) uint64 {
	v += 0x9e3779b97f4a7c15
	v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
	v = (v ^ v>>27) * 0x94d049bb133111eb
	return v ^ v>>31
}
