// Package catalog knows the definitions that bots are built from: integrations,
// and in their place interfaces and plugins. Integrations are those that Parley
// brings along and those that workspaces describe, which run elsewhere. It
// answers the hub and tells the rest of the server what an integration declares.
package catalog

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/cache"
	"parley/internal/fault"
	"parley/internal/patch"
	"parley/internal/signing"
	"parley/internal/sqldb"
)

// Workspaces knows who publishes; workspace does.
type Workspaces interface {
	// Named tells the name and the handle of a workspace, "" where it has none.
	Named(q sqldb.Q, workspaceID string) (name, handle string, err error)
	// ByHandle finds the workspace that has a handle, "" if none has.
	ByHandle(q sqldb.Q, handle string) (workspaceID string, err error)
}

// Installations knows who has installed what; bot does.
type Installations interface {
	// InstalledIn lists the workspaces whose bots have a version installed.
	InstalledIn(q sqldb.Q, integrationID string) (workspaceIDs []string, err error)
}

// Config are the parts a Service needs.
type Config struct {
	DB  *sqldb.DB
	Bus bus.Bus
	Box *auth.Box
	// Secrets sign what integrations are sent; the family is the owner.
	Secrets *signing.Store
	// Directory tells which integrations a bot has and who may ask.
	Directory     auth.Directory
	Workspaces    Workspaces
	Installations Installations
	// Deleting takes part in the transaction that deletes a version. May be nil.
	Deleting func(tx *sqldb.Tx, integrationID string) error
	// Changed is told after every commit that changed a version. It must not block. May be nil.
	Changed func(integrationID string)
	Now     func() time.Time
	Log     *slog.Logger
	// MaxAge bounds how long what is kept in memory is believed without looking
	// again. 0 is right when no other process writes the database.
	MaxAge time.Duration
}

// Service carries out the operations on the catalogue.
type Service struct {
	Config
	versions *cache.Cache[Integration]
	noted    patch.Noted

	// What Parley brings along, which never changes.
	brought []*Integration // by name, the newest version first
	byID    map[string]*Integration
}

// cachedVersions is the number of versions that are kept in memory.
const cachedVersions = 2_000

// New checks c and returns a ready Service. Close it when no request runs any more.
func New(c Config) (*Service, error) {
	for name, missing := range map[string]bool{
		"DB": c.DB == nil, "Bus": c.Bus == nil, "Box": c.Box == nil, "Secrets": c.Secrets == nil, "Directory": c.Directory == nil,
		"Workspaces": c.Workspaces == nil, "Installations": c.Installations == nil, "Now": c.Now == nil,
	} {
		if missing {
			return nil, errors.New("catalog: Config." + name + " is missing")
		}
	}
	if c.Deleting == nil {
		c.Deleting = func(*sqldb.Tx, string) error { return nil }
	}
	if c.Changed == nil {
		c.Changed = func(string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{Config: c, brought: builtins(), byID: map[string]*Integration{}, noted: patch.Noted{Log: c.Log, What: "an integration's definition"}}
	slices.SortFunc(s.brought, byNameNewestFirst)
	for _, d := range s.brought {
		s.byID[d.ID] = d
	}
	s.versions = cache.New(cache.Config[Integration]{Load: s.load, Max: cachedVersions, MaxAge: c.MaxAge, Now: c.Now, Bus: c.Bus, Topic: "cache.integration"})
	return s, nil
}

func byNameNewestFirst(a, b *Integration) int {
	if a.Name != b.Name {
		return strings.Compare(a.Name, b.Name)
	}
	return b.semver.Compare(a.semver)
}

// Close ends what the Service listens to.
func (s *Service) Close() { s.versions.Close() }

// Ops are the operations on the catalogue.
func (s *Service) Ops() []api.Op { return slices.Concat(s.hubOps(), s.integrationOps()) }

func (s *Service) now() api.Time { return api.At(s.Now()) }

// Lookup finds a version of an integration by its id, whoever it belongs to;
// nil, nil means there is none. The answer comes from memory and takes no lock.
func (s *Service) Lookup(ctx context.Context, integrationID string) (*Integration, error) {
	if d := s.byID[integrationID]; d != nil {
		return d, nil
	}
	return s.versions.Get(ctx, integrationID)
}

// Read is Lookup as q sees it, for use in a transaction.
func (s *Service) Read(q sqldb.Q, integrationID string) (*Integration, error) {
	return s.read(q, integrationID, "")
}

func (s *Service) read(q sqldb.Q, integrationID, tail string) (*Integration, error) {
	if d := s.byID[integrationID]; d != nil {
		return d, nil
	}
	r, err := s.row(q, integrationID, tail)
	if r == nil {
		return nil, err
	}
	return r.integration(), nil
}

// Installable finds a version that bots of a workspace may have installed; nil,
// nil means there is none. Until tx ends the version is neither deleted nor
// withdrawn nor changed, so that what tx installs is there.
func (s *Service) Installable(tx *sqldb.Tx, workspaceID, integrationID string) (*Integration, error) {
	d, err := s.read(tx, integrationID, "{for_update}")
	if d == nil || !d.sharedWith(workspaceID) {
		return nil, err
	}
	return d, nil
}

// Owns reports whether a version belongs to a workspace. In a transaction it is
// not deleted before that ends.
func (s *Service) Owns(q sqldb.Q, workspaceID, integrationID string) (bool, error) {
	theirs, _, err := s.FamilyOf(q, integrationID)
	return theirs != "" && theirs == workspaceID, err
}

// FamilyOf tells whose a version is that a workspace has described, and its
// family; workspaceID is "" where there is none. In a transaction the version is
// not deleted before that ends.
func (s *Service) FamilyOf(q sqldb.Q, integrationID string) (workspaceID, familyName string, err error) {
	tail := ""
	if _, writes := q.(*sqldb.Tx); writes {
		tail = "{for_update}"
	}
	r, err := s.row(q, integrationID, tail)
	if r == nil {
		return "", "", err
	}
	return r.WorkspaceID, family(r.WorkspaceID, r.Name), nil
}

// Family tells integrations apart by the id of any of their versions: versions
// of one integration share it, others, namesakes of another owner included, do
// not. "" means there is no such version. It is the part of auth.Directory that
// the catalogue knows.
func (s *Service) Family(ctx context.Context, integrationID string) (string, error) {
	d, err := s.Lookup(ctx, integrationID)
	if d == nil {
		return "", err
	}
	return d.Family(), nil
}

// maxVersion bounds what is read as a version or a range.
const maxVersion = 200

// Builtin finds the newest version that fits of an integration that Parley
// brings along: an exact version, a range such as >=1.0.0 <2.0.0, or latest. nil
// means there is none.
func (s *Service) Builtin(name, version string) *Integration {
	fits := matcher(version)
	for _, d := range s.brought { // newest first
		if d.Name == name && fits(d.semver) {
			return d
		}
	}
	return nil
}

// matcher tells which versions a text means. A text that means nothing fits none.
func matcher(version string) func(*semver.Version) bool {
	if version == "latest" {
		return func(*semver.Version) bool { return true }
	}
	if len(version) > maxVersion {
		return func(*semver.Version) bool { return false }
	}
	if v, err := semver.StrictNewVersion(version); err == nil {
		return v.Equal
	}
	c, err := semver.NewConstraint(version)
	if err != nil {
		return func(*semver.Version) bool { return false }
	}
	return c.Check
}

func missingID(id string) error {
	return fault.ResourceNotFound.New("Integration %.200q doesn't exist", id)
}

func missingVersion(name, version string) error {
	return fault.ResourceNotFound.New("Integration %.200q doesn't exist in version %.200q", name, version)
}
