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

// maxKeys is the number of keys an integration may have. The list of them is
// not paged.
const maxKeys = 100

// The keys of integrations. A key belongs to one version and reaches the bots
// that have any version of the same integration installed.
func (s *Service) iakOps() []api.Op {
	return []api.Op{
		api.Handle("listIntegrationApiKeys", "GET /v1/admin/integrations/iaks", auth.Workspace, s.listIntegrationAPIKeys,
			api.Doc("Lists the keys of a version of an integration, the newest first."), api.Faults(fault.ReferenceNotFound)),
		api.Handle("createIntegrationApiKey", "POST /v1/admin/integrations/iaks", auth.Workspace, s.createIntegrationAPIKey,
			api.Doc("Makes a key with which an integration calls Parley. Its value is shown this one time."), api.Faults(fault.ReferenceNotFound, fault.LimitExceeded)),
		api.Handle("deleteIntegrationApiKey", "DELETE /v1/admin/integrations/iaks/{id}", auth.Workspace, s.deleteIntegrationAPIKey,
			api.Doc("Revokes the key of an integration at once."), api.Faults(fault.ResourceNotFound)),
	}
}

type iakInput struct {
	IntegrationID string `json:"integrationId" format:"id" doc:"Id of a version of an integration of the workspace."`
	Note          string `json:"note,omitempty" max:"1000" doc:"What the key is for."`
}

// ownIntegration refuses integrations of other workspaces and such that are not.
func (s *Service) ownIntegration(q sqldb.Q, workspaceID, integrationID string) error {
	ok, err := s.Integrations.Owns(q, workspaceID, integrationID)
	if err == nil && !ok {
		err = fault.ReferenceNotFound.New("integrationId: integration %.60q doesn't exist", integrationID)
	}
	return err
}

func (s *Service) createIntegrationAPIKey(ctx context.Context, in iakInput) (newToken, error) {
	p := auth.From(ctx)
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (newToken, error) {
		maker, err := s.maker(tx, p)
		if err != nil {
			return newToken{}, err
		}
		if err := s.ownIntegration(tx, p.WorkspaceID, in.IntegrationID); err != nil {
			return newToken{}, err
		}
		n, err := sqldb.Scalar[int64](tx, "SELECT COUNT(*) FROM tokens WHERE integration_id = $1", in.IntegrationID)
		if err == nil && n >= maxKeys {
			err = fault.LimitExceeded.New("The integration has %d keys, which is the limit; delete one that is no longer used", n)
		}
		if err != nil {
			return newToken{}, err
		}
		t, text, err := s.insertToken(tx, Token{Kind: auth.IAK, IntegrationID: in.IntegrationID, Note: in.Note, ExpiresAt: maker.ExpiresAt})
		if err != nil {
			return newToken{}, err
		}
		return newToken{t.ID, t.CreatedAt, t.Note, string(text)}, nil
	})
}

type iakQuery struct {
	IntegrationID string `query:"integrationId,required" format:"id" doc:"Id of a version of an integration of the workspace."`
}

type iakList struct {
	Keys []*Token `json:"iaks"`
}

func (s *Service) listIntegrationAPIKeys(ctx context.Context, in iakQuery) (iakList, error) {
	q := s.DB.Reader(ctx)
	if err := s.ownIntegration(q, auth.From(ctx).WorkspaceID, in.IntegrationID); err != nil {
		return iakList{}, err
	}
	list, err := sqldb.Select[Token](q, "tokens", "WHERE integration_id = $1 AND kind = $2 ORDER BY created_at DESC, id DESC", in.IntegrationID, auth.IAK)
	return iakList{list}, err
}

type iakRef struct {
	ID string `path:"id" doc:"Id of a key of an integration."`
}

func (s *Service) deleteIntegrationAPIKey(ctx context.Context, in iakRef) (struct{}, error) {
	p := auth.From(ctx)
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (struct{}, error) {
		missing := fault.ResourceNotFound.New("Token %.60q doesn't exist", in.ID)
		t, err := sqldb.One[Token](tx, "tokens", "WHERE id = $1 AND kind = $2", in.ID, auth.IAK)
		if errors.Is(err, sqldb.ErrNoRow) {
			return struct{}{}, missing
		}
		if err != nil {
			return struct{}{}, err
		}
		ok, err := s.Integrations.Owns(tx, p.WorkspaceID, t.IntegrationID)
		if err != nil {
			return struct{}{}, err
		}
		if !ok {
			return struct{}{}, missing
		}
		return struct{}{}, s.deleteToken(tx, in.ID, "WHERE id = $1", in.ID)
	})
}
