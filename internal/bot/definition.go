package bot

import (
	"cmp"
	"maps"
	"slices"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/jsonschema"
	"parley/internal/patch"
	"parley/internal/tag"
)

// Limits of a definition.
const (
	maxTagDefinitions = 50
	maxStates         = 20
	maxEvents         = 20
	maxRecurring      = 50
	maxSchema         = 100 << 10
	maxConfiguration  = 20 << 10
	maxDefinition     = 8 << 20 // everything together; the body may be larger, for it may bring code
)

// definition is what the owner declares about a bot. The same struct reads
// requests and is what the database holds, so that members which this version
// does not know are kept as they came: a newer client finds them again.
type definition struct {
	User             tagsIn                  `json:"user,omitzero"`
	Conversation     tagsIn                  `json:"conversation,omitzero"`
	Message          tagsIn                  `json:"message,omitzero"`
	States           map[string]*stateIn     `json:"states,omitempty"`
	Events           map[string]*eventIn     `json:"events,omitempty"`
	Actions          map[string]*actionIn    `json:"actions,omitempty"`
	RecurringEvents  map[string]*recurringIn `json:"recurringEvents,omitempty"`
	Subscriptions    subscriptionsIn         `json:"subscriptions,omitzero"`
	Configuration    configurationIn         `json:"configuration,omitzero"`
	Medias           *[]media                `json:"medias,omitzero"`
	MaxExecutionTime *int64                  `json:"maxExecutionTime,omitzero" min:"1" max:"900" doc:"Seconds that one call to the bot may take."`
	AlwaysAlive      *bool                   `json:"alwaysAlive,omitzero"`
	Extra            api.Extra               `json:",embed"`
}

// The parts of a definition as they are shown (label, state, event, action) and
// as they are sent, where null deletes an entry and unknown members are kept (…In).

type label struct {
	Title       string `json:"title,omitempty" max:"64"`
	Description string `json:"description,omitempty" max:"256"`
}

type labelIn struct {
	label
	Extra api.Extra `json:",embed"`
}

type tagsIn struct {
	Tags  map[string]*labelIn `json:"tags,omitempty"`
	Extra api.Extra           `json:",embed"`
}

type state struct {
	Type   string     `json:"type" enum:"conversation,user,bot,task"`
	Schema api.Object `json:"schema"`
	Expiry *float64   `json:"expiry,omitempty" min:"1" doc:"Milliseconds without use after which the state expires."`
}

type stateIn struct {
	state
	Extra api.Extra `json:",embed"`
}

type event struct {
	label
	Schema     api.Object        `json:"schema"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

type eventIn struct {
	label
	Schema     api.Object         `json:"schema"`
	Attributes map[string]*string `json:"attributes,omitempty" each.max:"200"`
	Extra      api.Extra          `json:",embed"`
}

type costs struct {
	Billable  *bool `json:"billable,omitempty"`
	Cacheable *bool `json:"cacheable,omitempty"`
}

type action struct {
	label
	costs
	Input      described         `json:"input"`
	Output     described         `json:"output"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

type described struct {
	Schema api.Object `json:"schema"`
}

type actionIn struct {
	label
	costs
	Input      describedIn        `json:"input"`
	Output     describedIn        `json:"output"`
	Attributes map[string]*string `json:"attributes,omitempty" each.max:"200"`
	Extra      api.Extra          `json:",embed"`
}

type describedIn struct {
	Schema api.Object `json:"schema"`
	Extra  api.Extra  `json:",embed"`
}

type subscriptionsIn struct {
	Events api.Nullable[map[string]*api.Object] `json:"events,omitzero" doc:"Null = all events."`
	Extra  api.Extra                            `json:",embed"`
}

type configurationIn struct {
	Data   *api.Object `json:"data,omitzero"`
	Schema *api.Object `json:"schema,omitzero"`
	Extra  api.Extra   `json:",embed"`
}

// check refuses what no bot can have, whatever it has already. It reports the
// first violation in the order of the names, so that a request gets the same
// answer each time.
//
// Compat: the cloud also takes code, plugins, secrets and blocked. Parley refuses each until it can do what it promises.
func (d *definition) check() error {
	for _, t := range d.tagged() {
		for _, key := range slices.Sorted(maps.Keys(t.Tags)) {
			if err := tag.CheckKey(key); err != nil {
				return fault.InvalidIdentifier.New("%s.tags: %.200q is not a valid tag key; it starts with a lowercase letter and has 2 to 100 letters and digits", t.kind, key)
			}
		}
	}
	if err := cmp.Or(patch.CheckNames("states", d.States), patch.CheckNames("events", d.Events), patch.CheckNames("actions", d.Actions), patch.CheckNames("recurringEvents", d.RecurringEvents)); err != nil {
		return err
	}
	if err := d.checkSchemas(); err != nil {
		return err
	}
	if err := d.checkRecurring(); err != nil {
		return err
	}
	if data := d.Configuration.Data; data != nil && len(*data) > maxConfiguration {
		return fault.LimitExceeded.New("configuration.data has %d bytes, the limit is %d", len(*data), maxConfiguration)
	}
	return nil
}

// taggedPart is what a definition declares about one kind of entity.
type taggedPart struct {
	kind string
	*tagsIn
}

func (d *definition) tagged() []taggedPart {
	return []taggedPart{{tag.User, &d.User}, {tag.Conversation, &d.Conversation}, {tag.Message, &d.Message}}
}

// checkSchemas refuses schemas that are too large or that are none.
func (d *definition) checkSchemas() error {
	schemas := map[string]api.Object{}
	if d.Configuration.Schema != nil {
		schemas["configuration.schema"] = *d.Configuration.Schema
	}
	for name, v := range d.States {
		if v != nil {
			schemas["states."+name+".schema"] = v.Schema
		}
	}
	for name, v := range d.Events {
		if v != nil {
			schemas["events."+name+".schema"] = v.Schema
		}
	}
	for name, v := range d.Actions {
		if v != nil {
			schemas["actions."+name+".input.schema"] = v.Input.Schema
			schemas["actions."+name+".output.schema"] = v.Output.Schema
		}
	}
	for _, path := range slices.Sorted(maps.Keys(schemas)) {
		text := orAny(schemas[path])
		if n := len(text); n > maxSchema {
			return fault.LimitExceeded.New("%.400s has %d bytes, the limit is %d", path, n, maxSchema)
		}
		if _, err := jsonschema.Compile(path, text); err != nil {
			return err
		}
	}
	return nil
}

// merge applies a change to d: an entry that is sent replaces the one of its
// name, null deletes it, what is not sent stays. Of an entry only the attributes
// are merged in turn, for only they can be deleted by null. configuration.data
// is not part of it: it is kept sealed.
func (d *definition) merge(in *definition) {
	d.User.merge(&in.User)
	d.Conversation.merge(&in.Conversation)
	d.Message.merge(&in.Message)
	d.States = patch.Merge(d.States, in.States, nil)
	d.Events = patch.Merge(d.Events, in.Events, (*eventIn).after)
	d.Actions = patch.Merge(d.Actions, in.Actions, (*actionIn).after)
	d.RecurringEvents = patch.Merge(d.RecurringEvents, in.RecurringEvents, nil)
	d.Subscriptions.merge(&in.Subscriptions)
	if in.Configuration.Schema != nil {
		d.Configuration.Schema = in.Configuration.Schema
	}
	d.Configuration.Extra = patch.Extra(d.Configuration.Extra, in.Configuration.Extra)
	if in.Medias != nil {
		d.Medias = in.Medias
	}
	if in.MaxExecutionTime != nil {
		d.MaxExecutionTime = in.MaxExecutionTime
	}
	if in.AlwaysAlive != nil {
		d.AlwaysAlive = in.AlwaysAlive
	}
	d.Extra = patch.Extra(d.Extra, in.Extra)
}

func (t *tagsIn) merge(in *tagsIn) {
	t.Tags = patch.Merge(t.Tags, in.Tags, nil)
	t.Extra = patch.Extra(t.Extra, in.Extra)
}

func (s *subscriptionsIn) merge(in *subscriptionsIn) {
	s.Extra = patch.Extra(s.Extra, in.Extra)
	switch {
	case !in.Events.Set:
	case in.Events.Null:
		s.Events = api.Nullable[map[string]*api.Object]{}
	default:
		s.Events = api.Some(patch.Merge(s.Events.Value, in.Events.Value, nil))
	}
}

// after is e where it replaces was, nil if nothing: the attributes are merged.
func (e *eventIn) after(was *eventIn) *eventIn {
	c := *e
	if was == nil {
		was = &eventIn{}
	}
	c.Attributes = patch.Merge(was.Attributes, e.Attributes, nil)
	return &c
}

// after is a where it replaces was, nil if nothing: the attributes are merged.
func (a *actionIn) after(was *actionIn) *actionIn {
	c := *a
	if was == nil {
		was = &actionIn{}
	}
	c.Attributes = patch.Merge(was.Attributes, a.Attributes, nil)
	return &c
}

// checkSize refuses a definition that has grown too large.
func (d *definition) checkSize() error {
	for _, part := range []struct {
		name    string
		n, most int
	}{
		{"user.tags", len(d.User.Tags), maxTagDefinitions},
		{"conversation.tags", len(d.Conversation.Tags), maxTagDefinitions},
		{"message.tags", len(d.Message.Tags), maxTagDefinitions},
		{"states", len(d.States), maxStates},
		{"events", len(d.Events), maxEvents},
		{"recurringEvents", len(d.RecurringEvents), maxRecurring},
	} {
		if part.n > part.most {
			return fault.LimitExceeded.New("%s would have %d entries, the limit is %d", part.name, part.n, part.most)
		}
	}
	text, err := json.Marshal(d)
	if err == nil && len(text) > maxDefinition {
		err = fault.LimitExceeded.New("the definition would have %d bytes in all, the limit is %d", len(text), maxDefinition)
	}
	return err
}

// unknown visits the members below the top that no published schema has.
func (d *definition) unknown(visit func(path string)) {
	for _, t := range d.tagged() {
		patch.Unknown(t.kind, t.Extra, visit)
		for _, l := range t.Tags {
			if l != nil {
				patch.Unknown(t.kind+".tags.*", l.Extra, visit)
			}
		}
	}
	for _, v := range d.States {
		if v != nil {
			patch.Unknown("states.*", v.Extra, visit)
		}
	}
	for _, v := range d.Events {
		if v != nil {
			patch.Unknown("events.*", v.Extra, visit)
		}
	}
	for _, v := range d.Actions {
		if v != nil {
			patch.Unknown("actions.*", v.Extra, visit)
			patch.Unknown("actions.*.input", v.Input.Extra, visit)
			patch.Unknown("actions.*.output", v.Output.Extra, visit)
		}
	}
	for _, v := range d.RecurringEvents {
		if v != nil {
			patch.Unknown("recurringEvents.*", v.Extra, visit)
			patch.Unknown("recurringEvents.*.schedule", v.Schedule.Extra, visit)
		}
	}
	patch.Unknown("subscriptions", d.Subscriptions.Extra, visit)
	patch.Unknown("configuration", d.Configuration.Extra, visit)
}

// show fills in the published part of the definition.
func (d *definition) show(b *Bot) {
	b.User, b.Conversation, b.Message = d.User.show(), d.Conversation.show(), d.Message.show()
	b.States = shown(d.States, func(v *stateIn) state { return v.state })
	b.Events = shown(d.Events, func(v *eventIn) event { return event{v.label, v.Schema, plain(v.Attributes)} })
	b.Actions = shown(d.Actions, func(v *actionIn) action {
		return action{v.label, v.costs, described{v.Input.Schema}, described{v.Output.Schema}, plain(v.Attributes)}
	})
	if d.Subscriptions.Events.Set {
		b.Subscriptions.Events = api.Some(shown(d.Subscriptions.Events.Value, func(*api.Object) struct{} { return struct{}{} }))
	}
	if d.Configuration.Schema != nil {
		b.Configuration.Schema = *d.Configuration.Schema
	}
	if d.Medias != nil {
		b.Medias = *d.Medias
	}
	if d.AlwaysAlive != nil {
		b.AlwaysAlive = *d.AlwaysAlive
	}
	b.MaxExecutionTime = d.MaxExecutionTime
}

func (t *tagsIn) show() tags {
	return tags{shown(t.Tags, func(v *labelIn) label { return v.label })}
}

func shown[V, W any](in map[string]*V, view func(*V) W) map[string]W {
	out := make(map[string]W, len(in))
	for name, v := range in {
		out[name] = view(v)
	}
	return out
}

func plain(in map[string]*string) map[string]string {
	if len(in) == 0 {
		return nil
	}
	return shown(in, func(v *string) string { return *v })
}
