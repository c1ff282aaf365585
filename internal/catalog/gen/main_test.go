package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A folder more in the tree is all it takes: the catalogue generated from such
// a tree names the newcomer, and compiles with it.
func TestOneMoreFolder(t *testing.T) {
	newcomers := map[string]string{
		"sensor/zebra": "package zebra\n\nimport \"ghostlight/internal/sensor\"\n\nvar Sensor = sensor.Def{Name: \"zebra\"}\n",
		"l7/zulu":      "package zulu\n\nimport \"ghostlight/internal/l7\"\n\nvar Proto = l7.Proto{Name: \"zulu\"}\n",
		"export/zoo":   "package zoo\n\nimport \"ghostlight/internal/export\"\n\nvar Exporter = export.Def{Name: \"zoo\"}\n",
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	// The tree of today with the newcomers, as folders for the generator and as
	// an overlay for the compiler.
	tree, overlay := t.TempDir(), map[string]string{}
	for _, g := range groups {
		folders, err := foldersOf(filepath.Join(root, "internal", g.dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range folders {
			write(t, filepath.Join(tree, g.dir, f, f+".go"), "package "+f)
		}
	}
	for dir, src := range newcomers {
		file := filepath.Join(tree, dir, filepath.Base(dir)+".go")
		write(t, file, src)
		overlay[filepath.Join(root, "internal", dir, filepath.Base(dir)+".go")] = file
	}
	out, err := generate(tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"zebra.Sensor", "zulu.Proto", "zoo.Exporter"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the catalogue lacks %s:\n%s", want, out)
		}
	}
	list := filepath.Join(tree, "catalog_list.go")
	write(t, list, string(out))
	overlay[filepath.Join(root, "internal/catalog/catalog_list.go")] = list
	table, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(tree, "overlay.json"), string(table))
	cmd := exec.Command("go", "build", "-overlay", filepath.Join(tree, "overlay.json"), "ghostlight/internal/catalog")
	cmd.Dir = root
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the catalogue with three more folders does not compile: %v\n%s", err, msg)
	}
}

// The committed list is the one of the committed folders.
func TestListInDate(t *testing.T) {
	want, err := generate("../..")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../catalog_list.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("internal/catalog/catalog_list.go is out of date: run make generate")
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
