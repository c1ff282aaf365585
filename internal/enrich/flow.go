package enrich

import (
	"encoding/binary"
	"net/netip"

	"ghostlight/internal/event"
)

// self fills in the end that f is of, by its pid, and notes it for the record
// of the other end.
func (e *Enricher) self(b *event.Batch, f *event.Flow) {
	f.Who = e.who(b, f.PID, f.End)
	f.Peer = e.who(b, f.PeerPID, f.End)
	if f.Direction == event.Outbound || f.Direction == event.Inbound {
		e.pairs.note(f)
	}
}

// other fills in what is still missing of f by what the record of its other
// end knows. Both often come in one batch: that is why there are two passes.
func (e *Enricher) other(f *event.Flow) {
	if (f.Who == nil || f.Peer == nil) && (f.Direction == event.Outbound || f.Direction == event.Inbound) && e.pairs.fill(f) {
		e.joined.Add(1)
	}
	if f.Who == nil {
		e.unknown.Add(1)
	}
	if f.Direction != event.Outbound {
		return
	}
	if name := e.Name(f.Destination.Addr()); name != "" {
		f.Attrs = append(f.Attrs, event.Attr{Key: serverAddress, Value: name})
	}
}

// who returns the execution that pid was at a monotonic time, nil if unknown.
func (e *Enricher) who(b *event.Batch, pid uint32, time int64) *event.Who {
	if pid == 0 {
		return nil
	}
	p := e.tree.at(pid, time+e.suspended)
	if p == nil {
		if p = e.repair(b, pid); p == nil {
			return nil
		}
	}
	e.tree.touch(p)
	if !p.settled {
		e.complete(b, p)
	}
	return p.who
}

// pairs remembers who was at the ends of recent connections: a table of fixed
// size in which new connections push out the oldest of the same bucket.
type pairs struct{ slots []pair }

const (
	pairSlots  = 4096
	pairBucket = 4
	pairSlack  = 1e9 // between the ends' records of one connection, nanoseconds
)

type pair struct {
	key   conn
	used  bool
	sides [2]side // client, server
}

// side is one end in the interval of its last record.
type side struct {
	who       *event.Who
	from, end int64
}

// conn names a connection the same way at both ends. Loopback addresses mean
// something else in each network namespace.
type conn struct {
	source, destination netip.AddrPort
	transport           event.Transport
	netNS               uint32
}

func connOf(f *event.Flow) conn {
	c := conn{
		source:      netip.AddrPortFrom(f.Source.Addr().Unmap(), f.Source.Port()),
		destination: netip.AddrPortFrom(f.Destination.Addr().Unmap(), f.Destination.Port()),
		transport:   f.Transport,
	}
	if c.destination.Addr().IsLoopback() {
		c.netNS = f.NetNS
	}
	return c
}

func (c *conn) hash() uint64 {
	source, destination := c.source.Addr().As16(), c.destination.Addr().As16()
	h := uint64(c.source.Port())<<32 | uint64(c.destination.Port())<<16 | uint64(c.transport)
	for _, half := range [...][]byte{source[:8], source[8:], destination[:8], destination[8:]} {
		h = mix(h ^ binary.NativeEndian.Uint64(half))
	}
	return mix(h ^ uint64(c.netNS))
}

// sideOf returns the index of f's own end.
func sideOf(f *event.Flow) int {
	if f.Direction == event.Outbound {
		return 0
	}
	return 1
}

func (t *pairs) bucket(c *conn) []pair {
	n := c.hash() % (pairSlots / pairBucket) * pairBucket
	return t.slots[n : n+pairBucket]
}

func (t *pairs) find(c *conn) *pair {
	bucket := t.bucket(c)
	for i := range bucket {
		if bucket[i].used && bucket[i].key == *c {
			return &bucket[i]
		}
	}
	return nil
}

// note remembers the ends that f knows.
func (t *pairs) note(f *event.Flow) {
	if f.Who == nil && f.Peer == nil {
		return
	}
	c := connOf(f)
	p := t.find(&c)
	if p == nil {
		p = t.oldest(&c)
		*p = pair{key: c, used: true}
	}
	own := sideOf(f)
	if f.Who != nil {
		p.sides[own] = side{f.Who, f.Time, f.End}
	}
	if f.Peer != nil {
		p.sides[1-own] = side{f.Peer, f.Time, f.End}
	}
}

func (t *pairs) oldest(c *conn) *pair {
	bucket := t.bucket(c)
	best := &bucket[0]
	for i := range bucket {
		p := &bucket[i]
		if !p.used {
			return p
		}
		if p.newest() < best.newest() {
			best = p
		}
	}
	return best
}

func (p *pair) newest() int64 { return max(p.sides[0].end, p.sides[1].end) }

// fill completes f, and reports whether it found something. Addresses and ports
// are used again, so both records have to be of the same time.
func (t *pairs) fill(f *event.Flow) bool {
	c := connOf(f)
	p := t.find(&c)
	if p == nil {
		return false
	}
	own := sideOf(f)
	filled := false
	if f.Who == nil {
		filled = take(&f.Who, &f.PID, &p.sides[own], f)
	}
	if f.Peer == nil {
		filled = take(&f.Peer, &f.PeerPID, &p.sides[1-own], f) || filled
	}
	return filled
}

func take(who **event.Who, pid *uint32, s *side, f *event.Flow) bool {
	if s.who == nil || s.end+pairSlack < f.Time || s.from-pairSlack > f.End {
		return false
	}
	if *pid == 0 {
		*pid = s.who.PID
	}
	*who = s.who
	return true
}
