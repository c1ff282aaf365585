package sqltext

import (
	"bytes"
	"encoding/hex"
)

// comment takes the trace out of a comment as the sqlcommenter specification
// writes it: /*traceparent='00-4bf9..-00f0..-01'*/.
func (l *lexer) comment(text []byte) {
	_, value, ok := bytes.Cut(text, []byte("traceparent='00-"))
	if !ok || len(value) < 53 || value[32] != '-' || value[49] != '-' || value[52] != '\'' {
		return
	}
	var trace [16]byte
	var parent [8]byte
	if _, err := hex.Decode(trace[:], value[:32]); err != nil {
		return
	}
	if _, err := hex.Decode(parent[:], value[33:49]); err != nil {
		return
	}
	if trace != [16]byte{} && parent != [8]byte{} {
		l.trace, l.parent = trace, parent
	}
}
