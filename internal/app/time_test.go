package app

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/sqldb"
)

// hasten makes the timers of a kind due at once.
func (s *server) hasten(kind string) {
	s.t.Helper()
	must(s.t, s.parts.db.Write(s.t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec("UPDATE timers SET due = 1 WHERE kind = $1", kind)
		return err
	}))
	_, err := s.parts.timers.Due(s.t.Context())
	must(s.t, err)
}

// A whole server makes what its bots declare and schedule happen: recurring
// events, scheduled events and messages, the end of states; and goes on with it
// after a restart.
func TestTime(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ill atomic.Bool
			got := make(chan map[string]any, 100)
			bot := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				var body struct{ Event map[string]any }
				text, _ := io.ReadAll(q.Body)
				if q.Header.Get("x-bp-operation") == "event_received" && json.Unmarshal(text, &body) == nil {
					body.Event["header"] = q.Header.Get("x-bp-type")
					got <- body.Event
				}
				if ill.Load() {
					w.WriteHeader(400)
					_, _ = io.WriteString(w, `{"id":"x","code":400,"type":"Runtime","message":"not today"}`)
				}
			}))
			t.Cleanup(bot.Close)
			next := func() map[string]any {
				t.Helper()
				select {
				case e := <-got:
					return e
				case <-time.After(time.Minute):
					t.Fatal("the bot got nothing")
					return nil
				}
			}
			var cfg Config
			s := start(t, func(c *Config) { engine(t, c); cfg = *c })
			botID := s.newBot(bot.URL)
			person := s.as(botID)
			change := func(body string, want int) map[string]any {
				t.Helper()
				out := map[string]any{}
				if code := s.call("PUT", "/v1/admin/bots/"+botID, person, json.RawMessage(body), &out); code != want {
					t.Fatalf("updateBot answers %d %v", code, out)
				}
				return out
			}
			change(`{"recurringEvents":{"daily":{"schedule":{"cron":"0 9 * * *"},"type":"digest","payload":{"n":1}}},
				"states":{"session":{"type":"bot","schema":{"type":"object","properties":{"n":{"type":"number"}}},"expiry":3600000}}}`, 200)
			s.hasten("recurring")
			if e := next(); e["header"] != "digest" || e["type"] != "digest" || e["payload"].(map[string]any)["n"] != 1.0 {
				t.Errorf("the bot got %v", e)
			}
			s.idle()
			ill.Store(true)
			s.hasten("recurring")
			next()
			s.idle()
			ill.Store(false)
			shown := change(`{"name":"another"}`, 200)["bot"].(map[string]any)["recurringEvents"].(map[string]any)["daily"].(map[string]any)
			if shown["failedAttempts"] != 1.0 || !strings.Contains(shown["lastFailureReason"].(string), "not today") {
				t.Errorf("the recurring event is %v", shown)
			}
			refused := map[string]any{}
			if code := s.call("POST", "/v1/chat/states/bot/"+botID+"/session", person, json.RawMessage(`{"payload":{"n":"x"}}`), &refused); code != 400 || refused["type"] != "InvalidDataFormat" ||
				!strings.HasPrefix(refused["message"].(string), "payload.n ") {
				t.Errorf("a state against its schema: %d %v", code, refused)
			}
			for path, body := range map[string]string{
				"/v1/chat/states/bot/" + botID + "/session": `{"payload":{"n":1}}`,
				"/v1/chat/events": `{"type":"later","payload":{},"schedule":{"delay":3600000}}`,
			} {
				if code, text := s.raw("POST", path, person, json.RawMessage(body)); code >= 300 {
					t.Fatalf("%s answers %d %s", path, code, text)
				}
			}
			must(t, s.stop())
			s = start(t, func(c *Config) { *c = cfg })
			s.hasten("state")
			if e := next(); e["header"] != "state_expired" || e["payload"].(map[string]any)["state"].(map[string]any)["name"] != "session" {
				t.Errorf("the bot got %v", e)
			}
			s.hasten("event")
			if e := next(); e["header"] != "later" {
				t.Errorf("the bot got %v", e)
			}
			if code, text := s.raw("DELETE", "/v1/admin/bots/"+botID, person, nil); code != 200 {
				t.Fatalf("deleteBot answers %d %s", code, text)
			}
			if n, err := sqldb.Scalar[int](s.parts.db.Reader(t.Context()), "SELECT count(*) FROM recurring_events"); n != 0 || err != nil {
				t.Errorf("%d events of a deleted bot recur, %v", n, err)
			}
		})
	}
}
