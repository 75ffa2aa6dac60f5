package workspace

import (
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/fault"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

const pats = "/v1/admin/account/pats"

func TestPersonalAccessTokens(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann, bob := r.person(t, "ann@example.com"), r.person(t, "bob@example.com")
		r.tick()
		made := r.do(t, ann.token, "POST "+pats, `{"note":"for CI"}`).want(t, 200, `"value":"bp_pat_`)
		made.golden(t, "createPersonalAccessToken/ok")
		value, id := made.get(t, "pat", "value"), made.get(t, "pat", "id")
		r.do(t, value, "GET /v1/admin/account/me", "").want(t, 200, ann.account)

		r.do(t, value, "GET "+pats, "").want(t, 200, id).golden(t, "listPersonalAccessTokens/ok")
		if strings.Contains(string(r.do(t, value, "GET "+pats, "").body), value) {
			t.Error("the list shows a token's text")
		}
		r.do(t, bob.token, "GET "+pats, "").want(t, 200, bob.tokenID)

		// Whose it is not, and what is no token, is one and the same.
		for _, other := range []string{bob.tokenID, "pat_01ZZZZZZZZZZZZZZZZZZZZZZZZ", "nonsense", "%2e%2e"} {
			r.do(t, ann.token, "DELETE "+pats+"/"+other, "").want(t, 404, `doesn't exist`)
		}
		r.do(t, bob.token, "GET "+pats, "").want(t, 200, bob.tokenID)

		r.do(t, ann.token, "DELETE "+pats+"/"+id, "").want(t, 200, "{}").golden(t, "deletePersonalAccessToken/ok")
		r.do(t, value, "GET /v1/admin/account/me", "").want(t, 401, "unknown or was revoked")
		r.do(t, ann.token, "DELETE "+pats+"/"+id, "").want(t, 404, "doesn't exist").golden(t, "deletePersonalAccessToken/missing")
	})
}

func TestCreatePersonalAccessTokenRefuses(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann := r.person(t, "ann@example.com")
		for name, c := range map[string]struct{ body, want string }{
			"nothing":   {`{}`, "note is required"},
			"null":      {`{"note":null}`, "note must not be null"},
			"number":    {`{"note":1}`, "note must be a string"},
			"too long":  {`{"note":"` + strings.Repeat("x", 1001) + `"}`, "note must have at most 1000"},
			"unknown":   {`{"note":"x","scope":"all"}`, "scope"},
			"malformed": {`{"note":`, "JSON"},
		} {
			t.Log(name)
			r.do(t, ann.token, "POST "+pats, c.body).want(t, 400, c.want)
		}
		if got := decode[tokenList](t, r.do(t, ann.token, "GET "+pats, "")); len(got.Tokens) != 1 {
			t.Errorf("refused requests left %d tokens", len(got.Tokens)-1)
		}
	})
}

// A token that is bound to a workspace and a time makes tokens that are bound
// alike, and does not touch wider ones.
func TestTokensDoNotWiden(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann := r.person(t, "ann@example.com")
		w2, err := r.Create(t.Context(), NewWorkspace{Email: "ann@example.com", Name: "second"})
		if err != nil {
			t.Fatal(err)
		}
		_, narrow, err := r.CreateToken(t.Context(), Token{Kind: auth.PAT, AccountID: ann.account, WorkspaceID: w2.ID, ExpiresAt: api.Time(start + 5000)})
		if err != nil {
			t.Fatal(err)
		}
		child := r.do(t, string(narrow), "POST "+pats, `{"note":"child"}`).get(t, "pat", "value")
		r.do(t, child, "GET /v1/admin/workspaces/"+w2.ID, "").want(t, 200, w2.ID)
		r.do(t, child, "GET /v1/admin/workspaces/"+ann.workspace, "").want(t, 404, "doesn't exist")
		if got := decode[workspaceList](t, r.do(t, child, "GET /v1/admin/workspaces", "")); len(got.Workspaces) != 1 || got.Workspaces[0].ID != w2.ID {
			t.Errorf("a bound token lists %v", got.Workspaces)
		}
		if got := decode[tokenList](t, r.do(t, child, "GET "+pats, "")); len(got.Tokens) != 2 {
			t.Errorf("a bound token lists %d tokens", len(got.Tokens))
		}
		r.do(t, child, "DELETE "+pats+"/"+ann.tokenID, "").want(t, 404, "doesn't exist")
		r.clock.Store(start + 5000)
		r.do(t, child, "GET /v1/admin/account/me", "").want(t, 401, "expired")
		r.do(t, ann.token, "GET /v1/admin/account/me", "").want(t, 200, ann.account)
	})
}

func TestTokenLimit(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann := r.person(t, "ann@example.com")
		err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			for range maxTokens - 1 {
				if _, _, err := r.insertToken(tx, Token{Kind: auth.PAT, AccountID: ann.account}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		r.do(t, ann.token, "POST "+pats, `{"note":"x"}`).want(t, 413, "LimitExceeded")
	})
}

// A repeated request under one key makes one token, and the second answer is the first.
func TestCreatePersonalAccessTokenOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann := r.person(t, "ann@example.com")
		a := r.do(t, ann.token, "POST "+pats, `{"note":"x"}`, "Idempotency-Key: k1").want(t, 200, "bp_pat_")
		b := r.do(t, ann.token, "POST "+pats, `{"note":"x"}`, "Idempotency-Key: k1").want(t, 200, "bp_pat_")
		if string(a.body) != string(b.body) {
			t.Errorf("first %s, then %s", a.body, b.body)
		}
		if got := decode[tokenList](t, r.do(t, ann.token, "GET "+pats, "")); len(got.Tokens) != 2 {
			t.Errorf("%d tokens", len(got.Tokens))
		}
	})
}

func TestTokensOfEveryKind(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ctx := t.Context()
		for _, bad := range []Token{
			{}, {Kind: "xyz", AccountID: "a"}, {Kind: auth.PAT}, {Kind: auth.PAT, BotID: "b"}, {Kind: auth.BAK, AccountID: "a", BotID: "b"}, {Kind: auth.IAK, BotID: "b"},
		} {
			if _, _, err := r.CreateToken(ctx, bad); !fault.Is(err, fault.InvalidPayload) {
				t.Errorf("%+v: %v", bad, err)
			}
		}
		var hashes []string
		for _, want := range []Token{
			{Kind: auth.PAT, AccountID: "accnt_1"}, {Kind: auth.BAK, BotID: "bot_1", ExpiresAt: 5}, {Kind: auth.BAK, BotID: "bot_2"}, {Kind: auth.IAK, IntegrationID: "intver_1"},
		} {
			r.tick()
			made, text, err := r.CreateToken(ctx, want)
			if err != nil || !strings.HasPrefix(string(text), "bp_"+want.Kind+"_") {
				t.Fatalf("%+v: %q, %v", want, string(text), err)
			}
			hash := auth.HashToken(string(text))
			hashes = append(hashes, hash)
			got, err := r.Token(ctx, hash)
			if err != nil || *got != (auth.Token{ID: made.ID, Kind: want.Kind, AccountID: want.AccountID, BotID: want.BotID, IntegrationID: want.IntegrationID, ExpiresAt: int64(want.ExpiresAt)}) {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		}
		if list, err := r.ListTokens(ctx); err != nil || len(list) != 4 || list[0].Kind != auth.IAK || list[3].Kind != auth.PAT {
			t.Errorf("%v, %v", list, err)
		}
		if err := db.Write(ctx, func(tx *sqldb.Tx) error { return r.ForgetBot(tx, "bot_1") }); err != nil {
			t.Fatal(err)
		}
		for i, want := range []bool{true, false, true, true} {
			if got, err := r.Token(ctx, hashes[i]); err != nil || (got != nil) != want {
				t.Errorf("token %d after the bot was deleted: %v, %v", i, got, err)
			}
		}
		if err := r.RevokeToken(ctx, "pat_nope"); !fault.Is(err, fault.ResourceNotFound) {
			t.Errorf("revoking nothing: %v", err)
		}
	})
}

// A revoked token is refused by the next request, on this node and through the bus on another.
func TestRevokeAtOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		shared := bus.NewLocal()
		here, there := newRig(t, a, shared, time.Hour), newRig(t, b, shared, time.Hour)
		ann := here.person(t, "ann@example.com")
		for range 2 {
			there.do(t, ann.token, "GET /v1/admin/account/me", "").want(t, 200, ann.account)
		}
		if err := here.RevokeToken(t.Context(), ann.tokenID); err != nil {
			t.Fatal(err)
		}
		here.do(t, ann.token, "GET /v1/admin/account/me", "").want(t, 401, "revoked")
		there.do(t, ann.token, "GET /v1/admin/account/me", "").want(t, 401, "revoked")
	})
}

// Where the bus loses the message, the other node believes a token for MaxAge and no longer.
func TestRevokeWithoutBus(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		here, there := newRig(t, a, bus.NewLocal(), time.Second), newRig(t, b, bus.NewLocal(), time.Second)
		ann := here.person(t, "ann@example.com")
		there.do(t, ann.token, "GET /v1/admin/account/me", "").want(t, 200, ann.account)
		if err := here.RevokeToken(t.Context(), ann.tokenID); err != nil {
			t.Fatal(err)
		}
		there.clock.Add(1000)
		there.do(t, ann.token, "GET /v1/admin/account/me", "").want(t, 401, "revoked")
	})
}

// While one token is used and revoked at the same time, nobody gets in after the revocation was answered.
func TestRevokeRace(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann := r.person(t, "ann@example.com")
		for range 20 {
			made, text, err := r.CreateToken(t.Context(), Token{Kind: auth.PAT, AccountID: ann.account})
			if err != nil {
				t.Fatal(err)
			}
			var users sync.WaitGroup
			for range 4 {
				users.Go(func() {
					for {
						if k, err := r.Token(t.Context(), auth.HashToken(string(text))); err != nil || k == nil {
							return
						}
					}
				})
			}
			if err := r.RevokeToken(t.Context(), made.ID); err != nil {
				t.Fatal(err)
			}
			if k, _ := r.Token(t.Context(), auth.HashToken(string(text))); k != nil {
				t.Fatal("the token outlived its revocation")
			}
			users.Wait()
		}
	})
}

func TestMember(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann, bob := r.person(t, "ann@example.com"), r.person(t, "bob@example.com")
		for _, c := range []struct {
			account, workspace string
			want               bool
		}{
			{ann.account, ann.workspace, true}, {ann.account, bob.workspace, false}, {bob.account, ann.workspace, false}, {"", ann.workspace, false}, {"a b", "c", false},
		} {
			for range 2 { // from the database, then from memory
				if got, err := r.Member(t.Context(), c.account, c.workspace); err != nil || got != c.want {
					t.Errorf("%q in %q: %v, %v", c.account, c.workspace, got, err)
				}
			}
		}
	})
}
