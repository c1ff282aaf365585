package agent

import (
	"slices"
	"time"
)

// budget keeps Ghostlight inside what the user allows it to cost. It is fed
// the cost of each period and says which sensor to let go or take back.
//
//	over the limit for overPeriods     -> let go of the next sensor in order
//	under restoreBelow for calmPeriods -> take the last one back
//
// A sensor that had to be let go again soon after it came back stays away
// twice as long each time, up to an hour.
type budget struct {
	cpu    float64  // limit, share of one core; 0 is none
	memory int64    // limit, bytes; 0 is none
	order  []string // sensors that may be let go, the first one first

	shed  []string // let go, in order
	over  int      // periods in a row above a limit
	calm  int      // periods in a row well below both
	hold  int      // calm periods needed before the next one comes back
	since int      // periods since one came back, 0 if none did
}

// cost is what a period took. Watching is the programs and the reader.
type cost struct {
	CPU      float64
	Process  float64 // of it, the agent's own
	Watching float64
	Memory   int64
}

// sheddable is the part of CPU that letting go of sensors can lower: queries and
// the UI are no part of it. What the reader hands on is written to disk and its
// garbage collected by other threads, which take about as much again: under a
// storm of connections they took 47 to 55 of 100.
func (c cost) sheddable() float64 { return min(c.CPU, 2*c.Watching) }

const (
	budgetPeriod = 5 * time.Second
	overPeriods  = 2
	calmPeriods  = 6
	maxHold      = 720 // one hour of periods
	restoreBelow = 0.6
)

// period judges one period. drop and restore name the sensor to let go or to
// take back, if any.
func (b *budget) period(c cost) (drop, restore string) {
	if b.since > 0 {
		b.since++
	}
	switch {
	case b.exceeded(c):
		b.over, b.calm = b.over+1, 0
	case b.relaxed(c):
		b.over, b.calm = 0, b.calm+1
	default:
		b.over, b.calm = 0, 0
	}
	if b.over >= overPeriods && len(b.shed) < len(b.order) {
		return b.letGo(), ""
	}
	if len(b.shed) > 0 && b.calm >= max(b.hold, calmPeriods) {
		return "", b.takeBack()
	}
	return "", ""
}

// exceeded tells whether a limit is passed and letting go would help.
func (b *budget) exceeded(c cost) bool {
	return b.cpu > 0 && c.sheddable() > b.cpu || b.memory > 0 && c.Memory > b.memory
}

func (b *budget) relaxed(c cost) bool {
	return (b.cpu == 0 || c.sheddable() < b.cpu*restoreBelow) && (b.memory == 0 || c.Memory < b.memory)
}

// uneasy tells whether the next periods may decide something.
func (b *budget) uneasy() bool { return b.over > 0 || len(b.shed) > 0 }

func (b *budget) letGo() string {
	switch {
	case b.since == 0: // the first time, or one more in a row
		b.hold = max(b.hold, calmPeriods)
	case b.since <= 2*b.hold:
		b.hold = min(2*b.hold, maxHold)
	default:
		b.hold = calmPeriods
	}
	b.over, b.since = 0, 0
	i := slices.IndexFunc(b.order, func(name string) bool { return !slices.Contains(b.shed, name) })
	b.shed = append(b.shed, b.order[i])
	return b.order[i]
}

// among changes which sensors may be let go. One that is let go and no longer
// among them is forgotten.
func (b *budget) among(order []string) {
	b.order = order
	b.shed = slices.DeleteFunc(b.shed, func(name string) bool { return !slices.Contains(order, name) })
}

func (b *budget) takeBack() string {
	b.calm, b.since = 0, 1
	name := b.shed[len(b.shed)-1]
	b.shed = slices.Delete(b.shed, len(b.shed)-1, len(b.shed))
	return name
}
