package api

import (
	"cmp"
	"context"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/segment"
	"ghostlight/internal/store"
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
	Requests      int64  `json:"requests"` // it answered, as far as they were seen
	Errors        int64  `json:"errors"`   // of these, those that failed
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
	// Requests are as the server saw them, or as the client did where that is
	// more. Where the filter is of flows alone there are none.
	Requests  int64    `json:"requests"`
	Errors    int64    `json:"errors"`
	P50NS     int64    `json:"p50_ns,omitempty"`
	P99NS     int64    `json:"p99_ns,omitempty"`
	Protocols []string `json:"protocols,omitempty"`
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
	flows, noFlows := s.request(event.KindFlow, sel)
	requests, noRequests := s.request(event.KindRequest, sel)
	if noFlows != nil && noRequests != nil { // a filter may be of one of them alone
		return Map{}, noFlows
	}
	snapshot := s.Store.Snapshot()
	defer snapshot.Close()
	d := newDraft(snapshot.Schema(flows.Kind))
	complete, since := true, sel.until
	if noFlows == nil {
		result, err := query.Each(ctx, snapshot, flows, d.add)
		if err != nil {
			return Map{}, err
		}
		complete, since = result.Complete, min(since, oldestOf(snapshot, flows.Kind))
	}
	if noRequests == nil {
		t := newTally(snapshot.Schema(requests.Kind), span{from: sel.since, until: sel.until, steps: 1, late: sel.until}, &byEnds, maxExternals)
		result, err := query.Each(ctx, snapshot, requests, t.add)
		if err != nil {
			return Map{}, err
		}
		complete, since = complete && result.Complete && !t.broken, min(since, oldestOf(snapshot, requests.Kind))
		d.addRequests(t)
	}
	m := d.finish(max(sel.until-max(sel.since, since), int64(time.Second))) // a young store has seen less
	m.Complete = complete
	return m, nil
}

// oldestOf is the time of the oldest row of a kind, or later than any.
func oldestOf(s *store.Snapshot, k event.Kind) int64 {
	if sources := s.Sources(k); len(sources) > 0 {
		return sources[0].Extent().Oldest
	}
	return math.MaxInt64
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
	rtt, rtts       int64
	asked, answered red // requests, as the client and as the server saw them
	protocols       map[string]bool
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
	t := d.at(l)
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
	n := d.named(string(key))
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
		t.sum()
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
		e.sum()
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
	t.asked.merge(&o.asked)
	t.answered.merge(&o.answered)
	for name := range o.protocols {
		t.speaks(name)
	}
}

func (t *traffic) speaks(protocol string) {
	if t.protocols == nil {
		t.protocols = map[string]bool{}
	}
	t.protocols[protocol] = true
}

// sum works out the requests.
func (t *traffic) sum() {
	durations, errors := t.answered.whole()
	if asked, failed := t.asked.whole(); asked.Count() > durations.Count() {
		durations, errors = asked, failed
	}
	t.Requests, t.Errors = int64(durations.Count()), errors
	t.P50NS, _ = durations.Quantile(0.5)
	t.P99NS, _ = durations.Quantile(0.99)
	t.Protocols = slices.Sorted(maps.Keys(t.protocols))
}

// addRequests counts requests on the links of the flows that carried them, or
// on links of their own.
func (d *draft) addRequests(t *tally) {
	// In a fixed order: two services may serve at one address, of two namespaces.
	for _, g := range slices.SortedFunc(maps.Values(t.groups), func(a, b *group) int { return cmp.Compare(t.own(a), t.own(b)) }) {
		own, peer := d.named(firstOf(t.of(g, wordService), t.of(g, wordCommand))), d.named(t.of(g, wordPeer))
		from, to := t.of(g, wordSource), t.of(g, wordAddress)
		isServer := t.isServer(g)
		l := link{source: own, target: peer, transport: d.transport([]byte(t.of(g, wordTransport))), port: g.key.port}
		if isServer {
			l.source, l.target = peer, own
			if own >= 0 && to != "" {
				d.serves(endpoint{d.external([]byte(to)), l.transport, l.port}, own)
			}
		}
		if isServer && l.source < 0 && (from == to || isLoopback(from)) {
			continue // the client is on this host, and tells of it
		}
		if l.source, l.target = d.orExternal(l.source, from), d.orExternal(l.target, to); l.source < 0 || l.target < 0 {
			continue
		}
		into := d.at(l)
		into.speaks(t.of(g, wordProtocol))
		if isServer {
			into.answered.merge(&g.red)
		} else {
			into.asked.merge(&g.red)
		}
	}
}

// serves notes who serves at an address, unless the flows have told.
func (d *draft) serves(at endpoint, node int) {
	if _, known := d.served[at]; !known {
		d.served[at] = node
	}
}

// named returns the node of a service, -1 if it has no name.
func (d *draft) named(service string) int {
	if service == "" {
		return -1
	}
	n, ok := d.services[service]
	if !ok {
		n = d.node("svc:", service, "service")
		d.services[service] = n
	}
	return n
}

// orExternal returns a node that is known, or that of an address if there is one.
func (d *draft) orExternal(n int, address string) int {
	if n >= 0 || address == "" {
		return n
	}
	return d.external([]byte(address))
}

// at returns the traffic of a link.
func (d *draft) at(l link) *traffic {
	t := d.links[l]
	if t == nil {
		t = &traffic{Edge: Edge{Transport: d.transports[l.transport], Port: l.port}}
		d.links[l] = t
	}
	return t
}

func (d *draft) weigh(l link, t *traffic) {
	source, target := d.nodes[l.source], d.nodes[l.target]
	source.BytesSent += t.BytesSent
	source.BytesReceived += t.BytesReceived
	target.BytesSent += t.BytesReceived
	target.BytesReceived += t.BytesSent
	target.Requests += t.Requests
	target.Errors += t.Errors
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
			-cmp.Compare(x.Connections+x.Requests, y.Connections+y.Requests),
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
		into.Requests += node.Requests
		into.Errors += node.Errors
	}
	nodes := []Node{}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		nodes = append(nodes, *byID[id])
	}
	return nodes
}
