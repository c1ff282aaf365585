package http2

import (
	"encoding/binary"
	"time"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// stream is one call on its way.
type stream struct {
	id   uint32
	call *l7.Call // nil while only an answer was seen

	// of the request
	unsure  bool // some of its fields are unknown, its content-type perhaps
	poor    bool // its method or path is unknown
	timeout time.Duration

	// of the answer
	begun     bool // its final head was seen, not only a 1xx
	trailed   bool
	vague     bool // its status is unknown
	partly    bool // some of its fields are unknown, grpc-status perhaps
	status    int32
	rpcStatus int8
	length    int64 // content-length; -1 if nobody told
	body      int64
	early     early

	messages [3]messages
	done     [3]bool // END_STREAM was seen
	holed    bool    // bytes that may have been its were lost
	wasReset bool
	code     uint32 // why
	seen     int64  // when something was last seen of it
}

// early is the part of an answer that was seen before its request.
type early struct {
	first, last l7.Mark
	bytes       int
}

// answer adds n bytes of the answer: the first at from, the last moved at now.
func (s *stream) answer(from, now *l7.Mark, n int) {
	s.seen = now.Time
	if s.call != nil {
		s.call.Answer(from, 0)
		s.call.Answer(now, n)
		return
	}
	if s.early.bytes == 0 {
		s.early.first = *from
	}
	s.early.last = *now
	s.early.bytes += n
}

// ask adds n bytes of the request.
func (s *stream) ask(now *l7.Mark, n int) {
	s.seen = now.Time
	if s.call != nil {
		s.call.Ask(now, n)
	}
}

// isTalk reports whether the stream's bodies may be gRPC messages.
func (s *stream) isTalk() bool {
	return s.call != nil && s.call.Protocol == "grpc" || s.unsure
}

// isKnown reports whether nothing that the call's words depend on was missed.
func (s *stream) isKnown() bool {
	switch {
	case s.holed, s.poor, s.vague:
		return false
	case s.call.Family == event.RPC:
		return !s.partly || s.rpcStatus != rpcUntold || s.wasReset && !s.begun
	}
	return !s.unsure || s.call.Operation != "POST" // may be gRPC
}

// looksLikeRPC reports whether a call whose content-type is unknown can only be
// gRPC: whole messages both ways and nothing else, and trailers. Where the
// connection's other calls are gRPC, a whole message is enough.
func (s *stream) looksLikeRPC(others bool) bool {
	asked, answered := &s.messages[l7.Asks], &s.messages[l7.Answers]
	if !s.unsure || asked.count == 0 || !asked.isWhole() || !answered.isWhole() {
		return false
	}
	return others || s.trailed
}

// messages counts the gRPC messages of one way: five bytes (compressed or not,
// and the length), and the message.
type messages struct {
	count int
	left  uint64 // bytes of this message to come
	head  [5]byte
	have  int // bytes of head
	lost  bool
}

func (m *messages) isWhole() bool { return !m.lost && m.left == 0 && m.have == 0 }

// walk takes the next bytes: p, and hole more that nobody saw.
func (m *messages) walk(p []byte, hole int) {
	for len(p) > 0 && !m.lost {
		if m.left > 0 {
			n := min(m.left, uint64(len(p)))
			m.left, p = m.left-n, p[n:]
			continue
		}
		n := copy(m.head[m.have:], p)
		m.have, p = m.have+n, p[n:]
		if m.have == len(m.head) {
			m.begin()
		}
	}
	if hole == 0 {
		return
	}
	if uint64(hole) > m.left {
		m.lost = true // there may be heads in it
		return
	}
	m.left -= uint64(hole)
}

func (m *messages) begin() {
	m.have = 0
	if m.head[0] > 1 {
		m.lost = true
		return
	}
	m.left = uint64(binary.BigEndian.Uint32(m.head[1:]))
	m.count++
}
