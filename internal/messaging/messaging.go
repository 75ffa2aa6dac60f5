// Package messaging is the heart of Parley: users, conversations, participants,
// messages, events, states and actions of a bot, and the signals that tell
// listeners about them. What commits together lives together here; delivery and
// realtime carry what it decides.
package messaging

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/cache"
	"parley/internal/delivery"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/sqldb"
	"parley/internal/tag"
	"parley/internal/timer"
)

// MaxPayload is the size limit of a message's, event's or state's payload.
const MaxPayload = 128 << 10

// Directory answers what messaging needs to know of bots and installations.
// Its values are shared and never change.
type Directory interface {
	// Bot returns a bot with all installations it ever had, nil if unknown.
	Bot(ctx context.Context, botID string) (*auth.Bot, error)
	// Rules returns what the bot (installationID "") or an installation declares.
	Rules(ctx context.Context, botID, installationID string) (*Rules, error)
	// Member reports whether an account belongs to a workspace.
	Member(ctx context.Context, accountID, workspaceID string) (bool, error)
}

// Rules are the declarations of a bot or an integration. An empty part accepts
// everything: a definition restricts only what it mentions.
type Rules struct {
	Tags     map[string]map[string]int // kind → key → characters a value may have
	States   map[string]StateRule      // by name
	Channels map[string]bool
	Events   map[string]bool
	// Subscriptions are the events of installations that the bot wants to hear
	// of, as it sees them; none = all.
	Subscriptions map[string]bool
	// Operations are those that the installation asks to be told of besides.
	Operations map[string]bool
}

// limit returns the tag.Limit of a kind of entity.
func (r *Rules) limit(kind string) tag.Limit {
	declared := r.Tags[kind]
	if len(declared) == 0 {
		return tag.Any
	}
	return func(key string) (int, bool) {
		n, ok := declared[key]
		return n, ok
	}
}

// Actions performs the actions of bots and of installations.
type Actions interface {
	// Act performs an action of an installation, of the bot itself if in is nil.
	Act(ctx context.Context, botID string, in *auth.Installation, action string, input api.Object) (Acted, error)
}

// Acted is an action that was performed, or that is ready to be.
type Acted struct {
	Output api.Object
	Cached bool // Output was given to an earlier call
	// Finish, unless nil, performs the action in the transaction that also keeps
	// the answer for a repeated call.
	Finish func(tx *sqldb.Tx) (api.Object, error)
}

// Config are the parts a Service needs.
type Config struct {
	DB  *sqldb.DB
	Bus bus.Bus // nil = this is the only server
	// MaxAge is how old a cached row may get; 0 = as old as it likes, for a
	// database that only this server writes to.
	MaxAge    time.Duration
	Directory Directory
	Delivery  *delivery.Engine
	Timers    *timer.Engine // nil = a new one that nobody runs
	Actions   Actions
	Calls     *delivery.Pool // of operations whose answer is waited for; nil = none are made
	// Sketch shows the request that a call of an endpoint would make. Its error
	// says why none would be made, for whoever reads the log of deliveries.
	Sketch func(ctx context.Context, endpointID string, op endpoint.Operation) (*http.Request, error)
	// Listeners is told of every signal after the commit that made it. It must
	// not block. May be nil.
	Listeners func(*Signal)
	// Words puts a signal into the words in which an installation is told of it,
	// nil for one of a kind it is not told of. c is the installation. May be nil if
	// deliveries tell no installation of signals.
	Words func(q sqldb.Q, c Caller, g *Signal) ([]byte, error)
	// Gone takes part in the transaction that notes that the place which an
	// installation tells of things wants to be told no more; asOf is when the
	// installation was looked up, in milliseconds. May be nil.
	Gone func(tx *sqldb.Tx, botID, installationID string, asOf int64) error
	// Ended is told after the commit that a group of streams has lost its
	// reason: "conv:ID", "user:ID" or "conv:ID:user:ID". May be nil.
	Ended func(group string)
	// DeliveryLog is how long is known what was delivered, and how; 0 = 7 days.
	DeliveryLog time.Duration
	Now         func() time.Time
	Log         *slog.Logger
}

// Service carries out the operations on messaging.
type Service struct {
	Config
	known         known
	fresh         fresh
	streams       streams
	users         *cache.Cache[User]
	conversations *cache.Cache[Conversation]
	wake          chan struct{} // the sweeper's
	waiting       waiting
}

// New checks c and returns a ready Service. Close it when no request runs any more.
func New(c Config) (*Service, error) {
	if c.Listeners == nil {
		c.Listeners = func(*Signal) {}
	}
	if c.Ended == nil {
		c.Ended = func(string) {}
	}
	if c.Words == nil {
		c.Words = func(sqldb.Q, Caller, *Signal) ([]byte, error) { return nil, nil }
	}
	if c.Gone == nil {
		c.Gone = func(*sqldb.Tx, string, string, int64) error { return nil }
	}
	if c.DeliveryLog == 0 {
		c.DeliveryLog = 7 * 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Bus == nil {
		c.Bus = bus.NewLocal()
	}
	if c.Timers == nil {
		c.Timers = timer.New(timer.Config{DB: c.DB, Now: c.Now, Log: c.Log})
	}
	s := &Service{Config: c, wake: make(chan struct{}, 1), waiting: newWaiting()}
	s.openCaches()
	s.handleWorkflowTimers()
	s.handleScheduleTimers()
	s.handleStateTimers()
	s.handleRecurringTimers()
	return s, nil
}

// Ops are the operations of the Runtime API on messaging.
func (s *Service) Ops() []api.Op {
	var ops []api.Op
	for _, table := range [][]api.Op{
		s.conversationOps(), s.participantOps(), s.eventOps(), s.messageOps(), s.userOps(), s.stateOps(), s.actionOps(), s.tagOps(), s.importOps(), s.analyticsOps(), s.workflowOps(), s.taskOps(), s.deliveryOps(),
	} {
		ops = append(ops, table...)
	}
	return ops
}

func (s *Service) now() int64 { return s.Now().UnixMilli() }

// Caller is who an operation acts as: a bot, or one of its installations.
type Caller struct {
	Bot          *auth.Bot
	Installation *auth.Installation // nil = the bot itself
	Rules        *Rules             // what the caller declares
	// Subscriptions are those of the bot; see Rules.
	Subscriptions map[string]bool
}

// Caller finds out who ctx acts as.
func (s *Service) Caller(ctx context.Context) (Caller, error) {
	p := auth.From(ctx)
	return s.CallerFor(ctx, p.BotID, p.InstallationID)
}

// CallerFor is Caller for a bot and, unless installationID is "", one of its installations.
func (s *Service) CallerFor(ctx context.Context, botID, installationID string) (Caller, error) {
	bot, err := s.Directory.Bot(ctx, botID)
	if err != nil {
		return Caller{}, err
	}
	if bot == nil {
		return Caller{}, fault.Forbidden.New("the bot no longer exists")
	}
	c := Caller{Bot: bot}
	if installationID != "" {
		if c.Installation = installation(bot, installationID); c.Installation == nil {
			return Caller{}, fault.Forbidden.New("the integration is no longer installed in the bot")
		}
	}
	if c.Rules, err = s.Directory.Rules(ctx, botID, installationID); err != nil {
		return c, err
	}
	ofBot, err := s.Directory.Rules(ctx, botID, "")
	if err != nil {
		return c, err
	}
	c.Subscriptions = ofBot.Subscriptions
	return c, nil
}

func installation(b *auth.Bot, id string) *auth.Installation {
	for i := range b.Installations {
		if b.Installations[i].ID == id {
			return &b.Installations[i]
		}
	}
	return nil
}

// Owner is the owner of what the caller writes: "" for the bot, else the installation.
func (c Caller) Owner() string {
	if c.Installation == nil {
		return ""
	}
	return c.Installation.ID
}

// sees reports whether something of an installation is visible to the caller.
func (c Caller) sees(installationID string) bool {
	return c.Installation == nil || c.Installation.ID == installationID
}

// names implements tag.Names for the caller's bot.
type names struct{ *auth.Bot }

func (n names) Alias(id string) string {
	if in := installation(n.Bot, id); in != nil {
		return in.Alias
	}
	return ""
}

func (n names) Owner(alias string) string {
	for i := range n.Installations {
		if n.Installations[i].Alias == alias {
			return n.Installations[i].ID
		}
	}
	for i := range n.Installations {
		if n.Installations[i].IntegrationName == alias && !n.Installations[i].Removed {
			return n.Installations[i].ID
		}
	}
	return ""
}

func (c Caller) names() names { return names{c.Bot} }

// view names tags as the caller sees them.
func (c Caller) view(s tag.Set) map[string]string { return s.View(c.Owner(), c.names()) }

// changes checks the tags the caller wants to write on an entity.
func (c Caller) changes(kind string, in map[string]string, have tag.Set) (map[string]string, error) {
	return tag.Changes(c.Owner(), in, have, c.Rules.limit(kind), c.names())
}

// missing is the one answer for an id in a path that the caller cannot reach.
func (c Caller) missing(what, id string) error {
	return fault.ResourceNotFound.New("%s %q doesn't exist for bot %q", what, id, c.Bot.ID)
}

// dangling is the answer for such an id in a body or query.
func (c Caller) dangling(what, id string) error {
	return fault.ReferenceNotFound.New("%s %q doesn't exist for bot %q", what, id, c.Bot.ID)
}

// checkPayload refuses payloads over the limit.
func checkPayload(member string, payload api.Object) error {
	if len(payload) > MaxPayload {
		return fault.PayloadTooLarge.New("%s has %d bytes; at most %d are allowed", member, len(payload), MaxPayload)
	}
	return nil
}
