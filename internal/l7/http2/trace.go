package http2

import (
	"encoding/base64"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// remote reads the ids of the application's own trace: traceparent, else b3 in
// one header or two, else grpc-trace-bin.
func remote(t *event.Trace, f *fields) {
	if l7.ReadTraceparent(t, f.value[traceparent]) || l7.ReadB3(t, f.value[b3]) {
		return
	}
	if readIDs(t, f.value[b3Trace], f.value[b3Span]) {
		return
	}
	readGRPCTrace(t, f.value[grpcTrace])
}

const traceparentBytes = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-00")

// isTraceparent reports whether a text has the form of a traceparent.
func isTraceparent(p []byte) bool {
	return len(p) == traceparentBytes && p[0] == '0' && p[1] == '0' && p[2] == '-' && p[35] == '-' && p[52] == '-'
}

// readIDs reads both ids if both are sound.
func readIDs(t *event.Trace, trace, span []byte) bool {
	var got event.Trace
	if !l7.ReadTraceID(&got.ID, trace) || !l7.ReadSpanID(&got.Parent, span) {
		return false
	}
	return accept(t, &got)
}

// readGRPCTrace reads OpenCensus's binary form: version 0, field 0 the trace,
// field 1 the span.
func readGRPCTrace(t *event.Trace, p []byte) bool {
	var b [48]byte
	for len(p) > 0 && p[len(p)-1] == '=' {
		p = p[:len(p)-1]
	}
	if base64.RawStdEncoding.DecodedLen(len(p)) > len(b) {
		return false
	}
	n, err := base64.RawStdEncoding.Decode(b[:], p)
	if err != nil || n < 27 || b[0] != 0 || b[1] != 0 || b[18] != 1 {
		return false
	}
	var got event.Trace
	copy(got.ID[:], b[2:18])
	copy(got.Parent[:], b[19:27])
	return accept(t, &got)
}

func accept(t, got *event.Trace) bool {
	if got.ID == [16]byte{} || got.Parent == [8]byte{} {
		return false
	}
	t.ID, t.Parent = got.ID, got.Parent
	return true
}
