package enrich

import "ghostlight/internal/event"

// flow fills in both ends of f.
func (e *Enricher) flow(b *event.Batch, f *event.Flow) {
	f.Who = e.who(f.PID, f.End)
	f.Peer = e.who(f.PeerPID, f.End)
	if f.Who == nil {
		e.unknown.Add(1)
	}
}

// who returns the execution that pid was at a monotonic time, nil if unknown.
func (e *Enricher) who(pid uint32, time int64) *event.Who {
	if pid == 0 {
		return nil
	}
	p := e.tree.at(pid, time+e.suspended)
	if p == nil {
		return nil
	}
	e.tree.touch(p)
	return p.who
}
