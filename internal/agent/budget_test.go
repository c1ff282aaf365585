package agent

import (
	"fmt"
	"strings"
	"testing"
)

// run feeds periods of CPU shares and returns what was decided, as a story.
func run(b *budget, cpu ...float64) string {
	var story []string
	for i, c := range cpu {
		drop, restore := b.period(cost{CPU: c, Watching: c, Memory: 10})
		if drop != "" {
			story = append(story, fmt.Sprintf("%d -%s", i, drop))
		}
		if restore != "" {
			story = append(story, fmt.Sprintf("%d +%s", i, restore))
		}
	}
	return strings.Join(story, " ")
}

func repeat(c float64, n int) []float64 {
	s := make([]float64, n)
	for i := range s {
		s[i] = c
	}
	return s
}

func limited() *budget {
	return &budget{cpu: 0.03, memory: 100, order: []string{"drop", "udp"}}
}

func TestBudgetShedsInOrderAndRecovers(t *testing.T) {
	b := limited()
	load := append(repeat(0.05, 5), repeat(0.01, 14)...)
	if got, want := run(b, load...), "1 -drop 3 -udp 10 +udp 16 +drop"; got != want {
		t.Errorf("have %q, want %q", got, want)
	}
}

func TestBudgetIgnoresASpike(t *testing.T) {
	if got := run(limited(), 0.01, 0.2, 0.01, 0.2, 0.01); got != "" {
		t.Errorf("have %q", got)
	}
}

// Between the limit and its calm zone nothing moves.
func TestBudgetHysteresis(t *testing.T) {
	b := limited()
	if got, want := run(b, append(repeat(0.05, 2), repeat(0.025, 50)...)...), "1 -drop"; got != want {
		t.Errorf("have %q, want %q", got, want)
	}
}

// Half of what a storm takes goes to other threads than the reader's.
func TestBudgetCountsTheStore(t *testing.T) {
	b := limited()
	b.period(cost{CPU: 0.23, Watching: 0.11})
	if drop, _ := b.period(cost{CPU: 0.23, Watching: 0.11}); drop != "drop" {
		t.Errorf("a storm lets go of %q", drop)
	}
}

// A sensor that does not fit comes back ever more rarely.
func TestBudgetBacksOff(t *testing.T) {
	b, restored := limited(), 0
	b.order = b.order[:1]
	for range 400 {
		cpu := 0.01
		if len(b.shed) == 0 {
			cpu = 0.05
		}
		if _, restore := b.period(cost{CPU: cpu, Watching: cpu}); restore != "" {
			restored++
		}
	}
	if restored < 3 || restored > 7 {
		t.Errorf("came back %d times in 400 periods", restored)
	}
}

// Sensors that are turned off and on while some are let go: none is let go
// twice, none comes back that nobody wants.
func TestBudgetAmongOthers(t *testing.T) {
	b := limited()
	over, calm := repeat(0.05, 2), repeat(0.01, 12)
	if got, want := run(b, append(over, over...)...), "1 -drop 3 -udp"; got != want {
		t.Fatalf("have %q, want %q", got, want)
	}
	b.among([]string{"udp"}) // drop is turned off
	if got, want := run(b, calm...), "5 +udp"; got != want {
		t.Errorf("have %q, want %q", got, want)
	}
	b = limited()
	b.among([]string{"udp"})
	run(b, over...)
	b.among([]string{"drop", "udp"}) // drop is turned on
	if got, want := run(b, append(over, calm...)...), "1 -drop 7 +drop 13 +udp"; got != want {
		t.Errorf("have %q, want %q", got, want)
	}
	b.among(nil)
	if got := run(b, over...); got != "" {
		t.Errorf("with none to let go: %q", got)
	}
}

// A query that takes a core is no reason to stop watching.
func TestBudgetCountsOnlyWhatHelps(t *testing.T) {
	b := limited()
	for range 10 {
		if drop, _ := b.period(cost{CPU: 1, Watching: 0.01}); drop != "" {
			t.Fatalf("let go of %s for a query", drop)
		}
	}
	if b.uneasy() {
		t.Error("uneasy for a query")
	}
	// Nor is it one to stay away.
	run(b, repeat(0.05, 2)...)
	for i := range calmPeriods {
		if _, restore := b.period(cost{CPU: 1, Watching: 0.005}); (restore == "drop") != (i == calmPeriods-1) {
			t.Errorf("period %d of a query takes back %q", i, restore)
		}
	}
	b.period(cost{Memory: 101})
	if drop, _ := b.period(cost{Memory: 101}); drop != "drop" {
		t.Errorf("memory above its limit let go of %q", drop)
	}
}
