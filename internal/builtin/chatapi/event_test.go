package chatapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/fault"
	"parley/internal/id"
)

func TestEvents(t *testing.T) {
	each(t, func(r *rig) {
		ann, bob := r.join("ann"), r.join("bob")
		ann.opens("room")
		ann.adds("room", bob)
		status, made := ann.do("POST", "/events", `{"conversationId":"room","payload":{"foo":{"bar":[1]}}}`)
		if status != http.StatusCreated {
			r.Errorf("createEvent answered %d", status)
		}
		golden(r, "createEvent", made, `{"event":{"id":"evt","createdAt":"TIME","payload":{"foo":{"bar":[1]}},"userId":"ann","conversationId":"room"}}`)
		// The official service names the reader as the author; here it is the author.
		for _, p := range []*person{ann, bob} {
			status, got := p.do("GET", "/events/"+field(made, "event", "id"), "")
			if diff := cmp.Diff(made, got); status != http.StatusOK || diff != "" {
				r.Errorf("getEvent for %s answered %d, %s", p.id, status, diff)
			}
		}
		e := r.await()
		user, conversation := r.real("user", "ann"), r.real("conversation", "room")
		if e["type"] != "chat:custom" || e["id"] != field(made, "event", "id") || e["userId"] != user || e["conversationId"] != conversation {
			r.Errorf("the bot got %v", e)
		}
		want := map[string]any{"userId": user, "conversationId": conversation, "payload": map[string]any{"foo": map[string]any{"bar": []any{1.0}}}}
		if diff := cmp.Diff(any(want), e["payload"]); diff != "" {
			r.Errorf("the bot's payload: %s", diff)
		}
	})
}

func TestBadEventsAreRefused(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		for _, c := range []struct{ body, says string }{
			{`{"conversationId":"room"}`, "payload is required"},
			{`{"payload":{}}`, "conversationId is required"},
			{`{"conversationId":"room","payload":"x"}`, "payload must be an object"},
			{`{"conversationId":"room","payload":[]}`, "payload must be an object"},
			{`{"conversationId":"room","payload":null}`, "payload must not be null"},
			{`{"conversationId":"room","payload":{},"type":"other"}`, `"type" is not a member`},
		} {
			ann.refused(fault.InvalidPayload, c.says, "POST", "/events", c.body)
		}
		for _, name := range []string{id.New("evt"), "x", field(ann.says("room", "hi"), "id")} {
			ann.refused(fault.ResourceNotFound, fmt.Sprintf("Event %q doesn't exist", name), "GET", "/events/"+name, "")
		}
		r.await()
	})
}

// The events by which messages reach the bot are the server's own business.
func TestOnlyCustomEventsAreShown(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		ann.says("room", "hi")
		event := r.await()["id"].(string)
		ann.refused(fault.ResourceNotFound, "doesn't exist", "GET", "/events/"+event, "")
		own := field(r.runtime(chatA, "POST", "/events", fmt.Sprintf(`{"type":"custom","conversationId":%q,"payload":{"payload":{}}}`, r.real("conversation", "room"))), "event", "id")
		ann.refused(fault.ResourceNotFound, "doesn't exist", "GET", "/events/"+own, "")
		// One that was made over the Runtime API may have any payload.
		as := []string{"X-Bot-Id", chatA.bot, "X-Integration-Id", chatA.installation}
		other := field(r.succeed("POST", "/v1/chat/events", fmt.Sprintf(`{"type":"custom","conversationId":%q,"userId":%q,"payload":{"payload":"x"}}`, r.real("conversation", "room"), r.real("user", "ann")), as...), "event", "id")
		golden(r, "getEvent", ann.ok("GET", "/events/"+other, ""), `{"event":{"id":"evt","createdAt":"TIME","payload":{},"userId":"ann","conversationId":"room"}}`)
	})
}

func TestSendEvent(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		real := r.real("conversation", "room")
		zoe := r.joinB("zoe")
		foreign := zoe.opens("")
		as := []string{"X-Bot-Id", hookA.bot, "X-Integration-Id", hookA.installation}
		hooked := field(r.succeed("POST", "/v1/chat/conversations", `{"channel":"hook","tags":{}}`, as...), "conversation", "id")
		call := func(action, input string) (int, map[string]any) {
			r.Helper()
			return r.request("POST", "/v1/chat/actions", fmt.Sprintf(`{"type":%q,"input":%s}`, action, input), "X-Bot-Id", chatA.bot)
		}
		s := ann.listens("room", "?after=0")
		status, out := call("chat:sendEvent", fmt.Sprintf(`{"conversationId":%q,"payload":{"a":1}}`, real))
		golden(r, "callAction", out, `{"output":{},"meta":{"cached":false}}`)
		if status != http.StatusOK {
			r.Errorf("callAction answered %d", status)
		}
		golden(r, "the signal", parsed(r, s.next().data), `{"type":"event_created","data":{"id":null,"createdAt":"TIME","payload":{"a":1},"conversationId":"room","userId":"bot","isBot":true}}`)
		for _, c := range []struct {
			action, input string
			kind          *fault.Kind
			says          string
		}{
			{"chat:sendEvent", `{}`, fault.InvalidPayload, "is required"},
			{"chat:sendEvent", fmt.Sprintf(`{"conversationId":%q}`, real), fault.InvalidPayload, "payload is required"},
			{"chat:sendEvent", fmt.Sprintf(`{"conversationId":%q,"payload":"x"}`, real), fault.InvalidPayload, "payload must be an object"},
			{"chat:sendEvent", fmt.Sprintf(`{"conversationId":%q,"payload":{},"userId":"x"}`, real), fault.InvalidPayload, `"userId" is not a member`},
			{"chat:sendEvent", `{"conversationId":"room","payload":{}}`, fault.InvalidPayload, "The provided UUID is invalid"},
			{"chat:sendEvent", fmt.Sprintf(`{"conversationId":%q,"payload":{"a":"%s"}}`, real, strings.Repeat("x", 128<<10)), fault.PayloadTooLarge, "payload has"},
			{"chat:sendEvent", fmt.Sprintf(`{"conversationId":%q,"payload":{}}`, foreign), fault.ReferenceNotFound, "doesn't exist"},
			{"chat:sendEvent", fmt.Sprintf(`{"conversationId":%q,"payload":{}}`, hooked), fault.ReferenceNotFound, "doesn't exist"},
			{"chat:sendEvent", fmt.Sprintf(`{"conversationId":%q,"payload":{}}`, id.New("conv")), fault.ReferenceNotFound, "doesn't exist"},
			{"chat:other", `{}`, fault.InvalidPayload, "has no action"},
		} {
			status, out := call(c.action, c.input)
			if status != c.kind.Status || out["type"] != c.kind.Type || !strings.Contains(out["message"].(string), c.says) {
				r.Errorf("%s %.200s: got %d %v, want %s with %q", c.action, c.input, status, out, c.kind.Type, c.says)
			}
		}
		ann.says("room", "the next")
		if got := s.next(); got.pos != 2 {
			r.Errorf("a refused action left a signal: %v", got)
		}
	})
}
