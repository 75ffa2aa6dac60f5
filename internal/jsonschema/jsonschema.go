// Package jsonschema checks JSON values against JSON Schemas, draft-07 unless a
// schema names another draft. Schemas come from strangers: nothing is loaded
// from elsewhere, and both patterns and validation have a limit.
package jsonschema

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	js "github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"parley/internal/fault"
)

// Schema is a compiled JSON Schema. It is safe for concurrent use; values are
// checked one at a time.
type Schema struct {
	compiled *js.Schema

	mu    sync.Mutex
	steps int // left for the value that is being checked
}

// maxSteps bounds the subschemas that one value is held against: a small schema
// that refers to itself twice makes work that doubles with each level.
const maxSteps = 200_000

// errSteps ends a check that has taken maxSteps.
var errSteps = errors.New("jsonschema: the value takes too many steps to check")

// base is what references in a schema are relative to. Nothing is ever read from it.
const base = "schema:///"

// Compile reads a schema. The fault is InvalidJsonSchema and names the member
// that holds the text.
func Compile(member string, text []byte) (*Schema, error) {
	s := &Schema{}
	c := js.NewCompiler()
	c.DefaultDraft(js.Draft7)
	c.UseLoader(nothing{})
	c.UseRegexpEngine(compilePattern)
	c.RegisterVocabulary(&js.Vocabulary{URL: base + "steps", Compile: func(*js.CompilerContext, map[string]any) (js.SchemaExt, error) {
		return step{s}, nil
	}})
	c.AssertVocabs()
	doc, err := read(text)
	if err == nil {
		if err = c.AddResource(base, doc); err == nil {
			s.compiled, err = c.Compile(base)
		}
	}
	if err != nil {
		return nil, fault.InvalidJSONSchema.Wrap(err, "%s is not a JSON Schema: %s", member, why(err))
	}
	return s, nil
}

// read reads JSON whose numbers are of a size that can be reckoned with: the
// validator does not survive 1e99999999.
func read(text []byte) (any, error) {
	v, err := js.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return v, sizable(v)
}

// maxExponent is the greatest exponent of a number, as in a double.
const maxExponent = 400

func sizable(v any) error {
	switch v := v.(type) {
	case map[string]any:
		for _, m := range v {
			if err := sizable(m); err != nil {
				return err
			}
		}
	case []any:
		for _, m := range v {
			if err := sizable(m); err != nil {
				return err
			}
		}
	case json.Number:
		digits, exponent, _ := strings.Cut(strings.ToLower(v.String()), "e")
		n, err := strconv.Atoi(cmp.Or(exponent, "0"))
		if err != nil || n > maxExponent || n < -maxExponent || len(digits) > maxExponent {
			return errors.New("a number in it is too large or too precise")
		}
	}
	return nil
}

// Validate holds a value against the schema. The fault is InvalidDataFormat and
// names the member at fault, below the name of the member that holds the value.
func (s *Schema) Validate(member string, value []byte) error {
	v, err := read(value)
	if err != nil {
		return fault.InvalidDataFormat.Wrap(err, "%s is not a JSON value that can be checked: %s", member, clip(err.Error()))
	}
	err = s.check(v)
	if err == nil {
		return nil
	}
	if violation, ok := errors.AsType[*js.ValidationError](err); ok {
		return fault.InvalidDataFormat.New("%s", complaint(member, first(violation)))
	}
	return fault.InvalidDataFormat.Wrap(err, "%s cannot be checked: it is too deep for its schema", member)
}

func (s *Schema) check(v any) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if e := recover(); e != nil {
			if e != errSteps {
				panic(e)
			}
			err = errSteps
		}
	}()
	s.steps = maxSteps
	return s.compiled.Validate(v)
}

// step counts a subschema that a value is held against.
type step struct{ of *Schema }

// Validate implements js.SchemaExt.
func (e step) Validate(*js.ValidatorContext, any) {
	if e.of.steps--; e.of.steps < 0 {
		panic(errSteps)
	}
}

// nothing is a loader that refuses everything: the default one reads files.
type nothing struct{}

// Load implements js.URLLoader.
func (nothing) Load(url string) (any, error) {
	return nil, fmt.Errorf("it refers to %q, and only references within the schema are followed", url)
}

// why tells what is wrong with a schema.
func why(err error) string {
	if e, ok := errors.AsType[*js.SchemaValidationError](err); ok {
		if v, ok := errors.AsType[*js.ValidationError](e.Err); ok {
			return complaint("", first(v))
		}
	}
	if e, ok := errors.AsType[*js.LoadURLError](err); ok {
		return e.Err.Error()
	}
	return clip(strings.ReplaceAll(err.Error(), base, ""))
}

const maxReason = 500

func clip(s string) string {
	if len(s) > maxReason {
		return strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}

// first is the violation to report: the one a reader finds first, and of
// alternatives the one that came furthest into the value.
func first(e *js.ValidationError) *js.ValidationError {
	if _, named := e.ErrorKind.(*kind.PropertyNames); named || len(e.Causes) == 0 {
		return e
	}
	leaves := make([]*js.ValidationError, len(e.Causes))
	for i, c := range e.Causes {
		leaves[i] = first(c)
	}
	slices.SortStableFunc(leaves, func(a, b *js.ValidationError) int {
		return strings.Compare(strings.Join(a.InstanceLocation, "\x00"), strings.Join(b.InstanceLocation, "\x00"))
	})
	switch e.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf:
		deepest := slices.MaxFunc(leaves, func(a, b *js.ValidationError) int { return len(a.InstanceLocation) - len(b.InstanceLocation) })
		if len(deepest.InstanceLocation) <= len(e.InstanceLocation) {
			return e
		}
		return deepest
	}
	return leaves[0]
}

// join is the path of a member below another.
func join(member string, path []string) string {
	return clip(strings.Trim(member+"."+strings.Join(path, "."), "."))
}
