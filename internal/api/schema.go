package api

import (
	"encoding"
	"fmt"
	"go/ast"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Schema is what a JSON value must look like. It is made from a Go type and
// serves both the validator and the OpenAPI document. It never changes once made.
type Schema struct {
	kind   kind
	target *Schema // of kindRef: a struct or union that is described once
	null   bool    // null is allowed too
	name   string  // of a component of the document, "" = written in place
	goType reflect.Type

	min, max *int64
	enum     []string
	format   string
	pattern  *regexp.Regexp

	elem *Schema // items of an array, values of a map

	members []property
	index   map[string]int
	open    bool // unknown members are allowed

	by       string // the member that tells the variants of a union apart
	variants []variant
}

type kind uint8

const (
	kindAny kind = iota
	kindString
	kindInteger
	kindNumber
	kindBool
	kindArray
	kindMap
	kindObject // the members of a struct
	kindRaw    // any object
	kindUnion
	kindRef
)

type property struct {
	name     string
	schema   *Schema
	optional bool // in a request
	omitted  bool // perhaps, from an answer
	doc      string
}

type variant struct {
	name   string
	schema *Schema
}

// Union is implemented by types whose JSON is one of several objects, told
// apart by a member. The type decodes itself; embedding Raw keeps it as it came.
// The method is called on the zero value.
type Union interface {
	Union() Variants
}

// Variants are the objects a Union may be.
type Variants struct {
	By    string    // name of the member that says which variant it is
	Types []Variant // in the order of the documentation
}

// Variant is one of them: a struct for when the member By has the value Name.
// The struct need not declare that member.
type Variant struct {
	Name string
	Type reflect.Type
}

// VariantOf names the variant T of a union.
func VariantOf[T any](name string) Variant { return Variant{name, reflect.TypeFor[T]()} }

// SchemaOf is the Schema of T.
func SchemaOf[T any]() *Schema { return schemaOf(reflect.TypeFor[T]()) }

func schemaOf(t reflect.Type) *Schema {
	return describing(func() *Schema { return describe(t, "") })
}

// described holds every struct and union seen, so that recursive types end and
// operations share the work.
var described = struct {
	sync.Mutex
	types  map[reflect.Type]*Schema
	unions []*Schema // whose variants are not checked yet
}{types: map[reflect.Type]*Schema{}}

// describing makes a schema while nobody else does, and checks the unions that
// were met: a variant may hold the union itself and is whole only at the end.
func describing(fn func() *Schema) *Schema {
	described.Lock()
	defer described.Unlock()
	s := fn()
	for _, u := range described.unions {
		u.checkVariants()
	}
	described.unions = nil
	return s
}

var (
	timeType   = reflect.TypeFor[Time]()
	rawType    = reflect.TypeFor[Raw]()
	objectType = reflect.TypeFor[Object]()
	extraType  = reflect.TypeFor[Extra]()
	unionType  = reflect.TypeFor[Union]()
	textType   = reflect.TypeFor[encoding.TextMarshaler]()
)

// nullable is implemented by every Nullable.
type nullable interface{ valueType() reflect.Type }

func (Nullable[T]) valueType() reflect.Type { return reflect.TypeFor[T]() }

var nullableType = reflect.TypeFor[nullable]()

// describe makes the schema of t; tag constrains it.
func describe(t reflect.Type, tag reflect.StructTag) *Schema {
	switch {
	case t == timeType:
		return constrain(&Schema{kind: kindString, format: "date-time", goType: t}, tag)
	case t == objectType:
		return constrain(&Schema{kind: kindRaw, goType: t}, tag)
	case t == rawType || t == extraType:
		return &Schema{kind: kindAny, goType: t}
	case t.Implements(nullableType):
		return orNull(describe(reflect.Zero(t).Interface().(nullable).valueType(), tag))
	case t.Kind() == reflect.Pointer:
		return describe(t.Elem(), tag)
	case wraps(t, rawType) && !t.Implements(unionType):
		return &Schema{kind: kindAny, goType: t}
	case wraps(t, objectType) && !t.Implements(unionType):
		return constrain(&Schema{kind: kindRaw, goType: t}, tag)
	case t.Kind() == reflect.Struct || t.Implements(unionType):
		return &Schema{kind: kindRef, target: describeOnce(t), goType: t}
	}
	return constrain(describeKind(t, tag), tag)
}

// wraps reports whether t is a struct around an embedded raw.
func wraps(t, raw reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.NumField() > 0 && t.Field(0).Anonymous && t.Field(0).Type == raw
}

// orNull is s with null allowed.
func orNull(s *Schema) *Schema {
	n := *s
	n.null = true
	return &n
}

func describeKind(t reflect.Type, tag reflect.StructTag) *Schema {
	s := &Schema{goType: t}
	switch t.Kind() {
	case reflect.String:
		s.kind = kindString
	case reflect.Bool:
		s.kind = kindBool
	case reflect.Int, reflect.Int64:
		s.kind = kindInteger
	case reflect.Float64:
		s.kind = kindNumber
	case reflect.Interface:
		s.kind = kindAny
	case reflect.Slice:
		s.kind, s.elem = kindArray, describeElem(t.Elem(), tag)
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			panic(fmt.Sprintf("api: %s has keys that are no strings", t))
		}
		s.kind, s.elem = kindMap, describeElem(t.Elem(), tag)
	default:
		panic(fmt.Sprintf("api: %s has no schema", t))
	}
	return s
}

// describeElem describes the items of an array or the values of a map, which
// the each.… tags constrain. A pointer there allows null.
func describeElem(t reflect.Type, tag reflect.StructTag) *Schema {
	var each []string
	for _, k := range constraints {
		if v, ok := tag.Lookup("each." + k); ok {
			each = append(each, fmt.Sprintf("%s:%q", k, v))
		}
	}
	s := describe(t, reflect.StructTag(strings.Join(each, " ")))
	if t.Kind() == reflect.Pointer {
		return orNull(s)
	}
	return s
}

var constraints = []string{"min", "max", "enum", "format", "pattern"}

// constrain applies the constraint tags to s, which nobody else uses yet.
func constrain(s *Schema, tag reflect.StructTag) *Schema {
	s.min, s.max = bound(tag, "min"), bound(tag, "max")
	if e, ok := tag.Lookup("enum"); ok {
		s.enum = strings.Split(e, ",")
	}
	if f, ok := tag.Lookup("format"); ok {
		if !slices.Contains([]string{"id", "uri", "date-time"}, f) {
			panic(fmt.Sprintf("api: unknown format %q", f))
		}
		s.format = f
	}
	if p, ok := tag.Lookup("pattern"); ok {
		s.pattern = regexp.MustCompile("^(?:" + p + ")$")
	}
	if s.kind != kindString && (s.enum != nil || s.format != "" || s.pattern != nil) {
		panic(fmt.Sprintf("api: the tags %q fit strings only, not %s", tag, s.goType))
	}
	return s
}

func bound(tag reflect.StructTag, key string) *int64 {
	text, ok := tag.Lookup(key)
	if !ok {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n == math.MinInt64 {
		panic(fmt.Sprintf("api: the tag %s:%q is no number", key, text))
	}
	return &n
}

// describeOnce describes a struct or union, the first time it is met.
func describeOnce(t reflect.Type) *Schema {
	if s := described.types[t]; s != nil {
		return s
	}
	s := &Schema{goType: t, name: componentName(t)}
	described.types[t] = s
	switch {
	case t.Implements(unionType):
		s.kind = kindUnion
		s.union(reflect.Zero(t).Interface().(Union).Union())
	case t.Implements(textType):
		s.kind, s.name = kindString, ""
	default:
		s.kind = kindObject
		s.object(t)
	}
	return s
}

// componentName is the name under which the document lists t: exported types
// only, the others are written where they are used.
func componentName(t reflect.Type) string {
	name, _, _ := strings.Cut(t.Name(), "[")
	if ast.IsExported(name) {
		return name
	}
	return ""
}

func (s *Schema) union(v Variants) {
	s.by = v.By
	for _, t := range v.Types {
		s.variants = append(s.variants, variant{t.Name, describeOnce(t.Type)})
	}
	described.unions = append(described.unions, s)
}

func (s *Schema) checkVariants() {
	for i := range s.variants {
		v := &s.variants[i]
		if v.schema.kind != kindObject {
			panic(fmt.Sprintf("api: the variant %s of %s is no struct", v.schema.goType, s.goType))
		}
		at, declared := v.schema.index[s.by]
		switch {
		case !declared:
			v.schema = v.schema.told(s, v.name)
		case v.schema.members[at].optional:
			panic(fmt.Sprintf("api: the variant %s of %s does not require the member %q", v.schema.goType, s.goType, s.by))
		}
	}
}

// told is s with the member that tells it from the other variants of u: a
// struct may be several variants and need not declare it.
func (s *Schema) told(u *Schema, name string) *Schema {
	v := *s
	v.name = capital(name) + capital(u.goType.Name())
	which := property{name: u.by, schema: &Schema{kind: kindString, enum: []string{name}}}
	v.members = append([]property{which}, s.members...)
	v.index = indexOf(v.members)
	return &v
}

// variant finds a variant by its name.
func (s *Schema) variant(name []byte) *Schema {
	for i := range s.variants {
		if s.variants[i].name == string(name) {
			return s.variants[i].schema
		}
	}
	return nil
}

// maxMembers is what the validator's bit set holds.
const maxMembers = 256

func (s *Schema) object(t reflect.Type) {
	s.fields(t)
	if len(s.members) >= maxMembers { // a union may add one
		panic(fmt.Sprintf("api: %s has %d members or more", t, maxMembers))
	}
	s.index = indexOf(s.members)
	if len(s.index) < len(s.members) {
		panic(fmt.Sprintf("api: %s has two members of one name", t))
	}
}

func indexOf(members []property) map[string]int {
	index := make(map[string]int, len(members))
	for i := range members {
		index[members[i].name] = i
	}
	return index
}

// fields adds the members that the fields of t are, in their order.
func (s *Schema) fields(t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, tagged := jsonTag(f)
		switch {
		case f.Type == extraType && opts == "embed":
			s.open = true
		case f.Anonymous && !tagged:
			s.fields(embedded(f.Type))
		case !f.IsExported() || name == "-" || isParam(f):
		case name == "":
			panic(fmt.Sprintf("api: field %s of %s needs a json tag", f.Name, t))
		default:
			s.members = append(s.members, memberOf(f, name, opts))
		}
	}
}

func embedded(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("api: %s is embedded and no struct", t))
	}
	return t
}

func memberOf(f reflect.StructField, name, opts string) property {
	m := property{name: name, schema: describe(f.Type, f.Tag), doc: f.Tag.Get("doc")}
	m.omitted = strings.Contains(opts, "omit")
	m.optional = m.omitted || f.Type.Kind() == reflect.Pointer || f.Type.Implements(nullableType)
	return m
}

func jsonTag(f reflect.StructField) (name, opts string, tagged bool) {
	text, tagged := f.Tag.Lookup("json")
	name, opts, _ = strings.Cut(text, ",")
	return name, opts, tagged
}

// deref follows a reference to the schema that says something.
func (s *Schema) deref() *Schema {
	if s.kind == kindRef {
		return s.target
	}
	return s
}

// names lists the members of an object for a client to read.
func (s *Schema) names() string {
	if len(s.members) == 0 {
		return "no members"
	}
	names := make([]string, len(s.members))
	for i, m := range s.members {
		names[i] = m.name
	}
	return strings.Join(names, ", ")
}
