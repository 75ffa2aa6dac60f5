package messagingapi

import (
	"context"
	"errors"
	"net/http"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/messaging"
	"parley/internal/sqldb"
)

// Name is what the integration is called.
const Name = "messaging"

// Prefix is the path of a door.
const Prefix = "/{webhookId}"

// Config are the parts a Service needs.
type Config struct {
	DB            *sqldb.DB
	Messaging     *messaging.Service
	Installations Installations
	// Enter admits a request at the door of an installation; auth.Gate does.
	Enter func(r *http.Request, botID string, in *auth.Installation) (auth.Principal, error)
}

// Installation is an installation of `messaging` with its configuration.
type Installation struct {
	auth.Installation
	BotID         string
	Configuration Configuration
}

// Installations finds the installation behind a door, nil if there is none.
type Installations interface {
	ByWebhook(ctx context.Context, webhookID string) (*Installation, error)
}

// Service carries out what is asked at the doors.
type Service struct{ Config }

// New checks c and returns a ready Service.
func New(c Config) (*Service, error) {
	if c.DB == nil || c.Messaging == nil || c.Installations == nil || c.Enter == nil {
		return nil, errors.New("messagingapi: Config needs DB, Messaging, Installations and Enter")
	}
	return &Service{c}, nil
}

// Ops are the operations at a door; their paths are below Prefix.
func (s *Service) Ops() []api.Op {
	return []api.Op{
		api.HandleWait("createMessage", "POST /", auth.Runtime, s.createMessage, s.addReplies, api.Untyped, api.Open, api.Thorough, api.Tag("messages"),
			api.Doc("Brings a message to the bot, with its user and conversation; a messageId that the conversation has already is the first message again.")),
	}
}
