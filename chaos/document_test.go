package chaos

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"parley/internal/parleytest"
	"parley/spec"
)

// operation is one that is done, as the list of operations names it and the
// server's own document describes it. Whatever walks over operations reads them
// here, so that one that is built later joins by itself.
type operation struct {
	spec.Operation
	id      string // in the document
	params  []param
	body    *schema // nil: it reads no body
	answers []int   // documented statuses
	userKey bool    // a chat user's key admits
	token   bool    // a bearer token admits
}

type param struct {
	Name, In string
	Required bool
	Schema   *schema
}

// schema is what is read of a JSON Schema of the document.
type schema struct {
	Ref           string    `json:"$ref"`
	Type          typeNames `json:"type"`
	Format        string
	Enum          []string
	Pattern       string
	Minimum       *float64
	Maximum       *float64
	MinLength     *int
	MaxLength     *int
	MinItems      *int
	MaxItems      *int
	MaxProperties *int
	Items         *schema
	Properties    map[string]*schema
	Required      []string
	Rest          *rest `json:"additionalProperties"`
	OneOf         []*schema
	Discriminator struct {
		PropertyName string
		Mapping      map[string]string
	}
	names    []string           // of the properties, in order
	variants map[string]*schema // of a union, by discriminator
}

// typeNames is one type or several.
type typeNames []string

func (n *typeNames) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*n = typeNames{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(n))
}

// rest is what an object may hold beside its properties: nothing, anything, or
// values of a schema.
type rest struct {
	open   bool
	schema *schema
}

func (r *rest) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, &r.open) == nil {
		return nil
	}
	r.open = true
	return json.Unmarshal(b, &r.schema)
}

// is reports whether a value of the JSON type may stand there.
func (s *schema) is(typ string) bool { return slices.Contains(s.Type, typ) }

// anything reports whether every value is right.
func (s *schema) anything() bool { return s == nil || len(s.Type) == 0 && len(s.OneOf) == 0 }

// closed reports whether an object takes no members but its own.
func (s *schema) closed() bool { return s != nil && s.is("object") && (s.Rest == nil || !s.Rest.open) }

// union reports whether it is one of several objects that a member tells apart.
func (s *schema) union() bool { return s != nil && len(s.variants) > 0 }

// nullable reports whether null may stand there.
func (s *schema) nullable() bool {
	return s.anything() || s.is("null") || slices.ContainsFunc(s.OneOf, func(o *schema) bool { return o.is("null") })
}

// document is the server's own description of what it does.
type document struct {
	Paths      map[string]map[string]described
	Components struct{ Schemas map[string]*schema }
	linked     map[*schema]bool
}

type described struct {
	OperationID string
	Security    []map[string][]string
	Parameters  []param
	RequestBody *struct {
		Content map[string]struct{ Schema *schema }
	}
	Responses map[string]json.RawMessage
}

// operations joins the list of operations with the document of a running server.
func operations(t *testing.T, s *parleytest.Setup) (ops []*operation) {
	t.Helper()
	answer, err := client.Get("http://" + s.Addr + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	d := document{linked: map[*schema]bool{}}
	if err := json.NewDecoder(answer.Body).Decode(&d); err != nil {
		t.Fatalf("/openapi.json: %v", err)
	}
	for _, o := range spec.Operations() {
		if o.State != spec.Done {
			continue
		}
		path := o.Path
		if o.Family == "chat" {
			path = "/{webhookId}" + path
		}
		in, ok := d.Paths[path][strings.ToLower(o.Method)]
		if !ok {
			t.Fatalf("%s %s is done, and /openapi.json has no %s %s", o.Family, o.Name, o.Method, path)
		}
		ops = append(ops, d.operation(t, o, path, in))
	}
	return ops
}

func (d *document) operation(t *testing.T, o spec.Operation, path string, in described) *operation {
	t.Helper()
	op := &operation{Operation: o, id: in.OperationID}
	op.Path = path
	for _, p := range in.Parameters {
		if slices.ContainsFunc(op.params, func(q param) bool { return q.In == p.In && strings.EqualFold(q.Name, p.Name) }) {
			t.Errorf("%s documents the %s parameter %s twice", op.id, p.In, p.Name)
		}
		p.Schema = d.link(p.Schema)
		op.params = append(op.params, p)
	}
	if in.RequestBody != nil {
		op.body = d.link(in.RequestBody.Content["application/json"].Schema)
	} else if o.Method != http.MethodGet && o.Method != http.MethodDelete {
		op.body = &schema{Type: typeNames{"object"}} // an object without members
	}
	for status := range in.Responses {
		n, err := strconv.Atoi(status)
		if err != nil {
			t.Fatalf("%s documents the answer %q", op.id, status)
		}
		op.answers = append(op.answers, n)
	}
	for _, s := range in.Security {
		op.token = op.token || s["bearer"] != nil
		op.userKey = op.userKey || s["userKey"] != nil
	}
	return op
}

// link puts what references name in their place, all over a schema. Components
// may hold themselves.
func (d *document) link(s *schema) *schema {
	if s == nil {
		return nil
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return d.link(d.Components.Schemas[name])
	}
	if d.linked[s] {
		return s
	}
	d.linked[s] = true
	s.Items = d.link(s.Items)
	if s.Rest != nil {
		s.Rest.schema = d.link(s.Rest.schema)
	}
	for name, p := range s.Properties {
		s.Properties[name] = d.link(p)
		s.names = append(s.names, name)
	}
	slices.Sort(s.names)
	for i := range s.OneOf {
		s.OneOf[i] = d.link(s.OneOf[i])
	}
	s.variants = map[string]*schema{}
	for name, ref := range s.Discriminator.Mapping {
		s.variants[name] = d.link(&schema{Ref: ref})
	}
	return s
}

// param finds a parameter, nil if the operation has none of that name.
func (op *operation) param(in, name string) *param {
	for i := range op.params {
		if p := &op.params[i]; p.In == in && strings.EqualFold(p.Name, name) {
			return p
		}
	}
	return nil
}

func (op *operation) String() string { return fmt.Sprintf("%s %s", op.Family, op.Name) }

// writes reports whether it takes a body, and idempotency keys.
func (op *operation) writes() bool { return op.body != nil }
