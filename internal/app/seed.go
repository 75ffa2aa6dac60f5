package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bot"
	"parley/internal/builtin/echobot"
	"parley/internal/builtin/messagingapi"
	"parley/internal/sqldb"
	"parley/internal/workspace"
)

// seed makes what a development server starts with: an account, a workspace, a
// token, the echo bot with a chat and the Messaging API. Each is looked for first, so that a
// start that broke off is continued and the next one changes nothing.
func seed(ctx context.Context, a *App) error {
	p := a.parts
	kept, err := ReadCredentials(a.cfg.Data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	o, err := p.owner(ctx)
	if err != nil {
		return err
	}
	c := Credentials{WorkspaceID: o.workspaceID}
	if c.Token, err = p.devToken(ctx, o, kept.Token); err != nil {
		return err
	}
	if c.BotID, err = p.echoBot(ctx, o, kept.BotID); err != nil {
		return err
	}
	if c == kept {
		return nil
	}
	return writeCredentials(a.cfg.Data, c)
}

// owner is the first person of a server, and a workspace of theirs.
type owner struct{ accountID, workspaceID string }

// The first person of a server that nobody has told another name.
var nobody = workspace.NewWorkspace{Email: "owner@parley.local", DisplayName: "Owner", Name: "Parley"}

// owner finds the first account with its first workspace, or makes both.
func (p *parts) owner(ctx context.Context) (owner, error) {
	var o owner
	rows, err := p.db.Reader(ctx).Query(`SELECT account_id, workspace_id FROM members ORDER BY created_at, account_id, workspace_id LIMIT 1`)
	if err != nil {
		return o, err
	}
	found := rows.Next()
	if found {
		err = rows.Scan(&o.accountID, &o.workspaceID)
	}
	if err = errors.Join(err, rows.Err(), rows.Close()); found || err != nil {
		return o, err
	}
	w, err := p.workspace.Create(ctx, nobody)
	if err != nil {
		return o, err
	}
	return owner{w.OwnerID, w.ID}, nil
}

// devToken keeps a token that still works, or makes one.
func (p *parts) devToken(ctx context.Context, o owner, kept string) (string, error) {
	known, err := p.workspace.Token(ctx, auth.HashToken(kept))
	if err != nil || known != nil {
		return kept, err
	}
	_, text, err := p.workspace.CreateToken(ctx, workspace.Token{Kind: auth.PAT, AccountID: o.accountID, Note: "parley dev"})
	return string(text), err
}

// seeded are the integrations that the echo bot has. The Messaging API is left
// without a response endpoint: where that is, only its user knows.
var seeded = []string{"chat", messagingapi.Name}

// echoBot finds the echo bot, or makes it, and sees to it that it can be talked to.
func (p *parts) echoBot(ctx context.Context, o owner, kept string) (string, error) {
	botID, err := sqldb.Scalar[string](p.db.Reader(ctx),
		`SELECT id FROM bots WHERE workspace_id = $1 AND builtin = $2 ORDER BY CASE WHEN id = $3 THEN 0 ELSE 1 END, created_at, id LIMIT 1`, o.workspaceID, echobot.Name, kept)
	if errors.Is(err, sqldb.ErrNoRow) {
		botID, err = p.bot.Create(ctx, bot.NewBot{WorkspaceID: o.workspaceID, AccountID: o.accountID, Name: "Echo", Builtin: echobot.Name})
	}
	if err != nil {
		return "", err
	}
	b, err := p.bot.Bot(ctx, botID)
	if err != nil || b == nil {
		return "", errors.Join(err, fmt.Errorf("the echo bot %s cannot be read", botID))
	}
	for _, name := range seeded {
		// An alias that conversations know from another integration stays with that.
		settled := slices.ContainsFunc(b.Installations, func(in auth.Installation) bool {
			return in.IntegrationName == name && !in.Removed || in.IntegrationName != name && in.Alias == name
		})
		if settled {
			continue
		}
		if _, err := p.bot.Install(ctx, botID, name, p.catalog.Builtin(name, "latest").ID, nil); err != nil {
			return "", err
		}
	}
	return botID, nil
}

// PassingNote is the note of a token that a command needs for itself.
const PassingNote = "a command of this machine"

// passingLife bounds such a token, should the command not live to revoke it.
const passingLife = 5 * time.Minute

// passingToken makes a token of the owner for a command, and what revokes it.
func (p *parts) passingToken(ctx context.Context) (text string, revoke func(context.Context) error, err error) {
	o, err := p.owner(ctx)
	if err != nil {
		return "", nil, err
	}
	t, secret, err := p.workspace.CreateToken(ctx, workspace.Token{
		Kind: auth.PAT, AccountID: o.accountID, Note: PassingNote, ExpiresAt: api.At(p.now().Add(passingLife)),
	})
	if err != nil {
		return "", nil, err
	}
	return string(secret), func(ctx context.Context) error { return p.workspace.RevokeToken(ctx, t.ID) }, nil
}
