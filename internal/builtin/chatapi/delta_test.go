package chatapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/fault"
	"parley/internal/tag"
)

// publishes calls the action publishMessageStream and returns the answer.
func (r *rig) publishes(p place, conversationID, signal string) (int, map[string]any) {
	r.Helper()
	return r.request("POST", "/v1/chat/actions", fmt.Sprintf(`{"type":"chat:publishMessageStream","input":{"conversationId":%q,"signal":%s}}`, conversationID, signal), "X-Bot-Id", p.bot)
}

// published is publishes for what must succeed.
func (r *rig) published(p place, conversationID, signal string) {
	r.Helper()
	status, out := r.publishes(p, conversationID, signal)
	if diff := cmp.Diff(map[string]any{"output": map[string]any{}, "meta": map[string]any{"cached": false}}, out); status != 200 || diff != "" {
		r.Fatalf("%s answered %d %s", signal, status, diff)
	}
}

func deltaOf(stream string, sequence int, text, more string) string {
	return fmt.Sprintf(`{"type":"delta","streamId":%q,"sequence":%d,"delta":%q,"createdAt":"2026-07-23T14:15:16.123Z"%s}`, stream, sequence, text, more)
}

// A message that is shown while it is written, over both protocols, with the
// names that chat clients know.
func TestAStreamedMessage(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		real := r.real(tag.Conversation, "room")
		sse, ws := ann.listens("room", "?after=0"), ann.dials("room", "&after=0")

		r.published(chatA, real, deltaOf("s1", 0, "Hel", `,"clientMessageId":"c1"`))
		live := sse.take(1)
		r.published(chatA, real, deltaOf("s1", 1, "lo", ""))
		r.published(chatA, real, deltaOf("s1", 1, "twice", ""))
		live = append(live, sse.take(1)...)
		away := ann.listens("room", "?after="+fmt.Sprint(live[0].pos)) // lost its connection after the first
		if diff := cmp.Diff(textsOf(live[1:]), textsOf(away.take(1))); diff != "" {
			r.Errorf("who came back: %s", diff)
		}
		r.says(chatA, real, "text", `{"text":"Hello","metadata":{"streamId":"s1","a":1}}`)
		r.published(chatA, real, deltaOf("s1", 2, "!", "")) // has come too late
		r.published(chatA, real, deltaOf("s2", 0, "Oh", ""))
		live = append(live, sse.take(3)...)
		r.published(chatA, real, `{"type":"abort","streamId":"s2"}`)
		r.published(chatA, real, `{"type":"abort","streamId":"s2"}`)
		ann.says("room", "bye")
		live = append(live, sse.take(2)...)

		var frames []string
		for i, h := range live {
			frames = append(frames, ws.next().data)
			if h.pos != int64(i+1) {
				r.Errorf("signal %d has the position %d", i, h.pos)
			}
		}
		golden(r, "the signals", parsed(r, "["+strings.Join(textsOf(live), ",")+"]"), `[
			{"type":"message_stream_delta","data":{"streamId":"s1","conversationId":"room","userId":"bot","createdAt":"TIME","clientMessageId":"c1","sequence":0,"delta":"Hel"}},
			{"type":"message_stream_delta","data":{"streamId":"s1","conversationId":"room","userId":"bot","createdAt":"TIME","sequence":1,"delta":"lo"}},
			{"type":"message_stream_complete","data":{"streamId":"s1","message":{"id":"msg","createdAt":"TIME","payload":{"type":"text","text":"Hello"},"metadata":{"streamId":"s1","a":1},"userId":"bot","conversationId":"room"}}},
			{"type":"message_created","data":{"id":"msg","createdAt":"TIME","payload":{"type":"text","text":"Hello"},"metadata":{"streamId":"s1","a":1},"userId":"bot","conversationId":"room","isBot":true}},
			{"type":"message_stream_delta","data":{"streamId":"s2","conversationId":"room","userId":"bot","createdAt":"TIME","sequence":0,"delta":"Oh"}},
			{"type":"message_stream_abort","data":{"streamId":"s2","conversationId":"room"}},
			{"type":"message_created","data":{"id":"msg","createdAt":"TIME","payload":{"type":"text","text":"bye"},"userId":"ann","conversationId":"room","isBot":false}}]`)
		if diff := cmp.Diff(textsOf(live), frames); diff != "" {
			r.Errorf("over WebSocket: %s", diff)
		}
		if diff := cmp.Diff(textsOf(live)[2:], textsOf(away.take(5))); diff != "" {
			r.Errorf("who came back hears what is live: %s", diff)
		}
		// Who comes later gets what became of the streams.
		want := append(textsOf(live[2:4]), textsOf(live[5:])...)
		for _, query := range []string{"?after=0", "?after=1"} {
			if diff := cmp.Diff(want, textsOf(ann.listens("room", query).take(4))); diff != "" {
				r.Errorf("later, %s: %s", query, diff)
			}
		}
	})
}

func TestPublishMessageStreamRefuses(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		real := r.real(tag.Conversation, "room")
		foreign := r.joinB("bob").opens("")
		good := deltaOf("s1", 0, "x", "")
		swap := func(old, with string) string {
			if !strings.Contains(good, old) {
				r.Fatalf("%s is not in %s", old, good)
			}
			return strings.Replace(good, old, with, 1)
		}
		long := strings.Repeat("s", 201)
		for _, c := range []struct {
			conversation, signal string
			kind                 *fault.Kind
			says                 string
		}{
			{real, `null`, fault.InvalidPayload, "signal"},
			{real, `{}`, fault.InvalidPayload, "type"},
			{real, swap(`"type":"delta"`, `"type":"complete"`), fault.InvalidPayload, "type"},
			{real, swap(`"streamId":"s1",`, ""), fault.InvalidPayload, "streamId is required"},
			{real, swap(`"s1"`, `""`), fault.InvalidPayload, "streamId"},
			{real, swap(`"s1"`, `"`+long+`"`), fault.InvalidPayload, "streamId"},
			{real, swap(`"s1"`, `7`), fault.InvalidPayload, "streamId must be a string"},
			{real, swap(`"sequence":0,`, ""), fault.InvalidPayload, "sequence is required"},
			{real, swap(`"sequence":0`, `"sequence":-1`), fault.InvalidPayload, "sequence"},
			{real, swap(`"sequence":0`, `"sequence":0.5`), fault.InvalidPayload, "sequence"},
			{real, swap(`"sequence":0`, `"sequence":9007199254740992`), fault.InvalidPayload, "sequence"},
			{real, swap(`"sequence":0`, `"sequence":"0"`), fault.InvalidPayload, "sequence"},
			{real, swap(`"delta":"x",`, ""), fault.InvalidPayload, "delta is required"},
			{real, swap(`"delta":"x"`, `"delta":null`), fault.InvalidPayload, "delta must not be null"},
			{real, swap(`"delta":"x"`, `"delta":"`+strings.Repeat("x", 33<<10)+`"`), fault.PayloadTooLarge, "delta has"},
			{real, swap(`,"createdAt":"2026-07-23T14:15:16.123Z"`, ""), fault.InvalidPayload, "createdAt is required"},
			{real, swap(`2026-07-23T14:15:16.123Z`, "now"), fault.InvalidPayload, "createdAt"},
			{real, deltaOf("s1", 0, "x", `,"clientMessageId":"`+long+`"`), fault.InvalidPayload, "clientMessageId"},
			{real, deltaOf("s1", 0, "x", `,"isBot":true`), fault.InvalidPayload, "isBot"},
			{real, `{"type":"abort"}`, fault.InvalidPayload, "streamId is required"},
			{real, `{"type":"abort","streamId":""}`, fault.InvalidPayload, "streamId"},
			{real, `{"type":"abort","streamId":"s1","delta":"x"}`, fault.InvalidPayload, "delta"},
			{"room", good, fault.InvalidPayload, "The provided UUID is invalid"},
			{foreign, good, fault.ReferenceNotFound, "doesn't exist"},
			{foreign, `{"type":"abort","streamId":"s1"}`, fault.ReferenceNotFound, "doesn't exist"},
		} {
			status, out := r.publishes(chatA, c.conversation, c.signal)
			if status != c.kind.Status || out["type"] != c.kind.Type || !strings.Contains(fmt.Sprint(out["message"]), c.says) {
				r.Errorf("%.200s: got %d %v, want %s with %q", c.signal, status, out, c.kind.Type, c.says)
			}
		}
		// Nothing of all that was heard.
		ann.says("room", "quiet")
		if got := ann.listens("room", "?after=0").take(1); !strings.Contains(got[0].data, "quiet") {
			r.Errorf("heard %v", got)
		}
	})
}
