package config

import (
	"encoding"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Change is one key whose value differs.
type Change struct {
	Key     string
	Restart bool // it takes effect only after a restart
}

// Diff returns the keys that differ, in the order of the file. Secrets are
// compared and never shown.
func Diff(old, new Config) []Change {
	before := map[string]leaf{}
	for _, l := range leaves(old) {
		before[l.key] = l
	}
	var changes []Change
	for _, l := range leaves(new) {
		if b, ok := before[l.key]; !ok || b.value != l.value {
			changes = append(changes, Change{l.key, !l.live})
		}
		delete(before, l.key)
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		changes = append(changes, Change{key, !before[key].live})
	}
	return changes
}

// Equal tells whether two parts say the same, in whatever order.
func (p Part) Equal(other Part) bool {
	return slices.Equal(p.leaves(), other.leaves())
}

func (p Part) leaves() (out []leaf) {
	collect(reflect.ValueOf(p), "", false, &out)
	slices.SortFunc(out, func(a, b leaf) int { return strings.Compare(a.key, b.key) })
	return out
}

// leaf is one value of the file, as text that compares.
type leaf struct {
	key   string
	value string
	live  bool
}

func leaves(c Config) []leaf {
	var out []leaf
	collect(reflect.ValueOf(c), "", false, &out)
	return out
}

func collect(v reflect.Value, key string, live bool, out *[]leaf) {
	switch {
	case v.Type() == reflect.TypeFor[Part]():
		s := v.Interface().(Part)
		if !s.Enabled { // on is what a part is that the file does not speak of
			*out = append(*out, leaf{join(key, "enabled"), "false", live})
		}
		for _, e := range s.options.entries {
			*out = append(*out, leaf{join(key, e.name), flow(e.value), live})
		}
	case v.Kind() == reflect.Struct:
		for _, f := range reflect.VisibleFields(v.Type()) {
			if f.IsExported() {
				collect(v.FieldByIndex(f.Index), join(key, fieldName(f)), live || f.Tag.Get("reload") == "live", out)
			}
		}
	case v.Kind() == reflect.Map:
		for _, k := range sortedKeys(v) {
			collect(v.MapIndex(reflect.ValueOf(k)), join(key, k), live, out)
		}
	default:
		*out = append(*out, leaf{key, fmt.Sprintf("%v", raw(v)), live})
	}
}

// raw returns a secret as it is, so that two of them compare.
func raw(v reflect.Value) any {
	if s, ok := v.Interface().(Secret); ok {
		return string(s)
	}
	return v.Interface()
}

func sortedKeys(m reflect.Value) []string {
	var keys []string
	for _, k := range m.MapKeys() {
		keys = append(keys, k.String())
	}
	slices.Sort(keys)
	return keys
}

// Print writes the configuration as YAML that Parse reads again, secrets
// hidden.
func (c Config) Print(w io.Writer) error {
	var b strings.Builder
	printStruct(&b, reflect.ValueOf(c), "")
	_, err := io.WriteString(w, b.String())
	return err
}

func printStruct(b *strings.Builder, v reflect.Value, indent string) {
	for _, f := range reflect.VisibleFields(v.Type()) {
		if f.IsExported() {
			printValue(b, fieldName(f), v.FieldByIndex(f.Index), indent)
		}
	}
	if s, ok := v.Interface().(Part); ok {
		for _, e := range s.options.entries {
			fmt.Fprintf(b, "%s%s: %s\n", indent, plain(e.name), flow(e.value))
		}
	}
}

func printValue(b *strings.Builder, name string, v reflect.Value, indent string) {
	text, isText := v.Interface().(encoding.TextMarshaler)
	switch {
	case isText:
		s, _ := text.MarshalText() // ours never fail
		fmt.Fprintf(b, "%s%s: %s\n", indent, name, plain(string(s)))
	case v.Kind() == reflect.Struct:
		fmt.Fprintf(b, "%s%s:\n", indent, name)
		printStruct(b, v, indent+"  ")
	case v.Kind() == reflect.Map && v.Len() > 0:
		fmt.Fprintf(b, "%s%s:\n", indent, name)
		for _, k := range sortedKeys(v) {
			printValue(b, plain(k), v.MapIndex(reflect.ValueOf(k)), indent+"  ")
		}
	case v.Kind() == reflect.Map:
		fmt.Fprintf(b, "%s%s: {}\n", indent, name)
	case v.Kind() == reflect.Slice:
		words := make([]string, v.Len())
		for i := range words {
			words[i] = strconv.Quote(v.Index(i).String())
		}
		fmt.Fprintf(b, "%s%s: [%s]\n", indent, name, strings.Join(words, ", "))
	default:
		fmt.Fprintf(b, "%s%s: %s\n", indent, name, plain(fmt.Sprint(v.Interface())))
	}
}

// flow writes a node on one line, always in the same way, so that two of them
// compare.
func flow(n ast.Node) string {
	var parts []string
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			parts = append(parts, flow(v.Key)+": "+flow(v.Value))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case *ast.SequenceNode:
		for _, v := range n.Values {
			parts = append(parts, flow(v))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	s, ok := scalarText(n)
	if !ok {
		return "null"
	}
	return plain(s)
}

// plain quotes what YAML would not read back as the same text.
func plain(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._%-", r)
	}
	if s == "" || strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) >= 0 || s[0] == '-' || s[0] == '%' {
		return strconv.Quote(s)
	}
	return s
}
