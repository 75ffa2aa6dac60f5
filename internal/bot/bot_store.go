package bot

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/page"
	"parley/internal/sqldb"
)

// row is a row of table bots.
type row struct {
	ID            string
	WorkspaceID   string
	Name          string
	Description   string
	Dev           bool
	Builtin       string
	URL           string
	Definition    definition
	Tags          map[string]string
	SealedConfig  []byte
	CreatedBy     string
	CreatedAt     api.Time
	UpdatedAt     api.Time
	DeployedAt    api.Time
	configuration api.Object // what SealedConfig holds
}

// Columns binds the columns of table bots.
func (r *row) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &r.ID},
		{Name: "workspace_id", Field: &r.WorkspaceID},
		{Name: "name", Field: &r.Name},
		{Name: "description", Field: &r.Description},
		{Name: "dev", Field: &r.Dev},
		{Name: "builtin", Field: &r.Builtin},
		{Name: "url", Field: &r.URL},
		{Name: "definition", Field: sqldb.JSON(&r.Definition)},
		{Name: "tags", Field: sqldb.JSON(&r.Tags)},
		{Name: "configuration", Field: &r.SealedConfig},
		{Name: "created_by", Field: &r.CreatedBy},
		{Name: "created_at", Field: (*int64)(&r.CreatedAt)},
		{Name: "updated_at", Field: (*int64)(&r.UpdatedAt)},
		{Name: "deployed_at", Field: (*int64)(&r.DeployedAt)},
	}
}

// seal encrypts a JSON object or text for the column named in owner.
func (s *Service) seal(plain []byte, owner string) []byte { return s.Box.Seal(plain, owner) }

func (s *Service) open(r *row) error {
	data, err := s.Box.Open(r.SealedConfig, r.ID+"/configuration")
	if err != nil {
		return fmt.Errorf("configuration of bot %s: %w", r.ID, err)
	}
	r.configuration = data
	return nil
}

// bot reads a bot, of a given workspace unless that is "". A bot of another
// workspace is as missing as one that never was.
func (s *Service) bot(q sqldb.Q, workspaceID, botID, tail string) (*row, error) {
	missing := fault.ResourceNotFound.New("Bot %.60q doesn't exist", botID)
	if !id.Valid(botID) {
		return nil, missing
	}
	r, err := sqldb.One[row](q, "bots", "WHERE id = $1 AND ($2 = '' OR workspace_id = $2) "+tail, botID, workspaceID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	return r, s.open(r)
}

// installations reads everything that is or was installed in a bot, the oldest first.
func (s *Service) installations(q sqldb.Q, botID, tail string) ([]*installation, error) {
	rows, err := sqldb.Select[installation](q, "installations", "WHERE bot_id = $1 ORDER BY created_at, id "+tail, botID)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.configuration, err = s.Box.Open(r.Sealed, r.ID+"/configuration"); err != nil {
			return nil, fmt.Errorf("configuration of installation %s: %w", r.ID, err)
		}
	}
	return rows, nil
}

// InstalledIn lists the workspaces whose bots have a version of an integration installed.
func (s *Service) InstalledIn(q sqldb.Q, integrationID string) ([]string, error) {
	rows, err := sqldb.Select[home](q, "bots", "WHERE id IN (SELECT bot_id FROM installations WHERE integration_id = $1 AND NOT removed)", integrationID)
	var all []string
	for _, h := range rows {
		if !slices.Contains(all, h.workspaceID) {
			all = append(all, h.workspaceID)
		}
	}
	return all, err
}

// Installed lists the ids of the installations of a version of an integration.
func (s *Service) Installed(q sqldb.Q, integrationID string) ([]string, error) {
	rows, err := sqldb.Select[installationID](q, "installations", "WHERE integration_id = $1 AND NOT removed", integrationID)
	all := make([]string, len(rows))
	for i, r := range rows {
		all[i] = r.id
	}
	return all, err
}

// installationID is the id of an installation.
type installationID struct{ id string }

// Columns binds a column of table installations.
func (i *installationID) Columns() []sqldb.Column {
	return []sqldb.Column{{Name: "id", Field: &i.id}}
}

// Home is the workspace of a bot, "" where there is none. In a transaction the
// bot is not deleted before that ends.
func (s *Service) Home(q sqldb.Q, botID string) (workspaceID string, err error) {
	tail := ""
	if _, writes := q.(*sqldb.Tx); writes {
		tail = "{for_update}"
	}
	workspaceID, err = sqldb.Scalar[string](q, "SELECT workspace_id FROM bots WHERE id = $1 "+tail, botID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return "", nil
	}
	return workspaceID, err
}

// home is the workspace of a bot.
type home struct{ workspaceID string }

// Columns binds a column of table bots.
func (h *home) Columns() []sqldb.Column {
	return []sqldb.Column{{Name: "workspace_id", Field: &h.workspaceID}}
}

// listed is a bot in a list.
type listed struct {
	ID         string            `json:"id"`
	CreatedAt  api.Time          `json:"createdAt"`
	UpdatedAt  api.Time          `json:"updatedAt"`
	Name       string            `json:"name"`
	DeployedAt api.Time          `json:"deployedAt,omitzero"`
	Tags       map[string]string `json:"tags"`
}

// Columns binds some columns of table bots.
func (l *listed) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &l.ID},
		{Name: "created_at", Field: (*int64)(&l.CreatedAt)},
		{Name: "updated_at", Field: (*int64)(&l.UpdatedAt)},
		{Name: "name", Field: &l.Name},
		{Name: "deployed_at", Field: (*int64)(&l.DeployedAt)},
		{Name: "tags", Field: sqldb.JSON(&l.Tags)},
	}
}

// filter says which bots a list shows.
type filter struct {
	workspace string
	dev       *bool
	tags      map[string]string
	sortedBy  string // column
}

func selectBots(q sqldb.Q, list *page.List, f filter) ([]*listed, error) {
	var w sqldb.Where
	w.And("workspace_id = ?", f.workspace)
	if f.dev != nil {
		w.And("dev = ?", *f.dev)
	}
	for key, value := range f.tags {
		text, err := json.Marshal(map[string]string{key: value})
		if err != nil {
			return nil, err
		}
		// The column holds the JSON that the same encoder wrote. In it the text
		// "key":"value" stands nowhere else: inside a value quotes are escaped.
		w.And("REPLACE(tags, ?, '') <> tags", string(text[1:len(text)-1]))
	}
	tail := list.Keyset(&w, f.sortedBy, "id")
	return sqldb.Select[listed](q, "bots", w.String()+" "+tail, w.Args...)
}

// readWebhook loads the bot of a webhook id for the cache.
func (s *Service) readWebhook(ctx context.Context, webhookID string) (*string, error) {
	if !id.Valid(webhookID) {
		return nil, nil
	}
	botID, err := sqldb.Scalar[string](s.DB.Reader(ctx), "SELECT bot_id FROM installations WHERE webhook_id = $1", webhookID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &botID, nil
}

func (s *Service) readOwner(ctx context.Context, installationID string) (*string, error) {
	botID, err := sqldb.Scalar[string](s.DB.Reader(ctx), "SELECT bot_id FROM installations WHERE id = $1", installationID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &botID, nil
}
