package tls

import (
	"cmp"
	"slices"
	"time"

	"ghostlight/internal/sensor"
	"ghostlight/internal/sensor/tls/place"
)

// lookFor is how long the first look around may keep who asks.
const lookFor = 3 * time.Second

// Sights tells into which programs and libraries the sensor sees, and into
// which it would have to and cannot.
func (in *instance) Sights() []sensor.Sight {
	if in.files == nil {
		return nil
	}
	select {
	case <-in.files.looked:
	case <-time.After(lookFor):
	}
	return in.files.sights()
}

func (f *files) sights() (list []sensor.Sight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.attached {
		for _, l := range a.libs {
			if s, ok := sight(l); ok {
				s.File, s.PIDs = a.path, a.pids()
				list = append(list, s)
			}
		}
	}
	for _, v := range f.verdicts {
		if v.why != "" {
			list = append(list, sensor.Sight{File: v.path, Kind: "something", PIDs: []uint32{}, Note: v.why})
		}
	}
	slices.SortFunc(list, func(x, y sensor.Sight) int { return cmp.Compare(x.File, y.File) })
	return list
}

// sight says what is seen of a library; of a Go program without TLS only if its
// goroutines are not.
func sight(l place.Library) (sensor.Sight, bool) {
	s := sensor.Sight{Kind: l.Name, OK: l.Why == "", Note: l.Why}
	if len(l.Sites) > 0 {
		s.Note = l.Cost()
	}
	if l.Runtime == nil {
		return s, true
	}
	if l.Runtime.Version != "" {
		s.Kind = l.Runtime.Version
	}
	if l.Runtime.Why != "" {
		s.OK = false
		s.Note = l.Runtime.Why
	}
	return s, s.Note != ""
}

func (a *attached) pids() []uint32 {
	pids := make([]uint32, 0, len(a.users))
	for pid := range a.users {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids
}
