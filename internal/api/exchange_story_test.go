package api

import (
	"net/netip"

	"ghostlight/internal/event"
)

var (
	shop  = &event.Who{ExecID: "e7", PID: 700, Executable: "/srv/shop", Name: "shop", Service: "shop"}
	redis = &event.Who{ExecID: "e8", PID: 800, Executable: "/usr/bin/redis-server", Name: "redis-server", Service: "redis"}
)

// exchange is a request that begins at a second of the story and takes so many
// milliseconds. Its place in a trace is span:parent, one byte each; the trace's
// id is the trace's byte repeated.
func exchange(at, ms float64, role event.Role, who, peer *event.Who, source, destination string, trace, span, parent byte) event.Request {
	r := event.Request{
		Time: sec(at), DurationNS: int64(ms * 1e6), Role: role, Transport: event.TCP, Complete: true, Who: who, Peer: peer,
		Source: netip.MustParseAddrPort(source), Destination: netip.MustParseAddrPort(destination), RequestBytes: 100, ResponseBytes: 2000,
	}
	if who != nil {
		r.PID = who.PID
	}
	if peer != nil {
		r.PeerPID = peer.PID
	}
	for i := range r.Trace.ID {
		r.Trace.ID[i] = trace
	}
	r.Trace.Span[7], r.Trace.Parent[7] = span, parent
	return r
}

func web(r event.Request, method, path, route string, status int32) event.Request {
	r.Protocol, r.Version, r.Family, r.Operation, r.Text, r.Route, r.Status = "http", "1.1", event.HTTP, method, path, route, status
	if status >= 500 {
		r.Error = "500"
	}
	return r
}

func statement(r event.Request, operation, table, failed string) event.Request {
	r.Protocol, r.Family, r.System, r.Operation, r.Target = "postgresql", event.DB, "postgresql", operation, table
	r.Summary, r.Text = operation+" "+table, operation+" "+table+" where id = ?"
	r.Error, r.Outcome = failed, failed
	r.Attrs = []event.Attr{{Key: "server.address", Value: "db.internal"}}
	return r
}

// exchanges is what the hosts of the story said to each other: curl asks nginx,
// which asks shop, which asks a cache and a database elsewhere; then a stranger
// does, and the database refuses.
func exchanges() []event.Request {
	const toEdge, toShop, toCache, toDB = "127.0.0.1:80", "10.0.0.9:8080", "127.0.0.1:6379", "10.0.0.7:5432"
	edge := web(exchange(10.0005, 49, event.Server, nginx, curl, "127.0.0.1:40522", toEdge, 0x11, 2, 1), "GET", "/pay/7", "/pay/{id}", 200)
	edge.QueueNS, edge.FirstByteNS = 5e6, 40e6
	cache := exchange(10.005, 1, event.Client, shop, redis, "127.0.0.1:5000", toCache, 0x11, 6, 4)
	cache.Protocol, cache.Family, cache.System, cache.Operation, cache.Summary, cache.Trace.Inferred = "redis", event.DB, "redis", "GET", "GET", true
	cached := cache
	cached.Role, cached.Who, cached.Peer, cached.PID, cached.PeerPID, cached.DurationNS = event.Server, redis, shop, 800, 700, 2e5
	cached.Trace.Span[7], cached.Trace.Parent[7], cached.Trace.Inferred = 7, 6, false
	name := exchange(9.99, 3, event.Client, curl, nil, "[2001:db8::5]:5353", "[2001:db8::53]:53", 0x33, 1, 0)
	name.Protocol, name.Family, name.Operation, name.Target, name.Outcome, name.Transport = "dns", event.DNS, "A", "shop.internal", "NOERROR", event.UDP
	return []event.Request{
		name,
		cached, cache,
		statement(exchange(10.010, 30, event.Client, shop, nil, "10.0.0.9:5001", toDB, 0x11, 5, 4), "SELECT", "orders", ""),
		web(exchange(10.0025, 44, event.Server, shop, nginx, "10.0.0.5:6001", toShop, 0x11, 4, 3), "GET", "/pay/7", "/pay/{id}", 200),
		web(exchange(10.002, 45, event.Client, nginx, shop, "10.0.0.5:6001", toShop, 0x11, 3, 2), "GET", "/pay/7", "/pay/{id}", 200),
		edge,
		web(exchange(10, 50, event.Client, curl, nginx, "127.0.0.1:40522", toEdge, 0x11, 1, 0), "GET", "/pay/7", "/pay/{id}", 200),

		statement(exchange(20.004, 5, event.Client, shop, nil, "10.0.0.9:5001", toDB, 0x22, 4, 3), "UPDATE", "orders", "40001"),
		web(exchange(20.003, 8, event.Server, shop, nginx, "10.0.0.5:6001", toShop, 0x22, 3, 2), "POST", "/pay/8", "/pay/{id}", 500),
		web(exchange(20.002, 10, event.Client, nginx, shop, "10.0.0.5:6001", toShop, 0x22, 2, 1), "POST", "/pay/8", "/pay/{id}", 500),
		web(exchange(20, 12, event.Server, nginx, nil, "192.0.2.9:6000", toEdge, 0x22, 1, 9), "POST", "/pay/8", "/pay/{id}", 500),
	}
}
