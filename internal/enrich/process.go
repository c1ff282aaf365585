package enrich

import (
	"strings"

	"ghostlight/internal/enrich/container"
	"ghostlight/internal/event"
)

// The records of a process come from two sources that overlap: the hooks, and
// a snapshot that is taken after they were attached but may be read before
// what they saw. Start and ExecCount tell which record is the newer one. A
// record that is older than what the tree knows gets its Who, and changes
// nothing.

func (e *Enricher) process(b *event.Batch, row int) {
	r := &b.Processes[row]
	args := e.redacted(r)
	p := e.tree.find(r.PID, r.Start)
	switch {
	case p == nil:
		p = e.learn(r, args)
		e.await(p)
	case r.Action == event.Exit:
		e.ended(p, r)
	case r.ExecCount < p.count && !p.rough:
		r.Who = e.former(p, r, args)
		return
	case r.Action == event.Fork:
		// The child's fork is known, by a snapshot that was faster.
	case r.ExecCount > p.count || p.rough || p.partial:
		e.execute(p, r, args)
		e.await(p)
	}
	r.Who = p.who
	r.Complete = r.Complete && p.complete
	p.batch, p.row = e.batch, row
	if r.Action == event.Exit {
		e.tree.exit(p, r.Time)
	}
}

// redacted takes the arguments out of r: nothing behind enrich may see them raw.
func (e *Enricher) redacted(r *event.Process) string {
	if len(r.Args) == 0 {
		return ""
	}
	raw := e.raw[:0]
	for i, a := range r.Args {
		if i > 0 {
			raw = append(raw, 0)
		}
		raw = append(raw, a...)
	}
	clear(r.Args)
	r.Args = nil
	e.raw = raw
	e.text = e.rules.Args(e.text[:0], raw, r.ArgsCut)
	return string(e.text)
}

// learn adds a process that the tree does not know.
func (e *Enricher) learn(r *event.Process, args string) *process {
	p := &process{count: r.ExecCount, complete: true}
	if r.Action == event.Fork {
		e.forked(p, r)
	} else {
		p.who = e.newWho(r, args, "")
		p.complete = r.Action == event.Running
		p.partial = isPartial(r)
	}
	e.tree.insert(p, r.Time)
	e.adopt(p)
	e.learnt = true
	return p
}

// forked makes the first execution of a child: its parent's, under another id.
func (e *Enricher) forked(p *process, r *event.Process) {
	parent := e.tree.byPID[r.PPID]
	if parent == nil || parent.exited != 0 && parent.exited < r.Time {
		p.who = e.newWho(r, "", "")
		p.partial, p.complete = true, false
		return
	}
	who := *parent.who
	who.ExecID = execID(e.boot, r.PID, r.Start, r.ExecCount)
	who.ParentExecID = parent.who.ExecID
	who.PID, who.PPID, who.Start = r.PID, r.PPID, r.Start
	who.UID, who.GID = r.UID, r.GID
	who.Namespaces = r.Namespaces
	p.who, p.partial, p.complete = &who, parent.partial, parent.complete
	p.lookup = parent.lookup
	if r.CgroupID != 0 && r.CgroupID != who.CgroupID { // CLONE_INTO_CGROUP
		who.CgroupID = r.CgroupID
		e.settle(&who, e.cgroups.Path(r.CgroupID), p.service)
		p.done, p.settled = false, false
	}
}

// adopt gives p its parent, or notes that it waits for one.
func (e *Enricher) adopt(p *process) {
	if p.who.PPID == 0 || p.who.ParentExecID != "" {
		return
	}
	parent := e.tree.byPID[p.who.PPID]
	if parent != nil && parent.who.Start <= p.who.Start {
		p.who.ParentExecID = parent.who.ExecID
		return
	}
	if len(e.orphans) < maxOrphans {
		e.orphans = append(e.orphans, p)
	}
}

// maxOrphans bounds the processes that wait for their parents to become known.
const maxOrphans = 4096

// reunite gives orphans their parents, if these have come.
func (e *Enricher) reunite(b *event.Batch) {
	if !e.learnt {
		return
	}
	e.learnt = false
	waiting := e.orphans[:0]
	for _, p := range e.orphans {
		parent := e.tree.byPID[p.who.PPID]
		switch {
		case p.exited != 0 && p.batch != e.batch:
		case parent == nil || parent == p || parent.who.Start > p.who.Start:
			waiting = append(waiting, p)
		case p.who.ParentExecID == "":
			who := *p.who
			who.ParentExecID = parent.who.ExecID
			e.publish(b, p, &who)
		}
	}
	clear(e.orphans[len(waiting):])
	e.orphans = waiting
}

// execute gives p its next execution, or the details of the one it has.
func (e *Enricher) execute(p *process, r *event.Process, args string) {
	parent := p.who.ParentExecID
	again := p.count == r.ExecCount && !p.rough
	if r.PPID == 0 {
		r.PPID = p.who.PPID
	}
	old := p.who
	p.who = e.newWho(r, args, parent)
	p.count, p.rough, p.partial = r.ExecCount, false, isPartial(r)
	p.lookup = lookup{}
	if again && old.CgroupID == r.CgroupID {
		p.who.Service = old.Service
	}
}

// isPartial reports a record that lacks the executable. Kernel threads have none.
func isPartial(r *event.Process) bool {
	return r.Executable == "" && r.PPID != kthreadd && r.PID != kthreadd
}

// kthreadd is the pid of the parent of all kernel threads.
const kthreadd = 2

// former is the Who of an execution that is over: r came late.
func (e *Enricher) former(p *process, r *event.Process, args string) *event.Who {
	if r.Action != event.Fork {
		return e.newWho(r, args, p.who.ParentExecID)
	}
	var q process
	e.forked(&q, r)
	q.who.ParentExecID = p.who.ParentExecID
	return q.who
}

// ended completes p by what its exit tells.
func (e *Enricher) ended(p *process, r *event.Process) {
	if p.rough {
		return // its id was published, and stays
	}
	if r.ExecCount > p.count { // we missed an exec, and there is nothing left to read
		p.who = e.newWho(r, "", p.who.ParentExecID)
		p.count, p.complete = r.ExecCount, false
	}
}

func (e *Enricher) newWho(r *event.Process, args, parent string) *event.Who {
	who := &event.Who{
		ExecID: execID(e.boot, r.PID, r.Start, r.ExecCount), ParentExecID: parent,
		PID: r.PID, PPID: r.PPID, Start: r.Start,
		Executable: r.Executable, Name: nameOf(r.Executable),
		Args: args, ArgsCut: r.ArgsCut, Cwd: r.Cwd,
		UID: r.UID, GID: r.GID, CapEffective: r.CapEffective, Namespaces: r.Namespaces,
	}
	if who.Name == "" {
		who.Name, _, _ = strings.Cut(args, "\x00") // a kernel thread
	}
	if container.IsMonitor(who.Name) {
		e.names.Observe(who.Name, args, r.Cwd)
	}
	e.place(who, r.CgroupID)
	return who
}

// publish makes who the Who of p, in the records of this batch too. If others
// were told the old one, a Running record tells them the new one.
func (e *Enricher) publish(b *event.Batch, p *process, who *event.Who) {
	p.who = who
	if p.batch == e.batch {
		b.Processes[p.row].Who = who
		return
	}
	if p.exited == 0 {
		p.batch, p.row = e.batch, len(b.Processes)
		b.Processes = append(b.Processes, p.running(e.now))
	}
}

// running repeats p.
func (p *process) running(now int64) event.Process {
	w := p.who
	return event.Process{
		Time: now, Action: event.Running, PID: w.PID, PPID: w.PPID, Start: w.Start, ExecCount: p.count,
		UID: w.UID, GID: w.GID, CgroupID: w.CgroupID, Namespaces: w.Namespaces,
		Executable: w.Executable, ArgsCut: w.ArgsCut, Cwd: w.Cwd, CapEffective: w.CapEffective,
		Who: w, Complete: p.complete,
	}
}
