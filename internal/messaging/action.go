package messaging

import (
	"context"
	"strings"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
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
	alias, action, qualified := strings.Cut(in.Type, ":")
	if !qualified {
		return callActionResult{}, fault.InvalidPayload.New("type %q is an action of the bot itself, which callAction does not reach yet in this version of Parley; an integration's action is written alias:action", in.Type)
	}
	to := installation(c.Bot, c.names().Owner(alias))
	switch {
	case to == nil || to.Removed:
		return callActionResult{}, fault.ReferenceNotFound.New("Integration %q isn't installed in bot %q; installed are: %s", alias, c.Bot.ID, c.aliases())
	case !to.Enabled:
		return callActionResult{}, fault.Forbidden.New("the integration %q is disabled in bot %q", alias, c.Bot.ID)
	}
	finish, err := s.Actions.Act(ctx, c.Bot.ID, *to, action, in.Input)
	if err != nil {
		return callActionResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (callActionResult, error) {
		output, err := finish(tx)
		return callActionResult{Output: output}, err
	})
}
