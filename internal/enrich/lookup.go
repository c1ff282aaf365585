package enrich

import (
	"ghostlight/internal/enrich/container"
	"ghostlight/internal/event"
)

// lookup is what is still to be found out about a process that shows up in a
// flow.
type lookup struct {
	done    bool   // /proc was read
	settled bool   // and there is nothing else to find out
	service string // that the process names itself, by its environment
}

// found is a container, and how far its name was looked for. Executions of
// one container share it.
type found struct {
	place container.Place
	c     *event.Container // replaced by a new one when the name is known
	named bool
	tries uint8
	next  int64
}

// retries are the pauses before a look for a container's name is repeated: its
// files may be written after its first process runs.
var retries = [...]int64{0, 1e9, 3e9, 10e9, 30e9}

// maxContainers bounds the containers that are remembered.
const maxContainers = 4096

// place says where who runs, by the id of its cgroup.
func (e *Enricher) place(who *event.Who, cgroup uint64) {
	who.CgroupID = cgroup
	e.settle(who, e.cgroups.Path(cgroup), "")
}

// settle says where who runs, by the path of its cgroup, and what service it
// is. declared is the name from its environment.
func (e *Enricher) settle(who *event.Who, path, declared string) {
	who.CgroupPath, who.Container = path, nil
	place := e.names.Place(path, container.Parse(path))
	if place.ID != "" {
		who.Container = e.container(place).c
	}
	who.Service = service(who, declared, place.Unit)
}

// container returns the container at p from the cache.
func (e *Enricher) container(p container.Place) *found {
	f := e.containers[p.ID]
	if f == nil {
		if len(e.containers) >= maxContainers {
			clear(e.containers)
		}
		c, ok := e.names.Monitored(p)
		f = &found{place: p, c: &c, named: ok}
		e.containers[p.ID] = f
	}
	return f
}

// name looks for the name of a container: what monitors tell is free, files
// are read a few times.
func (e *Enricher) name(f *found) {
	if f.named {
		return
	}
	c, ok := e.names.Monitored(f.place)
	if !ok {
		if int(f.tries) >= len(retries) || e.now < f.next || !e.spend() {
			return
		}
		c, ok = e.names.Find(f.place)
	}
	if f.named = ok; ok {
		f.c = &c
	}
	if f.tries++; int(f.tries) < len(retries) {
		f.next = e.now + retries[f.tries]
	}
}

// maxNameless bounds the processes that wait for the names of their containers.
const maxNameless = 4096

// await notes that p is to be told again when the name of its container is
// known.
func (e *Enricher) await(p *process) {
	if p.who.Container == nil || p.who.Container.Name != "" || len(e.nameless) >= maxNameless {
		return
	}
	e.nameless = append(e.nameless, p)
}

// christen tells again of processes whose containers got their names. It looks
// once a second at most.
func (e *Enricher) christen(b *event.Batch) {
	if len(e.nameless) == 0 || e.now < e.nextNames {
		return
	}
	e.nextNames = e.now + 1e9
	waiting := e.nameless[:0]
	for _, p := range e.nameless {
		if p.exited != 0 || p.who.Container == nil || p.who.Container.Name != "" {
			continue
		}
		f := e.containerOf(p.who)
		e.name(f)
		switch {
		case f.named:
			e.complete(b, p)
		case int(f.tries) < len(retries):
			waiting = append(waiting, p)
		}
	}
	clear(e.nameless[len(waiting):])
	e.nameless = waiting
}

func (e *Enricher) containerOf(who *event.Who) *found {
	return e.container(e.names.Place(who.CgroupPath, container.Parse(who.CgroupPath)))
}

// spend takes one look-up from the budget of this Apply, or notes that it is
// put off.
func (e *Enricher) spend() bool {
	if e.budget <= 0 {
		e.deferred.Add(1)
		return false
	}
	e.budget--
	e.looked.Add(1)
	return true
}

// complete finds out about p what only /proc and the engines' files know, once
// p shows up in a flow. It publishes what is new.
func (e *Enricher) complete(b *event.Batch, p *process) {
	who := p.who
	switch {
	case p.done:
	case p.exited != 0:
		p.done = true
	case e.spend():
		who = e.read(p)
	}
	settled := p.done
	if who.Container != nil {
		f := e.containerOf(who)
		e.name(f)
		settled = settled && (f.named || int(f.tries) >= len(retries))
		if f.c != who.Container {
			changed := *who
			changed.Container = f.c
			changed.Service = service(&changed, p.service, f.place.Unit)
			who = &changed
		}
	}
	p.settled = settled
	if who != p.who {
		e.publish(b, p, who)
	}
}

// read completes p from /proc. It returns p.who where nothing is new.
func (e *Enricher) read(p *process) *event.Who {
	dir, err := openProcess(e.proc, p.who.PID)
	if err != nil {
		p.done = true // it has ended, its exit is on the way
		return p.who
	}
	defer dir.Close()
	stat, err := dir.stat()
	if err != nil || !sameStart(p.who.Start, stat.start) {
		p.done = true
		return p.who
	}
	who := *p.who
	if p.partial {
		e.image(&who, dir, stat)
		p.partial = false
	}
	p.done = true
	p.service = dir.service(e.file)
	path := who.CgroupPath
	if path == "" || e.hybrid {
		path = dir.cgroup(e.file)
	}
	e.settle(&who, path, p.service)
	if who == *p.who {
		return p.who
	}
	return &who
}

// sameStart compares a start in nanoseconds with one cut to a tick.
func sameStart(start, ticks int64) bool { return ticks <= start && start < ticks+tick }
