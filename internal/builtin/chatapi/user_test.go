package chatapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestUsers(t *testing.T) {
	each(t, func(r *rig) {
		users := "/" + chatA.webhook + "/users"
		status, made := r.request("POST", users, `{}`)
		if status != http.StatusCreated {
			r.Errorf("createUser answered %d", status)
		}
		golden(r, "createUser", made, `{"user":{"id":"user","createdAt":"TIME","updatedAt":"TIME"},"key":"KEY"}`)

		status, made = r.request("POST", users, `{"id":"ann","name":"Ann","pictureUrl":"https://x/a.png","profile":"{\"a\":1}"}`)
		full := `{"user":{"id":"ann","name":"Ann","pictureUrl":"https://x/a.png","profile":"{\"a\":1}","createdAt":"TIME","updatedAt":"TIME"}`
		golden(r, "createUser with everything", made, full+`,"key":"KEY"}`)
		ann := &person{r, chatA, "ann", field(made, "key")}

		status, got := ann.do("GET", "/users/me", "")
		golden(r, "getUser", got, full+"}")
		if diff := cmp.Diff(made["user"], got["user"]); status != http.StatusOK || diff != "" {
			r.Errorf("getUser answered %d, %s", status, diff)
		}
		status, got = ann.do("PUT", "/users/me", `{"name":"Anna","pictureUrl":"","profile":"p"}`)
		golden(r, "updateUser", got, `{"user":{"id":"ann","name":"Anna","profile":"p","createdAt":"TIME","updatedAt":"TIME"}}`)
		if status != http.StatusOK {
			r.Errorf("updateUser answered %d", status)
		}
		if again := ann.ok("PUT", "/users/me", `{}`); cmp.Diff(got, again) != "" {
			r.Errorf("an empty update changes something: %s", cmp.Diff(got, again))
		}
		status, got = ann.do("POST", "/users/get-or-create", `{"profile":""}`)
		golden(r, "getOrCreateUser", got, `{"user":{"id":"ann","name":"Anna","createdAt":"TIME","updatedAt":"TIME"}}`)
		if status != http.StatusCreated {
			r.Errorf("getOrCreateUser of one that exists answered %d", status)
		}
		status, got = ann.do("DELETE", "/users/me", `{}`)
		golden(r, "deleteUser", got, `{}`)
		if status != http.StatusOK {
			r.Errorf("deleteUser answered %d", status)
		}
	})
}

// What the bot sees of a chat user: the real id, and the rest as tags.
func TestTheBotSeesUsersUnderTheirRealIDs(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.ok("PUT", "/users/me", `{"name":"Ann","profile":"p"}`)
		out := r.runtime(chatA, "GET", "/users/"+r.real("user", "ann"), "")
		golden(r, "the user", out, `{"user":{"id":"user","createdAt":"TIME","updatedAt":"TIME","name":"Ann","tags":{"chat:fid":"ann","chat:profile":"p"}}}`)
	})
}

func TestBadUsersAreRefused(t *testing.T) {
	each(t, func(r *rig) {
		nobody := &person{rig: r, at: chatA}
		ann := r.join("ann")
		for _, c := range []struct{ body, says string }{
			{`{"id":""}`, "id must have 1 to 70"},
			{`{"id":7}`, "id must be a string"},
			{`{"id":null}`, "id must not be null"},
			{`{"id":"no+plus"}`, "id must have"},
			{`{"id":"no space"}`, "id must have"},
			{`{"id":"bob@example.org"}`, "id must have"},
			{`{"id":"é"}`, "id must have"},
			{`{"id":"` + strings.Repeat("x", 71) + `"}`, "id must have"},
			{`{"name":"` + strings.Repeat("é", 201) + `"}`, "name must have at most 200"},
			{`{"pictureUrl":"` + strings.Repeat("x", 40001) + `"}`, "pictureUrl must have at most 40000"},
			{`{"profile":"` + strings.Repeat("x", 1001) + `"}`, "profile must have at most 1000"},
			{`{"tags":{}}`, `"tags" is not a member`},
			{`[]`, "must be a JSON object"},
			{`{"id":"x"`, "not valid JSON"},
		} {
			nobody.refused(fault.InvalidPayload, c.says, "POST", "/users", c.body)
			if !strings.Contains(c.body, `"id"`) {
				ann.refused(fault.InvalidPayload, c.says, "PUT", "/users/me", c.body)
				ann.refused(fault.InvalidPayload, c.says, "POST", "/users/get-or-create", c.body)
			}
		}
		ann.refused(fault.InvalidPayload, `"id" is not a member`, "POST", "/users/get-or-create", `{"id":"ann"}`)
		golden(r, "the user afterwards", ann.ok("GET", "/users/me", ""), `{"user":{"id":"ann","createdAt":"TIME","updatedAt":"TIME"}}`)
		if n := len(r.runtime(chatA, "GET", "/users", "")["users"].([]any)); n != 1 {
			r.Errorf("%d users are there, want 1", n)
		}
	})
}

func TestChosenIDs(t *testing.T) {
	each(t, func(r *rig) {
		nobody := &person{rig: r, at: chatA}
		for _, name := range []string{"a", strings.Repeat("x", 70), `sl/ash\back_-9`, id.UUID(), "user_1", "conv_" + strings.Repeat("0", 25), id.New("customer")} {
			p := r.join(name)
			if p.id != name || field(p.ok("GET", "/users/me", ""), "user", "id") != name {
				r.Errorf("the user %q is called %q", name, p.id)
			}
			if got := p.opens(name); got != name {
				r.Errorf("the conversation %q is called %q", name, got)
			}
			if got := field(p.ok("GET", "/conversations/"+segment(name), ""), "conversation", "id"); got != name {
				r.Errorf("the conversation %q reads as %q", name, got)
			}
			if got := field(p.ok("GET", "/conversations/"+segment(name)+"/participants/"+segment(name), ""), "participant", "id"); got != name {
				r.Errorf("the participant %q reads as %q", name, got)
			}
			nobody.refused(fault.AlreadyExists, "exists already", "POST", "/users", fmt.Sprintf(`{"id":%q}`, name))
			p.refused(fault.AlreadyExists, "exists already", "POST", "/conversations", fmt.Sprintf(`{"id":%q}`, name))
		}
		ann := r.join("ann")
		for _, name := range []string{id.New("user"), id.New("conv"), id.New("bot"), id.New("devbot"), chatA.bot} {
			body := fmt.Sprintf(`{"id":%q}`, name)
			nobody.refused(fault.InvalidPayload, "has the form of an id that the server gives", "POST", "/users", body)
			ann.refused(fault.InvalidPayload, "has the form of an id that the server gives", "POST", "/conversations", body)
			ann.refused(fault.ReferenceNotFound, "doesn't exist", "POST", "/conversations/get-or-create", body)
		}
	})
}

// A chosen id hides nothing: the id that the server gave reads the same thing.
func TestTheRealIDReadsTheSame(t *testing.T) {
	each(t, func(r *rig) {
		ann, bob := r.join("ann"), r.join("bob")
		room := ann.opens("room")
		real := r.real("conversation", room)
		if diff := cmp.Diff(ann.ok("GET", "/conversations/room", ""), ann.ok("GET", "/conversations/"+real, "")); diff != "" {
			r.Errorf("the conversation differs: %s", diff)
		}
		out := ann.ok("POST", "/conversations/"+real+"/participants", fmt.Sprintf(`{"userId":%q}`, r.real("user", "bob")))
		if got := field(out, "participant", "id"); got != bob.id {
			r.Errorf("the participant is called %q", got)
		}
		if got := bob.says(real, "hi"); got["conversationId"] != room || got["userId"] != "bob" {
			r.Errorf("the message is %v", got)
		}
		ann.refused(fault.AlreadyExists, "", "POST", "/conversations", `{"id":"room"}`)
	})
}

func TestFiftyTwinsMakeOne(t *testing.T) {
	t.Parallel()
	race := func(t *testing.T, rigs ...*rig) {
		made := map[string]int{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 50 {
			r := rigs[i%len(rigs)]
			p := r.sign(chatA, "twin")
			wg.Go(func() {
				status, out := p.do("POST", "/users/get-or-create", fmt.Sprintf(`{"name":"n%d"}`, i))
				if status == http.StatusCreated {
					status, out = p.do("POST", "/conversations/get-or-create", `{"id":"room"}`)
				}
				mu.Lock()
				defer mu.Unlock()
				made[fmt.Sprint(status, " ", field(out, "conversation", "id"), " ", field(out, "conversation", "createdAt"))]++
			})
		}
		wg.Wait()
		if len(made) != 1 {
			t.Errorf("the answers are %v", made)
		}
		r := rigs[0]
		for _, kind := range []string{"users", "conversations"} {
			if n := len(r.runtime(chatA, "GET", "/"+kind, "")[kind].([]any)); n != 1 {
				t.Errorf("%d %s were made, want 1", n, kind)
			}
		}
	}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { race(t, newRig(t, db)) })
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) { race(t, newRig(t, a), newRig(t, b)) })
}

// Many want a conversation of the same id: the first owns it, the others are refused.
func TestOneOfManyOwnsAConversation(t *testing.T) {
	each(t, func(r *rig) {
		statuses := make(chan int, 30)
		var wg sync.WaitGroup
		for i := range cap(statuses) {
			p := r.join("")
			path := "/conversations" + []string{"", "/get-or-create"}[i%2]
			wg.Go(func() {
				status, _ := p.do("POST", path, `{"id":"room"}`)
				statuses <- status
			})
		}
		wg.Wait()
		close(statuses)
		made := 0
		for status := range statuses {
			switch status {
			case http.StatusCreated:
				made++
			case http.StatusForbidden, http.StatusConflict:
			default:
				r.Errorf("answered %d", status)
			}
		}
		if n := len(r.runtime(chatA, "GET", "/conversations", "")["conversations"].([]any)); made != 1 || n != 1 {
			r.Errorf("%d were given one and %d were made, want 1", made, n)
		}
	})
}

// createUser with an id, and getOrCreateUser with a key for it, at once.
func TestOneOfManyGetsAChosenID(t *testing.T) {
	each(t, func(r *rig) {
		statuses := make(chan int, 30)
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				p := r.sign(chatA, "name")
				path, body := "/users", `{"id":"name"}`
				if i%2 == 0 {
					path, body = "/users/get-or-create", `{}`
				}
				status, _ := p.do("POST", path, body)
				statuses <- status
			})
		}
		wg.Wait()
		close(statuses)
		for status := range statuses {
			if status != http.StatusCreated && status != http.StatusConflict {
				r.Errorf("answered %d", status)
			}
		}
		if n := len(r.runtime(chatA, "GET", "/users", "")["users"].([]any)); n != 1 {
			r.Errorf("%d users were made, want 1", n)
		}
	})
}

// The name of a deleted user is free again. What the user said stays, under the
// real id, and neither the old key nor the new user have anything to do with it.
func TestTheNextUserOfAName(t *testing.T) {
	each(t, func(r *rig) {
		owner, first := r.join("owner"), r.join("ann")
		room := owner.opens("room")
		owner.adds(room, first)
		said := first.says(room, "mine")
		real := r.real("user", "ann")
		first.ok("DELETE", "/users/me", "")
		second := r.join("ann")
		first.refused(fault.Unauthorized, "doesn't exist", "GET", "/users/me", "")
		first.refused(fault.Unauthorized, "doesn't exist", "POST", "/users/get-or-create", "{}")
		owner.adds(room, second)
		second.refused(fault.Forbidden, "Only the sender", "DELETE", "/messages/"+said["id"].(string), "")
		if got := field(second.ok("GET", "/messages/"+said["id"].(string), ""), "message", "userId"); got != real {
			r.Errorf("the message of the deleted user is by %q, want %q", got, real)
		}
	})
}

// Another node deletes a user: this one learns of it when it looks again.
func TestANameIsNotBelievedForLong(t *testing.T) {
	each(t, func(r *rig) {
		owner, ann := r.join("owner"), r.join("ann")
		room := owner.opens("room")
		owner.adds(room, ann)
		said := "/messages/" + ann.says(room, "mine")["id"].(string)
		real := r.real("user", "ann")
		r.runtime(chatA, "DELETE", "/users/"+real, "")
		r.clock.pass(nameKept)
		if got := field(owner.ok("GET", said, ""), "message", "userId"); got != real {
			r.Errorf("the message of the deleted user is by %q, want %q", got, real)
		}
	})
}

func TestNameCacheStaysSmall(t *testing.T) {
	t.Parallel()
	var k nameCache
	for i := range 2*maxNames + 1 {
		k.put(fmt.Sprint(i), "x", time.Time{})
		if len(k.m) > maxNames {
			t.Fatalf("%d names are kept", len(k.m))
		}
	}
}

// The texts of the traits are kept to the character.
func TestTraitsInEveryScript(t *testing.T) {
	each(t, func(r *rig) {
		traits := map[string]any{"name": "Zoë 你好 👩‍👩‍👧", "pictureUrl": "data:,x", "profile": "\"quoted\" \u2028 " + strings.Repeat("é", 900)}
		body, _ := json.Marshal(traits)
		ann := r.join("ann")
		ann.ok("PUT", "/users/me", string(body))
		got := ann.ok("GET", "/users/me", "")["user"].(map[string]any)
		for name, want := range traits {
			if got[name] != want {
				r.Errorf("%s is %q, want %q", name, got[name], want)
			}
		}
	})
}

// Of several who delete a user at once one is told that it is done, and the
// others what everybody hears whose user is gone.
func TestAUserIsDeletedOnce(t *testing.T) {
	each(t, func(r *rig) {
		for n := range 10 {
			p := r.join(fmt.Sprint("p", n))
			var wg sync.WaitGroup
			answers := make([]int, 4)
			for i := range answers {
				wg.Go(func() { answers[i], _ = p.do("DELETE", "/users/me", "") })
			}
			wg.Wait()
			slices.Sort(answers)
			if want := []int{200, 401, 401, 401}; !slices.Equal(answers, want) {
				r.Errorf("deleteUser answers %v, want %v", answers, want)
			}
		}
	})
}
