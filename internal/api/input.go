package api

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"parley/internal/fault"
)

// input is the plan for filling an In: where each field comes from.
type input struct {
	subject string // the operation's id, for messages
	path    []param
	query   []param
	header  []param
	body    *Schema // an object, nil for methods without a body
}

// param is a field that is filled from text.
type param struct {
	name     string
	required bool
	schema   *Schema
	field    []int // index path
	set      func(field reflect.Value, text string)
	doc      string
}

// paramTags are the places a parameter may come from.
var paramTags = []string{"path", "query", "header"}

func isParam(f reflect.StructField) bool {
	for _, tag := range paramTags {
		if _, ok := f.Tag.Lookup(tag); ok {
			return true
		}
	}
	return false
}

// inputOf plans for t, whose operation is subject.
func inputOf(t reflect.Type, subject, method string) *input {
	if t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("api: the input of %s is %s, not a struct", subject, t))
	}
	in := &input{subject: subject}
	in.params(t, nil)
	body := describing(func() *Schema {
		s := &Schema{kind: kindObject, goType: t}
		s.object(t)
		return s
	})
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		in.body = body
	default:
		if len(body.members) > 0 {
			panic(fmt.Sprintf("api: %s answers %s, whose body is ignored, but wants the member %q", subject, method, body.members[0].name))
		}
	}
	return in
}

// params collects the parameters among the fields of t, which lies at the index path at.
func (in *input) params(t reflect.Type, at []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		index := append(slices.Clone(at), i)
		if _, _, tagged := jsonTag(f); f.Anonymous && !tagged {
			if f.Type.Kind() == reflect.Struct {
				in.params(f.Type, index)
			}
			continue
		}
		for place, list := range map[string]*[]param{"path": &in.path, "query": &in.query, "header": &in.header} {
			if text, ok := f.Tag.Lookup(place); ok {
				*list = append(*list, paramOf(f, text, index))
			}
		}
	}
}

func paramOf(f reflect.StructField, text string, index []int) param {
	if !f.IsExported() {
		panic(fmt.Sprintf("api: parameter field %s is not exported", f.Name))
	}
	name, opts, _ := strings.Cut(text, ",")
	schema := describing(func() *Schema { return describeParam(f) })
	return param{name: name, required: opts == "required", schema: schema, field: index, set: setter(f.Type), doc: f.Tag.Get("doc")}
}

// describeParam describes a parameter: in a list or map the constraints of a
// value's text are those of the items, for a list has no text of its own.
func describeParam(f reflect.StructField) *Schema {
	if k := f.Type.Kind(); k != reflect.Slice && k != reflect.Map {
		return describe(f.Type, f.Tag)
	}
	var own, each []string
	for _, c := range constraints {
		v, ok := f.Tag.Lookup(c)
		switch {
		case !ok:
		case c == "min" || c == "max":
			own = append(own, fmt.Sprintf("%s:%q", c, v))
		default:
			each = append(each, fmt.Sprintf("each.%s:%q", c, v))
		}
		if v, ok := f.Tag.Lookup("each." + c); ok {
			each = append(each, fmt.Sprintf("each.%s:%q", c, v))
		}
	}
	return describe(f.Type, reflect.StructTag(strings.Join(append(own, each...), " ")))
}

// setter writes text that has been validated into a field of type t. For
// slices it appends; maps are filled by query.go.
func setter(t reflect.Type) func(reflect.Value, string) {
	switch {
	case t == timeType:
		return func(v reflect.Value, s string) {
			at, _ := ParseTime(s) // validated before
			v.SetInt(int64(at))
		}
	case t.Kind() == reflect.Pointer:
		set := setter(t.Elem())
		return func(v reflect.Value, s string) {
			v.Set(reflect.New(t.Elem()))
			set(v.Elem(), s)
		}
	}
	switch t.Kind() {
	case reflect.String:
		return func(v reflect.Value, s string) { v.SetString(s) }
	case reflect.Bool:
		return func(v reflect.Value, s string) { v.SetBool(s == "true") }
	case reflect.Int, reflect.Int64:
		return func(v reflect.Value, s string) {
			n, _ := strconv.ParseInt(s, 10, 64) // validated before
			v.SetInt(n)
		}
	case reflect.Float64:
		return func(v reflect.Value, s string) {
			n, _ := strconv.ParseFloat(s, 64) // validated before
			v.SetFloat(n)
		}
	case reflect.Slice:
		set := setter(t.Elem())
		return func(v reflect.Value, s string) {
			v.Set(reflect.Append(v, reflect.Zero(t.Elem())))
			set(v.Index(v.Len()-1), s)
		}
	case reflect.Map:
		if t.Key().Kind() == reflect.String && t.Elem().Kind() == reflect.String {
			return nil
		}
	}
	panic(fmt.Sprintf("api: a parameter cannot be a %s", t))
}

// agree checks that the route and the input name the same path parameters.
func (in *input) agree(o *Op) {
	route := pathParams(o.Path)
	for _, p := range in.path {
		if p.schema.kind != kindString {
			panic(fmt.Sprintf("api: %s has a path parameter %q that is no string", o.ID, p.name))
		}
	}
	for _, name := range route {
		if !slices.ContainsFunc(in.path, func(p param) bool { return p.name == name }) {
			panic(fmt.Sprintf("api: %s has {%s} in its path, but no field tagged path:%q", o.ID, name, name))
		}
	}
}

// pathParams lists the {parameters} of a path.
func pathParams(path string) []string {
	var names []string
	for seg := range strings.SplitSeq(path, "/") {
		if n := len(seg); n > 2 && seg[0] == '{' && seg[n-1] == '}' {
			names = append(names, seg[1:n-1])
		}
	}
	return names
}

// fill sets the parameters of in from the request.
func (in *input) fill(r *http.Request, v reflect.Value, values func(name string) string) error {
	for i := range in.path {
		p := &in.path[i]
		p.set(v.FieldByIndex(p.field), values(p.name))
	}
	if err := in.fillHeader(r.Header, v); err != nil {
		return err
	}
	return in.fillQuery(r.URL.RawQuery, v)
}

func (in *input) fillHeader(h http.Header, v reflect.Value) error {
	for i := range in.header {
		p := &in.header[i]
		text := h.Get(p.name)
		if text == "" {
			if p.required {
				return fault.InvalidPayload.New("The header %s is required", p.name)
			}
			continue
		}
		switch why := p.schema.text(text); why {
		case "":
		case badID:
			return fault.InvalidPayload.New("%s", complaint(p.name, why, text))
		default:
			return fault.InvalidPayload.New("The header %s", complaint(p.name, why, text))
		}
		p.set(v.FieldByIndex(p.field), text)
	}
	return nil
}

// plans holds the inputs of Params, by type.
var plans sync.Map

// Params reads the parameters of a raw operation: the path, query and header
// fields of In, as Handle does.
func Params[In any](r *http.Request) (In, error) {
	var in In
	t := reflect.TypeFor[In]()
	plan, ok := plans.Load(t)
	if !ok {
		plan, _ = plans.LoadOrStore(t, inputOf(t, t.Name(), http.MethodGet))
	}
	err := plan.(*input).fill(r, reflect.ValueOf(&in).Elem(), r.PathValue)
	return in, err
}
