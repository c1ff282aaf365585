package lint

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestThisTree(t *testing.T) {
	found, err := Check("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

// Each bad tree must be caught, or the lint above proves nothing.
func TestBadTrees(t *testing.T) {
	const doc = "// Package x is a package that says what it is.\n"
	for name, c := range map[string]struct {
		file, src, want string
	}{
		"upwards":   {"internal/event/x.go", doc + "package event\nimport _ \"ghostlight/internal/wire\"\n", "imports go down only"},
		"sideways":  {"internal/sensor/a/x.go", doc + "package a\nimport _ \"ghostlight/internal/sensor/b\"\n", "imports go down only"},
		"never":     {"internal/api/x.go", doc + "package api\nimport _ \"ghostlight/internal/kernel\"\n", "must never import"},
		"no layer":  {"internal/util/x.go", doc + "package util\n", "has no layer"},
		"unknown":   {"internal/agent/x.go", doc + "package agent\nimport _ \"ghostlight/internal/util\"\n", "which has no layer"},
		"no doc":    {"internal/event/x.go", "package event\n", "no package comment"},
		"short doc": {"internal/event/x.go", "// Event.\npackage event\n", "no package comment"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			file := filepath.Join(root, c.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(c.src), 0o644); err != nil {
				t.Fatal(err)
			}
			found, err := Check(root)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(found, func(s string) bool { return strings.Contains(s, c.want) }) {
				t.Errorf("want a finding with %q, have %q", c.want, found)
			}
		})
	}
}

// A tree that cannot be walked or parsed is an error, not a clean bill.
func TestUnreadableTree(t *testing.T) {
	if _, err := Check(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a missing tree passed")
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "x.go"), []byte("package"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(root); err == nil {
		t.Error("a tree that does not parse passed")
	}
}
