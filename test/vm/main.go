// Vm runs the tests that need a kernel on the kernels Ghostlight supports,
// each in a machine that QEMU emulates.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	kernels  string
	run      string
	timeout  time.Duration
	parallel int
	keep     bool
	fresh    bool
	host     string
	mirror   string
}

func main() {
	var o options
	flag.StringVar(&o.kernels, "kernel", strings.Join(seriesNames(), ","), "kernels to test on, in this order")
	flag.StringVar(&o.run, "run", "", "run only tests that match, as of go test")
	flag.DurationVar(&o.timeout, "timeout", 15*time.Minute, "time limit of one machine")
	flag.IntVar(&o.parallel, "parallel", runtime.NumCPU()+1, "machines to run at the same time: each wants most of a core, and 2 GiB")
	flag.BoolVar(&o.keep, "keep", false, "keep test binaries and boot images in the cache folder")
	flag.BoolVar(&o.fresh, "fresh", false, "fetch the newest kernels instead of the cached ones")
	flag.StringVar(&o.host, "host", "", "file of `go test -json` on the host: fail on a test that is skipped there and on every kernel")
	flag.StringVar(&o.mirror, "mirror", "", "address of a Debian archive (default: the one apt is set up with)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

func seriesNames() (names []string) {
	for _, s := range allSeries {
		names = append(names, s.name)
	}
	return names
}

func chooseSeries(names string) (chosen []series, err error) {
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(allSeries, func(s series) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no kernel %q: have %s", name, strings.Join(seriesNames(), ", "))
		}
		chosen = append(chosen, allSeries[i])
	}
	return chosen, nil
}

// suites -> kernels -> binaries -> base image -> a machine for each -> verdict
func run(ctx context.Context, o options) error {
	chosen, err := chooseSeries(o.kernels)
	if err != nil {
		return err
	}
	host, err := readHost(o.host)
	if err != nil {
		return err
	}
	module, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	env := goEnv{module}
	suites, err := env.suites(ctx, o.run)
	if err != nil {
		return err
	}
	if len(suites) == 0 {
		return errors.New("no test to run")
	}
	cache := filepath.Join(module, ".cache", "vm")
	kernels, err := fetchAll(ctx, cache, chosen, o)
	if err != nil {
		return err
	}
	work := filepath.Join(cache, "work")
	if !o.keep {
		defer os.RemoveAll(work)
	}
	base, err := prepare(ctx, env, work, suites)
	if err != nil {
		return err
	}
	x := matrix{env: env, suites: base.suites, doctor: base.ghostlight != "", work: work, cache: cache, options: o}
	x.testAll(ctx, kernels)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return x.conclude(os.Stdout, host)
}

func readHost(file string) (results, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	host := results{}
	torn, err := host.readEvents(f)
	if err == nil && (torn > 0 || len(host) == 0) {
		err = fmt.Errorf("%s: %d tests, %d torn lines", file, len(host), torn)
	}
	return host, err
}

func fetchAll(ctx context.Context, cache string, chosen []series, o options) (kernels []kernel, err error) {
	find := systemMirror
	if o.mirror != "" {
		base := strings.TrimRight(o.mirror, "/")
		find = func(context.Context) (mirror, error) { return mirror{base, base + "-security"}, nil }
	}
	for _, s := range chosen {
		k, err := fetch(ctx, cache, s, o.fresh, find)
		if err != nil {
			return nil, err
		}
		progress(s.name, "%s, package version %s", k.Release, k.Version)
		kernels = append(kernels, k)
	}
	return kernels, nil
}

// prepare builds what every kernel's image has in common, as work/base.
func prepare(ctx context.Context, env goEnv, work string, suites []suite) (r root, err error) {
	if err := os.MkdirAll(work, 0o755); err != nil {
		return r, err
	}
	start := time.Now()
	r = root{module: env.root, guest: filepath.Join(work, "guest"), suites: suites}
	if _, err := output(env.command(ctx, "build", "-trimpath", "-o", r.guest, "./test/vm/guest")); err != nil {
		return r, err
	}
	if r.ghostlight, err = env.buildGhostlight(ctx, work); err != nil {
		return r, err
	}
	for i := range r.suites {
		if err := env.build(ctx, &r.suites[i], work); err != nil {
			return r, err
		}
	}
	progress("build", "%d suites in %v", len(suites), since(start))
	return r, writeArchive(filepath.Join(work, "base"), func(a *archive) error { return r.fill(ctx, a) })
}

func progress(subject, format string, args ...any) {
	fmt.Printf("%-6s %s\n", subject, fmt.Sprintf(format, args...))
}

func since(start time.Time) time.Duration { return time.Since(start).Round(100 * time.Millisecond) }
