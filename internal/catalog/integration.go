package catalog

import (
	"time"

	"github.com/Masterminds/semver/v3"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/tag"
)

// The visibilities of an integration: its own workspace alone, everybody who
// knows its name or id, everybody.
const (
	private  = "private"
	unlisted = "unlisted"
	public   = "public"
)

// Integration is one version of an integration. Values are shared and never changed.
type Integration struct {
	ID                 string                   `json:"id" doc:"Id of this version."`
	CreatedAt          api.Time                 `json:"createdAt"`
	UpdatedAt          api.Time                 `json:"updatedAt"`
	Identifier         identifier               `json:"identifier"`
	Sandbox            *sandbox                 `json:"sandbox,omitempty"`
	MaxExecutionTime   *int64                   `json:"maxExecutionTime,omitempty"`
	URL                string                   `json:"url" doc:"Where it runs, empty for one that Parley brings along."`
	Name               string                   `json:"name"`
	Version            string                   `json:"version"`
	Interfaces         map[string]implemented   `json:"interfaces"`
	Configuration      configuration            `json:"configuration"`
	Configurations     map[string]configuration `json:"configurations"`
	Channels           map[string]channel       `json:"channels"`
	States             map[string]state         `json:"states"`
	Events             map[string]event         `json:"events"`
	Actions            map[string]action        `json:"actions"`
	User               userPart                 `json:"user"`
	Entities           map[string]entity        `json:"entities"`
	Attributes         map[string]string        `json:"attributes,omitempty"`
	Dev                bool                     `json:"dev"`
	Title              string                   `json:"title"`
	Description        string                   `json:"description"`
	IconURL            string                   `json:"iconUrl"`
	ReadmeURL          string                   `json:"readmeUrl"`
	Public             bool                     `json:"public"`
	Visibility         string                   `json:"visibility" enum:"public,private,unlisted"`
	VerificationStatus string                   `json:"verificationStatus" enum:"unapproved,pending,approved,rejected"`
	LifecycleStatus    string                   `json:"lifecycleStatus" enum:"published,deprecated"`
	Secrets            []string                 `json:"secrets" doc:"Names of the secrets; their values are never shown."`

	// What answers do not carry.
	WorkspaceID     string                 `json:"-"` // its owner, "" for a built-in
	Builtin         bool                   `json:"-"` // Parley brings it along
	SecretValues    map[string]auth.Secret `json:"-"`
	ExtraOperations map[string]bool        `json:"-"` // operations it asked to be told of beside the ordinary ones
	SDKVersion      string                 `json:"-"`

	semver   *semver.Version
	limits   map[string]map[string]int
	compiled *schemas
}

// ready works out what follows from the definition.
func (d *Integration) ready() {
	d.semver, _ = semver.StrictNewVersion(d.Version) // checked when it was created
	d.limits = d.tagLimits()
	d.compiled = &schemas{}
}

// Family names the integration that d is a version of: versions and versions
// under development of one owner share it, namesakes of another owner do not.
func (d *Integration) Family() string {
	if d.Builtin {
		return d.Name
	}
	return family(d.WorkspaceID, d.Name)
}

func family(workspaceID, name string) string { return workspaceID + "/" + name }

// Outside reports whether the integration runs outside Parley.
func (d *Integration) Outside() bool { return !d.Builtin }

// toldBuiltin is what Parley brings along that is told of the bot's messages as
// if it ran outside: it hands them to a place outside.
const toldBuiltin = "messaging"

// Told reports whether the integration is told, by deliveries, of the bot's
// messages and of its own registration.
func (d *Integration) Told() bool { return d.Outside() || d.Name == toldBuiltin }

// Limit is how long one call to it may take, 0 = the default of its place.
func (d *Integration) Limit() time.Duration {
	if d.MaxExecutionTime == nil {
		return 0
	}
	return time.Duration(*d.MaxExecutionTime) * time.Second
}

// sharedWith reports whether bots of a workspace may have it installed.
func (d *Integration) sharedWith(workspaceID string) bool {
	return d.Builtin || d.WorkspaceID == workspaceID || d.Visibility != private
}

// identifier holds the scripts that find an installation by a request from outside.
type identifier struct {
	FallbackHandlerScript string `json:"fallbackHandlerScript,omitempty"`
	ExtractScript         string `json:"extractScript,omitempty"`
}

// sandbox holds the scripts that find a person in the sandbox.
type sandbox struct {
	IdentifierExtractScript string `json:"identifierExtractScript,omitempty" max:"2000"`
	MessageExtractScript    string `json:"messageExtractScript,omitempty" max:"2000"`
}

// implemented is an interface that an integration implements, with its own names for the parts.
type implemented struct {
	ID       string             `json:"id"`
	Name     string             `json:"name"`
	Version  string             `json:"version"`
	Entities map[string]renamed `json:"entities"`
	Actions  map[string]renamed `json:"actions"`
	Events   map[string]renamed `json:"events"`
	Channels map[string]renamed `json:"channels"`
}

// renamed is what a part of an interface is called in the integration.
type renamed struct {
	Name string `json:"name" max:"200"`
}

// configuration describes what an installation can be set to.
type configuration struct {
	Title       string     `json:"title,omitempty"`
	Description string     `json:"description,omitempty"`
	Identifier  link       `json:"identifier"`
	Schema      api.Object `json:"schema"`
}

// link says how a person links an account outside.
type link struct {
	LinkTemplateScript string `json:"linkTemplateScript,omitempty"`
	Required           bool   `json:"required"`
}

// channel is a kind of conversation.
type channel struct {
	Title        string               `json:"title,omitempty"`
	Description  string               `json:"description,omitempty"`
	Messages     map[string]described `json:"messages"`
	Conversation userPart             `json:"conversation"`
	Message      tagged               `json:"message"`
}

// userPart is what an integration declares of users, or of the conversations of a channel.
type userPart struct {
	Tags     map[string]label `json:"tags"`
	Creation creation         `json:"creation"`
}

// tagged is what an integration declares of messages.
type tagged struct {
	Tags map[string]label `json:"tags"`
}

// creation says whether the integration makes users or conversations that a bot asks for.
type creation struct {
	Enabled      bool     `json:"enabled"`
	RequiredTags []string `json:"requiredTags" max:"50" each.max:"100"`
}

// label is a title and a description for people to read.
type label struct {
	Title       string `json:"title,omitempty" max:"64"`
	Description string `json:"description,omitempty" max:"256"`
}

// described is anything with a JSON schema.
type described struct {
	Schema api.Object `json:"schema"`
}

// state is what an integration may keep about something.
type state struct {
	Type   string     `json:"type" enum:"conversation,user,integration"`
	Schema api.Object `json:"schema"`
}

// event is what an integration tells a bot.
type event struct {
	Title       string            `json:"title,omitempty"`
	Description string            `json:"description,omitempty"`
	Schema      api.Object        `json:"schema"`
	Attributes  map[string]string `json:"attributes,omitempty"`
}

// action is what a bot may ask of an integration.
type action struct {
	Title       string            `json:"title,omitempty"`
	Description string            `json:"description,omitempty"`
	Billable    *bool             `json:"billable,omitempty"`
	Cacheable   *bool             `json:"cacheable,omitempty"`
	Input       described         `json:"input"`
	Output      described         `json:"output"`
	Attributes  map[string]string `json:"attributes,omitempty"`
}

// entity is a kind of thing that an integration deals with.
type entity struct {
	Title       string     `json:"title,omitempty"`
	Description string     `json:"description,omitempty"`
	Schema      api.Object `json:"schema"`
}

// Tags tells which tags the integration declares: kind of entity → key → number
// of characters a value may have.
func (d *Integration) Tags() map[string]map[string]int { return d.limits }

// longTags may hold more than tag.MaxValue characters.
var longTags = map[string]map[string]int{"chat": {"profile": 1000}}

func (d *Integration) tagLimits() map[string]map[string]int {
	limits := map[string]map[string]int{tag.User: {}, tag.Conversation: {}, tag.Message: {}}
	declare := func(kind string, tags map[string]label) {
		for key := range tags {
			limits[kind][key] = tag.MaxValue
			if n, ok := longTags[d.Name][key]; ok {
				limits[kind][key] = n
			}
		}
	}
	declare(tag.User, d.User.Tags)
	for _, c := range d.Channels {
		declare(tag.Conversation, c.Conversation.Tags)
		declare(tag.Message, c.Message.Tags)
	}
	return limits
}
