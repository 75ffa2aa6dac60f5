package messaging

import (
	"context"
	"strings"
	"testing"
	"time"

	"parley/internal/sqldb"
)

// What is kept in memory is dropped by every change.
func TestAnEventCarriesWhatWasChangedLast(t *testing.T) {
	each(t, func(r *rig) {
		user := r.user(chatOfA, `{"fid":"u"}`)
		conversation := r.conversation(chatOfA, "channel", `{}`)
		r.message(chatOfA, conversation, user, "one")
		r.await(1)
		r.ok(chatOfA, "PUT", "/v1/chat/users/"+user, `{"name":"Ann","tags":{"profile":"x"}}`, "user")
		r.ok(chatOfA, "PUT", "/v1/chat/conversations/"+conversation, `{"tags":{"owner":"o"}}`, "conversation")
		r.message(chatOfA, conversation, user, "two")
		payload := r.await(1)[1]["payload"].(map[string]any)
		if u := payload["user"].(map[string]any); u["name"] != "Ann" || u["tags"].(map[string]any)["chat:profile"] != "x" {
			r.Errorf("the event shows the user as it was: %v", u)
		}
		if v := payload["conversation"].(map[string]any); v["tags"].(map[string]any)["chat:owner"] != "o" {
			r.Errorf("the event shows the conversation as it was: %v", v)
		}
		r.ok(chatOfA, "DELETE", "/v1/chat/users/"+user, "", "")
		if u, err := r.s.CachedUser(context.Background(), r.caller(chatOfA), user); u != nil || err != nil {
			r.Errorf("a deleted user is %v, %v", u, err)
		}
	})
}

// The caches hold rows of all bots; a caller finds its own.
func TestCachedUsersOfOthersDoNotExist(t *testing.T) {
	each(t, func(r *rig) {
		user := r.user(chatOfA, `{"fid":"u"}`)
		for who, found := range map[as]bool{chatOfA: true, botOfA: true, hookOfA: false, chatOfB: false, botOfB: false} {
			u, err := r.s.CachedUser(r.Context(), r.caller(who), user)
			if err != nil || (u != nil) != found {
				r.Errorf("%v finds %v, %v", who, u, err)
			}
		}
	})
}

func (r *rig) caller(who as) Caller {
	r.Helper()
	c, err := r.s.CallerFor(r.Context(), who.bot, who.installation)
	if err != nil {
		r.Fatal(err)
	}
	return c
}

func TestFreshEventsAreTakenOnce(t *testing.T) {
	t.Parallel()
	var f fresh
	now := time.UnixMilli(1_700_000_000_000)
	put := func(at time.Time, seq int64, payload string) {
		f.put(at, &Event{ID: "e", Lane: "l", LaneSeq: seq}, &Message{ID: "m", Payload: []byte(payload)})
	}
	has := func(at time.Time, lane string, seq int64) bool {
		e, m := f.take(at, lane, seq)
		return e != nil && m != nil && e.LaneSeq == seq
	}
	put(now, 1, "{}")
	put(now, 2, "{}")
	put(now, 3, strings.Repeat("x", freshPayload+1))
	for _, c := range []struct {
		what string
		at   time.Time
		lane string
		seq  int64
		want bool
	}{
		{"another lane", now, "k", 1, false},
		{"the entry", now, "l", 1, true},
		{"the entry again", now, "l", 1, false},
		{"an entry grown old", now.Add(freshAge), "l", 2, false},
		{"an entry too large", now, "l", 3, false},
	} {
		if got := has(c.at, c.lane, c.seq); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	put(now, 4, "{}")
	if has(now.Add(-time.Minute), "l", 4) {
		t.Error("an entry from the future is found: the clock was turned back")
	}
	put(now, 5, "{}")
	f.forget("m")
	if has(now, "l", 5) {
		t.Error("a forgotten message is found")
	}
	for seq := range int64(3 * freshMax) {
		put(now, 100+seq, "{}")
	}
	if len(f.m) != freshMax {
		t.Errorf("%d entries, want at most %d", len(f.m), freshMax)
	}
	if !has(now, "l", 100+3*freshMax-1) || has(now, "l", 100) {
		t.Error("the oldest are to go, not the newest")
	}
}

// Between the commit and the delivery a message may change or go.
func TestALateDeliveryReadsTheMessageAgain(t *testing.T) {
	each(t, func(r *rig) {
		user, conversation := r.user(chatOfA, `{"fid":"u"}`), r.conversation(chatOfA, "channel", `{}`)
		c := r.caller(chatOfA)
		var m *Message
		r.write(func(tx *sqldb.Tx) (err error) {
			m, err = r.s.AddMessage(tx, c, NewMessage{ConversationID: conversation, UserID: user, Type: "text", Payload: []byte(`{"text":"old"}`)})
			return err
		})
		r.await(1)
		e, err := r.s.Event(r.s.DB.Reader(r.Context()), r.caller(botOfA), r.eventOf(m.ID))
		if err != nil {
			r.Fatal(err)
		}
		r.s.fresh.put(r.s.Now(), e, m) // as if its worker had not come yet
		r.ok(chatOfA, "PUT", "/v1/chat/messages/"+m.ID, `{"tags":{},"payload":{"text":"new"}}`, "message")
		if found, _ := r.s.fresh.take(r.s.Now(), e.Lane, e.LaneSeq); found != nil {
			r.Error("the message is handed over as it was before its change")
		}
		r.s.fresh.put(r.s.Now(), e, m)
		r.ok(chatOfA, "DELETE", "/v1/chat/messages/"+m.ID, "", "")
		if found, _ := r.s.fresh.take(r.s.Now(), e.Lane, e.LaneSeq); found != nil {
			r.Error("a deleted message is handed over")
		}
	})
}

// eventOf is the id of the event about a message.
func (r *rig) eventOf(messageID string) string {
	r.Helper()
	events := r.ok(botOfA, "GET", "/v1/chat/events?messageId="+messageID, "", "")["events"].([]any)
	if len(events) != 1 {
		r.Fatalf("%d events about message %s, want 1", len(events), messageID)
	}
	return events[0].(map[string]any)["id"].(string)
}
