package http1

import (
	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

func (h *head) parseTraceparent(v []byte, c *l7.Call) {
	if l7.ReadTraceparent(&c.Remote, v) {
		h.traced = true
	}
}

func (h *head) parseB3(v []byte, c *l7.Call) {
	var t event.Trace
	if l7.ReadB3(&t, v) {
		h.b3, h.span = t.ID, t.Parent
		h.takeB3(c)
	}
}

func (h *head) parseB3Trace(v []byte, c *l7.Call) {
	if l7.ReadTraceID(&h.b3, v) {
		h.takeB3(c)
	}
}

func (h *head) parseB3Span(v []byte, c *l7.Call) {
	if l7.ReadSpanID(&h.span, v) {
		h.takeB3(c)
	}
}

// takeB3 takes the ids when both are there and no traceparent was.
func (h *head) takeB3(c *l7.Call) {
	if h.traced || h.b3 == [16]byte{} || h.span == [8]byte{} {
		return
	}
	c.Remote.ID, c.Remote.Parent = h.b3, h.span
}
