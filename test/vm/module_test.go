package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// elfModule is the smallest ELF file with a .modinfo section of these pairs.
func elfModule(pairs ...string) []byte {
	info := []byte(strings.Join(pairs, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	const head, entry = 64, 64
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: head,
		Shentsize: entry, Shnum: 3, Shstrndx: 2, Shoff: uint64(head + len(info) + len(names))}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, h)
	b.Write(info)
	b.Write(names)
	binary.Write(&b, binary.LittleEndian, []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: head, Size: uint64(len(info))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(head + len(info)), Size: uint64(len(names))},
	})
	return b.Bytes()
}

// tree makes modules from name: depends.
func tree(depends map[string]string, builtin ...string) *moduleTree {
	t := &moduleTree{files: map[string]string{}, builtin: map[string]bool{}}
	for name := range depends {
		t.files[name] = name
	}
	for _, name := range builtin {
		t.builtin[name] = true
	}
	t.read = func(name string) ([]byte, error) {
		return elfModule("license=GPL", "depends="+depends[name], "name="+name), nil
	}
	return t
}

func names(mods []module) (list []string) {
	for _, m := range mods {
		list = append(list, m.name)
	}
	return list
}

func TestOrder(t *testing.T) {
	for name, c := range map[string]struct {
		depends map[string]string
		builtin []string
		want    []string
		order   []string
		absent  []string
		err     string
	}{
		"alone":     {depends: map[string]string{"veth": ""}, want: []string{"veth"}, order: []string{"veth"}},
		"chain":     {depends: map[string]string{"a": "b", "b": "c", "c": ""}, want: []string{"a"}, order: []string{"c", "b", "a"}},
		"diamond":   {depends: map[string]string{"a": "b,c", "b": "d", "c": "d", "d": ""}, want: []string{"a"}, order: []string{"d", "b", "c", "a"}},
		"shared":    {depends: map[string]string{"a": "c", "b": "c", "c": ""}, want: []string{"b", "a", "b"}, order: []string{"c", "b", "a"}},
		"hyphens":   {depends: map[string]string{"nf_tables": "nf-net", "nf_net": ""}, want: []string{"nf-tables"}, order: []string{"nf_net", "nf_tables"}},
		"built in":  {depends: map[string]string{"a": "ipv6"}, builtin: []string{"ipv6", "veth"}, want: []string{"veth", "a"}, order: []string{"a"}},
		"absent":    {depends: map[string]string{"a": ""}, want: []string{"zram", "a"}, order: []string{"a"}, absent: []string{"zram"}},
		"circle":    {depends: map[string]string{"a": "b", "b": "a"}, want: []string{"a"}, order: []string{"b", "a"}},
		"not there": {depends: map[string]string{"a": "b"}, want: []string{"a"}, err: "module a needs b"},
	} {
		mods, absent, err := tree(c.depends, c.builtin...).order(c.want)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", name, err, c.err)
			}
			continue
		}
		if err != nil || !slices.Equal(names(mods), c.order) || !slices.Equal(absent, c.absent) {
			t.Errorf("%s: order %v, absent %v, error %v; want %v, %v", name, names(mods), absent, err, c.order, c.absent)
		}
	}
}

func TestOrderUnreadable(t *testing.T) {
	broken := tree(map[string]string{"a": ""})
	broken.read = func(string) ([]byte, error) { return []byte("not ELF"), nil }
	if _, _, err := broken.order([]string{"a"}); err == nil {
		t.Error("no error for a file that is no module")
	}
	broken.read = func(string) ([]byte, error) { return nil, errors.New("torn") }
	if _, _, err := broken.order([]string{"a"}); err == nil {
		t.Error("no error for a file that cannot be read")
	}
}

func TestDependencies(t *testing.T) {
	hard, soft, err := dependencies(elfModule("depends=a,b", "softdep=pre: c d post: e", "softdep=post: f", "softdep=pre: g", "intree=Y"))
	if err != nil || !slices.Equal(hard, []string{"a", "b"}) || !slices.Equal(soft, []string{"c", "d", "g"}) {
		t.Errorf("hard %v, soft %v, %v", hard, soft, err)
	}
}

func TestOpenModules(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"kernel/drivers/net/veth.ko.xz":  "x",
		"kernel/net/nf-tables.ko":        "x",
		"kernel/net/readme.kotxt":        "x",
		"modules.builtin":                "kernel/net/ipv6/ipv6.ko\nkernel/fs/ext4/ext4.ko\n",
		"modules.order":                  "kernel/net/other.ko\n",
		"kernel/net/nf-tables.ko.sig.md": "x",
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := openModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := slices.Sorted(maps.Keys(tree.files))
	builtin := slices.Sorted(maps.Keys(tree.builtin))
	if !slices.Equal(files, []string{"nf_tables", "veth"}) || !slices.Equal(builtin, []string{"ext4", "ipv6"}) {
		t.Errorf("files %v, built in %v", files, builtin)
	}
}

func FuzzDependencies(f *testing.F) {
	f.Add(elfModule("depends=a,b", "softdep=pre: c post: d"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, data []byte) {
		hard, soft, _ := dependencies(data)
		for _, name := range slices.Concat(hard, soft) {
			if name == "" || strings.ContainsAny(name, "\x00") {
				t.Fatalf("dependency %q", name)
			}
		}
	})
}
