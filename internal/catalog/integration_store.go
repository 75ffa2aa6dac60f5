package catalog

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/id"
	"parley/internal/sqldb"
)

// row is a row of table integrations.
type row struct {
	ID            string
	WorkspaceID   string
	Name          string
	Version       string
	Dev           bool
	Visibility    string
	URL           string
	Title         string
	Description   string
	Icon          string // base64
	Readme        string // base64
	Definition    definition
	SealedSecrets []byte
	CreatedAt     api.Time
	UpdatedAt     api.Time

	secrets map[string]string // what SealedSecrets holds
}

// Columns binds the columns of table integrations.
func (r *row) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &r.ID},
		{Name: "workspace_id", Field: &r.WorkspaceID},
		{Name: "name", Field: &r.Name},
		{Name: "version", Field: &r.Version},
		{Name: "dev", Field: &r.Dev},
		{Name: "visibility", Field: &r.Visibility},
		{Name: "url", Field: &r.URL},
		{Name: "title", Field: &r.Title},
		{Name: "description", Field: &r.Description},
		{Name: "icon", Field: &r.Icon},
		{Name: "readme", Field: &r.Readme},
		{Name: "definition", Field: sqldb.JSON(&r.Definition)},
		{Name: "secrets", Field: &r.SealedSecrets},
		{Name: "created_at", Field: (*int64)(&r.CreatedAt)},
		{Name: "updated_at", Field: (*int64)(&r.UpdatedAt)},
	}
}

func (r *row) sealedFor() string { return r.ID + "/secrets" }

// seal puts the secrets where they are stored.
func (s *Service) seal(r *row) error {
	text, err := json.Marshal(r.secrets, json.Deterministic(true))
	r.SealedSecrets = s.Box.Seal(text, r.sealedFor())
	return err
}

// row reads a version by its id, nil if there is none.
func (s *Service) row(q sqldb.Q, integrationID, tail string) (*row, error) {
	if !id.Valid(integrationID) {
		return nil, nil
	}
	r, err := sqldb.One[row](q, "integrations", "WHERE id = $1 "+tail, integrationID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, err := s.Box.Open(r.SealedSecrets, r.sealedFor())
	if err == nil {
		err = json.Unmarshal(text, &r.secrets)
	}
	if err != nil {
		return nil, fmt.Errorf("secrets of integration %s: %w", r.ID, err)
	}
	return r, nil
}

// load reads a version for the cache.
func (s *Service) load(ctx context.Context, integrationID string) (*Integration, error) {
	r, err := s.row(s.DB.Reader(ctx), integrationID, "")
	if r == nil {
		return nil, err
	}
	return r.integration(), nil
}

// integration is the version as its owner sees it, ready for use.
func (r *row) integration() *Integration {
	d := &r.Definition
	out := &Integration{
		ID: r.ID, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, WorkspaceID: r.WorkspaceID,
		Name: r.Name, Version: r.Version, Dev: r.Dev, URL: r.URL, Title: r.Title, Description: r.Description,
		IconURL: dataURL(r.Icon, ""), ReadmeURL: dataURL(r.Readme, "text/markdown;charset=utf-8"),
		Public: r.Visibility == public, Visibility: r.Visibility, VerificationStatus: "unapproved", LifecycleStatus: "published",
		Identifier:    identifier{d.Identifier.FallbackHandlerScript.Value, d.Identifier.ExtractScript.Value},
		Sandbox:       d.Sandbox,
		Configuration: d.Configuration.show(), Configurations: shown(d.Configurations, (*configurationIn).show),
		Channels:   shown(d.Channels, (*channelIn).show),
		States:     shown(d.States, func(v *stateIn) state { return v.state }),
		Events:     shown(d.Events, func(v *eventIn) event { return event{v.Title, v.Description, v.Schema, plain(v.Attributes)} }),
		Actions:    shown(d.Actions, (*actionIn).show),
		Entities:   shown(d.Entities, func(v *entityIn) entity { return v.entity }),
		User:       d.User.show(),
		Attributes: plain(d.Attributes), MaxExecutionTime: d.MaxExecutionTime,
		ExtraOperations: map[string]bool{},
		Secrets:         slices.Sorted(maps.Keys(r.secrets)),
		SecretValues:    map[string]auth.Secret{},
	}
	out.Interfaces = map[string]implemented{}
	for name, v := range d.Interfaces {
		out.Interfaces[name] = v.show(name)
	}
	for name, v := range d.ExtraOperations {
		if v.Enabled {
			out.ExtraOperations[name] = true
		}
	}
	for name, v := range r.secrets {
		out.SecretValues[name] = auth.Secret(v)
	}
	if d.SDKVersion != nil {
		out.SDKVersion = *d.SDKVersion
	}
	out.ready()
	return out
}

// dataURL is a file as a link that needs no server, "" for none. Without a media
// type it is a picture.
func dataURL(file, media string) string {
	if file == "" {
		return ""
	}
	if media == "" {
		media = "image/svg+xml"
		start, _ := base64.StdEncoding.DecodeString(file[:min(len(file), 512)/4*4])
		if t := http.DetectContentType(start); strings.HasPrefix(t, "image/") {
			media = t
		}
	}
	return "data:" + media + ";base64," + file
}

func (c *configurationIn) show() configuration {
	out := configuration{Title: c.Title, Description: c.Description, Schema: api.Object("{}")}
	out.Identifier.LinkTemplateScript = c.Identifier.LinkTemplateScript.Value
	if c.Identifier.Required != nil {
		out.Identifier.Required = *c.Identifier.Required
	}
	if c.Schema != nil {
		out.Schema = *c.Schema
	}
	return out
}

func (c *channelIn) show() channel {
	return channel{
		Title: c.Title, Description: c.Description,
		Messages:     shown(c.Messages, func(v *describedIn) described { return v.described }),
		Conversation: c.Conversation.show(), Message: tagged{labels(c.Message.Tags)},
	}
}

func (p *peopleIn) show() userPart {
	out := userPart{Tags: labels(p.Tags), Creation: creation{RequiredTags: []string{}}}
	if p.Creation != nil {
		out.Creation = *p.Creation
	}
	return out
}

func (a *actionIn) show() action {
	return action{a.Title, a.Description, a.Billable, a.Cacheable, a.Input.described, a.Output.described, plain(a.Attributes)}
}

// show is the interface under a name of its author's. What the interface itself
// is called is not known unless the client has told it.
//
// Compat: the cloud refuses an interface that it does not know. Parley has no
// interfaces of its own yet, so any id is accepted.
func (i *interfaceIn) show(name string) implemented {
	if i.Name != "" {
		name = i.Name
	}
	return implemented{i.ID, name, i.Version, i.Entities, i.Actions, i.Events, i.Channels}
}

func labels(in map[string]*labelIn) map[string]label {
	return shown(in, func(v *labelIn) label { return v.label })
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
