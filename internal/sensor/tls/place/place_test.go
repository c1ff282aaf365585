package place

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"runtime"
	"testing"
)

// base is where the code of the tests is mapped, and where it is in the file.
const (
	base   = 0x401000
	inFile = 0x40
)

// program is a file of nothing but code.
func program(code []byte) *file {
	return &file{
		r: bytes.NewReader(append(make([]byte, inFile), code...)), machine: elf.EM_X86_64,
		programs: []elf.ProgHeader{{Type: elf.PT_LOAD, Flags: elf.PF_X, Vaddr: base, Off: inFile, Filesz: uint64(len(code))}},
	}
}

var (
	write   = function{"SSL_write", Write, ByValue}
	writeEx = function{"SSL_write_ex", Write, ByArg4}
	free    = function{"SSL_free", Free, ByValue}
)

func TestPlaceOfOneFunction(t *testing.T) {
	for _, c := range []struct {
		name string
		fn   function
		code []byte
		at   uint64
		dear bool
	}{
		{"push", write, []byte{0x55, 0xc3}, 0, false},
		{"push behind endbr64", write, []byte{0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x56, 0xc3}, 4, false},
		{"sub; returns: its entry", write, []byte{0x48, 0x83, 0xec, 0x18, 0x55, 0xc3}, 0, true},
		{"test rdi,rdi; je", free, []byte{0x48, 0x85, 0xff, 0x74, 0x01, 0x53, 0xc3}, 3, false},
		{"sub; push", free, []byte{0x48, 0x83, 0xec, 0x18, 0x55, 0xc3}, 4, false},
		{"mov rdi first", free, []byte{0x48, 0x89, 0xf7, 0x55, 0xc3}, 0, true},
		{"ret", free, []byte{0xc3, 0x55}, 0, true},
		{"no code we know", free, []byte{0x06, 0x06}, 0, true},
		{"cut short", free, []byte{0x48}, 0, true},
	} {
		f := program(c.code)
		got := f.place(c.fn, symbol{address: base, size: uint64(len(c.code))}, nil)
		if got.Offset != inFile+c.at || got.Dear != c.dear || got.Return != (c.fn.call != Free) {
			t.Errorf("%s: %+v, want offset %#x, dear %v", c.name, got, inFile+c.at, c.dear)
		}
	}
}

// Two thin functions over one: the probes go there, and its arguments tell
// where the count is.
func TestPlaceOfLayers(t *testing.T) {
	layers := func(ex ...byte) (*file, map[string]symbol) {
		code := make([]byte, 0x60)
		copy(code, []byte{0x48, 0x83, 0xec, 0x18, 0xe8, 0x37, 0, 0, 0, 0xc3})       // sub; call +0x40
		copy(code[0x20:], append(append([]byte{0x48, 0x83, 0xec, 0x08}, ex...), 0)) // sub; ...
		copy(code[0x40:], []byte{0x41, 0x56, 0xc3})                                 // push r14
		return program(code), map[string]symbol{
			"SSL_write": {base, 10}, "SSL_write_ex": {base + 0x20, 16},
		}
	}
	f, all := layers(0xe8, 0x17, 0, 0, 0, 0xc3) // call +0x40
	for _, fn := range []function{write, writeEx} {
		if got := f.place(fn, all[fn.name], all); got.Offset != inFile+0x40 || got.Dear || got.Count != ByArg4 {
			t.Errorf("%s: %+v", fn.name, got)
		}
	}
	f, all = layers(0x49, 0x89, 0xc8, 0xe8, 0x14, 0, 0, 0, 0xc3) // mov rcx,r8; call +0x40
	for _, fn := range []function{write, writeEx} {
		if got := f.place(fn, all[fn.name], all); got.Offset != inFile+0x40 || got.Count != ByArg5 {
			t.Errorf("%s: %+v", fn.name, got)
		}
	}
	f, all = layers(0xe8, 0x18, 0, 0, 0, 0xc3) // call +0x41: another one
	if got := f.place(write, all["SSL_write"], all); got.Offset != inFile || !got.Dear || got.Count != ByValue {
		t.Errorf("%+v", got)
	}
}

// This test is a Go program; what its own runtime says must be found.
func TestFindGo(t *testing.T) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	libs, err := Find(self)
	if err != nil || len(libs) != 1 || libs[0].Name != "go" {
		t.Fatalf("%+v, %v", libs, err)
	}
	if r := libs[0].Runtime; r.Version != runtime.Version() || r.Goid == 0 || runtime.GOARCH == "amd64" && r.G != -8 {
		t.Errorf("%+v", r)
	}
}

func TestFindNothing(t *testing.T) {
	if _, err := Find(bytes.NewReader([]byte("#!/bin/sh\n"))); !errors.Is(err, ErrNone) {
		t.Errorf("a script: %v", err)
	}
}

func TestMinorOf(t *testing.T) {
	for version, want := range map[string]int{"go1.26.8": 26, "go1.18": 18, "go1.27rc1": 27, "go1.25.0 X:nocoverageredesign": 25, "devel +abc": 0, "go1.": 0, "": 0} {
		if got := minorOf(version); got != want {
			t.Errorf("%q: %d, want %d", version, got, want)
		}
	}
}

func FuzzFind(f *testing.F) {
	header := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...)
	header[16], header[18], header[20], header[52] = 3, 62, 1, 64
	f.Add(header)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Find(bytes.NewReader(b)); err == nil {
			t.Log("found something")
		}
		p := program(b)
		p.place(write, symbol{base, uint64(len(b))}, map[string]symbol{"SSL_write_ex": {base + 1, 9}})
	})
}
