package http1

import "ghostlight/internal/l7"

// parseTraceparent reads "00-<32 hex>-<16 hex>-<2 hex>" (W3C Trace Context,
// section 3.2). Versions above 00 may be longer.
func (h *head) parseTraceparent(v []byte, c *l7.Call) {
	if len(v) < 55 || v[2] != '-' || v[35] != '-' || v[52] != '-' || string(v[:2]) == "ff" {
		return
	}
	if len(v) > 55 && (v[55] != '-' || string(v[:2]) == "00") {
		return
	}
	var version, flags [1]byte
	var id [16]byte
	var parent [8]byte
	if !unhex(version[:], v[:2]) || !unhex(id[:], v[3:35]) || !unhex(parent[:], v[36:52]) || !unhex(flags[:], v[53:55]) {
		return
	}
	if id == [16]byte{} || parent == [8]byte{} {
		return
	}
	c.Remote.ID, c.Remote.Parent, h.traced = id, parent, true
}

// parseB3 reads "<16 or 32 hex>-<16 hex>[-sampled[-parent]]". The span in it is
// that of the caller: what we make of the request is below it.
func (h *head) parseB3(v []byte, c *l7.Call) {
	n := 32
	if len(v) > 16 && v[16] == '-' {
		n = 16
	}
	if len(v) < n+17 || v[n] != '-' || len(v) > n+17 && v[n+17] != '-' {
		return // also "0", "1" and "d", which carry no ids
	}
	h.parseB3Trace(v[:n], c)
	h.parseB3Span(v[n+1:n+17], c)
}

func (h *head) parseB3Trace(v []byte, c *l7.Call) {
	var id [16]byte
	if len(v) != 16 && len(v) != 32 || !unhex(id[16-len(v)/2:], v) {
		return
	}
	h.b3 = id
	h.takeB3(c)
}

func (h *head) parseB3Span(v []byte, c *l7.Call) {
	var span [8]byte
	if len(v) != 16 || !unhex(span[:], v) {
		return
	}
	h.span = span
	h.takeB3(c)
}

// takeB3 takes the ids when both are there and no traceparent was.
func (h *head) takeB3(c *l7.Call) {
	if h.traced || h.b3 == [16]byte{} || h.span == [8]byte{} {
		return
	}
	c.Remote.ID, c.Remote.Parent = h.b3, h.span
}

// unhex decodes exactly len(dst) bytes.
func unhex(dst, src []byte) bool {
	for i := range dst {
		a, b := digit(src[2*i]), digit(src[2*i+1])
		if a|b > 15 {
			return false
		}
		dst[i] = a<<4 | b
	}
	return true
}

// digit returns the value of a hexadecimal digit, 255 if it is none.
func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}
