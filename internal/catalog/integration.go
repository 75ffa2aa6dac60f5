package catalog

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base32"
	"fmt"

	"github.com/Masterminds/semver/v3"
	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/tag"
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
	Secrets            []string                 `json:"secrets"`

	semver *semver.Version
	limits map[string]map[string]int
}

// identifier holds the scripts that find an installation by a request from outside.
type identifier struct {
	FallbackHandlerScript string `json:"fallbackHandlerScript,omitempty"`
	ExtractScript         string `json:"extractScript,omitempty"`
}

// sandbox holds the scripts that find a person in the sandbox.
type sandbox struct {
	IdentifierExtractScript string `json:"identifierExtractScript,omitempty"`
	MessageExtractScript    string `json:"messageExtractScript,omitempty"`
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
	Name string `json:"name"`
}

// configuration describes what an installation can be set to.
type configuration struct {
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	Identifier  struct {
		LinkTemplateScript string `json:"linkTemplateScript,omitempty"`
		Required           bool   `json:"required"`
	} `json:"identifier"`
	Schema api.Object `json:"schema,omitempty"`
}

// channel is a kind of conversation.
type channel struct {
	Title        string               `json:"title,omitempty"`
	Description  string               `json:"description,omitempty"`
	Messages     map[string]described `json:"messages"`
	Conversation userPart             `json:"conversation"`
	Message      struct {
		Tags map[string]label `json:"tags"`
	} `json:"message"`
}

// userPart is what an integration declares of users, or of the conversations of a channel.
type userPart struct {
	Tags     map[string]label `json:"tags"`
	Creation struct {
		Enabled      bool     `json:"enabled"`
		RequiredTags []string `json:"requiredTags"`
	} `json:"creation"`
}

// label is a title and a description for people to read.
type label struct {
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
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

//go:embed chat.json
var chatJSON []byte

// chatVersions are the versions of the chat integration that clients insist on,
// and the ones beside them that a range may find. All of them are served by the
// same code, so that a client and a bot may ask for different ones.
//
// Compat: the cloud knows each of them as a release of its own.
var chatVersions = []struct {
	prefix      string
	first, last int
}{
	{"0.7.", 3, 9},
	{"1.0.", 0, 9},
}

// longTags may hold more than tag.MaxValue characters.
var longTags = map[string]map[string]int{"chat": {"profile": 1000}}

// builtins makes the definitions of all integrations that Parley brings along.
func builtins() []*Integration {
	var all []*Integration
	for _, family := range chatVersions {
		for patch := family.first; patch <= family.last; patch++ {
			all = append(all, builtin(chatJSON, fmt.Sprint(family.prefix, patch)))
		}
	}
	return all
}

// releasedAt is when the built-in definitions were made: 2026-01-01T00:00:00Z.
const releasedAt api.Time = 1767225600000

func builtin(text []byte, version string) *Integration {
	d := &Integration{}
	if err := json.Unmarshal(text, d, json.RejectUnknownMembers(true)); err != nil {
		panic("catalog: built-in definition: " + err.Error())
	}
	d.ID = versionID(d.Name, version)
	d.Version = version
	d.semver = semver.MustParse(version)
	d.CreatedAt, d.UpdatedAt = releasedAt, releasedAt
	d.limits = d.tagLimits()
	for _, c := range d.Configurations {
		mustReadConfiguration(c.Schema)
	}
	mustReadConfiguration(d.Configuration.Schema)
	return d
}

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

// versionID derives the id of a built-in version from its name and number, so
// that the same version has the same id on every server and for ever: clients
// and lock files keep it.
func versionID(name, version string) string {
	sum := sha256.Sum256([]byte("parley integration " + name + "@" + version))
	b := sum[:16]
	b[0] &= 0x3f // a ULID begins with a digit up to 7
	return "intver_" + base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding).EncodeToString(b)
}
