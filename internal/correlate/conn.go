package correlate

import (
	"net/netip"
	"slices"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// conn is one end of a connection.
type conn struct {
	c    *Correlator
	node node
	key  connKey
	used int64

	transport     event.Transport
	local, remote netip.AddrPort
	netNS, pid    uint32
	tls           bool
	peer          *conn  // the other end, if it is on this host
	seed          uint64 // of the ids of its requests

	proto  *l7.Proto
	parser l7.Conn
	sent   l7.Side // whose words the bytes are that this end sends; Neither: not decided
	way    [2]way  // by Chunk.Sent
	early  []event.Chunk
	mute   bool // nobody knows this protocol

	begun []*exchange // by the parser, in this chunk
	calls []*exchange // open, the oldest first
	open  int
	now   *event.Chunk
}

// way is one direction's place.
type way struct {
	next  uint64 // offset of the byte that should come next
	known bool
}

// An undecided connection may speak this often before it is given up.
const (
	earlyChunks = 8
	earlyBytes  = 512 // kept of each
)

// take feeds a chunk to the parser, or decides which one that is.
func (k *conn) take(ch *event.Chunk) {
	switch {
	case k.mute:
	case k.parser != nil:
		k.feed(ch)
	case k.decide(ch):
		for i := range k.early {
			k.feed(&k.early[i])
		}
		k.early = nil
		k.feed(ch)
	default:
		k.remember(ch)
	}
}

// remember keeps the beginning of an undecided connection.
func (k *conn) remember(ch *event.Chunk) {
	if len(k.early) == earlyChunks {
		k.mute, k.early = true, nil
		k.c.stats.unknown.Add(1)
		return
	}
	kept := *ch
	kept.Data = slices.Clone(ch.Data[:min(len(ch.Data), earlyBytes)])
	k.early = append(k.early, kept)
}

// decide asks the protocols whose words these are: the kernel's guess first.
func (k *conn) decide(ch *event.Chunk) bool {
	prefix := k.prefix(ch)
	if len(prefix) == 0 {
		return false
	}
	if n := int(ch.Proto) - 1; n >= 0 && n < len(k.c.protos) && k.is(n, prefix, ch.Sent) {
		return true
	}
	for n := range k.c.protos {
		if n != int(ch.Proto)-1 && k.is(n, prefix, ch.Sent) {
			return true
		}
	}
	return false
}

// prefix is what is known of the way of ch, from its first byte if that was
// seen.
func (k *conn) prefix(ch *event.Chunk) []byte {
	if k.transport == event.UDP { // each is a message
		return ch.Data
	}
	var joined []byte
	for i := range k.early {
		if e := &k.early[i]; e.Sent == ch.Sent && len(e.Data) == e.Len {
			joined = append(joined, e.Data...)
		}
	}
	if joined == nil {
		return ch.Data
	}
	return append(joined, ch.Data...)
}

func (k *conn) is(n int, prefix []byte, sent bool) bool {
	p := &k.c.protos[n]
	if p.Sniff == nil || k.transport == event.UDP && !p.Datagram {
		return false
	}
	side := p.Sniff(prefix)
	if side == l7.Neither {
		return false
	}
	k.proto, k.parser, k.sent = p, p.New(k), side
	if !sent {
		k.sent = side.Other()
	}
	k.join()
	return true
}

// feed gives a chunk to the parser, after what is missing before it.
func (k *conn) feed(ch *event.Chunk) {
	w := &k.way[0]
	side := k.sent.Other()
	if ch.Sent {
		w, side = &k.way[1], k.sent
	}
	if w.known && ch.Offset != w.next && k.transport != event.UDP {
		if ch.Offset < w.next {
			k.c.stats.disordered.Add(1)
			return
		}
		k.c.stats.missing.Add(ch.Offset - w.next)
		k.parser.Missing(side, ch.Offset-w.next)
	}
	w.next, w.known = ch.Offset+uint64(ch.Len), true
	k.pid = ch.PID
	k.now = ch
	if side == l7.Answers && !ch.Sent && len(k.calls) > 0 {
		k.c.traces.heard(k, k.calls[0])
	}
	k.parser.Data(side, ch)
	k.settle()
	k.upgrade()
	k.now = nil
}

// settle links what the parser began, once it knows all of it.
func (k *conn) settle() {
	for _, x := range k.begun {
		if x.inUse && !x.linked {
			k.link(x)
		}
	}
	clear(k.begun)
	k.begun = k.begun[:0]
}

// upgrade hands the connection to another protocol.
func (k *conn) upgrade() {
	u, ok := k.parser.(l7.Upgrader)
	if !ok {
		return
	}
	up := u.Upgraded()
	if up == nil {
		return
	}
	k.parser.Close()
	k.settle()
	n, ok := k.c.byName[up.Proto]
	if !ok {
		k.mute, k.parser = true, nil
		return
	}
	k.proto, k.parser = &k.c.protos[n], k.c.protos[n].New(k)
	up.HandOver(k.parser)
	k.settle()
}

// ends returns the client's and the server's address.
func (k *conn) ends() (source, destination netip.AddrPort) {
	if k.sent == l7.Asks {
		return k.local, k.remote
	}
	return k.remote, k.local
}

// tuple names a connection the same way at both ends, but for which end it is.
// Loopback addresses mean something else in each network namespace. A server of
// datagrams does not know which of the host's addresses it was asked at.
type tuple struct {
	source, destination netip.AddrPort
	transport           event.Transport
	netNS               uint32
	server              bool // the server's end
	cookie              uint64
}

func (k *conn) tuple() tuple {
	s, d := k.ends()
	t := tuple{
		source: plain(s), destination: plain(d), transport: k.transport, server: k.sent == l7.Answers,
	}
	if !d.IsValid() { // a Unix socket has no address to be found by
		t.cookie = k.key.cookie
	}
	if d.Addr().IsLoopback() || s.Addr().IsLoopback() {
		t.netNS = k.netNS
	}
	if k.transport == event.UDP {
		t.destination = netip.AddrPortFrom(netip.Addr{}, d.Port())
	}
	return t
}

func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// join makes k known as one end of its connection, and finds the other one.
func (k *conn) join() {
	source, destination := k.ends()
	k.seed = hashAddr(hashAddr(0x67686f73746c6967, source), destination)
	t := k.tuple()
	if before := k.c.ends[t]; before != nil { // of the same addresses, and gone
		before.part()
	}
	k.c.ends[t] = k
	t.server = !t.server
	if p := k.c.ends[t]; p != nil {
		p.part()
		k.peer, p.peer = p, k
	}
}

// part lets the ends of a connection forget each other.
func (k *conn) part() {
	if p := k.peer; p != nil {
		k.peer, p.peer = nil, nil
	}
}
