package api

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/query"
	"ghostlight/internal/store"
)

// Services is how the services of this host, and those they ask elsewhere, do:
// the worst first.
type Services struct {
	WindowNS int64     `json:"window_ns"`
	Services []Service `json:"services"`
	Complete bool      `json:"complete"`
}

// Service is the rate, errors and durations of the requests a service answered.
// Of one elsewhere they are as its clients saw them.
type Service struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // service or external
	RED
	Protocols  []string `json:"protocols"`
	Routes     []Route  `json:"routes"`
	MoreRoutes int      `json:"more_routes,omitempty"` // how many are left out
	Calls      []Call   `json:"calls"`
	Callers    []Call   `json:"callers"`

	growth float64
}

// RED is rate, errors and duration.
type RED struct {
	Requests  int64   `json:"requests"`
	Rate      float64 `json:"rate"` // a second
	Errors    int64   `json:"errors"`
	ErrorRate float64 `json:"error_rate"` // share, 0 to 1
	P50NS     int64   `json:"p50_ns"`
	P90NS     int64   `json:"p90_ns"`
	P99NS     int64   `json:"p99_ns"`
	MaxNS     int64   `json:"max_ns"`
}

// Route is one operation of a service. Heat is requests by step of the window.
type Route struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	RED
	Heat []uint32 `json:"heat"`

	growth float64
}

// Call is the requests between a service and another.
type Call struct {
	Service  string `json:"service"`
	Requests int64  `json:"requests"`
	Errors   int64  `json:"errors"`
	P99NS    int64  `json:"p99_ns"`
}

// ServiceDetail is a service with its past.
type ServiceDetail struct {
	WindowNS int64 `json:"window_ns"`
	Service
	StepNS   int64    `json:"step_ns"`
	Buckets  []Bucket `json:"buckets"`
	Complete bool     `json:"complete"`
}

// Bucket is a step of the window.
type Bucket struct {
	Time     time.Time `json:"time"` // when it begins
	Requests int64     `json:"requests"`
	Errors   int64     `json:"errors"`
	P50NS    int64     `json:"p50_ns"`
	P99NS    int64     `json:"p99_ns"`
}

const (
	requestWindow = 15 * time.Minute
	heatSteps     = 30
	detailSteps   = 60
	maxServices   = 500
	maxRoutes     = 20 // of each service, where many are listed
	kindService   = "service"
	kindExternal  = "external"
	elsewhere     = "external" // who asks from where we see nothing
)

func (s *Server) services(w http.ResponseWriter, r *http.Request) error {
	sel, err := s.selection(r)
	if err != nil {
		return err
	}
	c, err := s.census(r.Context(), sel, requestWindow, halves(heatSteps))
	if err != nil {
		return err
	}
	out := Services{WindowNS: c.until - c.from, Services: c.services(), Complete: c.complete}
	if len(out.Services) > maxServices {
		out.Services, out.Complete = out.Services[:maxServices], false
	}
	for i := range out.Services {
		one := &out.Services[i]
		if more := len(one.Routes) - maxRoutes; more > 0 {
			one.Routes, one.MoreRoutes = one.Routes[:maxRoutes], more
		}
	}
	return answer(w, out)
}

func (s *Server) service(w http.ResponseWriter, r *http.Request) error {
	sel, err := s.selection(r)
	if err != nil {
		return err
	}
	c, err := s.census(r.Context(), sel, requestWindow, halves(detailSteps))
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	all := c.services()
	i := slices.IndexFunc(all, func(one Service) bool { return one.Name == name })
	if i < 0 {
		return wrong(http.StatusNotFound, "ask for a longer time, or see /api/v1/services", "no request of a service %.80q was seen", name)
	}
	out := ServiceDetail{WindowNS: c.until - c.from, Service: all[i], StepNS: c.step(), Complete: c.complete}
	out.Buckets, err = s.past(r.Context(), c, name)
	if err != nil {
		return err
	}
	return answer(w, out)
}

// census is requests counted by who asked whom for what.
type census struct {
	*tally
	sel      selection
	complete bool
	drafts   map[string]*serviceDraft
	answered map[*group]string // by whom
}

// cutting parts a range of time.
type cutting func(from, until int64) span

// halves compares the second half of a range with the first.
func halves(steps int) cutting {
	return func(from, until int64) span {
		middle := from + (until-from)/2
		return span{from: from, until: until, steps: steps, early: middle, late: middle}
	}
}

// census counts the requests of a selection.
func (s *Server) census(ctx context.Context, sel selection, window time.Duration, cut cutting) (*census, error) {
	c := &census{sel: s.within(sel, window), answered: map[*group]string{}}
	snapshot := s.Store.Snapshot()
	defer snapshot.Close()
	from := c.sel.since
	if sources := snapshot.Sources(event.KindRequest); len(sources) > 0 {
		from = max(from, min(sources[0].Extent().Oldest, c.sel.until-int64(time.Second))) // a young store has seen less
	}
	c.tally = newTally(snapshot.Schema(event.KindRequest), cut(from, c.sel.until), &byOperation, maxGroups)
	var err error
	if c.complete, err = s.scan(ctx, snapshot, c.sel, c.tally); err != nil {
		return nil, err
	}
	c.complete = c.complete && len(c.groups) < maxGroups
	c.assign()
	return c, nil
}

// scan visits the requests of a selection.
func (s *Server) scan(ctx context.Context, snapshot *store.Snapshot, sel selection, t *tally) (complete bool, err error) {
	q, err := s.request(event.KindRequest, sel)
	if err != nil {
		return false, err
	}
	result, err := query.Each(ctx, snapshot, q, t.add)
	return result.Complete && !t.broken, err
}

// again visits the requests once more, now that it is known who answered them.
func (s *Server) again(ctx context.Context, c *census, visit func(g *group, at, took int64, failed bool)) error {
	snapshot := s.Store.Snapshot()
	defer snapshot.Close()
	c.visit = visit
	_, err := s.scan(ctx, snapshot, c.sel, c.tally)
	return err
}

// within bounds a selection on both sides: by now, and by a usual span.
func (s *Server) within(sel selection, window time.Duration) selection {
	if sel.until == 0 {
		sel.until = s.now().UnixNano()
	}
	if sel.since == 0 {
		sel.since = sel.until - int64(window)
	}
	return sel
}

// serviceDraft is a service being put together.
type serviceDraft struct {
	name, kind     string
	red            red
	protocols      map[string]bool
	routes         map[routeKey]*routeDraft
	calls, callers map[string]*red
}

type routeKey struct{ name, protocol string }

type routeDraft struct {
	red
	heat []uint32
}

// assign gives each group to the service that answered it: the servers' records
// first, then those of the clients whose servers tell nothing.
//
// A call is counted as the client saw it, or else as the server did.
func (c *census) assign() {
	c.drafts = map[string]*serviceDraft{}
	served := map[string]string{} // service by endpoint
	for _, g := range c.groups {
		if c.isServer(g) {
			name := c.own(g)
			c.draft(name, kindService).take(c, g)
			if at := c.endpoint(g); served[at] == "" || name < served[at] {
				served[at] = name
			}
		}
	}
	delete(served, "")
	answers := maps.Clone(c.drafts)
	for _, g := range c.groups {
		if c.isServer(g) {
			continue
		}
		name, kind := c.callee(g, served)
		if answers[name] == nil {
			c.draft(name, kind).take(c, g)
		}
		c.call(c.own(g), name, g)
	}
	for _, g := range c.groups {
		if !c.isServer(g) {
			continue
		}
		client := firstOf(c.of(g, wordPeer), elsewhere)
		if d := c.drafts[client]; d == nil || d.calls[c.own(g)] == nil || client == elsewhere {
			mergeInto(c.drafts[c.own(g)].callers, client, &g.red)
		}
	}
	c.mirror()
}

// callee names whom a client asked.
func (c *census) callee(g *group, served map[string]string) (name, kind string) {
	if peer := firstOf(c.of(g, wordPeer), served[c.endpoint(g)]); peer != "" {
		return peer, kindService
	}
	return firstOf(c.of(g, wordServerName), c.endpoint(g), "unknown"), kindExternal
}

func (c *census) draft(name, kind string) *serviceDraft {
	d := c.drafts[name]
	if d == nil {
		d = &serviceDraft{name: name, kind: kind, protocols: map[string]bool{}, routes: map[routeKey]*routeDraft{}, calls: map[string]*red{}, callers: map[string]*red{}}
		c.drafts[name] = d
	}
	return d
}

// take counts a group as answered by d.
func (d *serviceDraft) take(c *census, g *group) {
	protocol := c.of(g, wordProtocol)
	c.answered[g] = d.name
	d.red.merge(&g.red)
	d.protocols[protocol] = true
	k := routeKey{c.operation(g), protocol}
	r := d.routes[k]
	if r == nil {
		r = &routeDraft{heat: make([]uint32, len(g.heat))}
		d.routes[k] = r
	}
	r.merge(&g.red)
	for i, n := range g.heat {
		r.heat[i] += n
	}
}

func (c *census) call(client, server string, g *group) {
	mergeInto(c.draft(client, kindService).calls, server, &g.red)
	mergeInto(c.draft(server, kindExternal).callers, client, &g.red)
}

func mergeInto(all map[string]*red, name string, r *red) {
	if all[name] == nil {
		all[name] = &red{}
	}
	all[name].merge(r)
}

// mirror tells the clients of the calls that only their servers saw.
func (c *census) mirror() {
	for name, d := range c.drafts {
		for client, r := range d.callers {
			if from := c.drafts[client]; from != nil && client != elsewhere && from.calls[name] == nil {
				mergeInto(from.calls, name, r)
			}
		}
	}
}

// services lists them, the worst first: by their share of errors, then by how
// much slower they became.
func (c *census) services() []Service {
	all := []Service{}
	for _, d := range c.drafts {
		all = append(all, c.service(d))
	}
	slices.SortFunc(all, func(a, b Service) int {
		return cmp.Or(worse(a.RED, a.growth, b.RED, b.growth), cmp.Compare(a.Name, b.Name))
	})
	return all
}

func worse(a RED, growth float64, b RED, other float64) int {
	return cmp.Or(-cmp.Compare(a.ErrorRate, b.ErrorRate), -cmp.Compare(growth, other), -cmp.Compare(a.Requests, b.Requests))
}

func (c *census) service(d *serviceDraft) Service {
	one := Service{
		Name: d.name, Kind: d.kind, RED: c.redOf(&d.red), growth: d.red.growth(), Protocols: slices.Sorted(maps.Keys(d.protocols)),
		Routes: []Route{}, Calls: callsOf(d.calls), Callers: callsOf(d.callers),
	}
	if one.Protocols == nil {
		one.Protocols = []string{}
	}
	for k, r := range d.routes {
		one.Routes = append(one.Routes, Route{Name: k.name, Protocol: k.protocol, RED: c.redOf(&r.red), Heat: r.heat, growth: r.growth()})
	}
	slices.SortFunc(one.Routes, func(a, b Route) int {
		return cmp.Or(worse(a.RED, a.growth, b.RED, b.growth), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol))
	})
	return one
}

// redOf works out what was counted.
func (c *census) redOf(r *red) RED {
	all, errors := r.whole()
	out := RED{Requests: int64(all.Count()), Errors: errors}
	if out.Requests == 0 {
		return out
	}
	out.Rate = float64(out.Requests) / (float64(c.until-c.from) / 1e9)
	out.ErrorRate = float64(errors) / float64(out.Requests)
	out.P50NS, _ = all.Quantile(0.5)
	out.P90NS, _ = all.Quantile(0.9)
	out.P99NS, _ = all.Quantile(0.99)
	out.MaxNS, _ = all.Quantile(1)
	return out
}

// enough requests in a part tell something about its tail.
const enough = 20

// growth is how many times slower the slow requests of late are.
func (r *red) growth() float64 {
	was, is := &r[partEarly].durations, &r[partLate].durations
	if was.Count() < enough || is.Count() < enough {
		return 1
	}
	before, _ := was.Quantile(0.99)
	now, _ := is.Quantile(0.99)
	return float64(now) / float64(max(1, before))
}

// callsOf lists calls, those with the most requests first.
func callsOf(all map[string]*red) []Call {
	calls := []Call{}
	for name, r := range all {
		durations, errors := r.whole()
		p99, _ := durations.Quantile(0.99)
		calls = append(calls, Call{Service: name, Requests: int64(durations.Count()), Errors: errors, P99NS: p99})
	}
	slices.SortFunc(calls, func(a, b Call) int {
		return cmp.Or(-cmp.Compare(a.Requests, b.Requests), cmp.Compare(a.Service, b.Service))
	})
	return calls
}

// past is how a service did, step by step.
func (s *Server) past(ctx context.Context, c *census, name string) ([]Bucket, error) {
	durations, errors := make([]query.Histogram, c.steps), make([]int64, c.steps)
	err := s.again(ctx, c, func(g *group, at, took int64, failed bool) {
		if c.answered[g] != name {
			return
		}
		step := c.at(at)
		durations[step].Add(took)
		if failed {
			errors[step]++
		}
	})
	buckets := make([]Bucket, c.steps)
	for i := range buckets {
		b := Bucket{Time: time.Unix(0, c.begin(i)).UTC(), Requests: int64(durations[i].Count()), Errors: errors[i]}
		b.P50NS, _ = durations[i].Quantile(0.5)
		b.P99NS, _ = durations[i].Quantile(0.99)
		buckets[i] = b
	}
	return buckets, err
}
