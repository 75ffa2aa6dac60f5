package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// tree is a JSON value as it is written, beside the schema that it has to fit,
// so that it can be broken anywhere.
type tree struct {
	schema  *schema // nil where anything fits
	union   *schema // of which the schema is one
	null    bool    // null fits, too
	kind    byte    // { [ or v
	text    string  // of a value that is neither
	members []member
	items   []*tree
}

type member struct {
	name string // as it is written, in quotes
	*tree
}

// plant reads a text that is JSON.
func plant(text string, s *schema) (*tree, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return grow(d, s)
}

func grow(d *json.Decoder, s *schema) (*tree, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	s, null := s.orNull()
	t := &tree{schema: s, kind: 'v', null: null}
	switch token {
	case json.Delim('{'):
		t.kind = '{'
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			below, err := grow(d, s.of(name.(string)))
			if err != nil {
				return nil, err
			}
			t.members = append(t.members, member{strconv.Quote(name.(string)), below})
		}
		_, err = d.Token()
	case json.Delim('['):
		t.kind = '['
		for d.More() {
			below, err := grow(d, s.item())
			if err != nil {
				return nil, err
			}
			t.items = append(t.items, below)
		}
		_, err = d.Token()
	default:
		b, failed := json.Marshal(token)
		t.text, err = string(b), failed
	}
	if s.union() {
		t.choose()
	}
	return t, err
}

// choose gives the members of one object of several the schemas of that.
func (t *tree) choose() {
	for _, m := range t.members {
		if m.name == strconv.Quote(t.schema.Discriminator.PropertyName) {
			if v := t.schema.variants[strings.Trim(m.text, `"`)]; v != nil {
				t.union, t.schema = t.schema, v
				for _, m := range t.members {
					m.schema = v.of(strings.Trim(m.name, `"`))
				}
			}
			return
		}
	}
}

// orNull is what fits beside null, where a schema says "this or null".
func (s *schema) orNull() (*schema, bool) {
	if s != nil && !s.union() && len(s.OneOf) == 2 && s.OneOf[1].is("null") {
		return s.OneOf[0], true
	}
	return s, false
}

// of is the schema of a member.
func (s *schema) of(name string) *schema {
	if s == nil {
		return nil
	}
	if p := s.Properties[name]; p != nil {
		return p
	}
	if s.Rest != nil {
		return s.Rest.schema
	}
	return nil
}

func (s *schema) item() *schema {
	if s == nil {
		return nil
	}
	return s.Items
}

func (t *tree) clone() *tree {
	c := *t
	c.members, c.items = slices.Clone(t.members), slices.Clone(t.items)
	for i := range c.members {
		c.members[i].tree = c.members[i].clone()
	}
	for i := range c.items {
		c.items[i] = c.items[i].clone()
	}
	return &c
}

func (t *tree) write(b *bytes.Buffer) {
	switch t.kind {
	case '{':
		b.WriteByte('{')
		for i, m := range t.members {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(m.name)
			b.WriteByte(':')
			m.write(b)
		}
		b.WriteByte('}')
	case '[':
		b.WriteByte('[')
		for i, n := range t.items {
			if i > 0 {
				b.WriteByte(',')
			}
			n.write(b)
		}
		b.WriteByte(']')
	default:
		b.WriteString(t.text)
	}
}

func (t *tree) bytes() []byte {
	var b bytes.Buffer
	t.write(&b)
	return b.Bytes()
}

// all lists the tree and everything in it.
func (t *tree) all() []*tree {
	list := []*tree{t}
	for _, m := range t.members {
		list = append(list, m.all()...)
	}
	for _, n := range t.items {
		list = append(list, n.all()...)
	}
	return list
}

// set makes t another value.
func (t *tree) set(text string) { t.kind, t.text, t.members, t.items = 'v', text, nil, nil }

// seeds make values that fit a schema.
type seeds struct{ *rand.Rand }

// odd texts are valid where any text is.
var odd = []string{"", "x", "ä€😀", `"\/`, "null", "{}", "constructor", "__proto__", "' OR 1=1 --", "%00", "../../etc/passwd", "{{a}}", "\u202e", "a\u0001b", "*", "-1", "1e9", strings.Repeat("long ", 50)}

func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err) // it is a text
	}
	return string(b)
}

func (g seeds) text(s *schema, name string) string {
	least, most := limit(s.MinLength, 0), limit(s.MaxLength, 1000)
	text := odd[g.IntN(len(odd))]
	if n := len([]rune(text)); n < least {
		text += strings.Repeat("x", least-n)
	} else if n > most {
		text = string([]rune(text)[:most])
	}
	if strings.HasSuffix(strings.ToLower(name), "url") {
		return nowhere // it might be called
	}
	return text
}

// value is some value that fits.
func (g seeds) value(s *schema, name string, depth int) *tree {
	s, null := s.orNull()
	t := &tree{schema: s, kind: 'v', null: null}
	switch {
	case s.anything():
		t.set([]string{"1", `"x"`, "[]", `{"a":{"b":[1,null,"c"]}}`, "null", "1e3", `""`}[g.IntN(7)])
		return t
	case (null || s.nullable()) && g.IntN(4) == 0:
		t.text = "null"
	case s.union():
		names := slices.Sorted(maps.Keys(s.variants))
		which := names[g.IntN(len(names))]
		t = g.value(s.variants[which], name, depth)
		t.union, t.null = s, null
		for _, m := range t.members {
			if m.name == strconv.Quote(s.Discriminator.PropertyName) {
				m.set(strconv.Quote(which))
			}
		}
	case len(s.Enum) > 0:
		t.text = strconv.Quote(s.Enum[g.IntN(len(s.Enum))])
	case s.is("array"):
		t.kind = '['
		for range max(limit(s.MinItems, 0), min(g.IntN(3), limit(s.MaxItems, 3), 4-depth)) {
			t.items = append(t.items, g.value(s.Items, name, depth+1))
		}
	case s.is("object"):
		t.kind = '{'
		g.members(t, depth)
	case s.is("integer"):
		t.text = fmt.Sprint(int(limit(s.Minimum, 0)) + g.IntN(1+int(min(limit(s.Maximum, 1000)-limit(s.Minimum, 0), 1000))))
	case s.is("number"):
		t.text = fmt.Sprintf("%g", limit(s.Minimum, 0)+float64(g.IntN(1+int(min(limit(s.Maximum, 1000)-limit(s.Minimum, 0), 1000)))))
	case s.is("boolean"):
		t.text = []string{"true", "false"}[g.IntN(2)]
	case s.Format == "date-time":
		t.text = []string{`"2030-01-01T00:00:00.000Z"`, `"2001-02-03T04:05:06+07:00"`}[g.IntN(2)]
		if limit(s.MinLength, 0) > 20 {
			t.text = `"2030-01-01T00:00:00.000Z"`
		}
	case s.Format == "uri":
		t.text = strconv.Quote(nowhere)
	case s.Format == "id":
		t.text = `"01234567-89ab-4cde-8f01-23456789abcd"`
	default:
		t.text = quoted(g.text(s, name))
	}
	return t
}

// members fills an object: what is required, and some of what is not.
func (g seeds) members(t *tree, depth int) {
	s := t.schema
	for _, name := range s.names {
		has := slices.ContainsFunc(t.members, func(m member) bool { return m.name == strconv.Quote(name) })
		if !has && (slices.Contains(s.Required, name) || depth < 4 && g.IntN(2+3*depth) == 0) {
			t.members = append(t.members, member{strconv.Quote(name), g.value(s.Properties[name], name, depth+1)})
		}
	}
	if s.Rest != nil && s.Rest.schema != nil && depth < 4 {
		for i := range min(g.IntN(3), limit(s.MaxProperties, 3)) {
			t.members = append(t.members, member{quoted(fmt.Sprint("k", i)), g.value(s.Rest.schema, "", depth+1)})
		}
	}
}
