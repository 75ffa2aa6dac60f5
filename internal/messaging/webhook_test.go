package messaging

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/auth"
	"parley/internal/endpoint"
	"parley/internal/sqldb"
)

// chatHook changes the chat of bot A.
func (r *rig) chatHook(change func(in *auth.Installation)) {
	r.town.mu.Lock()
	defer r.town.mu.Unlock()
	b := *r.town.bots[botA]
	b.Installations = slices.Clone(b.Installations)
	change(&b.Installations[0])
	r.town.bots[botA] = &b
}

// hooked gives the chat of bot A a webhook that is told the type and position of signals.
func hooked(r *rig) {
	r.s.Words = func(_ sqldb.Q, c Caller, g *Signal) ([]byte, error) {
		if c.Owner() != chatA || g.Type == EventCreated {
			return nil, nil
		}
		return fmt.Appendf(nil, `{"type":%q,"pos":%d}`, g.Type, g.Pos), nil
	}
	r.chatHook(func(in *auth.Installation) { in.Signals = true })
}

func (r *rig) bodies() (texts []string) {
	r.idle()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.calls {
		texts = append(texts, string(c.op.Body))
	}
	return texts
}

func TestSignalsAreWrittenWithWhatTheyTellOf(t *testing.T) {
	each(t, func(r *rig) {
		hooked(r)
		user := r.user(chatOfA, `{}`)
		conversation := r.conversation(chatOfA, "channel", `{}`)
		r.message(chatOfA, conversation, user, "hi")
		r.message(botOfA, conversation, botA, "hello")
		c := r.caller(botOfA)
		r.write(func(tx *sqldb.Tx) error { return r.s.SignalEvent(tx, c, conversation, EventData{UserID: botA}) })
		r.ok(botOfA, "DELETE", "/v1/chat/conversations/"+conversation+"/participants/"+user, "{}", "")
		// What is rolled back was never there.
		if err := r.s.DB.Write(r.Context(), func(tx *sqldb.Tx) error {
			_, err := r.s.AddMessage(tx, c, NewMessage{ConversationID: conversation, UserID: botA, Type: "text", Payload: []byte(`{"text":"x"}`)})
			return fmt.Errorf("no: %w", err)
		}); err == nil {
			r.Fatal("no error")
		}
		want := []string{
			`{"type":"participant_added","pos":1}`, `{"type":"message_created","pos":2}`, `{"type":"message_created","pos":3}`, `{"type":"participant_removed","pos":5}`,
		}
		if diff := cmp.Diff(want, r.bodies()); diff != "" {
			r.Errorf("told (-want +got):\n%s", diff)
		}
		if n := r.count("SELECT count(*) FROM outbox WHERE operation = 'signal' AND status = 'processed' AND lane = $1", "inst:"+chatA+":conv:"+conversation); n != 4 {
			r.Errorf("%d rows, want 4", n)
		}
		if n := r.count("SELECT count(*) FROM outbox WHERE message_id <> ''"); n != 2 {
			r.Errorf("%d rows name a message, want 2", n)
		}
	})
}

// 410 reaches who disables the installation, and what follows is not sent.
func TestAWebhookThatIsGoneIsToldNothing(t *testing.T) {
	each(t, func(r *rig) {
		hooked(r)
		conversation := r.conversation(chatOfA, "channel", `{}`)
		var mu sync.Mutex
		var told []string
		r.s.Gone = func(tx *sqldb.Tx, botID, installationID string, asOf int64) error {
			tx.AfterCommit(func() {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, botID, installationID)
				r.chatHook(func(in *auth.Installation) { in.Gone = true })
			})
			if now := r.s.now(); asOf > now || asOf < now-60_000 {
				r.Errorf("asOf is %d, now is %d", asOf, now)
			}
			return nil
		}
		r.answer = func(endpoint.Operation) (endpoint.Answer, bool) { return endpoint.Answer{Status: 410}, true }
		for i := range 3 {
			r.message(botOfA, conversation, botA, fmt.Sprint(i))
			r.idle()
			for r.count("SELECT count(*) FROM outbox WHERE status = 'pending'") > 0 {
				runtime.Gosched() // the lane comes back by itself
			}
		}
		if diff := cmp.Diff([]string{botA, chatA}, told); diff != "" {
			r.Errorf("who is gone (-want +got):\n%s", diff)
		}
		if n := len(r.bodies()); n != 1 {
			r.Errorf("%d calls, want 1", n)
		}
		if n := r.count("SELECT count(*) FROM outbox WHERE status = 'ignored' AND attempts = 0 AND failure_reason LIKE '%410%'"); n != 2 {
			r.Errorf("%d rows say why they were not sent, want 2", n)
		}
		if n := r.count("SELECT count(*) FROM outbox WHERE status = 'failed' AND attempts = 1 AND NOT dead"); n != 1 {
			r.Errorf("%d rows failed, want 1", n)
		}
	})
}

func TestSignalsOfAWebhookThatWasTakenAway(t *testing.T) {
	each(t, func(r *rig) {
		hooked(r)
		conversation := r.conversation(chatOfA, "channel", `{}`)
		c := r.caller(botOfA)
		r.write(func(tx *sqldb.Tx) error {
			r.chatHook(func(in *auth.Installation) { in.Signals = false }) // by who else was at work
			_, err := r.s.AddMessage(tx, c, NewMessage{ConversationID: conversation, UserID: botA, Type: "text", Payload: []byte(`{"text":"x"}`)})
			return err
		})
		if n := len(r.bodies()); n != 0 {
			r.Errorf("%d calls, want none", n)
		}
		if n := r.count("SELECT count(*) FROM outbox WHERE status = 'ignored' AND failure_reason = 'the integration has no webhook any more'"); n != 1 {
			r.Errorf("%d rows say why, want 1", n)
		}
	})
}

func TestTheLogOfDeliveriesHasItsAge(t *testing.T) {
	each(t, func(r *rig) {
		now := time.Now()
		r.s.Now = func() time.Time { return now }
		r.s.DeliveryLog = 10 * time.Hour
		half, all := 3*chunk/4, 3*chunk/2
		young, old := now.Add(-10*time.Hour+time.Minute).UnixMilli(), now.Add(-10*time.Hour-time.Minute).UnixMilli()
		r.write(func(tx *sqldb.Tx) error {
			for _, status := range []string{"processed", "ignored", "failed", "pending"} {
				const each = "WITH RECURSIVE n (i, done) AS (SELECT 0, CAST($1 AS BIGINT) UNION ALL SELECT i + 1, CASE i % 2 WHEN 0 THEN $2 ELSE $1 END FROM n WHERE i < $3) "
				if _, err := tx.Exec(each+`INSERT INTO outbox (id, bot_id, installation_id, operation, payload, conversation_id, message_id, status, failure_reason, lane, lane_seq, attempts, created_at, done_at)
					SELECT 'dlv_' || i || '_' || $4, '', '', '', '', '', '', $4, '', $4, i, 1, 0, CASE $4 WHEN 'pending' THEN 0 ELSE done END FROM n`, old, young, all-1, status); err != nil {
					return err
				}
				if _, err := tx.Exec(each+`INSERT INTO attempts (work_id, number, endpoint, outcome, status, reason, started_at, duration_ms)
					SELECT 'dlv_' || i || '_' || $4, 1, '', '', 0, '', done, 0 FROM n`, old, young, all-1, status); err != nil {
					return err
				}
			}
			return nil
		})
		r.sweep()
		for status, want := range map[string]int{"processed": half, "ignored": half, "failed": all, "pending": all} {
			if n := r.count("SELECT count(*) FROM outbox WHERE status = $1", status); n != want {
				r.Errorf("%d %s ones are left, want %d", n, status, want)
			}
		}
		if n := r.count("SELECT count(*) FROM attempts"); n != 3*half+all {
			r.Errorf("%d tries are left, want %d", n, 3*half+all)
		}
		if n := r.count("SELECT count(*) FROM attempts WHERE work_id LIKE '%pending'"); n != all {
			r.Errorf("%d tries at what is pending are left, want %d", n, all)
		}
	})
}
