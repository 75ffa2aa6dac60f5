package workspace

import (
	"context"
	"errors"
	"strings"

	"parley/internal/page"
	"parley/internal/sqldb"
)

// counted is a workspace with the number of its bots.
type counted struct{ Workspace }

// Columns binds the columns of table workspaces and the count.
func (c *counted) Columns() []sqldb.Column {
	return append(c.Workspace.Columns(), sqldb.Column{
		Name: "(SELECT COUNT(*) FROM bots WHERE bots.workspace_id = workspaces.id)", Field: &c.BotCount,
	})
}

func readWorkspace(q sqldb.Q, workspaceID string) (*Workspace, error) {
	c, err := sqldb.One[counted](q, "workspaces", "WHERE id = $1", workspaceID)
	c.unlimited()
	return &c.Workspace, err
}

// Named tells the name and the handle of a workspace, "" where it has none.
func (s *Service) Named(q sqldb.Q, workspaceID string) (name, handle string, err error) {
	w, err := sqldb.One[Workspace](q, "workspaces", "WHERE id = $1", workspaceID)
	if err != nil {
		return "", "", err
	}
	return w.Name, w.Handle, nil
}

// ByHandle finds the workspace that has a handle, "" if none has.
func (s *Service) ByHandle(q sqldb.Q, handle string) (workspaceID string, err error) {
	workspaceID, err = sqldb.Scalar[string](q, "SELECT id FROM workspaces WHERE handle = $1", handle)
	if errors.Is(err, sqldb.ErrNoRow) {
		return "", nil
	}
	return workspaceID, err
}

// workspaceFilter says which workspaces a list shows; an empty part filters nothing.
type workspaceFilter struct{ account, workspace, handle string }

func selectWorkspaces(q sqldb.Q, list *page.List, f workspaceFilter) ([]*Workspace, error) {
	var w sqldb.Where
	w.And("id IN (SELECT workspace_id FROM members WHERE account_id = ?)", f.account)
	if f.workspace != "" {
		w.And("id = ?", f.workspace)
	}
	if f.handle != "" {
		w.And("handle = ?", f.handle)
	}
	tail := list.Keyset(&w, "created_at", "id")
	rows, err := sqldb.Select[counted](q, "workspaces", w.String()+" "+tail, w.Args...)
	out := make([]*Workspace, len(rows))
	for i, c := range rows {
		c.unlimited()
		out[i] = &c.Workspace
	}
	return out, err
}

func memberKey(accountID, workspaceID string) string { return accountID + " " + workspaceID }

// readMember loads a membership for the cache; nil = the account does not belong there.
func (s *Service) readMember(ctx context.Context, key string) (*member, error) {
	account, workspace, _ := strings.Cut(key, " ")
	m, err := sqldb.One[member](s.DB.Reader(ctx), "members", "WHERE account_id = $1 AND workspace_id = $2", account, workspace)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}
