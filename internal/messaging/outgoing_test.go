package messaging

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/auth"
	"parley/internal/endpoint"
	"parley/internal/sqldb"
)

// outside changes the installation of acme/hooky in bot A for a test.
func (r *rig) outside(change func(in *auth.Installation, rules *Rules)) {
	r.town.mu.Lock()
	defer r.town.mu.Unlock()
	b := *r.town.bots[botA]
	b.Installations = slices.Clone(b.Installations)
	rules := *r.town.rules[botA+hookA]
	for i := range b.Installations {
		if in := &b.Installations[i]; in.ID == hookA {
			in.Outside, in.Told = true, true
			if change != nil {
				change(in, &rules)
			}
		}
	}
	r.town.bots[botA], r.town.rules[botA+hookA] = &b, &rules
}

// told are the operations that reached installations, as name and body.
func (r *rig) told(n int) []call {
	r.Helper()
	r.await(n)
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

func TestTheBotsMessagesReachAnInstallationOutside(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		user := r.user(hookOfA, `{"id":"u1"}`)
		conversation := r.conversation(hookOfA, "hook", `{"id":"c1"}`)
		r.message(hookOfA, conversation, user, "hi")
		r.await(1)
		m := r.message(botOfA, conversation, botA, "hello")
		got := r.told(1)[0]
		if got.endpoint != InstallationEndpoint(hookA) || got.op.Name != "message_created" || got.op.Header.Get("X-Parley-Attempt") != "1" {
			r.Errorf("the call is %+v", got.op)
		}
		var body map[string]any
		if err := json.Unmarshal(got.op.Body, &body); err != nil {
			r.Fatal(err)
		}
		if body["type"] != "text" || !cmp.Equal(body["payload"], map[string]any{"text": "hello"}) {
			r.Errorf("type and payload are %v %v", body["type"], body["payload"])
		}
		if v := body["conversation"].(map[string]any); v["id"] != conversation || !cmp.Equal(v["tags"], map[string]any{"id": "c1"}) || v["integration"] != "acme/hooky" {
			r.Errorf("the conversation is %v, want bare tags", v)
		}
		if u := body["user"].(map[string]any); u["id"] != botA {
			r.Errorf("the user is %v, want the bot", u)
		}
		if got := body["message"].(map[string]any); got["id"] != m["id"] || got["direction"] != "outgoing" {
			r.Errorf("the message is %v", got)
		}
		r.idle()
		if n := r.count("SELECT count(*) FROM outbox WHERE status = 'processed' AND attempts = 1 AND done_at > 0"); n != 1 {
			r.Errorf("%d rows say that it was delivered, want 1", n)
		}
	})
}

func TestOutgoingMessagesKeepTheirOrder(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		var conversations []string
		for range 4 {
			conversations = append(conversations, r.conversation(hookOfA, "hook", `{}`))
		}
		const each = 10
		for n := range each {
			for _, v := range conversations {
				r.message(botOfA, v, botA, fmt.Sprint(n))
			}
		}
		last := map[string]int{}
		for _, c := range r.told(each * len(conversations)) {
			var body struct {
				Payload      struct{ Text string }
				Conversation struct{ ID string }
			}
			if err := json.Unmarshal(c.op.Body, &body); err != nil {
				r.Fatal(err)
			}
			if want := fmt.Sprint(last[body.Conversation.ID]); body.Payload.Text != want {
				r.Errorf("conversation %s: message %s, want %s", body.Conversation.ID, body.Payload.Text, want)
			}
			last[body.Conversation.ID]++
		}
	})
}

// Nothing goes out that is not meant to, and what has lost its object is dropped.
func TestWhatIsNotSentOut(t *testing.T) {
	for name, c := range map[string]struct {
		change func(in *auth.Installation, rules *Rules)
		body   string
		left   string // what happens before the delivery
	}{
		"a disabled installation": {change: func(in *auth.Installation, _ *Rules) { in.Enabled = false }},
		"a removed installation":  {change: func(in *auth.Installation, _ *Rules) { in.Removed = true }},
		"a disabled channel":      {change: func(in *auth.Installation, _ *Rules) { in.DisabledChannels = []string{"hook"} }},
		"one inside Parley":       {change: func(in *auth.Installation, _ *Rules) { in.Outside, in.Told = false, false }},
		"a synthetic message":     {body: `,"origin":"synthetic"`},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(r *rig) {
				conversation := r.conversation(hookOfA, "hook", `{}`)
				r.outside(c.change)
				body := strings.TrimSuffix(messageBody(conversation, botA, "x"), "}") + c.body + "}"
				r.ok(botOfA, "POST", "/v1/chat/messages", body, "message")
				r.idle()
				if n := r.count("SELECT count(*) FROM outbox WHERE status <> 'ignored'"); n != 0 || len(r.calls) != 0 {
					r.Errorf("%d rows, calls %v", n, r.calls)
				}
			})
		})
	}
}

func TestAMessageDeletedBeforeItIsSentIsDropped(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		conversation := r.conversation(hookOfA, "hook", `{}`)
		c := r.caller(botOfA)
		r.write(func(tx *sqldb.Tx) error {
			m, err := r.s.AddMessage(tx, c, NewMessage{ConversationID: conversation, UserID: botA, Type: "text", Payload: []byte(`{"text":"x"}`)})
			if err != nil {
				return err
			}
			return r.s.DropMessage(tx, c, m.ID)
		})
		r.idle()
		if n := r.count("SELECT count(*) FROM outbox WHERE status = 'ignored' AND failure_reason = 'the message has been deleted'"); n != 1 || len(r.calls) != 0 {
			r.Errorf("%d rows say why nothing was sent, calls %v", n, r.calls)
		}
	})
}

// Changes are told to those who ask, and never to whoever made them.
func TestChangesAreToldToWhoAsks(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		conversation := r.conversation(hookOfA, "hook", `{"id":"c1"}`)
		m := r.message(botOfA, conversation, botA, "old")["id"].(string)
		r.told(1)
		change := func(who as, text string) {
			r.ok(who, "PUT", "/v1/chat/messages/"+m, `{"tags":{},"payload":{"text":"`+text+`"}}`, "message")
		}
		change(botOfA, "unheard")
		r.outside(func(_ *auth.Installation, rules *Rules) {
			rules.Operations = map[string]bool{"message_updated": true, "conversation_updated": true}
		})
		change(hookOfA, "by itself")
		change(botOfA, "new")
		r.ok(botOfA, "PUT", "/v1/chat/conversations/"+conversation, `{"tags":{"mine":"x"}}`, "conversation")
		calls := r.told(2)[1:]
		var update struct {
			Type                            string
			CurrentMessage, PreviousMessage struct{ Payload struct{ Text string } }
			Conversation, User              struct{ ID string }
		}
		if err := json.Unmarshal(calls[0].op.Body, &update); err != nil || calls[0].op.Name != "message_updated" ||
			update.PreviousMessage.Payload.Text != "by itself" || update.CurrentMessage.Payload.Text != "new" || update.Conversation.ID != conversation || update.User.ID != botA {
			r.Errorf("%s %s, %v", calls[0].op.Name, calls[0].op.Body, err)
		}
		var moved struct {
			CurrentConversation, PreviousConversation struct {
				ID   string
				Tags map[string]string
			}
		}
		if err := json.Unmarshal(calls[1].op.Body, &moved); err != nil || calls[1].op.Name != "conversation_updated" || moved.CurrentConversation.ID != conversation ||
			!cmp.Equal(moved.CurrentConversation.Tags, map[string]string{"id": "c1"}) {
			r.Errorf("%s %s, %v; the bot's own tags are not for the integration", calls[1].op.Name, calls[1].op.Body, err)
		}
	})
}

// An integration outside makes the users and conversations that a bot wants of it.
func TestAnIntegrationMakesWhatABotWantsOfIt(t *testing.T) {
	each(t, func(r *rig) {
		theirs, place := r.user(hookOfA, `{"id":"u1"}`), r.conversation(hookOfA, "hook", `{"id":"c1"}`)
		r.outside(nil)
		answers := map[string]endpoint.Answer{}
		var asked []string
		r.answer = func(op endpoint.Operation) (endpoint.Answer, bool) {
			asked = append(asked, op.Name+" "+string(op.Body))
			a, ok := answers[op.Name]
			return a, ok
		}
		answers["create_user"] = endpoint.Answer{Status: 200, Body: []byte(`{"user":{"id":"` + theirs + `"}}`)}
		answers["create_conversation"] = endpoint.Answer{Status: 200, Body: []byte(`{"id":"` + place + `"}`)}
		wantUser := `{"integrationName":"acme/hooky","tags":{"phone":"1"}}`
		wantConversation := `{"integrationName":"acme/hooky","channel":"hook","tags":{}}`
		if u := r.ok(botOfA, "POST", "/v1/chat/users", wantUser, "user"); u["id"] != theirs {
			r.Errorf("got %v", u)
		}
		if v := r.ok(botOfA, "POST", "/v1/chat/conversations", wantConversation, "conversation"); v["id"] != place {
			r.Errorf("got %v", v)
		}
		if diff := cmp.Diff([]string{`create_user {"tags":{"phone":"1"}}`, `create_conversation {"channel":"hook","tags":{}}`}, asked); diff != "" {
			r.Error(diff)
		}
		for name, c := range map[string]struct {
			answer endpoint.Answer
			kind   string
			says   string
		}{
			"a refusal":        {endpoint.Answer{Status: 400, Body: []byte(`{"id":"e","code":400,"type":"Runtime","message":"no such phone"}`)}, "Runtime", "no such phone"},
			"somebody unknown": {endpoint.Answer{Status: 200, Body: []byte(`{"user":{"id":"user_01ZZZZZZZZZZZZZZZZZZZZZZZZ"}}`)}, "Runtime", "doesn't exist"},
			"a failure":        {endpoint.Answer{Status: 500, Body: []byte(`{"error":"broken"}`)}, "Runtime", "broken"},
		} {
			answers["create_user"] = c.answer
			if status, out := r.do(botOfA, "POST", "/v1/chat/users", wantUser); status != 400 || out["type"] != c.kind || !strings.Contains(out["message"].(string), c.says) {
				r.Errorf("%s: got %d %v", name, status, out)
			}
		}
		// Who does not implement it leaves it to Parley, and nobody asks an integration to make what it makes itself.
		answers["create_user"] = endpoint.Answer{Status: 200, Body: []byte(`{}`)}
		if u := r.ok(botOfA, "POST", "/v1/chat/users", wantUser, "user"); u["id"] == theirs {
			r.Errorf("got %v", u)
		}
		asked = nil
		r.user(hookOfA, `{"id":"u2"}`)
		if len(asked) != 0 {
			r.Errorf("asked %q", asked)
		}
	})
}
