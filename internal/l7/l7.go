// Package l7 says what a protocol is. One folder below holds one protocol: its
// parser, its recorded traffic, and optionally sniff.h, which tells the kernel
// side whose bytes these are. A parser is pure: bytes in, requests out.
package l7

// Proto describes one protocol. Each folder exports exactly one, named Proto.
type Proto struct {
	Name string // network.protocol.name
	Doc  string
	// Sniff says whether a connection that begins with prefix speaks it. It is
	// the twin of sniff.h.
	Sniff func(prefix []byte) bool
}
