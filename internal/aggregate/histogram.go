package aggregate

import (
	"math"
	"slices"
)

// Schema is the resolution of a Histogram in the terms of OpenTelemetry (scale)
// and Prometheus (schema): a bucket's upper bound is 2^(1/16) times its lower
// one, which bounds the error of a quantile to 2.2 %.
const Schema = 4

const perOctave = 1 << Schema

// Histogram counts durations twice: in the classic buckets of its metric, and
// in exponential ones, of which only those between the least and the greatest
// seen take memory.
type Histogram struct {
	Count   uint64
	Sum     float64   // seconds
	Bounds  []float64 // seconds, of Classic
	Classic []uint64  // not cumulative; the last one has no bound
	Zero    uint64    // durations of 0
	First   int       // index of Buckets[0]: it holds (2^(First/16), 2^((First+1)/16)] seconds
	Buckets []uint64
}

func newHistogram(m Metric) Histogram {
	b := Infos[m].Bounds
	return Histogram{Bounds: b, Classic: make([]uint64, len(b)+1)}
}

func (h *Histogram) copied() Histogram {
	c := *h
	c.Classic, c.Buckets = slices.Clone(h.Classic), slices.Clone(h.Buckets)
	return c
}

// Since returns what was counted after an earlier copy of the histogram.
func (h *Histogram) Since(old *Histogram) Histogram {
	d := h.copied()
	d.Count, d.Sum, d.Zero = h.Count-old.Count, h.Sum-old.Sum, h.Zero-old.Zero
	for i, n := range old.Classic {
		d.Classic[i] -= n
	}
	for i, n := range old.Buckets { // a histogram never gets narrower
		d.Buckets[old.First+i-h.First] -= n
	}
	return d
}

// Add counts a duration.
func (h *Histogram) Add(ns int64) {
	seconds := float64(max(ns, 0)) / 1e9
	h.Count++
	h.Sum += seconds
	i := 0
	for i < len(h.Bounds) && seconds > h.Bounds[i] {
		i++
	}
	h.Classic[i]++
	if ns <= 0 {
		h.Zero++
		return
	}
	h.bump(indexOf(seconds))
}

func (h *Histogram) bump(i int) {
	switch {
	case len(h.Buckets) == 0:
		h.First, h.Buckets = i, append(h.Buckets, 0)
	case i < h.First:
		h.Buckets = slices.Insert(h.Buckets, 0, make([]uint64, h.First-i)...)
		h.First = i
	case i >= h.First+len(h.Buckets):
		h.Buckets = append(h.Buckets, make([]uint64, i-h.First-len(h.Buckets)+1)...)
	}
	h.Buckets[i-h.First]++
}

// fractions are 2^(i/16) for i = 1..16: the upper bounds within an octave.
var fractions = func() (f [perOctave]float64) {
	for i := range f {
		f[i] = math.Exp2(float64(i+1) / perOctave)
	}
	return f
}()

// indexOf returns the bucket (2^(i/16), 2^((i+1)/16)] that holds v > 0.
func indexOf(v float64) int {
	b := math.Float64bits(v)
	exponent := int(b>>52&0x7ff) - 1023
	mantissa := math.Float64frombits(b&(1<<52-1) | 1023<<52) // 1 <= m < 2
	if mantissa == 1 {
		return exponent*perOctave - 1 // an upper bound belongs to the bucket below
	}
	lo, hi := 0, perOctave-1
	for lo < hi { // the first bound that is not below
		if mid := (lo + hi) / 2; fractions[mid] < mantissa {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return exponent*perOctave + lo
}

// Quantile returns the duration in seconds below which a share q of all lies, to
// 2.2 %; 0 if nothing was counted.
func (h *Histogram) Quantile(q float64) float64 {
	if h.Count == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(h.Count)))
	seen := h.Zero
	if rank <= seen {
		return 0
	}
	for i, n := range h.Buckets {
		if seen += n; seen >= rank {
			return math.Exp2((float64(h.First+i) + 0.5) / perOctave)
		}
	}
	return 0
}
