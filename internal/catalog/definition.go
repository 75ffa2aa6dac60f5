package catalog

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
	maxEntries    = 200 // of a part: actions, events, channels…
	maxTags       = 50  // of a kind of entity
	maxSchema     = 100 << 10
	maxDefinition = 8 << 20 // everything together
)

// definition is what the author declares about an integration. The same struct
// reads requests and is what the database holds, so that members which this
// version does not know are kept as they came: a newer client finds them again.
// Its parts mirror those of Integration; null deletes an entry.
type definition struct {
	Configuration    configurationIn             `json:"configuration,omitzero"`
	Configurations   map[string]*configurationIn `json:"configurations,omitempty"`
	Channels         map[string]*channelIn       `json:"channels,omitempty"`
	States           map[string]*stateIn         `json:"states,omitempty"`
	Events           map[string]*eventIn         `json:"events,omitempty"`
	Actions          map[string]*actionIn        `json:"actions,omitempty"`
	Entities         map[string]*entityIn        `json:"entities,omitempty"`
	User             peopleIn                    `json:"user,omitzero"`
	Interfaces       map[string]*interfaceIn     `json:"interfaces,omitempty"`
	Identifier       identifierIn                `json:"identifier,omitzero"`
	Sandbox          *sandbox                    `json:"sandbox,omitzero"`
	Attributes       map[string]*string          `json:"attributes,omitempty" each.max:"200"`
	ExtraOperations  map[string]*extraOperation  `json:"extraOperations,omitempty" doc:"Operations to be told of beside the ordinary ones."`
	SDKVersion       *string                     `json:"sdkVersion,omitzero" max:"200"`
	MaxExecutionTime *int64                      `json:"maxExecutionTime,omitzero" min:"1" max:"900" doc:"Seconds that one call to the integration may take."`
	Extra            api.Extra                   `json:",embed"`
}

type labelIn struct {
	label
	Extra api.Extra `json:",embed"`
}

type configurationIn struct {
	label
	Identifier linkIn      `json:"identifier,omitzero"`
	Schema     *api.Object `json:"schema,omitzero"`
	Extra      api.Extra   `json:",embed"`
}

type linkIn struct {
	LinkTemplateScript api.Nullable[string] `json:"linkTemplateScript,omitzero" max:"2000"`
	Required           *bool                `json:"required,omitzero"`
	Extra              api.Extra            `json:",embed"`
}

type channelIn struct {
	label
	Messages     map[string]*describedIn `json:"messages,omitempty"`
	Conversation peopleIn                `json:"conversation,omitzero"`
	Message      taggedIn                `json:"message,omitzero"`
	Extra        api.Extra               `json:",embed"`
}

type peopleIn struct {
	Tags     map[string]*labelIn `json:"tags,omitempty"`
	Creation *creation           `json:"creation,omitzero"`
	Extra    api.Extra           `json:",embed"`
}

type taggedIn struct {
	Tags  map[string]*labelIn `json:"tags,omitempty"`
	Extra api.Extra           `json:",embed"`
}

type describedIn struct {
	described
	Extra api.Extra `json:",embed"`
}

type stateIn struct {
	state
	Extra api.Extra `json:",embed"`
}

type eventIn struct {
	label
	Schema     api.Object         `json:"schema"`
	Attributes map[string]*string `json:"attributes,omitempty" each.max:"200"`
	Extra      api.Extra          `json:",embed"`
}

type actionIn struct {
	label
	Billable   *bool              `json:"billable,omitempty"`
	Cacheable  *bool              `json:"cacheable,omitempty"`
	Input      describedIn        `json:"input"`
	Output     describedIn        `json:"output"`
	Attributes map[string]*string `json:"attributes,omitempty" each.max:"200"`
	Extra      api.Extra          `json:",embed"`
}

type entityIn struct {
	entity
	Extra api.Extra `json:",embed"`
}

// interfaceIn names an interface by its id. Name and version are sent by some
// clients beside it.
type interfaceIn struct {
	ID       string             `json:"id" format:"id"`
	Name     string             `json:"name,omitempty" max:"200"`
	Version  string             `json:"version,omitempty" max:"200"`
	Entities map[string]renamed `json:"entities,omitempty"`
	Actions  map[string]renamed `json:"actions,omitempty"`
	Events   map[string]renamed `json:"events,omitempty"`
	Channels map[string]renamed `json:"channels,omitempty"`
	Extra    api.Extra          `json:",embed"`
}

type identifierIn struct {
	ExtractScript         api.Nullable[string] `json:"extractScript,omitzero" max:"2000"`
	FallbackHandlerScript api.Nullable[string] `json:"fallbackHandlerScript,omitzero" max:"2000"`
	Extra                 api.Extra            `json:",embed"`
}

type extraOperation struct {
	Enabled bool      `json:"enabled"`
	Extra   api.Extra `json:",embed"`
}

// check refuses what no integration can have, whatever it has already. It
// reports the first violation in the order of the names, so that a request gets
// the same answer each time.
func (d *definition) check() error {
	for _, err := range []error{
		named("configurations", d.Configurations), named("channels", d.Channels), named("states", d.States), named("events", d.Events),
		named("actions", d.Actions), named("entities", d.Entities), named("interfaces", d.Interfaces), named("attributes", d.Attributes),
		named("extraOperations", d.ExtraOperations),
	} {
		if err != nil {
			return err
		}
	}
	for name, c := range sorted(d.Channels) {
		if err := named("channels."+name+".messages", c.Messages); err != nil {
			return err
		}
	}
	if err := d.checkTags(); err != nil {
		return err
	}
	return d.checkSchemas()
}

// sorted ranges over the entries that are there, by name.
func sorted[V any](m map[string]*V) func(yield func(string, *V) bool) {
	return func(yield func(string, *V) bool) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if v := m[name]; v != nil && !yield(name, v) {
				return
			}
		}
	}
}

func named[V any](part string, entries map[string]*V) error {
	if len(entries) > maxEntries {
		return fault.LimitExceeded.New("%s has %d entries, the limit is %d", part, len(entries), maxEntries)
	}
	return patch.CheckNames(part, entries)
}

// declared is what a definition says about the tags of one kind of entity.
type taggedPart struct {
	path     string
	tags     map[string]*labelIn
	creation *creation
}

func (d *definition) declared() []taggedPart {
	all := []taggedPart{{"user", d.User.Tags, d.User.Creation}}
	for name, c := range sorted(d.Channels) {
		path := "channels." + name
		all = append(all, taggedPart{path + ".conversation", c.Conversation.Tags, c.Conversation.Creation}, taggedPart{path + ".message", c.Message.Tags, nil})
	}
	return all
}

func (d *definition) checkTags() error {
	for _, part := range d.declared() {
		for _, key := range slices.Sorted(maps.Keys(part.tags)) {
			if tag.CheckKey(key) != nil {
				return fault.InvalidIdentifier.New("%.400s.tags: %.200q is not a valid tag key; it starts with a lowercase letter and has 2 to 100 letters and digits", part.path, key)
			}
		}
	}
	return nil
}

// schemas lists the JSON schemas of a definition by their paths.
func (d *definition) schemas() map[string]api.Object {
	all := map[string]api.Object{}
	configured := func(path string, c *configurationIn) {
		if c.Schema != nil {
			all[path+".schema"] = *c.Schema
		}
	}
	configured("configuration", &d.Configuration)
	for name, c := range sorted(d.Configurations) {
		configured("configurations."+name, c)
	}
	for name, c := range sorted(d.Channels) {
		for typ, m := range sorted(c.Messages) {
			all["channels."+name+".messages."+typ+".schema"] = m.Schema
		}
	}
	for name, v := range sorted(d.States) {
		all["states."+name+".schema"] = v.Schema
	}
	for name, v := range sorted(d.Events) {
		all["events."+name+".schema"] = v.Schema
	}
	for name, v := range sorted(d.Actions) {
		all["actions."+name+".input.schema"] = v.Input.Schema
		all["actions."+name+".output.schema"] = v.Output.Schema
	}
	for name, v := range sorted(d.Entities) {
		all["entities."+name+".schema"] = v.Schema
	}
	return all
}

func (d *definition) checkSchemas() error {
	all := d.schemas()
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if n := len(all[path]); n > maxSchema {
			return fault.LimitExceeded.New("%.700s has %d bytes, the limit is %d", path, n, maxSchema)
		}
		if _, err := jsonschema.Compile(path, all[path]); err != nil {
			return err
		}
	}
	return nil
}

// checkWhole refuses what the parts of a definition together must not be.
func (d *definition) checkWhole() error {
	for _, part := range []struct {
		name string
		n    int
	}{
		{"configurations", len(d.Configurations)}, {"channels", len(d.Channels)}, {"states", len(d.States)}, {"events", len(d.Events)},
		{"actions", len(d.Actions)}, {"entities", len(d.Entities)}, {"interfaces", len(d.Interfaces)}, {"attributes", len(d.Attributes)},
	} {
		if part.n > maxEntries {
			return fault.LimitExceeded.New("%s would have %d entries, the limit is %d", part.name, part.n, maxEntries)
		}
	}
	for _, part := range d.declared() {
		if len(part.tags) > maxTags {
			return fault.LimitExceeded.New("%.400s.tags would have %d entries, the limit is %d", part.path, len(part.tags), maxTags)
		}
		if part.creation == nil {
			continue
		}
		for _, key := range part.creation.RequiredTags {
			if part.tags[key] == nil {
				return fault.InvalidPayload.New("%.400s.creation.requiredTags names the tag %.200q, which %.400s.tags does not declare", part.path, key, part.path)
			}
		}
	}
	text, err := json.Marshal(d)
	if err == nil && len(text) > maxDefinition {
		err = fault.LimitExceeded.New("the definition would have %d bytes in all, the limit is %d", len(text), maxDefinition)
	}
	return err
}

// merge applies a change to d: what is sent replaces what is there under its
// name, null deletes it, what is not sent stays. Events, actions, states and the
// like are replaced as a whole but for their attributes; channels and
// configurations are merged in turn, for their parts may be null.
func (d *definition) merge(in *definition) {
	d.Configuration = *in.Configuration.after(&d.Configuration)
	d.Configurations = patch.Merge(d.Configurations, in.Configurations, (*configurationIn).after)
	d.Channels = patch.Merge(d.Channels, in.Channels, (*channelIn).after)
	d.States = patch.Merge(d.States, in.States, nil)
	d.Events = patch.Merge(d.Events, in.Events, (*eventIn).after)
	d.Actions = patch.Merge(d.Actions, in.Actions, (*actionIn).after)
	d.Entities = patch.Merge(d.Entities, in.Entities, nil)
	d.User = in.User.after(d.User)
	d.Interfaces = patch.Merge(d.Interfaces, in.Interfaces, nil)
	d.Identifier = identifierIn{
		ExtractScript:         after(in.Identifier.ExtractScript, d.Identifier.ExtractScript),
		FallbackHandlerScript: after(in.Identifier.FallbackHandlerScript, d.Identifier.FallbackHandlerScript),
		Extra:                 patch.Extra(d.Identifier.Extra, in.Identifier.Extra),
	}
	d.Sandbox = cmp.Or(in.Sandbox, d.Sandbox)
	d.Attributes = patch.Merge(d.Attributes, in.Attributes, nil)
	d.ExtraOperations = patch.Merge(d.ExtraOperations, in.ExtraOperations, nil)
	d.SDKVersion = cmp.Or(in.SDKVersion, d.SDKVersion)
	d.MaxExecutionTime = cmp.Or(in.MaxExecutionTime, d.MaxExecutionTime)
	d.Extra = patch.Extra(d.Extra, in.Extra)
}

// after is now where it was sent, else was; null is absent.
func after(now, was api.Nullable[string]) api.Nullable[string] {
	switch {
	case !now.Set:
		return was
	case now.Null:
		return api.Nullable[string]{}
	}
	return now
}

func (l label) after(was label) label {
	return label{cmp.Or(l.Title, was.Title), cmp.Or(l.Description, was.Description)}
}

// after is c where it changes was, which may be nil.
func (c *configurationIn) after(was *configurationIn) *configurationIn {
	if was == nil {
		was = &configurationIn{}
	}
	return &configurationIn{
		label:  c.label.after(was.label),
		Schema: cmp.Or(c.Schema, was.Schema),
		Identifier: linkIn{
			LinkTemplateScript: after(c.Identifier.LinkTemplateScript, was.Identifier.LinkTemplateScript),
			Required:           cmp.Or(c.Identifier.Required, was.Identifier.Required),
			Extra:              patch.Extra(was.Identifier.Extra, c.Identifier.Extra),
		},
		Extra: patch.Extra(was.Extra, c.Extra),
	}
}

// after is c where it changes was, which may be nil.
func (c *channelIn) after(was *channelIn) *channelIn {
	if was == nil {
		was = &channelIn{}
	}
	return &channelIn{
		label:        c.label.after(was.label),
		Messages:     patch.Merge(was.Messages, c.Messages, nil),
		Conversation: c.Conversation.after(was.Conversation),
		Message: taggedIn{
			Tags:  patch.Merge(was.Message.Tags, c.Message.Tags, nil),
			Extra: patch.Extra(was.Message.Extra, c.Message.Extra),
		},
		Extra: patch.Extra(was.Extra, c.Extra),
	}
}

func (p peopleIn) after(was peopleIn) peopleIn {
	return peopleIn{
		Tags:     patch.Merge(was.Tags, p.Tags, nil),
		Creation: cmp.Or(p.Creation, was.Creation),
		Extra:    patch.Extra(was.Extra, p.Extra),
	}
}

// after is e where it replaces was, which may be nil: the attributes are merged.
func (e *eventIn) after(was *eventIn) *eventIn {
	c := *e
	if was == nil {
		was = &eventIn{}
	}
	c.Attributes = patch.Merge(was.Attributes, e.Attributes, nil)
	return &c
}

// after is a where it replaces was, which may be nil: the attributes are merged.
func (a *actionIn) after(was *actionIn) *actionIn {
	c := *a
	if was == nil {
		was = &actionIn{}
	}
	c.Attributes = patch.Merge(was.Attributes, a.Attributes, nil)
	return &c
}

// unknown visits the members below the top that no published schema has.
func (d *definition) unknown(visit func(path string)) {
	people := func(path string, p *peopleIn) {
		patch.Unknown(path, p.Extra, visit)
		tags(path, p.Tags, visit)
	}
	configured := func(path string, c *configurationIn) {
		patch.Unknown(path, c.Extra, visit)
		patch.Unknown(path+".identifier", c.Identifier.Extra, visit)
	}
	configured("configuration", &d.Configuration)
	for _, c := range sorted(d.Configurations) {
		configured("configurations.*", c)
	}
	for _, c := range sorted(d.Channels) {
		patch.Unknown("channels.*", c.Extra, visit)
		for _, m := range sorted(c.Messages) {
			patch.Unknown("channels.*.messages.*", m.Extra, visit)
		}
		people("channels.*.conversation", &c.Conversation)
		patch.Unknown("channels.*.message", c.Message.Extra, visit)
		tags("channels.*.message", c.Message.Tags, visit)
	}
	for _, v := range sorted(d.States) {
		patch.Unknown("states.*", v.Extra, visit)
	}
	for _, v := range sorted(d.Events) {
		patch.Unknown("events.*", v.Extra, visit)
	}
	for _, v := range sorted(d.Actions) {
		patch.Unknown("actions.*", v.Extra, visit)
		patch.Unknown("actions.*.input", v.Input.Extra, visit)
		patch.Unknown("actions.*.output", v.Output.Extra, visit)
	}
	for _, v := range sorted(d.Entities) {
		patch.Unknown("entities.*", v.Extra, visit)
	}
	for _, v := range sorted(d.Interfaces) {
		patch.Unknown("interfaces.*", v.Extra, visit)
	}
	for _, v := range sorted(d.ExtraOperations) {
		patch.Unknown("extraOperations.*", v.Extra, visit)
	}
	people("user", &d.User)
	patch.Unknown("identifier", d.Identifier.Extra, visit)
}

func tags(path string, of map[string]*labelIn, visit func(path string)) {
	for _, l := range sorted(of) {
		patch.Unknown(path+".tags.*", l.Extra, visit)
	}
}
