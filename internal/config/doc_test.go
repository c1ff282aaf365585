package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestDocument keeps docs/config.md in step with the comments of Config;
// go generate writes it.
func TestDocument(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "/run/ghostlight")
	t.Setenv("STATE_DIRECTORY", "/var/lib/ghostlight")
	const path = "../../docs/config.md"
	got := document(t)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		t.Errorf("docs/config.md is out of date: go generate ./internal/config (%v)", err)
	}
}

func document(t *testing.T) string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{} // of Type.Field
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					comments[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
		}
		return true
	})
	var text strings.Builder
	Default().Print(&text)
	var b strings.Builder
	fmt.Fprintf(&b, `# Configuration

<!-- made by go generate from internal/config/config.go: edit that -->

Ghostlight needs no configuration. What it takes is one YAML file, given by
%[1]sghostlight run --config FILE%[1]s, and flags, which stand over the file. The
environment is not read, but for the folders that systemd and the XDG base
directories name.

The file is read strictly: an unknown key or a bad value is an error with its line.
%[1]sghostlight config check FILE%[1]s tells them all, and %[1]sghostlight config print%[1]s shows the
effective configuration with secrets hidden.

After SIGHUP the file is read again. Keys marked *live* take effect within a
second. The others wait for a restart, and the log names them: %[3]s.
A file that is wrong changes nothing, and the log says which line is.

Sizes are written like %[1]s64MiB%[1]s or %[1]s2GB%[1]s, shares like %[1]s3%%%[1]s (of one core), durations like
%[1]s90s%[1]s, %[1]s24h%[1]s or %[1]s7d%[1]s.

## The defaults, for root

%[1]s%[1]s%[1]syaml
%[2]s%[1]s%[1]s%[1]s

## Keys
`, "`", text.String(), strings.Join(restartKeys(reflect.ValueOf(Default()), ""), ", "))
	documentKeys(&b, reflect.ValueOf(Default()), "", false, comments)
	fmt.Fprint(&b, `
## An example

`+"```yaml"+`
listen: 0.0.0.0:4100            # for a Prometheus elsewhere: needs tls and a token
tls: {cert: /etc/ghostlight/cert.pem, key: /etc/ghostlight/key.pem}
token_file: /etc/ghostlight/token
retention: {age: 7d, bytes: 10GiB}
budget: {cpu: 5%, memory: 128MiB}
redact:
  deny: [card, iban]
sensors:
  drop: {enabled: false}
`+"```"+`
`)
	return b.String()
}

// restartKeys returns the keys that are not live.
func restartKeys(v reflect.Value, prefix string) (keys []string) {
	for _, f := range reflect.VisibleFields(v.Type()) {
		key, value := join(prefix, fieldName(f)), v.FieldByIndex(f.Index)
		switch {
		case f.Tag.Get("reload") == "live":
		case value.Kind() == reflect.Struct:
			keys = append(keys, restartKeys(value, key)...)
		default:
			keys = append(keys, "`"+key+"`")
		}
	}
	return keys
}

func documentKeys(b *strings.Builder, v reflect.Value, prefix string, live bool, comments map[string]string) {
	for _, f := range reflect.VisibleFields(v.Type()) {
		if !f.IsExported() {
			continue
		}
		key := join(prefix, fieldName(f))
		live := live || f.Tag.Get("reload") == "live"
		fmt.Fprintf(b, "\n### `%s`\n\n%s\n", key, comments[v.Type().Name()+"."+f.Name])
		value := v.FieldByIndex(f.Index)
		switch {
		case value.Type() == reflect.TypeFor[map[string]Part]():
			documentKeys(b, reflect.ValueOf(Part{Enabled: true}), key+".NAME", live, comments)
		case value.Kind() == reflect.Struct:
			documentKeys(b, value, key, live, comments)
		default:
			var notes []string
			if choices := f.Tag.Get("oneof"); choices != "" {
				notes = append(notes, "one of `"+strings.ReplaceAll(choices, ",", "`, `")+"`")
			}
			if d := fmt.Sprint(value.Interface()); d != "" && d != "[]" {
				notes = append(notes, "default `"+d+"`")
			}
			if live {
				notes = append(notes, "*live*")
			}
			if len(notes) > 0 {
				fmt.Fprintf(b, "\n%s.\n", strings.ToUpper(notes[0][:1])+strings.Join(notes, "; ")[1:])
			}
		}
	}
}

// The example of the documentation is one that is taken.
func TestExampleIsRight(t *testing.T) {
	text := document(t)
	_, example, _ := strings.Cut(text, "## An example")
	_, example, _ = strings.Cut(example, "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	if _, err := Parse("docs/config.md", []byte(example)); err != nil {
		t.Error(err)
	}
}
