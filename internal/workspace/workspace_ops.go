package workspace

import (
	"context"
	"errors"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/page"
	"parley/internal/sqldb"
)

func (s *Service) workspaceOps() []api.Op {
	return []api.Op{
		api.Handle("getWorkspace", "GET /v1/admin/workspaces/{id}", auth.Account, s.getWorkspace,
			api.Doc("Shows a workspace of the caller."), api.Faults(fault.ResourceNotFound)),
		api.Handle("listWorkspaces", "GET /v1/admin/workspaces", auth.Account, s.listWorkspaces,
			api.Doc("Lists the workspaces of the caller, the newest first."), api.Faults(fault.InvalidQuery)),
	}
}

type workspaceRef struct {
	ID string `path:"id" doc:"Id of a workspace."`
}

func (s *Service) getWorkspace(ctx context.Context, in workspaceRef) (Workspace, error) {
	missing := fault.ResourceNotFound.New("Workspace %.60q doesn't exist", in.ID)
	p := auth.From(ctx)
	if !id.Valid(in.ID) || p.WorkspaceID != "" && p.WorkspaceID != in.ID {
		return Workspace{}, missing
	}
	ok, err := s.Member(ctx, p.AccountID, in.ID)
	if err != nil {
		return Workspace{}, err
	}
	if !ok {
		return Workspace{}, missing
	}
	w, err := readWorkspace(s.DB.Reader(ctx), in.ID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return Workspace{}, missing
	}
	if err != nil {
		return Workspace{}, err
	}
	return *w, nil
}

type workspaceQuery struct {
	page.Query
	Handle string `query:"handle" doc:"Only the workspace with this handle."`
}

type workspaceList struct {
	Workspaces []*Workspace `json:"workspaces"`
	Meta       page.Meta    `json:"meta"`
}

func (s *Service) listWorkspaces(ctx context.Context, in workspaceQuery) (workspaceList, error) {
	p := auth.From(ctx)
	list, err := in.Open("workspaces", page.NewestFirst, p.AccountID, p.WorkspaceID, in.Handle)
	if err != nil {
		return workspaceList{}, err
	}
	rows, err := selectWorkspaces(s.DB.Reader(ctx), list, workspaceFilter{p.AccountID, p.WorkspaceID, in.Handle})
	if err != nil {
		return workspaceList{}, err
	}
	var out workspaceList
	out.Workspaces, out.Meta, err = page.Cut(list, rows, func(w *Workspace) (int64, string) { return int64(w.CreatedAt), w.ID })
	return out, err
}

// NewWorkspace is a workspace to create and the person it is for.
type NewWorkspace struct {
	Email       string // of the owner; an account with this address is used if there is one
	DisplayName string // of the owner, if the account is new
	Name        string // of the workspace
}

// Create makes a workspace and, if need be, the account of its owner.
func (s *Service) Create(ctx context.Context, n NewWorkspace) (*Workspace, error) {
	var w *Workspace
	err := s.DB.Write(ctx, func(tx *sqldb.Tx) error {
		owner, err := s.owner(tx, n)
		if err != nil {
			return err
		}
		at := s.now()
		w = &Workspace{ID: id.New("wkspace"), Name: n.Name, OwnerID: owner, CreatedAt: at, UpdatedAt: at}
		if _, err := sqldb.Insert(tx, "workspaces", w); err != nil {
			return err
		}
		_, err = sqldb.Insert(tx, "members", &member{w.ID, owner, roleOwner, at})
		return err
	})
	if err != nil {
		return nil, err
	}
	w.unlimited()
	return w, nil
}

// owner finds the account of n.Email or makes it.
func (s *Service) owner(tx *sqldb.Tx, n NewWorkspace) (string, error) {
	if err := tx.LockKey("account", n.Email); err != nil {
		return "", err
	}
	a, err := accountByEmail(tx, n.Email)
	if err == nil {
		return a.ID, nil
	}
	if !errors.Is(err, sqldb.ErrNoRow) {
		return "", err
	}
	a = &Account{ID: id.New("accnt"), Email: n.Email, DisplayName: n.DisplayName, CreatedAt: s.now()}
	_, err = sqldb.Insert(tx, "accounts", a)
	return a.ID, err
}

// unlimited fills in what no table holds.
func (w *Workspace) unlimited() {
	w.BillingVersion, w.Plan = "v4", "enterprise"
}
