package bot

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/bus"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestRecurringEvents(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, `{"recurringEvents":{"daily":{"schedule":{"cron":"0 9 * * *","zone":"x"},"type":"digest","payload":{"a":[1.0]}},"hourly":{"schedule":{"cron":"@hourly"},"type":"tick","payload":{}}}}`)
		check := func(want ...string) {
			t.Helper()
			rows, err := db.Reader(t.Context()).Query("SELECT name || ' ' || cron || ' ' || type || ' ' || payload FROM recurring_events WHERE bot_id = $1 ORDER BY name", botID)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			var got []string
			for rows.Next() {
				var line string
				if err := rows.Scan(&line); err != nil {
					t.Fatal(err)
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("what recurs: %s", diff)
			}
		}
		check(`daily 0 9 * * * digest {"a":[1.0]}`, `hourly @hourly tick {}`)
		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec("UPDATE recurring_events SET failed_attempts = 3, last_failure_reason = 'it was down' WHERE name = 'daily'")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		r.do(t, ours, "GET "+bots+"/"+botID, "").golden(t, "getBot/recurring")
		r.put(t, botID, `{"name":"another"}`)
		check(`daily 0 9 * * * digest {"a":[1.0]}`, `hourly @hourly tick {}`)
		r.put(t, botID, `{"recurringEvents":{"daily":null,"weekly":{"schedule":{"cron":"0 9 * * 1"},"type":"report","payload":{}}}}`).golden(t, "updateBot/recurring")
		check(`hourly @hourly tick {}`, `weekly 0 9 * * 1 report {}`)
		r.put(t, botID, `{"recurringEvents":{"hourly":null,"weekly":null,"never was":null}}`)
		check()
	})
}

func TestBadRecurringEvents(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, `{}`)
		event := func(cron, typ, payload string) string {
			return fmt.Sprintf(`{"schedule":{"cron":%q},"type":%q,"payload":%s}`, cron, typ, payload)
		}
		many := map[bool]string{}
		for i := range 51 {
			many[true] += fmt.Sprintf(`,"e%d":%s`, i, event("@daily", "x", "{}"))
		}
		for _, c := range []struct{ name, events, kind, says string }{
			{"no cron line", `{"d":` + event("whenever", "x", "{}") + `}`, "InvalidPayload", "recurringEvents.d.schedule.cron must have the five fields"},
			{"empty cron line", `{"d":` + event("", "x", "{}") + `}`, "InvalidPayload", "recurringEvents.d.schedule.cron must have"},
			{"six fields", `{"d":` + event("0 * * * * *", "x", "{}") + `}`, "InvalidPayload", "recurringEvents.d.schedule.cron must have the five fields"},
			{"minute 60", `{"d":` + event("60 * * * *", "x", "{}") + `}`, "InvalidPayload", "recurringEvents.d.schedule.cron is no cron line"},
			{"never", `{"d":` + event("0 0 30 2 *", "x", "{}") + `}`, "InvalidPayload", "recurringEvents.d.schedule.cron never comes round"},
			{"long cron line", `{"d":` + event(strings.Repeat("1,", 100)+"1 * * * *", "x", "{}") + `}`, "InvalidPayload", "recurringEvents.d.schedule.cron must have at most 200"},
			{"cron is a number", `{"d":{"schedule":{"cron":5},"type":"x","payload":{}}}`, "InvalidPayload", "recurringEvents.d.schedule.cron"},
			{"no schedule", `{"d":{"type":"x","payload":{}}}`, "InvalidPayload", "recurringEvents.d.schedule"},
			{"empty schedule", `{"d":{"schedule":{},"type":"x","payload":{}}}`, "InvalidPayload", "recurringEvents.d.schedule.cron"},
			{"null schedule", `{"d":{"schedule":null,"type":"x","payload":{}}}`, "InvalidPayload", "recurringEvents.d.schedule"},
			{"no type", `{"d":{"schedule":{"cron":"@daily"},"payload":{}}}`, "InvalidPayload", "recurringEvents.d.type"},
			{"empty type", `{"d":` + event("@daily", "", "{}") + `}`, "InvalidPayload", "recurringEvents.d.type must not be empty"},
			{"long type", `{"d":` + event("@daily", strings.Repeat("x", 201), "{}") + `}`, "InvalidPayload", "recurringEvents.d.type"},
			{"the server's type", `{"d":` + event("@daily", "message_created", "{}") + `}`, "InvalidPayload", "recurringEvents.d.type"},
			{"an integration's type", `{"d":` + event("@daily", "slack:x", "{}") + `}`, "InvalidPayload", "recurringEvents.d.type"},
			{"no payload", `{"d":{"schedule":{"cron":"@daily"},"type":"x"}}`, "InvalidPayload", "recurringEvents.d.payload"},
			{"payload is a text", `{"d":` + event("@daily", "x", `"{}"`) + `}`, "InvalidPayload", "recurringEvents.d.payload"},
			{"large payload", `{"d":` + event("@daily", "x", `{"x":"`+strings.Repeat("x", 128<<10)+`"}`) + `}`, "LimitExceeded", "recurringEvents.d.payload"},
			{"name", `{"":` + event("@daily", "x", "{}") + `}`, "InvalidPayload", "recurringEvents: the name"},
			{"an array", `[]`, "InvalidPayload", "recurringEvents"},
			{"the first by name", `{"b":` + event("b", "x", "{}") + `,"a":` + event("a", "x", "{}") + `}`, "InvalidPayload", "recurringEvents.a."},
			{"many", "{" + many[true][1:] + "}", "LimitExceeded", "recurringEvents would have 51 entries, the limit is 50"},
		} {
			for _, got := range []answer{r.put(t, botID, `{"recurringEvents":`+c.events+`}`), r.do(t, ours, "POST "+bots, `{"recurringEvents":`+c.events+`}`)} {
				if got.status < 400 || got.status >= 500 || !strings.Contains(string(got.body), c.kind) || !strings.Contains(string(got.body), c.says) {
					t.Errorf("%s: got %d %s; want %s with %q", c.name, got.status, got.body, c.kind, c.says)
				}
			}
		}
		if n, err := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT count(*) FROM recurring_events"); n != 0 || err != nil {
			t.Errorf("%d events recur, %v", n, err)
		}
	})
}
