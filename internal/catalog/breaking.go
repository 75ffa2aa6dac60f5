package catalog

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/sqldb"
)

// maxBreaks bounds the changes that one message lists.
const maxBreaks = 10

// compatible refuses a change that bots which have the version installed would
// not survive. Under development anything goes.
func (s *Service) compatible(tx *sqldb.Tx, was *Integration, r *row) error {
	if r.Dev {
		return nil
	}
	found := breaks(was, r.integration())
	if len(found) == 0 {
		return nil
	}
	where, err := s.Installations.InstalledIn(tx, r.ID)
	if err != nil || len(where) == 0 {
		return err
	}
	if more := len(found) - maxBreaks; more > 0 {
		found = append(found[:maxBreaks], fmt.Sprintf("and %d more", more))
	}
	return fault.BreakingChanges.New("Integration %q %s is installed in bots, and the change would break them: %s. Create another version instead", r.Name, r.Version, strings.Join(found, "; "))
}

// breaks lists what bots may rely on in was and do not find in now.
func breaks(was, now *Integration) []string {
	var c changes
	c.input("configuration", was.Configuration.Schema, now.Configuration.Schema)
	c.linked("configuration", was.Configuration, now.Configuration)
	for name := range kept(&c, "configurations", was.Configurations, now.Configurations) {
		path := "configurations." + name
		c.input(path, was.Configurations[name].Schema, now.Configurations[name].Schema)
		c.linked(path, was.Configurations[name], now.Configurations[name])
	}
	for name := range kept(&c, "channels", was.Channels, now.Channels) {
		path, a, b := "channels."+name, was.Channels[name], now.Channels[name]
		for typ := range kept(&c, path+".messages", a.Messages, b.Messages) {
			c.input(path+".messages."+typ, a.Messages[typ].Schema, b.Messages[typ].Schema)
		}
		kept(&c, path+".conversation.tags", a.Conversation.Tags, b.Conversation.Tags)
		kept(&c, path+".message.tags", a.Message.Tags, b.Message.Tags)
	}
	kept(&c, "user.tags", was.User.Tags, now.User.Tags)
	for name := range kept(&c, "events", was.Events, now.Events) {
		c.output("events."+name, was.Events[name].Schema, now.Events[name].Schema)
	}
	for name := range kept(&c, "actions", was.Actions, now.Actions) {
		path, a, b := "actions."+name, was.Actions[name], now.Actions[name]
		c.input(path+".input", a.Input.Schema, b.Input.Schema)
		c.output(path+".output", a.Output.Schema, b.Output.Schema)
	}
	for name := range kept(&c, "states", was.States, now.States) {
		if a, b := was.States[name].Type, now.States[name].Type; a != b {
			c.add("states.%s.type changes from %s to %s", name, a, b)
		}
	}
	kept(&c, "entities", was.Entities, now.Entities)
	kept(&c, "interfaces", was.Interfaces, now.Interfaces)
	slices.Sort(c)
	return c
}

// changes are the breaking ones that were found.
type changes []string

func (c *changes) add(format string, args ...any) { *c = append(*c, fmt.Sprintf(format, args...)) }

// kept notes the entries that are gone and returns the others.
func kept[V any](c *changes, path string, was, now map[string]V) map[string]V {
	both := maps.Clone(was)
	for name := range was {
		if _, ok := now[name]; !ok {
			c.add("%.200s.%.200s is removed", path, name)
			delete(both, name)
		}
	}
	return both
}

func (c *changes) linked(path string, was, now configuration) {
	if now.Identifier.Required && !was.Identifier.Required {
		c.add("%s.identifier becomes required", path)
	}
}

// shape is what the check looks at in a JSON schema. A schema that is none of
// this promises nothing that could be broken.
type shape struct {
	Type       api.Raw            `json:"type"`
	Enum       []api.Raw          `json:"enum"`
	Properties map[string]api.Raw `json:"properties"`
	Required   []string           `json:"required"`
	Additional api.Raw            `json:"additionalProperties"`
}

func shapeOf(schema []byte) shape {
	var s shape
	if json.Unmarshal(schema, &s) != nil {
		return shape{}
	}
	return s
}

// types are the types that a schema allows, nil for all.
func (s shape) types() []string {
	if t, ok := s.Type.Text(); ok {
		return []string{t}
	}
	var all []string
	for item := range s.Type.Items() {
		if t, ok := item.Text(); ok {
			all = append(all, t)
		}
	}
	return all
}

func (s shape) closed() bool { return string(s.Additional) == "false" }

// input notes where a value that fitted was does not fit now: bots send it.
func (c *changes) input(path string, was, now []byte) {
	a, b := shapeOf(was), shapeOf(now)
	if !within(a.types(), b.types()) {
		c.add("%.400s changes its type", path)
		return
	}
	if b.Enum != nil && (a.Enum == nil || !within(texts(a.Enum), texts(b.Enum))) {
		c.add("%.400s allows fewer values", path)
	}
	for _, name := range b.Required {
		if !slices.Contains(a.Required, name) {
			c.add("%.400s.%.200s becomes required", path, name)
		}
	}
	for name, schema := range a.Properties {
		switch next, ok := b.Properties[name]; {
		case ok:
			c.input(path+"."+name, schema, next)
		case b.closed():
			c.add("%.400s.%.200s is removed", path, name)
		}
	}
}

// output notes where a value that fits now would not have fitted was: bots read it.
func (c *changes) output(path string, was, now []byte) {
	a, b := shapeOf(was), shapeOf(now)
	if !within(b.types(), a.types()) {
		c.add("%.400s changes its type", path)
		return
	}
	for _, name := range a.Required {
		if _, ok := b.Properties[name]; ok && !slices.Contains(b.Required, name) {
			c.add("%.400s.%.200s becomes optional", path, name)
		}
	}
	for name, schema := range a.Properties {
		if next, ok := b.Properties[name]; ok {
			c.output(path+"."+name, schema, next)
		} else {
			c.add("%.400s.%.200s is removed", path, name)
		}
	}
}

// within reports whether everything a allows is allowed by b; nil allows all.
// An integer is a number.
func within(a, b []string) bool {
	if b == nil {
		return true
	}
	return a != nil && !slices.ContainsFunc(a, func(t string) bool {
		return !slices.Contains(b, t) && (t != "integer" || !slices.Contains(b, "number"))
	})
}

func texts(values []api.Raw) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}
