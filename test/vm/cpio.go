package main

import (
	"fmt"
	"io"
)

// An archive writes a cpio archive in the newc format, the one the kernel
// unpacks as its first root (Documentation/driver-api/early-userspace/
// buffer-format.rst). Archives may follow each other in one image.
type archive struct {
	out    io.Writer
	inode  int
	offset int64
	err    error // the first one; later calls do nothing
}

// File types of st_mode, in octal as cpio and the kernel write them.
const (
	typeLink = 0o120000
	typeFile = 0o100000
	typeDir  = 0o040000
	typeChar = 0o020000
)

const trailer = "TRAILER!!!"

func (a *archive) dir(name string) { a.entry(name, typeDir|0o755, 2, nil, 0, 0) }

// file writes one file; under further names, if given, as hard links. The
// first of them carries the data, and all have one inode number.
func (a *archive) file(name string, perm int, data []byte, others ...string) {
	a.entry(name, typeFile|perm, 1+len(others), data, 0, 0)
	for _, other := range others {
		a.inode-- // entry counts it up again
		a.entry(other, typeFile|perm, 1+len(others), nil, 0, 0)
	}
}

func (a *archive) link(name, target string) { a.entry(name, typeLink|0o777, 1, []byte(target), 0, 0) }

func (a *archive) device(name string, major, minor int) {
	a.entry(name, typeChar|0o600, 1, nil, major, minor)
}

// close ends the archive and returns the first error of all.
func (a *archive) close() error {
	a.entry(trailer, 0, 1, nil, 0, 0)
	return a.err
}

// entry writes a header, the name with its NUL and the data, each padded to
// four bytes. Owner, times and the archive's own device stay zero, so equal
// contents give equal archives. No check sum: newc leaves that field zero.
func (a *archive) entry(name string, mode, links int, data []byte, major, minor int) {
	if int64(len(data)) > 0xffffffff {
		a.fail(fmt.Errorf("archive %s: %d bytes do not fit the format", name, len(data)))
	}
	inode := 0
	if name != trailer {
		a.inode++
		inode = a.inode
	}
	a.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		inode, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name))
	a.pad()
	a.write(data)
	a.pad()
}

func (a *archive) pad() { a.write(make([]byte, -a.offset&3)) }

func (a *archive) write(b []byte) {
	if a.err != nil {
		return
	}
	n, err := a.out.Write(b)
	a.offset += int64(n)
	a.fail(err)
}

func (a *archive) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}
