package l7

import (
	"fmt"
	"testing"

	"ghostlight/internal/event"
)

func TestTraceHeaders(t *testing.T) {
	const id, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	const full, half = id + " " + span, "0000000000000000a3ce929d0e0e4736 " + span
	for _, c := range []struct {
		read    func(*event.Trace, []byte) bool
		in, out string
	}{
		{ReadTraceparent, "00-" + id + "-" + span + "-01", full},
		{ReadTraceparent, "01-" + id + "-" + span + "-01-more", full},
		{ReadTraceparent, "00-" + id + "-" + span + "-01-more", ""},
		{ReadTraceparent, "ff-" + id + "-" + span + "-01", ""},
		{ReadTraceparent, "00-" + id + "-" + span + "-0g", ""},
		{ReadTraceparent, "00-00000000000000000000000000000000-" + span + "-01", ""},
		{ReadTraceparent, "00-" + id + "-0000000000000000-01", ""},
		{ReadTraceparent, "00-" + id, ""},
		{ReadB3, id + "-" + span, full},
		{ReadB3, id + "-" + span + "-1-05e3ac9a4f6e3b90", full},
		{ReadB3, id[16:] + "-" + span + "-d", half},
		{ReadB3, id + "-" + span + "x", ""},
		{ReadB3, "0", ""},
		{ReadB3, "d", ""},
	} {
		var got event.Trace
		out := ""
		if c.read(&got, []byte(c.in)) {
			out = fmt.Sprintf("%x %x", got.ID, got.Parent)
		}
		if out != c.out {
			t.Errorf("%s gives %q, want %q", c.in, out, c.out)
		}
	}
}
