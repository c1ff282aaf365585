// Package place finds where in a program's or library's code the functions are
// that see plaintext, and on which instruction of each a probe is cheap.
//
//	Find(file) -> symbols by name -> disassemble -> Sites
//
// Probes on an instruction that the kernel emulates (push, jumps, call, nop)
// cost a tenth of those on one that it has to single-step.
package place

import (
	"errors"
	"fmt"
	"io"
)

// Call says what a function does, and how its count of bytes is told. The
// values are those of enum tls_call in tls.bpf.c.
type Call uint8

// The calls.
const (
	Read Call = iota + 1
	Write
	Handshake
	Free
	GoRead
	GoWrite
	GoReady
)

// Count says where a call tells how many bytes it moved.
type Count uint8

// The ways: the function's value, or memory that an argument points to.
const (
	ByValue Count = iota
	ByArg4
	ByArg5
)

// Site is where a probe goes.
type Site struct {
	Symbol string
	Offset uint64 // in the file
	Return bool   // where the function returns too
	Call   Call
	Count  Count
	Dear   bool   // the kernel single-steps it
	Slots  *Slots // of GoRead
	Goid   uint16 // of GoReady: offset of the id in runtime.g
	Curg   uint16 // and of curg in runtime.m
}

// Cookie tells the program at the site what it is.
func (s Site) Cookie() uint64 {
	if s.Call == GoReady {
		return uint64(s.Call) | uint64(s.Goid)<<16 | uint64(s.Curg)<<32 | uint64(mOfG)<<48
	}
	if s.Slots == nil {
		return uint64(s.Call) | uint64(s.Count)<<8
	}
	return uint64(s.Call) | uint64(s.Slots.Register)<<8 |
		uint64(s.Slots.Conn)<<16 | uint64(s.Slots.Buffer)<<32 | uint64(s.Slots.Len)<<48
}

// Library is what was found in a file.
type Library struct {
	Name    string // of the kind: openssl, gnutls, go
	Sites   []Site
	Why     string   // why it has no sites; empty if it has no TLS
	Runtime *Runtime // of Go
}

// ErrNone says that the file has nothing that sees plaintext.
var ErrNone = errors.New("it has no TLS library whose functions have names")

// function is one that the code of a kind may have.
type function struct {
	name  string
	call  Call
	count Count
}

// kinds are the libraries known by the names of their functions. A file that has
// the first function of a kind has that kind.
var kinds = []struct {
	name      string
	functions []function
}{
	{"openssl", []function{
		{"SSL_read", Read, ByValue}, {"SSL_write", Write, ByValue},
		{"SSL_read_ex", Read, ByArg4}, {"SSL_write_ex", Write, ByArg4},
		{"SSL_do_handshake", Handshake, ByValue}, {"SSL_free", Free, ByValue},
	}},
	{"gnutls", []function{
		{"gnutls_record_recv", Read, ByValue}, {"gnutls_record_send", Write, ByValue},
		{"gnutls_handshake", Handshake, ByValue}, {"gnutls_deinit", Free, ByValue},
	}},
}

// names lists every function of every kind.
func names() (all []string) {
	for _, k := range kinds {
		for _, f := range k.functions {
			all = append(all, f.name)
		}
	}
	return all
}

// Find looks for the functions that see plaintext.
func Find(r io.ReaderAt) ([]Library, error) {
	f, err := open(r)
	if err != nil {
		return nil, err
	}
	l, isGo, err := f.golang()
	if isGo {
		return []Library{l}, err
	}
	at, err := f.symbols(names())
	if err != nil {
		return nil, err
	}
	var found []Library
	for _, k := range kinds {
		if _, ok := at[k.functions[0].name]; !ok {
			continue
		}
		l := Library{Name: k.name}
		for _, fn := range k.functions {
			if s, ok := at[fn.name]; ok {
				l.add(f, fn, s, at)
			}
		}
		found = append(found, l)
	}
	if found == nil {
		return nil, ErrNone
	}
	return found, nil
}

// add places fn, unless what it calls has a probe already.
func (l *Library) add(f *file, fn function, s symbol, all map[string]symbol) {
	site := f.place(fn, s, all)
	for _, other := range l.Sites {
		if other.Offset == site.Offset {
			return
		}
	}
	l.Sites = append(l.Sites, site)
}

// Cost says in words what the probes of a library cost.
func (l Library) Cost() string {
	dear := 0
	for _, s := range l.Sites {
		if s.Dear && s.Call <= Write {
			dear++
		}
	}
	if dear == 0 {
		return "cheap"
	}
	return fmt.Sprintf("%d of its probes are single-stepped", dear)
}
