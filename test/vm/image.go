package main

import (
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"ghostlight/test/vm/plan"
)

// writeArchive writes a gzip-compressed archive that fill fills. Fast beats
// small: the guest unpacks it under emulation.
func writeArchive(file string, fill func(*archive) error) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	zip, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	a := &archive{out: zip}
	return errors.Join(fill(a), a.close(), zip.Close(), out.Close())
}

// accounts are enough for os/user and for tests that drop their privileges.
var accounts = map[string]string{
	"etc/passwd":   "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
	"etc/group":    "root:x:0:\nnogroup:x:65534:\n",
	"etc/hosts":    "127.0.0.1 localhost\n::1 localhost\n",
	"etc/hostname": "guest\n",
}

// A root is what every kernel's first root has in common.
type root struct {
	module     string // the Go module's folder
	guest      string // binary of the first process
	ghostlight string // binary of the product, or none
	suites     []suite
}

func (r root) fill(ctx context.Context, a *archive) error {
	for _, d := range []string{"bin", "dev", "etc", "proc", "root", "run", "src", "sys", "tmp", "usr", "var", "var/lib", "var/log"} {
		a.dir(d)
	}
	a.device("dev/console", 5, 1) // the kernel opens it before anything is mounted
	for name, text := range accounts {
		a.file(name, 0o644, []byte(text))
	}
	if err := addBusybox(ctx, a); err != nil {
		return err
	}
	if err := addFile(a, "init", r.guest); err != nil {
		return err
	}
	if err := addFile(a, "src/go.mod", filepath.Join(r.module, "go.mod")); err != nil {
		return err
	}
	if r.ghostlight != "" {
		if err := addFile(a, "bin/ghostlight", r.ghostlight); err != nil {
			return err
		}
	}
	made := map[string]bool{"src": true}
	for _, s := range r.suites {
		if err := addSuite(a, made, r.module, s); err != nil {
			return err
		}
	}
	return nil
}

func addFile(a *archive, name, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	a.file(name, int(info.Mode().Perm()), data)
	return nil
}

// addSuite puts the binary and testdata where the package is in the source.
func addSuite(a *archive, made map[string]bool, module string, s suite) error {
	dir := strings.TrimPrefix(s.guestDir(), "/")
	mkdirAll(a, made, dir)
	if err := addFile(a, path.Join(dir, filepath.Base(s.binary)), s.binary); err != nil {
		return err
	}
	data := filepath.Join(module, s.dir, "testdata")
	if _, err := os.Stat(data); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return filepath.WalkDir(data, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(data, file)
		if err != nil {
			return err
		}
		name := path.Join(dir, "testdata", below)
		switch {
		case d.IsDir():
			mkdirAll(a, made, name)
			return nil
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(file)
			a.link(name, target)
			return err
		}
		return addFile(a, name, file)
	})
}

// mkdirAll adds a folder after those above it: the kernel makes none itself.
func mkdirAll(a *archive, made map[string]bool, dir string) {
	if dir == "." || made[dir] {
		return
	}
	mkdirAll(a, made, path.Dir(dir))
	made[dir] = true
	a.dir(dir)
}

// addBusybox gives the guest a shell and small tools for tests that run them:
// as hard links, so that /proc/PID/exe names the tool as on other systems.
func addBusybox(ctx context.Context, a *archive) error {
	file, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("%w: install busybox-static", err)
	}
	if err := checkStatic(file); err != nil {
		return err
	}
	list, err := output(exec.CommandContext(ctx, file, "--list"))
	if err != nil {
		return err
	}
	var tools []string
	for tool := range strings.FieldsSeq(list) {
		if tool != "busybox" && tool != "init" {
			tools = append(tools, "bin/"+tool)
		}
	}
	data, err := os.ReadFile(file)
	a.file("bin/busybox", 0o755, data, tools...)
	for _, dir := range []string{"sbin", "usr/bin", "usr/sbin"} {
		a.link(dir, "/bin")
	}
	return err
}

func checkStatic(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is not static: install busybox-static", file)
		}
	}
	return nil
}

// addKernel adds one kernel's modules and what to do on it.
func addKernel(a *archive, mods []module, p plan.Plan) error {
	a.dir("modules")
	for _, m := range mods {
		name := "modules/" + m.name + ".ko"
		a.file(name, 0o644, m.data)
		p.Modules = append(p.Modules, "/"+name)
	}
	b, err := json.MarshalIndent(p, "", "  ")
	a.file(strings.TrimPrefix(plan.Path, "/"), 0o644, b)
	return err
}
