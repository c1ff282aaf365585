package config

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Error is one thing wrong in a file. Line and Col begin at 1; they are 0 where
// no line of the file is to blame.
type Error struct {
	File      string
	Line, Col int
	Message   string
}

// Error is "file:line:col: message", as compilers print it.
func (e *Error) Error() string {
	switch {
	case e.Line > 0:
		return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Message)
	case e.File != "":
		return e.File + ": " + e.Message
	}
	return e.Message
}

// Errors is everything wrong in a file, in the order of its lines.
type Errors []*Error

// Error has one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

func (e Errors) orNil() error {
	if len(e) == 0 {
		return nil
	}
	slices.SortStableFunc(e, func(a, b *Error) int { return 1000*(a.Line-b.Line) + a.Col - b.Col })
	return e
}

// Parse reads text over the defaults. name stands in errors, which are Errors:
// all that is wrong is told at once.
func Parse(name string, text []byte) (Config, error) {
	c := Default()
	if len(text) > maxFile {
		return c, Errors{{File: name, Message: fmt.Sprintf("larger than %s", Bytes(maxFile))}}
	}
	body, err := parse(name, text)
	if err != nil {
		return c, err
	}
	d := decoder{file: name, lines: map[string]*token.Token{}}
	d.value(body, reflect.ValueOf(&c).Elem(), "", "")
	for _, p := range c.problems() {
		d.fail(d.line(p.key), "%s: %s", p.key, p.message)
	}
	return c, d.errs.orNil()
}

// maxDepth bounds how deep a file may nest, for the sake of the parser.
const maxDepth = 64

func parse(name string, text []byte) (ast.Node, error) {
	tokens := lexer.Tokenize(string(text))
	if at := tooDeep(tokens); at != nil {
		return nil, Errors{{File: name, Line: at.Line, Col: at.Column, Message: "nested too deeply"}}
	}
	file, err := parser.Parse(tokens, 0)
	var syntax yaml.Error
	switch {
	case errors.As(err, &syntax) && syntax.GetToken() != nil:
		at := syntax.GetToken().Position
		return nil, Errors{{File: name, Line: at.Line, Col: at.Column, Message: syntax.GetMessage()}}
	case err != nil:
		return nil, Errors{{File: name, Message: err.Error()}}
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil || doc.Body.Type() == ast.CommentType:
		case body != nil:
			at := doc.Body.GetToken().Position
			return nil, Errors{{File: name, Line: at.Line, Col: at.Column, Message: "a second document: the file must be one"}}
		default:
			body = doc.Body
		}
	}
	return body, nil
}

// tooDeep returns where brackets, dashes or indentation nest deeper than in any
// configuration, or nil.
func tooDeep(tokens token.Tokens) *token.Position {
	brackets, dashes, line := 0, 0, 0
	for _, tk := range tokens {
		if tk.Position.Line != line {
			dashes, line = 0, tk.Position.Line
		}
		switch tk.Type {
		case token.MappingStartType, token.SequenceStartType:
			brackets++
		case token.MappingEndType, token.SequenceEndType:
			brackets--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			dashes++
		}
		if brackets+dashes > maxDepth {
			return tk.Position
		}
	}
	return nil
}

// decoder walks the syntax tree and the Go value side by side.
type decoder struct {
	file  string
	lines map[string]*token.Token // where the value of a key stands
	errs  Errors
}

func (d *decoder) fail(at *token.Token, format string, args ...any) {
	e := &Error{File: d.file, Message: fmt.Sprintf(format, args...)}
	if at != nil && at.Position != nil {
		e.Line, e.Col = at.Position.Line, at.Position.Column
	}
	d.errs = append(d.errs, e)
}

// line returns where the value of key stands, or the nearest section around it.
func (d *decoder) line(key string) *token.Token {
	for {
		if at := d.lines[key]; at != nil || key == "" {
			return at
		}
		key = key[:max(0, strings.LastIndexByte(key, '.'))]
	}
}

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

// value fills v from n. key is its dotted path. What the file leaves empty
// keeps its default.
func (d *decoder) value(n ast.Node, v reflect.Value, key, oneof string) {
	if n == nil || n.Type() == ast.NullType || n.Type() == ast.CommentType {
		return
	}
	d.lines[key] = n.GetToken()
	switch {
	case reflect.PointerTo(v.Type()).Implements(textType):
		d.text(n, v, key)
	case v.Kind() == reflect.Struct:
		d.structure(n, v, key)
	case v.Type() == reflect.TypeFor[map[string]Part]():
		d.mapping(n, v, key)
	case v.Kind() == reflect.Slice:
		d.list(n, v, key)
	default:
		d.scalar(n, v, key, oneof)
	}
}

func (d *decoder) text(n ast.Node, v reflect.Value, key string) {
	s, ok := scalarText(n)
	if !ok {
		d.fail(n.GetToken(), "%s must be a single value, not %s", key, describe(n))
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil {
		d.fail(n.GetToken(), "%s: %v", key, err)
	}
}

func (d *decoder) structure(n ast.Node, v reflect.Value, key string) {
	fields := fieldsOf(v.Type())
	d.entries(n, key, func(name string, at *token.Token, value ast.Node) {
		f, ok := fields[name]
		if !ok {
			d.unknown(at, name, key, slices.Sorted(maps.Keys(fields)))
			return
		}
		d.value(value, v.FieldByIndex(f.Index), join(key, name), f.Tag.Get("oneof"))
	})
}

// mapping fills a map of parts, the only maps of a configuration.
func (d *decoder) mapping(n ast.Node, v reflect.Value, key string) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	d.entries(n, key, func(name string, at *token.Token, value ast.Node) {
		d.lines[join(key, name)] = at
		v.SetMapIndex(reflect.ValueOf(name), reflect.ValueOf(d.part(at, value, join(key, name))))
	})
}

// part keeps what is not ours for its owner to read.
func (d *decoder) part(at *token.Token, n ast.Node, key string) Part {
	s := Part{Enabled: true, options: options{file: d.file, key: key, at: at}}
	if n == nil || n.Type() == ast.NullType {
		return s
	}
	d.entries(n, key, func(name string, at *token.Token, value ast.Node) {
		if name == "enabled" {
			d.value(value, reflect.ValueOf(&s.Enabled).Elem(), join(key, name), "")
			return
		}
		s.options.entries = append(s.options.entries, entry{name, at, value})
	})
	return s
}

func (d *decoder) list(n ast.Node, v reflect.Value, key string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fail(n.GetToken(), "%s must be a list, like [a, b], not %s", key, describe(n))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, value := range seq.Values {
		d.value(value, list.Index(i), fmt.Sprintf("%s[%d]", key, i), "")
	}
	v.Set(list)
}

func (d *decoder) scalar(n ast.Node, v reflect.Value, key, oneof string) {
	s, ok := scalarText(n)
	if !ok {
		d.fail(n.GetToken(), "%s must be a single value, not %s", key, describe(n))
		return
	}
	if err := set(v, s); err != nil {
		d.fail(n.GetToken(), "%s: %v", key, err)
		return
	}
	if choices := strings.Split(oneof, ","); oneof != "" && !slices.Contains(choices, s) {
		d.fail(n.GetToken(), "%s: %q is not one of %s%s", key, s, strings.Join(choices, ", "), didYouMean(s, choices))
	}
}

func set(v reflect.Value, s string) error {
	if v.Type() == reflect.TypeFor[time.Duration]() {
		span, err := ParseDuration(s)
		v.SetInt(int64(span))
		return err
	}
	switch {
	case v.Kind() == reflect.String:
		v.SetString(s)
	case v.Kind() == reflect.Bool:
		if s != "true" && s != "false" {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		v.SetBool(s == "true")
	case v.CanInt():
		n, err := strconv.ParseInt(s, 0, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number that fits", s)
		}
		v.SetInt(n)
	case v.CanUint():
		n, err := strconv.ParseUint(s, 0, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number of 0 or more that fits", s)
		}
		v.SetUint(n)
	case v.CanFloat():
		n, err := strconv.ParseFloat(s, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a number", s)
		}
		v.SetFloat(n)
	default:
		return fmt.Errorf("an option cannot have the type %s", v.Type())
	}
	return nil
}

// entries calls f for each key of a mapping, and refuses what is none.
func (d *decoder) entries(n ast.Node, key string, f func(name string, at *token.Token, value ast.Node)) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		where := key
		if where == "" {
			where = "the file"
		}
		d.fail(n.GetToken(), "%s must be keys and values, not %s", where, describe(n))
		return
	}
	seen := map[string]bool{}
	for _, v := range m.Values {
		at := v.Key.GetToken()
		name, ok := scalarText(v.Key)
		switch {
		case !ok:
			d.fail(at, "a key must be a plain word, not %s", describe(v.Key))
		case seen[name]:
			d.fail(at, "%s is given twice", join(key, name))
		default:
			seen[name] = true
			f(name, at, v.Value)
		}
	}
}

func (d *decoder) unknown(at *token.Token, name, in string, known []string) {
	if hint := didYouMean(name, known); hint != "" {
		d.fail(at, "unknown key %q%s", join(in, name), hint)
		return
	}
	d.fail(at, "unknown key %q; here may stand: %s", join(in, name), strings.Join(known, ", "))
}

// options is the part of a file that its owner reads later.
type options struct {
	file, key string
	at        *token.Token
	entries   []entry
}

type entry struct {
	name  string
	at    *token.Token
	value ast.Node
}

func (o options) decode(into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("options of %s: want a pointer to a struct, got %T", o.key, into)
	}
	fields := fieldsOf(v.Elem().Type())
	d := decoder{file: o.file, lines: map[string]*token.Token{}}
	for _, e := range o.entries {
		f, ok := fields[e.name]
		if !ok {
			d.unknown(e.at, e.name, o.key, append(slices.Sorted(maps.Keys(fields)), "enabled"))
			continue
		}
		d.value(e.value, v.Elem().FieldByIndex(f.Index), join(o.key, e.name), f.Tag.Get("oneof"))
	}
	return d.errs.orNil()
}

func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	fields := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(t) {
		if f.IsExported() && !f.Anonymous {
			fields[fieldName(f)] = f
		}
	}
	return fields
}

func fieldName(f reflect.StructField) string {
	if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" {
		return name
	}
	return snake(f.Name)
}

// snake turns ReportInterval into report_interval and CPULimit into cpu_limit.
func snake(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		begins := i > 0 && unicode.IsUpper(r) &&
			(unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]))
		if begins {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// scalarText returns a scalar as it is written.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode:
		return "keys and values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode:
		return "an anchor or alias, which have no place here"
	case *ast.TagNode:
		return "a tag, which has no place here"
	case *ast.NullNode:
		return "nothing"
	}
	return "a single value"
}
