package workspace

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

const (
	signedPath  = "/v1/parley/signing-secrets"
	rotatedPath = signedPath + "/rotate"
)

// signedBot makes a bot of a workspace, with a secret and a key of its own.
func (r *rig) signedBot(t *testing.T, workspaceID string) (botID, key string) {
	t.Helper()
	botID = id.At("bot", r.clock.Load())
	r.tick()
	err := r.DB.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(`INSERT INTO bots (id, workspace_id, name, description, dev, builtin, url, definition, tags, configuration, created_by, created_at, updated_at, deployed_at)
			VALUES ($1, $2, 'x', '', FALSE, '', '', '{}', '{}', $3, '', 0, 0, 0)`, botID, workspaceID, []byte{0})
		if err != nil {
			return err
		}
		return r.Secrets.Create(tx, botID)
	})
	if err != nil {
		t.Fatal(err)
	}
	_, text, err := r.CreateToken(t.Context(), Token{Kind: auth.BAK, BotID: botID})
	if err != nil {
		t.Fatal(err)
	}
	return botID, string(text)
}

// secrets are the texts in an answer, the newest first.
func (a answer) secrets(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, one := range decode[struct {
		Secrets []struct {
			Secret    string   `json:"secret"`
			CreatedAt api.Time `json:"createdAt"`
			RetiresAt api.Time `json:"retiresAt"`
		} `json:"signingSecrets"`
	}](t, a).Secrets {
		out = append(out, one.Secret)
	}
	return out
}

func TestSigningSecrets(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann := r.person(t, "ann@example.com")
		botID, key := r.signedBot(t, ann.workspace)
		of := "?botId=" + botID

		got := r.do(t, ann.token, "GET "+signedPath+of, "").want(t, 200, "whsec_")
		got.golden(t, "getSigningSecrets/ok")
		first := got.secrets(t)
		for _, same := range []answer{
			r.do(t, ann.token, "GET "+signedPath, "", "x-bot-id: "+botID),
			r.do(t, ann.token, "GET "+signedPath+of, "", "x-bot-id: "+botID),
			r.do(t, key, "GET "+signedPath, ""),
			r.do(t, key, "GET "+signedPath+of, ""),
		} {
			if s := same.secrets(t); len(s) != 1 || s[0] != first[0] {
				t.Errorf("another way shows %s", same.body)
			}
		}

		r.tick()
		got = r.do(t, ann.token, "POST "+rotatedPath, `{"botId":"`+botID+`","keepFor":60}`).want(t, 200, "retiresAt")
		got.golden(t, "rotateSigningSecret/ok")
		second := got.secrets(t)
		if len(second) != 2 || second[1] != first[0] || second[0] == first[0] {
			t.Errorf("after the rotation: %s", got.body)
		}
		if s := r.do(t, key, "GET "+signedPath, "").secrets(t); len(s) != 2 || s[0] != second[0] {
			t.Errorf("the bot's key sees %v", s)
		}
		r.clock.Add(60_000)
		r.do(t, ann.token, "GET "+signedPath+of, "").golden(t, "getSigningSecrets/retired")

		// A day, unless something else is said; none at all where that is said.
		r.do(t, ann.token, "POST "+rotatedPath, `{}`, "x-bot-id: "+botID).want(t, 200, api.At(r.Now().Add(24*time.Hour)).String())
		if s := r.do(t, ann.token, "POST "+rotatedPath, `{"botId":"`+botID+`","keepFor":0}`).secrets(t); len(s) != 1 {
			t.Errorf("replaced at once, %d secrets are left", len(s))
		}
	})
}

// All versions of an integration, however they are named, have one secret.
func TestSigningSecretsOfAnIntegration(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann, bob := r.person(t, "ann@example.com"), r.person(t, "bob@example.com")
		of := "?integrationId=" + integrationOf(ann.workspace)
		r.do(t, ann.token, "GET "+signedPath+of, "").want(t, 200, `{"signingSecrets":[]}`)
		made := r.do(t, ann.token, "POST "+rotatedPath, `{"integrationId":"`+integrationOf(ann.workspace)+`"}`).secrets(t)
		if s := r.do(t, ann.token, "GET "+signedPath+of, "").secrets(t); len(s) != 1 || s[0] != made[0] {
			t.Errorf("made %v, found %v", made, s)
		}
		if s, err := r.Secrets.Current(db.Reader(t.Context()), ann.workspace+"/hooky"); err != nil || string(s) != made[0] {
			t.Errorf("the family has another one (%v)", err)
		}
		r.do(t, bob.token, "GET "+signedPath+of, "").want(t, 400, "ReferenceNotFound")
	})
}

func TestSigningSecretsAreTheOwners(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann, bob := r.person(t, "ann@example.com"), r.person(t, "bob@example.com")
		annsBot, annsKey := r.signedBot(t, ann.workspace)
		other, _ := r.signedBot(t, ann.workspace)
		bobsBot, bobsKey := r.signedBot(t, bob.workspace)
		_, onlyAnns, err := r.CreateToken(t.Context(), Token{Kind: auth.PAT, AccountID: ann.account, WorkspaceID: ann.workspace})
		if err != nil {
			t.Fatal(err)
		}
		r.join(t, ann.account, bob.workspace)
		r.do(t, ann.token, "GET "+signedPath+"?botId="+bobsBot, "").want(t, 200, "whsec_")
		iak := r.keyOf(t, integrationOf(ann.workspace))

		const absent = "bot_01ZZZZZZZZZZZZZZZZZZZZZZZZ"
		for _, c := range []struct {
			what, token, request, body, header string
			status                             int
			says                               string
		}{
			{"nothing named", ann.token, "GET " + signedPath, "", "", 400, "botId or integrationId is required"},
			{"nothing named", ann.token, "POST " + rotatedPath, "{}", "", 400, "botId or integrationId is required"},
			{"both named", ann.token, "GET " + signedPath + "?botId=" + annsBot + "&integrationId=" + integrationOf(ann.workspace), "", "", 400, "exclude each other"},
			{"no id", ann.token, "GET " + signedPath + "?botId=bella", "", "", 400, "The provided UUID is invalid"},
			{"no id", ann.token, "POST " + rotatedPath, `{"integrationId":"hooky"}`, "", 400, "The provided UUID is invalid"},
			{"a bot that is not", ann.token, "GET " + signedPath + "?botId=" + absent, "", "", 400, `botId: bot \"` + absent + `\" doesn't exist`},
			{"an integration that is not", ann.token, "GET " + signedPath + "?integrationId=intver_01ZZZZZZZZZZZZZZZZZZZZZZZZ", "", "", 400, "doesn't exist"},
			{"a bot of others", bob.token, "GET " + signedPath + "?botId=" + annsBot, "", "", 400, `botId: bot \"` + annsBot + `\" doesn't exist`},
			{"a bot of others", bob.token, "POST " + rotatedPath, `{"botId":"` + annsBot + `"}`, "", 400, "ReferenceNotFound"},
			{"a bot outside the token's workspace", string(onlyAnns), "GET " + signedPath + "?botId=" + bobsBot, "", "", 400, "ReferenceNotFound"},
			{"an integration outside the token's workspace", string(onlyAnns), "GET " + signedPath + "?integrationId=" + integrationOf(bob.workspace), "", "", 400, "ReferenceNotFound"},
			{"another bot than the header's", ann.token, "GET " + signedPath + "?botId=" + other, "", "x-bot-id: " + annsBot, 400, "ReferenceNotFound"},
			{"another bot than the key's", annsKey, "GET " + signedPath + "?botId=" + other, "", "", 400, "ReferenceNotFound"},
			{"another bot than the key's", bobsKey, "GET " + signedPath, "", "x-bot-id: " + annsBot, 403, "Forbidden"},
			{"an integration, with a bot's key", annsKey, "GET " + signedPath + "?integrationId=" + integrationOf(ann.workspace), "", "", 400, "ReferenceNotFound"},
			{"a rotation with a bot's key", annsKey, "POST " + rotatedPath, `{"botId":"` + annsBot + `"}`, "", 403, "does not replace them"},
			{"an integration's key", iak, "GET " + signedPath + "?integrationId=" + integrationOf(ann.workspace), "", "", 403, "not for integrations"},
			{"too long", ann.token, "POST " + rotatedPath, `{"botId":"` + annsBot + `","keepFor":2592001}`, "", 400, "keepFor"},
			{"too short", ann.token, "POST " + rotatedPath, `{"botId":"` + annsBot + `","keepFor":-1}`, "", 400, "keepFor"},
			{"no number", ann.token, "POST " + rotatedPath, `{"botId":"` + annsBot + `","keepFor":"1h"}`, "", 400, "keepFor"},
			{"an unknown member", ann.token, "POST " + rotatedPath, `{"botId":"` + annsBot + `","secret":"whsec_x"}`, "", 400, "secret"},
		} {
			var header []string
			if c.header != "" {
				header = append(header, c.header)
			}
			got := r.do(t, c.token, c.request, c.body, header...)
			if got.status != c.status || !strings.Contains(string(got.body), c.says) {
				t.Errorf("%s: got %d %s, want %d with %q", c.what, got.status, got.body, c.status, c.says)
			}
		}
		if list, err := r.Secrets.List(db.Reader(t.Context()), annsBot); err != nil || len(list) != 1 {
			t.Errorf("strangers rotated: %d secrets, %v", len(list), err)
		}
	})
}

// A rotation that is sent again under its idempotency key happens once.
func TestRotateSigningSecretOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ann := r.person(t, "ann@example.com")
		botID, _ := r.signedBot(t, ann.workspace)
		var all []string
		for range 3 {
			all = append(all, fmt.Sprint(r.do(t, ann.token, "POST "+rotatedPath, `{"botId":"`+botID+`"}`, "idempotency-key: k1").secrets(t)))
		}
		if all[0] != all[1] || all[1] != all[2] {
			t.Errorf("rotated to %v", all)
		}
	})
}

// join makes an account a member of a workspace.
func (r *rig) join(t *testing.T, accountID, workspaceID string) {
	t.Helper()
	err := r.DB.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := sqldb.Insert(tx, "members", &member{WorkspaceID: workspaceID, AccountID: accountID, Role: "member", CreatedAt: r.now()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// keyOf makes a key of an integration.
func (r *rig) keyOf(t *testing.T, integrationID string) string {
	t.Helper()
	_, text, err := r.CreateToken(context.WithoutCancel(t.Context()), Token{Kind: auth.IAK, IntegrationID: integrationID})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
