// Package workspace knows who there is: accounts, the workspaces they belong
// to and the tokens that speak for accounts, bots and integrations. What a
// workspace owns lives in other packages.
package workspace

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/cache"
	"parley/internal/signing"
	"parley/internal/sqldb"
)

// Integrations knows whose an integration is; catalog does.
type Integrations interface {
	// Owns reports whether a version belongs to a workspace. In a transaction it
	// is not deleted before that ends.
	Owns(q sqldb.Q, workspaceID, integrationID string) (bool, error)
	// Family tells whose a version is, and what all versions of its integration
	// share; workspaceID is "" where there is none. In a transaction the version is
	// not deleted before that ends.
	Family(q sqldb.Q, integrationID string) (workspaceID, family string, err error)
}

// Bots knows whose a bot is; bot does.
type Bots interface {
	// Home is the workspace of a bot, "" where there is none. In a transaction the
	// bot is not deleted before that ends.
	Home(q sqldb.Q, botID string) (workspaceID string, err error)
}

// Config are the parts a Service needs.
type Config struct {
	DB  *sqldb.DB
	Bus bus.Bus
	// Secrets, Integrations and Bots may be nil where no operations are served.
	Secrets      *signing.Store
	Integrations Integrations
	Bots         Bots
	Now          func() time.Time
	Log          *slog.Logger
	// MaxAge bounds how long a token or a membership is believed without
	// looking again. 0 is right when no other process writes the database; where
	// one does, a second bounds what a lost message of the bus can do.
	MaxAge time.Duration
}

// Service carries out the operations on accounts, workspaces and tokens.
type Service struct {
	Config
	tokens  *cache.Cache[auth.Token]
	members *cache.Cache[member]
}

// cached is the number of tokens, and of memberships, that are kept in memory.
const cached = 10_000

// New checks c and returns a ready Service. Close it when no request runs any more.
func New(c Config) (*Service, error) {
	switch {
	case c.DB == nil:
		return nil, errors.New("workspace: Config.DB is missing")
	case c.Bus == nil:
		return nil, errors.New("workspace: Config.Bus is missing")
	case c.Now == nil:
		return nil, errors.New("workspace: Config.Now is missing")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{Config: c}
	s.tokens = cache.New(cache.Config[auth.Token]{Load: s.readToken, Max: cached, MaxAge: c.MaxAge, Now: c.Now, Bus: c.Bus, Topic: "cache.token"})
	s.members = cache.New(cache.Config[member]{Load: s.readMember, Max: cached, MaxAge: c.MaxAge, Now: c.Now, Bus: c.Bus, Topic: "cache.member"})
	return s, nil
}

// Close ends what the Service listens to.
func (s *Service) Close() {
	s.tokens.Close()
	s.members.Close()
}

// Ops are the operations on accounts, workspaces and tokens.
func (s *Service) Ops() []api.Op {
	return slices.Concat(s.accountOps(), s.tokenOps(), s.iakOps(), s.signingOps(), s.workspaceOps())
}

func (s *Service) now() api.Time { return api.At(s.Now()) }

// Workspace owns bots and integrations.
//
// Compat: there is nothing to pay for, so plan, billing and spending are what a
// workspace without limits has in the cloud.
type Workspace struct {
	ID             string               `json:"id"`
	Name           string               `json:"name"`
	OwnerID        string               `json:"ownerId" doc:"Account that created the workspace."`
	CreatedAt      api.Time             `json:"createdAt"`
	UpdatedAt      api.Time             `json:"updatedAt"`
	BotCount       int64                `json:"botCount" doc:"Number of bots in the workspace."`
	BillingVersion string               `json:"billingVersion" enum:"v1,v2,v3,v4"`
	Plan           string               `json:"plan" enum:"community,team,enterprise,plus"`
	Blocked        bool                 `json:"blocked"`
	SpendingLimit  float64              `json:"spendingLimit"`
	Handle         string               `json:"handle,omitempty" doc:"Name the workspace publishes under, absent if it has none."`
	ActiveTrialID  api.Nullable[string] `json:"activeTrialId"`
}

// Columns binds the columns of table workspaces.
func (w *Workspace) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &w.ID},
		{Name: "name", Field: &w.Name},
		{Name: "handle", Field: &w.Handle},
		{Name: "owner_id", Field: &w.OwnerID},
		{Name: "created_at", Field: &w.CreatedAt},
		{Name: "updated_at", Field: &w.UpdatedAt},
	}
}

// member is a row of table members: an account in a workspace.
type member struct {
	WorkspaceID, AccountID, Role string
	CreatedAt                    api.Time
}

// Columns binds the columns of table members.
func (m *member) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "workspace_id", Field: &m.WorkspaceID},
		{Name: "account_id", Field: &m.AccountID},
		{Name: "role", Field: &m.Role},
		{Name: "created_at", Field: &m.CreatedAt},
	}
}

// roleOwner is the role of whoever created the workspace.
const roleOwner = "owner"

// Member reports whether an account belongs to a workspace. It implements a part of auth.Directory.
func (s *Service) Member(ctx context.Context, accountID, workspaceID string) (bool, error) {
	m, err := s.members.Get(ctx, memberKey(accountID, workspaceID))
	return m != nil, err
}
