package l7

import (
	"encoding/hex"

	"ghostlight/internal/event"
)

// ReadTraceparent reads "00-<32 hex>-<16 hex>-<2 hex>" (W3C Trace Context,
// section 3.2) and reports whether it is sound. Versions above 00 may be longer.
func ReadTraceparent(t *event.Trace, p []byte) bool {
	const length = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-00")
	if len(p) < length || p[2] != '-' || p[35] != '-' || p[52] != '-' || string(p[:2]) == "ff" {
		return false
	}
	if len(p) > length && (p[length] != '-' || string(p[:2]) == "00") {
		return false
	}
	var version, flags [1]byte
	var got event.Trace
	if !unhex(version[:], p[:2]) || !ReadTraceID(&got.ID, p[3:35]) || !ReadSpanID(&got.Parent, p[36:52]) || !unhex(flags[:], p[53:55]) {
		return false
	}
	t.ID, t.Parent = got.ID, got.Parent
	return true
}

// ReadB3 reads "<16 or 32 hex>-<16 hex>[-sampled[-parent]]". The span in it is
// that of the caller: what we make of the request is below it.
func ReadB3(t *event.Trace, p []byte) bool {
	n := 32
	if len(p) > 16 && p[16] == '-' {
		n = 16
	}
	if len(p) < n+17 || p[n] != '-' || len(p) > n+17 && p[n+17] != '-' {
		return false // also "0", "1" and "d", which carry no ids
	}
	var got event.Trace
	if !ReadTraceID(&got.ID, p[:n]) || !ReadSpanID(&got.Parent, p[n+1:n+17]) {
		return false
	}
	t.ID, t.Parent = got.ID, got.Parent
	return true
}

// ReadTraceID reads 32 digits, or 16 that are the right half of an id. All zero
// is none.
func ReadTraceID(id *[16]byte, p []byte) bool {
	var got [16]byte
	if len(p) != 16 && len(p) != 32 || !unhex(got[16-len(p)/2:], p) || got == [16]byte{} {
		return false
	}
	*id = got
	return true
}

// ReadSpanID reads 16 digits. All zero is none.
func ReadSpanID(id *[8]byte, p []byte) bool {
	var got [8]byte
	if len(p) != 16 || !unhex(got[:], p) || got == [8]byte{} {
		return false
	}
	*id = got
	return true
}

// unhex decodes exactly len(dst) bytes.
func unhex(dst, p []byte) bool {
	n, err := hex.Decode(dst, p)
	return err == nil && n == len(dst)
}
