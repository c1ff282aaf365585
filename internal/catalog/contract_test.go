package catalog

import (
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"ghostlight/internal/event"
	"ghostlight/internal/export"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor"
	"ghostlight/internal/wire"
)

func defaults(any) error { return nil }

func instance(t *testing.T, d sensor.Def) sensor.Instance {
	t.Helper()
	i, err := d.New(defaults)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// The Go structs and the C structs are one, in every object as clang compiled
// it: the header of each record, and what the capturing sensors share.
func TestRecordsMatchBTF(t *testing.T) {
	shared := 0
	for _, d := range Sensors {
		spec, err := instance(t, d).Spec()
		if err != nil {
			t.Fatal(err)
		}
		if !same(t, d.Name, spec.Types, "ghost_hdr", reflect.TypeFor[wire.Header]()) {
			t.Errorf("%s has no ghost_hdr", d.Name)
		}
		if !same(t, d.Name, spec.Types, "l7_chunk", reflect.TypeFor[wire.Chunk]()) {
			continue
		}
		shared++
		same(t, d.Name, spec.Types, "l7_ends", reflect.TypeFor[wire.Ends]())
		var flags *btf.Enum
		if err := spec.Types.TypeByName("l7_flag", &flags); err != nil {
			t.Fatal(err)
		}
		values := map[string]uint64{}
		for _, v := range flags.Values {
			values[v.Name] = v.Value
		}
		want := map[string]uint64{
			"L7_FLAG_SENT": uint64(wire.ChunkSent), "L7_FLAG_PLAIN": uint64(wire.ChunkPlain),
			"L7_FLAG_CLOSED": uint64(wire.ChunkClosed), "L7_FLAG_OPENED": uint64(wire.ChunkOpened),
		}
		if !maps.Equal(values, want) {
			t.Errorf("%s: flags %v, Go has %v", d.Name, values, want)
		}
	}
	if shared < 2 {
		t.Errorf("%d sensors have struct l7_chunk", shared)
	}
}

// same compares a struct of the object with its Go twin; it reports false if the
// object has none.
func same(t *testing.T, sensor string, types *btf.Spec, name string, want reflect.Type) bool {
	t.Helper()
	var c *btf.Struct
	if types.TypeByName(name, &c) != nil {
		return false
	}
	if int(c.Size) != int(want.Size()) || len(c.Members) != want.NumField() {
		t.Errorf("%s: C's %s has %d bytes and %d members, Go's %d and %d", sensor, name, c.Size, len(c.Members), want.Size(), want.NumField())
		return true
	}
	for i, m := range c.Members {
		f := want.Field(i)
		if !strings.EqualFold(strings.ReplaceAll(m.Name, "_", ""), f.Name) || uintptr(m.Offset.Bytes()) != f.Offset {
			t.Errorf("%s: %s has %s at %d, Go %s at %d", sensor, name, m.Name, m.Offset.Bytes(), f.Name, f.Offset)
		}
	}
	return true
}

// What every sensor owes its users and the loader.
func TestSensorContract(t *testing.T) {
	for _, d := range Sensors {
		t.Run(d.Name, func(t *testing.T) {
			if _, err := os.Stat("../sensor/" + d.Name); err != nil {
				t.Errorf("the name is not the folder's: %v", err)
			}
			if d.Doc == "" || len(d.Emits) == 0 || len(d.Hooks) == 0 {
				t.Error("Doc, Emits or Hooks is missing")
			}
			spec, err := instance(t, d).Spec()
			if err != nil {
				t.Fatal(err)
			}
			used := map[string]bool{}
			for _, h := range d.Hooks {
				checkHook(t, h)
				for _, tier := range h.Tiers {
					used[tier.Program] = true
					if tier.Program != "" && spec.Programs[tier.Program] == nil {
						t.Errorf("%s: %s names the program %q, which the object lacks", h.What, tier.Name, tier.Program)
					}
				}
			}
			for name, p := range spec.Programs {
				if !used[name] && !used[twinned(name)] {
					t.Logf("%s (%s) is loaded by no hook: for tests only?", name, p.SectionName)
				}
				if p.License != "Dual BSD/GPL" {
					t.Errorf("%s has the licence %q", name, p.License)
				}
				if len(name) > 15 {
					t.Errorf("%s is longer than the 15 characters bpftool shows", name)
				}
			}
		})
	}
}

func twinned(name string) string { return strings.TrimSuffix(name, "_twin") }

func checkHook(t *testing.T, h kernel.Hook) {
	t.Helper()
	if h.What == "" || h.Without == "" || len(h.Tiers) == 0 {
		t.Errorf("hook %+v is incomplete", h)
	}
	for _, tier := range h.Tiers {
		if tier.Name == "" {
			t.Errorf("%s: a tier has no name", h.What)
		}
	}
}

// Bytes that are no record are refused, whatever they are, and leave nothing.
func TestDecodeRefusesGarbage(t *testing.T) {
	for _, d := range Sensors {
		in := instance(t, d)
		if _, err := in.Spec(); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{32, 33, 40, 64} {
			raw := make([]byte, n)
			for _, kind := range []uint16{0xffff, 77} {
				var out event.Batch
				h := &wire.Header{Type: kind}
				if err := in.Decode(h, raw, &out); err == nil || out.Len() > 0 {
					t.Errorf("%s: %d bytes of type %d gave %d records and the error %v", d.Name, n, kind, out.Len(), err)
				}
			}
		}
	}
}

// What every exporter owes the agent.
func TestExporterContract(t *testing.T) {
	for _, d := range Exporters {
		t.Run(d.Name, func(t *testing.T) {
			if _, err := os.Stat("../export/" + d.Name); err != nil || d.Doc == "" {
				t.Errorf("name or doc: %v", err)
			}
			e, err := d.New(export.Env{Decode: defaults, Self: func() []export.Metric { return nil }})
			if err != nil {
				t.Fatal(err)
			}
			e.Export(&event.Batch{})
			// Records about which nothing is known.
			e.Export(&event.Batch{
				Flows: make([]event.Flow, 2), Processes: make([]event.Process, 2),
				Alerts: make([]event.Alert, 2), Lost: make([]event.Lost, 2),
			})
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
