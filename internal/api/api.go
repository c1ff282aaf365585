// Package api is the HTTP face of Ghostlight: it answers questions about what
// is stored and how the agent fares, on loopback and on a unix socket.
package api
