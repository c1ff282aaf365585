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
