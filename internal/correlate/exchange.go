package correlate

import (
	"net/netip"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// exchange is a call and what was concluded about it.
type exchange struct {
	l7.Call
	conn   *conn
	span   *span
	linked bool
	inUse  bool
	heldAt int64 // while it waits for its client's
}

// Begin implements l7.Out.
func (k *conn) Begin(m *l7.Mark) *l7.Call {
	c := k.c
	x := c.take()
	x.conn, x.inUse, x.linked = k, true, false
	x.Call.Start(m)
	x.Protocol = k.proto.Name
	x.Call.Owner = x
	k.begun = append(k.begun, x)
	k.calls = append(k.calls, x)
	k.open++
	c.open++
	return &x.Call
}

func (c *Correlator) take() *exchange {
	if n := len(c.free); n > 0 {
		x := c.free[n-1]
		c.free = c.free[:n-1]
		return x
	}
	return &exchange{}
}

// freeExchanges bounds how many are kept for another life.
const freeExchanges = 1024

// End implements l7.Out.
func (k *conn) End(call *l7.Call, complete bool) {
	x, ok := call.Owner.(*exchange)
	if !ok || !x.inUse || x.conn != k {
		return // ended twice
	}
	if !x.linked {
		k.link(x)
	}
	x.Complete = complete
	if x.Role == event.Client {
		k.c.traces.heard(k, x)
	}
	k.release(x)
	if k.c.held.isHeld(k, x) {
		return
	}
	k.publish(x, 0)
	k.c.recycle(x)
}

// publish turns the exchange into a record of the batch. Peer is the pid at the
// other end, 0 if the connection knows.
func (k *conn) publish(x *exchange, peer uint32) {
	b := k.c.out
	b.Requests = append(b.Requests, x.Request)
	r := &b.Requests[len(b.Requests)-1]
	r.Source, r.Destination = k.ends()
	r.Transport, r.Conn, r.NetNS = k.transport, k.key.cookie, k.netNS
	r.PeerPID = peer
	if p := k.peer; p != nil {
		r.PeerPID = p.pid
		if r.Destination.Addr().IsUnspecified() {
			_, r.Destination = p.ends()
		}
	}
	r.Trace = x.span.trace()
	r.Operation, r.Target, r.Namespace = b.TextOf(r.Operation), b.TextOf(r.Target), b.TextOf(r.Namespace)
	r.Summary, r.Text, r.Query = b.TextOf(r.Summary), b.TextOf(r.Text), b.TextOf(r.Query)
	r.Outcome, r.Error = b.TextOf(r.Outcome), b.TextOf(r.Error)
	r.Attrs = b.KeepAttrs(x.Attrs)
	for i := range r.Attrs {
		r.Attrs[i].Value = b.TextOf(r.Attrs[i].Value)
	}
	k.c.stats.requests.Add(1)
}

// release takes a call off its connection: it is over.
func (k *conn) release(x *exchange) {
	for i := range k.calls {
		if k.calls[i] == x {
			k.calls = append(k.calls[:i], k.calls[i+1:]...)
			break
		}
	}
	k.open--
	k.c.open--
	x.span.keep() // until it is published
	k.c.traces.ended(x.span)
}

// recycle keeps an exchange for its next life.
func (c *Correlator) recycle(x *exchange) {
	c.traces.drop(x.span)
	x.span, x.conn, x.inUse = nil, nil, false
	x.Call.Reset()
	if len(c.free) < freeExchanges {
		c.free = append(c.free, x)
	}
}

// Learn implements l7.Out.
func (k *conn) Learn(name string, addr []byte) {
	a, ok := netip.AddrFromSlice(addr)
	if ok && k.c.learn != nil {
		k.c.learn(name, a)
	}
}
