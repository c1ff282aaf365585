package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the expected output in testdata")

// golden compares got with a file of testdata, or writes it there.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", file, got)
	}
}

func sampleArchive(t *testing.T) []byte {
	var b bytes.Buffer
	a := &archive{out: &b}
	a.dir("bin")
	for n := range 6 {
		a.file("bin/"+strings.Repeat("n", n+1), 0o755, []byte("12345"[:n]))
	}
	a.file("bin/busybox", 0o755, []byte("box"), "bin/ls", "bin/cat")
	a.link("bin/link", "n")
	a.device("dev/console", 5, 1)
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpack reads an archive by the format's description, on its own.
func unpack(t *testing.T, b []byte) string {
	var out strings.Builder
	for at := 0; ; {
		if at%4 != 0 || string(b[at:at+6]) != "070701" {
			t.Fatalf("no header at %d", at)
		}
		var field [13]int
		for i := range field {
			v, err := strconv.ParseUint(string(b[at+6+8*i:at+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			field[i] = int(v)
		}
		mode, links, size, nameSize := field[1], field[4], field[6], field[11]
		name := string(b[at+110 : at+110+nameSize-1])
		if b[at+110+nameSize-1] != 0 {
			t.Fatalf("%q does not end in NUL", name)
		}
		at = (at + 110 + nameSize + 3) &^ 3
		data := b[at : at+size]
		at = (at + size + 3) &^ 3
		if name == trailer {
			if at != len(b) {
				t.Fatalf("%d bytes after the trailer", len(b)-at)
			}
			return out.String()
		}
		fmt.Fprintf(&out, "inode %d mode %o links %d device %d:%d %s %q\n", field[0], mode, links, field[9], field[10], name, data)
	}
}

func TestArchive(t *testing.T) {
	b := sampleArchive(t)
	golden(t, "archive.txt", unpack(t, b))
	if !bytes.Equal(b, sampleArchive(t)) {
		t.Error("the same contents gave another archive")
	}
}

type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	if len(b) > f.room {
		n := f.room
		f.room = 0
		return n, errors.New("disk full")
	}
	f.room -= len(b)
	return len(b), nil
}

func TestArchiveFullDisk(t *testing.T) {
	for room := range len(sampleArchive(t)) {
		a := &archive{out: &full{room}}
		a.file("name", 0o644, make([]byte, len(sampleArchive(t))))
		if err := a.close(); err == nil {
			t.Fatalf("no error with room for %d bytes", room)
		}
	}
}
