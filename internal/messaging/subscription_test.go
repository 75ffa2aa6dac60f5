package messaging

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// subscribe makes botA want these events; without any, all.
func (r *rig) subscribe(types ...string) {
	wanted := map[string]bool{}
	for _, typ := range types {
		wanted[typ] = true
	}
	r.declare(&Rules{Subscriptions: wanted})
}

func TestEventsNobodySubscribedToAreIgnored(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{"id":"u"}`)
		create := func(who as, typ, more string) map[string]any {
			r.Helper()
			return r.ok(who, "POST", "/v1/chat/events", fmt.Sprintf(`{"type":%q,"payload":{}%s}`, typ, more), "event")
		}
		inConv := `,"conversationId":"` + conv + `"`
		var ignored, wanted []string
		note := func(list *[]string, e map[string]any) {
			r.Helper()
			want := map[bool][]any{true: {"ignored", unsubscribed}, false: {"pending", nil}}[list == &ignored]
			if diff := cmp.Diff(want, []any{e["status"], e["failureReason"]}); diff != "" {
				r.Errorf("%v: %s", e["type"], diff)
			}
			*list = append(*list, e["id"].(string))
		}
		r.subscribe("chat:custom", "acme/hooky:received")
		note(&ignored, create(hookOfA, "deleted", ""))
		note(&ignored, create(hookOfA, "deleted", inConv))
		note(&wanted, create(hookOfA, "received", inConv))
		note(&ignored, create(hookOfA, "custom", inConv))
		note(&wanted, create(chatOfA, "custom", ""))
		note(&wanted, create(botOfA, "tick", ""))        // the bot's own
		note(&wanted, create(botOfA, "deleted", inConv)) // of that name, too
		note(&ignored, create(hookOfA, "acme/hooky:deleted", inConv))
		note(&wanted, create(hookOfA, "acme/hooky:received", ""))
		message := r.message(hookOfA, conv, user, "x")["id"]
		r.subscribe("hooky:deleted") // the name of the integration means its one installation
		note(&wanted, create(hookOfA, "deleted", ""))
		note(&ignored, create(chatOfA, "custom", ""))
		r.subscribe("slack:reactionAdded")
		note(&ignored, create(hookOfA, "received", ""))
		r.subscribe()
		note(&wanted, create(hookOfA, "deleted", inConv))

		got := map[string]bool{}
		for _, e := range r.await(len(wanted) + 1) {
			got[e["id"].(string)] = true
			got[fmt.Sprint(e["messageId"])] = true
		}
		for _, e := range wanted {
			if !got[e] {
				r.Errorf("the bot did not get %v", e)
			}
		}
		if !got[message.(string)] {
			r.Error("the bot did not get the message")
		}
		if err := r.s.Delivery.Idle(r.Context()); err != nil {
			r.Fatal(err)
		}
		select {
		case <-r.arrived:
			r.Error("the bot got more than it wants")
		default:
		}
		for query, want := range map[string]int{"status=ignored": len(ignored), "status=pending": 0, "status=processed": len(wanted) + 1, "conversationId=" + conv: 7} {
			if listed := r.pages(botOfA, "/v1/chat/events?"+query, "events", nil); len(listed) != want {
				r.Errorf("%s lists %d, want %d", query, len(listed), want)
			}
		}
		e := r.ok(botOfA, "GET", "/v1/chat/events/"+ignored[0], "", "event")
		if e["type"] != "acme/hooky:deleted" || e["status"] != "ignored" || e["failureReason"] != unsubscribed {
			r.Errorf("the bot reads %v", e)
		}
	})
}

// Two installations of one integration are told apart by their aliases.
func TestASubscriptionNamesOneInstallation(t *testing.T) {
	each(t, func(r *rig) {
		r.town.bots[botA].Installations[1].IntegrationName = "chat"
		r.subscribe("chat:custom")
		for _, c := range []struct {
			who  as
			want string
		}{{chatOfA, "pending"}, {hookOfA, "ignored"}} {
			if e := r.ok(c.who, "POST", "/v1/chat/events", `{"type":"custom","payload":{}}`, "event"); e["status"] != c.want {
				r.Errorf("of %v: %v, want %s", c.who, e["status"], c.want)
			}
		}
		r.await(1)
	})
}
