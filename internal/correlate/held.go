package correlate

import (
	"net/netip"

	"ghostlight/internal/event"
)

// held is what server's calls are put by until their client's are seen. On one
// host the ends of an exchange are told in either order, and it may be over at
// the server before its client is told to have asked.
type held struct {
	byConn map[tuple][]*exchange // the server's end
	order  []holding             // the oldest first
	locals map[netip.Addr]bool   // addresses that sockets of this host have
}

type holding struct {
	x  *exchange
	at int64
}

// A client is told within a drain of the ring or two.
const (
	holdFor   = 100e6 // nanoseconds
	maxHeld   = 4096
	maxLocals = 1024
)

func (h *held) init() { h.byConn, h.locals = map[tuple][]*exchange{}, map[netip.Addr]bool{} }

// local notes an address of this host.
func (h *held) local(a netip.Addr) {
	if a = a.Unmap(); !h.locals[a] && len(h.locals) < maxLocals && a.IsValid() && !a.IsUnspecified() {
		h.locals[a] = true
	}
}

// isHeld puts a call by if its client is of this host and was not seen yet.
func (h *held) isHeld(k *conn, x *exchange) bool {
	if x.Role != event.Server || x.span.parent != nil || x.span.remote != [8]byte{} || len(h.order) >= maxHeld || k.now == nil {
		return false
	}
	source, _ := k.ends()
	if a := source.Addr().Unmap(); !a.IsLoopback() && !h.locals[a] {
		return false
	}
	t := k.tuple()
	h.byConn[t] = append(h.byConn[t], x)
	h.order = append(h.order, holding{x, k.now.Time})
	x.heldAt = k.now.Time
	return true
}

// claim gives the client's call x the server's that waited for it.
func (h *held) claim(k *conn, x *exchange) {
	if len(h.order) == 0 || x.Role != event.Client {
		return
	}
	t := k.tuple()
	t.server = true
	for _, y := range h.byConn[t] {
		if same(x, y) {
			y.span.parent = x.span.keep()
			h.letGo(t, y, k.pid)
			return
		}
	}
}

// letGo publishes a call that was held.
func (h *held) letGo(t tuple, x *exchange, peer uint32) {
	waiting := h.byConn[t]
	for i := range waiting {
		if waiting[i] == x {
			waiting = append(waiting[:i], waiting[i+1:]...)
			break
		}
	}
	if h.byConn[t] = waiting; len(waiting) == 0 {
		delete(h.byConn, t)
	}
	k := x.conn
	x.heldAt = 0
	k.publish(x, peer)
	k.c.recycle(x)
}

// expire publishes what nobody claimed before a time.
func (h *held) expire(before int64) {
	n := 0
	for ; n < len(h.order) && (h.order[n].at < before || h.order[n].x.heldAt != h.order[n].at); n++ {
		if o := h.order[n]; o.x.heldAt == o.at {
			h.letGo(o.x.conn.tuple(), o.x, 0)
		}
	}
	h.order = append(h.order[:0], h.order[n:]...)
}
