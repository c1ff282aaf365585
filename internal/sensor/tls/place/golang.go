package place

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// Runtime is what a Go program's runtime looks like.
type Runtime struct {
	Version string
	Goid    int16  // offset of the goroutine's id in runtime.g; 0: not known
	G       int16  // of the slot that holds g, from the thread pointer
	Why     string // why it is not known
	Ready   *Site  // where a goroutine is made runnable; nil: not known
	curg    uint16 // offset in runtime.m
}

// Slots say where (*Conn).Read has what it was given and what it found, at the
// instruction after it copied plaintext.
type Slots struct {
	Register          uint8  // by its number in x86: the bytes copied
	Conn, Buffer, Len uint16 // on the stack
}

const (
	goRead    = "crypto/tls.(*Conn).Read"
	goWrite   = "crypto/tls.(*Conn).Write"
	goMemmove = "runtime.memmove"
	goReady   = "runtime.ready"
)

const mOfG = 48 // offset of m in runtime.g, of all versions so far

// golang finds what a Go program has. It has no symbols if it is stripped, but
// always the table by which its runtime names functions.
func (f *file) golang() (Library, bool, error) {
	table := f.section(".gopclntab", ".data.rel.ro.gopclntab")
	if table == nil {
		return Library{}, false, nil
	}
	l := Library{Name: "go", Runtime: f.runtime()}
	at, err := f.functions(table, goRead, goWrite, goMemmove, goReady)
	if err != nil {
		return l, true, err
	}
	if f.machine != elf.EM_X86_64 || len(at) == 0 {
		return l, true, nil
	}
	if r := l.Runtime; r.Goid != 0 {
		if site, ok := f.firstJump(goReady, GoReady, at[goReady]); ok {
			site.Goid, site.Curg = uint16(r.Goid), r.curg
			r.Ready = &site
		}
	}
	read, ok1 := f.placeRead(at[goRead], at[goMemmove])
	write, ok2 := f.firstJump(goWrite, GoWrite, at[goWrite])
	switch _, has := at[goRead]; {
	case !has:
	case ok1 && ok2:
		l.Sites = []Site{read, write}
	default:
		l.Why = "its crypto/tls was compiled in a way that is not known"
	}
	return l, true, nil
}

func (f *file) section(names ...string) *elf.Section {
	for _, s := range f.sections {
		for _, n := range names {
			if s.Name == n {
				return s
			}
		}
	}
	return nil
}

// since are the offsets of goid in runtime.g and of curg in runtime.m, from a
// minor version on, as the debugging information of programs built by it says.
var since = []struct {
	minor int
	goid  int16
	curg  uint16
}{{18, 152, 192}, {23, 160, 192}, {25, 152, 184}}

// newest is the last minor version that was looked at.
const newest = 26

func (f *file) runtime() *Runtime {
	r := &Runtime{}
	version, err := f.version()
	if err != nil {
		r.Why = err.Error()
		return r
	}
	r.Version = version
	minor := minorOf(version)
	if minor < since[0].minor || minor > newest {
		r.Why = "goroutines of " + version + " are not known"
		return r
	}
	if f.machine == elf.EM_X86_64 {
		if r.G, err = f.slotOfG(); err != nil {
			r.Why = err.Error()
			return r
		}
	}
	for _, s := range since {
		if minor >= s.minor {
			r.Goid, r.curg = s.goid, s.curg
		}
	}
	return r
}

func (f *file) version() (version string, err error) {
	defer func() { // as in open
		if p := recover(); p != nil {
			err = fmt.Errorf("read Go's build information: %v", p)
		}
	}()
	info, err := buildinfo.Read(f.r)
	if err != nil {
		return "", fmt.Errorf("read Go's build information: %w", err)
	}
	return info.GoVersion, nil
}

// minorOf returns 26 of "go1.26.8 X:some", and 0 of what it does not know.
func minorOf(version string) int {
	rest, ok := strings.CutPrefix(version, "go1.")
	if !ok {
		return 0
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	n, _ := strconv.Atoi(rest) // 0 is not known
	return n
}

// slotOfG returns where from the thread pointer the runtime keeps g on amd64:
// in the program's thread-local block, which ends at the thread pointer. A block
// that has nothing else is 8 bytes; Go's own linker makes none at all for
// programs without C.
func (f *file) slotOfG() (int16, error) {
	for _, p := range f.programs {
		if p.Type != elf.PT_TLS || p.Memsz == 8 {
			continue
		}
		at, err := f.symbolsOf(elf.STT_TLS, []string{"runtime.tlsg"})
		if err != nil {
			return 0, err
		}
		align := max(p.Align, 1)
		size := (p.Memsz + align - 1) / align * align
		s, ok := at["runtime.tlsg"]
		if !ok || size > math.MaxInt16 || s.address >= size {
			return 0, errors.New("the place of its goroutines among C's thread-local variables is not known")
		}
		return int16(int64(s.address) - int64(size)), nil
	}
	return -8, nil
}

// header is the beginning of the table of functions since Go 1.18: a word that
// tells the version, then these.
type header struct{ functions, text, names, namesEnd, table uint64 }

const (
	magic118 = 0xfffffff0
	magic120 = 0xfffffff1
	// bounds of what anybody may have written
	maxFunctions = 4 << 20
	maxNames     = 256 << 20
)

func (f *file) header(s *elf.Section) (h header, err error) {
	b := make([]byte, 8+8*8)
	if s.Offset > math.MaxInt64/2 || s.FileSize > math.MaxInt64/2 {
		return h, errors.New("Go's table of functions is nowhere")
	}
	if _, err := f.r.ReadAt(b, int64(s.Offset)); err != nil {
		return h, fmt.Errorf("read Go's table of functions: %w", err)
	}
	if m := le32(b); m != magic118 && m != magic120 || b[7] != 8 {
		return h, errors.New("its Go is older than 1.18, or newer than we know")
	}
	h = header{le64(b[8:]), le64(b[24:]), le64(b[32:]), le64(b[40:]), le64(b[64:])}
	if h.functions > maxFunctions || h.names > h.namesEnd || h.namesEnd > s.FileSize || h.namesEnd-h.names > maxNames || h.table > s.FileSize {
		return h, errors.New("Go's table of functions makes no sense")
	}
	if h.text == 0 { // since Go 1.26, and in programs that may be anywhere
		if text := f.section(".text"); text != nil {
			h.text = text.Addr
		}
	}
	return h, nil
}

// functions returns where the named functions are.
func (f *file) functions(s *elf.Section, names ...string) (map[string]symbol, error) {
	h, err := f.header(s)
	if err != nil {
		return nil, err
	}
	wanted, err := f.nameOffsets(s.Offset+h.names, h.namesEnd-h.names, names)
	if err != nil || len(wanted) == 0 {
		return nil, err
	}
	found := map[string]symbol{}
	table := &window{r: f.r, base: int64(s.Offset + h.table)}
	about := &window{r: f.r, base: int64(s.Offset + h.table)}
	for i := uint64(0); i < h.functions && len(found) < len(wanted); i++ {
		entry := table.at(i*8, 16) // with the next one's address
		if entry == nil {
			break
		}
		name := about.at(uint64(le32(entry[4:]))+4, 4)
		if name == nil {
			break
		}
		if n, ok := wanted[le32(name)]; ok {
			start, end := uint64(le32(entry)), uint64(le32(entry[8:]))
			found[n] = symbol{address: h.text + start, size: max(end, start) - start}
		}
	}
	return found, nil
}

// nameOffsets finds names in a table of them, each ended by a zero.
func (f *file) nameOffsets(from, size uint64, names []string) (map[uint32]string, error) {
	at := map[uint32]string{}
	piece := make([]byte, windowSize)
	const overlap = 64 // more than a name of ours
	for base := uint64(0); base < size; base += windowSize - overlap {
		b := piece[:min(windowSize, size-base)]
		if _, err := f.r.ReadAt(b, int64(from+base)); err != nil {
			return nil, fmt.Errorf("read Go's names: %w", err)
		}
		for _, n := range names {
			if i := bytes.Index(b, []byte("\x00"+n+"\x00")); i >= 0 {
				at[uint32(base)+uint32(i)+1] = n
			}
		}
	}
	return at, nil
}

// window reads a file at places that mostly follow each other.
type window struct {
	r    io.ReaderAt
	base int64
	from uint64
	data []byte
}

func (w *window) at(pos, n uint64) []byte {
	if pos < w.from || pos+n > w.from+uint64(len(w.data)) {
		if w.data == nil {
			w.data = make([]byte, windowSize)
		}
		if pos > math.MaxInt64/2 {
			return nil
		}
		w.data = w.data[:windowSize]
		got, _ := w.r.ReadAt(w.data, w.base+int64(pos)) // short at the end
		w.from, w.data = pos, w.data[:got]
		if uint64(got) < n {
			return nil
		}
	}
	return w.data[pos-w.from : pos-w.from+n]
}

// firstJump puts the probe on the jump that a function begins with if its stack
// is too small: it is emulated, the arguments are where they came, and whether it
// is taken (the function then begins again) is in the flags.
func (f *file) firstJump(name string, call Call, s symbol) (Site, bool) {
	for n, i := range f.body(symbol{s.address, min(s.size, 32)}) {
		if i.Op == x86asm.JBE && n <= 2 {
			offset, ok := f.offset(i.at)
			return Site{Symbol: name, Offset: offset, Call: call}, ok
		}
	}
	return Site{}, false
}

// placeRead puts the probe on the jump behind `n, _ := c.input.Read(b); if n != 0`:
// the compiler has put Read there, with its call of memmove.
func (f *file) placeRead(s, memmove symbol) (Site, bool) {
	site := Site{Symbol: goRead, Call: GoRead, Slots: &Slots{}}
	body := f.body(s)
	if memmove.address == 0 || !site.Slots.spilled(body) {
		return site, false
	}
	copied := false
	for n := 0; n+1 < len(body); n++ {
		i, next := body[n], body[n+1]
		if to, ok := calls(i); ok && i.Op == x86asm.CALL {
			if copied {
				return site, false // too far
			}
			copied = to == memmove.address
			continue
		}
		r, isReg := i.Args[0].(x86asm.Reg)
		if !copied || i.Op != x86asm.TEST || !isReg || i.Args[1] != r || r < x86asm.RAX || r > x86asm.R15 {
			continue
		}
		if next.Op != x86asm.JE && next.Op != x86asm.JNE {
			return site, false
		}
		site.Slots.Register = uint8(r - x86asm.RAX)
		var ok bool
		site.Offset, ok = f.offset(next.at)
		return site, ok
	}
	return site, false
}

// spilled finds where on the stack a function keeps its first three arguments,
// before it calls anything.
func (s *Slots) spilled(body []instruction) bool {
	for _, i := range body {
		if i.Op == x86asm.CALL {
			break
		}
		m, isMem := i.Args[0].(x86asm.Mem)
		if i.Op != x86asm.MOV || !isMem || m.Base != x86asm.RSP || m.Index != 0 || m.Disp <= 0 || m.Disp > 1<<12 {
			continue
		}
		switch i.Args[1] {
		case x86asm.RAX:
			s.Conn = uint16(m.Disp)
		case x86asm.RBX:
			s.Buffer = uint16(m.Disp)
		case x86asm.RCX:
			s.Len = uint16(m.Disp)
		}
	}
	return s.Conn > 0 && s.Buffer > 0 && s.Len > 0
}
