package bot

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestDefinition(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, everything)
		r.put(t, botID, `{"integrations":{"chat":{"integrationId":"`+chat10+`","configuration":{"encryptionKey":"k"}}}}`).want(t, 200, "chat")
		d, err := r.Definition(t.Context(), botID)
		if err != nil {
			t.Fatal(err)
		}
		shown := r.shown(t, botID)
		in := d.Installations[0]
		want := &Definition{
			ID: botID, WorkspaceID: ours, Name: "Bella", URL: "https://bella.example.com/hook",
			Configuration:    Configuration{"cfg_" + botID[4:], shown.CreatedAt, shown.UpdatedAt, []byte(`{"greeting":"hi","token":"s3cret"}`)},
			Tags:             map[string]string{"team": "a", "stage": "live"},
			MaxExecutionTime: 30 * time.Second,
			EntityTags:       map[string]map[string]int{"user": {"language": 500, "plan": 500}, "conversation": {"topic": 500}, "message": {"mood": 500}},
			Events:           map[string]bool{"nudge": true},
			Subscriptions:    map[string]bool{"chat:custom": true},
			Installations: []Installation{{
				Installation: auth.Installation{ID: in.ID, Alias: "chat", IntegrationID: chat10, IntegrationName: "chat", Version: "1.0.0", WebhookID: shown.Integrations["chat"].WebhookID, Enabled: true, DisabledChannels: []string{}},
				BotID:        botID, WebhookURL: shown.Integrations["chat"].WebhookURL, Configuration: []byte(`{"encryptionKey":"k"}`),
				CreatedAt: in.CreatedAt, UpdatedAt: in.UpdatedAt,
			}},
		}
		if diff := cmp.Diff(want, d, cmpopts.IgnoreFields(Definition{}, "Actions", "States")); diff != "" {
			t.Error(diff)
		}
		if _, ok := d.Actions["add"]; !ok || len(d.Actions) != 1 {
			t.Errorf("actions are %v", d.Actions)
		}
		if s := d.States["counter"]; s.Type != "conversation" || len(d.States) != 1 {
			t.Errorf("states are %v", d.States)
		}
		b, err := r.Bot(t.Context(), botID)
		if diff := cmp.Diff(&auth.Bot{ID: botID, WorkspaceID: ours, Installations: []auth.Installation{in.Installation}}, b); diff != "" || err != nil {
			t.Error(diff, err)
		}
		found, of, err := r.ByWebhook(t.Context(), in.WebhookID)
		if err != nil || found.ID != in.ID || of != b {
			t.Errorf("%+v, %+v, %v", found, of, err)
		}
	})
}

func TestDirectoryDoesNotKnow(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		for _, x := range []string{"", "nonsense", "bot_01ZZZZZZZZZZZZZZZZZZZZZZZZ", "a\x00b", "\xff", "00000000-0000-0000-0000-000000000000"} {
			if b, err := r.Bot(t.Context(), x); b != nil || err != nil {
				t.Errorf("Bot(%q) = %v, %v", x, b, err)
			}
			if d, err := r.Definition(t.Context(), x); d != nil || err != nil {
				t.Errorf("Definition(%q) = %v, %v", x, d, err)
			}
			if in, b, err := r.ByWebhook(t.Context(), x); in != nil || b != nil || err != nil {
				t.Errorf("ByWebhook(%q) = %v, %v, %v", x, in, b, err)
			}
		}
		// A bot without declarations accepts everything.
		d, err := r.Definition(t.Context(), r.make(t, `{}`))
		if err != nil || len(d.States) != 0 || len(d.EntityTags["user"]) != 0 || d.Subscriptions != nil || d.MaxExecutionTime != 0 || string(d.Configuration.Payload) != "{}" {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// A change is seen by the next question, here and on another node, and what was
// handed out before does not change under its reader.
func TestDirectoryFollowsChanges(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		shared := bus.NewLocal()
		here, there := newRig(t, a, shared, time.Hour), newRig(t, b, shared, time.Hour)
		botID := here.make(t, `{"name":"one"}`)
		old, err := there.Definition(t.Context(), botID)
		if err != nil || old.Name != "one" {
			t.Fatalf("%+v, %v", old, err)
		}
		here.put(t, botID, `{"name":"two","integrations":{"chat":{"integrationId":"`+chat10+`"}}}`).want(t, 200, "two")
		for _, r := range []*rig{here, there} {
			if d, err := r.Definition(t.Context(), botID); err != nil || d.Name != "two" || len(d.Installations) != 1 {
				t.Errorf("%+v, %v", d, err)
			}
		}
		if old.Name != "one" || len(old.Installations) != 0 {
			t.Errorf("the old definition changed: %+v", old)
		}
		here.do(t, ours, "DELETE "+bots+"/"+botID, "").want(t, 200, "{}")
		if d, err := there.Definition(t.Context(), botID); d != nil || err != nil {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// Where the bus loses the message, a node believes what it has for MaxAge.
func TestDirectoryWithoutBus(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		here, there := newRig(t, a, bus.NewLocal(), time.Second), newRig(t, b, bus.NewLocal(), time.Second)
		botID := here.make(t, `{"name":"one"}`)
		if _, err := there.Definition(t.Context(), botID); err != nil {
			t.Fatal(err)
		}
		here.put(t, botID, `{"name":"two"}`).want(t, 200, "two")
		there.clock.Add(1000)
		if d, err := there.Definition(t.Context(), botID); err != nil || d.Name != "two" {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// What another node has just installed is there, though nobody has told of it:
// its door, by its id, and for whoever asks for the bot as it is now.
func TestDirectoryFindsWhatWasJustInstalled(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		here, there := newRig(t, a, bus.NewLocal(), time.Second), newRig(t, b, bus.NewLocal(), time.Second)
		botID := here.make(t, `{"name":"one"}`)
		installed := func(alias string) Installation {
			t.Helper()
			if d, err := there.Definition(t.Context(), botID); err != nil || d == nil { // from now on it is remembered
				t.Fatal(d, err)
			}
			here.put(t, botID, `{"integrations":{"`+alias+`":{"integrationId":"`+chat10+`"}}}`).want(t, 200, alias)
			d, err := here.Definition(t.Context(), botID)
			if err != nil {
				t.Fatal(err)
			}
			return d.Installations[len(d.Installations)-1]
		}
		first := installed("first")
		if in, bot, err := there.ByWebhook(t.Context(), first.WebhookID); err != nil || in == nil || in.ID != first.ID || bot.ID != botID {
			t.Errorf("by its webhook id: %+v of %+v, %v", in, bot, err)
		}
		second := installed("second")
		if in, bot, err := there.Installation(t.Context(), second.ID); err != nil || in == nil || bot.ID != botID {
			t.Errorf("by its id: %+v of %+v, %v", in, bot, err)
		}
		third := installed("third")
		if b, err := there.BotNow(t.Context(), botID); err != nil || b.Installation(third.ID) == nil {
			t.Errorf("of the bot: %+v, %v", b, err)
		}
		if b, err := there.BotNow(t.Context(), "bot_01ZZZZZZZZZZZZZZZZZZZZZZZZ"); b != nil || err != nil {
			t.Errorf("an unknown bot: %+v, %v", b, err)
		}
	})
}
