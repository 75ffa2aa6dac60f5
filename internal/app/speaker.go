package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/builtin/echobot"
	"parley/internal/fault"
	"parley/internal/messaging"
	"parley/internal/once"
	"parley/internal/sqldb"
)

// speaker speaks for built-in bots. What it does under a key happens once: the
// key is kept in the transaction that does it.
type speaker struct{ p *parts }

var _ echobot.Sender = speaker{}

// CreateMessage implements echobot.Sender.
func (s speaker) CreateMessage(ctx context.Context, key string, m echobot.Message) error {
	c, err := s.p.messaging.CallerFor(ctx, m.BotID, "")
	if err != nil {
		return err
	}
	in := messaging.NewMessage{ConversationID: m.ConversationID, UserID: m.BotID, Type: m.Type, Payload: api.Object(m.Payload)}
	if err := s.p.messaging.Admit(ctx, c, in); err != nil {
		return err
	}
	return s.write(ctx, m.BotID, key, m.Payload, func(tx *sqldb.Tx) error {
		_, err := s.p.messaging.AddMessage(tx, c, in)
		return err
	})
}

// CallAction implements echobot.Sender.
func (s speaker) CallAction(ctx context.Context, key string, call echobot.Call) error {
	b, err := s.p.bot.Bot(ctx, call.BotID)
	if err != nil {
		return err
	}
	alias, action, _ := strings.Cut(call.Type, ":")
	in := installedAs(b, alias)
	if in == nil {
		return fault.ReferenceNotFound.New("Integration %q isn't installed in bot %q", alias, call.BotID)
	}
	done, err := s.p.messaging.Actions.Act(ctx, call.BotID, in, action, api.Object(call.Input))
	if err != nil || done.Finish == nil {
		return err
	}
	return s.write(ctx, call.BotID, key, call.Input, func(tx *sqldb.Tx) error {
		_, err := done.Finish(tx)
		return err
	})
}

func installedAs(b *auth.Bot, alias string) *auth.Installation {
	if b == nil {
		return nil
	}
	for i := range b.Installations {
		if in := &b.Installations[i]; in.Alias == alias && in.Enabled && !in.Removed {
			return in
		}
	}
	return nil
}

// write runs fn once for a key. A full queue is worth another try, as it is for
// clients.
func (s speaker) write(ctx context.Context, botID, key string, what []byte, fn func(tx *sqldb.Tx) error) error {
	sum := sha256.Sum256(what)
	ctx = once.With(ctx, &once.Key{
		Scope: auth.Principal{Kind: auth.System, BotID: botID}.Scope(), Text: key, Request: hex.EncodeToString(sum[:]), Now: s.p.now(),
	})
	_, err := once.Write(ctx, s.p.db, func(tx *sqldb.Tx) (struct{}, error) { return struct{}{}, fn(tx) })
	if _, replayed := errors.AsType[*once.Replay](err); replayed {
		return nil
	}
	if errors.Is(err, sqldb.ErrBusy) {
		return fault.RateLimited.Wrap(err, "Too many writes are waiting")
	}
	return err
}
