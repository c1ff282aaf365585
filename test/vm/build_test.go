package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestKernelTests(t *testing.T) {
	dir := t.TempDir()
	source := `package x
import "testing"
func TestMain(m *testing.M) {}
func TestOne(t *testing.T) {}
func TestÉté(t *testing.T) {}
func Test_two(t *testing.T) {}
func Testing(t *testing.T) {}
func TestHelper() {}
func helper(t *testing.T) {}
func BenchmarkX(b *testing.B) {}
type s struct{}
func (s) TestMethod(t *testing.T) {}
`
	if err := os.WriteFile(filepath.Join(dir, "x_kernel_test.go"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := kernelTests(dir, []string{"x_kernel_test.go", "not_there_test.go"})
	if err != nil || !slices.Equal(got, []string{"TestOne", "TestÉté", "Test_two"}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := kernelTests(dir, []string{"gone_kernel_test.go"}); err == nil {
		t.Error("no error for a file that is not there")
	}
}

// This module's own smoke suite must be found, and not its other tests.
func TestSuites(t *testing.T) {
	ctx := context.Background()
	module, err := moduleRoot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for run, want := range map[string]string{
		"":                      "TestCapability",
		"TestCapability/fentry": "TestCapability",
		"^TestNoSuch$":          "",
	} {
		suites, err := goEnv{module}.suites(ctx, run)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(suites, func(s suite) bool { return s.dir == smoke })
		if (i >= 0) != (want != "") || i >= 0 && !slices.Contains(suites[i].tests, want) {
			t.Errorf("-run %q: %+v", run, suites)
		}
		for _, s := range suites {
			if s.dir != smoke && !strings.HasPrefix(s.dir, "internal/") {
				t.Errorf("-run %q: suite %s", run, s.dir)
			}
		}
	}
	if _, err := (goEnv{module}).suites(ctx, "("); err == nil {
		t.Error("no error for a bad pattern")
	}
}

func TestPattern(t *testing.T) {
	s := suite{tests: []string{"TestA", "TestB"}}
	for run, want := range map[string]string{"": "^(TestA|TestB)$", "TestA": "^(TestA|TestB)$", "A/x/y": "^(TestA|TestB)$/x/y"} {
		if got := s.pattern(run); got != want {
			t.Errorf("-run %q: %q, want %q", run, got, want)
		}
	}
}
