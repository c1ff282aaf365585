package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A series is a line of kernels we test on and where Debian keeps it. A
// rolling suite moves on: its newest kernel is taken, whatever its number.
type series struct {
	name    string
	suites  []string
	rolling bool
}

var allSeries = []series{
	{name: "5.10", suites: []string{"bullseye", "bullseye-security"}},
	{name: "6.1", suites: []string{"bookworm", "bookworm-security"}},
	{name: "6.12", suites: []string{"trixie", "trixie-security", "bookworm-backports"}},
	{name: "7.2", suites: []string{"sid"}, rolling: true},
}

// A kernel is one fetched and unpacked. Its paths are below its folder.
type kernel struct {
	Series  string
	Release string // as in uname -r
	Version string // of the package
	Image   string
	Modules string // the folder that holds kernel/ and modules.builtin

	dir string
}

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// A mirror is where this machine's apt gets Debian: the base of its suites
// and that of the -security ones. No host is written down in this program.
type mirror struct{ main, security string }

func (m mirror) of(suite string) string {
	if strings.HasSuffix(suite, "-security") {
		return m.security
	}
	return m.main
}

// systemMirror asks apt which release files it would fetch for the sources
// this machine is set up with.
func systemMirror(ctx context.Context) (mirror, error) {
	out, err := output(exec.CommandContext(ctx, "apt-get", "update", "--print-uris"))
	if err != nil {
		return mirror{}, err
	}
	return parseMirror(out)
}

var releaseFile = regexp.MustCompile(`(?m)^'(\S+?)/?dists/([^/' ]+)/(?:In)?Release'`)

func parseMirror(uris string) (mirror, error) {
	var m mirror
	for _, f := range releaseFile.FindAllStringSubmatch(uris, -1) {
		base, suite := f[1], f[2]
		name := base[strings.LastIndexByte(base, '/')+1:]
		switch {
		case m.security == "" && name == "debian-security":
			m.security = base
		case m.main == "" && name == "debian" && !strings.HasSuffix(suite, "-security"):
			m.main = base
		}
	}
	if m.main == "" {
		return m, errors.New("apt's sources name no Debian archive: give one with -mirror")
	}
	if m.security == "" {
		m.security = m.main + "-security"
	}
	return m, nil
}

// An apt runs apt-get on lists and settings of its own, below dir, so that
// the machine's packages and lists stay as they are.
type apt struct {
	dir    string
	mirror mirror
}

func newApt(dir string, m mirror) (apt, error) {
	a := apt{dir, m}
	for _, d := range []string{"lists/partial", "cache/archives/partial", "deb"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return a, err
		}
	}
	conf := fmt.Sprintf(`// What the machine hooks into its own updates is not for ours.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Get::List-Cleanup "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Dir::Etc::SourceList "%[1]s/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "%[1]s/lists";
Dir::State::Status "%[1]s/status";
Dir::Cache "%[1]s/cache";
`, dir)
	return a, errors.Join(
		os.WriteFile(filepath.Join(dir, "apt.conf"), []byte(conf), 0o644),
		os.WriteFile(filepath.Join(dir, "status"), nil, 0o644))
}

func (a apt) run(ctx context.Context, tool string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, tool, append([]string{"-c", filepath.Join(a.dir, "apt.conf")}, args...)...)
	cmd.Dir = filepath.Join(a.dir, "deb")
	return output(cmd)
}

// output is the command's standard output; its standard error is the error's.
func output(cmd *exec.Cmd) (string, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

// update fetches the lists of the suites one by one, as Debian moves old ones
// away, and leaves those it could get in the sources list.
func (a apt) update(ctx context.Context, suites []string) (missing, err error) {
	var errs []error
	var lines []string
	for _, suite := range suites {
		line := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, a.mirror.of(suite), suite)
		if err := a.sources(line); err != nil {
			return nil, err
		}
		if _, err := a.run(ctx, "apt-get", "update", "--error-on=any"); err != nil {
			errs = append(errs, err)
			continue
		}
		lines = append(lines, line)
	}
	return errors.Join(errs...), a.sources(lines...)
}

func (a apt) sources(lines ...string) error {
	return os.WriteFile(filepath.Join(a.dir, "sources.list"), []byte(strings.Join(lines, "")), 0o644)
}

// newest names the newest cloud kernel of a series among the packages.
func newest(s series, packages string) (release string, ok bool) {
	number := regexp.QuoteMeta(s.name) + `(?:[.+~-]\S*)?`
	if s.rolling {
		number = `[0-9]\S*`
	}
	image := regexp.MustCompile(`(?m)^linux-image-(` + number + `-cloud-amd64)$`)
	for _, m := range image.FindAllStringSubmatch(packages, -1) {
		if !ok || compareVersions(m[1], release) > 0 {
			release, ok = m[1], true
		}
	}
	return release, ok
}

// compareVersions compares runs of digits by value and all else by bytes.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		x, y := leadingDigits(a), leadingDigits(b)
		a, b = a[len(x):], b[len(y):]
		x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
			return c
		}
		if a == "" || b == "" {
			break
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}

// parts are the packages that make up a kernel: the image's and those of the
// same release it depends on, since newer Debian splits image and modules.
func (a apt) parts(ctx context.Context, release string) (parts []string, version string, err error) {
	todo := []string{"linux-image-" + release}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if slices.Contains(parts, name) {
			continue
		}
		parts = append(parts, name)
		out, err := a.run(ctx, "apt-cache", "show", "--no-all-versions", name)
		if err != nil {
			return nil, "", err
		}
		if version == "" {
			version = field(out, "Version")
		}
		todo = append(todo, sameRelease(field(out, "Depends"), release)...)
	}
	return parts, version, nil
}

func field(stanza, name string) string {
	for line := range strings.Lines(stanza) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// sameRelease picks the packages named after release; of alternatives
// (signed | unsigned) the first, which is the one the archive prefers.
func sameRelease(depends, release string) (names []string) {
	for dep := range strings.SplitSeq(depends, ",") {
		name := strings.Fields(dep + " -")[0]
		if strings.HasPrefix(name, "linux-") && strings.HasSuffix(name, "-"+release) {
			names = append(names, name)
		}
	}
	return names
}

// fetch gives the kernel of s from the cache folder, or puts it there; a fresh
// one replaces what is there.
func fetch(ctx context.Context, cache string, s series, fresh bool, find func(context.Context) (mirror, error)) (kernel, error) {
	dir := filepath.Join(cache, "linux-"+s.name)
	k, err := readKernel(dir)
	if !fresh && !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	m, err := find(ctx)
	if err != nil {
		return k, err
	}
	// The folder gets its name only when it is whole.
	temp := dir + ".new"
	if err := os.RemoveAll(temp); err != nil {
		return k, err
	}
	if err := download(ctx, temp, s, m); err != nil {
		return k, fmt.Errorf("fetch kernel %s: %w", s.name, err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.Rename(temp, dir)); err != nil {
		return k, err
	}
	return readKernel(dir)
}

const kernelFile = "kernel.json"

func readKernel(dir string) (k kernel, err error) {
	b, err := os.ReadFile(filepath.Join(dir, kernelFile))
	if err != nil {
		return k, err
	}
	k.dir = dir
	return k, json.Unmarshal(b, &k)
}

// lists -> newest release -> its packages -> unpacked -> what is where
func download(ctx context.Context, dir string, s series, m mirror) error {
	a, err := newApt(filepath.Join(dir, "apt"), m)
	if err != nil {
		return err
	}
	missing, err := a.update(ctx, s.suites)
	if err != nil {
		return err
	}
	packages, err := a.run(ctx, "apt-cache", "pkgnames", "linux-image-")
	if err != nil {
		return err
	}
	release, ok := newest(s, packages)
	if !ok {
		return errors.Join(fmt.Errorf("no linux-image-%s*-cloud-amd64 in %s", s.name, strings.Join(s.suites, ", ")), missing)
	}
	parts, version, err := a.parts(ctx, release)
	if err != nil {
		return err
	}
	if _, err := a.run(ctx, "apt-get", append([]string{"download"}, parts...)...); err != nil {
		return err
	}
	if err := a.unpack(ctx, dir); err != nil {
		return err
	}
	k, err := locate(dir, kernel{Series: s.name, Release: release, Version: version})
	if err != nil {
		return err
	}
	b, err := json.Marshal(k)
	return errors.Join(err, os.RemoveAll(a.dir), os.WriteFile(filepath.Join(dir, kernelFile), b, 0o644))
}

func (a apt) unpack(ctx context.Context, dir string) error {
	debs, err := filepath.Glob(filepath.Join(a.dir, "deb", "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if _, err := output(exec.CommandContext(ctx, "dpkg", "-x", deb, dir)); err != nil {
			return err
		}
	}
	return nil
}

// locate finds image and modules, which Debian has moved below usr.
func locate(dir string, k kernel) (kernel, error) {
	for _, image := range []string{"boot/vmlinuz-" + k.Release, "usr/lib/modules/" + k.Release + "/vmlinuz"} {
		if _, err := os.Stat(filepath.Join(dir, image)); err == nil {
			k.Image = image
		}
	}
	for _, modules := range []string{"lib/modules/" + k.Release, "usr/lib/modules/" + k.Release} {
		if _, err := os.Stat(filepath.Join(dir, modules, "kernel")); err == nil {
			k.Modules = modules
		}
	}
	if k.Image == "" || k.Modules == "" {
		return k, fmt.Errorf("packages of %s hold image %q, modules %q", k.Release, k.Image, k.Modules)
	}
	return k, nil
}
