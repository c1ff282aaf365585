package cli

import (
	"net/netip"

	"ghostlight/internal/event"
)

var shop = &event.Who{ExecID: "e7", PID: 700, Executable: "/srv/shop", Name: "shop", Service: "shop"}

// exchange is a request that begins at a second of the story and takes so many
// milliseconds; its place in a trace is span:parent.
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

func web(r event.Request, method, path string, status int32) event.Request {
	r.Protocol, r.Version, r.Family, r.Operation, r.Text, r.Route, r.Status = "http", "1.1", event.HTTP, method, path, "/pay/{id}", status
	if status >= 500 {
		r.Error = "500"
	}
	return r
}

func statement(r event.Request, text, failed string) event.Request {
	r.Protocol, r.Family, r.System, r.Operation, r.Target, r.Text, r.Summary = "postgresql", event.DB, "postgresql", "SELECT", "orders", text, "SELECT orders"
	r.Error, r.Outcome = failed, failed
	r.Attrs = []event.Attr{{Key: "server.address", Value: "db.internal"}}
	return r
}

// exchanges is a name that is asked for, a purchase from curl down to the
// database, and some that fail in different ways.
func exchanges() []event.Request {
	const toEdge, toShop, toDB = "127.0.0.1:80", "10.0.0.9:8080", "10.0.0.7:5432"
	name := exchange(9.99, 3, event.Client, curl, nil, "10.0.0.5:5353", "10.0.0.53:53", 0x33, 1, 0)
	name.Protocol, name.Family, name.Operation, name.Target, name.Outcome, name.Transport = "dns", event.DNS, "A", "shop.internal", "NXDOMAIN", event.UDP
	edge := web(exchange(10.0005, 49, event.Server, worker, curl, "127.0.0.1:40522", toEdge, 0x11, 2, 1), "GET", "/pay/7", 200)
	edge.QueueNS, edge.FirstByteNS, edge.TLS = 5e6, 40e6, true
	late := statement(exchange(10.036, 8, event.Client, shop, nil, "10.0.0.9:5001", toDB, 0x11, 6, 4), "SELECT * FROM orders WHERE id = ?", "")
	late.Trace.Inferred = true
	call := exchange(30, 2, event.Client, shop, worker, "10.0.0.9:5009", "10.0.0.5:9000", 0x44, 1, 0)
	call.Protocol, call.Family, call.System, call.Operation, call.Outcome, call.Error = "grpc", event.RPC, "grpc", "stock.Stock/Take", "NOT_FOUND", ""
	cut := web(exchange(31, 1000, event.Server, worker, nil, "203.0.113.1:7000", toEdge, 0x55, 1, 0), "GET", "/\x1b[2J", 0)
	cut.Error, cut.Complete = "timeout", false
	put := exchange(32, 0.7, event.Client, shop, nil, "10.0.0.9:5010", "10.0.0.8:9092", 0x66, 1, 0)
	put.Protocol, put.Family, put.Operation, put.Target = "kafka", event.Messaging, "produce", "orders"
	return []event.Request{
		name,
		statement(exchange(10.004, 30, event.Client, shop, nil, "10.0.0.9:5001", toDB, 0x11, 5, 4), "SELECT * FROM orders WHERE id = ?", ""),
		late,
		web(exchange(10.0025, 44, event.Server, shop, worker, "10.0.0.5:6001", toShop, 0x11, 4, 3), "GET", "/pay/7", 200),
		web(exchange(10.002, 45, event.Client, worker, shop, "10.0.0.5:6001", toShop, 0x11, 3, 2), "GET", "/pay/7", 200),
		edge,
		web(exchange(10, 50, event.Client, curl, worker, "127.0.0.1:40522", toEdge, 0x11, 1, 0), "GET", "/pay/7", 200),
		statement(exchange(20.004, 5, event.Client, shop, nil, "10.0.0.9:5001", toDB, 0x22, 3, 2), "SELECT 1", "40001"),
		web(exchange(20.003, 8, event.Server, shop, nil, "192.0.2.9:6000", toShop, 0x22, 2, 9), "POST", "/pay/8", 500),
		call, cut, put,
	}
}
