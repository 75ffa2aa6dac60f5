package workspace

import (
	"context"
	"errors"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/sqldb"
)

// Account is a person.
//
// Compat: whoever runs the server vouches for the address, so it counts as verified.
type Account struct {
	ID            string   `json:"id"`
	Email         string   `json:"email"`
	DisplayName   string   `json:"displayName,omitempty"`
	EmailVerified bool     `json:"emailVerified"`
	CreatedAt     api.Time `json:"createdAt"`
}

// Columns binds the columns of table accounts.
func (a *Account) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &a.ID},
		{Name: "email", Field: &a.Email},
		{Name: "display_name", Field: &a.DisplayName},
		{Name: "created_at", Field: &a.CreatedAt},
	}
}

func accountByEmail(q sqldb.Q, email string) (*Account, error) {
	return sqldb.One[Account](q, "accounts", "WHERE email = $1 ORDER BY created_at, id", email)
}

func (s *Service) accountOps() []api.Op {
	return []api.Op{
		api.Handle("getAccount", "GET /v1/admin/account/me", auth.Account, s.getAccount,
			api.Doc("Shows the account that the token speaks for.")),
	}
}

type accountResult struct {
	Account *Account `json:"account"`
}

func (s *Service) getAccount(ctx context.Context, _ struct{}) (accountResult, error) {
	a, err := sqldb.One[Account](s.DB.Reader(ctx), "accounts", "WHERE id = $1", auth.From(ctx).AccountID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return accountResult{}, fault.Unauthorized.New("The account of this token no longer exists; send another token")
	}
	a.EmailVerified = true
	return accountResult{a}, err
}
