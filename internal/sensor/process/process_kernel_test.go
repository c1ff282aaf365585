package process

import (
	"os/exec"
	"testing"

	"ghostlight/internal/event"
)

func TestLife(t *testing.T) {
	w := start(t)
	pid := run(t, 0, exec.Command("/bin/true", "a", "", "b c"))
	fork, exec, exit := w.one(t, "fork", is(event.Fork, pid)), w.one(t, "exec", is(event.Exec, pid)), w.one(t, "exit", is(event.Exit, pid))
	t.Logf("%+v", fork)
	t.Logf("%+v", exec)
	t.Logf("%+v", exit)
	for _, p := range w.all(func(p *event.Process) bool { return p.Action == event.Running }) {
		t.Logf("%d %s %q %s", p.PID, p.Executable, p.Args, p.Cwd)
	}
}
