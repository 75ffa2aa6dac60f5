package bot

import (
	"context"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// Definition is what the engines need to know of a bot. Values are shared
// between requests and never changed: after a change there is a new one.
type Definition struct {
	ID               string
	WorkspaceID      string
	Name             string
	Dev              bool
	URL              string // where it runs, "" = nowhere yet or inside Parley
	Builtin          string // name of the Go bot behind it, "" for one at URL
	Configuration    Configuration
	Tags             map[string]string // of the bot itself
	MaxExecutionTime time.Duration     // of one call, 0 = the default of its place
	// What the bot declares. An empty part accepts everything.
	EntityTags map[string]map[string]int // kind → key → characters a value may have
	States     map[string]State          // by name
	Events     map[string]bool           // its own
	Actions    map[string]Action         // its own
	// Subscriptions are the events of installations that the bot wants; none = all.
	Subscriptions map[string]bool
	Installations []Installation // removed ones included, the oldest first
}

// Configuration is a bot's configuration as its process gets it: a payload in a
// wrapper that looks like a state.
type Configuration struct {
	ID        string
	CreatedAt api.Time
	UpdatedAt api.Time
	Payload   api.Object // may hold secrets: never log it
}

// known is what the cache holds of a bot.
type known struct {
	bot        *auth.Bot
	definition *Definition
}

// Bot finds a bot; nil, nil means unknown. It is the part of auth.Directory
// that this package knows. The answer comes from memory and takes no lock.
func (s *Service) Bot(ctx context.Context, botID string) (*auth.Bot, error) {
	k, err := s.bots.Get(ctx, botID)
	if k == nil {
		return nil, err
	}
	return k.bot, nil
}

// BotNow finds a bot as it is now, where Bot may tell how it was a moment ago,
// before another server changed it.
func (s *Service) BotNow(ctx context.Context, botID string) (*auth.Bot, error) {
	if s.MaxAge == 0 {
		return s.Bot(ctx, botID)
	}
	k, err := s.bots.Fresh(ctx, botID)
	if k == nil {
		return nil, err
	}
	return k.bot, nil
}

// Definition finds what a bot declares and where it runs; nil, nil means
// unknown. The answer comes from memory and takes no lock.
func (s *Service) Definition(ctx context.Context, botID string) (*Definition, error) {
	k, err := s.bots.Get(ctx, botID)
	if k == nil {
		return nil, err
	}
	return k.definition, nil
}

// ByWebhook finds an installation by its webhook id, and its bot. It finds
// disabled and removed ones too. All nil means unknown.
func (s *Service) ByWebhook(ctx context.Context, webhookID string) (*Installation, *auth.Bot, error) {
	botID, err := s.webhooks.Get(ctx, webhookID)
	if botID == nil {
		return nil, nil, err
	}
	return s.find(ctx, *botID, func(in *Installation) bool { return in.WebhookID == webhookID })
}

// Installation finds an installation by its id, and its bot. It finds disabled
// and removed ones too. All nil means unknown.
func (s *Service) Installation(ctx context.Context, installationID string) (*Installation, *auth.Bot, error) {
	botID, err := s.owners.Get(ctx, installationID)
	if botID == nil {
		return nil, nil, err
	}
	return s.find(ctx, *botID, func(in *Installation) bool { return in.ID == installationID })
}

// find finds an installation that exists. A bot that does not have it is one from
// before another server installed it.
func (s *Service) find(ctx context.Context, botID string, match func(*Installation) bool) (*Installation, *auth.Bot, error) {
	for _, get := range []func(context.Context, string) (*known, error){s.bots.Get, s.bots.Fresh} {
		k, err := get(ctx, botID)
		if k == nil {
			return nil, nil, err
		}
		for i := range k.definition.Installations {
			if in := &k.definition.Installations[i]; match(in) {
				return in, k.bot, nil
			}
		}
	}
	return nil, nil, nil
}

// readKnown loads a bot for the cache.
func (s *Service) readKnown(ctx context.Context, botID string) (*known, error) {
	q := s.DB.Reader(ctx)
	r, err := s.bot(q, "", botID, "")
	if fault.Is(err, fault.ResourceNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rows, err := s.installations(q, botID, "")
	if err != nil {
		return nil, err
	}
	d := r.definition()
	b := &auth.Bot{ID: r.ID, WorkspaceID: r.WorkspaceID}
	for _, in := range rows {
		full, err := s.installation(q, in)
		if err != nil {
			return nil, err
		}
		b.Installations = append(b.Installations, full.Installation)
		d.Installations = append(d.Installations, full)
	}
	return &known{b, d}, nil
}

func (s *Service) installation(q sqldb.Q, in *installation) (Installation, error) {
	version, err := s.version(q, in.IntegrationID)
	return Installation{
		Installation: auth.Installation{
			ID: in.ID, Alias: in.Alias, IntegrationID: in.IntegrationID, IntegrationName: in.Name, Version: in.Version,
			WebhookID: in.WebhookID, Enabled: in.Enabled, Removed: in.Removed, DisabledChannels: in.DisabledChannels,
			Outside: version.Outside, Told: version.Told, Signals: version.Signals != nil && version.Signals(in.configuration), Gone: in.Gone,
		},
		BotID: in.BotID, WebhookURL: s.webhookURL(in.WebhookID), Configuration: in.configuration, ConfigurationType: in.ConfigurationType,
		CreatedAt: in.CreatedAt, UpdatedAt: in.UpdatedAt,
	}, err
}

// version finds the version of an integration, whatever its state; one that was
// deleted is nothing and nowhere.
func (s *Service) version(q sqldb.Q, integrationID string) (*Integration, error) {
	version, err := s.Catalog.Lookup(q, integrationID)
	if version == nil {
		version = &Integration{}
	}
	return version, err
}

func (r *row) definition() *Definition {
	d := &Definition{
		ID: r.ID, WorkspaceID: r.WorkspaceID, Name: r.Name, Dev: r.Dev, URL: r.URL, Builtin: r.Builtin,
		Tags: r.Tags,
		// There is one configuration to a bot, so its id is the bot's under another prefix.
		Configuration: Configuration{"cfg_" + r.ID[len(r.ID)-26:], r.CreatedAt, r.UpdatedAt, r.configuration},
		EntityTags:    map[string]map[string]int{},
		States:        map[string]State{},
		Events:        shown(r.Definition.Events, func(*eventIn) bool { return true }),
		Actions:       map[string]Action{},
	}
	for _, t := range r.Definition.tagged() {
		d.EntityTags[t.kind] = shown(t.Tags, func(*labelIn) int { return tag.MaxValue })
	}
	for name, v := range r.Definition.Actions {
		d.Actions[name] = newAction(name, v)
	}
	for name, v := range r.Definition.States {
		d.States[name] = newState(name, v)
	}
	if r.Definition.Subscriptions.Events.Set {
		d.Subscriptions = shown(r.Definition.Subscriptions.Events.Value, func(*api.Object) bool { return true })
	}
	if n := r.Definition.MaxExecutionTime; n != nil {
		d.MaxExecutionTime = time.Duration(*n) * time.Second
	}
	return d
}
