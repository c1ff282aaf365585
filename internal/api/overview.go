package api

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"ghostlight/internal/query"
)

// Overview is what a person should look at first: what changed, how the
// services do, and the hosts. On a calm host nothing changed.
type Overview struct {
	WindowNS int64          `json:"window_ns"`
	Changes  []Change       `json:"changes"`
	Services []ServiceBrief `json:"services"`
	Hosts    []Host         `json:"hosts"`
	Complete bool           `json:"complete"`
}

// Change is something that is not as it was. Before and Now are nanoseconds of
// p99, the share of errors (0 to 1), or requests a second.
type Change struct {
	Service  string    `json:"service"`
	Route    string    `json:"route"`
	What     string    `json:"what"` // latency, errors or rate
	Before   float64   `json:"before"`
	Now      float64   `json:"now"`
	Since    time.Time `json:"since"`
	Sentence string    `json:"sentence"`

	weight float64 // how much it changed
}

// ServiceBrief is the RED of a service.
type ServiceBrief struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	RED
}

const (
	overviewWindow = 30 * time.Minute
	overviewSteps  = 30
	maxChanges     = 20
	maxBriefs      = 100
	leastHistory   = 5 * time.Minute
)

// The kinds of a change.
const (
	changedLatency = "latency"
	changedErrors  = "errors"
	changedRate    = "rate"
)

// sixth compares the last sixth of a range with its first half: what went wrong
// in between is still seen, and a single slow minute is not yet a change.
func sixth(from, until int64) span {
	whole := until - from
	return span{from: from, until: until, steps: overviewSteps, early: from + whole/2, late: until - whole/6}
}

// overview looks at the requests twice where something changed: to find what,
// and to find since when.
func (s *Server) overview(w http.ResponseWriter, r *http.Request) error {
	sel, err := s.selection(r)
	if err != nil {
		return err
	}
	c, err := s.census(r.Context(), sel, overviewWindow, sixth)
	if err != nil {
		return err
	}
	out := Overview{WindowNS: c.until - c.from, Changes: []Change{}, Services: []ServiceBrief{}, Hosts: []Host{s.Status().Host}, Complete: c.complete}
	for _, one := range c.services() {
		if one.Requests > 0 && len(out.Services) < maxBriefs {
			out.Services = append(out.Services, ServiceBrief{one.Name, one.Kind, one.RED})
		}
	}
	changes := c.changes()
	if len(changes) > 0 {
		if err := s.date(r.Context(), c, changes); err != nil {
			return err
		}
	}
	for _, change := range changes {
		out.Changes = append(out.Changes, change.Change)
	}
	return answer(w, out)
}

// suspect is a change whose beginning is looked for.
type suspect struct {
	Change
	protocol  string
	durations []query.Histogram // by step
	errors    []int64
}

// changes finds what is not as it was, the worst first.
func (c *census) changes() []*suspect {
	if c.until-c.from < int64(leastHistory) {
		return nil // nobody knows yet what is usual
	}
	var all []*suspect
	for _, d := range c.drafts {
		for k, r := range d.routes {
			for _, change := range c.compare(r) {
				change.Service, change.Route = d.name, k.name
				all = append(all, &suspect{Change: change, protocol: k.protocol, durations: make([]query.Histogram, c.steps), errors: make([]int64, c.steps)})
			}
		}
	}
	order := map[string]int{changedErrors: 0, changedLatency: 1, changedRate: 2}
	slices.SortFunc(all, func(a, b *suspect) int {
		return cmp.Or(cmp.Compare(order[a.What], order[b.What]), -cmp.Compare(a.weight, b.weight), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Route, b.Route))
	})
	return all[:min(len(all), maxChanges)]
}

// What is worth telling. A handful of requests prove nothing, and a change that
// nobody feels is none.
const (
	fewest      = 50                   // requests before, to know what is usual
	slowdown    = 2.0                  // times as slow
	slowdownBy  = 5 * time.Millisecond // and at least so much slower
	tailShare   = 0.03                 // of the requests, or tailCount of them, must be that slow
	tailCount   = 5
	errorsTimes = 3.0 // times as many errors
	errorsBy    = 0.01
	rateTimes   = 3.0 // times as many requests, or as few
	ratePerPart = 100 // requests expected, at least
)

// compare tells how an operation changed between the early and the late part.
func (c *census) compare(r *routeDraft) (changes []Change) {
	was, is := &r.red[partEarly], &r.red[partLate]
	before, now := float64(was.durations.Count()), float64(is.durations.Count())
	span, lateSpan := float64(c.early-c.from), float64(c.until-c.late)
	if before < fewest {
		return nil
	}
	if expected := before * lateSpan / span; expected >= ratePerPart && (now > expected*rateTimes || now < expected/rateTimes) {
		changes = append(changes, Change{What: changedRate, Before: before / span * 1e9, Now: now / lateSpan * 1e9, weight: math.Abs(math.Log((now + 1) / expected))})
	}
	if now == 0 {
		return changes
	}
	failedBefore, failedNow := float64(was.errors)/before, float64(is.errors)/now
	if is.errors >= tailCount && failedNow > failedBefore*errorsTimes+errorsBy {
		changes = append(changes, Change{What: changedErrors, Before: failedBefore, Now: failedNow, weight: failedNow - failedBefore})
	}
	p99, _ := was.durations.Quantile(0.99)
	slow, _ := is.durations.Quantile(1 - max(tailShare, tailCount/now))
	if now >= 2*tailCount && float64(slow) > slowdown*float64(p99) && slow-p99 > int64(slowdownBy) {
		late, _ := is.durations.Quantile(0.99)
		changes = append(changes, Change{What: changedLatency, Before: float64(p99), Now: float64(late), weight: float64(late) / float64(max(1, p99))})
	}
	return changes
}

// date finds since when each change holds.
func (s *Server) date(ctx context.Context, c *census, changes []*suspect) error {
	wanted := map[*group][]*suspect{}
	for g, name := range c.answered {
		for _, one := range changes {
			if one.Service == name && one.Route == c.operation(g) && one.protocol == c.of(g, wordProtocol) {
				wanted[g] = append(wanted[g], one)
			}
		}
	}
	err := s.again(ctx, c, func(g *group, at, took int64, failed bool) {
		for _, one := range wanted[g] {
			step := c.at(at)
			one.durations[step].Add(took)
			if failed {
				one.errors[step]++
			}
		}
	})
	for _, one := range changes {
		one.Since = time.Unix(0, c.since(one)).UTC()
		one.Sentence = one.sentence()
	}
	return err
}

// since walks back from the late part for as long as the steps are rather like
// now than like before. A step without requests tells nothing of how they go.
func (c *census) since(one *suspect) int64 {
	begin := c.at(c.late)
	for step := begin - 1; step >= 0; step-- {
		n := float64(one.durations[step].Count())
		if n == 0 && one.What != changedRate {
			continue
		}
		if !one.like(c, step, n) {
			break
		}
		begin = step
	}
	return max(c.from, c.begin(begin))
}

// like tells whether a step lies on the new side of the middle.
func (one *suspect) like(c *census, step int, n float64) bool {
	value := 0.0
	switch one.What {
	case changedErrors:
		value = float64(one.errors[step]) / n
		return value > (one.Before+one.Now)/2
	case changedRate:
		value = n / float64(c.step()) * 1e9
	default:
		p99, _ := one.durations[step].Quantile(0.99)
		value = float64(p99)
	}
	middle := math.Sqrt((one.Before + 1e-9) * (one.Now + 1e-9))
	return (value > middle) == (one.Now > one.Before)
}

// sentence says it to a person.
func (one *suspect) sentence() string {
	what, show := "p99", func(v float64) string { return duration(time.Duration(v)) }
	switch one.What {
	case changedErrors:
		what, show = "errors", func(v float64) string { return significant(100*v) + " %" }
	case changedRate:
		what, show = "requests", func(v float64) string { return significant(v) + "/s" }
	}
	return fmt.Sprintf("%s %s: %s %s -> %s since %s UTC", one.Service, one.Route, what, show(one.Before), show(one.Now), one.Since.Format("15:04"))
}

// duration writes a time with three significant digits.
func duration(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{time.Second, "s"}, {time.Millisecond, "ms"}, {time.Microsecond, "µs"}} {
		if d >= u.unit {
			return significant(float64(d)/float64(u.unit)) + " " + u.name
		}
	}
	return significant(float64(d)) + " ns"
}

// significant writes a number with three significant digits.
func significant(v float64) string {
	if v >= 1000 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
