package catalog

import (
	"bytes"
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/schema"
	"parley/internal/signing"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

const start = int64(1772366400000) // 2026-03-01T12:00:00Z

// rig is the real service behind the real router.
type rig struct {
	*Service
	api   *api.API
	clock atomic.Int64
	log   bytes.Buffer
	homes homes

	mu      sync.Mutex
	changed []string
	deleted []string
}

func newRig(t testing.TB, db *sqldb.DB) *rig {
	t.Helper()
	return newRigOn(t, db, bus.NewLocal(), 0)
}

func newRigOn(t testing.TB, db *sqldb.DB, b bus.Bus, maxAge time.Duration) *rig {
	t.Helper()
	r := &rig{homes: homes{handles: map[string]string{}}}
	r.clock.Store(start)
	now := func() time.Time { return time.UnixMilli(r.clock.Load()) }
	box, err := auth.NewBox(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&r.log, nil))
	secrets, err := signing.NewStore(signing.Config{DB: db, Bus: b, Box: box, Now: now, MaxAge: maxAge})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(secrets.Close)
	r.Service, err = New(Config{
		DB: db, Bus: b, Box: box, Secrets: secrets, Directory: directory{}, Workspaces: &r.homes, Installations: installs{}, Now: now, Log: log, MaxAge: maxAge,
		Changed: func(integrationID string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.changed = append(r.changed, integrationID)
		},
		Deleting: func(_ *sqldb.Tx, integrationID string) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.deleted = append(r.deleted, integrationID)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	gate := &auth.Gate{Tokens: tokens{}, Directory: directory{}, Now: now}
	r.api = api.New(api.Config{Name: "admin", Ops: r.Ops(), Admit: gate.Admit, DB: db, Now: now, Log: log, CheckAnswers: true})
	return r
}

// each runs a test on both databases.
func each(t *testing.T, fn func(t *testing.T, r *rig)) {
	t.Helper()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db)
		if err := r.exec(t.Context(), installsTable); err != nil {
			t.Fatal(err)
		}
		fn(t, r)
	})
}

// fresh is a new SQLite database.
func fresh(t testing.TB) *sqldb.DB {
	t.Helper()
	db := sqldbtest.Open(t, sqldbtest.SQLiteURL(t))
	if err := db.Migrate(t.Context(), schema.FS, sqldb.MigrateOptions{}); err != nil {
		t.Fatal(err)
	}
	return db
}

// homes knows workspaces by their ids, and the handles of some.
type homes struct{ handles map[string]string }

func (h *homes) Named(_ sqldb.Q, workspaceID string) (string, string, error) {
	return "Workspace " + workspaceID[len(workspaceID)-1:], h.handles[workspaceID], nil
}

func (h *homes) ByHandle(_ sqldb.Q, handle string) (string, error) {
	for workspaceID, theirs := range h.handles {
		if theirs == handle {
			return workspaceID, nil
		}
	}
	return "", nil
}

// installs is a table of what is installed where, as the bot module has one.
type installs struct{}

const installsTable = "CREATE TABLE installs (workspace_id TEXT NOT NULL, integration_id TEXT NOT NULL)"

type install struct{ workspaceID string }

// Columns binds a column of table installs.
func (i *install) Columns() []sqldb.Column {
	return []sqldb.Column{{Name: "workspace_id", Field: &i.workspaceID}}
}

func (installs) InstalledIn(q sqldb.Q, integrationID string) ([]string, error) {
	rows, err := sqldb.Select[install](q, "installs", "WHERE integration_id = $1", integrationID)
	var all []string
	for _, r := range rows {
		all = append(all, r.workspaceID)
	}
	return all, err
}

func (r *rig) exec(ctx context.Context, statement string, args ...any) error {
	return r.DB.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(statement, args...)
		return err
	})
}

// install puts a version into a bot of a workspace, as the bot module does.
func (r *rig) install(ctx context.Context, workspaceID, integrationID string) (installed bool, err error) {
	err = r.DB.Write(ctx, func(tx *sqldb.Tx) error {
		d, err := r.Installable(tx, workspaceID, integrationID)
		if installed = d != nil; !installed || err != nil {
			return err
		}
		_, err = tx.Exec("INSERT INTO installs (workspace_id, integration_id) VALUES ($1, $2)", workspaceID, integrationID)
		return err
	})
	return installed, err
}

func (r *rig) uninstall(t *testing.T) {
	t.Helper()
	if err := r.exec(t.Context(), "DELETE FROM installs"); err != nil {
		t.Fatal(err)
	}
}

// tokens knows those of ann and bob.
type tokens struct{}

var (
	token, tokenHash                = auth.NewToken(auth.PAT)
	bobsToken, bobsHash             = auth.NewToken(auth.PAT)
	tokenOf                         = map[string]string{wsA: token, wsB: bobsToken}
	_                   auth.Tokens = tokens{}
)

func (tokens) Token(_ context.Context, hash string) (*auth.Token, error) {
	switch hash {
	case tokenHash:
		return &auth.Token{ID: "pat_1", Kind: auth.PAT, AccountID: ann}, nil
	case bobsHash:
		return &auth.Token{ID: "pat_2", Kind: auth.PAT, AccountID: bob}, nil
	}
	return nil, nil
}

// do sends a request in a workspace. header holds "name: value" lines.
func (r *rig) do(t testing.TB, workspace, request, body string, header ...string) answer {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	q := httptest.NewRequestWithContext(context.Background(), method, path, strings.NewReader(body))
	q.Header.Set("Authorization", "Bearer "+tokenOf[workspace])
	q.Header.Set("x-workspace-id", workspace)
	if body != "" {
		q.Header.Set("Content-Type", "application/json")
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		q.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	r.api.ServeHTTP(w, q)
	return answer{w.Code, w.Body.Bytes()}
}

const own = "/v1/admin/integrations"

// create makes an integration and returns its id.
func (r *rig) create(t testing.TB, workspace, body string) *Integration {
	t.Helper()
	return r.do(t, workspace, "POST "+own, body).integration(t)
}

func (a answer) integration(t testing.TB) *Integration {
	t.Helper()
	var v integrationResult
	if err := json.Unmarshal(a.body, &v); err != nil || a.status != 200 {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return v.Integration
}
