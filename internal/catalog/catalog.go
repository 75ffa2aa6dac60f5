// Package catalog knows the definitions that bots are built from: integrations,
// and in their place interfaces and plugins. Today these are the integrations
// that Parley brings along; it answers the hub and tells bot and messaging what
// an integration declares.
package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
)

// Config are the parts a Service needs.
type Config struct {
	// Directory tells which integrations a bot has and who may ask.
	Directory auth.Directory
}

// Service carries out the operations on the catalogue. It never changes.
type Service struct {
	Config
	all    []*Integration // by name, the newest version first
	byID   map[string]*Integration
	byName map[string][]*Integration
}

// New checks c and returns a ready Service.
func New(c Config) (*Service, error) {
	if c.Directory == nil {
		return nil, errors.New("catalog: Config.Directory is missing")
	}
	s := &Service{Config: c, all: builtins(), byID: map[string]*Integration{}, byName: map[string][]*Integration{}}
	slices.SortFunc(s.all, func(a, b *Integration) int {
		if a.Name != b.Name {
			return strings.Compare(a.Name, b.Name)
		}
		return b.semver.Compare(a.semver)
	})
	for _, d := range s.all {
		s.byID[d.ID] = d
		s.byName[d.Name] = append(s.byName[d.Name], d)
	}
	return s, nil
}

// Ops are the operations on the catalogue.
func (s *Service) Ops() []api.Op { return slices.Concat(s.hubOps(), s.integrationOps()) }

// Lookup finds a version of an integration by its id.
func (s *Service) Lookup(integrationID string) (*Integration, bool) {
	d, ok := s.byID[integrationID]
	return d, ok
}

// IntegrationName names the integration that a version id belongs to, "" if
// there is none. It is the part of auth.Directory that the catalogue knows.
func (s *Service) IntegrationName(_ context.Context, integrationID string) (string, error) {
	if d, ok := s.byID[integrationID]; ok {
		return d.Name, nil
	}
	return "", nil
}

// maxVersion bounds what is read as a version or a range.
const maxVersion = 200

// Find returns the newest version of an integration that fits: an exact
// version, a range such as >=1.0.0 <2.0.0, or latest. nil means there is none.
func (s *Service) Find(name, version string) *Integration {
	fits := matcher(version)
	for _, d := range s.byName[name] { // newest first
		if fits(d) {
			return d
		}
	}
	return nil
}

// matcher tells which versions a text means. A text that means nothing fits none.
func matcher(version string) func(*Integration) bool {
	if version == "latest" {
		return func(*Integration) bool { return true }
	}
	if len(version) > maxVersion {
		return func(*Integration) bool { return false }
	}
	if v, err := semver.StrictNewVersion(version); err == nil {
		return func(d *Integration) bool { return d.semver.Equal(v) }
	}
	c, err := semver.NewConstraint(version)
	if err != nil {
		return func(*Integration) bool { return false }
	}
	return func(d *Integration) bool { return c.Check(d.semver) }
}

func missingID(id string) error {
	return fault.ResourceNotFound.New("Integration %.200q doesn't exist", id)
}

func missingVersion(name, version string) error {
	return fault.ResourceNotFound.New("Integration %.200q doesn't exist in version %.200q", name, version)
}
