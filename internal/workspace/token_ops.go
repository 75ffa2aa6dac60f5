package workspace

import (
	"context"
	"errors"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/sqldb"
)

func (s *Service) tokenOps() []api.Op {
	return []api.Op{
		api.Handle("createPersonalAccessToken", "POST /v1/admin/account/pats", auth.Account, s.createPersonalAccessToken,
			api.Doc("Makes a personal access token. Its value is shown this one time."), api.Faults(fault.LimitExceeded)),
		api.Handle("deletePersonalAccessToken", "DELETE /v1/admin/account/pats/{id}", auth.Account, s.deletePersonalAccessToken,
			api.Doc("Revokes a personal access token at once."), api.Faults(fault.ResourceNotFound)),
		api.Handle("listPersonalAccessTokens", "GET /v1/admin/account/pats", auth.Account, s.listPersonalAccessTokens,
			api.Doc("Lists the personal access tokens of the account, the newest first.")),
	}
}

type tokenInput struct {
	Note string `json:"note" max:"1000" doc:"What the token is for."`
}

type newToken struct {
	ID        string   `json:"id"`
	CreatedAt api.Time `json:"createdAt"`
	Note      string   `json:"note"`
	Value     string   `json:"value" doc:"The token. Keep it: it is not shown again."`
}

type newTokenResult struct {
	Token newToken `json:"pat"`
}

func (s *Service) createPersonalAccessToken(ctx context.Context, in tokenInput) (newTokenResult, error) {
	p := auth.From(ctx)
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (newTokenResult, error) {
		maker, err := s.maker(tx, p)
		if err != nil {
			return newTokenResult{}, err
		}
		n, err := sqldb.Scalar[int64](tx, "SELECT COUNT(*) FROM tokens WHERE account_id = $1 AND kind = $2", p.AccountID, auth.PAT)
		if err == nil && n >= maxTokens {
			err = fault.LimitExceeded.New("The account has %d personal access tokens, which is the limit; delete one that is no longer used", n)
		}
		if err != nil {
			return newTokenResult{}, err
		}
		// A token never makes one that reaches further or lives longer than itself.
		t, text, err := s.insertToken(tx, Token{
			Kind: auth.PAT, AccountID: p.AccountID, WorkspaceID: maker.WorkspaceID, Note: in.Note, ExpiresAt: maker.ExpiresAt,
		})
		if err != nil {
			return newTokenResult{}, err
		}
		return newTokenResult{newToken{t.ID, t.CreatedAt, t.Note, string(text)}}, nil
	})
}

// maker reads the token that asks for another one.
func (s *Service) maker(tx *sqldb.Tx, p auth.Principal) (*Token, error) {
	t, err := sqldb.One[Token](tx, "tokens", "WHERE id = $1 {for_update}", p.TokenID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, fault.Unauthorized.New("The token was revoked; send another one")
	}
	return t, err
}

type tokenRef struct {
	ID string `path:"id" doc:"Id of a personal access token."`
}

func (s *Service) deletePersonalAccessToken(ctx context.Context, in tokenRef) (struct{}, error) {
	p := auth.From(ctx)
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (struct{}, error) {
		// A token that is bound to a workspace ends its own kind, not the wider ones.
		return struct{}{}, s.deleteToken(tx, in.ID, "WHERE id = $1 AND account_id = $2 AND kind = $3 AND ($4 = '' OR workspace_id = $4)",
			in.ID, p.AccountID, auth.PAT, p.WorkspaceID)
	})
}

type tokenList struct {
	Tokens []*Token `json:"pats"`
}

func (s *Service) listPersonalAccessTokens(ctx context.Context, _ struct{}) (tokenList, error) {
	p := auth.From(ctx)
	list, err := sqldb.Select[Token](s.DB.Reader(ctx), "tokens",
		"WHERE account_id = $1 AND kind = $2 AND ($3 = '' OR workspace_id = $3) ORDER BY created_at DESC, id DESC",
		p.AccountID, auth.PAT, p.WorkspaceID)
	return tokenList{list}, err
}
