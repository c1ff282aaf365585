package l7cap

import (
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"ghostlight/internal/kernel"
)

// tier is one way to see everything.
type tier struct {
	name  string
	needs []*kernel.Probe
	hooks func([]kernel.Hook) []kernel.Hook
	spec  func(*ebpf.CollectionSpec) error
}

var tracepoints = tier{name: "tp_btf", needs: []*kernel.Probe{kernel.HaveSockLength}}

var tiers = []tier{
	tracepoints,
	{name: "fexit", needs: []*kernel.Probe{kernel.HaveFentry}, hooks: functionsOnly},
	{name: "fexit as on 5.10", needs: []*kernel.Probe{kernel.HaveFentry}, hooks: functionsOnly, spec: asLinux510},
	{name: "tp_btf without storage", needs: tracepoints.needs, spec: without("l7_storage")},
}

// anyTier takes what this kernel gives.
func anyTier() tier { return tier{name: "any"} }

// functionsOnly leaves the tiers out that came with the tracepoints.
func functionsOnly(hooks []kernel.Hook) (left []kernel.Hook) {
	for _, h := range hooks {
		h.Tiers = slices.DeleteFunc(slices.Clone(h.Tiers), func(t kernel.Tier) bool { return slices.Contains(t.Needs, kernel.HaveSockLength) })
		if strings.HasPrefix(h.What, "files sent") && kernel.HaveSockLength.Have() == nil {
			continue // the function is gone too
		}
		if strings.Contains(h.What, "same time") {
			continue
		}
		left = append(left, h)
	}
	return left
}

// asLinux510 turns off all that came later. The registers stand elsewhere on the
// stack of kernels that have the tracepoints: there they are left on.
func asLinux510(spec *ebpf.CollectionSpec) error {
	if kernel.HaveSockLength.Have() == nil {
		return without("l7_storage")(spec)
	}
	return without("l7_storage", "l7_task")(spec)
}

// without turns off what this kernel may have and older ones have not.
func without(switches ...string) func(*ebpf.CollectionSpec) error {
	return func(spec *ebpf.CollectionSpec) error {
		spec.Maps["ghost_shared_l7_socks"].MaxEntries = 16384
		for _, s := range switches {
			if err := spec.Variables[s].Set(false); err != nil {
				return err
			}
		}
		return nil
	}
}
