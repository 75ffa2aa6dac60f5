package catalog

import (
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley/internal/api"
	"parley/internal/fault"
)

// MaxConfiguration is the size limit of a configuration, in bytes.
const MaxConfiguration = 20 << 10

// settings is the part of JSON Schema that the configurations of built-in
// integrations are written in: an object of texts, flags and numbers.
type settings struct {
	Type       string             `json:"type"`
	Properties map[string]setting `json:"properties"`
	Required   []string           `json:"required"`
	// Additional members are refused: a misspelt setting would be without effect.
	Additional bool `json:"additionalProperties"`
}

type setting struct {
	Type        string `json:"type"`
	Title       string `json:"title"`
	Description string `json:"description"`
}

func readSettings(schema api.Object) (settings, error) {
	var s settings
	err := json.Unmarshal(schema, &s, json.RejectUnknownMembers(true))
	return s, err
}

// mustReadConfiguration finds a built-in schema with words that CheckConfiguration would overlook.
func mustReadConfiguration(schema api.Object) {
	if len(schema) == 0 {
		return
	}
	s, err := readSettings(schema)
	if err != nil {
		panic("catalog: configuration schema: " + err.Error())
	}
	if s.Type != "object" || s.Additional {
		panic("catalog: a configuration is a closed object")
	}
	for name, p := range s.Properties {
		if kinds[p.Type] == "" {
			panic("catalog: configuration member " + name + " has the type " + p.Type)
		}
	}
}

// kinds tells the JSON kinds that a type allows.
var kinds = map[string]string{"string": `"`, "boolean": "tf", "number": "0"}

// CheckConfiguration checks what an installation is to be set to. The type names
// one of the alternative configurations, "" the ordinary one. The faults are
// InvalidDataFormat and, for an unknown type, InvalidPayload.
func (d *Integration) CheckConfiguration(configurationType string, configuration api.Object) error {
	schema := d.Configuration.Schema
	if configurationType != "" {
		c, ok := d.Configurations[configurationType]
		if !ok {
			return fault.InvalidPayload.New("configurationType %.200q is not one that integration %q %s has", configurationType, d.Name, d.Version)
		}
		schema = c.Schema
	}
	s, err := readSettings(orEmpty(schema))
	if err != nil {
		return err
	}
	var members map[string]jsontext.Value
	if err := json.Unmarshal(orEmpty(configuration), &members); err != nil {
		return fault.InvalidDataFormat.Wrap(err, "configuration must be an object")
	}
	return s.check(d.Name, members)
}

func orEmpty(o api.Object) []byte {
	if len(o) == 0 {
		return []byte("{}")
	}
	return o
}

func (s settings) check(integration string, members map[string]jsontext.Value) error {
	for _, name := range slices.Sorted(maps.Keys(members)) {
		p, ok := s.Properties[name]
		if !ok {
			return fault.InvalidDataFormat.New("configuration.%.200s is not a setting of integration %q; it has %s", name, integration, s.names())
		}
		if !strings.Contains(kinds[p.Type], string(rune(members[name].Kind()))) {
			return fault.InvalidDataFormat.New("configuration.%s must be a %s", name, p.Type)
		}
	}
	for _, name := range s.Required {
		if _, ok := members[name]; !ok {
			return fault.InvalidDataFormat.New("configuration.%s is required by integration %q", name, integration)
		}
	}
	return nil
}

func (s settings) names() string {
	if len(s.Properties) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(s.Properties)), ", ")
}
