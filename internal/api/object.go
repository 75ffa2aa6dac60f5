package api

import (
	"bytes"
	"iter"

	"github.com/go-json-experiment/json/jsontext"
)

// Members ranges over the members of o in their order. It stops at the first
// byte that is no JSON.
func (o Object) Members() iter.Seq2[string, Raw] {
	return func(yield func(string, Raw) bool) {
		d := jsontext.NewDecoder(bytes.NewBuffer(o), jsontext.AllowDuplicateNames(true))
		if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
			return
		}
		for d.PeekKind() == '"' {
			key, err := d.ReadToken()
			if err != nil {
				return
			}
			name := key.String()
			v, err := d.ReadValue()
			if err != nil || !yield(name, Raw(v)) {
				return
			}
		}
	}
}

// Builder puts an object together from members, in the order they are added.
// The zero value is an empty object.
type Builder struct{ b []byte }

// Add appends a member; v must be JSON.
func (b *Builder) Add(name string, v Raw) {
	b.name(name)
	b.b = append(b.b, v...)
}

// AddText appends a string member.
func (b *Builder) AddText(name, text string) {
	b.name(name)
	b.b, _ = jsontext.AppendQuote(b.b, text) // invalid UTF-8 becomes U+FFFD, which is what is wanted
}

func (b *Builder) name(name string) {
	if b.b == nil {
		b.b = append(make([]byte, 0, 256), '{')
	} else {
		b.b = append(b.b, ',')
	}
	b.b, _ = jsontext.AppendQuote(b.b, name)
	b.b = append(b.b, ':')
}

// Object returns the object. The builder is used up.
func (b *Builder) Object() Object {
	if b.b == nil {
		return Object("{}")
	}
	return append(b.b, '}')
}

// Items ranges over the items of a JSON array, over nothing if r is none.
func (r Raw) Items() iter.Seq[Raw] {
	return func(yield func(Raw) bool) {
		d := jsontext.NewDecoder(bytes.NewBuffer(r), jsontext.AllowDuplicateNames(true))
		if t, err := d.ReadToken(); err != nil || t.Kind() != '[' {
			return
		}
		for k := d.PeekKind(); k != ']' && k != jsontext.KindInvalid; k = d.PeekKind() {
			v, err := d.ReadValue()
			if err != nil || !yield(Raw(v)) {
				return
			}
		}
	}
}
