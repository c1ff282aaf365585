package process

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"

	"ghostlight/internal/event"
	"ghostlight/internal/wire"
)

// raw returns a record as the ring would hold it, aligned as there.
func raw(t testing.TB, record any, rest string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, record); err != nil {
		t.Fatal(err)
	}
	b.WriteString(rest)
	return aligned(b.Bytes())
}

func aligned(b []byte) []byte {
	words := make([]uint64, len(b)/8+1)
	a := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(b))
	copy(a, b)
	return a
}

var somebody = processIdentity{
	Start: 1000, ExecId: 3, Cgroup: 77, Pid: 42, Ppid: 41, Uid: 1001, Gid: 1002,
	NsCgroup: 1, NsIpc: 2, NsMnt: 3, NsNet: 4, NsPid: 5, NsUser: 6, NsUts: 7,
}

// common is what somebody becomes in every record.
var common = event.Process{
	Time: 5, PID: 42, PPID: 41, Start: 1000, ExecCount: 3, UID: 1001, GID: 1002, CgroupID: 77,
	Namespaces: event.Namespaces{Cgroup: 1, IPC: 2, Mnt: 3, Net: 4, PID: 5, User: 6, UTS: 7}, Complete: true,
}

// execRecord returns an exec with the given names, leaf first, and arguments.
func execRecord(t testing.TB, flags uint32, exe, cwd, args string) []byte {
	t.Helper()
	r := processExec{Id: somebody, CapEffective: 0x1ff, ExeLen: uint32(len(exe)), CwdLen: uint32(len(cwd)), ArgsLen: uint32(len(args))}
	r.Id.Flags = flags
	return raw(t, &r, exe+cwd+args)
}

func TestDecode(t *testing.T) {
	with := func(change func(*event.Process)) event.Process {
		p := common
		change(&p)
		return p
	}
	program := func(exe, cwd string, args ...string) func(*event.Process) {
		return func(p *event.Process) {
			p.Action, p.Executable, p.Cwd, p.Args, p.CapEffective = event.Exec, exe, cwd, args, 0x1ff
		}
	}
	for _, c := range []struct {
		name string
		typ  uint16
		raw  []byte
		want event.Process
	}{
		{"fork", typeFork, raw(t, &processFork{Id: somebody}, ""), with(func(p *event.Process) { p.Action = event.Fork })},
		{"exit 7", typeExit, raw(t, &processEnd{Id: somebody, Status: 7 << 8}, ""), with(func(p *event.Process) { p.Action, p.ExitCode = event.Exit, 7 })},
		{"SIGSEGV, core dumped", typeExit, raw(t, &processEnd{Id: somebody, Status: 0x80 | 11}, ""), with(func(p *event.Process) { p.Action, p.ExitSignal = event.Exit, 11 })},
		{"exec", typeExec, execRecord(t, 0, "ls\x00bin\x00usr\x00", "tmp\x00", "ls\x00-l\x00"), with(program("/usr/bin/ls", "/tmp", "ls", "-l"))},
		{"in the root", typeExec, execRecord(t, 0, "init\x00", "", "/init\x00"), with(program("/init", "/", "/init"))},
		{"no arguments", typeExec, execRecord(t, 0, "x\x00", "", ""), with(program("/x", "/"))},
		{"one empty argument", typeExec, execRecord(t, 0, "x\x00", "", "\x00"), with(program("/x", "/", ""))},
		{"empty arguments", typeExec, execRecord(t, 0, "x\x00", "", "x\x00\x00\x00y\x00"), with(program("/x", "/", "x", "", "", "y"))},
		{"last argument cut", typeExec, execRecord(t, flagArgsCut, "x\x00", "", "x\x00abc"), with(func(p *event.Process) {
			program("/x", "/", "x", "abc")(p)
			p.ArgsCut = true
		})},
		{"paths cut", typeExec, execRecord(t, flagExeCut|flagCwdCut, "x\x00b\x00", "", "x\x00"), with(func(p *event.Process) {
			program(".../b/x", "...", "x")(p)
			p.Complete = false
		})},
		{"arguments not readable", typeExec, execRecord(t, flagArgsFault, "x\x00", "", ""), with(func(p *event.Process) {
			program("/x", "/")(p)
			p.Complete = false
		})},
		{"names without NUL", typeExec, execRecord(t, 0, "x", "yz", ""), with(program("/", "/y"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out event.Batch
			if err := (&instance{}).Decode(&wire.Header{Ktime: 5, Type: c.typ}, c.raw, &out); err != nil {
				t.Fatal(err)
			}
			if len(out.Processes) != 1 || !reflect.DeepEqual(out.Processes[0], c.want) {
				t.Errorf("got  %+v\nwant %+v", out.Processes, c.want)
			}
		})
	}
}

// Two threads that end at once both tell of the process's end.
func TestExitIsToldOnce(t *testing.T) {
	i, out := &instance{}, event.Batch{}
	tell := func(pid uint32, start uint64) {
		r := processEnd{Id: processIdentity{Pid: pid, Start: start}}
		if err := i.Decode(&wire.Header{Type: typeExit}, raw(t, &r, ""), &out); err != nil {
			t.Fatal(err)
		}
	}
	tell(42, 1000)
	tell(43, 1000)
	tell(42, 1000)
	tell(42, 2000) // the pid is used again
	var got []string
	for _, p := range out.Processes {
		got = append(got, fmt.Sprint(p.PID, " ", p.Start))
	}
	if want := []string{"42 1000", "43 1000", "42 2000"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A record that is shorter than it says is an error, never a panic and never
// half a record.
func TestDecodeTruncated(t *testing.T) {
	records := map[uint16][]byte{
		typeFork: raw(t, &processFork{Id: somebody}, ""),
		typeExec: execRecord(t, 0, "ls\x00", "tmp\x00", "ls\x00-l\x00"),
		typeExit: raw(t, &processEnd{Id: somebody}, ""),
	}
	for typ, whole := range records {
		for n := range whole {
			var out event.Batch
			if err := (&instance{}).Decode(&wire.Header{Type: typ}, whole[:n], &out); err == nil || out.Len() != 0 {
				t.Fatalf("type %d, %d of %d bytes: %d records, error %v", typ, n, len(whole), out.Len(), err)
			}
		}
	}
	huge := processExec{ExeLen: 1<<32 - 1, CwdLen: 1<<32 - 1, ArgsLen: 2}
	var out event.Batch
	for _, typ := range []uint16{0, typeRunning, 99} {
		if err := (&instance{}).Decode(&wire.Header{Type: typ}, records[typeExec], &out); err == nil {
			t.Errorf("type %d is decoded", typ)
		}
	}
	if err := (&instance{}).Decode(&wire.Header{Type: typeExec}, raw(t, &huge, ""), &out); err == nil {
		t.Error("lengths beyond the record are believed")
	}
}

func TestDecodeAllocations(t *testing.T) {
	for _, c := range []struct {
		name string
		typ  uint16
		raw  []byte
		max  float64
	}{
		{"fork", typeFork, raw(t, &processFork{Id: somebody}, ""), 0},
		{"exit", typeExit, raw(t, &processEnd{Id: somebody}, ""), 0},
		{"exec", typeExec, execRecord(t, 0, "ls\x00bin\x00", "tmp\x00", "ls\x00-l\x00"), 4}, // path, cwd, arguments, their slice
	} {
		var out event.Batch
		i, h := &instance{}, wire.Header{Type: c.typ}
		got := testing.AllocsPerRun(1000, func() {
			h.Ktime++
			i.gone = [256]ended{}
			if err := i.Decode(&h, c.raw, &out); err != nil {
				t.Fatal(err)
			}
			if len(out.Processes) != 1 {
				t.Fatal("no record")
			}
			out.Reset()
		})
		if got > c.max {
			t.Errorf("%s: %v allocations, want %v", c.name, got, c.max)
		}
	}
}

// The Go structs are those of the C file, and the header is the contract's.
func TestLayout(t *testing.T) {
	spec, err := loadProcess()
	if err != nil {
		t.Fatal(err)
	}
	for name, twin := range map[string]reflect.Type{
		"ghost_hdr": reflect.TypeFor[wire.Header](),
		"identity":  reflect.TypeFor[processIdentity](),
		"fork":      reflect.TypeFor[processFork](),
		"exec":      reflect.TypeFor[processExec](),
		"end":       reflect.TypeFor[processEnd](),
	} {
		var s *btf.Struct
		if err := spec.Types.TypeByName(name, &s); err != nil {
			t.Fatal(name, err)
		}
		if s.Size != uint32(twin.Size()) {
			t.Errorf("struct %s has %d bytes, %s has %d", name, s.Size, twin, twin.Size())
		}
		for _, m := range s.Members {
			f, ok := twin.FieldByNameFunc(func(f string) bool { return strings.EqualFold(f, strings.ReplaceAll(m.Name, "_", "")) })
			if !ok || m.Offset.Bytes() != uint32(f.Offset) {
				t.Errorf("struct %s: %s is at %d, in Go at %d (found: %v)", name, m.Name, m.Offset.Bytes(), f.Offset, ok)
			}
		}
	}
	if got, want := spec.Maps["running_scratch"].ValueSize, uint32(unsafe.Sizeof(processExec{}))+maxPaths; got != want {
		t.Errorf("running_scratch has %d bytes, maxPaths makes it %d", got, want)
	}
	for _, h := range Sensor.Hooks {
		for _, tier := range h.Tiers {
			if spec.Programs[tier.Program] == nil {
				t.Errorf("%s: the object has no program %s", h.What, tier.Program)
			}
		}
	}
}

// The iterator's output comes in pieces of any size.
func TestSequence(t *testing.T) {
	var stream []byte
	for n := range 5 {
		r := processExec{Id: somebody}
		r.Id.Flags, r.Id.Pid = flagKthread, uint32(n)
		copy(r.Comm[:], []int8{'k', 'w'})
		stream = append(stream, raw(t, &r, "")...)
	}
	exe := "init\x00bin\x00" // 9 bytes, so 7 of padding
	r := processExec{Id: somebody, ExeLen: uint32(len(exe))}
	r.Id.Pid = 1 << 31 // nobody
	stream = append(stream, raw(t, &r, exe+"PADDING")...)
	for size := 1; size <= len(stream); size++ {
		var out event.Batch
		w := &sequence{i: &instance{}, out: &out}
		for piece := range slices.Chunk(stream, size) {
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if len(out.Processes) != 6 || len(w.rest) != 0 {
			t.Fatalf("pieces of %d: %d records, %d bytes left", size, len(out.Processes), len(w.rest))
		}
		if p := out.Processes[4]; p.PID != 4 || !slices.Equal(p.Args, []string{"[kw]"}) {
			t.Fatalf("pieces of %d: %+v", size, p)
		}
		if p := out.Processes[5]; p.Executable != "/bin/init" || p.Complete || p.Action != event.Running {
			t.Fatalf("pieces of %d: %+v", size, p)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint16(typeFork), raw(f, &processFork{Id: somebody}, ""))
	f.Add(uint16(typeExec), execRecord(f, 0, "ls\x00bin\x00", "tmp\x00", "ls\x00-l\x00"))
	f.Add(uint16(typeExit), raw(f, &processEnd{Id: somebody}, ""))
	f.Add(uint16(typeRunning), execRecord(f, flagKthread, "", "", ""))
	f.Fuzz(func(t *testing.T, typ uint16, b []byte) {
		var out event.Batch
		i := &instance{}
		err := i.Decode(&wire.Header{Type: typ}, aligned(b), &out)
		if err != nil && out.Len() != 0 || out.Len() > 1 {
			t.Errorf("%d records, error %v", out.Len(), err)
		}
		out.Reset()
		w := &sequence{i: i, out: &out}
		if n, err := w.Write(b); err == nil && n != len(b) {
			t.Errorf("%d of %d bytes are taken", n, len(b))
		}
	})
}
