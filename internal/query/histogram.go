package query

import (
	"math"
	"math/bits"
)

// Histogram counts numbers in log-linear buckets: 32 in each power of two, so
// that a quantile is wrong by 3.2 % at most, of which half is halved again by
// giving the middle. Only the buckets between the least and the greatest one
// seen take memory. Histograms merge without loss. The zero value is empty.
type Histogram struct {
	first    int // bucket of counts[0]
	counts   []uint32
	n        uint64
	min, max int64
}

const subBits = 5

// bucketOf returns the bucket of a number; negative ones mirror the others.
func bucketOf(v int64) int {
	if v < 0 {
		return -1 - positiveBucket(uint64(-(v + 1)))
	}
	return positiveBucket(uint64(v))
}

func positiveBucket(u uint64) int {
	shift := max(0, bits.Len64(u)-subBits-1)
	return shift<<subBits + int(u>>shift)
}

// middle returns the number a bucket stands for.
func middle(bucket int) int64 {
	if bucket < 0 {
		return -1 - middle(-1-bucket)
	}
	shift := max(0, bucket>>subBits-1)
	low := uint64(bucket-shift<<subBits) << shift
	return int64(min(low+(1<<shift-1)/2, math.MaxInt64))
}

// Add counts a number.
func (h *Histogram) Add(v int64) {
	if h.n == 0 {
		h.min, h.max = v, v
	}
	h.min, h.max = min(h.min, v), max(h.max, v)
	h.n++
	h.bump(bucketOf(v), 1)
}

func (h *Histogram) bump(b int, by uint32) {
	if i := b - h.first; len(h.counts) > 0 && i >= 0 && i < len(h.counts) {
		h.counts[i] += by
		return
	}
	h.widen(b)
	h.counts[b-h.first] += by
}

// widen makes room for bucket b, half an octave at a time.
func (h *Histogram) widen(b int) {
	const step = 16
	if len(h.counts) == 0 {
		h.first, h.counts = b, make([]uint32, 1, step)
		return
	}
	low, high := min(h.first, b), max(h.first+len(h.counts)-1, b)
	if low < h.first {
		low -= step / 2
	}
	if n := high - low + 1; low == h.first && n <= cap(h.counts) {
		h.counts = h.counts[:n]
		return
	}
	counts := make([]uint32, high-low+1, high-low+1+step)
	copy(counts[h.first-low:], h.counts)
	h.first, h.counts = low, counts
}

// Merge adds all of another histogram.
func (h *Histogram) Merge(o *Histogram) {
	if o.n == 0 {
		return
	}
	if h.n == 0 {
		h.min, h.max = o.min, o.max
	}
	h.min, h.max = min(h.min, o.min), max(h.max, o.max)
	h.n += o.n
	for i, c := range o.counts {
		if c > 0 {
			h.bump(o.first+i, c)
		}
	}
}

// Count returns how many numbers were added.
func (h *Histogram) Count() uint64 { return h.n }

// Quantile returns the number below which a share q of all lies, by nearest
// rank. ok is false for an empty histogram.
func (h *Histogram) Quantile(q float64) (v int64, ok bool) {
	if h.n == 0 {
		return 0, false
	}
	rank := uint64(math.Ceil(min(max(q, 0), 1) * float64(h.n)))
	if rank >= h.n {
		return h.max, true // known exactly
	}
	rank = max(rank, 1)
	var seen uint64
	for i, c := range h.counts {
		if seen += uint64(c); seen >= rank {
			return min(max(middle(h.first+i), h.min), h.max), true
		}
	}
	return h.max, true
}
