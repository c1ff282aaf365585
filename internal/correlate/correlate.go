// Package correlate turns what went through the sockets into requests: it
// gives each connection the parser of its protocol, joins requests with
// answers, and requests with what caused them.
//
//	Batch.Chunks -> conn (whose words?) -> parser -> Begin/End -> trace -> Batch.Requests
//
// All calls come from the agent's loop. Memory is bounded: the least recently
// used connections go first, with a count.
package correlate

import (
	"math"
	"net/netip"
	"sync/atomic"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// Options are what a Correlator needs to know.
type Options struct {
	Protos []l7.Proto // in the order the kernel side numbers them, from 1
	// Learn is told which name the host asked for to get addr. Nil if nobody
	// wants to know. The name is borrowed.
	Learn func(name string, addr netip.Addr)
	// Connections bounds how many are followed; 0 is the default.
	Connections int
}

const defaultConnections = 16384

// Stats tells how it is going. The counters never go down.
type Stats struct {
	Connections int    // followed now
	Open        int    // requests without an end now
	Requests    uint64 // published
	Evicted     uint64 // connections let go of because there were too many
	Unknown     uint64 // connections whose protocol nobody knows
	Missing     uint64 // bytes that the kernel side counted and nobody saw
	Disordered  uint64 // chunks that came too late to be of use
}

// Correlator follows the connections of a host.
type Correlator struct {
	protos []l7.Proto
	byName map[string]int
	learn  func(string, netip.Addr)
	noted  notebook
	limit  int

	conns  table
	recent list // conns by last use, the oldest first
	ends   map[tuple]*conn
	traces traces
	held   held
	free   []*exchange
	open   int

	out   *event.Batch // during a call
	stats struct{ requests, evicted, unknown, missing, disordered, conns, open atomic.Uint64 }
}

// New returns a Correlator.
func New(o Options) *Correlator {
	c := &Correlator{
		protos: o.Protos, byName: map[string]int{}, learn: o.Learn, limit: o.Connections,
		conns: table{streams: map[uint64]*conn{}, datagrams: map[connKey]*conn{}}, ends: map[tuple]*conn{},
	}
	if c.limit == 0 {
		c.limit = defaultConnections
	}
	for i := range c.protos {
		c.byName[c.protos[i].Name] = i
	}
	c.recent.init()
	c.traces.init()
	c.held.init()
	return c
}

// Apply turns the chunks of a batch into requests of the same batch.
func (c *Correlator) Apply(b *event.Batch) {
	if len(b.Chunks) == 0 {
		return
	}
	c.out = b
	for i := range b.Chunks {
		c.chunk(&b.Chunks[i])
	}
	c.held.expire(b.Chunks[len(b.Chunks)-1].Time - holdFor)
	c.count()
}

// Tick ends what nobody will end, about once a second.
func (c *Correlator) Tick(now int64, b *event.Batch) {
	c.out = b
	for n := c.recent.head.next; n != &c.recent.head; {
		k := n.of
		n = n.next
		switch {
		case k.key.remote.IsValid() && now-k.used > datagramIdle:
			c.drop(k)
		case k.open > 0:
			if idler, ok := k.parser.(l7.Idler); ok {
				idler.Idle(now)
				k.settle()
			}
		}
	}
	c.traces.forget()
	c.held.expire(now - holdFor)
	c.count()
}

// datagramIdle is how long the ends of datagrams are remembered: they never
// close.
const datagramIdle = 10e9

// Close ends every call that is still open.
func (c *Correlator) Close(b *event.Batch) {
	c.out = b
	for c.recent.head.next != &c.recent.head {
		c.drop(c.recent.head.next.of)
	}
	c.held.expire(math.MaxInt64)
	c.count()
}

// Stats may be called from any goroutine.
func (c *Correlator) Stats() Stats {
	s := &c.stats
	return Stats{
		Connections: int(s.conns.Load()), Open: int(s.open.Load()), Requests: s.requests.Load(), Evicted: s.evicted.Load(),
		Unknown: s.unknown.Load(), Missing: s.missing.Load(), Disordered: s.disordered.Load(),
	}
}

func (c *Correlator) count() {
	c.stats.conns.Store(uint64(c.conns.len()))
	c.stats.open.Store(uint64(c.open))
}

// chunk gives a chunk to its connection.
func (c *Correlator) chunk(ch *event.Chunk) {
	if ch.Opened {
		c.traces.open(ch)
		return
	}
	k := c.conn(ch)
	if k == nil {
		return
	}
	if ch.Closed {
		c.drop(k)
		return
	}
	k.used = ch.Time
	c.recent.touch(&k.node)
	k.take(ch)
}

// connKey names one end of a connection. Datagram sockets talk to many.
type connKey struct {
	cookie uint64
	remote netip.AddrPort // datagrams only
}

func keyOf(ch *event.Chunk) connKey {
	k := connKey{cookie: ch.Conn}
	if ch.Transport == event.UDP {
		k.remote = ch.Remote
	}
	return k
}

// table holds connections by key. Each chunk is looked up once, and a map of
// integers answers sooner than one of addresses: streams need no more.
type table struct {
	streams   map[uint64]*conn
	datagrams map[connKey]*conn
}

func (t *table) len() int { return len(t.streams) + len(t.datagrams) }

func (t *table) find(k connKey) *conn {
	if k.remote.IsValid() {
		return t.datagrams[k]
	}
	return t.streams[k.cookie]
}

func (t *table) put(k *conn) {
	if k.key.remote.IsValid() {
		t.datagrams[k.key] = k
		return
	}
	t.streams[k.key.cookie] = k
}

func (t *table) remove(k *conn) {
	if k.key.remote.IsValid() {
		delete(t.datagrams, k.key)
		return
	}
	delete(t.streams, k.key.cookie)
}

func (c *Correlator) conn(ch *event.Chunk) *conn {
	key := keyOf(ch)
	k := c.conns.find(key)
	switch {
	case k == nil && ch.Closed:
		return nil
	case k != nil && k.tls != ch.TLS && !ch.Closed: // STARTTLS: what follows begins anew
		c.drop(k)
		k = nil
	}
	if k != nil {
		return k
	}
	if c.conns.len() >= c.limit {
		c.stats.evicted.Add(1)
		c.drop(c.recent.head.next.of)
	}
	k = &conn{c: c, key: key, tls: ch.TLS, transport: ch.Transport, local: ch.Local, remote: ch.Remote, netNS: ch.NetNS, pid: ch.PID}
	k.node.of = k
	c.held.local(ch.Local.Addr())
	c.conns.put(k)
	c.recent.push(&k.node)
	return k
}

// drop ends a connection.
func (c *Correlator) drop(k *conn) {
	if k.parser != nil {
		k.parser.Close()
		k.settle()
	}
	if k.sent != l7.Neither && c.ends[k.tuple()] == k {
		delete(c.ends, k.tuple())
	}
	k.part()
	c.recent.remove(&k.node)
	c.conns.remove(k)
}

// list is a ring of connections by last use.
type list struct{ head node }

type node struct {
	prev, next *node
	of         *conn
}

func (l *list) init() { l.head.prev, l.head.next = &l.head, &l.head }

func (l *list) push(n *node) {
	n.prev, n.next = l.head.prev, &l.head
	n.prev.next, l.head.prev = n, n
}

func (l *list) remove(n *node) { n.prev.next, n.next.prev = n.next, n.prev }

func (l *list) touch(n *node) {
	if l.head.prev != n {
		l.remove(n)
		l.push(n)
	}
}
