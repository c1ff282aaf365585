package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// wantedModules are what tests may use that Debian builds as modules. What a
// kernel has built in or lacks is left out and named in the progress lines.
var wantedModules = []string{
	"veth", "bridge", "br_netfilter", "dummy", "tun", "macvlan", "vxlan", "8021q",
	"overlay", "loop", "ext4",
	"tcp_diag", "udp_diag", "inet_diag", "unix_diag",
	"nf_conntrack", "nf_tables", "nft_ct", "nft_nat", "nft_masq", "nft_reject_inet", "nft_compat",
	"iptable_filter", "iptable_nat", "ip6table_filter", "ipt_REJECT", "xt_conntrack", "xt_MASQUERADE", "xt_tcpudp",
	"sch_ingress", "sch_netem", "sch_tbf", "sch_htb", "cls_bpf", "act_bpf", "cls_u32",
	"null_blk", "zram",
}

// A moduleTree is the modules of one kernel, by name with underscores.
type moduleTree struct {
	files   map[string]string // path below lib/modules
	builtin map[string]bool
	read    func(path string) ([]byte, error) // the uncompressed ELF file
}

// openModules indexes the folder that holds kernel/ and modules.builtin.
func openModules(dir string) (*moduleTree, error) {
	t := &moduleTree{files: map[string]string{}, builtin: map[string]bool{}, read: readModule}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name, ok := moduleName(path); ok && err == nil && d.Type().IsRegular() {
			t.files[name] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("list built-in modules: %w", err)
	}
	for _, path := range strings.Fields(string(b)) {
		if name, ok := moduleName(path); ok {
			t.builtin[name] = true
		}
	}
	return t, nil
}

// moduleName gives nf_tables for net/netfilter/nf-tables.ko.xz.
func moduleName(path string) (string, bool) {
	name, suffix, ok := strings.Cut(filepath.Base(path), ".ko")
	if !ok || suffix != "" && suffix[0] != '.' {
		return "", false
	}
	return strings.ReplaceAll(name, "-", "_"), true
}

// A module is ready to be inserted.
type module struct {
	name string
	data []byte
}

// order resolves names and what they depend on to modules, dependencies
// first, and tells which of the names this kernel lacks.
func (t *moduleTree) order(names []string) (mods []module, absent []string, err error) {
	seen := map[string]bool{}
	var visit func(name string) (bool, error)
	visit = func(name string) (bool, error) {
		name = strings.ReplaceAll(name, "-", "_")
		path, ok := t.files[name]
		if t.builtin[name] || seen[name] || !ok {
			return ok || t.builtin[name], nil
		}
		seen[name] = true // before the visits below: a circle ends here
		data, err := t.read(path)
		if err != nil {
			return false, fmt.Errorf("read module %s: %w", name, err)
		}
		hard, soft, err := dependencies(data)
		if err != nil {
			return false, fmt.Errorf("read module %s: %w", name, err)
		}
		for _, dep := range soft {
			if _, err := visit(dep); err != nil {
				return false, err
			}
		}
		for _, dep := range hard {
			found, err := visit(dep)
			if err != nil {
				return false, err
			}
			if !found {
				return false, fmt.Errorf("module %s needs %s, which is not in the package", name, dep)
			}
		}
		mods = append(mods, module{name, data})
		return true, nil
	}
	for _, name := range names {
		found, err := visit(name)
		if err != nil {
			return nil, nil, err
		}
		if !found {
			absent = append(absent, name)
		}
	}
	return mods, absent, nil
}

// dependencies reads a module's .modinfo section: NUL-ended key=value pairs,
// among them depends=a,b and softdep=pre: c d post: e.
func dependencies(data []byte) (hard, soft []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, nil, err
	}
	info := f.Section(".modinfo")
	if info == nil {
		return nil, nil, errors.New("no .modinfo section")
	}
	pairs, err := info.Data()
	if err != nil {
		return nil, nil, err
	}
	hard, soft = parseModinfo(string(pairs))
	return hard, soft, nil
}

func parseModinfo(pairs string) (hard, soft []string) {
	for pair := range strings.SplitSeq(pairs, "\x00") {
		key, value, _ := strings.Cut(pair, "=")
		switch key {
		case "depends":
			hard = append(hard, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		case "softdep":
			before, _, _ := strings.Cut(value, "post:")
			_, before, _ = strings.Cut(before, "pre:")
			soft = append(soft, strings.Fields(before)...)
		}
	}
	return hard, soft
}

// unpackers print a compressed module; both come with Debian's packages of
// the kernel's own tools.
var unpackers = map[string][]string{
	".xz":  {"xz", "-dc"},
	".zst": {"zstd", "-dcq"},
	".gz":  {"gzip", "-dc"},
}

func readModule(path string) ([]byte, error) {
	unpack, ok := unpackers[filepath.Ext(path)]
	if !ok {
		return os.ReadFile(path)
	}
	cmd := exec.Command(unpack[0], append(unpack[1:], path)...)
	data, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", unpack[0], err)
	}
	return data, nil
}
