package http1

import (
	"bytes"
	"strconv"

	"ghostlight/internal/l7"
)

// stream counts the events of a text/event-stream (WHATWG HTML, section 9.2): an
// event is a block of lines with data in it, ended by an empty line.
type stream struct {
	on      bool
	data    bool // the event at hand has a data line
	missed  bool // bytes are missing right before those to come
	line    int  // length of the line at hand
	start   [5]byte
	events  int64
	first   int64 // when the first event was there
	last    int64
	longest int64 // between two events
}

func (s *stream) begin() { s.on = true }

// miss says that bytes were not seen. The line at hand will not be known.
func (s *stream) miss() {
	s.missed = true
	s.data = s.data || s.isData()
	s.line = len(s.start) + 1
	s.start = [5]byte{}
}

// read takes the next bytes of the body, moved at now.
func (s *stream) read(b []byte, now int64) {
	if s.missed && beginsEvent(b) { // the end of the event before is what we missed
		s.line = 0
		s.endEvent(now)
	}
	s.missed = s.missed && len(b) == 0
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			s.more(b)
			return
		}
		s.more(b[:i])
		s.endLine(now)
		b = b[i+1:]
	}
}

func beginsEvent(b []byte) bool {
	for _, field := range [...]string{"data:", "event:", "id:", ":"} {
		if bytes.HasPrefix(b, []byte(field)) {
			return true
		}
	}
	return false
}

func (s *stream) more(b []byte) {
	if s.line < len(s.start) {
		copy(s.start[s.line:], b)
	}
	s.line += len(b)
}

func (s *stream) endLine(now int64) {
	switch {
	case s.line == 0, s.line == 1 && s.start[0] == '\r':
		s.endEvent(now)
	case s.isData():
		s.data = true
	}
	s.line = 0
	s.start = [5]byte{}
}

// isData reports that the line at hand is of the field data.
func (s *stream) isData() bool {
	return string(s.start[:4]) == "data" && (s.line == 4 || s.start[4] == ':' || s.start[4] == '\r')
}

func (s *stream) endEvent(now int64) {
	if !s.data {
		return
	}
	s.data = false
	if s.events == 0 {
		s.first = now
	} else {
		s.longest = max(s.longest, now-s.last)
	}
	s.events++
	s.last = now
}

// report adds what was counted to the call.
func (s *stream) report(c *l7.Call) {
	if !s.on {
		return
	}
	if s.missed && s.data {
		s.events++ // its end is what we missed
	}
	c.Add("http.stream", "sse")
	addInt(c, "http.sse.events", s.events)
	if s.first > 0 {
		addInt(c, "http.sse.first_event_ns", max(s.first-c.Time, 0))
		addInt(c, "http.sse.longest_gap_ns", s.longest)
	}
}

func addInt(c *l7.Call, key string, n int64) {
	var digits [20]byte
	c.Add(key, c.Keep(strconv.AppendInt(digits[:0], n, 10)))
}
