package l7

import (
	"unsafe"

	"ghostlight/internal/event"
)

// Mark is the place of a byte: when, where and by whom it was moved.
type Mark struct {
	Time      int64
	Ready     int64
	Offset    uint64
	Seq       uint32
	Sent      bool
	TLS       bool
	PID, TID  uint32
	CgroupID  uint64
	Goroutine uint64
	Waker     uint64
}

func markOf(c *event.Chunk) Mark {
	return Mark{
		Time: c.Time, Ready: c.Ready, Offset: c.Offset, Seq: c.Seq, Sent: c.Sent, TLS: c.TLS,
		PID: c.PID, TID: c.TID, CgroupID: c.CgroupID, Goroutine: c.Goroutine, Waker: c.Waker,
	}
}

// Begin returns when the bytes at m came into being at this end: received ones
// when they were readable, sent ones when they were handed over.
func (m *Mark) Begin() int64 {
	if m.Ready > 0 && m.Ready <= m.Time {
		return m.Ready
	}
	return m.Time
}

func (m *Mark) next(n int) {
	m.Offset += uint64(n)
	if m.Seq != 0 {
		m.Seq += uint32(n)
	}
}

// Call is one request with its answer. The embedded Request is what will be
// published: Begin sets the times and the end it was seen at, the parser sets
// the words. Whoever made it may keep it until End.
type Call struct {
	event.Request
	// Remote is what a traceparent or b3 header said: the application's own ids
	// win over ours.
	Remote event.Trace
	// Link names the call among those of its connection the same way at both
	// ends: the stream, the correlation id. 0 where the order of bytes does.
	Link uint64
	// Asked and Answered are where the first byte of each was; Answered.Time is
	// 0 before there is an answer.
	Asked, Answered Mark
	// Owner belongs to who made the Call through Out.
	Owner any

	text  []byte // memory of the strings that Keep returned
	inUse bool
}

// Reset makes a call ready for its next life and keeps its memory.
func (c *Call) Reset() {
	attrs, text := c.Attrs[:0], c.text[:0]
	*c = Call{text: text}
	c.Attrs = attrs
}

// Start opens the call at m.
func (c *Call) Start(m *Mark) {
	c.Asked = *m
	c.Time, c.TLS = m.Begin(), m.TLS
	c.PID, c.TID, c.CgroupID, c.Goroutine = m.PID, m.TID, m.CgroupID, m.Goroutine
	c.Role = event.Server
	if m.Sent {
		c.Role = event.Client
	} else if m.Ready > 0 && m.Time > m.Ready {
		c.QueueNS = m.Time - m.Ready
	}
}

// Ask adds n bytes at m to the request.
func (c *Call) Ask(m *Mark, n int) { c.RequestBytes += int64(n) }

// Answer adds n bytes at m to the answer. The call ends, as far as is known,
// when they were moved.
func (c *Call) Answer(m *Mark, n int) {
	if c.Answered.Time == 0 {
		c.Answered = *m
		c.FirstByteNS = max(m.Time-c.Time, 0)
	}
	c.ResponseBytes += int64(n)
	c.DurationNS = max(m.Time-c.Time, c.DurationNS)
}

// IsAnswered reports whether a byte of the answer was seen.
func (c *Call) IsAnswered() bool { return c.Answered.Time != 0 }

// Keep copies p into the call's own memory and returns it as a string that
// lives as long as the call.
func (c *Call) Keep(p []byte) string {
	if len(p) == 0 {
		return ""
	}
	from := len(c.text)
	c.text = append(c.text, p...)
	at := c.text[from:]
	return unsafe.String(unsafe.SliceData(at), len(at))
}

// KeepString is Keep of a string that somebody else will write over.
func (c *Call) KeepString(s string) string {
	return c.Keep(unsafe.Slice(unsafe.StringData(s), len(s)))
}

// Add adds an attribute. Key must be a constant, value constant or kept.
func (c *Call) Add(key, value string) {
	c.Attrs = append(c.Attrs, event.Attr{Key: key, Value: value})
}
