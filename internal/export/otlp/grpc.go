package otlp

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// gRPC is HTTP/2 with five bytes before the message and the status in the
// trailer (github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): for calls
// of one message each way, which is all that OTLP has, net/http is enough.

// services are the paths of the signals.
var services = [signals]string{
	"opentelemetry.proto.collector.trace.v1.TraceService/Export",
	"opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
	"opentelemetry.proto.collector.logs.v1.LogsService/Export",
}

// framePrefix is a byte that tells of compression, and the length.
const framePrefix = 5

func frame(body []byte, compressed bool) {
	body[0] = map[bool]byte{true: 1}[compressed]
	binary.BigEndian.PutUint32(body[1:], uint32(len(body)-framePrefix))
}

// unframed returns the message of an answer, nil if there is none.
func unframed(body []byte) []byte {
	if len(body) < framePrefix || body[0] != 0 {
		return nil
	}
	n := binary.BigEndian.Uint32(body[1:])
	if uint64(n) > uint64(len(body)-framePrefix) {
		return nil
	}
	return body[framePrefix : framePrefix+n]
}

// The codes after which the specification of OTLP allows another try
// (opentelemetry.io/docs/specs/otlp/#failures).
const (
	codeCancelled         = 1
	codeDeadlineExceeded  = 4
	codeResourceExhausted = 8 // only if it says when
	codeAborted           = 10
	codeOutOfRange        = 11
	codeUnavailable       = 14
	codeDataLoss          = 15
)

func grpcAnswer(r *http.Response, body []byte, s signal) answer {
	if r.StatusCode != http.StatusOK { // not by a gRPC server
		a := httpAnswer(r, nil, s)
		a.err = fmt.Errorf("%s: no gRPC there: HTTP status %d", s, r.StatusCode)
		return a
	}
	trailer := func(key string) string {
		if v := r.Trailer.Get(key); v != "" {
			return v
		}
		return r.Header.Get(key) // an answer without a message has only this
	}
	code, err := strconv.Atoi(trailer("Grpc-Status"))
	if err != nil {
		return answer{err: fmt.Errorf("%s: an answer without grpc-status", s), retry: true}
	}
	if code == 0 {
		rejected, message := partial(unframed(body))
		return answer{rejected: rejected, message: message}
	}
	message, err := url.PathUnescape(trailer("Grpc-Message"))
	if err != nil {
		message = ""
	}
	a := answer{err: fmt.Errorf("%s: gRPC status %d: %s", s, code, said([]byte(message)))}
	a.after = retryDelay(trailer("Grpc-Status-Details-Bin"))
	switch code {
	case codeCancelled, codeDeadlineExceeded, codeAborted, codeOutOfRange, codeUnavailable, codeDataLoss:
		a.retry = true
	case codeResourceExhausted:
		a.retry = a.after > 0
	}
	return a
}

// retryDelay reads the details of a status.
func retryDelay(details string) time.Duration {
	if len(details) > maxAnswer {
		return 0
	}
	p, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(details, "="))
	if err != nil {
		return 0
	}
	after, _ := status(p)
	return after
}

// retryInfo reads a google.protobuf.Any: its delay if it is a RetryInfo.
func retryInfo(p []byte) (after time.Duration) {
	var kind string
	var value []byte
	for f, rest, ok := next(p); ok; f, rest, ok = next(rest) {
		switch {
		case f.number == 1 && f.wire == wireBytes:
			kind = string(f.bytes)
		case f.number == 2 && f.wire == wireBytes:
			value = f.bytes
		}
	}
	if !strings.HasSuffix(kind, "/google.rpc.RetryInfo") {
		return 0
	}
	for f, rest, ok := next(value); ok; f, rest, ok = next(rest) {
		if f.number == 1 && f.wire == wireBytes {
			after = duration(f.bytes)
		}
	}
	return after
}

// duration reads a google.protobuf.Duration, within bounds.
func duration(p []byte) (d time.Duration) {
	for f, rest, ok := next(p); ok; f, rest, ok = next(rest) {
		switch {
		case f.number == 1 && f.wire == wireVarint:
			d += time.Duration(min(f.n, uint64(maxAfter/time.Second))) * time.Second
		case f.number == 2 && f.wire == wireVarint:
			d += time.Duration(min(f.n, uint64(time.Second)))
		}
	}
	return min(d, maxAfter)
}
