package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The committed header is the one of the committed folders.
func TestProtocolsInDate(t *testing.T) {
	want, err := protocols("../..")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../sensor/l7cap/protocols.h")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("internal/sensor/l7cap/protocols.h is out of date: run make generate")
	}
}

// A folder's index is its place among all protocols, those without a sniff.h
// too; a datagram protocol is asked about datagrams, and others are not.
func TestProtocols(t *testing.T) {
	tree := t.TempDir()
	for _, f := range []string{"aleph", "beth", "gimel"} {
		src := "package " + f + "\n"
		if f == "gimel" {
			src += "var Proto = l7.Proto{\n\tDatagram: true,\n}\n"
		}
		write(t, filepath.Join(tree, "l7", f, f+".go"), src)
		if f != "aleph" {
			write(t, filepath.Join(tree, "l7", f, "sniff.h"), "#define BETH_CAPTURE_ASKS 128\n#define GIMEL_CAPTURE_TURN 0\n"+
				"static __always_inline int "+f+"_sniff(const __u8 *p, __u32 n) { return n > 3 && p[0] == '"+f[:1]+"'; }\n")
		}
	}
	out, err := protocols(tree)
	if err != nil {
		t.Fatal(err)
	}
	header := filepath.Join(tree, "sensor", "l7cap", "protocols.h")
	write(t, header, string(out))
	write(t, filepath.Join(tree, "main.c"), `
typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32; typedef _Bool bool;
enum { false, true };
#define __always_inline inline __attribute__((always_inline))
#include "`+header+`"
static struct l7_protocol f;
#define yes(bytes, datagram, want) _Static_assert(1, ""); if (l7_sniff(&f, (const __u8 *)bytes, 4, datagram) != want) return __LINE__;
int main(void)
{
	yes("xxxx", false, false)
	yes("beth", false, true)
	if (f.index != 2 || f.asks != 128 || f.answers != 1024 || f.turn != 4096) return 1;
	yes("beth", true, false)
	yes("gime", true, true)
	if (f.index != 3 || f.asks != 1024 || f.turn != 0) return 2;
	yes("gime", false, true)
	return L7_DATAGRAMS ? 0 : 3;
}
`)
	program := filepath.Join(tree, "main")
	if msg, err := exec.Command("clang-19", "-Wall", "-Wno-macro-redefined", "-Werror", "-o", program, filepath.Join(tree, "main.c")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, msg, out)
	}
	if msg, err := exec.Command(program).CombinedOutput(); err != nil {
		t.Errorf("%v %s\n%s", err, msg, out)
	}
}

// A tree without any protocol has a header too.
func TestNoProtocols(t *testing.T) {
	tree := t.TempDir()
	write(t, filepath.Join(tree, "l7", "l7.go"), "package l7\n")
	out, err := protocols(tree)
	if err != nil || !strings.Contains(string(out), "#define L7_DATAGRAMS 0") {
		t.Errorf("%v\n%s", err, out)
	}
}
