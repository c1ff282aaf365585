package enrich

import "ghostlight/internal/event"

// lookup is how far a process is looked up.
type lookup struct {
}

// place says where who runs, by the id of its cgroup.
func (e *Enricher) place(who *event.Who, cgroup uint64) {
	who.CgroupID = cgroup
	who.Service = who.Name
}
