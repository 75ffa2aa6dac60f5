package app

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"parley/internal/auth"
	"parley/internal/bot"
	"parley/internal/builtin/chatapi"
	"parley/internal/builtin/echobot"
	"parley/internal/catalog"
	"parley/internal/endpoint"
	"parley/internal/messaging"
	"parley/internal/realtime"
	"parley/internal/sqldb"
)

// Modules declare what they need of each other as small interfaces; these types
// are the answers.

// directory is auth.Directory: who belongs where.
type directory struct{ p *parts }

func (d directory) Bot(ctx context.Context, botID string) (*auth.Bot, error) {
	return d.p.bot.Bot(ctx, botID)
}

// BotNow is what the gate asks before it says that something is not installed.
func (d directory) BotNow(ctx context.Context, botID string) (*auth.Bot, error) {
	return d.p.bot.BotNow(ctx, botID)
}

func (d directory) Member(ctx context.Context, accountID, workspaceID string) (bool, error) {
	return d.p.workspace.Member(ctx, accountID, workspaceID)
}

func (d directory) Family(ctx context.Context, integrationID string) (string, error) {
	return d.p.catalog.Family(ctx, integrationID)
}

// botUsers is bot.Users.
type botUsers struct{ p *parts }

func (u botUsers) CreateBotUser(tx *sqldb.Tx, botID, name string, at int64) error {
	return u.p.messaging.CreateBotUser(tx, botID, name, at)
}

// botEvents is bot.Recurring.
type botEvents struct{ p *parts }

func (e botEvents) Recur(tx *sqldb.Tx, botID string, events map[string]bot.RecurringEvent) error {
	declared := make(map[string]messaging.Recurring, len(events))
	for name, v := range events {
		declared[name] = messaging.Recurring(v)
	}
	return e.p.messaging.Recur(tx, botID, declared)
}

func (e botEvents) Failures(q sqldb.Q, botID string) (map[string]bot.Failure, error) {
	found, err := e.p.messaging.RecurringFailures(q, botID)
	out := make(map[string]bot.Failure, len(found))
	for _, f := range found {
		out[f.Name] = bot.Failure{Attempts: f.Attempts, Reason: f.Reason}
	}
	return out, err
}

// integrations is bot.Catalog.
type integrations struct{ p *parts }

func (c integrations) Lookup(q sqldb.Q, integrationID string) (*bot.Integration, error) {
	return c.p.installable(c.p.catalog.Read(q, integrationID))
}

func (c integrations) Installable(tx *sqldb.Tx, workspaceID, integrationID string) (*bot.Integration, error) {
	return c.p.installable(c.p.catalog.Installable(tx, workspaceID, integrationID))
}

func (p *parts) installable(d *catalog.Integration, err error) (*bot.Integration, error) {
	if d == nil {
		return nil, err
	}
	channels := make(map[string]bool, len(d.Channels))
	for name := range d.Channels {
		channels[name] = true
	}
	return &bot.Integration{
		ID: d.ID, Name: d.Name, Version: d.Version, Title: d.Title, Description: d.Description, IconURL: d.IconURL,
		Outside: d.Outside(), Told: d.Told(), Public: d.Public, Visibility: d.Visibility, VerificationStatus: d.VerificationStatus, LifecycleStatus: d.LifecycleStatus,
		Channels: channels, Check: p.check(d), Signals: signalled(d),
	}, nil
}

// owned is workspace.Integrations.
type owned struct{ p *parts }

func (o owned) Owns(q sqldb.Q, workspaceID, integrationID string) (bool, error) {
	return o.p.catalog.Owns(q, workspaceID, integrationID)
}

func (o owned) Family(q sqldb.Q, integrationID string) (workspaceID, family string, err error) {
	return o.p.catalog.FamilyOf(q, integrationID)
}

// homes is workspace.Bots.
type homes struct{ p *parts }

func (h homes) Home(q sqldb.Q, botID string) (string, error) { return h.p.bot.Home(q, botID) }

// installedIn is catalog.Installations.
type installedIn struct{ p *parts }

func (i installedIn) InstalledIn(q sqldb.Q, integrationID string) ([]string, error) {
	return i.p.bot.InstalledIn(q, integrationID)
}

// doors is chatapi.Installations.
type doors struct{ p *parts }

func (d doors) ByWebhook(ctx context.Context, webhookID string) (*chatapi.Installation, error) {
	in, b, err := d.p.bot.ByWebhook(ctx, webhookID)
	if in == nil || err != nil {
		return nil, err
	}
	key, _ := in.Configuration.Member("encryptionKey").Text() // "" where there is none
	return &chatapi.Installation{Installation: in.Installation, BotID: b.ID, WorkspaceID: b.WorkspaceID, EncryptionKey: key}, nil
}

// signals is chat as the engine below it sees it. The engine is made first.
type signals struct{ p *parts }

func (s signals) Head(ctx context.Context, topic string) (int64, error) {
	return chatapi.Log{Service: s.p.chat}.Head(ctx, topic)
}

func (s signals) Read(ctx context.Context, topic string, after int64, limit int) ([]realtime.Signal, int64, error) {
	return chatapi.Log{Service: s.p.chat}.Read(ctx, topic, after, limit)
}

func (s signals) Since(ctx context.Context, topic string, t time.Time) (int64, error) {
	return chatapi.Log{Service: s.p.chat}.Since(ctx, topic, t)
}

// rules is messaging.Directory. What a bot declares is worked out once for each
// of its definitions.
type rules struct {
	directory
	mu   sync.RWMutex
	made map[string]declared // by bot
}

type declared struct {
	from     *bot.Definition
	versions []*catalog.Integration      // of its installations, nil where one was deleted
	by       map[string]*messaging.Rules // installation, "" = the bot itself
}

// maxRules bounds the memory; when it is reached all are forgotten.
const maxRules = 5_000

func newRules(p *parts) *rules { return &rules{directory: directory{p}, made: map[string]declared{}} }

func (r *rules) Rules(ctx context.Context, botID, installationID string) (*messaging.Rules, error) {
	d, err := r.p.bot.Definition(ctx, botID)
	if err != nil || d == nil {
		return &messaging.Rules{}, err
	}
	r.mu.RLock()
	made := r.made[botID]
	r.mu.RUnlock()
	if current, err := r.current(ctx, made, d); err != nil || current {
		return made.rules(installationID), err
	}
	if made, err = r.declare(ctx, d); err != nil {
		return nil, err
	}
	r.mu.Lock()
	if len(r.made) >= maxRules {
		clear(r.made)
	}
	r.made[botID] = made
	r.mu.Unlock()
	return made.rules(installationID), nil
}

func (m declared) rules(installationID string) *messaging.Rules {
	if found := m.by[installationID]; found != nil {
		return found
	}
	return &messaging.Rules{}
}

// current reports whether neither the bot nor what is installed in it has
// changed. A version that was deleted never comes back.
func (r *rules) current(ctx context.Context, m declared, d *bot.Definition) (bool, error) {
	if m.from != d {
		return false, nil
	}
	for _, was := range m.versions {
		if was == nil {
			continue
		}
		if now, err := r.p.catalog.Lookup(ctx, was.ID); err != nil || now != was {
			return false, err
		}
	}
	return true, nil
}

func (r *rules) declare(ctx context.Context, d *bot.Definition) (declared, error) {
	out := declared{from: d, by: map[string]*messaging.Rules{"": {Tags: d.EntityTags, States: statesOf(d), Events: d.Events, Subscriptions: d.Subscriptions}}}
	for _, in := range d.Installations {
		v, err := r.p.catalog.Lookup(ctx, in.IntegrationID)
		if err != nil {
			return declared{}, err
		}
		out.versions = append(out.versions, v)
		if v != nil { // a version that was deleted declares nothing
			out.by[in.ID] = rulesOf(v)
		}
	}
	return out, nil
}

func statesOf(d *bot.Definition) map[string]messaging.StateRule {
	out := make(map[string]messaging.StateRule, len(d.States))
	for name, s := range d.States {
		out[name] = messaging.StateRule{Type: s.Type, Expiry: s.Expiry, Check: s.Check}
	}
	return out
}

func rulesOf(v *catalog.Integration) *messaging.Rules {
	out := &messaging.Rules{Tags: v.Tags(), States: map[string]messaging.StateRule{}, Channels: map[string]bool{}, Events: map[string]bool{}, Operations: v.ExtraOperations}
	for name, s := range v.States {
		out.States[name] = messaging.StateRule{Type: s.Type}
	}
	for name := range v.Channels {
		out.Channels[name] = true
	}
	for name := range v.Events {
		out.Events[name] = true
	}
	return out
}

// Endpoints are called bot:ID, inst:ID for an installation and reg:ID where it
// is registered.
const botEndpoint = "bot:"

func endpointOf(botID string) string { return botEndpoint + botID }

// defaultLimit is how long a bot may take. Bots under development answer after
// up to 115 seconds.
const defaultLimit = 130 * time.Second

// invoker is delivery.Invoker: it knows where each bot and each installation lives.
type invoker struct {
	p        *parts
	client   endpoint.Client
	builtins map[string]endpoint.Endpoint // bots, by name
	brought  map[string]brought           // integrations, by name
}

func newInvoker(p *parts, client endpoint.Client) *invoker {
	return &invoker{p, client, map[string]endpoint.Endpoint{echobot.Name: echobot.New(p.echo())}, p.broughtAlong(client)}
}

// Limit implements delivery.Invoker.
func (i *invoker) Limit(ctx context.Context, endpointID string) time.Duration {
	kind, id, _ := strings.Cut(endpointID, ":")
	if kind+":" != botEndpoint {
		return i.installationLimit(ctx, id)
	}
	d, err := i.p.bot.Definition(ctx, id)
	if err != nil || d == nil || d.MaxExecutionTime == 0 {
		return defaultLimit
	}
	return d.MaxExecutionTime
}

// Invoke implements delivery.Invoker.
func (i *invoker) Invoke(ctx context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error) {
	kind, id, _ := strings.Cut(endpointID, ":")
	if kind+":" != botEndpoint {
		return i.installation(ctx, id, op)
	}
	d, err := i.p.bot.Definition(ctx, id)
	if err != nil {
		// Where the bot lives is not known now: nothing has been tried.
		return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Unreachable, Err: err}
	}
	if d == nil {
		return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Final, Err: errors.New("the bot was deleted")}
	}
	if op.Signer, err = i.p.secrets.Signer(ctx, d.ID); err != nil {
		return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Unreachable, Err: err}
	}
	op.Header = botHeader(d, op)
	return i.place(d).Invoke(ctx, op)
}

func botHeader(d *bot.Definition, op endpoint.Operation) http.Header {
	h := endpoint.BotCall{
		BotID: d.ID, BotUserID: d.ID, Operation: op.Name, Type: op.Type, EventID: op.Subject, Tags: d.Tags,
		ConfigurationID: d.Configuration.ID, Configuration: d.Configuration.Payload,
		CreatedAt: int64(d.Configuration.CreatedAt), UpdatedAt: int64(d.Configuration.UpdatedAt),
	}.Header()
	for name, values := range op.Header {
		h[name] = values
	}
	return h
}

// place is where a bot lives.
func (i *invoker) place(d *bot.Definition) endpoint.Endpoint {
	switch {
	case d.Builtin != "":
		if e, ok := i.builtins[d.Builtin]; ok {
			return e
		}
		return nowhere("this version of Parley has no built-in bot " + d.Builtin)
	case d.URL != "":
		return endpoint.NewHTTP(d.URL, i.client)
	}
	return nowhere("the bot has no url yet; updateBot sets one")
}

// nowhere is the place of a bot that has none: its events wait for one.
type nowhere string

func (n nowhere) Invoke(context.Context, endpoint.Operation) (endpoint.Answer, error) {
	return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Unreachable, Err: errors.New(string(n))}
}
