package bot

import (
	"sync"

	"parley/internal/api"
	"parley/internal/jsonschema"
)

// State is what a bot declares of a state.
type State struct {
	Type   string
	Expiry float64 // idle milliseconds after which it expires, 0 = never
	schema func() (*jsonschema.Schema, error)
}

func newState(name string, in *stateIn) State {
	s := State{Type: in.Type, schema: sync.OnceValues(func() (*jsonschema.Schema, error) {
		return jsonschema.Compile("states."+name+".schema", orAny(in.Schema))
	})}
	if in.Expiry != nil {
		s.Expiry = *in.Expiry
	}
	return s
}

// Check holds a payload against the schema of the state.
func (s State) Check(payload api.Object) error {
	schema, err := s.schema()
	if err != nil {
		return err
	}
	return schema.Validate("payload", payload)
}
