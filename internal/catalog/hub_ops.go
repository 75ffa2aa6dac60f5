package catalog

import (
	"context"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/page"
)

func (s *Service) hubOps() []api.Op {
	return []api.Op{
		api.Handle("listPublicIntegrations", "GET /v1/admin/hub/integrations", auth.Account, s.listPublicIntegrations,
			api.Doc("Lists the integrations that every bot may install: the newest version of each, or all that fit the version asked for."), api.Faults(fault.InvalidQuery, fault.ReferenceNotFound)),
		api.Handle("getPublicIntegrationById", "GET /v1/admin/hub/integrations/{id}", auth.Account, s.getPublicIntegrationByID,
			api.Doc("Shows a public integration by the id of its version."), api.Faults(fault.ResourceNotFound)),
		api.Handle("getPublicIntegration", "GET /v1/admin/hub/integrations/{name}/{version}", auth.Account, s.getPublicIntegration,
			api.Doc("Shows a public integration by name and version; the version may be a range or latest."), api.Faults(fault.ResourceNotFound)),
	}
}

type integrationRef struct {
	ID string `path:"id" doc:"Id of a version of an integration."`
}

type versionRef struct {
	Name    string `path:"name" doc:"Name of an integration."`
	Version string `path:"version" doc:"A version, a range of versions, or latest."`
}

// PublicIntegration is an Integration as the hub shows it.
type PublicIntegration struct {
	*Integration
	OwnerWorkspace owner `json:"ownerWorkspace"`
	Meta           usage `json:"meta"`
}

// owner is the workspace an integration comes from.
type owner struct {
	ID     string               `json:"id"`
	Handle api.Nullable[string] `json:"handle" doc:"Null for what Parley brings along."`
	Name   string               `json:"name"`
}

// usage is how much the hub has seen of an integration. A server of one's own does not count.
type usage struct {
	Installs int64 `json:"installs"`
	Views    int64 `json:"views"`
}

// brought is the owner of the integrations that Parley brings along.
var brought = owner{ID: "wkspace_00000000000000000000000000", Name: "Parley"}

type publicIntegration struct {
	Integration PublicIntegration `json:"integration"`
}

func (s *Service) getPublicIntegrationByID(ctx context.Context, in integrationRef) (publicIntegration, error) {
	d, err := s.Lookup(ctx, in.ID)
	if err != nil {
		return publicIntegration{}, err
	}
	if d == nil || d.Visibility == private {
		return publicIntegration{}, missingID(in.ID)
	}
	return s.published(ctx, d)
}

func (s *Service) getPublicIntegration(ctx context.Context, in versionRef) (publicIntegration, error) {
	if d := s.Builtin(in.Name, in.Version); d != nil {
		return s.published(ctx, d)
	}
	d, err := s.find(ctx, "WHERE name = $1 AND visibility <> 'private'", in, in.Name)
	if err != nil {
		return publicIntegration{}, err
	}
	return s.published(ctx, d)
}

// published is an integration as strangers see it: where it runs is not for them.
func (s *Service) published(ctx context.Context, d *Integration) (publicIntegration, error) {
	from, err := s.owner(ctx, d.WorkspaceID)
	shown := *d
	shown.URL = ""
	return publicIntegration{PublicIntegration{Integration: &shown, OwnerWorkspace: from}}, err
}

// owner is the workspace that publishes, "" for what Parley brings along.
func (s *Service) owner(ctx context.Context, workspaceID string) (owner, error) {
	if workspaceID == "" {
		return brought, nil
	}
	name, handle, err := s.Workspaces.Named(s.DB.Reader(ctx), workspaceID)
	out := owner{ID: workspaceID, Name: name}
	if handle != "" {
		out.Handle = api.Some(handle)
	}
	return out, err
}

// integrationQuery is what both lists of integrations may be asked for.
type integrationQuery struct {
	page.Query
	Limit              *int64 `query:"limit" min:"1" max:"100" doc:"Number of integrations in a page, 20 if not given."`
	Name               string `query:"name"`
	Version            string `query:"version" doc:"A version, a range of versions, or latest."`
	InterfaceID        string `query:"interfaceId" format:"id" doc:"Only integrations that implement this interface."`
	InterfaceName      string `query:"interfaceName" doc:"Only integrations that implement an interface of this name."`
	InstalledByBotID   string `query:"installedByBotId" format:"id" doc:"Only integrations that this bot has installed."`
	VerificationStatus string `query:"verificationStatus" enum:"unapproved,pending,approved,rejected"`
	Search             string `query:"search" max:"200" doc:"Only integrations whose name, title, description or actions contain this."`
	SortBy             string `query:"sortBy" enum:"popularity,name,createdAt,updatedAt,installCount"`
	Direction          string `query:"direction" enum:"asc,desc"`
}

type integrationList struct {
	Integrations []listed  `json:"integrations"`
	Meta         page.Meta `json:"meta"`
}

// listed is an integration in a list of the hub.
type listed struct {
	ownListed
	OwnerWorkspace owner `json:"ownerWorkspace"`
	Meta           usage `json:"meta"`
}

// Compat: the published document leaves open what a list without a version
// shows; here it is the newest version of each.
func (s *Service) listPublicIntegrations(ctx context.Context, in integrationQuery) (integrationList, error) {
	rows, err := s.shared(ctx)
	if err != nil {
		return integrationList{}, err
	}
	if in.Version == "" {
		in.Version = "latest"
	}
	rows, meta, err := s.list(ctx, rows, in)
	if err != nil {
		return integrationList{}, err
	}
	out := integrationList{Meta: meta}
	for _, r := range rows {
		from, err := s.owner(ctx, r.workspaceID)
		if err != nil {
			return integrationList{}, err
		}
		out.Integrations = append(out.Integrations, listed{ownListed: r.ownListed, OwnerWorkspace: from})
	}
	return out, nil
}

// shared are the versions that the hub lists.
func (s *Service) shared(ctx context.Context) ([]*entry, error) {
	rows, err := selectEntries(s.DB.Reader(ctx), "WHERE visibility = 'public'")
	for _, d := range s.brought {
		rows = append(rows, d.entry())
	}
	return rows, err
}
