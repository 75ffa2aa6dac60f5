package chatapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

func TestConversations(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		const plain = `{"conversation":{"id":"conv","createdAt":"TIME","updatedAt":"TIME"}}`
		const chosen = `{"conversation":{"id":"room","createdAt":"TIME","updatedAt":"TIME"}}`
		for _, c := range []struct {
			name, method, path, body string
			status                   int
			want                     string
		}{
			{"create", "POST", "/conversations", `{}`, http.StatusCreated, plain},
			{"create with an id", "POST", "/conversations", `{"id":"room"}`, http.StatusCreated, chosen},
			{"get or create one that exists", "POST", "/conversations/get-or-create", `{"id":"room"}`, http.StatusCreated, chosen},
			{"get or create a new one", "POST", "/conversations/get-or-create", `{"id":"other"}`, http.StatusCreated, `{"conversation":{"id":"other","createdAt":"TIME","updatedAt":"TIME"}}`},
			{"get", "GET", "/conversations/room", "", http.StatusOK, chosen},
			{"delete", "DELETE", "/conversations/other", "{}", http.StatusOK, `{}`},
		} {
			r.clock.pass(time.Millisecond)
			status, out := ann.do(c.method, c.path, c.body)
			if status != c.status {
				r.Errorf("%s answered %d, want %d", c.name, status, c.status)
			}
			golden(r, c.name, out, c.want)
		}
		ann.refused(fault.ResourceNotFound, `Conversation "other" doesn't exist`, "GET", "/conversations/other", "")
		rows := ann.pages("/conversations", "conversations", nil)
		golden(r, "list", rows, `[{"id":"room","createdAt":"TIME","updatedAt":"TIME"},{"id":"conv","createdAt":"TIME","updatedAt":"TIME"}]`)
		out := r.runtime(chatA, "GET", "/conversations/"+r.real("conversation", "room"), "")["conversation"].(map[string]any)
		if diff := cmp.Diff(map[string]any{"chat:owner": r.real("user", "ann"), "chat:fid": "room"}, out["tags"]); diff != "" || out["channel"] != "channel" || out["integration"] != "chat" {
			r.Errorf("the bot sees %v, %s", out, diff)
		}
	})
}

func TestConversationsArePagedNewestFirst(t *testing.T) {
	each(t, func(r *rig) {
		ann, bob := r.join("ann"), r.join("bob")
		var want []string
		for i := range 45 {
			r.clock.pass(time.Millisecond)
			want = append(want, ann.opens(fmt.Sprint("room", i)))
		}
		slices.Reverse(want)
		guest := bob.opens("")
		bob.adds(guest, ann)
		got := ids(ann.pages("/conversations", "conversations", func() {
			r.clock.pass(time.Millisecond)
			ann.opens("")
		}))
		if diff := cmp.Diff(want, got); diff != "" {
			r.Error(diff)
		}
		token := ann.ok("GET", "/conversations", "")["meta"].(map[string]any)["nextToken"].(string)
		for _, c := range []struct {
			p           *person
			path, token string
		}{
			{ann, "/conversations", "abc"},
			{ann, "/conversations", token + "x"},
			{ann, "/conversations", token[:len(token)-2]},
			{bob, "/conversations", token}, // another's list
			{ann, "/conversations/room1/messages", token},
			{ann, "/conversations/room1/participants", token},
		} {
			c.p.refused(fault.InvalidQuery, "nextToken", "GET", c.path+"?nextToken="+c.token, "")
		}
		ann.refused(fault.InvalidQuery, "limit", "GET", "/conversations?limit=5", "")
	})
}

func TestBadConversationsAreRefused(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		for _, c := range []struct{ body, says string }{
			{`{"id":""}`, "id must have 1 to 70"},
			{`{"id":"no+plus"}`, "id must have"},
			{`{"id":7}`, "id must be a string"},
			{`{"id":"a\u0000b"}`, "U+0000"},
			{`{"owner":"bob"}`, `"owner" is not a member`},
		} {
			ann.refused(fault.InvalidPayload, c.says, "POST", "/conversations", c.body)
			ann.refused(fault.InvalidPayload, c.says, "POST", "/conversations/get-or-create", c.body)
		}
		ann.refused(fault.InvalidPayload, "id is required", "POST", "/conversations/get-or-create", `{}`)
		if rows := ann.pages("/conversations", "conversations", nil); rows != nil {
			r.Errorf("there are %v", rows)
		}
	})
}

// The rows of a deleted conversation are swept later; it is gone at once.
func TestADeletedConversationIsGoneWithAllInIt(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		room := ann.opens("room")
		message := ann.says(room, "hi")["id"].(string)
		event := field(ann.ok("POST", "/events", `{"conversationId":"room","payload":{}}`), "event", "id")
		ann.ok("DELETE", "/conversations/room", "")
		for _, c := range []struct{ method, path, what string }{
			{"GET", "/conversations/room", `Conversation "room"`},
			{"DELETE", "/conversations/room", `Conversation "room"`},
			{"GET", "/conversations/room/messages", `Conversation "room"`},
			{"GET", "/conversations/room/participants", `Conversation "room"`},
			{"GET", "/conversations/room/listen", `Conversation "room"`},
			{"GET", "/messages/" + message, fmt.Sprintf("Message %q", message)},
			{"DELETE", "/messages/" + message, fmt.Sprintf("Message %q", message)},
			{"GET", "/events/" + event, fmt.Sprintf("Event %q", event)},
		} {
			ann.refused(fault.ResourceNotFound, c.what+" doesn't exist", c.method, c.path, "")
		}
		ann.refused(fault.ReferenceNotFound, `Conversation "room" doesn't exist`, "POST", "/messages", textBody(room, "x"))
		ann.refused(fault.ReferenceNotFound, `Conversation "room" doesn't exist`, "POST", "/events", `{"conversationId":"room","payload":{}}`)
		// The name is free for a new one, which is empty.
		ann.opens("room")
		if rows := ann.pages("/conversations/room/messages", "messages", nil); rows != nil {
			r.Errorf("the new conversation has the messages %v", rows)
		}
	})
}

func TestParticipants(t *testing.T) {
	each(t, func(r *rig) {
		ann, bob := r.join("ann"), r.join("bob")
		bob.ok("PUT", "/users/me", `{"name":"Bob","profile":"p"}`)
		ann.opens("room")
		const bobIs = `{"id":"bob","name":"Bob","profile":"p","createdAt":"TIME","updatedAt":"TIME"}`
		for _, c := range []struct{ name, method, path, body, want string }{
			{"add", "POST", "/conversations/room/participants", `{"userId":"bob"}`, `{"participant":` + bobIs + `}`},
			{"add again", "POST", "/conversations/room/participants", `{"userId":"bob"}`, `{"participant":` + bobIs + `}`},
			{"get", "GET", "/conversations/room/participants/bob", "", `{"participant":` + bobIs + `}`},
			{"remove", "DELETE", "/conversations/room/participants/bob", "{}", `{}`},
		} {
			status, out := ann.do(c.method, c.path, c.body)
			if status != http.StatusOK {
				r.Errorf("%s answered %d", c.name, status)
			}
			golden(r, c.name, out, c.want)
		}
		ann.refused(fault.ResourceNotFound, `User "bob" doesn't participate in conversation "room"`, "GET", "/conversations/room/participants/bob", "")
		ann.refused(fault.ResourceNotFound, `User "bob" doesn't participate in conversation "room"`, "DELETE", "/conversations/room/participants/bob", "")
		ann.refused(fault.ResourceNotFound, `User "nobody" doesn't participate`, "GET", "/conversations/room/participants/nobody", "")
		ann.refused(fault.ResourceNotFound, `User "nobody" doesn't participate`, "DELETE", "/conversations/room/participants/nobody", "")
		for _, name := range []string{"nobody", id.New("user"), id.UUID(), chatA.bot, r.joinB("zoe").id} {
			ann.refused(fault.ReferenceNotFound, fmt.Sprintf("User %q doesn't exist", name), "POST", "/conversations/room/participants", fmt.Sprintf(`{"userId":%q}`, name))
		}
		ann.refused(fault.InvalidPayload, "userId is required", "POST", "/conversations/room/participants", `{}`)
		golden(r, "list", ann.pages("/conversations/room/participants", "participants", nil), `[{"id":"ann","createdAt":"TIME","updatedAt":"TIME"}]`)
	})
}

func TestParticipantsArePaged(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		want := []string{"ann"}
		ann.opens("room")
		for i := range 44 {
			r.clock.pass(time.Millisecond)
			p := r.join(fmt.Sprint("p", i))
			ann.adds("room", p)
			want = append(want, p.id)
		}
		slices.Reverse(want)
		if diff := cmp.Diff(want, ids(ann.pages("/conversations/room/participants", "participants", nil))); diff != "" {
			r.Error(diff)
		}
	})
}

func TestTheOwnerStays(t *testing.T) {
	each(t, func(r *rig) {
		ann, bob := r.join("ann"), r.join("bob")
		ann.opens("room")
		ann.adds("room", bob)
		for _, name := range []string{"ann", r.real("user", "ann")} {
			ann.refused(fault.InvalidPayload, "owns conversation", "DELETE", "/conversations/room/participants/"+name, "")
		}
		const says = "Only the owner"
		bob.refused(fault.Forbidden, says, "DELETE", "/conversations/room/participants/ann", "")
		bob.refused(fault.Forbidden, says, "DELETE", "/conversations/room/participants/bob", "")
		bob.refused(fault.Forbidden, says, "POST", "/conversations/room/participants", `{"userId":"bob"}`)
		bob.refused(fault.Forbidden, says, "DELETE", "/conversations/room", "")
		bob.refused(fault.Forbidden, says, "POST", "/conversations/get-or-create", `{"id":"room"}`)
		if got := ids(bob.pages("/conversations/room/participants", "participants", nil)); len(got) != 2 {
			r.Errorf("the participants are %v", got)
		}
		if rows := bob.pages("/conversations", "conversations", nil); rows != nil {
			r.Errorf("a guest lists %v as its own", rows)
		}
	})
}

// attempt is a request for something that is none of the caller's business.
type attempt struct {
	method, path, body string
	unknown            *fault.Kind // for a caller to whom the ids mean nothing
}

// attempts are the operations on what a conversation holds.
func attempts(room, message, event string) []attempt {
	return []attempt{
		{"GET", "/conversations/" + room, "", fault.ResourceNotFound},
		{"DELETE", "/conversations/" + room, "", fault.ResourceNotFound},
		{"GET", "/conversations/" + room + "/listen", "", fault.ResourceNotFound},
		{"GET", "/conversations/" + room + "/messages", "", fault.ResourceNotFound},
		{"GET", "/conversations/" + room + "/participants", "", fault.ResourceNotFound},
		{"POST", "/conversations/" + room + "/participants", `{"userId":"eve"}`, fault.ResourceNotFound},
		{"GET", "/conversations/" + room + "/participants/ann", "", fault.ResourceNotFound},
		{"DELETE", "/conversations/" + room + "/participants/ann", "", fault.ResourceNotFound},
		{"POST", "/messages", textBody(room, "x"), fault.ReferenceNotFound},
		{"GET", "/messages/" + message, "", fault.ResourceNotFound},
		{"DELETE", "/messages/" + message, "", fault.ResourceNotFound},
		{"POST", "/events", fmt.Sprintf(`{"conversationId":%q,"payload":{}}`, room), fault.ReferenceNotFound},
		{"GET", "/events/" + event, "", fault.ResourceNotFound},
	}
}

// Every operation on a conversation, by those who have no part in it: a user of
// the same installation, and one of another bot. Nothing changes.
func TestStrangers(t *testing.T) {
	each(t, func(r *rig) {
		ann, eve, zoe := r.join("ann"), r.join("eve"), r.joinB("eve")
		ann.opens("room")
		message := ann.says("room", "secret")["id"].(string)
		event := field(ann.ok("POST", "/events", `{"conversationId":"room","payload":{}}`), "event", "id")
		before := ann.pages("/conversations/room/messages", "messages", nil)
		for _, room := range []string{"room", r.real("conversation", "room")} {
			for _, c := range attempts(room, message, event) {
				eve.refused(fault.Forbidden, "", c.method, c.path, c.body)
				zoe.refused(c.unknown, "doesn't exist", c.method, c.path, c.body)
				(&person{rig: r, at: chatA}).refused(fault.Unauthorized, "x-user-key is missing", c.method, c.path, c.body)
			}
			eve.refused(fault.Forbidden, "", "POST", "/conversations/get-or-create", fmt.Sprintf(`{"id":%q}`, room))
		}
		zoe.refused(fault.ReferenceNotFound, "", "POST", "/conversations/get-or-create", fmt.Sprintf(`{"id":%q}`, r.real("conversation", "room")))
		if got := field(zoe.ok("POST", "/conversations/get-or-create", `{"id":"room"}`), "conversation", "id"); got != "room" {
			r.Errorf("the other bot's room is %q", got)
		}
		if diff := cmp.Diff(before, ann.pages("/conversations/room/messages", "messages", nil)); diff != "" {
			r.Errorf("the messages changed: %s", diff)
		}
		if got := ids(ann.pages("/conversations/room/participants", "participants", nil)); !slices.Equal(got, []string{"ann"}) {
			r.Errorf("the participants are %v", got)
		}
	})
}

// What belongs to another integration of the same bot does not exist either.
func TestTheConversationsOfAnotherIntegration(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		as := []string{"X-Bot-Id", hookA.bot, "X-Integration-Id", hookA.installation}
		conversation := field(r.succeed("POST", "/v1/chat/conversations", `{"channel":"hook","tags":{"fid":"room"}}`, as...), "conversation", "id")
		user := field(r.succeed("POST", "/v1/chat/users", `{"tags":{"fid":"hank"}}`, as...), "user", "id")
		message := field(r.succeed("POST", "/v1/chat/messages", fmt.Sprintf(`{"conversationId":%q,"userId":%q,"type":"text","payload":{"text":"x"},"tags":{}}`, conversation, user), as...), "message", "id")
		event := field(r.succeed("POST", "/v1/chat/events", fmt.Sprintf(`{"type":"custom","conversationId":%q,"payload":{"payload":{}}}`, conversation), as...), "event", "id")
		for _, c := range attempts(conversation, message, event) {
			ann.refused(c.unknown, "doesn't exist", c.method, c.path, c.body)
		}
		ann.refused(fault.ResourceNotFound, "", "GET", "/conversations/room", "")
		ann.opens("mine")
		for _, name := range []string{user, "hank"} {
			ann.refused(fault.ReferenceNotFound, "doesn't exist", "POST", "/conversations/mine/participants", fmt.Sprintf(`{"userId":%q}`, name))
			r.sign(chatA, name).refused(fault.Unauthorized, "", "GET", "/users/me", "")
		}
	})
}

// Two chats of one bot are as far from each other as those of two bots.
func TestTwoChatsOfOneBot(t *testing.T) {
	each(t, func(r *rig) {
		ann, other := r.join("ann"), r.joinAt(secondA, "ann")
		ann.opens("room")
		message := ann.says("room", "secret")["id"].(string)
		event := field(ann.ok("POST", "/events", `{"conversationId":"room","payload":{}}`), "event", "id")
		for _, room := range []string{"room", r.real(tag.Conversation, "room")} {
			for _, c := range attempts(room, message, event) {
				other.refused(c.unknown, "doesn't exist", c.method, c.path, c.body)
			}
		}
		(&person{r, secondA, "ann", ann.key}).refused(fault.Unauthorized, "not valid here", "GET", "/users/me", "")
		r.sign(secondA, r.real(tag.User, "ann")).refused(fault.Unauthorized, "doesn't exist", "GET", "/users/me", "")
		other.opens("room")
		other.refused(fault.ReferenceNotFound, "", "POST", "/conversations/room/participants", fmt.Sprintf(`{"userId":%q}`, r.real(tag.User, "ann")))
		if rows := other.pages("/conversations/room/messages", "messages", nil); rows != nil {
			r.Errorf("the second chat shows %v", rows)
		}
		e := r.await()
		other.says("room", "hello")
		for ; field(e, "payload", "message", "payload", "text") != "hello"; e = r.await() {
		}
		if got := field(e, "payload", "conversation", "integration"); got != "support/chat" {
			r.Errorf("the bot gets the message from %q", got)
		}
	})
}

// A conversation that was made over the Runtime API has no owner, and nobody is taken for it.
func TestAConversationWithoutAnOwner(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		as := []string{"X-Bot-Id", chatA.bot, "X-Integration-Id", chatA.installation}
		conversation := field(r.succeed("POST", "/v1/chat/conversations", `{"channel":"channel","tags":{}}`, as...), "conversation", "id")
		r.succeed("POST", "/v1/chat/conversations/"+conversation+"/participants", fmt.Sprintf(`{"userId":%q}`, r.real(tag.User, "ann")), as...)
		ann.says(conversation, "hi")
		ann.refused(fault.Forbidden, "Only the owner", "DELETE", "/conversations/"+conversation, "")
		ann.refused(fault.Forbidden, "Only the owner", "DELETE", "/conversations/"+conversation+"/participants/ann", "")
	})
}

// A participant who is taken out between the check and the transaction is refused there.
func TestRightsAreCheckedAgainInTheTransaction(t *testing.T) {
	each(t, func(r *rig) {
		ann, bob := r.join("ann"), r.join("bob")
		room := r.real(tag.Conversation, ann.opens("room"))
		ann.adds("room", bob)
		bob.says("room", "known by now")
		user := r.real(tag.User, "bob")
		r.write(func(tx *sqldb.Tx) error {
			_, err := tx.Exec("DELETE FROM participants WHERE conversation_id = $1 AND user_id = $2", room, user)
			return err
		})
		bob.refused(fault.Forbidden, `You don't participate in conversation "room"`, "POST", "/messages", textBody("room", "x"))
		if got := ann.pages("/conversations/room/messages", "messages", nil); len(got) != 1 {
			r.Errorf("the messages are %v", got)
		}
	})
}

// FuzzChosenID: whatever id is chosen, it is refused as the client's error or
// is what the conversation goes by, in paths and in bodies.
func FuzzChosenID(f *testing.F) {
	r := newRig(f, sqliteDB(f))
	ann := r.join("ann")
	door := "/" + chatA.webhook
	for _, seed := range []string{"a", "", `a\b/c`, "..", "%2F", "get-or-create", "me", id.New("conv"), id.New("user"), id.UUID(), "\x00", "é", strings.Repeat("x", 70), strings.Repeat("x", 71)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		body, _ := json.Marshal(map[string]string{"id": name})
		status, out := r.ask("POST", door+"/conversations", string(body), ann.key)
		if status == http.StatusBadRequest {
			return
		}
		if got := field(parsed(t, string(out)).(map[string]any), "conversation", "id"); status != http.StatusCreated || got != name {
			t.Fatalf("%q answered %d %s", name, status, out)
		}
		for _, c := range []struct {
			method, path, body string
			want               int
		}{
			{"POST", "/conversations", string(body), http.StatusConflict},
			{"POST", "/conversations/get-or-create", string(body), http.StatusCreated},
			{"GET", "/conversations/" + segment(name), "", http.StatusOK},
			{"POST", "/messages", textBody(name, "x"), http.StatusCreated},
			{"DELETE", "/conversations/" + segment(name), "{}", http.StatusOK},
		} {
			if status, out := r.ask(c.method, door+c.path, c.body, ann.key); status != c.want {
				t.Errorf("%s %s for %q answered %d %s, want %d", c.method, c.path, name, status, out, c.want)
			}
		}
	})
}
