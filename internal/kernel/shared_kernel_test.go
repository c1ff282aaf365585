package kernel

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// sharing is an object with a map that is shared and one that is not.
func sharing() *ebpf.CollectionSpec {
	array := func(name string) *ebpf.MapSpec {
		return &ebpf.MapSpec{Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}
	}
	return &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{"ghost_shared_word": array("ghost_shared_word"), "own_word": array("own_word")},
		Programs: map[string]*ebpf.ProgramSpec{"empty": {
			Name: "empty", Type: ebpf.SocketFilter, License: "Dual BSD/GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		}},
	}
}

// nothing stands for a link where there is nothing to attach to.
type nothing struct{ link.Link }

func (nothing) Close() error { return nil }

func loadSharing(t *testing.T, k *Kernel, name string) *Object {
	t.Helper()
	o, _, err := k.Load(name, 0, sharing(), []Hook{{What: "nothing", Tiers: []Tier{{
		Name: "none", Program: "empty", Attach: func(*Object, *ebpf.Program) (link.Link, error) { return nothing{}, nil },
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func word(t *testing.T, o *Object, name string) (n uint64) {
	t.Helper()
	if err := o.Maps[name].Lookup(uint32(0), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSharedMaps(t *testing.T) {
	need(t, HaveRing)
	k, _ := open(t, 4096)
	first, second := loadSharing(t, k, "first"), loadSharing(t, k, "second")
	for _, m := range []string{"ghost_shared_word", "own_word"} {
		if err := first.Maps[m].Put(uint32(0), uint64(7)); err != nil {
			t.Fatal(err)
		}
	}
	if got := word(t, second, "ghost_shared_word"); got != 7 {
		t.Errorf("the shared map of the second has %d, want the first's 7", got)
	}
	if got := word(t, second, "own_word"); got != 0 {
		t.Errorf("the second's own map has %d, want 0", got)
	}
	for _, o := range []*Object{first, second} {
		if err := k.Unload(o); err != nil {
			t.Fatal(err)
		}
	}
	if got := word(t, loadSharing(t, k, "third"), "ghost_shared_word"); got != 7 {
		t.Errorf("after both were unloaded the shared map has %d, want 7", got)
	}
}
