package workspace

import (
	"fmt"
	"testing"

	"parley/internal/bus"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestGetAccount(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann := r.person(t, "ann@example.com")
		r.do(t, ann.token, "GET /v1/admin/account/me", "").want(t, 200, ann.account).golden(t, "getAccount/ok")
		r.do(t, "bp_pat_nope", "GET /v1/admin/account/me", "").want(t, 401, "Unauthorized")
		err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			return sqldb.Delete(tx, "accounts", "WHERE id = $1", ann.account)
		})
		if err != nil {
			t.Fatal(err)
		}
		r.do(t, ann.token, "GET /v1/admin/account/me", "").want(t, 401, "account of this token no longer exists")
	})
}

func TestGetWorkspace(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann, bob := r.person(t, "ann@example.com"), r.person(t, "bob@example.com")
		r.do(t, ann.token, "GET /v1/admin/workspaces/"+ann.workspace, "").want(t, 200, ann.workspace).golden(t, "getWorkspace/ok")
		for _, id := range []string{bob.workspace, "wkspace_01ZZZZZZZZZZZZZZZZZZZZZZZZ", "nonsense", "a%2Fb", "%20"} {
			r.do(t, ann.token, "GET /v1/admin/workspaces/"+id, "").want(t, 404, `doesn't exist`)
		}
		r.do(t, ann.token, "GET /v1/admin/workspaces/"+bob.workspace, "").golden(t, "getWorkspace/foreign")

		addBots(t, db, ann.workspace, 3)
		r.do(t, ann.token, "GET /v1/admin/workspaces/"+ann.workspace, "").want(t, 200, `"botCount":3`)
	})
}

func addBots(t *testing.T, db *sqldb.DB, workspace string, n int) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
		for i := range n {
			_, err := tx.Exec(`INSERT INTO bots (id, workspace_id, name, description, dev, builtin, url, definition, tags, configuration, created_by, created_at, updated_at, deployed_at)
				VALUES ($1, $2, 'x', '', FALSE, '', '', '{}', '{}', $3, '', 0, 0, 0)`, fmt.Sprint("bot_", i), workspace, []byte{0})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestListWorkspaces(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann, bob := r.person(t, "ann@example.com"), r.person(t, "bob@example.com")
		r.do(t, ann.token, "GET /v1/admin/workspaces", "").want(t, 200, ann.workspace).golden(t, "listWorkspaces/ok")

		want := map[string]bool{ann.workspace: true}
		for i := range 44 {
			r.tick()
			w, err := r.Create(t.Context(), NewWorkspace{Email: "ann@example.com", Name: fmt.Sprint("w", i)})
			if err != nil || w.OwnerID != ann.account {
				t.Fatalf("%+v, %v; want the account of the address", w, err)
			}
			want[w.ID] = true
		}
		next, pages, last := "", 0, start*2
		for {
			got := decode[workspaceList](t, r.do(t, ann.token, "GET /v1/admin/workspaces?nextToken="+next, ""))
			pages++
			for _, w := range got.Workspaces {
				if !want[w.ID] || int64(w.CreatedAt) > last {
					t.Fatalf("page %d has %s of %s: twice, foreign or out of order", pages, w.ID, w.CreatedAt)
				}
				last = int64(w.CreatedAt)
				delete(want, w.ID)
			}
			if next = got.Meta.NextToken; next == "" {
				break
			}
		}
		if len(want) != 0 || pages != 3 {
			t.Errorf("%d pages; never shown: %v", pages, want)
		}
		token := decode[workspaceList](t, r.do(t, ann.token, "GET /v1/admin/workspaces", "")).Meta.NextToken
		r.do(t, bob.token, "GET /v1/admin/workspaces?nextToken="+token, "").want(t, 400, "InvalidQuery")
		r.do(t, ann.token, "GET /v1/admin/workspaces?handle=x&nextToken="+token, "").want(t, 400, "InvalidQuery")
		r.do(t, ann.token, "GET /v1/admin/workspaces?nextToken=nonsense", "").want(t, 400, "InvalidQuery")
		r.do(t, ann.token, "GET /v1/admin/workspaces?handle=nobodys", "").want(t, 200, `"workspaces":[]`)
	})
}

// Two that ask for one new address at once get one account.
func TestCreateAccountOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		owners := make(chan string, 8)
		for range cap(owners) {
			go func() {
				w, err := r.Create(t.Context(), NewWorkspace{Email: "new@example.com", Name: "w"})
				if err != nil {
					t.Error(err)
					owners <- ""
					return
				}
				owners <- w.OwnerID
			}()
		}
		first := <-owners
		for range cap(owners) - 1 {
			if o := <-owners; o != first {
				t.Errorf("owners %s and %s", first, o)
			}
		}
	})
}
