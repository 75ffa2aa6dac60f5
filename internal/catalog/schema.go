package catalog

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/jsonschema"
)

// MaxConfiguration is the size limit of a configuration, in bytes.
const MaxConfiguration = 20 << 10

// schemas are the compiled JSON schemas of an integration by their paths, each
// compiled when it is first needed.
type schemas struct{ byPath sync.Map }

func (d *Integration) schema(path string, text api.Object) (*jsonschema.Schema, error) {
	if s, ok := d.compiled.byPath.Load(path); ok {
		return s.(*jsonschema.Schema), nil
	}
	if len(text) == 0 {
		text = api.Object("{}")
	}
	s, err := jsonschema.Compile(path, text)
	if err != nil {
		return nil, err
	}
	d.compiled.byPath.Store(path, s)
	return s, nil
}

// CheckConfiguration checks what an installation is to be set to. The type names
// one of the alternative configurations, "" the ordinary one. The faults are
// InvalidDataFormat, which names the member, and, for an unknown type,
// InvalidPayload. Defaults of the schema are not filled in.
func (d *Integration) CheckConfiguration(configurationType string, configuration api.Object) error {
	path, text := "configuration.schema", d.Configuration.Schema
	if configurationType != "" {
		c, ok := d.Configurations[configurationType]
		if !ok {
			return fault.InvalidPayload.New("configurationType %.200q is not one that integration %q %s has; it has %s", configurationType, d.Name, d.Version, names(d.Configurations))
		}
		path, text = "configurations."+configurationType+".schema", c.Schema
	}
	s, err := d.schema(path, text)
	if err != nil {
		return err
	}
	if len(configuration) == 0 {
		configuration = api.Object("{}")
	}
	return s.Validate("configuration", configuration)
}

// ValidateInput holds the input of an action against its schema. The faults are
// InvalidDataFormat, which names the member, and, for an action that the
// integration does not have, InvalidPayload.
func (d *Integration) ValidateInput(action string, input api.Object) error {
	a, err := d.action(action)
	if err != nil {
		return err
	}
	return d.validate("actions."+action+".input.schema", a.Input.Schema, "input", input)
}

// ValidateOutput holds what an action has answered against its schema, as
// ValidateInput does.
func (d *Integration) ValidateOutput(action string, output api.Object) error {
	a, err := d.action(action)
	if err != nil {
		return err
	}
	return d.validate("actions."+action+".output.schema", a.Output.Schema, "output", output)
}

// Cacheable reports whether the answers of an action may be kept and given again.
func (d *Integration) Cacheable(action string) bool {
	c := d.Actions[action].Cacheable
	return c != nil && *c
}

func (d *Integration) action(name string) (action, error) {
	a, ok := d.Actions[name]
	if !ok {
		return a, fault.InvalidPayload.New("Integration %q %s has no action %.200q; it has %s", d.Name, d.Version, name, names(d.Actions))
	}
	return a, nil
}

func (d *Integration) validate(path string, text api.Object, member string, value api.Object) error {
	s, err := d.schema(path, text)
	if err != nil {
		return err
	}
	if len(value) == 0 {
		value = api.Object("{}")
	}
	return s.Validate(member, value)
}

// maxNames bounds a list of names in a message.
const maxNames = 400

func names[V any](of map[string]V) string {
	if len(of) == 0 {
		return "none"
	}
	list := strings.Join(slices.Sorted(maps.Keys(of)), ", ")
	if len(list) > maxNames {
		return strings.ToValidUTF8(list[:maxNames], "") + "…"
	}
	return list
}
