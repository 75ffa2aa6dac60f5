package bot

import (
	"context"

	"parley/internal/api"
	"parley/internal/sqldb"
)

// NewBot is a bot that the server makes by itself.
type NewBot struct {
	WorkspaceID string
	AccountID   string // who it is for
	Name        string
	URL         string // where it runs
	Builtin     string // or the name of the Go bot behind it
}

// Create makes a bot and returns its id. It is the only way to a bot that runs inside Parley.
func (s *Service) Create(ctx context.Context, n NewBot) (botID string, err error) {
	c := creation{workspace: n.WorkspaceID, account: n.AccountID, builtin: n.Builtin, common: common{Name: &n.Name}}
	if n.URL != "" {
		c.url = &n.URL
	}
	err = s.DB.Write(ctx, func(tx *sqldb.Tx) error {
		r, err := s.create(tx, c)
		if err == nil {
			botID = r.ID
		}
		return err
	})
	if err != nil {
		return "", err // the closure may still be running
	}
	return botID, nil
}

// Install installs a version of an integration in a bot under an alias, or
// upgrades or enables what is installed there. A nil configuration leaves the
// one there is.
func (s *Service) Install(ctx context.Context, botID, alias, integrationID string, configuration api.Object) (*Installation, error) {
	enabled := true
	value := &installationIn{Enabled: &enabled, IntegrationID: integrationID}
	if configuration != nil {
		value.Configuration = &configuration
	}
	in := &updateInput{botRef: botRef{ID: botID}, Integrations: map[string]*installationIn{alias: value}}
	var out *Installation
	err := s.DB.Write(ctx, func(tx *sqldb.Tx) error {
		_, rows, err := s.update(tx, "", in)
		for _, r := range rows {
			if r.Alias == alias {
				installation, err := s.installation(tx, r)
				if err != nil {
					return err
				}
				out = &installation
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
