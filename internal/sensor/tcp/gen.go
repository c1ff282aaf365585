package tcp

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type flow -type flow_flag tcp tcp.bpf.c -- -I../../../bpf -Wall -Werror
