package place

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"math"
)

// Bounds of what is read of a file that anybody may have written.
const (
	maxStrings = 256 << 20 // bytes of a table of names
	maxSymbols = 8 << 20
	maxCode    = 4096 // bytes of a function
	windowSize = 64 << 10
)

// file is an ELF file.
type file struct {
	r        io.ReaderAt
	machine  elf.Machine
	programs []elf.ProgHeader
	sections []*elf.Section
}

type symbol struct {
	address uint64
	size    uint64
}

func open(r io.ReaderAt) (f *file, err error) {
	defer func() { // debug/elf says of itself that it is not made for hostile files
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("read ELF: %v", p)
		}
	}()
	e, err := elf.NewFile(r)
	if bad := (*elf.FormatError)(nil); errors.As(err, &bad) || errors.Is(err, io.EOF) {
		return nil, ErrNone // a script, a compiler's cache
	}
	if err != nil {
		return nil, fmt.Errorf("read ELF: %w", err)
	}
	if e.Class != elf.ELFCLASS64 || e.Data != elf.ELFDATA2LSB || (e.Machine != elf.EM_X86_64 && e.Machine != elf.EM_AARCH64) {
		return nil, ErrNone
	}
	f = &file{r: r, machine: e.Machine, sections: e.Sections}
	for _, p := range e.Progs {
		f.programs = append(f.programs, p.ProgHeader)
	}
	return f, nil
}

// offset returns where in the file an address of its code is.
func (f *file) offset(address uint64) (uint64, bool) {
	for _, p := range f.programs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && address >= p.Vaddr && address-p.Vaddr < p.Filesz {
			return address - p.Vaddr + p.Off, true
		}
	}
	return 0, false
}

// code returns up to n bytes of code at an address.
func (f *file) code(address, n uint64) []byte {
	at, ok := f.offset(address)
	if !ok || at > math.MaxInt64 {
		return nil
	}
	b := make([]byte, min(n, maxCode))
	got, _ := f.r.ReadAt(b, int64(at)) // the last function of a file is shorter
	return b[:got]
}

// symbols returns those of the named functions that the file defines. It reads
// the tables in pieces: those of a big program would not fit into our memory.
func (f *file) symbols(names []string) (map[string]symbol, error) {
	return f.symbolsOf(elf.STT_FUNC, names)
}

func (f *file) symbolsOf(kind elf.SymType, names []string) (map[string]symbol, error) {
	found := map[string]symbol{}
	for _, table := range f.sections {
		if table.Type != elf.SHT_DYNSYM && table.Type != elf.SHT_SYMTAB || int64(table.Link) >= int64(len(f.sections)) {
			continue
		}
		at, err := f.strings(f.sections[table.Link], names)
		if err != nil {
			return nil, err
		}
		if len(at) == 0 {
			continue
		}
		if err := f.search(table, kind, at, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// strings returns at which places of a table of names the wanted ones are. A
// name may be the end of a longer one, as linkers share them.
func (f *file) strings(table *elf.Section, names []string) (map[uint32]string, error) {
	at := map[uint32]string{}
	size := table.FileSize
	if table.Type != elf.SHT_STRTAB || size > maxStrings || table.Offset > math.MaxInt64-maxStrings {
		return nil, nil
	}
	wanted := make([][]byte, len(names))
	longest := 0
	for i, n := range names {
		wanted[i] = append([]byte(n), 0)
		longest = max(longest, len(wanted[i]))
	}
	piece := make([]byte, windowSize)
	for base := uint64(0); base < size; base += uint64(windowSize - longest) {
		b := piece[:min(windowSize, size-base)]
		if _, err := f.r.ReadAt(b, int64(table.Offset+base)); err != nil {
			return nil, fmt.Errorf("read names: %w", err)
		}
		for i, w := range wanted {
			for from := 0; ; {
				n := bytes.Index(b[from:], w)
				if n < 0 {
					break
				}
				at[uint32(base)+uint32(from+n)] = names[i]
				from += n + len(w)
			}
		}
	}
	return at, nil
}

// search adds the functions whose names are at the given places.
func (f *file) search(table *elf.Section, kind elf.SymType, at map[uint32]string, found map[string]symbol) error {
	const entry = elf.Sym64Size
	n := table.FileSize / entry
	if n > maxSymbols || table.Offset > math.MaxInt64-maxSymbols*entry {
		return fmt.Errorf("%d symbols are too many", n)
	}
	piece := make([]byte, windowSize/entry*entry)
	for n > 0 {
		count := min(n, uint64(len(piece)/entry))
		b := piece[:count*entry]
		if _, err := f.r.ReadAt(b, int64(table.Offset+table.FileSize/entry*entry-n*entry)); err != nil {
			return fmt.Errorf("read symbols: %w", err)
		}
		n -= count
		for ; len(b) > 0; b = b[entry:] {
			name, ok := at[le32(b)]
			if !ok || elf.ST_TYPE(b[4]) != kind || le16(b[6:]) == uint16(elf.SHN_UNDEF) {
				continue
			}
			found[name] = symbol{address: le64(b[8:]), size: le64(b[16:])}
		}
	}
	return nil
}

func le16(b []byte) uint16 { return uint16(b[0]) | uint16(b[1])<<8 }
func le32(b []byte) uint32 { return uint32(le16(b)) | uint32(le16(b[2:]))<<16 }
func le64(b []byte) uint64 { return uint64(le32(b)) | uint64(le32(b[4:]))<<32 }
