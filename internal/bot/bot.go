// Package bot knows bots and what is installed in them: their definitions, where
// they run, their configurations and secrets, and the integrations they have
// under which alias. It answers the requests' question "which bot is this?" from
// memory. It does not run bots.
package bot

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/cache"
	"parley/internal/delivery"
	"parley/internal/patch"
	"parley/internal/signing"
	"parley/internal/sqldb"
	"parley/internal/timer"
)

// Users makes the users of bots; messaging does.
type Users interface {
	// CreateBotUser makes the bot's own user, whose id is the bot's, in the
	// transaction that makes the bot.
	CreateBotUser(tx *sqldb.Tx, botID, name string, at int64) error
}

// Recurring makes the events happen that bots declare to recur; messaging does.
type Recurring interface {
	// Recur makes exactly these events of a bot recur, in the transaction that
	// changes the bot. One that is declared as before goes on undisturbed.
	Recur(tx *sqldb.Tx, botID string, events map[string]RecurringEvent) error
	// Failures tells of the events of a bot that its last tries did not get through.
	Failures(q sqldb.Q, botID string) (map[string]Failure, error)
}

// RecurringEvent is an event that a bot gets at times.
type RecurringEvent struct {
	Cron    string
	Type    string
	Payload api.Object
}

// Failure is what a recurring event has met with.
type Failure struct {
	Attempts int64 // tries in a row that failed
	Reason   string
}

// Catalog finds integrations; catalog does.
type Catalog interface {
	// Lookup finds a version of an integration by its id as q sees it; nil, nil
	// means there is none.
	Lookup(q sqldb.Q, integrationID string) (*Integration, error)
	// Installable finds a version that bots of a workspace may have; nil, nil
	// means there is none. It stays as it is until tx ends.
	Installable(tx *sqldb.Tx, workspaceID, integrationID string) (*Integration, error)
}

// Integration is what this package needs to know of a version of an integration.
type Integration struct {
	ID, Name, Version           string
	Title, Description, IconURL string
	Public                      bool
	Outside                     bool // it runs outside Parley, at a URL
	Told                        bool // deliveries tell it of messages and of its registration; see auth.Installation
	Visibility                  string
	VerificationStatus          string
	LifecycleStatus             string
	Channels                    map[string]bool
	// Check reports what is wrong with a configuration of the given type, "" = the ordinary one.
	Check func(configurationType string, configuration api.Object) error
	// Signals reports whether an installation with this configuration is told of
	// every signal of its conversations; nil = never.
	Signals func(configuration api.Object) bool
}

// Config are the parts a Service needs.
type Config struct {
	DB        *sqldb.DB
	Bus       bus.Bus
	Box       *auth.Box
	Secrets   *signing.Store // of bots; their ids are the owners
	Users     Users
	Catalog   Catalog
	Recurring Recurring
	// PublicURL is where installations are reached from outside, without a slash at the end.
	PublicURL string
	// Enqueue puts the registration of an installation into its lane; the engine
	// takes it from Registrations.
	Enqueue func(tx *sqldb.Tx, l delivery.Lane) (seq int64, err error)
	Timers  *timer.Engine
	// Deleting takes part in the transaction that deletes a bot. May be nil.
	Deleting func(tx *sqldb.Tx, botID string) error
	// Changed is told after every commit that changed a bot. It must not block. May be nil.
	Changed func(botID string)
	// Ended is told after the commit that removed or disabled an installation or
	// changed its configuration: whoever is connected through it has to ask for
	// admission again. It must not block. May be nil.
	Ended func(installationID string)
	Now   func() time.Time
	Log   *slog.Logger
	// MaxAge bounds how long what is kept in memory is believed without looking
	// again. 0 is right when no other process writes the database.
	MaxAge time.Duration
}

// Service carries out the operations on bots.
type Service struct {
	Config
	bots     *cache.Cache[known]
	webhooks *cache.Cache[string] // webhook id → bot id, which never changes
	owners   *cache.Cache[string] // installation → bot id, which never changes either
	noted    patch.Noted
}

const (
	cachedBots     = 5_000
	cachedWebhooks = 20_000
)

// New checks c and returns a ready Service. Close it when no request runs any more.
func New(c Config) (*Service, error) {
	for name, missing := range map[string]bool{
		"DB": c.DB == nil, "Bus": c.Bus == nil, "Box": c.Box == nil, "Secrets": c.Secrets == nil, "Users": c.Users == nil, "Recurring": c.Recurring == nil,
		"Catalog": c.Catalog == nil, "Enqueue": c.Enqueue == nil, "Timers": c.Timers == nil, "PublicURL": c.PublicURL == "", "Now": c.Now == nil,
	} {
		if missing {
			return nil, errors.New("bot: Config." + name + " is missing")
		}
	}
	c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	if c.Deleting == nil {
		c.Deleting = func(*sqldb.Tx, string) error { return nil }
	}
	if c.Changed == nil {
		c.Changed = func(string) {}
	}
	if c.Ended == nil {
		c.Ended = func(string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{Config: c, noted: patch.Noted{Log: c.Log, What: "a bot's definition"}}
	c.Timers.Handle(registerTimer, s.registerAgain)
	s.bots = cache.New(cache.Config[known]{Load: s.readKnown, Max: cachedBots, MaxAge: c.MaxAge, Now: c.Now, Bus: c.Bus, Topic: "cache.bot"})
	s.webhooks = cache.New(cache.Config[string]{Load: s.readWebhook, Max: cachedWebhooks, Bus: c.Bus, Topic: "cache.webhook"})
	s.owners = cache.New(cache.Config[string]{Load: s.readOwner, Max: cachedWebhooks, Bus: c.Bus, Topic: "cache.owner"})
	return s, nil
}

// Close ends what the Service listens to.
func (s *Service) Close() {
	s.bots.Close()
	s.webhooks.Close()
	s.owners.Close()
}

func (s *Service) now() api.Time { return api.At(s.Now()) }

// Bot is a bot as its owner sees it.
type Bot struct {
	ID               string                    `json:"id"`
	CreatedAt        api.Time                  `json:"createdAt"`
	UpdatedAt        api.Time                  `json:"updatedAt"`
	SigningSecret    string                    `json:"signingSecret" doc:"Signs what Parley sends to the bot."`
	Integrations     map[string]installed      `json:"integrations" doc:"What is installed, by alias if x-multiple-integrations is true, else by integration id."`
	Plugins          map[string]api.Object     `json:"plugins"`
	MaxExecutionTime *int64                    `json:"maxExecutionTime,omitempty" doc:"Seconds that one call to the bot may take."`
	User             tags                      `json:"user"`
	Conversation     tags                      `json:"conversation"`
	Message          tags                      `json:"message"`
	States           map[string]state          `json:"states"`
	Configuration    configuration             `json:"configuration"`
	Events           map[string]event          `json:"events"`
	RecurringEvents  map[string]recurringEvent `json:"recurringEvents"`
	Subscriptions    subscriptions             `json:"subscriptions"`
	Actions          map[string]action         `json:"actions"`
	Tags             map[string]string         `json:"tags"`
	Name             string                    `json:"name"`
	Description      string                    `json:"description,omitempty"`
	DeployedAt       api.Time                  `json:"deployedAt,omitzero" doc:"When the bot was last given a place to run at."`
	Dev              bool                      `json:"dev"`
	CreatedBy        string                    `json:"createdBy,omitempty" doc:"Account that created the bot."`
	AlwaysAlive      bool                      `json:"alwaysAlive"`
	Status           string                    `json:"status" enum:"active,deploying,deleting"`
	Medias           []media                   `json:"medias"`
}

type tags struct {
	Tags map[string]label `json:"tags"`
}

type subscriptions struct {
	Events api.Nullable[map[string]struct{}] `json:"events" doc:"Events of integrations that the bot wants; null = all."`
}

type configuration struct {
	Data   api.Object `json:"data"`
	Schema api.Object `json:"schema"`
}

type media struct {
	URL  string `json:"url" max:"2000"`
	Name string `json:"name" max:"200"`
}

// installed is an installation as the owner of the bot sees it.
type installed struct {
	Enabled            bool                 `json:"enabled"`
	Name               string               `json:"name"`
	Version            string               `json:"version"`
	WebhookURL         string               `json:"webhookUrl"`
	WebhookID          string               `json:"webhookId"`
	Identifier         string               `json:"identifier,omitempty"`
	ConfigurationType  api.Nullable[string] `json:"configurationType"`
	Configuration      api.Object           `json:"configuration"`
	Status             string               `json:"status" enum:"registration_pending,registered,registration_failed,unregistration_pending,unregistered,unregistration_failed"`
	StatusReason       api.Nullable[string] `json:"statusReason"`
	DisabledChannels   []string             `json:"disabledChannels"`
	ID                 string               `json:"id" doc:"Id of the installed version of the integration."`
	CreatedAt          api.Time             `json:"createdAt"`
	UpdatedAt          api.Time             `json:"updatedAt"`
	Title              string               `json:"title"`
	Description        string               `json:"description"`
	IconURL            string               `json:"iconUrl"`
	Public             bool                 `json:"public"`
	Visibility         string               `json:"visibility" enum:"public,private,unlisted"`
	VerificationStatus string               `json:"verificationStatus" enum:"unapproved,pending,approved,rejected"`
	LifecycleStatus    string               `json:"lifecycleStatus" enum:"published,deprecated"`
}
