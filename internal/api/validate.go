package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"parley/internal/fault"
)

// maxDepth is how deeply a body may be nested.
const maxDepth = 64

// Validate checks a JSON text against s in one pass, without building values.
// The subject names the whole in messages. The error is InvalidPayload and
// names the first member at fault.
func (s *Schema) Validate(subject string, text []byte) error {
	return s.validate(subject, text, judging{})
}

// judging says how a text is held against a schema.
type judging struct {
	answer bool // by what an answer must hold instead of a request
	all    bool // to its end: the error names all top-level members at fault
	// unknown, if not nil, lets unknown top-level members pass and is told of them.
	unknown func(name string)
}

// validate is Validate, judging as j says.
func (s *Schema) validate(subject string, text []byte, j judging) error {
	if at := tooDeep(text); at >= 0 {
		return fault.InvalidPayload.New("The body is nested more than %d levels deep, at byte %d", maxDepth, at)
	}
	v := validators.Get().(*validator)
	defer v.release()
	v.subject, v.judging = subject, j
	v.text = *bytes.NewBuffer(text)
	v.dec.Reset(&v.text)
	if err := v.value(s); err != nil {
		return v.explain(err)
	}
	rest := text[v.dec.InputOffset():]
	if more := bytes.TrimLeft(rest, " \t\r\n"); len(more) > 0 {
		return fault.InvalidPayload.New("The body goes on after its JSON value, at byte %d", len(text)-len(more))
	}
	return nil
}

// tooDeep finds the byte at which a text goes deeper than allowed, -1 if it
// does not. Whether it is JSON at all is not its business.
func tooDeep(text []byte) int {
	if bytes.Count(text, []byte("{"))+bytes.Count(text, []byte("[")) <= maxDepth {
		return -1
	}
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			inString = !inString
		case inString:
			if c == '\\' {
				i++
			}
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return i
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return -1
}

// validator walks one text. It is reused: a request costs no allocation here.
type validator struct {
	dec     jsontext.Decoder
	text    bytes.Buffer
	scratch []byte // an unquoted string
	subject string
	judging
	found []string // violations, where all are wanted

	peek     jsontext.Decoder // looks ahead for the variant of a union
	peekText bytes.Buffer
}

var validators = sync.Pool{New: func() any { return new(validator) }}

func (v *validator) release() {
	v.text, v.peekText, v.judging, v.found = bytes.Buffer{}, bytes.Buffer{}, judging{}, nil
	v.dec.Reset(&v.text) // lets go of the request's bytes
	v.peek.Reset(&v.peekText)
	if cap(v.scratch) > 64<<10 {
		v.scratch = nil
	}
	validators.Put(v)
}

// violation is a value that does not fit; the path is where the decoder stands.
type violation struct{ message string }

func (e *violation) Error() string { return e.message }

// bad reports that the value just read or about to be read is not as it must be.
func (v *validator) bad(why, text string) error {
	return &violation{complaint(v.path(), why, text)}
}

// explain turns an error of the walk into the client's.
func (v *validator) explain(err error) error {
	if e, ok := errors.AsType[*violation](err); ok {
		return fault.InvalidPayload.New("%s", e.message)
	}
	return fault.InvalidPayload.New("%s", notJSON(err))
}

// notJSON says in human words why a text is not JSON.
func notJSON(err error) string {
	e, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case !ok && errors.Is(err, io.EOF):
		return "The body is empty; send a JSON object"
	case !ok:
		return "The body is not valid JSON"
	case errors.Is(e.Err, jsontext.ErrDuplicateName):
		return fmt.Sprintf("The body has the member %s twice, at byte %d", quote(e.JSONPointer.LastToken()), e.ByteOffset)
	case errors.Is(e.Err, io.ErrUnexpectedEOF):
		return fmt.Sprintf("The body is not valid JSON: it ends too early, at byte %d", e.ByteOffset)
	}
	return fmt.Sprintf("The body is not valid JSON: %s, at byte %d", strings.TrimPrefix(e.Err.Error(), "jsontext: "), e.ByteOffset)
}

// value checks the next value.
func (v *validator) value(s *Schema) error {
	kind := v.dec.PeekKind()
	if s.kind == kindAny {
		return v.dec.SkipValue()
	}
	if kind == 'n' {
		return v.nullValue(s)
	}
	if s.kind == kindRef {
		s = s.target
	}
	switch s.kind {
	case kindString:
		return v.str(s, kind)
	case kindObject:
		return v.object(s, kind)
	case kindUnion:
		return v.unionValue(s, kind)
	case kindMap:
		return v.mapValue(s, kind)
	case kindArray:
		return v.array(s, kind)
	case kindRaw:
		return v.raw(s, kind)
	case kindBool:
		return v.boolean(kind)
	}
	return v.number(s, kind)
}

func (v *validator) nullValue(s *Schema) error {
	if _, err := v.dec.ReadToken(); err != nil {
		return err
	}
	if s.null || s.deref().null {
		return nil
	}
	return v.bad("must not be null", "")
}

// mismatch consumes a value of the wrong kind, so that the path names it, and
// says what it must be. A text that is no JSON is told first.
func (v *validator) mismatch(want string) error {
	if err := v.dec.SkipValue(); err != nil {
		return err
	}
	return v.bad("must be "+want, "")
}

func (v *validator) str(s *Schema, kind jsontext.Kind) error {
	if kind != '"' {
		return v.mismatch("a string")
	}
	raw, err := v.dec.ReadValue()
	if err != nil {
		return err
	}
	text := raw[1 : len(raw)-1]
	if bytes.IndexByte(text, '\\') >= 0 {
		if text, err = jsontext.AppendUnquote(v.scratch[:0], raw); err != nil {
			return err
		}
		v.scratch = text
	}
	if s.plain() && bytes.IndexByte(text, 0) < 0 {
		return nil
	}
	if why := s.text(string(text)); why != "" {
		return v.bad(why, string(text))
	}
	return nil
}

// plain reports whether any text fits.
func (s *Schema) plain() bool {
	return s.min == nil && s.max == nil && s.enum == nil && s.format == "" && s.pattern == nil
}

func (v *validator) boolean(kind jsontext.Kind) error {
	if kind != 't' && kind != 'f' {
		return v.mismatch("true or false")
	}
	_, err := v.dec.ReadToken()
	return err
}

func (v *validator) number(s *Schema, kind jsontext.Kind) error {
	if kind != '0' {
		return v.mismatch(s.noun())
	}
	raw, err := v.dec.ReadValue()
	if err != nil {
		return err
	}
	if why := s.text(string(raw)); why != "" {
		return v.bad(why, string(raw))
	}
	return nil
}

func (v *validator) array(s *Schema, kind jsontext.Kind) error {
	if kind != '[' {
		return v.mismatch("an array")
	}
	if _, err := v.dec.ReadToken(); err != nil {
		return err
	}
	n := 0
	for ; v.more(']'); n++ {
		if err := v.value(s.elem); err != nil {
			return err
		}
	}
	return v.end(s, n)
}

func (v *validator) mapValue(s *Schema, kind jsontext.Kind) error {
	if kind != '{' {
		return v.mismatch("an object")
	}
	if _, err := v.dec.ReadToken(); err != nil {
		return err
	}
	n := 0
	for ; v.more('}'); n++ {
		key, err := v.key()
		if err != nil {
			return err
		}
		if bytes.IndexByte(key, 0) >= 0 {
			return v.bad("must not contain the character U+0000 in its name", "")
		}
		if err := v.value(s.elem); err != nil {
			return err
		}
	}
	return v.end(s, n)
}

func (v *validator) raw(s *Schema, kind jsontext.Kind) error {
	if kind != '{' {
		return v.mismatch("an object")
	}
	if s.min == nil && s.max == nil {
		return v.dec.SkipValue()
	}
	if _, err := v.dec.ReadToken(); err != nil {
		return err
	}
	n := 0
	for ; v.more('}'); n++ {
		if err := v.dec.SkipValue(); err != nil {
			return err
		}
		if err := v.dec.SkipValue(); err != nil {
			return err
		}
	}
	return v.end(s, n)
}

// more reports whether another value follows before the end of the array or
// object. At a syntax error it says yes: whoever reads on reports it.
func (v *validator) more(end jsontext.Kind) bool { return v.dec.PeekKind() != end }

// end reads the end of an array or object of n elements.
func (v *validator) end(s *Schema, n int) error {
	if _, err := v.dec.ReadToken(); err != nil {
		return err
	}
	if why := s.size(n); why != "" {
		return v.bad(why, "")
	}
	return nil
}

// key reads a member's name, unquoted. It is valid until the next read.
func (v *validator) key() ([]byte, error) {
	raw, err := v.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	v.scratch, err = jsontext.AppendUnquote(v.scratch[:0], raw)
	return v.scratch, err
}

func (v *validator) object(s *Schema, kind jsontext.Kind) error {
	if kind != '{' {
		if v.dec.StackDepth() == 0 {
			if err := v.dec.SkipValue(); err != nil {
				return err
			}
			return &violation{"The body must be a JSON object"}
		}
		return v.mismatch("an object")
	}
	if _, err := v.dec.ReadToken(); err != nil {
		return err
	}
	all := v.all && v.dec.StackDepth() == 1
	var seen [maxMembers / 64]uint64
	for v.more('}') {
		key, err := v.key()
		if err != nil {
			return err
		}
		i, ok := s.index[string(key)]
		if ok {
			seen[i/64] |= 1 << (i % 64)
			err = v.value(s.members[i].schema)
		} else {
			err = v.extra(s, key)
		}
		if err != nil && all {
			err = v.note(err)
		}
		if err != nil {
			return err
		}
	}
	if _, err := v.dec.ReadToken(); err != nil {
		return err
	}
	for i := range s.members {
		if seen[i/64]&(1<<(i%64)) != 0 || v.optional(&s.members[i]) {
			continue
		}
		err := v.missing(&s.members[i])
		if !all {
			return err
		}
		v.found = append(v.found, err.Error())
	}
	if all && len(v.found) > 0 {
		return &violation{strings.Join(v.found, "; ")}
	}
	return nil
}

// maxFound bounds a message that names all members at fault.
const maxFound = 20

// note keeps the violation of a top-level member, and moves on behind the
// member. What is no violation is returned.
func (v *validator) note(err error) error {
	e, ok := errors.AsType[*violation](err)
	if !ok {
		return err
	}
	if v.found = append(v.found, e.message); len(v.found) == maxFound {
		return &violation{strings.Join(v.found, "; ")}
	}
	if k, n := v.dec.StackIndex(1); k == '{' && n%2 == 1 && v.dec.StackDepth() == 1 {
		return v.dec.SkipValue() // only the name has been read
	}
	for v.dec.StackDepth() > 1 {
		if _, err := v.dec.ReadToken(); err != nil {
			return err
		}
	}
	return nil
}

func (v *validator) optional(m *property) bool {
	if v.answer {
		return m.omitted
	}
	return m.optional
}

// extra meets a member that s does not name.
func (v *validator) extra(s *Schema, key []byte) error {
	top := v.dec.StackDepth() == 1
	if !s.open && (!top || v.unknown == nil) || reserved(s, key) {
		return v.notMember(s, string(key))
	}
	if top && v.unknown != nil {
		v.unknown(string(key))
	}
	return v.dec.SkipValue()
}

// reserved reports whether a member would be decoded into a field that is no
// member: JSON knows a field without a tag by its Go name.
func reserved(s *Schema, key []byte) bool {
	if s.goType == nil || len(key) == 0 || key[0] < 'A' || key[0] > 'Z' {
		return false
	}
	_, ok := s.goType.FieldByName(string(key))
	return ok
}

func (v *validator) notMember(s *Schema, key string) error {
	names := make([]string, len(s.members))
	for i, m := range s.members {
		names[i] = m.name
	}
	whole := v.parent()
	if whole == "" {
		whole = v.subject
	}
	return &violation{fmt.Sprintf("%s is not a member of %s; it takes %s%s", quote(key), whole, s.names(), meant(key, names))}
}

// missing names a required member; where an empty value would do, it says so.
func (v *validator) missing(m *property) error {
	path := m.name
	if at := v.path(); at != "" {
		path = at + "." + m.name
	}
	hint := ""
	if s := m.schema.deref(); s.min == nil {
		switch {
		case s.kind == kindMap || s.kind == kindRaw || s.kind == kindObject && !s.requires():
			hint = "; send {}"
		case s.kind == kindArray:
			hint = "; send []"
		}
	}
	return &violation{path + " is required" + hint}
}

func (s *Schema) requires() bool {
	for i := range s.members {
		if !s.members[i].optional {
			return true
		}
	}
	return false
}

func (v *validator) unionValue(s *Schema, kind jsontext.Kind) error {
	if kind != '{' {
		return v.mismatch("an object")
	}
	name, found := v.variantName(s.by)
	if vs := s.variant(name); vs != nil {
		// Unions are mostly kept as they came, so answers hold what requests may.
		answer := v.answer
		v.answer = false
		err := v.object(vs, kind)
		v.answer = answer
		return err
	}
	if err := v.dec.SkipValue(); err != nil {
		return err
	}
	at := v.path() + "." + s.by
	if !found {
		return &violation{at + " is required; it is one of " + s.choices()}
	}
	return &violation{at + " must be one of " + s.choices()}
}

func (s *Schema) choices() string {
	names := make([]string, len(s.variants))
	for i, t := range s.variants {
		names[i] = t.name
	}
	return strings.Join(names, ", ")
}

// variantName looks ahead, without moving, for the string member by of the
// object that comes next. Nothing is reported as invalid here: the walk that
// follows meets it again.
func (v *validator) variantName(by string) (name []byte, found bool) {
	rest := bytes.TrimLeft(v.dec.UnreadBuffer(), " \t\r\n:,")
	if name, ok := firstMember(rest, by); ok {
		return name, true
	}
	v.peekText = *bytes.NewBuffer(rest)
	d := &v.peek
	d.Reset(&v.peekText)
	if _, err := d.ReadToken(); err != nil {
		return nil, false
	}
	for d.PeekKind() == '"' {
		key, err := d.ReadToken()
		if err != nil {
			return nil, false
		}
		if key.String() == by {
			value, err := d.ReadToken()
			if err != nil || value.Kind() != '"' {
				return nil, true
			}
			return []byte(value.String()), true
		}
		if d.SkipValue() != nil {
			return nil, false
		}
	}
	return nil, false
}

// firstMember reads a plain string member by where it stands first in an
// object, as it nearly always does.
func firstMember(object []byte, by string) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(object, []byte("{"))
	if !ok {
		return nil, false
	}
	key, rest, ok := plainString(rest)
	if !ok || string(key) != by {
		return nil, false
	}
	rest, ok = bytes.CutPrefix(bytes.TrimLeft(rest, " \t\r\n"), []byte(":"))
	if !ok {
		return nil, false
	}
	value, _, ok := plainString(rest)
	return value, ok
}

func plainString(b []byte) (text, rest []byte, ok bool) {
	b, ok = bytes.CutPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte(`"`))
	if !ok {
		return nil, nil, false
	}
	end := bytes.IndexAny(b, `"\`)
	if end < 0 || b[end] == '\\' {
		return nil, nil, false
	}
	return b[:end], b[end+1:], true
}

// path is where the decoder stands, as a client would write it: payload.items[2].text.
func (v *validator) path() string { return v.pathTo(v.dec.StackDepth()) }

// parent is the path of the object whose member's name was just read.
func (v *validator) parent() string { return v.pathTo(v.dec.StackDepth() - 1) }

func (v *validator) pathTo(depth int) string {
	var b strings.Builder
	level := 1
	for token := range v.dec.StackPointer().Tokens() {
		if level > depth {
			break
		}
		if k, _ := v.dec.StackIndex(level); k == '[' {
			fmt.Fprintf(&b, "[%s]", token)
		} else {
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(longer(token))
		}
		level++
	}
	return b.String()
}
