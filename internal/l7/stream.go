package l7

import "ghostlight/internal/event"

// Stream is one way of a connection, read from front to back. A parser looks at
// the bytes that are there, steps over what it is done with (captured or not),
// and leaves what is incomplete for the next chunk:
//
//	s.Feed(c)
//	for b := s.Bytes(); ...; b = s.Bytes() { ...; s.Next(n) }
//	s.Rest()
//
// Usually nothing is copied: only what is left over is kept.
type Stream struct {
	// Limit bounds what is kept of an incomplete message; 0 is DefaultLimit.
	Limit int

	kept []byte // captured before and not stepped over
	data []byte // of this call: kept bytes first, if there are any
	hole int    // bytes after data that were moved but not captured
	skip uint64 // bytes to come that are to be stepped over
	lost bool

	mark Mark // of data's first byte
	tail Mark // of this chunk's first byte
	last int  // index in data where this chunk begins
}

// DefaultLimit is how much of an incomplete message is kept.
const DefaultLimit = 16 << 10

// Feed begins with the bytes of a chunk.
func (s *Stream) Feed(c *event.Chunk) {
	s.tail = markOf(c)
	data, size := c.Data, max(c.Len, len(c.Data))
	if len(s.kept) == 0 {
		s.data, s.last, s.mark = data, 0, s.tail
	} else {
		s.last = len(s.kept)
		s.kept = append(s.kept, data...)
		s.data = s.kept
	}
	s.hole = size - len(data)
	if s.skip > 0 {
		n := min(s.skip, uint64(len(s.data)+s.hole))
		s.skip -= n
		s.Next(int(n))
	}
}

// Bytes returns what was captured from the current place on, without a gap.
func (s *Stream) Bytes() []byte { return s.data }

// Cut reports that what follows Bytes was moved but not captured: more of the
// message at hand will never be seen.
func (s *Stream) Cut() bool { return s.hole > 0 }

// Len returns how many bytes are here from the current place on, captured or
// not.
func (s *Stream) Len() int { return len(s.data) + s.hole }

// Next steps over n bytes, whether they are captured, were not, or are still to
// come.
func (s *Stream) Next(n int) {
	k := min(n, len(s.data))
	s.data = s.data[k:]
	s.advance(k)
	n -= k
	k = min(n, s.hole)
	s.hole -= k
	s.mark.next(k)
	s.skip += uint64(n - k)
}

func (s *Stream) advance(n int) {
	if s.last > 0 && n >= s.last { // into this chunk
		s.mark = s.tail
		n -= s.last
		s.last = 0
	} else {
		s.last = max(s.last-n, 0)
	}
	s.mark.next(n)
}

// Mark returns the place of the first byte of Bytes. It is valid until the next
// call.
func (s *Stream) Mark() *Mark { return &s.mark }

// Now returns the place of the newest chunk: when and by whom the bytes at hand
// were moved last.
func (s *Stream) Now() *Mark { return &s.tail }

// Rest ends the work on a chunk: what was not stepped over is kept for the next
// one. If the rest of it was not captured, or it is longer than the limit, the
// place is lost.
func (s *Stream) Rest() {
	limit := s.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	if s.hole > 0 || len(s.data) > limit {
		s.Lose()
		return
	}
	s.kept = append(s.kept[:0], s.data...) // overlaps where data is kept's own end: append copies forward
	s.data = nil
}

// Lose forgets what is here: the next chunk begins at an unknown place.
func (s *Stream) Lose() {
	s.lost, s.kept, s.data, s.hole, s.skip = true, s.kept[:0], nil, 0, 0
}

// Lost reports that the place is not known: Bytes need not begin a message.
func (s *Stream) Lost() bool { return s.lost }

// Found says that the place is known again.
func (s *Stream) Found() { s.lost = false }

// Missing says that n bytes were never seen; n is 0 if nobody knows how many.
// What was to be stepped over anyway is no harm.
func (s *Stream) Missing(n uint64) {
	if n > 0 && len(s.kept) == 0 && n <= s.skip {
		s.skip -= n
		return
	}
	s.Lose()
}

// Waiting returns how many bytes to come are to be stepped over.
func (s *Stream) Waiting() uint64 { return s.skip }
