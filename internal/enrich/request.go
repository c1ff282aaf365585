package enrich

import (
	"net/netip"
	"unsafe"

	"ghostlight/internal/enrich/redact"
	"ghostlight/internal/event"
)

// request fills in both ends of a request and redacts what may hold a secret.
func (e *Enricher) request(b *event.Batch, r *event.Request) {
	end := r.Time + r.DurationNS
	r.Who = e.who(b, r.PID, end)
	if r.Peer = e.who(b, r.PeerPID, end); r.Peer == nil && r.Transport != 0 {
		r.Peer, r.PeerPID = e.peerOf(r, end)
	}
	if r.Who == nil {
		e.unknown.Add(1)
	}
	if r.Family == event.HTTP {
		e.redactURL(b, r)
	}
	if r.Role != event.Client || r.Attr(serverAddress) != "" {
		return
	}
	if name := e.Name(r.Destination.Addr()); name != "" {
		r.Attrs = append(r.Attrs, event.Attr{Key: serverAddress, Value: name})
	}
}

// serverAddress is the attribute for the name under which a client knows a
// server.
const serverAddress = "server.address"

// peerOf finds the other end by the flow that carried the request.
func (e *Enricher) peerOf(r *event.Request, end int64) (*event.Who, uint32) {
	f := event.Flow{
		Time: r.Time, End: end, Transport: r.Transport, Direction: event.Outbound,
		Source: r.Source, Destination: r.Destination, NetNS: r.NetNS, Who: r.Who, PID: r.PID,
	}
	if r.Role == event.Server {
		f.Direction = event.Inbound
	}
	e.pairs.fill(&f)
	return f.Peer, f.PeerPID
}

// redactURL replaces the secrets in a path and a query. Most have none, so the
// texts stay where they are unless something changes.
func (e *Enricher) redactURL(b *event.Batch, r *event.Request) {
	if !redact.IsPlain(r.Text) {
		e.text = e.rules.Path(e.text[:0], bytesOf(r.Text))
		if string(e.text) != r.Text {
			r.Text = b.Text(e.text)
		}
	}
	r.Route = e.routes.Of(served(r), r.Text, r.Status > 0 && r.Status != 404)
	if r.Query == "" {
		return
	}
	e.text = e.rules.Query(e.text[:0], bytesOf(r.Query), !r.Complete)
	if string(e.text) != r.Query {
		r.Query = b.Text(e.text)
	}
}

// served is the service whose paths these are.
func served(r *event.Request) string {
	who := r.Who
	if r.Role == event.Client {
		who = r.Peer
	}
	if who == nil {
		return "" // all strangers share one table
	}
	return who.Service
}

// bytesOf shows a string as bytes that must not be written to.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// asked remembers which name the host asked for to get an address: the newest
// wins, and the oldest goes when there are too many.
type asked struct {
	byAddr map[netip.Addr]string
	order  []netip.Addr
	next   int
}

const maxNames = 4096

// Learn tells that addr was the answer to a question for name. It is called by
// the goroutine that calls Apply; name is copied.
func (e *Enricher) Learn(name string, addr netip.Addr) {
	n := &e.asked
	addr = addr.Unmap()
	if old, ok := n.byAddr[addr]; ok {
		if old != name {
			n.byAddr[addr] = string([]byte(name))
		}
		return
	}
	if n.byAddr == nil {
		n.byAddr = map[netip.Addr]string{}
	}
	if len(n.order) < maxNames {
		n.order = append(n.order, addr)
	} else {
		delete(n.byAddr, n.order[n.next])
		n.order[n.next] = addr
		n.next = (n.next + 1) % maxNames
	}
	n.byAddr[addr] = string([]byte(name))
}

// Name returns the name by which the host asked for addr, empty if it did not.
func (e *Enricher) Name(addr netip.Addr) string { return e.asked.byAddr[addr.Unmap()] }
