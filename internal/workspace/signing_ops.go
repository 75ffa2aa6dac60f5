package workspace

import (
	"context"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/signing"
	"parley/internal/sqldb"
)

const (
	keepFor    = 24 * time.Hour
	maxKeepFor = 30 * 24 * time.Hour
)

// The secrets that sign what bots and integrations are sent. An integration has
// one for all its versions, named by any of them.
func (s *Service) signingOps() []api.Op {
	return []api.Op{
		api.Handle("getSigningSecrets", "GET /v1/parley/signing-secrets", auth.Operator, s.getSigningSecrets,
			api.Doc("Shows the secrets that sign what a bot or an integration is sent, the newest first: two while one replaces the other."), api.Faults(fault.ReferenceNotFound)),
		api.Handle("rotateSigningSecret", "POST /v1/parley/signing-secrets/rotate", auth.Operator, s.rotateSigningSecret,
			api.Doc("Makes a new secret for a bot or an integration. The one before signs along for a while."), api.Faults(fault.ReferenceNotFound)),
	}
}

type signedQuery struct {
	BotID         string `query:"botId" format:"id" doc:"Id of a bot; a bot's key needs none."`
	IntegrationID string `query:"integrationId" format:"id" doc:"Id of a version of an integration."`
}

type rotateInput struct {
	BotID         string `json:"botId,omitempty" format:"id" doc:"Id of a bot."`
	IntegrationID string `json:"integrationId,omitempty" format:"id" doc:"Id of a version of an integration."`
	KeepFor       *int64 `json:"keepFor,omitzero" min:"0" max:"2592000" doc:"Seconds for which the secret before signs along, a day unless given; 0 replaces it at once."`
}

type signingSecret struct {
	Secret    string   `json:"secret"`
	CreatedAt api.Time `json:"createdAt"`
	RetiresAt api.Time `json:"retiresAt,omitzero" doc:"When it ceases to sign; absent from the newest."`
}

type signingSecrets struct {
	Secrets []signingSecret `json:"signingSecrets"`
}

func show(list []signing.Secret) signingSecrets {
	out := signingSecrets{Secrets: make([]signingSecret, len(list))}
	for i, one := range list {
		out.Secrets[i] = signingSecret{Secret: string(one.Text), CreatedAt: api.At(one.CreatedAt)}
		if !one.RetiresAt.IsZero() {
			out.Secrets[i].RetiresAt = api.At(one.RetiresAt)
		}
	}
	return out
}

func (s *Service) getSigningSecrets(ctx context.Context, in signedQuery) (signingSecrets, error) {
	q := s.DB.Reader(ctx)
	owner, err := s.signed(ctx, q, in.BotID, in.IntegrationID)
	if err != nil {
		return signingSecrets{}, err
	}
	list, err := s.Secrets.List(q, owner)
	return show(list), err
}

func (s *Service) rotateSigningSecret(ctx context.Context, in rotateInput) (signingSecrets, error) {
	if auth.From(ctx).Kind != auth.Person {
		return signingSecrets{}, fault.Forbidden.New("This operation needs a personal access token (bp_pat_…): a bot's key shows the secrets of its bot and does not replace them")
	}
	keep := keepFor
	if in.KeepFor != nil {
		keep = time.Duration(*in.KeepFor) * time.Second
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (signingSecrets, error) {
		owner, err := s.signed(ctx, tx, in.BotID, in.IntegrationID)
		if err != nil {
			return signingSecrets{}, err
		}
		list, err := s.Secrets.Rotate(tx, owner, keep)
		return show(list), err
	})
}

// signed finds what a request is about, as the owner of signing secrets. What
// does not exist and what belongs to others is told apart by nobody.
func (s *Service) signed(ctx context.Context, q sqldb.Q, botID, integrationID string) (owner string, err error) {
	p := auth.From(ctx)
	switch {
	case botID != "" && integrationID != "":
		return "", fault.InvalidPayload.New("botId and integrationId exclude each other; send one of them")
	case integrationID != "":
		return s.signedIntegration(ctx, q, p, integrationID)
	case botID != "" && botID != p.BotID:
		return botID, s.signedBot(ctx, q, p, botID)
	case p.BotID == "":
		return "", fault.InvalidPayload.New("botId or integrationId is required; send the id of the bot or the integration that is meant")
	}
	return p.BotID, nil // the gate has found it in reach
}

func (s *Service) signedIntegration(ctx context.Context, q sqldb.Q, p auth.Principal, integrationID string) (owner string, err error) {
	workspaceID, family, err := s.Integrations.Family(q, integrationID)
	if err != nil {
		return "", err
	}
	return family, s.operates(ctx, p, workspaceID, fault.ReferenceNotFound.New("integrationId: integration %.60q doesn't exist", integrationID))
}

func (s *Service) signedBot(ctx context.Context, q sqldb.Q, p auth.Principal, botID string) error {
	workspaceID, err := s.Bots.Home(q, botID)
	if err != nil {
		return err
	}
	missing := fault.ReferenceNotFound.New("botId: bot %.60q doesn't exist", botID)
	if p.BotID != "" { // the request acts for another one
		return missing
	}
	return s.operates(ctx, p, workspaceID, missing)
}

// operates returns missing unless a person may look after what a workspace owns.
func (s *Service) operates(ctx context.Context, p auth.Principal, workspaceID string, missing error) error {
	if p.Kind != auth.Person || workspaceID == "" || p.WorkspaceID != "" && p.WorkspaceID != workspaceID {
		return missing
	}
	ok, err := s.Member(ctx, p.AccountID, workspaceID)
	if err == nil && !ok {
		err = missing
	}
	return err
}
