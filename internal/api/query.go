package api

import (
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"parley/internal/fault"
)

// maxPairs bounds the work that one query string can ask for.
const maxPairs = 200

// fillQuery sets the query parameters of v. A map takes both spellings,
// tags.key=x of the official clients and tags[key]=x of the documentation; a
// list takes repeated names, a[]=x and a[0]=x.
func (in *input) fillQuery(query string, v reflect.Value) error {
	if query == "" && len(in.query) == 0 {
		return nil
	}
	var seen [4]uint64 // by position of the parameter
	for n := 0; query != ""; n++ {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if pair == "" {
			continue
		}
		if n == maxPairs {
			return fault.InvalidQuery.New("The query has more than %d parameters", maxPairs)
		}
		i, err := in.fillPair(pair, v, &seen)
		if err != nil {
			return err
		}
		seen[i/64] |= 1 << (i % 64)
	}
	return in.checkQuery(v, &seen)
}

// checkQuery looks at what can only be judged once everything was read.
func (in *input) checkQuery(v reflect.Value, seen *[4]uint64) error {
	for i := range in.query {
		p := &in.query[i]
		has := seen[i/64]&(1<<(i%64)) != 0
		if p.required && !has {
			return fault.InvalidQuery.New("%s is required in the query of %s", p.name, in.subject)
		}
		if has && (p.schema.kind == kindArray || p.schema.kind == kindMap) {
			if why := p.schema.size(v.FieldByIndex(p.field).Len()); why != "" {
				return fault.InvalidQuery.New("%s %s", p.name, why)
			}
		}
	}
	return nil
}

// fillPair sets the parameter of one name=value and returns its position.
func (in *input) fillPair(pair string, v reflect.Value, seen *[4]uint64) (int, error) {
	name, text, _ := strings.Cut(pair, "=")
	name, err := url.QueryUnescape(name)
	if err == nil {
		text, err = url.QueryUnescape(text)
	}
	if err != nil {
		return 0, fault.InvalidQuery.New("The query has an invalid escape in %s", quote(pair))
	}
	i, sub, err := in.find(name)
	if err != nil {
		return 0, err
	}
	p := &in.query[i]
	field, value := v.FieldByIndex(p.field), p.schema
	switch p.schema.kind {
	case kindMap, kindArray:
		value = p.schema.elem
	default:
		if seen[i/64]&(1<<(i%64)) != 0 {
			return 0, fault.InvalidQuery.New("%s occurs twice in the query", p.name)
		}
	}
	if why := value.text(text); why != "" {
		return 0, invalidQuery(name, why, text)
	}
	if p.schema.kind != kindMap {
		p.set(field, text)
		return i, nil
	}
	return i, p.put(field, name, sub, text)
}

func invalidQuery(name, why, text string) error {
	if why == badID {
		return fault.InvalidPayload.New("%s", complaint(name, why, text))
	}
	return fault.InvalidQuery.New("%s", complaint(name, why, text))
}

// put adds a key to a map.
func (p *param) put(field reflect.Value, name, key, text string) error {
	t := field.Type()
	if field.IsNil() {
		field.Set(reflect.MakeMap(t))
	}
	k := reflect.ValueOf(key).Convert(t.Key())
	if field.MapIndex(k).IsValid() {
		return fault.InvalidQuery.New("%s occurs twice in the query", quote(name))
	}
	if why := validText(key); why != "" {
		return fault.InvalidQuery.New("The key in %s %s", quote(name), why)
	}
	field.SetMapIndex(k, reflect.ValueOf(text).Convert(t.Elem()))
	return nil
}

// find locates the parameter that a name in a query means, and for a map the key.
func (in *input) find(name string) (i int, key string, err error) {
	base, sub, nested := name, "", ""
	if at := strings.IndexAny(name, ".["); at >= 0 {
		base, sub, nested = name[:at], name[at+1:], name[at:at+1]
	}
	for i := range in.query {
		if in.query[i].name != base {
			continue
		}
		p := &in.query[i]
		if nested == "[" {
			var closed bool
			sub, closed = strings.CutSuffix(sub, "]")
			if !closed || strings.ContainsAny(sub, "[]") {
				return 0, "", fault.InvalidQuery.New("%s is not well formed; the query takes %s", quote(name), p.usage())
			}
		}
		if !p.takes(nested, sub) {
			return 0, "", fault.InvalidQuery.New("%s is not well formed; the query takes %s", quote(name), p.usage())
		}
		return i, sub, nil
	}
	return 0, "", in.unknown(name)
}

// takes reports whether a name may go on with sub after the separator nested.
func (p *param) takes(nested, sub string) bool {
	switch p.schema.kind {
	case kindMap:
		return nested != "" && sub != ""
	case kindArray:
		_, err := strconv.ParseUint(sub, 10, 16)
		return nested == "" || nested == "[" && (sub == "" || err == nil)
	}
	return nested == ""
}

func (p *param) usage() string {
	switch p.schema.kind {
	case kindMap:
		return p.name + ".key=value or " + p.name + "[key]=value"
	case kindArray:
		return p.name + "=value, as often as needed"
	}
	return p.name + "=value"
}

func (in *input) unknown(name string) error {
	if len(in.query) == 0 {
		return fault.InvalidQuery.New("%s is not a query parameter of %s; it takes none", quote(name), in.subject)
	}
	names := make([]string, len(in.query))
	for i := range in.query {
		names[i] = in.query[i].name
	}
	return fault.InvalidQuery.New("%s is not a query parameter of %s; it takes %s%s", quote(name), in.subject, strings.Join(names, ", "), meant(name, names))
}
