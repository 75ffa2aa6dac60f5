package api

import (
	"path"
	"strings"
	"unicode"
)

func ref(name string) obj { return obj{{"$ref", "#/components/schemas/" + name}} }

// schema writes s, as an answer or a request holds it.
func (d *document) schema(s *Schema, answer bool) obj {
	if s.kind == kindRef {
		o := d.shared(s.target, answer)
		if s.null {
			return obj{{"oneOf", []obj{o, {{"type", "null"}}}}}
		}
		return o
	}
	var o obj
	if name, ok := typeNames[s.kind]; ok {
		if s.null {
			o = obj{{"type", []string{name, "null"}}}
		} else {
			o = obj{{"type", name}}
		}
	}
	o = s.limits(o)
	switch s.kind {
	case kindArray:
		o = o.with("items", d.schema(s.elem, answer))
	case kindMap:
		o = o.with("additionalProperties", d.schema(s.elem, answer))
	case kindRaw:
		o = o.with("additionalProperties", true)
	}
	return o
}

var typeNames = map[kind]string{
	kindString: "string", kindInteger: "integer", kindNumber: "number", kindBool: "boolean",
	kindArray: "array", kindMap: "object", kindRaw: "object",
}

var limitNames = map[kind][2]string{
	kindString:  {"minLength", "maxLength"},
	kindInteger: {"minimum", "maximum"},
	kindNumber:  {"minimum", "maximum"},
	kindArray:   {"minItems", "maxItems"},
	kindMap:     {"minProperties", "maxProperties"},
	kindRaw:     {"minProperties", "maxProperties"},
}

func (s *Schema) limits(o obj) obj {
	names := limitNames[s.kind]
	if s.min != nil {
		o = o.with(names[0], *s.min)
	}
	if s.max != nil {
		o = o.with(names[1], *s.max)
	}
	if s.enum != nil {
		o = o.with("enum", s.enum)
	}
	if s.format != "" {
		o = o.with("format", s.format)
	}
	if s.pattern != nil {
		o = o.with("pattern", s.pattern.String())
	}
	return o
}

// shared writes a struct or union: a reference to a component if it has a name.
func (d *document) shared(s *Schema, answer bool) obj {
	if s.kind == kindString { // a struct that is written as text
		return obj{{"type", "string"}}
	}
	name := s.name
	if name == "" && (s.kind == kindUnion || s.reaches(s, map[*Schema]bool{})) {
		name = capital(s.goType.Name())
	}
	if name == "" {
		return d.body(s, answer)
	}
	if !answer && s.directional(map[*Schema]bool{}) {
		name += "Input"
	}
	return ref(d.component(s, name, answer))
}

func (d *document) body(s *Schema, answer bool) obj {
	if s.kind == kindUnion {
		return d.union(s)
	}
	return d.object(s, answer, s.open)
}

// component lists s among the components, the first time, and returns its name there.
func (d *document) component(s *Schema, name string, answer bool) string {
	if was, taken := d.names[name]; taken && was != s || name == "Error" {
		name = capital(path.Base(s.goType.PkgPath())) + name
	}
	if d.names[name] == s {
		return name
	}
	if d.names[name] != nil {
		panic("api: two types of the document are called " + name)
	}
	d.names[name] = s
	body := d.body(s, answer)
	d.schemas = d.schemas.with(name, body)
	return name
}

// union is the same in both directions: an answer holds what a request may.
func (d *document) union(s *Schema) obj {
	var list []obj
	var mapping obj
	for _, v := range s.variants {
		name := v.schema.name
		if name == "" {
			name = capital(v.schema.goType.Name())
		}
		name = d.component(v.schema, name, false)
		list = append(list, ref(name))
		mapping = mapping.with(v.name, "#/components/schemas/"+name)
	}
	return obj{{"oneOf", list}, {"discriminator", obj{{"propertyName", s.by}, {"mapping", mapping}}}}
}

func (d *document) object(s *Schema, answer, open bool) obj {
	var props obj
	var required []string
	for i := range s.members {
		m := &s.members[i]
		p := d.schema(m.schema, answer)
		if m.doc != "" {
			p = p.with("description", m.doc)
		}
		props = props.with(m.name, p)
		if answer && !m.omitted || !answer && !m.optional {
			required = append(required, m.name)
		}
	}
	o := obj{{"type", "object"}, {"properties", props}}
	if required != nil {
		o = o.with("required", required)
	}
	return o.with("additionalProperties", open)
}

// children are the schemas that s is made of.
func (s *Schema) children() []*Schema {
	var list []*Schema
	for i := range s.members {
		list = append(list, s.members[i].schema)
	}
	for _, v := range s.variants {
		list = append(list, v.schema)
	}
	if s.elem != nil {
		list = append(list, s.elem)
	}
	if s.target != nil {
		list = append(list, s.target)
	}
	return list
}

// reaches reports whether target is part of what s is made of.
func (s *Schema) reaches(target *Schema, seen map[*Schema]bool) bool {
	for _, c := range s.children() {
		if c == target {
			return true
		}
		if !seen[c] {
			seen[c] = true
			if c.reaches(target, seen) {
				return true
			}
		}
	}
	return false
}

// directional reports whether requests and answers require different members.
// In a union they do not: it is judged as a request in both directions.
func (s *Schema) directional(seen map[*Schema]bool) bool {
	if s.kind == kindUnion {
		return false
	}
	for i := range s.members {
		if s.members[i].optional != s.members[i].omitted {
			return true
		}
	}
	for _, c := range s.children() {
		if !seen[c] {
			seen[c] = true
			if c.directional(seen) {
				return true
			}
		}
	}
	return false
}

func capital(s string) string {
	s, _, _ = strings.Cut(s, "[")
	if s == "" {
		return s
	}
	r := []rune(s)
	r[0] = unicode.ToUpper(r[0])
	return string(r)
}
