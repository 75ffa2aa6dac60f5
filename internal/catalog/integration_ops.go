package catalog

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/once"
	"parley/internal/page"
	"parley/internal/patch"
	"parley/internal/sqldb"
)

// maxBody is the size limit of a definition with everything in it.
const maxBody = 50 << 20

func (s *Service) integrationOps() []api.Op {
	creating := []*fault.Kind{fault.InvalidIdentifier, fault.InvalidJSONSchema, fault.AlreadyExists, fault.LimitExceeded}
	updating := []*fault.Kind{fault.ResourceNotFound, fault.InvalidIdentifier, fault.InvalidJSONSchema, fault.AlreadyExists, fault.BreakingChanges, fault.ReferenceConstraint, fault.LimitExceeded}
	return []api.Op{
		api.Handle("createIntegration", "POST /v1/admin/integrations", auth.Workspace, s.createIntegration, api.Open, api.MaxBody(maxBody),
			api.Doc("Creates a version of an integration."), api.Faults(creating...)),
		api.Handle("validateIntegrationCreation", "POST /v1/admin/integrations/validate", auth.Workspace, s.validateIntegrationCreation, api.Open, api.MaxBody(maxBody), api.NoReplay,
			api.Doc("Tells whether createIntegration would accept the same request, and creates nothing."), api.Faults(creating...)),
		api.Handle("updateIntegration", "PUT /v1/admin/integrations/{id}", auth.Workspace, s.updateIntegration, api.Open, api.MaxBody(maxBody),
			api.Doc("Changes a version of an integration: what is absent stays, null deletes an entry."), api.Faults(updating...)),
		api.Handle("validateIntegrationUpdate", "PUT /v1/admin/integrations/{id}/validate", auth.Workspace, s.validateIntegrationUpdate, api.Open, api.MaxBody(maxBody), api.NoReplay,
			api.Doc("Tells whether updateIntegration would accept the same request, and changes nothing."), api.Faults(updating...)),
		api.Handle("listIntegrations", "GET /v1/admin/integrations", auth.Workspace, s.listIntegrations,
			api.Doc("Lists the integrations of the workspace, every version."), api.Faults(fault.InvalidQuery, fault.ReferenceNotFound)),
		api.Handle("getIntegration", "GET /v1/admin/integrations/{id}", auth.Workspace, s.getIntegration,
			api.Doc("Shows an integration of the workspace by the id of its version."), api.Faults(fault.ResourceNotFound)),
		api.Handle("getIntegrationByName", "GET /v1/admin/integrations/{name}/{version}", auth.Workspace, s.getIntegrationByName,
			api.Doc("Shows an integration of the workspace by name and version; the version may be a range or latest."), api.Faults(fault.ResourceNotFound)),
		api.Handle("deleteIntegration", "DELETE /v1/admin/integrations/{id}", auth.Workspace, s.deleteIntegration,
			api.Doc("Deletes a version of an integration that no bot has installed."), api.Faults(fault.ResourceNotFound, fault.ReferenceConstraint)),
	}
}

// common is what creating and updating an integration both take.
type common struct {
	definition
	Title       *string            `json:"title,omitzero" min:"1" max:"64"`
	Description *string            `json:"description,omitzero" max:"256"`
	Icon        *string            `json:"icon,omitzero" doc:"A picture in base64, SVG as a rule."`
	Readme      *string            `json:"readme,omitzero" doc:"A text in Markdown, in base64."`
	Secrets     map[string]*string `json:"secrets,omitzero" each.max:"20000" doc:"Null deletes a secret. Values are never shown."`
	Public      *bool              `json:"public,omitzero" doc:"The older form of visibility."`
	Visibility  string             `json:"visibility,omitzero" enum:"public,private,unlisted"`
	Code        *string            `json:"code,omitzero" doc:"Refused: Parley does not run uploaded code yet."`
	Layers      []string           `json:"layers,omitzero" doc:"Without effect."`
}

type createInput struct {
	common
	Name    string  `json:"name" max:"200"`
	Version string  `json:"version" max:"200"`
	URL     *string `json:"url,omitzero" max:"2000" doc:"Where the integration runs."`
	Dev     bool    `json:"dev,omitzero" doc:"Under development: found by its id alone, and by its own workspace."`
}

type updateInput struct {
	integrationRef
	common
	Name    *string              `json:"name,omitzero" doc:"Must be the one it has."`
	Version *string              `json:"version,omitzero" doc:"Must be the one it has."`
	Dev     *bool                `json:"dev,omitzero" doc:"Must be as it is."`
	URL     api.Nullable[string] `json:"url,omitzero" max:"2000" doc:"Where the integration runs; null = nowhere."`
}

// Check implements what the types cannot say.
func (in *createInput) Check() error {
	if err := checkName(in.Name); err != nil {
		return err
	}
	if err := checkVersion(in.Version); err != nil {
		return err
	}
	if in.Dev && in.common.visibility(private) != private {
		return fault.InvalidPayload.New("dev: an integration under development is private; leave visibility and public out")
	}
	return in.common.check(in.URL)
}

// Check implements what the types cannot say.
func (in *updateInput) Check() error { return in.common.check(in.URL.Pointer()) }

var goodIntegrationName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]*(/[a-zA-Z0-9][a-zA-Z0-9_-]*)?$`)

func checkName(name string) error {
	if !goodIntegrationName.MatchString(name) {
		return fault.InvalidIdentifier.New("name: %.200q is not a name for an integration; it has letters, digits, _ and -, begins with a letter, and may have the handle of its workspace and a / before it", name)
	}
	return nil
}

func checkVersion(version string) error {
	v, err := semver.StrictNewVersion(version)
	if err != nil {
		return fault.InvalidPayload.Wrap(err, "version must have the form 1.2.3 or 1.2.3-beta.1, not %.200q", version)
	}
	if v.Metadata() != "" {
		return fault.InvalidPayload.New("version: %.200q ends with +%.200s, which tells no versions apart; leave that out", version, v.Metadata())
	}
	return nil
}

// Limits of what belongs to a definition.
const (
	maxIcon    = 256 << 10
	maxReadme  = 1 << 20
	maxSecrets = 50
)

func (in *common) check(at *string) error {
	switch {
	case in.Code != nil && at != nil:
		return fault.InvalidPayload.New("url and code exclude each other: an integration runs either at its url or as uploaded code")
	case in.Code != nil:
		return fault.InvalidPayload.New("code: this version of Parley does not run uploaded code yet, it is planned; run the integration yourself and send its url")
	case in.Public != nil && in.Visibility != "" && *in.Public != (in.Visibility == public):
		return fault.InvalidPayload.New("public and visibility contradict each other; send visibility alone")
	}
	if at != nil {
		if err := endpoint.CheckURL(*at); err != nil {
			return err
		}
	}
	if err := checkFile("icon", in.Icon, maxIcon); err != nil {
		return err
	}
	if err := checkFile("readme", in.Readme, maxReadme); err != nil {
		return err
	}
	if err := patch.CheckNames("secrets", in.Secrets); err != nil {
		return err
	}
	return in.definition.check()
}

// visibility is what was asked of a version that has one already.
func (in *common) visibility(was string) string {
	switch {
	case in.Visibility != "":
		return in.Visibility
	case in.Public == nil || !*in.Public && was != public:
		return was
	case *in.Public:
		return public
	}
	return private
}

func checkFile(member string, file *string, most int) error {
	if file == nil {
		return nil
	}
	text, err := base64.StdEncoding.DecodeString(*file)
	if err != nil {
		return fault.InvalidPayload.Wrap(err, "%s must be a file in base64", member)
	}
	if len(text) > most {
		return fault.LimitExceeded.New("%s has %d bytes, the limit is %d", member, len(text), most)
	}
	return nil
}

type integrationResult struct {
	Integration *Integration `json:"integration"`
}

func (s *Service) createIntegration(ctx context.Context, in createInput) (integrationResult, error) {
	in.unknown(s.noted.Note)
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (integrationResult, error) {
		r, err := s.creation(tx, auth.From(ctx).WorkspaceID, &in)
		if err != nil {
			return integrationResult{}, err
		}
		added, err := sqldb.Insert(tx, "integrations", r)
		if err == nil && !added {
			err = exists(r)
		}
		if err == nil {
			err = s.keepSecret(tx, r)
		}
		return integrationResult{r.integration()}, err
	})
}

func exists(r *row) error {
	return fault.AlreadyExists.New("Integration %q exists in version %s; update that one, or choose another version", r.Name, r.Version)
}

// creation is the row that a request makes, if it may.
func (s *Service) creation(tx *sqldb.Tx, workspaceID string, in *createInput) (*row, error) {
	at := s.now()
	prefix := "intver"
	if in.Dev {
		prefix = "devint"
	}
	r := &row{
		ID: id.At(prefix, int64(at)), WorkspaceID: workspaceID, Name: in.Name, Version: in.Version, Dev: in.Dev,
		Visibility: private, Title: title(in.Name), CreatedAt: at, secrets: map[string]string{},
	}
	if err := s.mayName(tx, r); err != nil {
		return nil, err
	}
	if in.URL != nil {
		r.URL = *in.URL
	}
	if err := s.change(tx, r, &in.common, at); err != nil {
		return nil, err
	}
	if r.Dev {
		return r, nil
	}
	n, err := sqldb.Scalar[int64](tx, "SELECT COUNT(*) FROM integrations WHERE workspace_id = $1 AND name = $2 AND version = $3 AND NOT dev", workspaceID, r.Name, r.Version)
	if err == nil && n > 0 {
		err = exists(r)
	}
	return r, err
}

// title is what an integration is called until its author says so.
func title(name string) string {
	if runes := []rune(name); len(runes) > 64 {
		return string(runes[:64])
	}
	return name
}

// mayName refuses a name that belongs to somebody else.
//
// Compat: the cloud wants a handle of every workspace that publishes. Here a
// workspace without one uses plain names, and any prefix that is nobody's handle.
func (s *Service) mayName(tx *sqldb.Tx, r *row) error {
	for _, d := range s.brought {
		if strings.EqualFold(d.Name, r.Name) {
			return fault.AlreadyExists.New("name: %q is an integration that Parley brings along; choose another name", r.Name)
		}
	}
	_, handle, err := s.Workspaces.Named(tx, r.WorkspaceID)
	if err != nil {
		return err
	}
	prefix, _, prefixed := strings.Cut(r.Name, "/")
	switch {
	case handle != "" && (!prefixed || prefix != handle):
		return fault.InvalidIdentifier.New("name: integrations of this workspace are called %s/…, not %q: that is its handle", handle, r.Name)
	case handle != "" || !prefixed:
		return nil
	}
	other, err := s.Workspaces.ByHandle(tx, prefix)
	if err == nil && other != "" {
		err = fault.InvalidIdentifier.New("name: %q is the handle of another workspace; leave it out of %q", prefix, r.Name)
	}
	return err
}

// change applies what creating and updating have in common.
func (s *Service) change(tx *sqldb.Tx, r *row, in *common, at api.Time) error {
	r.Definition.merge(&in.definition)
	if err := r.Definition.checkWhole(); err != nil {
		return err
	}
	for _, c := range []struct{ to, from *string }{{&r.Title, in.Title}, {&r.Description, in.Description}, {&r.Icon, in.Icon}, {&r.Readme, in.Readme}} {
		if c.from != nil {
			*c.to = *c.from
		}
	}
	r.secrets = maps.Clone(r.secrets)
	for name, v := range in.Secrets {
		if v == nil {
			delete(r.secrets, name)
			continue
		}
		r.secrets[name] = *v
	}
	if len(r.secrets) > maxSecrets {
		return fault.LimitExceeded.New("secrets: the integration would have %d secrets, the limit is %d", len(r.secrets), maxSecrets)
	}
	if err := s.seal(r); err != nil {
		return err
	}
	r.UpdatedAt = max(at, r.CreatedAt, r.UpdatedAt)
	return s.publish(tx, r, in.visibility(r.Visibility))
}

// publish gives a version its visibility. What others may find by its name must
// be the only one of that name.
func (s *Service) publish(tx *sqldb.Tx, r *row, visibility string) error {
	if r.Dev && visibility != private {
		return fault.InvalidPayload.New("visibility: an integration under development is private; deploy it to publish it")
	}
	if visibility == private && r.Visibility != private {
		if err := s.notElsewhere(tx, r); err != nil {
			return err
		}
	}
	r.Visibility = visibility
	if visibility == private {
		return nil
	}
	if err := tx.LockKey("integration name", r.Name); err != nil {
		return err
	}
	n, err := sqldb.Scalar[int64](tx, "SELECT COUNT(*) FROM integrations WHERE name = $1 AND workspace_id <> $2 AND visibility <> 'private'", r.Name, r.WorkspaceID)
	if err == nil && n > 0 {
		err = fault.AlreadyExists.New("name: another workspace has published an integration %q; keep this one private or give it another name", r.Name)
	}
	return err
}

// notElsewhere refuses to withdraw what others have installed.
func (s *Service) notElsewhere(tx *sqldb.Tx, r *row) error {
	in, err := s.Installations.InstalledIn(tx, r.ID)
	if err == nil && slices.ContainsFunc(in, func(workspaceID string) bool { return workspaceID != r.WorkspaceID }) {
		err = fault.ReferenceConstraint.New("visibility: integration %q %s is installed in bots of other workspaces, so it cannot become private", r.Name, r.Version)
	}
	return err
}

func (s *Service) validateIntegrationCreation(ctx context.Context, in createInput) (struct{}, error) {
	in.unknown(s.noted.Note)
	return s.try(ctx, func(tx *sqldb.Tx) error {
		_, err := s.creation(tx, auth.From(ctx).WorkspaceID, &in)
		return err
	})
}

// try runs a change that is to leave nothing behind. It is a write all the same:
// what it looks at must not change under it.
func (s *Service) try(ctx context.Context, fn func(tx *sqldb.Tx) error) (struct{}, error) {
	return struct{}{}, s.DB.Write(ctx, fn)
}

func (s *Service) updateIntegration(ctx context.Context, in updateInput) (integrationResult, error) {
	in.unknown(s.noted.Note)
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (integrationResult, error) {
		r, err := s.update(tx, auth.From(ctx).WorkspaceID, &in)
		if err != nil {
			return integrationResult{}, err
		}
		err = errors.Join(
			sqldb.Update(tx, "integrations", r, sqldb.Column{Name: "id", Field: &r.ID}),
			s.keepSecret(tx, r), // it may be older than the secrets
		)
		s.announce(tx, r.ID)
		return integrationResult{r.integration()}, err
	})
}

func (s *Service) validateIntegrationUpdate(ctx context.Context, in updateInput) (struct{}, error) {
	in.unknown(s.noted.Note)
	return s.try(ctx, func(tx *sqldb.Tx) error {
		_, err := s.update(tx, auth.From(ctx).WorkspaceID, &in)
		return err
	})
}

// update is the row that a request makes of the one there is, if it may.
func (s *Service) update(tx *sqldb.Tx, workspaceID string, in *updateInput) (*row, error) {
	r, err := s.own(tx, workspaceID, in.ID, "{for_update}")
	if err != nil {
		return nil, err
	}
	switch {
	case in.Name != nil && *in.Name != r.Name:
		return nil, fault.InvalidPayload.New("name: the name of an integration cannot change; create %.200q instead", *in.Name)
	case in.Version != nil && *in.Version != r.Version:
		return nil, fault.InvalidPayload.New("version: the version of an integration cannot change; create version %.200q instead", *in.Version)
	case in.Dev != nil && *in.Dev != r.Dev:
		return nil, fault.InvalidPayload.New("dev: an integration stays what it was created as")
	}
	before := r.integration()
	if in.URL.Set {
		r.URL = in.URL.Value
	}
	if err := s.change(tx, r, &in.common, s.now()); err != nil {
		return nil, err
	}
	return r, s.compatible(tx, before, r)
}

// own reads a version of a workspace. One of another workspace is as missing as
// one that never was.
func (s *Service) own(q sqldb.Q, workspaceID, integrationID, tail string) (*row, error) {
	r, err := s.row(q, integrationID, tail)
	if err == nil && (r == nil || r.WorkspaceID != workspaceID) {
		return nil, missingID(integrationID)
	}
	return r, err
}

// announce tells whoever remembers the version that it has changed.
func (s *Service) announce(tx *sqldb.Tx, integrationID string) {
	tx.AfterCommit(func() {
		s.versions.Drop(integrationID)
		s.Changed(integrationID)
	})
}

func (s *Service) getIntegration(ctx context.Context, in integrationRef) (integrationResult, error) {
	d, err := s.Lookup(ctx, in.ID)
	if err == nil && (d == nil || d.WorkspaceID != auth.From(ctx).WorkspaceID) {
		err = missingID(in.ID)
	}
	return integrationResult{d}, err
}

func (s *Service) getIntegrationByName(ctx context.Context, in versionRef) (integrationResult, error) {
	d, err := s.find(ctx, "WHERE workspace_id = $1 AND name = $2 AND NOT dev", in, auth.From(ctx).WorkspaceID, in.Name)
	return integrationResult{d}, err
}

type ownQuery struct {
	integrationQuery
	Visibility string `query:"visibility" enum:"public,private"`
	Dev        *bool  `query:"dev" doc:"true: only integrations under development, false: only others."`
}

type ownList struct {
	Integrations []ownListed `json:"integrations"`
	Meta         page.Meta   `json:"meta"`
}

func (s *Service) listIntegrations(ctx context.Context, in ownQuery) (ownList, error) {
	var w sqldb.Where
	w.And("workspace_id = ?", auth.From(ctx).WorkspaceID)
	if in.Dev != nil {
		w.And("dev = ?", *in.Dev)
	}
	if in.Visibility != "" {
		w.And("visibility = ?", in.Visibility)
	}
	rows, err := selectEntries(s.DB.Reader(ctx), w.String(), w.Args...)
	if err != nil {
		return ownList{}, err
	}
	if in.SortBy == "" && in.Direction == "" {
		in.SortBy, in.Direction = "createdAt", "desc"
	}
	rows, meta, err := s.list(ctx, rows, in.integrationQuery)
	out := ownList{Meta: meta}
	for _, r := range rows {
		out.Integrations = append(out.Integrations, r.ownListed)
	}
	return out, err
}

func (s *Service) deleteIntegration(ctx context.Context, in integrationRef) (struct{}, error) {
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (struct{}, error) {
		r, err := s.own(tx, auth.From(ctx).WorkspaceID, in.ID, "{for_update}")
		if err != nil {
			return struct{}{}, err
		}
		where, err := s.Installations.InstalledIn(tx, r.ID)
		if err != nil {
			return struct{}{}, err
		}
		if len(where) > 0 {
			return struct{}{}, fault.ReferenceConstraint.New("Integration %q %s is installed in bots; remove it from them first", r.Name, r.Version)
		}
		if err := s.Deleting(tx, r.ID); err != nil {
			return struct{}{}, err
		}
		s.announce(tx, r.ID)
		if err := sqldb.Delete(tx, "integrations", "WHERE id = $1", r.ID); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, s.forgetSecret(tx, r)
	})
}

// keepSecret sees to it that an integration has a secret: one for all its versions.
func (s *Service) keepSecret(tx *sqldb.Tx, r *row) error {
	if err := tx.LockKey("integration family", family(r.WorkspaceID, r.Name)); err != nil {
		return err
	}
	return s.Secrets.Create(tx, family(r.WorkspaceID, r.Name))
}

// forgetSecret removes the secret of an integration with its last version.
func (s *Service) forgetSecret(tx *sqldb.Tx, r *row) error {
	if err := tx.LockKey("integration family", family(r.WorkspaceID, r.Name)); err != nil {
		return err
	}
	n, err := sqldb.Scalar[int64](tx, "SELECT COUNT(*) FROM integrations WHERE workspace_id = $1 AND name = $2", r.WorkspaceID, r.Name)
	if err != nil || n > 0 {
		return err
	}
	return s.Secrets.Delete(tx, family(r.WorkspaceID, r.Name))
}
