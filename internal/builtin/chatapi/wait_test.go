package chatapi

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/fault"
)

// A person who waits gets the bot's messages as every other answer shows them.
func TestRepliesComeWithTheAnswer(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		r.replies(func(e map[string]any) {
			id := field(e, "conversationId")
			r.says(chatA, id, "text", `{"text":"one","metadata":{"a":1}}`)
			r.says(chatA, id, "bloc", `{"items":[{"type":"text","payload":{"text":"two"}}]}`)
		})
		status, out := ann.do("POST", "/messages?wait=60", textBody("room", "hi"))
		if status != http.StatusCreated {
			r.Errorf("createMessage answered %d", status)
		}
		golden(r, "createMessage?wait", out, `{
			"message":{"id":"msg","createdAt":"TIME","payload":{"type":"text","text":"hi"},"userId":"ann","conversationId":"room"},
			"replies":[
				{"id":"msg","createdAt":"TIME","payload":{"type":"text","text":"one"},"metadata":{"a":1},"userId":"bot","conversationId":"room"},
				{"id":"msg","createdAt":"TIME","payload":{"type":"bloc","items":[{"type":"text","text":"two"}]},"userId":"bot","conversationId":"room"}],
			"finished":true}`)
		listed := ann.pages("/conversations/room/messages", "messages", nil)
		if diff := cmp.Diff([]any{listed[1], listed[0]}, out["replies"]); diff != "" {
			r.Errorf("the list shows the replies in another way: %s", diff)
		}
		if out := ann.ok("POST", "/messages", textBody("room", "hi")); len(out) != 1 {
			r.Errorf("without ?wait the answer is %v", out)
		}
		r.await()
		r.await()
	})
}

func TestWaitingRepeated(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		r.replies(func(e map[string]any) {
			r.says(chatA, field(e, "conversationId"), "text", `{"text":"yes"}`)
		})
		body := `{"conversationId":"room","payload":{"type":"text","text":"hi"},"metadata":{"m":[1]}}`
		first := ann.ok("POST", "/messages?wait=60", body, keyed("k")...)
		again := ann.ok("POST", "/messages?wait=60", body, keyed("k")...)
		if diff := cmp.Diff(first, again); diff != "" || len(first["replies"].([]any)) != 1 {
			r.Errorf("got %v, then %s", first, diff)
		}
		plain := ann.ok("POST", "/messages", body, keyed("k")...)
		if diff := cmp.Diff(map[string]any{"message": first["message"]}, plain); diff != "" {
			r.Errorf("the kept answer: %s", diff)
		}
	})
}

// Who is taken out of the conversation, or is gone, while the bot thinks, reads nothing of it.
func TestRepliesAreForThoseWhoMayReadThem(t *testing.T) {
	each(t, func(r *rig) {
		ann, bob, eve := r.join("ann"), r.join("bob"), r.join("eve")
		ann.opens("room")
		ann.adds("room", bob)
		ann.adds("room", eve)
		r.replies(func(e map[string]any) {
			switch field(e, "payload", "message", "payload", "text") {
			case "from bob":
				ann.ok("DELETE", "/conversations/room/participants/bob", "")
			case "from eve":
				eve.ok("DELETE", "/users/me", "")
			}
			r.says(chatA, field(e, "conversationId"), "text", `{"text":"secret"}`)
		})
		for name, p := range map[string]*person{"bob": bob, "eve": eve} {
			out := p.ok("POST", "/messages?wait=60", textBody("room", "from "+name))
			if len(out["replies"].([]any)) != 0 || out["finished"] != true {
				r.Errorf("%s got %v", name, out)
			}
		}
		if n := len(ann.pages("/conversations/room/messages", "messages", nil)); n != 4 {
			r.Errorf("there are %d messages, want 4", n)
		}
	})
}

func TestWaitsThatAreRefused(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		for _, wait := range []string{"", "0", "-1", "61", "x"} {
			ann.refused(fault.InvalidPayload, "wait must be a number of seconds above 0 and at most 60", "POST", "/messages?wait="+wait, textBody("room", "hi"))
		}
		ann.refused(fault.InvalidQuery, `"waits" is not a query parameter`, "POST", "/messages?waits=1", textBody("room", "hi"))
		ann.refused(fault.ReferenceNotFound, "nowhere", "POST", "/messages?wait=1", textBody("nowhere", "hi"))
		if rows := ann.pages("/conversations/room/messages", "messages", nil); rows != nil {
			r.Errorf("there are %v", rows)
		}
	})
}
