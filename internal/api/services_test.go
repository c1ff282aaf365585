package api

import (
	"encoding/json"
	"net/url"
	"testing"

	"ghostlight/internal/event"
)

func get[T any](t *testing.T, s *Server, target string) (v T) {
	t.Helper()
	w := ask(s, "GET", target, "")
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != 200 {
		t.Fatalf("%s: %d %v\n%s", target, w.Code, err, w.Body)
	}
	return v
}

func serviceOf(t *testing.T, all Services, name string) Service {
	t.Helper()
	for _, s := range all.Services {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no service %s in %+v", name, all)
	return Service{}
}

// A service is what its own records say; one elsewhere what its clients say;
// nothing is counted twice.
func TestServices(t *testing.T) {
	s, _ := newServer(t)
	all := get[Services](t, s, "/api/v1/services?since=1m")
	for _, c := range []struct {
		name, kind       string
		requests, errors int64
		routes, calls    int
		callers          int
		max              int64
	}{
		{"nginx", "service", 2, 1, 2, 1, 2, 49e6},
		{"shop", "service", 2, 1, 2, 2, 1, 44e6},
		{"redis", "service", 1, 0, 1, 0, 1, 2e5},
		{"db.internal", "external", 2, 1, 2, 0, 1, 30e6},
		{"[2001:db8::53]:53", "external", 1, 0, 1, 0, 1, 3e6},
		{"curl", "service", 0, 0, 0, 2, 0, 0},
	} {
		one := serviceOf(t, all, c.name)
		if one.Kind != c.kind || one.Requests != c.requests || one.Errors != c.errors || one.MaxNS != c.max || len(one.Routes) != c.routes || len(one.Calls) != c.calls || len(one.Callers) != c.callers {
			t.Errorf("%+v, want %+v", one, c)
		}
		var heat, requests int64
		for _, r := range one.Routes {
			requests += r.Requests
			for _, n := range r.Heat {
				heat += int64(n)
			}
		}
		if heat != c.requests || requests != c.requests {
			t.Errorf("%s: %d by route, %d by time, want %d", c.name, requests, heat, c.requests)
		}
	}
	if len(all.Services) != 6 || !all.Complete || all.Services[0].Errors == 0 || all.Services[5].Errors > 0 {
		t.Errorf("%+v", all)
	}
	if c := serviceOf(t, all, "shop").Calls[0]; c != (Call{Service: "db.internal", Requests: 2, Errors: 1, P99NS: 30e6}) {
		t.Errorf("shop calls %+v", c)
	}
	if c := serviceOf(t, all, "nginx").Callers; c[0].Service != "curl" || c[1].Service != elsewhere {
		t.Errorf("nginx is called by %+v", c)
	}
}

func TestServiceOverTime(t *testing.T) {
	s, _ := newServer(t)
	for _, name := range []string{"nginx", "db.internal", "[2001:db8::53]:53"} {
		one := get[ServiceDetail](t, s, "/api/v1/services/"+url.PathEscape(name)+"?since=1m")
		var requests, errors int64
		for i, b := range one.Buckets {
			requests += b.Requests
			errors += b.Errors
			if i > 0 && b.Time.Sub(one.Buckets[i-1].Time).Nanoseconds() != one.StepNS {
				t.Errorf("%s: the steps are not even", name)
			}
			if b.Requests > 0 && (b.P50NS == 0 || b.P99NS > one.MaxNS) {
				t.Errorf("%s: %+v", name, b)
			}
		}
		if len(one.Buckets) != detailSteps || requests != one.Requests || errors != one.Errors || requests == 0 {
			t.Errorf("%s: %d requests and %d errors in %d buckets, want %d and %d", name, requests, errors, len(one.Buckets), one.Requests, one.Errors)
		}
	}
}

// However many operations there are, memory is bounded, the sums hold, and the
// answer says that it is not whole.
func TestServicesFold(t *testing.T) {
	s, st := newServer(t, func(b *Backend) { b.Store = openStore(t) })
	_ = st
	const n = 3 * maxGroups
	b := &event.Batch{Wall: now.UnixNano() - sec(60)}
	for i := range n {
		r := web(exchange(1, 1, event.Server, shop, nil, "192.0.2.9:6000", "10.0.0.9:8080", 1, 1, 0), "GET", "/", "/r"+string(rune('A'+i%1000))+string(rune('A'+i/1000)), 200)
		b.Requests = append(b.Requests, r)
		if len(b.Requests) == 256 || i == n-1 {
			s.Store.Append(b)
			b.Requests = b.Requests[:0]
		}
	}
	all := get[Services](t, s, "/api/v1/services?since=1m")
	one := serviceOf(t, all, "shop")
	if one.Requests != n || all.Complete || len(one.Routes) != maxRoutes || one.MoreRoutes+maxRoutes > maxGroups+1 {
		t.Errorf("%d requests, complete %v, %d + %d routes", one.Requests, all.Complete, len(one.Routes), one.MoreRoutes)
	}
}
