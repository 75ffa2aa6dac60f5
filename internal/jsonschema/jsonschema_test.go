package jsonschema

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"parley/internal/fault"
)

func compile(t *testing.T, text string) *Schema {
	t.Helper()
	s, err := Compile("input.schema", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestValidate(t *testing.T) {
	t.Parallel()
	// As zod emits it.
	const person = `{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","required":["name"],"additionalProperties":false,"properties":{
		"name":{"type":"string","minLength":1,"maxLength":3},"age":{"type":"integer","minimum":0,"exclusiveMaximum":100.5},
		"mail":{"type":"string","format":"email"},"kind":{"enum":["a","b"]},"one":{"const":1},"code":{"type":"string","pattern":"^(?=.*[0-9])[a-z0-9]+$"},
		"list":{"type":"array","minItems":1,"maxItems":2,"uniqueItems":true,"items":{"type":"object","properties":{"x":{"type":["number","null"]}}}},
		"either":{"anyOf":[{"type":"string"},{"type":"object","properties":{"deep":{"type":"boolean"}},"required":["deep"]}]},
		"map":{"type":"object","propertyNames":{"maxLength":2},"minProperties":1,"maxProperties":2,"additionalProperties":{"type":"string"}},
		"even":{"multipleOf":2},"never":false,"any":{}}}`
	s := compile(t, person)
	for value, want := range map[string]string{
		`{"name":"x"}`: "",
		`{"name":"x","age":3,"mail":"a@example.com","kind":"a","one":1,"code":"a1","list":[{"x":null}],"either":"s","map":{"a":"b"},"even":4,"any":[]}`: "",
		`{"name":"x","either":{"deep":true}}`:                "",
		`{}`:                                                 "input.name is required",
		`[]`:                                                 "input must be an object",
		`nonsense`:                                           "input is not a JSON value",
		`{"name":""}`:                                        "input.name must have at least 1 characters",
		`{"name":"abcd"}`:                                    "input.name must have at most 3 characters",
		`{"name":7}`:                                         "input.name must be a string",
		`{"name":"x","other":1}`:                             "input.other is not a member that the schema has",
		`{"name":"x","age":1.5}`:                             "input.age must be an integer",
		`{"name":"x","age":-1}`:                              "input.age must be at least 0",
		`{"name":"x","age":101}`:                             "input.age must be less than 100.5",
		`{"name":"x","mail":"secret"}`:                       "input.mail must be in the format email",
		`{"name":"x","kind":"c"}`:                            "input.kind must be one of a, b",
		`{"name":"x","one":2}`:                               "input.one must be 1",
		`{"name":"x","code":"abc"}`:                          "input.code must match the pattern",
		`{"name":"x","list":[]}`:                             "input.list must have at least 1 items",
		`{"name":"x","list":[{},{"x":"1"}]}`:                 "input.list.1.x must be null or a number",
		`{"name":"x","list":[{},{}]}`:                        "input.list must not have the same item twice",
		`{"name":"x","either":1}`:                            "input.either must fit one of the forms",
		`{"name":"x","either":{"deep":1}}`:                   "input.either.deep must be a boolean",
		`{"name":"x","map":{"abc":"d"}}`:                     `input holds the name "abc", which the schema does not allow`,
		`{"name":"x","map":{}}`:                              "input.map must have at least 1 members",
		`{"name":"x","map":{"a":1}}`:                         "input.map.a must be a string",
		`{"name":"x","even":3}`:                              "input.even must be a multiple of 2",
		`{"name":"x","never":1}`:                             "input.never is not allowed by the schema",
		`{"name":"x","age":1e99999999}`:                      "input is not a JSON value",
		`{"name":"x","even":1e-99999999}`:                    "input is not a JSON value",
		`{"name":"x","even":1e99999999}`:                     "input is not a JSON value",
		`{"name":"x","` + strings.Repeat("n", 5000) + `":1}`: "input.nnnn",
	} {
		err := s.Validate("input", []byte(value))
		if want == "" && err != nil || want != "" && (!fault.Is(err, fault.InvalidDataFormat) || !strings.HasPrefix(fault.From(err).Message, want)) {
			t.Errorf("%.200s: got %v, want %q", value, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || len(fault.From(err).Message) > 2*maxReason) {
			t.Errorf("%.200s: the message is %.2000q", value, err)
		}
	}
}

func TestCompile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "outside.json")
	if err := os.WriteFile(file, []byte(`{"type":"string"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		``:                                      "is not a JSON Schema",
		`{`:                                     "is not a JSON Schema",
		`[]`:                                    "is not a JSON Schema",
		`"object"`:                              "is not a JSON Schema",
		`{"type":"x"}`:                          "type must fit",
		`{"type":7}`:                            "type must fit",
		`{"properties":{"a":{"type":"strin"}}}`: "properties.a.type must fit",
		`{"properties":[]}`:                     "properties must be an object",
		`{"required":"a"}`:                      "required must be an array",
		`{"required":["a","a"]}`:                "required must not have the same item twice",
		`{"minimum":1e99999999}`:                "too large",
		`{"minLength":-1}`:                      "minLength must be at least 0",
		`{"pattern":"("}`:                       "pattern must be in the format regex",
		`{"$ref":"#/definitions/none"}`:         "",
		`{"$ref":"file://` + file + `"}`:        "only references within the schema are followed",
		`{"$ref":"http://127.0.0.1/x.json"}`:    "only references within the schema are followed",
		`{"$ref":"other.json"}`:                 "only references within the schema are followed",
		`{"$schema":"http://127.0.0.1/meta.json"}`:                           "only references within the schema are followed",
		`{"$schema":"nonsense"}`:                                             "",
		`{"$id":"file:///etc/passwd","$ref":"#/x"}`:                          "",
		`{"type":"object","properties":{"a":{"$ref":"file:///etc/passwd"}}}`: "only references within the schema are followed",
	} {
		_, err := Compile("actions.add.input.schema", []byte(text))
		if !fault.Is(err, fault.InvalidJSONSchema) || !strings.HasPrefix(fault.From(err).Message, "actions.add.input.schema is not a JSON Schema: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{
		`{}`, `true`, `{"type":"object"}`, `{"$schema":"http://json-schema.org/draft-07/schema#","$ref":"#/definitions/a","definitions":{"a":{"type":"string"}}}`,
		`{"$schema":"https://json-schema.org/draft/2020-12/schema","$defs":{"a":{}},"$ref":"#/$defs/a"}`,
		`{"x-zui":{"title":"kept"},"unknown":1}`, `{"$id":"https://example.com/a.json","properties":{"b":{"$ref":"#/definitions/b"}},"definitions":{"b":{}}}`,
	} {
		if _, err := Compile("schema", []byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A schema of a few lines must not keep a processor busy.
func TestLimits(t *testing.T) {
	t.Parallel()
	double := compile(t, `{"allOf":[{"properties":{"x":{"$ref":"#"}}},{"properties":{"x":{"$ref":"#"}}}]}`)
	if err := double.Validate("input", []byte(strings.Repeat(`{"x":`, 8)+"1"+strings.Repeat("}", 8))); err != nil {
		t.Error(err)
	}
	if err := double.Validate("input", []byte(strings.Repeat(`{"x":`, 100)+"1"+strings.Repeat("}", 100))); !fault.Is(err, fault.InvalidDataFormat) {
		t.Errorf("a value that doubles the work with each level: %v", err)
	}
	if err := double.Validate("input", []byte(`{}`)); err != nil {
		t.Errorf("after a value that was too deep: %v", err)
	}
	loop := compile(t, `{"properties":{"x":{"$ref":"#"}}}`)
	if err := loop.Validate("input", []byte(`{"x":{"x":{}}}`)); err != nil {
		t.Error(err)
	}
	if s, err := Compile("schema", []byte(`{"$ref":"#"}`)); err == nil {
		if err := s.Validate("input", []byte(`{}`)); !fault.Is(err, fault.InvalidDataFormat) {
			t.Errorf("a schema that is itself: %v", err)
		}
	}
	slow := compile(t, `{"pattern":"^(?=a)(a+)+$"}`)
	if err := slow.Validate("input", []byte(`"`+strings.Repeat("a", 60)+`b"`)); !fault.Is(err, fault.InvalidDataFormat) {
		t.Errorf("a pattern that backtracks for ever: %v", err)
	}
}

func TestValidateAtOnce(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"properties":{"x":{"type":"integer"}}}`)
	var wg sync.WaitGroup
	for n := range 50 {
		wg.Go(func() {
			good, bad := s.Validate("v", fmt.Appendf(nil, `{"x":%d}`, n)), s.Validate("v", []byte(`{"x":"y"}`))
			if good != nil || !fault.Is(bad, fault.InvalidDataFormat) {
				t.Errorf("got %v and %v", good, bad)
			}
		})
	}
	wg.Wait()
}

func FuzzCompileAndValidate(f *testing.F) {
	f.Add(`{"type":"object","properties":{"a":{"$ref":"#"}}}`, `{"a":{}}`)
	f.Add(`{"anyOf":[{"pattern":"("},{"format":"uri"}]}`, `"x"`)
	f.Fuzz(func(t *testing.T, schema, value string) {
		s, err := Compile("schema", []byte(schema))
		if err != nil {
			if !fault.Is(err, fault.InvalidJSONSchema) {
				t.Fatal(err)
			}
			return
		}
		if err := s.Validate("value", []byte(value)); err != nil && !fault.Is(err, fault.InvalidDataFormat) {
			t.Fatal(err)
		}
	})
}
