// Package lint holds the rules of the house that a machine can check: which
// way imports go, that each package says what it is, and that generated files
// are in date. Its tests run the rules over this tree, and over bad trees, so
// that a rule that stopped biting is noticed.
package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const module = "ghostlight/"

// layers is the direction of imports: a package imports packages of lower
// layers only, and a group ("sensor/*") is one layer, so its folders never
// import each other. A pattern's star stands for one element.
var layers = []struct {
	level    int
	patterns []string
}{
	{0, []string{"internal/event", "internal/wire", "internal/semconv", "internal/sqltext", "internal/config", "ui", "test/vm/plan"}},
	{1, []string{"internal/kernel", "internal/l7", "internal/aggregate"}},
	{2, []string{"internal/sensor", "internal/sensor/*/*", "internal/l7/*", "internal/export", "internal/enrich/*"}},
	{3, []string{"internal/sensor/*", "internal/export/*", "internal/segment"}},
	{4, []string{"internal/catalog", "internal/enrich", "internal/correlate", "internal/symbol", "internal/store"}},
	{5, []string{"internal/query"}},
	{6, []string{"internal/query/*"}},
	{7, []string{"internal/api"}},
	{8, []string{"internal/agent", "internal/tui", "internal/cli"}},
	{9, []string{"cmd/*", "internal/catalog/*", "internal/lint", "test/*", "test/*/*"}},
}

// never are rules beyond the layers: the packages that match the first pattern
// must not import those that match one of the others.
var never = map[string][]string{
	"internal/event":    {"internal/*", "internal/*/*"},
	"internal/wire":     {"internal/*", "internal/*/*"},
	"internal/sensor/*": {"internal/l7", "internal/l7/*", "internal/export", "internal/export/*", "internal/config"},
	"internal/l7/*":     {"internal/kernel", "internal/sensor", "internal/config"},
	"internal/export/*": {"internal/store", "internal/kernel", "internal/config"},
	"internal/store":    {"internal/l7", "internal/l7/*", "internal/kernel", "internal/config"},
	"internal/api":      {"internal/kernel", "internal/sensor", "internal/catalog"},
	"internal/cli":      {"internal/kernel", "internal/sensor", "internal/catalog", "internal/agent"},
}

// Check returns what in the tree at root breaks the rules, sorted.
func Check(root string) ([]string, error) {
	var found []string
	documented := map[string]bool{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && skipped(d.Name()) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return fmt.Errorf("parse: %w", err)
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		documented[pkg] = documented[pkg] || saysWhatItIs(f)
		found = append(found, imports(pkg, f)...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for pkg, ok := range documented {
		if !ok {
			found = append(found, pkg+": no package comment: say in one sentence what it is")
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

func skipped(dir string) bool {
	return dir == "node_modules" || dir == "testdata" || dir == "bin" || len(dir) > 1 && strings.HasPrefix(dir, ".") && dir != ".."
}

func saysWhatItIs(f *ast.File) bool {
	return f.Doc != nil && len(strings.TrimSpace(f.Doc.Text())) > 20
}

func imports(pkg string, f *ast.File) []string {
	from, ok := level(pkg)
	if !ok {
		return []string{pkg + ": has no layer: give it one in internal/lint/layers.go"}
	}
	var found []string
	for _, imp := range f.Imports {
		target, ours := strings.CutPrefix(strings.Trim(imp.Path.Value, `"`), module)
		if !ours {
			continue
		}
		to, ok := level(target)
		switch {
		case !ok:
			found = append(found, fmt.Sprintf("%s imports %s, which has no layer", pkg, target))
		case to >= from:
			found = append(found, fmt.Sprintf("%s (layer %d) imports %s (layer %d): imports go down only", pkg, from, target, to))
		case forbidden(pkg, target):
			found = append(found, fmt.Sprintf("%s must never import %s", pkg, target))
		}
	}
	return found
}

func level(pkg string) (int, bool) {
	for _, l := range layers {
		for _, p := range l.patterns {
			if ok, _ := path.Match(p, pkg); ok {
				return l.level, true
			}
		}
	}
	return 0, false
}

func forbidden(pkg, target string) bool {
	for p, targets := range never {
		if ok, _ := path.Match(p, pkg); !ok {
			continue
		}
		for _, t := range targets {
			if ok, _ := path.Match(t, target); ok {
				return true
			}
		}
	}
	return false
}
