package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"ghostlight/test/vm/plan"
)

// A matrix runs the suites on one kernel after the other and keeps what came
// of it.
type matrix struct {
	env         goEnv
	suites      []suite
	doctor      bool // run the product's doctor too
	work, cache string
	options     options

	runs []*outcome
}

// An outcome is what came of one kernel.
type outcome struct {
	kernel   kernel
	results  results
	doctor   string // what it printed
	problems []string
	cpu      time.Duration // of the emulation, whatever else the host did
	elapsed  time.Duration
}

func (o *outcome) problem(format string, args ...any) {
	o.problems = append(o.problems, fmt.Sprintf(format, args...))
}

const doctorJob = "ghostlight doctor"

// testAll tests the kernels, a few at a time, and begins with the first ones.
func (x *matrix) testAll(ctx context.Context, kernels []kernel) {
	free := make(chan struct{}, max(x.options.parallel, 1))
	var all sync.WaitGroup
	for _, k := range kernels {
		o := &outcome{kernel: k, results: results{}}
		x.runs = append(x.runs, o)
		free <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		all.Go(func() { // ends with its machine, at the latest after the time limit
			defer func() { <-free }()
			x.test(ctx, o)
		})
	}
	all.Wait()
}

// test boots one kernel. What fails is a problem of its outcome: the other
// kernels are tested all the same.
func (x *matrix) test(ctx context.Context, o *outcome) {
	k, start := o.kernel, time.Now()
	m := machine{
		kernel:  k,
		initrd:  filepath.Join(x.work, "initrd-"+k.Series),
		log:     filepath.Join(x.cache, k.Series+".log"),
		console: filepath.Join(x.cache, k.Series+".console.log"),
		timeout: x.options.timeout,
	}
	if err := x.pack(m); err != nil {
		o.problem("%v", err)
		return
	}
	if !x.options.keep {
		defer os.Remove(m.initrd)
	}
	progress(k.Series, "boot")
	printed := map[string]*bytes.Buffer{}
	cpu, err := m.boot(ctx, func(f plan.Frame) { x.frame(ctx, o, printed, f) })
	if err != nil {
		o.problem("%v", err)
	}
	x.missing(ctx, o, printed)
	lines, err := alarms(m.console)
	if err != nil {
		o.problem("%v", err)
	}
	for _, line := range lines {
		o.problem("the kernel said: %s", line)
	}
	o.cpu, o.elapsed = cpu.Round(100*time.Millisecond), since(start)
	progress(k.Series, "done in %v (%v of CPU), %d problems", o.elapsed, o.cpu, len(o.problems))
}

// pack makes the machine's image: the base, then an archive of its own.
func (x *matrix) pack(m machine) error {
	tree, err := openModules(filepath.Join(m.kernel.dir, m.kernel.Modules))
	if err != nil {
		return err
	}
	mods, absent, err := tree.order(wantedModules)
	if err != nil {
		return err
	}
	progress(m.kernel.Series, "%d modules", len(mods))
	if len(absent) > 0 {
		progress(m.kernel.Series, "has no %s", strings.Join(absent, ", "))
	}
	p := plan.Plan{Release: m.kernel.Release, Jobs: x.jobs()}
	own := m.initrd + ".own"
	defer os.Remove(own)
	if err := writeArchive(own, func(a *archive) error { return addKernel(a, mods, p) }); err != nil {
		return err
	}
	return concatenate(m.initrd, filepath.Join(x.work, "base"), own)
}

func concatenate(to string, from ...string) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	for _, name := range from {
		in, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		in.Close()
		if err != nil {
			return err
		}
	}
	return out.Close()
}

// jobs gives each suite half of the machine's time: one that hangs then still
// leaves some to those after it.
func (x *matrix) jobs() []plan.Job {
	limit := x.options.timeout / 2
	var jobs []plan.Job
	if x.doctor {
		jobs = append(jobs, plan.Job{Name: doctorJob, Dir: "/", Timeout: limit,
			Args: []string{"/bin/ghostlight", "doctor", "-o", "json"}})
	}
	for _, s := range x.suites {
		jobs = append(jobs, plan.Job{Name: s.pkg, Dir: s.guestDir(), Timeout: limit + 15*time.Second, Args: []string{
			s.guestDir() + "/" + filepath.Base(s.binary),
			"-test.v=test2json", "-test.paniconexit0", "-test.timeout=" + limit.String(), "-test.run=" + s.pattern(x.options.run)}})
	}
	return jobs
}

func (x *matrix) frame(ctx context.Context, o *outcome, printed map[string]*bytes.Buffer, f plan.Frame) {
	if f.Note != "" {
		o.problem("guest: %s", f.Note)
	}
	if f.Job == "" {
		return
	}
	if printed[f.Job] == nil {
		printed[f.Job] = &bytes.Buffer{}
	}
	printed[f.Job].WriteString(f.Out)
	if f.End != nil {
		x.ended(ctx, o, f.Job, printed[f.Job].Bytes(), f.End)
		delete(printed, f.Job)
	}
}

// ended reads what a job printed once it is over.
func (x *matrix) ended(ctx context.Context, o *outcome, job string, printed []byte, end *plan.End) {
	if job == doctorJob {
		o.doctor = string(printed)
		if end.Code != 0 {
			o.problem("%s: exit %d %s\n%s", job, end.Code, end.Error, printed)
		}
		progress(o.kernel.Series, "%s: exit %d (%v)", job, end.Code, end.Elapsed.Round(10*time.Millisecond))
		return
	}
	x.read(ctx, o, job, printed)
	if end.Code != 0 && o.results.count(job, failed) == 0 {
		o.results[test{pkg: job}] = result{failed, strings.TrimSpace(end.Error + "\n" + lastLines(printed))}
	}
	progress(o.kernel.Series, "%s: %s (%v)", job, o.results.summary(job), end.Elapsed.Round(10*time.Millisecond))
}

func (x *matrix) read(ctx context.Context, o *outcome, pkg string, printed []byte) {
	events, err := x.env.toEvents(ctx, pkg, printed)
	if err != nil {
		o.problem("%s: %v", pkg, err)
		return
	}
	torn, err := o.results.readEvents(strings.NewReader(events))
	if err != nil || torn > 0 {
		o.problem("%s: %d torn events, %v", pkg, torn, err)
	}
}

func lastLines(printed []byte) string {
	lines := strings.Split(strings.TrimSpace(string(printed)), "\n")
	return strings.Join(lines[max(0, len(lines)-maxWhy):], "\n")
}

func (rs results) summary(pkg string) string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", rs.count(pkg, passed), rs.count(pkg, failed), rs.count(pkg, skipped))
}

// missing reads jobs that never ended and fails the tests that never began:
// no result is worse than a bad one.
func (x *matrix) missing(ctx context.Context, o *outcome, printed map[string]*bytes.Buffer) {
	for job, out := range printed {
		if job != doctorJob {
			x.read(ctx, o, job, out.Bytes())
		}
	}
	for _, s := range x.suites {
		for _, name := range s.tests {
			t := test{s.pkg, name}
			if _, ok := o.results[t]; !ok {
				o.results[t] = result{failed, "did not run"}
			}
		}
	}
}

// conclude prints the tables and is an error unless all is well.
func (x *matrix) conclude(out io.Writer, host results) error {
	smokeTable, doctorTable := newTable("capability"), newTable("ghostlight doctor")
	for _, o := range x.runs {
		smokeTable.addCapabilities(o.kernel.Series, o.results)
		if !x.doctor {
			continue
		}
		if err := doctorTable.addDoctor(o.kernel.Series, o.doctor); err != nil {
			o.problem("%v", err)
		}
	}
	err := errors.Join(smokeTable.print(out), doctorTable.print(out))
	x.printSkips(out)
	idle := x.printSkippedEverywhere(out, host)
	bad := x.printProblems(out)
	err = errors.Join(err, x.printSummary(out))
	if bad > 0 {
		err = errors.Join(err, fmt.Errorf("%d failed tests and problems", bad))
	}
	if idle > 0 && host != nil {
		err = errors.Join(err, fmt.Errorf("%d tests are skipped everywhere", idle))
	}
	return err
}

func (x *matrix) printSkips(out io.Writer) {
	for _, o := range x.runs {
		for _, t := range o.results.sorted(skipped) {
			fmt.Fprintf(out, "\nskipped on %s: %v: %s", o.kernel.Series, t, o.results[t].why)
		}
	}
	fmt.Fprintln(out)
}

func (x *matrix) printSkippedEverywhere(out io.Writer, host results) int {
	var machines []results
	for _, o := range x.runs {
		machines = append(machines, o.results)
	}
	where := "on all of these kernels"
	if host != nil {
		machines = append(machines, host)
		where = "on all of these kernels and on the host"
	}
	idle := skippedEverywhere(machines...)
	for _, t := range x.ours(idle) {
		fmt.Fprintf(out, "skipped %s: %v\n", where, t)
	}
	return len(x.ours(idle))
}

// ours leaves out the host's tests that are not for this matrix.
func (x *matrix) ours(list []test) (kept []test) {
	for _, t := range list {
		for _, o := range x.runs {
			if _, ok := o.results[t]; ok {
				kept = append(kept, t)
				break
			}
		}
	}
	return kept
}

func (x *matrix) printProblems(out io.Writer) (bad int) {
	for _, o := range x.runs {
		for _, t := range o.results.sorted(failed) {
			bad++
			fmt.Fprintf(out, "\nfailed on %s: %v\n%s\n", o.kernel.Series, t, indent(o.results[t].why))
		}
		for _, p := range o.problems {
			bad++
			fmt.Fprintf(out, "\nproblem on %s: %s\n", o.kernel.Series, indent(p))
		}
	}
	return bad
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ")
}

func (x *matrix) printSummary(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\nkernel\trelease\tpassed\tfailed\tskipped\tproblems\tcpu time\twall time")
	for _, o := range x.runs {
		rs := o.results
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%v\t%v\n", o.kernel.Series, o.kernel.Version,
			rs.count("", passed), rs.count("", failed), rs.count("", skipped), len(o.problems), o.cpu, o.elapsed)
	}
	return w.Flush()
}
