package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A suite is a package with tests that need a kernel: those in its files
// named *_kernel_test.go.
type suite struct {
	pkg    string   // import path
	dir    string   // below the module's root
	tests  []string // names of the top-level tests to run
	binary string   // once built
}

// smoke is the one suite outside internal: what a kernel offers, asked
// without any of our own code.
const smoke = "test/vm/smoke"

// A goEnv runs the go command on the module at root, for the guest.
type goEnv struct{ root string }

func (g goEnv) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = g.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	return cmd
}

// moduleRoot is the folder of the go.mod that governs the working folder.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := output(exec.CommandContext(ctx, "go", "env", "GOMOD"))
	if err != nil {
		return "", err
	}
	mod := strings.TrimSpace(out)
	if filepath.Base(mod) != "go.mod" {
		return "", errors.New("run me inside the module")
	}
	return filepath.Dir(mod), nil
}

// suites lists the packages to test. A run pattern, as of go test, leaves
// only the tests whose first part it matches.
func (g goEnv) suites(ctx context.Context, run string) ([]suite, error) {
	keep, err := topLevel(run)
	if err != nil {
		return nil, err
	}
	out, err := output(g.command(ctx, "list", "-e", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles", "./..."))
	if err != nil {
		return nil, err
	}
	var found []suite
	list := json.NewDecoder(strings.NewReader(out))
	for {
		var p struct {
			ImportPath, Dir           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := list.Decode(&p); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, fmt.Errorf("list packages: %w", err)
		}
		dir, err := filepath.Rel(g.root, p.Dir)
		if err != nil {
			return nil, err
		}
		if dir != smoke && !strings.HasPrefix(dir, "internal/") {
			continue
		}
		tests, err := kernelTests(p.Dir, append(p.TestGoFiles, p.XTestGoFiles...))
		if err != nil {
			return nil, err
		}
		tests = slices.DeleteFunc(tests, func(t string) bool { return !keep.MatchString(t) })
		if len(tests) > 0 {
			found = append(found, suite{pkg: p.ImportPath, dir: dir, tests: tests})
		}
	}
}

// topLevel is the part of a -run pattern that names top-level tests.
func topLevel(run string) (*regexp.Regexp, error) {
	first, _, _ := strings.Cut(run, "/")
	re, err := regexp.Compile(first)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	return re, nil
}

func kernelTests(dir string, files []string) (tests []string, err error) {
	for _, name := range files {
		if !strings.HasSuffix(name, "_kernel_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && isTest(f) {
				tests = append(tests, f.Name.Name)
			}
		}
	}
	return tests, nil
}

var testName = regexp.MustCompile(`^Test([^\p{Ll}]|$)`)

func isTest(f *ast.FuncDecl) bool {
	return f.Recv == nil && testName.MatchString(f.Name.Name) && f.Name.Name != "TestMain" && len(f.Type.Params.List) == 1
}

// pattern runs the suite's tests; a -run pattern's deeper parts stay.
func (s suite) pattern(run string) string {
	_, rest, deeper := strings.Cut(run, "/")
	top := "^(" + strings.Join(s.tests, "|") + ")$"
	if deeper {
		return top + "/" + rest
	}
	return top
}

// strip leaves out what only debuggers read: the guest has to unpack the rest.
const strip = "-ldflags=-w"

// build compiles the suite's test binary into dir.
func (g goEnv) build(ctx context.Context, s *suite, dir string) error {
	s.binary = filepath.Join(dir, strings.ReplaceAll(s.dir, "/", "-")+".test")
	_, err := output(g.command(ctx, "test", "-c", strip, "-o", s.binary, s.pkg))
	return err
}

// buildGhostlight compiles the product, if its main package exists yet.
func (g goEnv) buildGhostlight(ctx context.Context, dir string) (binary string, err error) {
	if _, err := os.Stat(filepath.Join(g.root, "cmd/ghostlight")); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	binary = filepath.Join(dir, "ghostlight")
	_, err = output(g.command(ctx, "build", "-trimpath", strip, "-o", binary, "./cmd/ghostlight"))
	return binary, err
}

// toEvents turns what a test binary printed into test2json's events.
func (g goEnv) toEvents(ctx context.Context, pkg string, printed []byte) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-p", pkg)
	cmd.Dir, cmd.Stdin = g.root, bytes.NewReader(printed)
	return output(cmd)
}

// guestDir is where the suite's folder is in the guest, go.mod at its top.
func (s suite) guestDir() string { return path.Join("/src", s.dir) }
