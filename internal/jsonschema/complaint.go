package jsonschema

import (
	"fmt"
	"math/big"
	"strings"

	js "github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// complaint says what is wrong below a member. It never repeats the value: that
// may be a secret.
func complaint(member string, e *js.ValidationError) string {
	path := join(member, e.InstanceLocation)
	below := func(name string) string { return clip(join(path, []string{name})) }
	if path == "" {
		path = "it"
	}
	must := func(format string, args ...any) string { return path + " must " + clip(fmt.Sprintf(format, args...)) }
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		return below(k.Missing[0]) + " is required"
	case *kind.DependentRequired:
		return below(k.Missing[0]) + " is required beside " + clip(k.Prop)
	case *kind.Dependency:
		return below(k.Missing[0]) + " is required beside " + clip(k.Prop)
	case *kind.AdditionalProperties:
		return below(k.Properties[0]) + " is not a member that the schema has"
	case *kind.PropertyNames:
		// Of such a violation the library does not keep the place.
		return fmt.Sprintf("%s holds the name %.200q, which the schema does not allow", member, k.Property)
	case *kind.FalseSchema:
		return path + " is not allowed by the schema"
	case *kind.Type:
		return must("be %s", types(k.Want))
	case *kind.Enum:
		return must("be one of %s", values(k.Want))
	case *kind.Const:
		return must("be %s", values([]any{k.Want}))
	case *kind.Format:
		return must("be in the format %s", k.Want)
	case *kind.Pattern:
		return must("match the pattern %s", k.Want)
	case *kind.MinLength:
		return must("have at least %d characters", k.Want)
	case *kind.MaxLength:
		return must("have at most %d characters", k.Want)
	case *kind.MinItems:
		return must("have at least %d items", k.Want)
	case *kind.MaxItems:
		return must("have at most %d items", k.Want)
	case *kind.AdditionalItems:
		return must("have %d items less", k.Count)
	case *kind.UniqueItems:
		return must("not have the same item twice")
	case *kind.MinProperties:
		return must("have at least %d members", k.Want)
	case *kind.MaxProperties:
		return must("have at most %d members", k.Want)
	case *kind.Minimum:
		return must("be at least %s", number(k.Want))
	case *kind.Maximum:
		return must("be at most %s", number(k.Want))
	case *kind.ExclusiveMinimum:
		return must("be greater than %s", number(k.Want))
	case *kind.ExclusiveMaximum:
		return must("be less than %s", number(k.Want))
	case *kind.MultipleOf:
		return must("be a multiple of %s", number(k.Want))
	case *kind.AnyOf:
		return must("fit one of the forms that the schema allows")
	case *kind.OneOf:
		return must("fit exactly one of the forms that the schema allows")
	}
	return path + " does not fit the schema"
}

func types(want []string) string {
	named := make([]string, len(want))
	for i, t := range want {
		switch t {
		case "null":
			named[i] = t
		case "object", "array", "integer":
			named[i] = "an " + t
		default:
			named[i] = "a " + t
		}
	}
	return strings.Join(named, " or ")
}

func values(want []any) string {
	named := make([]string, len(want))
	for i, v := range want {
		named[i] = fmt.Sprint(v)
	}
	return strings.Join(named, ", ")
}

func number(r *big.Rat) string {
	f, _ := r.Float64()
	return fmt.Sprint(f)
}
