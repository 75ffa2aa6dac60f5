package messaging

import (
	"context"
	"strings"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/once"
	"parley/internal/sqldb"
)

func (s *Service) actionOps() []api.Op {
	return []api.Op{
		api.Handle("callAction", "POST /v1/chat/actions", auth.Runtime, s.callAction, api.Doc("Performs an action of an integration and returns its output.")),
	}
}

type callActionInput struct {
	Type  string     `json:"type" max:"200"`
	Input api.Object `json:"input"`
}

type callActionResult struct {
	Output api.Object `json:"output"`
	Meta   cachedMeta `json:"meta"`
}

func (s *Service) callAction(ctx context.Context, in callActionInput) (callActionResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return callActionResult{}, err
	}
	if c.Installation != nil {
		return callActionResult{}, fault.Forbidden.New("an integration cannot call actions; they are for the bot")
	}
	to, action, err := c.actionOf(in.Type)
	if err != nil {
		return callActionResult{}, err
	}
	start := s.Now()
	done, err := s.Actions.Act(ctx, c.Bot.ID, to, action, in.Input)
	out := callActionResult{done.Output, cachedMeta{done.Cached}}
	if err == nil && (done.Finish != nil || once.From(ctx) != nil) {
		out, err = once.Write(ctx, s.DB, func(tx *sqldb.Tx) (callActionResult, error) {
			if done.Finish == nil {
				return out, nil
			}
			output, err := done.Finish(tx)
			return callActionResult{Output: output}, err
		})
	}
	s.logAction(c, to, action, start, done.Cached, err)
	return out, err
}

// actionOf finds whose action a type means: alias:action is an installation's,
// anything else the bot's own.
func (c Caller) actionOf(typ string) (to *auth.Installation, action string, err error) {
	alias, action, qualified := strings.Cut(typ, ":")
	if !qualified {
		return nil, typ, nil
	}
	to = installation(c.Bot, c.names().Owner(alias))
	switch {
	case to == nil || to.Removed:
		return nil, "", fault.ReferenceNotFound.New("Integration %q isn't installed in bot %q; installed are: %s", alias, c.Bot.ID, c.aliases())
	case !to.Enabled:
		return nil, "", fault.Forbidden.New("the integration %q is disabled in bot %q", alias, c.Bot.ID)
	}
	return to, action, nil
}

// logAction leaves a line about a call for whoever looks for it later.
func (s *Service) logAction(c Caller, to *auth.Installation, action string, start time.Time, cached bool, err error) {
	outcome, reason := "ok", ""
	if err != nil {
		f := fault.From(err)
		outcome, reason = f.Kind.Type, clip(f.Message)
	}
	installationID := ""
	if to != nil {
		installationID = to.ID
	}
	took, logID := s.Now().Sub(start).Milliseconds(), id.At("action", start.UnixMilli())
	s.DB.WriteSoon(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(`INSERT INTO action_log (id, bot_id, installation_id, action, outcome, reason, cached, started_at, duration_ms)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
			logID, c.Bot.ID, installationID, clip(action), outcome, reason, cached, start.UnixMilli(), took)
		return err
	}, nil)
}

// clip keeps a text that came from outside short.
func clip(s string) string {
	const most = 2000
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
