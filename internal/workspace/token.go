package workspace

import (
	"context"
	"errors"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
)

// maxTokens is the number of personal access tokens an account may have. The
// list of them is not paged.
const maxTokens = 500

// Token is a credential as its owner sees it. Its text is shown once, by
// whatever created it, and kept nowhere.
type Token struct {
	ID        string   `json:"id"`
	CreatedAt api.Time `json:"createdAt"`
	Note      string   `json:"note"`

	Kind          string   `json:"-"` // auth.PAT, auth.BAK or auth.IAK
	AccountID     string   `json:"-"`
	WorkspaceID   string   `json:"-"` // a personal access token with one reaches only that workspace
	BotID         string   `json:"-"`
	IntegrationID string   `json:"-"`
	ExpiresAt     api.Time `json:"-"` // 0 = never

	hash string
}

// Columns binds the columns of table tokens.
func (t *Token) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &t.ID},
		{Name: "kind", Field: &t.Kind},
		{Name: "hash", Field: &t.hash},
		{Name: "account_id", Field: &t.AccountID},
		{Name: "workspace_id", Field: &t.WorkspaceID},
		{Name: "bot_id", Field: &t.BotID},
		{Name: "integration_id", Field: &t.IntegrationID},
		{Name: "note", Field: &t.Note},
		{Name: "created_at", Field: &t.CreatedAt},
		{Name: "expires_at", Field: &t.ExpiresAt},
	}
}

// Token finds a token by the hash of its text; nil, nil means unknown or
// revoked. It implements auth.Tokens.
func (s *Service) Token(ctx context.Context, hash string) (*auth.Token, error) {
	return s.tokens.Get(ctx, hash)
}

// readToken loads a token for the cache.
func (s *Service) readToken(ctx context.Context, hash string) (*auth.Token, error) {
	t, err := sqldb.One[Token](s.DB.Reader(ctx), "tokens", "WHERE hash = $1", hash)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &auth.Token{
		ID: t.ID, Kind: t.Kind, AccountID: t.AccountID, WorkspaceID: t.WorkspaceID,
		BotID: t.BotID, IntegrationID: t.IntegrationID, ExpiresAt: int64(t.ExpiresAt),
	}, nil
}

// CreateToken makes a token: its Kind, whom it speaks for, its Note and
// ExpiresAt are taken from t, the rest is filled in. The text is the one time
// that the credential can be seen.
func (s *Service) CreateToken(ctx context.Context, t Token) (created *Token, text auth.Secret, err error) {
	if !t.complete() {
		return nil, "", fault.InvalidPayload.New("A %s token belongs to exactly one account (pat), bot (bak) or integration (iak)", t.Kind)
	}
	err = s.DB.Write(ctx, func(tx *sqldb.Tx) error {
		c, x, err := s.insertToken(tx, t)
		created, text = c, x
		return err
	})
	if err != nil {
		return nil, "", err // the closure may still be running
	}
	return created, text, nil
}

func (t *Token) complete() bool {
	account, bot, integration := t.AccountID != "", t.BotID != "", t.IntegrationID != ""
	switch t.Kind {
	case auth.PAT:
		return account && !bot && !integration
	case auth.BAK:
		return bot && !account && !integration
	case auth.IAK:
		return integration && !account && !bot
	}
	return false
}

func (s *Service) insertToken(tx *sqldb.Tx, t Token) (*Token, auth.Secret, error) {
	text, hash := auth.NewToken(t.Kind)
	t.ID, t.hash, t.CreatedAt = id.New(t.Kind), hash, s.now()
	_, err := sqldb.Insert(tx, "tokens", &t)
	return &t, auth.Secret(text), err
}

// ListTokens lists the tokens of every kind, the newest first.
func (s *Service) ListTokens(ctx context.Context) ([]*Token, error) {
	return sqldb.Select[Token](s.DB.Reader(ctx), "tokens", "ORDER BY created_at DESC, id DESC")
}

// RevokeToken deletes a token. Once it returns, the token is refused on this
// node, and on the others as soon as the bus tells them.
func (s *Service) RevokeToken(ctx context.Context, tokenID string) error {
	return s.DB.Write(ctx, func(tx *sqldb.Tx) error {
		return s.deleteToken(tx, tokenID, "WHERE id = $1", tokenID)
	})
}

// ForgetBot deletes the keys of a bot in the transaction that deletes the bot.
func (s *Service) ForgetBot(tx *sqldb.Tx, botID string) error {
	return s.forget(tx, "WHERE bot_id = $1", botID)
}

// ForgetIntegration deletes the keys of a version of an integration in the
// transaction that deletes the version.
func (s *Service) ForgetIntegration(tx *sqldb.Tx, integrationID string) error {
	return s.forget(tx, "WHERE integration_id = $1", integrationID)
}

func (s *Service) forget(tx *sqldb.Tx, tail, ownerID string) error {
	keys, err := sqldb.Select[Token](tx, "tokens", tail, ownerID)
	if err != nil {
		return err
	}
	for _, t := range keys {
		if err := s.deleteToken(tx, t.ID, "WHERE id = $1", t.ID); err != nil {
			return err
		}
	}
	return nil
}

// deleteToken deletes the token that the tail finds.
func (s *Service) deleteToken(tx *sqldb.Tx, tokenID, tail string, args ...any) error {
	t, err := sqldb.One[Token](tx, "tokens", tail, args...)
	if err == nil {
		err = sqldb.Delete(tx, "tokens", "WHERE id = $1", t.ID)
	}
	if errors.Is(err, sqldb.ErrNoRow) {
		return fault.ResourceNotFound.New("Token %.60q doesn't exist", tokenID)
	}
	if err != nil {
		return err
	}
	tx.AfterCommit(func() { s.tokens.Drop(t.hash) })
	return nil
}
