package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"parley/internal/auth"
	"parley/internal/sqldb"
)

// credential is a row of tokens.
type credential struct {
	ID, Kind, AccountID, WorkspaceID, BotID, IntegrationID string
	ExpiresAt                                              int64
}

func (c *credential) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &c.ID}, {Name: "kind", Field: &c.Kind}, {Name: "account_id", Field: &c.AccountID}, {Name: "workspace_id", Field: &c.WorkspaceID},
		{Name: "bot_id", Field: &c.BotID}, {Name: "integration_id", Field: &c.IntegrationID}, {Name: "expires_at", Field: &c.ExpiresAt},
	}
}

// token says whose a token is, from the database: the server keeps its hash.
func (e *exam) token(ctx context.Context) {
	const check = "token"
	const do = "make one with parley token create"
	if e.Token == "" {
		return
	}
	if !strings.HasPrefix(e.Token, "bp_") {
		e.fail(check, do, "the text is no token of Parley, which begin with bp_pat_, bp_bak_ or bp_iak_")
		return
	}
	if !e.tables {
		e.fail(check, "", "it is unknown: there is no database to look into")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	c, err := sqldb.One[credential](e.db.Reader(ctx), "tokens", "WHERE hash = $1", auth.HashToken(e.Token))
	if errors.Is(err, sqldb.ErrNoRow) {
		e.fail(check, do, "it is unknown here or revoked")
		return
	}
	if err != nil {
		e.fail(check, "", "it cannot be looked up: %v", err)
		return
	}
	whose, err := e.whose(ctx, c)
	if err != nil {
		e.fail(check, do, "%s belongs to nobody any more: %v", c.ID, err)
		return
	}
	switch left := time.Until(time.UnixMilli(c.ExpiresAt)); {
	case c.ExpiresAt == 0:
		e.ok(check, "%s is valid, %s; it does not expire", c.ID, whose)
	case left <= 0:
		e.fail(check, do, "%s has expired %s ago, %s", c.ID, age(left), whose)
	default:
		e.ok(check, "%s is valid, %s; it expires in %s", c.ID, whose, age(left))
	}
}

// whose says who shows the token and what it reaches.
func (e *exam) whose(ctx context.Context, c *credential) (string, error) {
	q := e.db.Reader(ctx)
	switch c.Kind {
	case auth.BAK:
		name, err := sqldb.Scalar[string](q, "SELECT name FROM bots WHERE id = $1", c.BotID)
		return fmt.Sprintf("of bot %s (%s)", c.BotID, name), err
	case auth.IAK:
		return "of integration " + c.IntegrationID, nil
	}
	email, err := sqldb.Scalar[string](q, "SELECT email FROM accounts WHERE id = $1", c.AccountID)
	if err != nil {
		return "", err
	}
	rows, err := q.Query("SELECT w.id, w.name FROM members m JOIN workspaces w ON w.id = m.workspace_id WHERE m.account_id = $1 AND ($2 = '' OR w.id = $2) ORDER BY w.created_at, w.id", c.AccountID, c.WorkspaceID)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var reached []string
	for rows.Next() {
		var id, name string
		if err := rows.Scan(&id, &name); err != nil {
			return "", err
		}
		reached = append(reached, fmt.Sprintf("%s (%s)", id, name))
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	const most = 5
	where := "no workspace"
	switch {
	case len(reached) > most:
		where = fmt.Sprintf("%d workspaces: %s, …", len(reached), strings.Join(reached[:most], ", "))
	case len(reached) > 0:
		where = "workspace " + strings.Join(reached, ", ")
	}
	return fmt.Sprintf("of account %s (%s), and reaches %s", c.AccountID, email, where), nil
}
