package catalog

import (
	"context"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/page"
)

// The integrations of a workspace. They come with an operation that creates
// them; until then every workspace has none, and look-ups say so.
func (s *Service) integrationOps() []api.Op {
	return []api.Op{
		api.Handle("listIntegrations", "GET /v1/admin/integrations", auth.Workspace, s.listIntegrations,
			api.Doc("Lists the integrations of the workspace."), api.Faults(fault.InvalidQuery)),
		api.Handle("getIntegration", "GET /v1/admin/integrations/{id}", auth.Workspace, s.getIntegration,
			api.Doc("Shows an integration of the workspace by the id of its version."), api.Faults(fault.ResourceNotFound)),
		api.Handle("getIntegrationByName", "GET /v1/admin/integrations/{name}/{version}", auth.Workspace, s.getIntegrationByName,
			api.Doc("Shows an integration of the workspace by name and version; the version may be a range or latest."), api.Faults(fault.ResourceNotFound)),
	}
}

type ownQuery struct {
	integrationQuery
	Visibility string `query:"visibility" enum:"public,private"`
	Dev        *bool  `query:"dev"`
}

type ownList struct {
	Integrations []ownListed `json:"integrations"`
	Meta         page.Meta   `json:"meta"`
}

// ownListed is an integration in the list of its workspace.
type ownListed struct {
	ID                 string     `json:"id"`
	Name               string     `json:"name"`
	Version            string     `json:"version"`
	CreatedAt          api.Time   `json:"createdAt"`
	UpdatedAt          api.Time   `json:"updatedAt"`
	Title              string     `json:"title"`
	Description        string     `json:"description"`
	IconURL            string     `json:"iconUrl"`
	Public             bool       `json:"public"`
	Visibility         string     `json:"visibility"`
	VerificationStatus string     `json:"verificationStatus"`
	LifecycleStatus    string     `json:"lifecycleStatus"`
	MatchedOn          *matchedOn `json:"matchedOn,omitempty"`
	OwnerWorkspace     *owner     `json:"ownerWorkspace,omitempty"`
}

func (s *Service) listIntegrations(ctx context.Context, in ownQuery) (ownList, error) {
	if _, err := s.filter(ctx, in.integrationQuery); err != nil {
		return ownList{}, err
	}
	_, err := in.cut(nil)
	return ownList{}, err
}

type integrationResult struct {
	Integration *Integration `json:"integration"`
}

func (s *Service) getIntegration(_ context.Context, in integrationRef) (integrationResult, error) {
	return integrationResult{}, missingID(in.ID)
}

func (s *Service) getIntegrationByName(_ context.Context, in versionRef) (integrationResult, error) {
	return integrationResult{}, missingVersion(in.Name, in.Version)
}
