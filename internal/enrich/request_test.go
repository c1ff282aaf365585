package enrich

import (
	"net/netip"
	"testing"

	"ghostlight/internal/event"
)

// What a request's URL may tell is redacted before anything else sees it, and
// its route is that of the service that was asked.
func TestRequestURL(t *testing.T) {
	e, err := New(Options{BootID: "x", Routes: []string{"/v1/{thing}/{id}"}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	b := &event.Batch{Requests: []event.Request{
		{Family: event.HTTP, Role: event.Server, Text: "/v1/users/alice", Query: "q=1&access_token=abc", Status: 200},
		{Family: event.HTTP, Role: event.Server, Text: "/orders/42", Status: 200},
		{Family: event.DB, Text: "SELECT ?", Query: ""},
	}}
	e.Apply(b)
	if r := b.Requests[0]; r.Route != "/v1/{thing}/{id}" || r.Query != "q=1&access_token=***" {
		t.Errorf("%q %q", r.Route, r.Query)
	}
	if r := b.Requests[1]; r.Route != "/orders/{id}" {
		t.Errorf("%q", r.Route)
	}
	if r := b.Requests[2]; r.Route != "" || r.Text != "SELECT ?" {
		t.Errorf("a query became %q %q", r.Route, r.Text)
	}
}

// An address has the name that was asked for, in flows and in requests; the
// oldest are forgotten.
func TestNames(t *testing.T) {
	e, err := New(Options{BootID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	first := netip.MustParseAddr("10.1.0.0")
	for a, n := first, 0; n <= maxNames; a, n = a.Next(), n+1 {
		e.Learn("old.example", a)
	}
	if e.Name(first) != "" || len(e.asked.byAddr) != maxNames {
		t.Errorf("%q is still known among %d", e.Name(first), len(e.asked.byAddr))
	}
	e.Learn("db.example", netip.MustParseAddr("::ffff:10.0.0.9"))
	to := netip.MustParseAddrPort("10.0.0.9:5432")
	b := &event.Batch{
		Flows:    []event.Flow{{Direction: event.Outbound, Destination: to}},
		Requests: []event.Request{{Role: event.Client, Destination: to}, {Role: event.Server, Destination: to}},
	}
	e.Apply(b)
	if f := b.Flows[0]; len(f.Attrs) != 1 || f.Attrs[0].Value != "db.example" {
		t.Errorf("the flow's attributes are %v", f.Attrs)
	}
	if b.Requests[0].Attr(serverAddress) != "db.example" || b.Requests[1].Attr(serverAddress) != "" {
		t.Errorf("%v, %v", b.Requests[0].Attrs, b.Requests[1].Attrs)
	}
}
