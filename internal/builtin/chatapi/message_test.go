package chatapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/messaging"
)

func TestMessages(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		const want = `{"id":"msg","createdAt":"TIME","payload":{"type":"text","text":"hi"},"userId":"ann","conversationId":"room"}`
		status, sent := ann.do("POST", "/messages", textBody("room", "hi"))
		if status != http.StatusCreated {
			r.Errorf("createMessage answered %d", status)
		}
		golden(r, "createMessage", sent, `{"message":`+want+`}`)
		message := field(sent, "message", "id")
		status, got := ann.do("GET", "/messages/"+message, "")
		if diff := cmp.Diff(sent, got); status != http.StatusOK || diff != "" {
			r.Errorf("getMessage answered %d, %s", status, diff)
		}
		status, got = ann.do("GET", "/conversations/room/messages", "")
		golden(r, "listMessages", got, `{"messages":[`+want+`],"meta":{}}`)
		if status != http.StatusOK {
			r.Errorf("listMessages answered %d", status)
		}
		status, got = ann.do("DELETE", "/messages/"+message, "{}")
		golden(r, "deleteMessage", got, `{}`)
		if status != http.StatusOK {
			r.Errorf("deleteMessage answered %d", status)
		}
		for _, name := range []string{message, id.New("msg"), "x"} {
			ann.refused(fault.ResourceNotFound, fmt.Sprintf("Message %q doesn't exist", name), "GET", "/messages/"+name, "")
			ann.refused(fault.ResourceNotFound, fmt.Sprintf("Message %q doesn't exist", name), "DELETE", "/messages/"+name, "")
		}
	})
}

// The whole way: a person writes, the bot gets it with real ids and answers, the
// person reads both.
func TestABotAnswers(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		r.replies(func(e map[string]any) {
			if e["type"] == "message_created" {
				r.says(chatA, field(e, "conversationId"), "text", `{"text":"you said: `+field(e, "payload", "message", "payload", "text")+`"}`)
			}
		})
		sent := ann.says("room", "hi")
		e := r.await()
		if e["type"] != "message_created" || e["messageId"] != sent["id"] || e["userId"] != r.real("user", "ann") || e["conversationId"] != r.real("conversation", "room") {
			r.Errorf("the bot got %v", e)
		}
		golden(r, "what the bot got", e["payload"], `{
			"user":{"id":"user","createdAt":"TIME","updatedAt":"TIME","tags":{"chat:fid":"ann"}},
			"conversation":{"id":"conv","createdAt":"TIME","updatedAt":"TIME","channel":"channel","integration":"chat","tags":{"chat:owner":"user","chat:fid":"room"}},
			"message":{"id":"msg","createdAt":"TIME","updatedAt":"TIME","type":"text","payload":{"text":"hi"},"direction":"incoming","userId":"user","conversationId":"conv","tags":{}}}`)
		rows := ann.pages("/conversations/room/messages", "messages", nil)
		golden(r, "the messages", rows, `[
			{"id":"msg","createdAt":"TIME","payload":{"type":"text","text":"you said: hi"},"userId":"bot","conversationId":"room"},
			{"id":"msg","createdAt":"TIME","payload":{"type":"text","text":"hi"},"userId":"ann","conversationId":"room"}]`)
		if rows[0]["createdAt"].(string) <= rows[1]["createdAt"].(string) {
			r.Errorf("the answer is not later: %v", rows)
		}
		ann.refused(fault.Forbidden, "Only the sender", "DELETE", "/messages/"+rows[0]["id"].(string), "")
	})
}

// The official service names the reader as the author; here it is the author.
func TestTheAuthorIsNotTheReader(t *testing.T) {
	each(t, func(r *rig) {
		ann, bob := r.join("ann"), r.join("bob")
		ann.opens("room")
		ann.adds("room", bob)
		sent := ann.says("room", "hi")
		path := "/messages/" + sent["id"].(string)
		if got := bob.ok("GET", path, "")["message"]; cmp.Diff(any(sent), got) != "" {
			r.Error(cmp.Diff(any(sent), got))
		}
		bob.refused(fault.Forbidden, "Only the sender", "DELETE", path, "")
		ann.ok("DELETE", path, "")
	})
}

func TestMessagesArePagedNewestFirst(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		other := ann.opens("other")
		ann.says(other, "not here")
		var want []string
		for i := range 65 {
			want = append(want, ann.says("room", fmt.Sprint(i))["id"].(string))
		}
		slices.Reverse(want)
		rows := ann.pages("/conversations/room/messages", "messages", func() { ann.says("room", "later") })
		if diff := cmp.Diff(want, ids(rows)); diff != "" {
			r.Error(diff)
		}
		for i, row := range rows[1:] {
			if row["createdAt"].(string) >= rows[i]["createdAt"].(string) {
				r.Errorf("message %d is not before the one listed before it", i+1)
			}
		}
		token := ann.ok("GET", "/conversations/room/messages", "")["meta"].(map[string]any)["nextToken"].(string)
		ann.refused(fault.InvalidQuery, "nextToken", "GET", "/conversations/"+other+"/messages?nextToken="+token, "")
		ann.refused(fault.InvalidQuery, "nextToken", "GET", "/conversations?nextToken="+token, "")
	})
}

func TestMetadata(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		real := r.real("conversation", "room")
		send := func(payload, more string) map[string]any {
			r.Helper()
			return ann.ok("POST", "/messages", `{"conversationId":"room","payload":`+payload+more+`}`)["message"].(map[string]any)
		}
		for _, c := range []struct{ payload, more, want, metadata, runtime string }{
			{`{"type":"text","text":"a"}`, `,"metadata":{"a":1,"b":{"c":[null]}}`, `{"type":"text","text":"a"}`, `{"a":1,"b":{"c":[null]}}`, `{"text":"a","metadata":{"a":1,"b":{"c":[null]}}}`},
			{`{"type":"text","text":"a"}`, `,"metadata":{}`, `{"type":"text","text":"a"}`, `{}`, `{"text":"a","metadata":{}}`},
			{`{"type":"text","text":"a"}`, ``, `{"type":"text","text":"a"}`, `null`, `{"text":"a"}`},
			// A member of the payload is the same thing, for that is where the bot finds it.
			{`{"type":"text","text":"a","metadata":{"a":1}}`, ``, `{"type":"text","text":"a"}`, `{"a":1}`, `{"text":"a","metadata":{"a":1}}`},
			{`{"type":"text","text":"a","metadata":"mine"}`, ``, `{"type":"text","text":"a","metadata":"mine"}`, `null`, `{"text":"a","metadata":"mine"}`},
			{`{"type":"bloc","metadata":null,"items":[{"type":"text","text":"a","metadata":{"b":2}}]}`, ``, `{"type":"bloc","metadata":null,"items":[{"type":"text","text":"a","metadata":{"b":2}}]}`, `null`, `{"metadata":null,"items":[{"type":"text","payload":{"text":"a","metadata":{"b":2}}}]}`},
		} {
			sent := send(c.payload, c.more)
			golden(r, "payload of "+c.payload, sent["payload"], c.want)
			golden(r, "metadata of "+c.payload+c.more, sent["metadata"], c.metadata)
			if _, there := sent["metadata"]; there != (c.metadata != "null") {
				r.Errorf("metadata of %s%s is there: %v", c.payload, c.more, there)
			}
			if got := ann.ok("GET", "/messages/"+sent["id"].(string), "")["message"]; cmp.Diff(any(sent), got) != "" {
				r.Errorf("read back: %s", cmp.Diff(any(sent), got))
			}
			golden(r, "the bot's payload of "+c.payload, r.runtime(chatA, "GET", "/messages/"+sent["id"].(string), "")["message"].(map[string]any)["payload"], c.runtime)
		}
		for _, more := range []string{`"x"`, `[]`, `7`, `null`} {
			ann.refused(fault.InvalidPayload, "metadata must", "POST", "/messages", `{"conversationId":"room","payload":{"type":"text","text":"a"},"metadata":`+more+`}`)
		}
		for _, inside := range []string{`{}`, `"x"`, `null`} {
			ann.refused(fault.InvalidPayload, "send one of them", "POST", "/messages", `{"conversationId":"room","payload":{"type":"text","text":"a","metadata":`+inside+`},"metadata":{}}`)
		}
		r.says(chatA, real, "text", `{"text":"b","metadata":{"streamId":"s"}}`)
		golden(r, "the bot's metadata", ann.pages("/conversations/room/messages", "messages", nil)[0]["metadata"], `{"streamId":"s"}`)
	})
}

func TestWhatABotSendsIsShown(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		real := r.real("conversation", "room")
		for _, c := range []struct{ typ, payload, want string }{
			{"text", `{"text":"a"}`, `{"type":"text","text":"a"}`},
			{"image", `{"imageUrl":"u","title":"t"}`, `{"type":"image","imageUrl":"u","title":"t"}`},
			{"bloc", `{"items":[{"type":"text","payload":{"text":"a"}},{"type":"location","payload":{"latitude":1,"longitude":-2.5}}]}`, `{"type":"bloc","items":[{"type":"text","text":"a"},{"type":"location","latitude":1,"longitude":-2.5}]}`},
			{"carousel", `{"items":[{"title":"t","actions":[]},{"title":"u","actions":[],"type":"other"}]}`, `{"type":"carousel","items":[{"type":"card","title":"t","actions":[]},{"type":"card","title":"u","actions":[]}]}`},
			// What chat clients do not know, or has another form, is shown as it is.
			{"quiz", `{"question":"q","items":[{"type":"a","payload":{"b":1}}]}`, `{"type":"quiz","question":"q","items":[{"type":"a","payload":{"b":1}}]}`},
			{"text", `{}`, `{"type":"text"}`},
			{"text", `{"type":"image","text":"a"}`, `{"type":"text","text":"a"}`},
			{"bloc", `{"items":"none"}`, `{"type":"bloc","items":"none"}`},
			{"bloc", `{"items":[1,{"type":"text"},{"payload":{"a":1}},{"type":"text","payload":"x"}]}`, `{"type":"bloc","items":[1,{"type":"text"},{"payload":{"a":1}},{"type":"text","payload":"x"}]}`},
			{"carousel", `{"items":[null,"x",[]]}`, `{"type":"carousel","items":[null,"x",[]]}`},
		} {
			sent := r.says(chatA, real, c.typ, c.payload)
			golden(r, c.typ+" "+c.payload, ann.ok("GET", "/messages/"+sent["id"].(string), "")["message"].(map[string]any)["payload"], c.want)
		}
	})
}

func TestTooMuch(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		text := func(n int) string { return textBody("room", strings.Repeat("x", n)) }
		const frame = len(`{"text":""}`) // what the bot's form of it takes besides the text
		ann.ok("POST", "/messages", text(messaging.MaxPayload-frame))
		for name, body := range map[string]string{
			"a byte over 128 KB":  text(messaging.MaxPayload - frame + 1),
			"the body over 1 MB":  text(1 << 20),
			"the body of 2 MB":    text(2 << 20),
			"metadata over 128 K": `{"conversationId":"room","payload":{"type":"text","text":"a"},"metadata":{"a":"` + strings.Repeat("x", messaging.MaxPayload) + `"}}`,
		} {
			if status, out := ann.do("POST", "/messages", body); status != http.StatusRequestEntityTooLarge || out["type"] != "PayloadTooLarge" {
				r.Errorf("%s: got %d %v", name, status, out)
			}
		}
		event := func(n int) string {
			return `{"conversationId":"room","payload":{"a":"` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}}`
		}
		ann.ok("POST", "/events", event(messaging.MaxPayload))
		for _, body := range []string{event(messaging.MaxPayload + 1), event(2 << 20)} {
			ann.refused(fault.PayloadTooLarge, "", "POST", "/events", body)
		}
		if got := ann.pages("/conversations/room/messages", "messages", nil); len(got) != 1 {
			r.Errorf("%d messages are there, want 1", len(got))
		}
	})
}

func TestBadMessagesAreRefused(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		good := textBody("room", "x")
		for _, c := range []struct{ body, says string }{
			{`{}`, "is required"},
			{``, "is required"},
			{`[]`, "must be a JSON object"},
			{good[:len(good)-2], "not valid JSON"},
			{good + "{}", "goes on"},
			{strings.Replace(good, `{`, `{"userId":"bob",`, 1), `"userId" is not a member`},
			{strings.Replace(good, `{`, `{"tags":{},`, 1), `"tags" is not a member`},
			{strings.Replace(good, `{`, `{"conversationId":"room",`, 1), `"conversationId" twice`},
			{strings.Replace(good, `"room"`, `7`, 1), "conversationId must be a string"},
			{strings.Replace(good, `"room"`, `"a\u0000"`, 1), "U+0000"},
			{strings.Replace(good, `"x"`, `"\ud800"`, 1), "not valid JSON"},
			{`{"conversationId":"room","payload":"text"}`, "payload must be an object"},
			{`{"conversationId":"room","payload":null}`, "payload must not be null"},
			{`{"conversationId":"room","payload":` + strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat(`}`, 101), "levels deep"},
		} {
			ann.refused(fault.InvalidPayload, c.says, "POST", "/messages", c.body)
		}
		for _, name := range []string{"none", id.New("conv"), id.UUID(), id.New("user"), ""} {
			ann.refused(fault.ReferenceNotFound, fmt.Sprintf("Conversation %q doesn't exist", name), "POST", "/messages", textBody(name, "x"))
			ann.refused(fault.ReferenceNotFound, fmt.Sprintf("Conversation %q doesn't exist", name), "POST", "/events", fmt.Sprintf(`{"conversationId":%q,"payload":{}}`, name))
		}
		ann.refused(fault.UnsupportedMediaType, "", "POST", "/messages", good, "Content-Type", "text/plain")
		if rows := ann.pages("/conversations/room/messages", "messages", nil); rows != nil {
			r.Errorf("there are %v", rows)
		}
		if events := r.runtime(chatA, "GET", "/events", "")["events"].([]any); len(events) != 0 {
			r.Errorf("the bot has %v", events)
		}
	})
}

// Every payload of every kind comes back as it was sent, on every way.
func TestPayloadsComeBackAsTheyWereSent(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		for _, payload := range goodPayloads {
			sent := ann.ok("POST", "/messages", `{"conversationId":"room","payload":`+payload+`}`)["message"].(map[string]any)
			if diff := cmp.Diff(parsed(r, payload), sent["payload"]); diff != "" {
				r.Errorf("%s: %s", payload, diff)
			}
			if got := ann.ok("GET", "/messages/"+sent["id"].(string), "")["message"]; cmp.Diff(any(sent), got) != "" {
				r.Errorf("read back: %s", cmp.Diff(any(sent), got))
			}
			kind := parsed(r, payload).(map[string]any)["type"]
			e := r.await()["payload"].(map[string]any)["message"].(map[string]any)
			if _, inside := e["payload"].(map[string]any)["type"]; e["type"] != kind || inside {
				r.Errorf("the bot got %v", e)
			}
		}
	})
}

func TestTextInEveryScript(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		text := "žluťoučký · 你好 · 👩‍👩‍👧 · \u2028\"\\\t " + strings.Repeat("é", 9000)
		quoted, _ := json.Marshal(text)
		sent := ann.ok("POST", "/messages", `{"conversationId":"room","payload":{"type":"text","text":`+string(quoted)+`}}`)
		if got := field(sent, "message", "payload", "text"); got != text {
			r.Errorf("the text is %q", got)
		}
		if got := field(r.await(), "payload", "message", "payload", "text"); got != text {
			r.Errorf("the bot got %q", got)
		}
	})
}
