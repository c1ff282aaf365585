package kernel

import "testing"

func TestMissesLost(t *testing.T) {
	for _, c := range []struct {
		misses
		found, want uint64
	}{
		{misses{alone: 3}, 0, 3},
		{misses{first: 5}, 5, 0},
		{misses{first: 5}, 3, 0},          // the twins missed nothing: two had no need of them
		{misses{first: 5, twin: 1}, 3, 1}, // one may be an event that both missed
		{misses{first: 5, twin: 9}, 3, 2},
		{misses{first: 5, twin: 9}, 6, 0}, // found before it is counted as missed
		{misses{alone: 2, first: 5, twin: 9}, 4, 3},
	} {
		if got := c.lost(c.found); got != c.want {
			t.Errorf("%+v, found %d: %d lost, want %d", c.misses, c.found, got, c.want)
		}
	}
}
