// Package speech is the l7cap sensor's object with protocols that its tests
// speak, so that the tests stand whatever the real ones do.
package speech

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel Speech ../l7cap.bpf.c -- -I../../../../bpf -DL7CAP_PROTOCOLS="speech/protocols.h" -mcpu=v3 -Wall -Werror
