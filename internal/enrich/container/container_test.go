package container

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata")

// Cases: a path or the text of /proc/PID/cgroup, a line ----, what it tells.
func TestPaths(t *testing.T) {
	const file = "testdata/cgroup.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n\n")
	for i, block := range blocks {
		title, rest, _ := strings.Cut(block, "\n")
		input, want, ok := strings.Cut(rest, "----")
		if !ok {
			t.Errorf("no answer: %s", block)
			continue
		}
		got := "\n" + tell(input)
		if *update {
			blocks[i] = title + "\n" + input + "----" + got
		} else if got != want {
			t.Errorf("%s\n%sgot:%s\nwant:%s", title, input, got, want)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(blocks, "\n\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func tell(input string) string {
	path := strings.TrimSpace(input)
	if !strings.HasPrefix(path, "/") {
		path = Choose([]byte(input))
	}
	p := Parse(path)
	return fmt.Sprintf("path=%s runtime=%s id=%s pod=%s unit=%s", path, p.Runtime, p.ID, p.PodUID, p.Unit)
}

func FuzzChoose(f *testing.F) {
	text, err := os.ReadFile("testdata/cgroup.txt")
	if err != nil {
		f.Fatal(err)
	}
	for block := range strings.SplitSeq(string(text), "\n\n") {
		f.Add([]byte(block))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := Choose(text)
		if !strings.Contains(string(text), path) {
			t.Errorf("%q is not in %q", path, text)
		}
		if p := Parse(path); !strings.Contains(path, p.ID) || !strings.Contains(path, p.Unit) {
			t.Errorf("%q: %+v", path, p)
		}
	})
}
