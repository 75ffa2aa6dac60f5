package chatapi

import (
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/messaging"
	"parley/internal/realtime"
	"parley/internal/sqldb"
)

// Prefix is the path of a door: every operation is below it.
const Prefix = "/{webhookId}"

// Config are the parts a Service needs.
type Config struct {
	DB            *sqldb.DB
	Messaging     *messaging.Service
	Installations Installations
	Box           *auth.Box
	Hub           *realtime.Hub
	Now           func() time.Time
	Log           *slog.Logger
}

// Service carries out the operations of the Chat API.
type Service struct {
	Config
	names nameCache
}

// New checks c and returns a ready Service.
func New(c Config) (*Service, error) {
	if c.DB == nil || c.Messaging == nil || c.Installations == nil || c.Box == nil || c.Hub == nil {
		return nil, errors.New("chatapi: Config needs DB, Messaging, Installations, Box and Hub")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Service{Config: c}, nil
}

// Ops are the operations of the Chat API; their paths are below Prefix.
func (s *Service) Ops() []api.Op {
	return slices.Concat(s.conversationOps(), s.participantOps(), s.messageOps(), s.userOps(), s.eventOps())
}

// SigningKey is the key that signs the user keys of an installation: text, as
// official clients take it.
func SigningKey(box *auth.Box, webhookID, encryptionKey string) string {
	if encryptionKey != "" {
		return encryptionKey
	}
	return hex.EncodeToString(box.InstallationKey(webhookID))
}

func (s *Service) signingKey(in *Installation) []byte {
	return []byte(SigningKey(s.Box, in.WebhookID, in.EncryptionKey))
}
