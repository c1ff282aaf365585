package api

import (
	"encoding/json"
	"fmt"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/store"
)

func mapOf(t *testing.T, st *store.Store, s *Server) Map {
	t.Helper()
	var m Map
	if w := ask(s, "GET", "/api/v1/map", ""); json.Unmarshal(w.Body.Bytes(), &m) != nil {
		t.Fatal(w.Body)
	}
	return m
}

func edge(m Map, source, target string) Edge {
	for _, e := range m.Edges {
		if e.Source == source && e.Target == target {
			return e
		}
	}
	return Edge{}
}

// emptyServer answers from a store that holds the given flows only.
func emptyServer(t *testing.T, flows ...event.Flow) (*Server, *store.Store) {
	t.Helper()
	s, _ := newServer(t, func(b *Backend) { b.Store = openStore(t) })
	s.Store.Append(&event.Batch{Wall: now.UnixNano() - sec(60), Flows: flows})
	return s, s.Store
}

// A connection on loopback is told from both ends and counted once, also where
// the client's first record did not know its peer yet.
func TestMapCountsLoopbackOnce(t *testing.T) {
	client1 := tcp(1, 1, 2, event.Outbound, "127.0.0.1:4000", "127.0.0.1:80", curl, nil) // the accept was not seen yet
	client2 := tcp(1, 2, 3, event.Outbound, "127.0.0.1:4000", "127.0.0.1:80", curl, nginx)
	server := tcp(2, 1, 3, event.Inbound, "127.0.0.1:4000", "127.0.0.1:80", nginx, nil)
	client1.Sent, client2.Sent, server.Received = event.Count{Bytes: 10}, event.Count{Bytes: 5}, event.Count{Bytes: 15}
	client1.TCP.State, client2.TCP.CloseReason = 1, event.FinSent
	s, st := emptyServer(t, client1, client2, server)
	m := mapOf(t, st, s)
	e := edge(m, "svc:curl", "svc:nginx")
	if len(m.Nodes) != 2 || len(m.Edges) != 1 || e.Connections != 1 || e.Open != 0 || e.BytesSent != 15 {
		t.Errorf("%+v", m)
	}
}

// A container's address is folded into the service that serves there.
func TestMapFindsServicesByAddress(t *testing.T) {
	server := tcp(2, 1, 3, event.Inbound, "172.17.0.1:4000", "172.17.0.2:80", nginx, curl)
	client := tcp(1, 1, 3, event.Outbound, "172.17.0.1:4001", "172.17.0.2:80", shell, nil)
	s, st := emptyServer(t, server, client)
	m := mapOf(t, st, s)
	if e := edge(m, "svc:bash", "svc:nginx"); e.Connections != 1 || len(m.Edges) != 1 {
		t.Errorf("%+v", m)
	}
}

// However many addresses there are, the map stays readable and its sums hold.
func TestMapFolds(t *testing.T) {
	var flows []event.Flow
	var sent int64
	for i := range 1000 {
		f := tcp(uint64(i+1), 1, 2, event.Outbound, "10.0.0.5:4000", fmt.Sprintf("10.1.%d.%d:443", i/250, i%250), curl, nil)
		f.Sent.Bytes = uint64(i)
		sent += int64(i)
		flows = append(flows, f)
	}
	s, st := emptyServer(t, flows...)
	m := mapOf(t, st, s)
	if len(m.Nodes) > maxNodes || len(m.Nodes) < maxNodes-2 {
		t.Errorf("%d nodes", len(m.Nodes))
	}
	var connections, bytes int64
	for _, e := range m.Edges {
		connections += e.Connections
		bytes += e.BytesSent
	}
	if connections != 1000 || bytes != sent {
		t.Errorf("%d connections, %d bytes of %d", connections, bytes, sent)
	}
	for _, n := range m.Nodes {
		if n.ID == "ext:other" && (n.Hosts != 1000-len(m.Nodes)+2 || n.Kind != "external") {
			t.Errorf("%+v with %d nodes", n, len(m.Nodes))
		}
	}
	if edge(m, "svc:curl", "ext:other").Connections == 0 || edge(m, "svc:curl", "ext:10.1.3.249").BytesSent != 999 {
		t.Error("the rest is not there, or the busiest was folded")
	}
}

// Requests stand on the links of their connections, each exchange once, though
// both of its ends tell of it; a filter of flows alone leaves them out, one of
// requests alone the flows.
func TestMapRequests(t *testing.T) {
	s, st := newServer(t)
	m := mapOf(t, st, s)
	for _, c := range []struct {
		source, target   string
		requests, errors int64
		p99              int64
		protocol         string
	}{
		{"svc:curl", "svc:nginx", 1, 0, 49e6, "http"},
		{"ext:192.0.2.9", "svc:nginx", 1, 1, 12e6, "http"},
		{"svc:nginx", "svc:shop", 2, 1, 44e6, "http"},
		{"svc:shop", "svc:redis", 1, 0, 2e5, "redis"},
		{"svc:shop", "ext:10.0.0.7", 2, 1, 30e6, "postgresql"},
		{"svc:curl", "ext:2001:db8::53", 1, 0, 3e6, "dns"},
	} {
		e := edge(m, c.source, c.target)
		if e.Requests != c.requests || e.Errors != c.errors || e.P99NS != c.p99 || len(e.Protocols) != 1 || e.Protocols[0] != c.protocol {
			t.Errorf("%s -> %s: %+v", c.source, c.target, e)
		}
	}
	if e := edge(m, "svc:curl", "svc:nginx"); e.Connections != 1 {
		t.Errorf("%+v", e)
	}
	var answered, asked int64
	for _, n := range m.Nodes {
		answered += n.Requests
	}
	for _, e := range m.Edges {
		asked += e.Requests
	}
	if answered != 8 || asked != 8 {
		t.Errorf("%d requests at nodes, %d on edges", answered, asked)
	}
	flows := get[Map](t, s, "/api/v1/map?filter=verdict:error")
	requests := get[Map](t, s, "/api/v1/map?filter=status:5xx")
	if e := edge(flows, "svc:curl", "ext:127.0.0.1"); e.Failures != 1 || e.Requests != 0 {
		t.Errorf("%+v", flows)
	}
	if e := edge(requests, "svc:nginx", "svc:shop"); e.Requests != 1 || e.Errors != 1 || e.Connections != 0 || len(requests.Edges) != 2 {
		t.Errorf("%+v", requests)
	}
	if w := ask(s, "GET", "/api/v1/map?filter=nosuch:1", ""); w.Code != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
