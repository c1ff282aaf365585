package api

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
)

// Map is who talks to whom. Source is the client.
type Map struct {
	Nodes    []Node `json:"nodes"`
	Edges    []Edge `json:"edges"`
	WindowNS int64  `json:"window_ns"`
	Complete bool   `json:"complete"`
}

// Node is a service of this host, or an address elsewhere.
type Node struct {
	ID            string `json:"id"` // svc:NAME or ext:ADDRESS
	Name          string `json:"name"`
	Kind          string `json:"kind"`            // service or external
	Hosts         int    `json:"hosts,omitempty"` // addresses folded into this node
	Processes     int    `json:"processes"`
	BytesSent     int64  `json:"bytes_sent"`
	BytesReceived int64  `json:"bytes_received"`
	Connections   int64  `json:"connections"`
	Failures      int64  `json:"failures"`
}

// Edge is the traffic between two nodes over one transport and server port.
// Sent is what the client sent.
type Edge struct {
	Source         string  `json:"source"`
	Target         string  `json:"target"`
	Transport      string  `json:"transport"`
	Port           int64   `json:"port,omitempty"`
	Connections    int64   `json:"connections"`
	Open           int64   `json:"open"`
	Failures       int64   `json:"failures"`
	BytesSent      int64   `json:"bytes_sent"`
	BytesReceived  int64   `json:"bytes_received"`
	BytesPerSecond float64 `json:"bytes_per_second"`
	Retransmits    int64   `json:"retransmits"`
	Drops          int64   `json:"drops"`
	RTTNS          int64   `json:"rtt_ns,omitempty"` // mean
}

const (
	defaultWindow = 5 * time.Minute
	maxNodes      = 200
	maxExternals  = 20000  // addresses told apart before folding
	maxOpen       = 100000 // connections told apart; more are counted by record
	other         = "other"
)

func (s *Server) serviceMap(w http.ResponseWriter, r *http.Request) error {
	sel, err := s.selection(r)
	if err != nil {
		return err
	}
	now := s.now().UnixNano()
	if sel.until == 0 {
		sel.until = now
	}
	if sel.since == 0 {
		sel.since = sel.until - int64(defaultWindow)
	}
	m, err := s.mapOf(r.Context(), sel)
	if err != nil {
		return err
	}
	return answer(w, m)
}

func (s *Server) mapOf(ctx context.Context, sel selection) (Map, error) {
	q, err := s.request(event.KindFlow, sel)
	if err != nil {
		return Map{}, err
	}
	snapshot := s.Store.Snapshot()
	defer snapshot.Close()
	d := newDraft(snapshot.Schema(q.Kind))
	result, err := query.Each(ctx, snapshot, q, d.add)
	if err != nil {
		return Map{}, err
	}
	since := sel.since
	if sources := snapshot.Sources(q.Kind); len(sources) > 0 {
		since = max(since, sources[0].Extent().Oldest) // a young store has seen less
	}
	m := d.finish(max(sel.until-since, int64(time.Second)))
	m.Complete = result.Complete
	return m, nil
}

// draft is a map being counted.
//
//	row -> its two ends -> link; at the end, links to an address where one of our
//	services was seen to serve are moved to it, and small nodes are folded
type draft struct {
	schema     *segment.Schema
	nodes      []*Node
	pids       []map[int64]struct{} // of each node
	services   map[string]int       // node by name
	externals  map[string]int       // node by address
	transports []string
	links      map[link]*traffic
	open       map[uint64]*traffic // connections not seen to end, by flow id
	served     map[endpoint]int    // node that was seen to serve there
}

// link is who talks to whom over what; its ends are numbers of nodes.
type link struct {
	source, target, transport int
	port                      int64
}

// endpoint is where somebody serves; the address is an external's number.
type endpoint struct {
	address, transport int
	port               int64
}

type traffic struct {
	Edge
	rtt, rtts int64
}

func newDraft(schema *segment.Schema) *draft {
	return &draft{
		schema: schema, services: map[string]int{}, externals: map[string]int{}, links: map[link]*traffic{},
		open: map[uint64]*traffic{}, served: map[endpoint]int{},
	}
}

// add counts the picked rows.
func (d *draft) add(rows *segment.Rows, picks []int32) error {
	for _, i := range picks {
		d.row(cells{rows, d.schema, int(i)})
	}
	return rows.Err()
}

// cells reads one row by the names of its columns.
type cells struct {
	rows   *segment.Rows
	schema *segment.Schema
	row    int
}

func (c cells) text(name string) []byte { return c.rows.Bytes(c.schema.Index[name], c.row) }

func (c cells) has(name string) bool { return c.rows.Int(c.schema.Index[name], c.row) != event.Null }

func (c cells) number(name string) int64 {
	if n := c.rows.Int(c.schema.Index[name], c.row); n != event.Null {
		return n
	}
	return 0
}

func (d *draft) row(c cells) {
	from, to := c.text("source.address"), c.text("destination.address")
	if len(from) == 0 || len(to) == 0 {
		return // a listening socket, or a packet that is not IP: nobody talks to anybody
	}
	own, peer := d.service(c, "service.name", "process.executable.name", "process.pid"), d.service(c, "peer.service.name", "", "peer.pid")
	inbound := string(c.text("direction")) == event.Inbound.String()
	dropped := string(c.text("verdict")) == event.Dropped.String()
	l := link{source: own, target: peer, transport: d.transport(c.text("network.transport")), port: c.number("destination.port")}
	if inbound {
		l.source, l.target = peer, own
	}
	if l.target >= 0 && !dropped {
		d.served[endpoint{d.external(to), l.transport, l.port}] = l.target
	}
	if inbound && !dropped && (peer >= 0 || string(from) == string(to) || isLoopback(string(from))) {
		return // the client's end is on this host too, and its record is counted
	}
	if l.source < 0 {
		l.source = d.external(from)
	}
	if l.target < 0 {
		l.target = d.external(to)
	}
	d.count(l, c, inbound, dropped)
}

func (d *draft) count(l link, c cells, inbound, dropped bool) {
	t := d.links[l]
	if t == nil {
		t = &traffic{Edge: Edge{Transport: d.transports[l.transport], Port: l.port}}
		d.links[l] = t
	}
	if dropped {
		t.Drops += max(1, c.number("drop.count"))
		return
	}
	sent, received := c.number("bytes.sent"), c.number("bytes.received")
	if inbound {
		sent, received = received, sent
	}
	t.BytesSent += sent
	t.BytesReceived += received
	t.Retransmits += c.number("tcp.retransmits")
	if rtt := c.number("tcp.rtt_ns"); rtt > 0 {
		t.rtt += rtt
		t.rtts++
	}
	if string(c.text("verdict")) == event.Error.String() {
		t.Failures++
	}
	d.connection(t, c)
}

// connection counts each connection once, however many records tell of it.
func (d *draft) connection(t *traffic, c cells) {
	id := uint64(c.number("flow.id"))
	ended := len(c.text("tcp.close_reason")) > 0
	_, known := d.open[id]
	switch {
	case ended && known:
		delete(d.open, id)
	case ended, !known && len(d.open) >= maxOpen:
		t.Connections++
	case !known:
		d.open[id] = t
		t.Connections++
	}
}

// service returns the node of an end on this host, -1 if there is none.
func (d *draft) service(c cells, name, otherwise, pid string) int {
	key := c.text(name)
	if len(key) == 0 && otherwise != "" {
		key = c.text(otherwise)
	}
	if len(key) == 0 {
		return -1
	}
	n, ok := d.services[string(key)]
	if !ok {
		n = d.node("svc:", string(key), "service")
		d.services[string(key)] = n
	}
	if c.has(pid) {
		d.pids[n][c.number(pid)] = struct{}{}
	}
	return n
}

func (d *draft) external(address []byte) int {
	n, ok := d.externals[string(address)]
	if ok {
		return n
	}
	if len(d.externals) >= maxExternals {
		address = []byte(other)
		if n, ok = d.externals[other]; ok {
			return n
		}
	}
	n = d.node("ext:", string(address), "external")
	d.externals[string(address)] = n
	return n
}

func (d *draft) node(prefix, name, kind string) int {
	d.nodes = append(d.nodes, &Node{ID: prefix + name, Name: name, Kind: kind})
	d.pids = append(d.pids, map[int64]struct{}{})
	return len(d.nodes) - 1
}

func (d *draft) transport(name []byte) int {
	for i, t := range d.transports {
		if t == string(name) {
			return i
		}
	}
	d.transports = append(d.transports, string(name))
	return len(d.transports) - 1
}

// finish turns the draft into a map.
func (d *draft) finish(window int64) Map {
	for _, t := range d.open {
		if t.Transport == event.TCP.String() {
			t.Open++
		}
	}
	d.resolve()
	for l, t := range d.links {
		d.weigh(l, t)
	}
	names := d.fold()
	edges := map[string]*traffic{}
	for l, t := range d.links {
		t.Source, t.Target = names[l.source], names[l.target]
		key := t.Source + "\x00" + t.Target + "\x00" + t.Transport + "\x00" + strconv.FormatInt(t.Port, 10)
		if into := edges[key]; into != nil {
			into.merge(t)
		} else {
			edges[key] = t
		}
	}
	m := Map{WindowNS: window, Nodes: d.kept(names), Edges: []Edge{}}
	for _, key := range slices.Sorted(maps.Keys(edges)) {
		e := edges[key]
		e.BytesPerSecond = float64(e.BytesSent+e.BytesReceived) / (float64(window) / 1e9)
		if e.rtts > 0 {
			e.RTTNS = e.rtt / e.rtts
		}
		m.Edges = append(m.Edges, e.Edge)
	}
	return m
}

// resolve moves links that end at an address of our own to the service there,
// and forgets those of which neither end is ours.
func (d *draft) resolve() {
	moved := map[link]*traffic{}
	for l, t := range d.links {
		if d.nodes[l.target].Kind == "external" {
			if n, ok := d.served[endpoint{l.target, l.transport, l.port}]; ok {
				l.target = n
			}
		}
		if d.nodes[l.source].Kind == "external" && d.nodes[l.target].Kind == "external" {
			continue
		}
		if into := moved[l]; into != nil {
			into.merge(t)
		} else {
			moved[l] = t
		}
	}
	d.links = moved
}

func (t *traffic) merge(o *traffic) {
	t.Connections += o.Connections
	t.Open += o.Open
	t.Failures += o.Failures
	t.BytesSent += o.BytesSent
	t.BytesReceived += o.BytesReceived
	t.Retransmits += o.Retransmits
	t.Drops += o.Drops
	t.rtt += o.rtt
	t.rtts += o.rtts
}

func (d *draft) weigh(l link, t *traffic) {
	source, target := d.nodes[l.source], d.nodes[l.target]
	source.BytesSent += t.BytesSent
	source.BytesReceived += t.BytesReceived
	target.BytesSent += t.BytesReceived
	target.BytesReceived += t.BytesSent
	ends := []*Node{source, target}
	if l.source == l.target {
		ends = ends[:1]
	}
	for _, n := range ends {
		n.Connections += t.Connections
		n.Failures += t.Failures
	}
}

// fold gives each node the id it has on the map: its own, or that of the rest.
// Services stay longest, and of each kind those with the most traffic.
func (d *draft) fold() []string {
	order := make([]int, 0, len(d.nodes))
	linked := make([]bool, len(d.nodes))
	for l := range d.links {
		linked[l.source], linked[l.target] = true, true
	}
	for n := range d.nodes {
		if linked[n] {
			order = append(order, n)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := d.nodes[a], d.nodes[b]
		return cmp.Or(
			-cmp.Compare(x.Kind, y.Kind),
			-cmp.Compare(x.BytesSent+x.BytesReceived, y.BytesSent+y.BytesReceived),
			-cmp.Compare(x.Connections, y.Connections),
			cmp.Compare(x.ID, y.ID))
	})
	names := make([]string, len(d.nodes))
	for i, n := range order {
		node := d.nodes[n]
		names[n] = node.ID
		if len(order) > maxNodes && i >= maxNodes-2 { // two places for the rest
			names[n] = node.ID[:4] + other
		}
	}
	return names
}

// kept returns the nodes of the map by their ids.
func (d *draft) kept(names []string) []Node {
	byID := map[string]*Node{}
	for n, id := range names {
		node := d.nodes[n]
		node.Processes = len(d.pids[n])
		into := byID[id]
		switch {
		case id == "":
			continue // nobody talks to it
		case into == nil && id == node.ID:
			byID[id] = node
			continue
		case into == nil:
			into = &Node{ID: id, Name: other, Kind: node.Kind}
			byID[id] = into
		}
		into.Hosts += max(1, node.Hosts)
		into.Processes += node.Processes
		into.BytesSent += node.BytesSent
		into.BytesReceived += node.BytesReceived
		into.Connections += node.Connections
		into.Failures += node.Failures
	}
	nodes := []Node{}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		nodes = append(nodes, *byID[id])
	}
	return nodes
}
