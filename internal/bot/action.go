package bot

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/jsonschema"
)

// Action is an action that a bot offers.
type Action struct {
	name          string
	input, output func() (*jsonschema.Schema, error)
}

func newAction(name string, in *actionIn) Action {
	compile := func(member string, schema api.Object) func() (*jsonschema.Schema, error) {
		return sync.OnceValues(func() (*jsonschema.Schema, error) {
			return jsonschema.Compile("actions."+name+"."+member+".schema", orAny(schema))
		})
	}
	return Action{name, compile("input", in.Input.Schema), compile("output", in.Output.Schema)}
}

// orAny is a schema, the one that accepts everything if there is none.
func orAny(schema api.Object) api.Object {
	if len(schema) == 0 {
		return api.Object("{}")
	}
	return schema
}

// CheckInput holds the input of one of the bot's own actions against its schema.
// A bot that declares no actions may answer any.
func (d *Definition) CheckInput(action string, input api.Object) error {
	return d.checkAction(action, "input", input, func(a Action) (*jsonschema.Schema, error) { return a.input() })
}

// CheckOutput does the same for what the action has answered.
func (d *Definition) CheckOutput(action string, output api.Object) error {
	return d.checkAction(action, "output", output, func(a Action) (*jsonschema.Schema, error) { return a.output() })
}

func (d *Definition) checkAction(action, member string, value api.Object, schema func(Action) (*jsonschema.Schema, error)) error {
	if len(d.Actions) == 0 {
		return nil
	}
	a, ok := d.Actions[action]
	if !ok {
		return fault.InvalidPayload.New("bot %q declares no action %.200q; it has %s. An integration's action is written alias:action", d.ID, action, strings.Join(slices.Sorted(maps.Keys(d.Actions)), ", "))
	}
	s, err := schema(a)
	if err != nil {
		return err
	}
	if len(value) == 0 {
		value = api.Object("{}")
	}
	return s.Validate(member, value)
}
