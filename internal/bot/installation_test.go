package bot

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"parley/internal/bus"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestInstall(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, `{"name":"Bella"}`)
		body := `{"integrations":{"chat":{"integrationId":"` + chat10 + `","enabled":true,"configuration":{"encryptionKey":"k"}},"acme/hooky":{"integrationId":"` + hooky + `","enabled":false,"disabledChannels":["channel"],"configurationType":"oauth"}}}`
		r.put(t, botID, body).golden(t, "updateBot/by-alias")
		r.do(t, ours, "GET "+bots+"/"+botID, "").golden(t, "getBot/by-id")
		first := r.shown(t, botID).Integrations["chat"]

		// What is absent stays.
		r.clock.Add(1000)
		r.put(t, botID, `{"integrations":{"chat":{"disabledChannels":["channel"]}}}`).want(t, 200, "chat")
		b := r.shown(t, botID)
		if c := b.Integrations["chat"]; string(c.Configuration) != `{"encryptionKey":"k"}` || !c.Enabled || !slices.Equal(c.DisabledChannels, []string{"channel"}) || c.WebhookID != first.WebhookID || c.UpdatedAt != first.UpdatedAt+1000 {
			t.Errorf("got %+v", c)
		}
		if h := b.Integrations["acme/hooky"]; h.Enabled || h.Status != "unregistered" || h.UpdatedAt != first.UpdatedAt || h.ConfigurationType.Value != "oauth" {
			t.Errorf("got %+v", h)
		}
		r.put(t, botID, `{"integrations":{"acme/hooky":{"configurationType":null,"enabled":true}}}`).want(t, 200, "hooky")
		if h := r.shown(t, botID).Integrations["acme/hooky"]; !h.ConfigurationType.Null || !h.Enabled || h.Status != "registration_pending" {
			t.Errorf("got %+v", h)
		}
		// A body without integrations leaves them.
		r.put(t, botID, `{"name":"n"}`).want(t, 200, "hooky")
	})
}

// An installation that is removed and comes back is the same one.
func TestReinstall(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, `{}`)
		install := `{"integrations":{"door":{"integrationId":"` + chat10 + `","configuration":{"encryptionKey":"k"}}}}`
		r.put(t, botID, install).want(t, 200, "door")
		before := r.shown(t, botID).Integrations["door"]
		r.put(t, botID, `{"integrations":{"door":null}}`).want(t, 200, `"integrations":{}`)
		d, err := r.Definition(t.Context(), botID)
		if err != nil || len(d.Installations) != 1 || !d.Installations[0].Removed || d.Installations[0].Enabled {
			t.Fatalf("%+v, %v; a removed installation keeps its row", d, err)
		}
		r.put(t, botID, `{"integrations":{"door":null,"never":null}}`).want(t, 200, botID)
		r.put(t, botID, `{"integrations":{"door":{"integrationId":"`+hooky+`"}}}`).want(t, 409, "RelationConflict")
		r.put(t, botID, `{"integrations":{"door":{"integrationId":"`+chat11+`"}}}`).want(t, 200, "door")
		after := r.shown(t, botID).Integrations["door"]
		if after.WebhookID != before.WebhookID || after.ID != chat11 || after.CreatedAt != before.CreatedAt || !after.Enabled || string(after.Configuration) != `{"encryptionKey":"k"}` {
			t.Errorf("got %+v, before %+v", after, before)
		}
	})
}

// Old clients know no aliases: they key by the id of the installed version.
func TestInstallByVersionID(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, `{}`)
		path := "PUT " + bots + "/" + botID
		r.do(t, ours, path, `{"integrations":{"`+chat10+`":{"enabled":true}}}`).want(t, 200, `"integrations":{"`+chat10+`":`)
		first := r.shown(t, botID).Integrations["chat"]
		if first.WebhookID == "" || first.ID != chat10 {
			t.Fatalf("%+v", r.shown(t, botID).Integrations)
		}
		r.do(t, ours, path, `{"integrations":{"`+chat10+`":{"configuration":{"encryptionKey":"k"}}}}`).want(t, 200, chat10)
		// An upgrade names the old version and the new one.
		r.do(t, ours, path, `{"integrations":{"`+chat10+`":null,"`+chat11+`":{}}}`).want(t, 200, `"integrations":{"`+chat11+`":`)
		if got := r.shown(t, botID).Integrations["chat"]; got.WebhookID != first.WebhookID || got.ID != chat11 || string(got.Configuration) != `{"encryptionKey":"k"}` || !got.Enabled {
			t.Errorf("after the upgrade: %+v", got)
		}
		if len(r.ended) != 1 { // the new encryption key, not the upgrade
			t.Errorf("ended %v", r.ended)
		}
		// Or the new one only.
		r.do(t, ours, path, `{"integrations":{"`+chat10+`":{}}}`).want(t, 200, chat10)
		if got := r.shown(t, botID).Integrations; len(got) != 1 || got["chat"].WebhookID != first.WebhookID {
			t.Errorf("after the second upgrade: %+v", got)
		}
		// An installation with an alias of its own is found as well.
		r.put(t, botID, `{"integrations":{"chat":null,"door":{"integrationId":"`+chat10+`"}}}`).want(t, 200, "door")
		r.do(t, ours, path, `{"integrations":{"`+chat10+`":null,"`+chat11+`":{"enabled":false}}}`).want(t, 200, chat11)
		if got := r.shown(t, botID).Integrations; len(got) != 1 || got["door"].ID != chat11 || got["door"].Enabled {
			t.Errorf("under an alias: %+v", got)
		}
		// Two of one version cannot be told apart by its id.
		r.put(t, botID, `{"integrations":{"chat":{"integrationId":"`+chat11+`"}}}`).want(t, 200, "door")
		r.do(t, ours, path, `{"integrations":{"`+chat11+`":{"enabled":true}}}`).want(t, 400, "is installed as chat, door")
		r.do(t, ours, path, `{"integrations":{"`+chat10+`":{"enabled":true}}}`).want(t, 400, "is installed as chat, door")
		r.do(t, ours, path, `{"integrations":{"`+chat11+`":null}}`).want(t, 400, "is installed as chat, door")
		if got := r.do(t, ours, "GET "+bots+"/"+botID, ""); strings.Count(string(got.body), "webhookId") != 1 {
			t.Errorf("keyed by version id: %s", got.body)
		}
		r.put(t, botID, `{"integrations":{"chat":null}}`).want(t, 200, "door")
		r.do(t, ours, path, `{"integrations":{"`+chat11+`":null}}`).want(t, 200, `"integrations":{}`)
	})
}

// Streams end when admission may have changed, and only then.
func TestEnded(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, `{}`)
		for _, c := range []struct {
			value string
			ended int
		}{
			{`{"integrationId":"` + chat10 + `"}`, 0},
			{`{"integrationId":"` + chat11 + `"}`, 0},
			{`{"enabled":true}`, 0},
			{`{"configuration":{"encryptionKey":"k"}}`, 1},
			{`{"configuration":{"encryptionKey":"k"}}`, 0},
			{`{"enabled":false}`, 1},
			{`{"enabled":false,"configuration":{}}`, 0},
			{`{"enabled":true}`, 0},
			{`null`, 1},
			{`null`, 0},
		} {
			r.ended, r.changed = nil, nil
			r.put(t, botID, `{"integrations":{"chat":`+c.value+`}}`).want(t, 200, botID)
			if len(r.ended) != c.ended || !slices.Equal(r.changed, []string{botID}) {
				t.Errorf("%s: ended %v, changed %v; want %d ended", c.value, r.ended, r.changed, c.ended)
			}
		}
	})
}

func TestGoodAlias(t *testing.T) {
	t.Parallel()
	for alias, want := range map[string]bool{
		"chat": true, "Chat": true, "acme/hooky": true, "my-chat_2": true, "a": true, strings.Repeat("a", 100): true,
		"": false, "2chat": false, "/x": false, "a.b": false, "a:b": false, "a b": false, "é": false, "a#b": false, "a[b]": false, strings.Repeat("a", 101): false,
	} {
		if goodAlias(alias) != want {
			t.Errorf("%q: want %v", alias, want)
		}
	}
}

// Two updates at once do not lose each other's installation.
func TestConcurrentUpdates(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, `{}`)
		aliases := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		done := make(chan answer)
		for _, alias := range aliases {
			go func() {
				done <- r.do(t, ours, "PUT "+bots+"/"+botID, `{"tags":{"tag`+alias+`":"1"},"integrations":{"`+alias+`":{"integrationId":"`+chat10+`"}}}`)
			}()
		}
		for range aliases {
			if a := <-done; a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
		b := r.shown(t, botID)
		if got := slices.Sorted(maps.Keys(b.Integrations)); !slices.Equal(got, aliases) || len(b.Tags) != len(aliases) {
			t.Errorf("left are %v and %v", got, b.Tags)
		}
	})
}
