package workspace

import (
	"fmt"
	"strings"
	"testing"

	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

const iaks = "/v1/admin/integrations/iaks"

func TestIntegrationApiKeys(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann, bob := r.person(t, "ann@example.com"), r.person(t, "bob@example.com")
		as := func(p person) string { return "x-workspace-id: " + p.workspace }
		mine := integrationOf(ann.workspace)
		r.tick()

		made := r.do(t, ann.token, "POST "+iaks, `{"integrationId":"`+mine+`","note":"production"}`, as(ann)).want(t, 200, `"value":"bp_iak_`)
		made.golden(t, "createIntegrationApiKey/ok")
		r.tick()
		r.do(t, ann.token, "POST "+iaks, `{"integrationId":"`+mine+`"}`, as(ann)).want(t, 200, `"note":""`)
		value, id := made.get(t, "value"), made.get(t, "id")
		if got, err := r.Token(t.Context(), auth.HashToken(value)); err != nil || got == nil || got.Kind != auth.IAK || got.IntegrationID != mine {
			t.Errorf("the key is %+v, %v", got, err)
		}

		list := r.do(t, ann.token, "GET "+iaks+"?integrationId="+mine, "", as(ann)).want(t, 200, id)
		list.golden(t, "listIntegrationApiKeys/ok")
		if strings.Contains(string(list.body), value) {
			t.Error("the list shows a key's text")
		}
		r.do(t, bob.token, "GET "+iaks+"?integrationId="+integrationOf(bob.workspace), "", as(bob)).want(t, 200, `"iaks":[]`)

		// Another workspace has no part in it, and neither has the key itself.
		for _, other := range []string{mine, "intver_01ZZZZZZZZZZZZZZZZZZZZZZZZ"} {
			r.do(t, bob.token, "GET "+iaks+"?integrationId="+other, "", as(bob)).want(t, 400, "ReferenceNotFound")
			r.do(t, bob.token, "POST "+iaks, `{"integrationId":"`+other+`"}`, as(bob)).want(t, 400, "ReferenceNotFound")
		}
		r.do(t, bob.token, "DELETE "+iaks+"/"+id, "", as(bob)).want(t, 404, "doesn't exist")
		r.do(t, value, "GET "+iaks+"?integrationId="+mine, "", as(ann)).want(t, 403, "personal access token")
		for _, other := range []string{"iak_01ZZZZZZZZZZZZZZZZZZZZZZZZ", ann.tokenID, "nonsense", "%00"} {
			if got := r.do(t, ann.token, "DELETE "+iaks+"/"+other, "", as(ann)); got.status != 404 && got.status != 400 {
				t.Errorf("%s: %d %s", other, got.status, got.body)
			}
		}

		r.do(t, ann.token, "DELETE "+iaks+"/"+id, "", as(ann)).want(t, 200, "{}")
		if got, err := r.Token(t.Context(), auth.HashToken(value)); got != nil || err != nil {
			t.Errorf("the revoked key is %+v, %v", got, err)
		}
		r.do(t, ann.token, "DELETE "+iaks+"/"+id, "", as(ann)).want(t, 404, "doesn't exist").golden(t, "deleteIntegrationApiKey/missing")

		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error { return r.ForgetIntegration(tx, mine) }); err != nil {
			t.Fatal(err)
		}
		r.do(t, ann.token, "GET "+iaks+"?integrationId="+mine, "", as(ann)).want(t, 200, `"iaks":[]`)
		r.do(t, ann.token, "GET "+pats, "").want(t, 200, ann.tokenID)
	})
}

func TestIntegrationApiKeysRefuse(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann := r.person(t, "ann@example.com")
		as := "x-workspace-id: " + ann.workspace
		mine := integrationOf(ann.workspace)
		for _, c := range []struct{ request, body, want string }{
			{"POST " + iaks, `{}`, "integrationId is required"},
			{"POST " + iaks, `{"integrationId":"x"}`, "The provided UUID is invalid"},
			{"POST " + iaks, `{"integrationId":7}`, "integrationId must be a string"},
			{"POST " + iaks, `{"integrationId":"` + mine + `","note":7}`, "note must be a string"},
			{"POST " + iaks, `{"integrationId":"` + mine + `","note":"` + strings.Repeat("x", 1001) + `"}`, "note must have at most 1000"},
			{"POST " + iaks, `{"integrationId":"` + mine + `","botId":"x"}`, "botId"},
			{"GET " + iaks, "", "integrationId"},
			{"GET " + iaks + "?integrationId=x", "", "The provided UUID is invalid"},
		} {
			r.do(t, ann.token, c.request, c.body, as).want(t, 400, c.want)
		}
		for n := range maxKeys {
			r.do(t, ann.token, "POST "+iaks, fmt.Sprintf(`{"integrationId":%q,"note":"%d"}`, mine, n), as).want(t, 200, "bp_iak_")
		}
		r.do(t, ann.token, "POST "+iaks, `{"integrationId":"`+mine+`"}`, as).want(t, 413, "LimitExceeded")
	})
}

// A key does not outlive the token that made it.
func TestIntegrationApiKeysExpireWithTheirMaker(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann := r.person(t, "ann@example.com")
		_, text, err := r.CreateToken(t.Context(), Token{Kind: auth.PAT, AccountID: ann.account, ExpiresAt: 1772366400000 + 5000})
		if err != nil {
			t.Fatal(err)
		}
		made := r.do(t, string(text), "POST "+iaks, `{"integrationId":"`+integrationOf(ann.workspace)+`"}`, "x-workspace-id: "+ann.workspace).want(t, 200, "bp_iak_")
		if got, err := r.Token(t.Context(), auth.HashToken(made.get(t, "value"))); err != nil || got.ExpiresAt != start+5000 {
			t.Errorf("the key is %+v, %v", got, err)
		}
	})
}
