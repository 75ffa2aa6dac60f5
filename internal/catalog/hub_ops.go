package catalog

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

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

func (s *Service) getPublicIntegrationByID(_ context.Context, in integrationRef) (publicIntegration, error) {
	d, ok := s.Lookup(in.ID)
	if !ok {
		return publicIntegration{}, missingID(in.ID)
	}
	return public(d), nil
}

func (s *Service) getPublicIntegration(_ context.Context, in versionRef) (publicIntegration, error) {
	d := s.Find(in.Name, in.Version)
	if d == nil {
		return publicIntegration{}, missingVersion(in.Name, in.Version)
	}
	return public(d), nil
}

func public(d *Integration) publicIntegration {
	return publicIntegration{PublicIntegration{Integration: d, OwnerWorkspace: brought}}
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
	OwnerWorkspace     owner      `json:"ownerWorkspace"`
	Meta               usage      `json:"meta"`
	MatchedOn          *matchedOn `json:"matchedOn,omitempty"`
}

// matchedOn tells where a search was found.
type matchedOn struct {
	Name        bool     `json:"name,omitzero"`
	Title       bool     `json:"title,omitzero"`
	Description bool     `json:"description,omitzero"`
	Actions     []string `json:"actions,omitempty"`
}

func (m *matchedOn) any() bool { return m.Name || m.Title || m.Description || len(m.Actions) > 0 }

func (s *Service) listPublicIntegrations(ctx context.Context, in integrationQuery) (integrationList, error) {
	fits, err := s.filter(ctx, in)
	if err != nil {
		return integrationList{}, err
	}
	var found []listed
	for _, d := range s.versions(in.Version) {
		if !fits(d) {
			continue
		}
		l := list(d)
		if in.Search != "" {
			if l.MatchedOn = search(d, in.Search); !l.MatchedOn.any() {
				continue
			}
		}
		found = append(found, l)
	}
	arrange(found, in.SortBy, in.Direction)
	return in.cut(found)
}

// versions are the candidates of a list: all that fit a version, or the newest of each name.
//
// Compat: the published document leaves open what a list without a version shows.
func (s *Service) versions(version string) []*Integration {
	if version == "" || version == "latest" {
		newest := slices.Clone(s.all) // by name, newest first
		return slices.CompactFunc(newest, func(a, b *Integration) bool { return a.Name == b.Name })
	}
	fits := matcher(version)
	var out []*Integration
	for _, d := range s.all {
		if fits(d) {
			out = append(out, d)
		}
	}
	return out
}

func (s *Service) filter(ctx context.Context, in integrationQuery) (func(*Integration) bool, error) {
	if in.InterfaceID != "" {
		return nil, fault.ReferenceNotFound.New("interfaceId: interface %q doesn't exist", in.InterfaceID)
	}
	installed, err := s.installed(ctx, in.InstalledByBotID)
	if err != nil {
		return nil, err
	}
	return func(d *Integration) bool {
		return (in.Name == "" || d.Name == in.Name) &&
			(in.VerificationStatus == "" || d.VerificationStatus == in.VerificationStatus) &&
			(in.InterfaceName == "" || d.implements(in.InterfaceName)) &&
			(installed == nil || installed[d.Name])
	}, nil
}

func (d *Integration) implements(name string) bool {
	for _, i := range d.Interfaces {
		if i.Name == name {
			return true
		}
	}
	return false
}

// installed names the integrations of a bot that the caller can reach, nil if none was asked for.
func (s *Service) installed(ctx context.Context, botID string) (map[string]bool, error) {
	if botID == "" {
		return nil, nil
	}
	missing := fault.ReferenceNotFound.New("installedByBotId: bot %q doesn't exist", botID)
	bot, err := s.Directory.Bot(ctx, botID)
	if err != nil {
		return nil, err
	}
	p := auth.From(ctx)
	if bot == nil || p.WorkspaceID != "" && p.WorkspaceID != bot.WorkspaceID {
		return nil, missing
	}
	ok, err := s.Directory.Member(ctx, p.AccountID, bot.WorkspaceID)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, missing
	}
	names := map[string]bool{}
	for _, in := range bot.Installations {
		if !in.Removed {
			names[in.IntegrationName] = true
		}
	}
	return names, nil
}

func list(d *Integration) listed {
	return listed{
		ID: d.ID, Name: d.Name, Version: d.Version, CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt,
		Title: d.Title, Description: d.Description, IconURL: d.IconURL, Public: d.Public, Visibility: d.Visibility,
		VerificationStatus: d.VerificationStatus, LifecycleStatus: d.LifecycleStatus, OwnerWorkspace: brought,
	}
}

func search(d *Integration, text string) *matchedOn {
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), strings.ToLower(text)) }
	m := &matchedOn{Name: has(d.Name), Title: has(d.Title), Description: has(d.Description)}
	for _, name := range slices.Sorted(maps.Keys(d.Actions)) {
		if has(name) {
			m.Actions = append(m.Actions, name)
		}
	}
	return m
}

// arrange sorts by what was asked for; rows that are equal in it stay by name, the newest version first.
func arrange(rows []listed, by, direction string) {
	if direction == "desc" {
		slices.Reverse(rows)
	}
	slices.SortStableFunc(rows, func(a, b listed) int {
		if direction == "desc" {
			a, b = b, a
		}
		switch by {
		case "name":
			return strings.Compare(a.Name, b.Name)
		case "createdAt":
			return cmp.Compare(a.CreatedAt, b.CreatedAt)
		case "updatedAt":
			return cmp.Compare(a.UpdatedAt, b.UpdatedAt)
		}
		return 0
	})
}

// cut takes a page. The definitions never change while the server runs, so the
// id of the last row is a token that stays true.
func (in *integrationQuery) cut(rows []listed) (integrationList, error) {
	limit := page.Size
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	if in.NextToken != "" {
		at := slices.IndexFunc(rows, func(l listed) bool { return l.ID == in.NextToken })
		if at < 0 {
			return integrationList{}, fault.InvalidQuery.New("nextToken is not one that this list gave; send meta.nextToken of the page before with the same filters")
		}
		rows = rows[at+1:]
	}
	out := integrationList{Integrations: rows}
	if len(rows) > limit {
		out.Integrations = rows[:limit]
		out.Meta.NextToken = rows[limit-1].ID
	}
	return out, nil
}
