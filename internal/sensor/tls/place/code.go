package place

import (
	"debug/elf"

	"golang.org/x/arch/x86/x86asm"
)

// instruction is one of a function's.
type instruction struct {
	x86asm.Inst
	at uint64 // its address
}

// endbr64 marks where an indirect jump may arrive; the disassembler does not
// know it.
var endbr64 = [4]byte{0xf3, 0x0f, 0x1e, 0xfa}

// body disassembles a function, or as much of it as is understood.
func (f *file) body(s symbol) []instruction {
	size := s.size
	if size == 0 {
		size = 128 // not told
	}
	code := f.code(s.address, size)
	var list []instruction
	for at := s.address; len(code) > 0; {
		if len(code) >= 4 && [4]byte(code[:4]) == endbr64 {
			code, at = code[4:], at+4
			continue
		}
		i, err := x86asm.Decode(code, 64)
		if err != nil {
			return list
		}
		list = append(list, instruction{i, at})
		code, at = code[i.Len:], at+uint64(i.Len)
	}
	return list
}

// place chooses the instruction for a function's probe: its own first one if
// that is a push, else that of the one function it hands its arguments to, else
// any that is emulated and still has the arguments, else its entry. Where a call
// returns is only told by its first instruction, as long as nothing was pushed.
func (f *file) place(fn function, s symbol, all map[string]symbol) Site {
	site := Site{Symbol: fn.name, Call: fn.call, Count: fn.count, Return: fn.call != Free, Dear: true}
	site.Offset, _ = f.offset(s.address)
	if f.machine != elf.EM_X86_64 {
		site.Dear = false // arm64 emulates or steps at a like price
		return site
	}
	body := f.body(s)
	if len(body) == 0 {
		return site
	}
	if isPush(body[0]) {
		site.Offset, _ = f.offset(body[0].at)
		site.Dear = false
		return site
	}
	if inner, ok := f.inner(fn, body, all); ok {
		site.Offset, _ = f.offset(inner.at)
		site.Count = inner.count
		site.Dear = false
		return site
	}
	if site.Return {
		return site
	}
	if i, ok := emulated(body); ok {
		site.Offset, _ = f.offset(i.at)
		site.Dear = false
	}
	return site
}

// target is a function that does another one's work.
type target struct {
	at    uint64
	count Count
}

// pairs are functions that are thin layers over the same one.
var pairs = map[string]string{
	"SSL_read": "SSL_read_ex", "SSL_read_ex": "SSL_read",
	"SSL_write": "SSL_write_ex", "SSL_write_ex": "SSL_write",
}

// inner returns the function that fn and its pair both call, if it begins with a
// push. It gives the count through its fourth argument; since OpenSSL 3.3 the
// writing one has another before that, which shows where the _ex function moves
// what it was given.
func (f *file) inner(fn function, body []instruction, all map[string]symbol) (target, bool) {
	other, ok := all[pairs[fn.name]]
	if !ok {
		return target{}, false
	}
	second := f.body(other)
	theirs := map[uint64]bool{}
	for _, i := range second {
		if to, ok := calls(i); ok {
			theirs[to] = true
		}
	}
	moved := moves(body) || moves(second)
	for _, i := range body {
		to, ok := calls(i)
		if !ok || !theirs[to] {
			continue
		}
		first := f.body(symbol{address: to, size: 16})
		if len(first) == 0 || !isPush(first[0]) {
			continue // error paths call through the linkage table
		}
		t := target{at: first[0].at, count: ByArg4}
		if moved {
			t.count = ByArg5
		}
		return t, true
	}
	return target{}, false
}

// calls returns where a direct call, or a jump instead of one, goes.
func calls(i instruction) (uint64, bool) {
	if i.Op != x86asm.CALL && i.Op != x86asm.JMP {
		return 0, false
	}
	rel, ok := i.Args[0].(x86asm.Rel)
	return i.at + uint64(i.Len) + uint64(int64(rel)), ok
}

// moves tells whether something is put into the fifth argument.
func moves(body []instruction) bool {
	for _, i := range body {
		if i.Op == x86asm.CALL {
			return false
		}
		if (i.Op == x86asm.MOV || i.Op == x86asm.LEA) && i.Args[0] == x86asm.R8 {
			return true
		}
	}
	return false
}

func isPush(i instruction) bool { return i.Op == x86asm.PUSH }

// emulated returns the first instruction that the kernel emulates, while the
// first argument is where it came.
func emulated(body []instruction) (instruction, bool) {
	for _, i := range body {
		switch {
		case isPush(i), i.Op == x86asm.NOP, isJump(i):
			return i, true
		case i.Op == x86asm.CALL, i.Op == x86asm.RET, writes(i, x86asm.RDI), writes(i, x86asm.EDI):
			return i, i.Op == x86asm.CALL
		}
	}
	return instruction{}, false
}

func writes(i instruction, r x86asm.Reg) bool {
	return i.Op != x86asm.CMP && i.Op != x86asm.TEST && i.Args[0] == r
}

// isJump tells conditional and plain jumps that name where they go.
func isJump(i instruction) bool {
	if _, ok := i.Args[0].(x86asm.Rel); !ok {
		return false
	}
	return i.Op != x86asm.CALL
}
