package http2

import "ghostlight/internal/l7"

// verdict is what bytes at an unknown place look like.
type verdict uint8

const (
	no verdict = iota
	more
	yes
)

// find looks whether a chunk at an unknown place begins with frames, and reports
// whether it can be read. A chunk too short to tell is kept for the next one.
func (c *conn) find(side l7.Side, w *way) bool {
	v := c.look(side, w)
	if v == more && w.in.Cut() {
		v = no
	}
	switch v {
	case no:
		w.begun = true
		c.hole(side)
		c.drift(w, w.in.Len())
		w.in.Lose()
	case more:
		w.in.Rest()
	case yes:
		w.begun, w.adrift = true, nil
		w.in.Found()
	}
	return v == yes
}

// look also sees whether the connection begins here: then the header table is
// known to be empty.
func (c *conn) look(side l7.Side, w *way) verdict {
	b := w.in.Bytes()
	if side == l7.Asks && !w.begun {
		if n := min(len(b), len(preface)); string(b[:n]) == preface[:n] {
			if n < len(preface) {
				return more
			}
			w.in.Next(n)
			w.table.begin()
			return yes
		}
	}
	v := c.looksLikeFrames(side, b)
	if v == yes && side == l7.Answers && !w.begun {
		if h := frameAt(b); h.typ == settings && !h.has(ack) {
			w.table.begin() // a server says this first, and hardly ever again
		}
	}
	return v
}

// looksLikeFrames reports whether b begins with frames that can be what follows.
func (c *conn) looksLikeFrames(side l7.Side, b []byte) verdict {
	if len(b) < headBytes {
		return more
	}
	for first := true; len(b) >= headBytes; first = false {
		h := frameAt(b)
		if !h.isPlain() || first && !c.isExpected(side, h) {
			return no
		}
		b = b[headBytes:]
		n := min(h.length, len(b))
		if first && h.typ == headers && !c.isHead(side, h, b[:n]) {
			return no
		}
		b = b[n:]
	}
	return yes
}

// isHead reports whether a HEADERS frame's payload can be this side's.
func (c *conn) isHead(side l7.Side, h frame, payload []byte) bool {
	of, ok := whoseHeaders(h, payload)
	return of != side.Other() && (ok || len(c.streams) > 0) // trailers begin with anything
}

// isExpected reports whether a side may send such a frame now, as far as its
// streams are known.
func (c *conn) isExpected(side l7.Side, h frame) bool {
	switch h.typ {
	case data:
		return c.stream(h.id) != nil
	case headers:
		if side == l7.Asks {
			return h.id > c.last || c.stream(h.id) != nil
		}
		return c.last == 0 || h.id <= c.last+farAhead
	case pushPromise:
		return side == l7.Answers
	case continuation:
		return false
	}
	return true
}

// lose gives up the place: what was open there may have ended unseen, and the
// header table is worth nothing.
func (c *conn) lose(side l7.Side, w *way) {
	rest := w.in.Len()
	w.begun = true
	w.adrift = c.only(side)
	w.in.Lose()
	w.table.forget()
	w.cur, w.left, w.body = nil, 0, 0
	w.block.open = false
	c.hole(side)
	c.drift(w, rest)
}

// hole says that something was lost which may have been any open stream's.
func (c *conn) hole(side l7.Side) {
	for _, s := range c.streams {
		if !s.done[side] {
			s.holed, s.messages[side].lost = true, true
		}
	}
}

// only returns the stream whose answer the lost bytes are, if it is the only one
// that is being answered.
func (c *conn) only(side l7.Side) *stream {
	var found *stream
	for _, s := range c.streams {
		if side != l7.Answers || !s.begun || s.done[side] {
			continue
		}
		if found != nil {
			return nil
		}
		found = s
	}
	return found
}

// drift counts n bytes at an unknown place. When all that was announced has
// come, the answer is over, though nobody saw its last frame.
func (c *conn) drift(w *way, n int) {
	s := w.adrift
	if s == nil || n == 0 {
		return
	}
	s.answer(w.in.Now(), w.in.Now(), n)
	s.body += int64(n)
	if s.length > 0 && s.body >= s.length {
		c.finish(s, false)
	}
}
