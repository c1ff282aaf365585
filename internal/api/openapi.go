package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"

	"ghostlight/internal/event"
)

// object is a piece of the OpenAPI document.
type object = map[string]any

// tableRow stands, in the table of routes, for one row of a table, and
// tableRows for an answer with many.
type (
	tableRow  string
	tableRows string
)

func rowOf(table string) any  { return tableRow(table) }
func rowsOf(table string) any { return tableRows(table) }

// describe writes the OpenAPI 3.1 document of the routes.
func describe(version string) ([]byte, error) {
	if version == "" {
		version = "0"
	}
	d := descriptor{schemas: object{}}
	d.schemaOf(reflect.TypeFor[problemBody]())
	paths := object{}
	for _, rt := range routes {
		item, _ := paths[rt.path].(object)
		if item == nil {
			item = object{}
			paths[rt.path] = item
		}
		item[strings.ToLower(rt.method)] = d.operation(rt)
	}
	return json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Ghostlight", "version": version,
			"description": "What this host does: connections, processes, losses and cost. Times are RFC 3339 in UTC, durations are nanoseconds.",
			"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers":    []object{{"url": "/"}},
		"paths":      paths,
		"components": object{"schemas": d.schemas, "securitySchemes": object{"bearer": object{"type": "http", "scheme": "bearer"}}},
		"security":   []object{{}, {"bearer": []string{}}},
	}, "", " ")
}

// descriptor collects the schemas that operations refer to.
type descriptor struct{ schemas object }

func (d descriptor) operation(rt route) object {
	params := []object{}
	for _, name := range placesOf(rt.path) {
		params = append(params, object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, p := range rt.params {
		params = append(params, object{"name": p.name, "in": "query", "description": p.doc, "schema": object{"type": p.kind}})
	}
	content := object{}
	for media, v := range rt.answer {
		content[media] = object{"schema": d.schema(v)}
	}
	op := object{
		"operationId": operationID(rt), "summary": rt.summary, "parameters": params,
		"responses": object{
			"200": object{"description": "OK", "content": content},
			"default": object{"description": "What went wrong, and what to do about it.",
				"content": object{mediaJSON: object{"schema": ref("problemBody")}}},
		},
	}
	if rt.body != nil {
		op["requestBody"] = object{"required": true, "content": object{mediaJSON: object{"schema": d.schema(rt.body)}}}
	}
	return op
}

// placesOf names the parts of a path that the client fills in.
func placesOf(path string) (names []string) {
	for part := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(part, "{") {
			names = append(names, strings.Trim(part, "{}"))
		}
	}
	return names
}

func operationID(rt route) string {
	name := strings.TrimPrefix(rt.path, "/api/v1/")
	return strings.ToLower(rt.method) + "_" + strings.NewReplacer(".", "_", "/", "_", "{", "", "}", "").Replace(strings.TrimPrefix(name, "/"))
}

func ref(name string) object { return object{"$ref": "#/components/schemas/" + name} }

func (d descriptor) schema(v any) object {
	switch v := v.(type) {
	case tableRow:
		return d.row(string(v))
	case tableRows:
		row := d.row(string(v))
		return object{"type": "object", "required": []string{string(v), "complete"}, "properties": object{
			string(v):  object{"type": "array", "items": row},
			"matched":  object{"type": "integer", "description": "rows that match, more than were sent where last cut them; without since, of those that had to be looked at"},
			"complete": object{"type": "boolean", "description": "false where records of that time were lost"},
			"lost":     object{"type": "integer", "description": "how many"},
			"at":       object{"type": "string", "format": "date-time", "description": "the moment of a process tree"},
		}}
	}
	return d.schemaOf(reflect.TypeOf(v))
}

// row describes a row of a table, nested as its JSON is.
func (d descriptor) row(table string) object {
	if _, done := d.schemas[table]; done {
		return ref(table)
	}
	for i := range event.Tables {
		t := &event.Tables[i]
		if t.Name != table {
			continue
		}
		root := object{"kind": object{"type": "string", "const": t.Kind.String()}}
		for j := range t.Columns {
			c := &t.Columns[j]
			nest(root, strings.Split(c.Name, "."), columnSchema(c))
		}
		d.schemas[table] = object{"type": "object", "properties": root}
	}
	return ref(table)
}

func nest(into object, path []string, leaf object) {
	if len(path) == 1 {
		into[path[0]] = leaf
		return
	}
	next, _ := into[path[0]].(object)
	if next == nil {
		next = object{"type": "object", "properties": object{}}
		into[path[0]] = next
	}
	nest(next["properties"].(object), path[1:], leaf)
}

func columnSchema(c *event.Column) object {
	s := object{"type": "string", "description": c.Doc}
	switch c.Type {
	case event.Int:
		s["type"] = "integer"
	case event.Duration:
		s["type"], s["description"] = "integer", c.Doc+" (nanoseconds)"
	case event.Bool:
		s["type"] = "boolean"
	case event.Time:
		s["format"] = "date-time"
	case event.Strings:
		s["type"], s["items"] = "array", object{"type": "string"}
	case event.Map:
		s["type"], s["additionalProperties"] = "object", object{"type": "string"}
	}
	return s
}

// schemaOf describes a Go type as encoding/json writes it.
func (d descriptor) schemaOf(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[Span]():
		return object{"allOf": []object{d.row("requests"), d.schemaOf(reflect.TypeFor[spanPlace]())}}
	case t.Kind() == reflect.Pointer:
		return d.schemaOf(t.Elem())
	case t.Kind() == reflect.Struct:
		return d.structOf(t)
	case t.Kind() == reflect.Slice:
		return object{"type": "array", "items": d.schemaOf(t.Elem())}
	case t.Kind() == reflect.Map && t.Elem().Kind() != reflect.Interface:
		return object{"type": "object", "additionalProperties": d.schemaOf(t.Elem())}
	case t.Kind() == reflect.Map:
		return object{"type": "object"}
	case t.Kind() == reflect.String:
		return object{"type": "string"}
	case t.Kind() == reflect.Bool:
		return object{"type": "boolean"}
	case t.Kind() == reflect.Interface:
		return object{}
	case t.Kind() == reflect.Float64:
		return object{"type": "number"}
	}
	return object{"type": "integer"}
}

func (d descriptor) structOf(t reflect.Type) object {
	if _, done := d.schemas[t.Name()]; done {
		return ref(t.Name())
	}
	properties, required := object{}, []string{}
	d.schemas[t.Name()] = object{} // a type may hold itself
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || name == "" {
			continue
		}
		properties[name] = d.schemaOf(f.Type)
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			required = append(required, name)
		}
	}
	d.schemas[t.Name()] = object{"type": "object", "properties": properties, "required": required}
	return ref(t.Name())
}
