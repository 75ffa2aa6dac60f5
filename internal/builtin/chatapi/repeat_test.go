package chatapi

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/fault"
	"parley/internal/tag"
)

func keyed(key string) []string { return []string{"Idempotency-Key", key} }

const longKey = "a key that nobody guesses"

func TestARepeatedWriteTakesEffectOnce(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		r.join("bob")
		for i, c := range []struct{ method, path, body string }{
			{"POST", "/messages", textBody("room", "hi")},
			{"POST", "/events", `{"conversationId":"room","payload":{"a":1}}`},
			{"POST", "/conversations", `{}`},
			{"POST", "/conversations", `{"id":"new"}`},
			{"POST", "/conversations/get-or-create", `{"id":"newer"}`},
			{"POST", "/conversations/room/participants", `{"userId":"bob"}`},
			{"DELETE", "/conversations/room/participants/bob", ""},
			{"PUT", "/users/me", `{"name":"Ann"}`},
		} {
			key := keyed(fmt.Sprint("k", i))
			first := ann.ok(c.method, c.path, c.body, key...)
			if again := ann.ok(c.method, c.path, c.body, key...); cmp.Diff(first, again) != "" {
				r.Errorf("%s %s %s: %s", c.method, c.path, c.body, cmp.Diff(first, again))
			}
		}
		if n := len(ann.pages("/conversations/room/messages", "messages", nil)); n != 1 {
			r.Errorf("%d messages were sent, want 1", n)
		}
		if n := len(ann.pages("/conversations", "conversations", nil)); n != 4 {
			r.Errorf("%d conversations are there, want 4", n)
		}
		if head := must((Log{r.chat}).Head(t.Context(), r.real(tag.Conversation, "room"))); head != 4 {
			r.Errorf("there were %d signals, want 4", head)
		}
		ann.refused(fault.InvalidPayload, "Idempotency-Key", "POST", "/messages", textBody("room", "other"), keyed("k0")...)
	})
}

func TestTheFirstAnswerOfGetOrCreateUserIsRepeated(t *testing.T) {
	each(t, func(r *rig) {
		zoe := r.sign(chatB, "zoe")
		first := zoe.ok("POST", "/users/get-or-create", `{"name":"Zoe"}`, keyed("k")...)
		zoe.ok("PUT", "/users/me", `{"name":"other"}`)
		if again := zoe.ok("POST", "/users/get-or-create", `{"name":"Zoe"}`, keyed("k")...); cmp.Diff(first, again) != "" {
			r.Error(cmp.Diff(first, again))
		}
		if got := field(zoe.ok("GET", "/users/me", ""), "user", "name"); got != "other" {
			r.Errorf("the repetition changed the name to %q", got)
		}
	})
}

// The answer of createUser holds a key: strangers share a scope, so what is
// repeated must not be guessed.
func TestARepeatedCreateUser(t *testing.T) {
	each(t, func(r *rig) {
		users := "/" + chatA.webhook + "/users"
		nobody := &person{rig: r, at: chatA}
		for _, short := range []string{"k", strings.Repeat("k", 19)} {
			nobody.refused(fault.InvalidPayload, "at least 20 characters", "POST", "/users", `{}`, keyed(short)...)
		}
		first := r.succeed("POST", users, `{}`, keyed(longKey)...)
		if again := r.succeed("POST", users, `{}`, keyed(longKey)...); cmp.Diff(first, again) != "" {
			r.Error(cmp.Diff(first, again))
		}
		nobody.refused(fault.InvalidPayload, "Idempotency-Key", "POST", "/users", `{"name":"other"}`, keyed(longKey)...)
		if other := r.succeed("POST", users, `{}`, keyed(longKey+"!")...); field(other, "user", "id") == field(first, "user", "id") {
			r.Error("another key gave the same user")
		}
		if n := len(r.runtime(chatA, "GET", "/users", "")["users"].([]any)); n != 2 {
			r.Errorf("%d users were made, want 2", n)
		}
	})
}

// Nobody gets another's answer, whatever the key and the request have in common.
func TestNobodyGetsAnothersAnswer(t *testing.T) {
	each(t, func(r *rig) {
		ann, bob, otherAnn := r.join("ann"), r.join("bob"), r.joinB("ann")
		ann.opens("room")
		ann.adds("room", bob)
		otherAnn.opens("room")
		seen := map[string]string{}
		for name, p := range map[string]*person{"ann": ann, "bob": bob, "ann of bot B": otherAnn} {
			sent := p.ok("POST", "/messages", textBody("room", "hi"), keyed("k")...)["message"].(map[string]any)
			if sent["userId"] != p.id || seen[sent["id"].(string)] != "" {
				r.Errorf("%s got %v, which is of %q", name, sent, seen[sent["id"].(string)])
			}
			seen[sent["id"].(string)] = name
			if got := field(p.ok("PUT", "/users/me", `{"profile":"p"}`, keyed("k")...), "user", "id"); got != p.id {
				r.Errorf("%s got the user %q", name, got)
			}
		}
		// A key for the real id is the same user's.
		real := r.sign(chatA, r.real(tag.User, "ann"))
		got := real.ok("POST", "/messages", textBody("room", "hi"), keyed("k")...)["message"].(map[string]any)
		if seen[got["id"].(string)] != "ann" {
			r.Errorf("the same user under its real id got %v", got)
		}
	})
}

// Once somebody is taken out of a conversation, nothing of theirs comes after.
func TestNobodySpeaksAfterBeingRemoved(t *testing.T) {
	each(t, func(r *rig) {
		ann, bob := r.join("ann"), r.join("bob")
		for round := range 5 {
			room := ann.opens(fmt.Sprint("room", round))
			ann.adds(room, bob)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for status := http.StatusCreated; status == http.StatusCreated; {
						status, _ = bob.do("POST", "/messages", textBody(room, "still here"))
						if status == http.StatusCreated {
							status, _ = bob.do("POST", "/events", fmt.Sprintf(`{"conversationId":%q,"payload":{}}`, room))
						}
						if status != http.StatusCreated && status != http.StatusForbidden {
							r.Errorf("answered %d", status)
						}
					}
				})
			}
			wg.Go(func() { ann.ok("DELETE", "/conversations/"+room+"/participants/bob", "") })
			wg.Wait()
			signals, _, err := (Log{r.chat}).Read(t.Context(), r.real(tag.Conversation, room), 0, 10_000)
			if err != nil || len(signals) < 2 {
				r.Fatalf("the log has %d signals: %v", len(signals), err)
			}
			if last := string(signals[len(signals)-1].Data); !strings.Contains(last, "participant_removed") {
				r.Errorf("round %d ends with %s", round, last)
			}
		}
	})
}
