package chatapi

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/realtime"
	"parley/internal/tag"
)

// Every kind of signal, to the member; over both protocols, live and from the log.
func TestSignals(t *testing.T) {
	each(t, func(r *rig) {
		r.clock.ticks(time.Millisecond) // what has two times shows it
		ann, bob := r.join("ann"), r.join("bob")
		ann.opens("room")
		real := r.real(tag.Conversation, "room")
		sse, ws := ann.listens("room", "?after=0"), ann.dials("room", "&after=0")

		ann.adds("room", bob)
		sent := ann.ok("POST", "/messages", `{"conversationId":"room","payload":{"type":"text","text":"hi"},"metadata":{"a":1}}`)["message"].(map[string]any)
		event := ann.ok("POST", "/events", `{"conversationId":"room","payload":{"b":2}}`)["event"].(map[string]any)
		r.says(chatA, real, "bloc", `{"items":[{"type":"text","payload":{"text":"yes"}}]}`)
		r.runtime(chatA, "POST", "/actions", fmt.Sprintf(`{"type":"chat:sendEvent","input":{"conversationId":%q,"payload":{"c":3}}}`, real))
		ann.ok("DELETE", "/messages/"+sent["id"].(string), "")
		ann.ok("DELETE", "/conversations/room/participants/bob", "")

		live := sse.take(7)
		var texts, frames []string
		for i, h := range live {
			texts = append(texts, h.data)
			frames = append(frames, ws.next().data)
			if h.pos != int64(i+1) {
				r.Errorf("signal %d has the position %d", i, h.pos)
			}
			if strings.ContainsAny(h.data, "\r\n") {
				r.Errorf("signal %d has several lines: %q", i, h.data)
			}
		}
		golden(r, "the signals", parsed(r, "["+strings.Join(texts, ",")+"]"), `[
			{"type":"participant_added","data":{"conversationId":"room","participantId":"bob"}},
			{"type":"message_created","data":{"id":"msg","createdAt":"TIME","payload":{"type":"text","text":"hi"},"metadata":{"a":1},"userId":"ann","conversationId":"room","isBot":false}},
			{"type":"event_created","data":{"id":"evt","createdAt":"TIME","payload":{"b":2},"userId":"ann","conversationId":"room","isBot":false}},
			{"type":"message_created","data":{"id":"msg","createdAt":"TIME","payload":{"type":"bloc","items":[{"type":"text","text":"yes"}]},"userId":"bot","conversationId":"room","isBot":true}},
			{"type":"event_created","data":{"id":null,"createdAt":"TIME","payload":{"c":3},"userId":"bot","conversationId":"room","isBot":true}},
			{"type":"message_deleted","data":{"id":"msg","conversationId":"room","userId":"ann"}},
			{"type":"participant_removed","data":{"conversationId":"room","participantId":"bob"}}]`)
		if diff := cmp.Diff(texts, frames); diff != "" {
			r.Errorf("over WebSocket: %s", diff)
		}
		data := func(i int) map[string]any { return parsed(r, texts[i]).(map[string]any)["data"].(map[string]any) }
		if diff := cmp.Diff(event, without(data(2), "isBot")); diff != "" {
			r.Errorf("the event in the signal differs: %s", diff)
		}
		if diff := cmp.Diff(sent, without(data(1), "isBot")); diff != "" || data(5)["id"] != sent["id"] {
			r.Errorf("the message in the signals differs: %s, %v", diff, data(5))
		}
		// The deleted message is passed over by those who come later.
		again := ann.listens("room", "?after=0").take(6)
		if diff := cmp.Diff(append(texts[:1:1], texts[2:]...), textsOf(again)); diff != "" {
			r.Errorf("read again: %s", diff)
		}
	})
}

func without(v map[string]any, name string) map[string]any {
	delete(v, name)
	return v
}

func textsOf(all []heard) (texts []string) {
	for _, h := range all {
		texts = append(texts, h.data)
	}
	return texts
}

// The official client compares a listed message with the one in the signal.
func TestListedMessagesEqualSignalledOnes(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		real := r.real(tag.Conversation, "room")
		s := ann.listens("room", "")
		for _, payload := range goodPayloads {
			ann.ok("POST", "/messages", `{"conversationId":"room","payload":`+payload+`}`)
			typ, runtime := fromChat(asPayload(payload), nil)
			r.says(chatA, real, typ, string(runtime))
		}
		listed := ann.pages("/conversations/room/messages", "messages", nil)
		for i := len(listed) - 1; i >= 0; i-- {
			g := parsed(r, s.next().data).(map[string]any)["data"].(map[string]any)
			if isBot := g["userId"] == chatA.bot; g["isBot"] != isBot {
				r.Errorf("isBot is %v in %v", g["isBot"], g)
			}
			if diff := cmp.Diff(listed[i], without(g, "isBot")); diff != "" {
				r.Errorf("message %d: %s", i, diff)
			}
		}
	})
}

// Whatever happens in a conversation, the log says what was said live, but for
// the messages that are gone by then.
func TestTheLogEqualsWhatWasLive(t *testing.T) {
	each(t, func(r *rig) {
		r.clock.ticks(time.Millisecond)
		dice := rand.New(rand.NewPCG(3, 4))
		owner := r.join("owner")
		room := owner.opens("room")
		real := r.real(tag.Conversation, room)
		s := owner.listens(room, "?after=0")
		h := &history{rig: r, dice: dice, owner: owner, room: room, real: real, inside: map[*person]bool{owner: true}}
		for i := range 4 {
			h.guests = append(h.guests, r.join([]string{"", fmt.Sprint("guest", i)}[i%2]))
		}
		for range 150 {
			h.step()
		}
		live := s.take(h.signals)
		var want []heard
		for _, g := range live {
			if !h.deleted[createdMessage(g.data)] {
				want = append(want, g)
			}
		}
		for _, limit := range []int{1, 2, 7, 60, 1000} {
			for _, after := range []int64{0, int64(dice.IntN(h.signals)), int64(h.signals)} {
				if diff := cmp.Diff(above(want, after), h.log(after, limit), cmp.AllowUnexported(heard{})); diff != "" {
					r.Errorf("after %d, %d at a time: %s", after, limit, diff)
				}
			}
		}
		// The same on a node that knows no names yet.
		r.chat.names = nameCache{}
		if diff := cmp.Diff(want, h.log(0, 20), cmp.AllowUnexported(heard{})); diff != "" {
			r.Errorf("on another node: %s", diff)
		}
	})
}

func above(all []heard, after int64) (out []heard) {
	for _, h := range all {
		if h.pos > after {
			out = append(out, h)
		}
	}
	return out
}

// createdMessage is the id of the message that a signal says is created, "" for other signals.
func createdMessage(text string) string {
	var g struct {
		Type string
		Data struct{ ID string }
	}
	if json.Unmarshal([]byte(text), &g) != nil || g.Type != "message_created" {
		return ""
	}
	return g.Data.ID
}

// history makes things happen in a conversation at random.
type history struct {
	*rig
	dice       *rand.Rand
	owner      *person
	guests     []*person
	inside     map[*person]bool
	room, real string
	messages   []sentMessage
	deleted    map[string]bool
	signals    int // made so far
}

type sentMessage struct {
	by *person
	id string
}

func (h *history) step() {
	guest := h.guests[h.dice.IntN(len(h.guests))]
	author := h.owner
	if h.inside[guest] {
		author = guest
	}
	h.signals++
	switch h.dice.IntN(8) {
	case 0:
		h.rig.says(chatA, h.real, "text", `{"text":"from the bot"}`)
	case 1:
		h.runtime(chatA, "POST", "/actions", fmt.Sprintf(`{"type":"chat:sendEvent","input":{"conversationId":%q,"payload":{}}}`, h.real))
	case 2:
		author.ok("POST", "/events", fmt.Sprintf(`{"conversationId":%q,"payload":{"n":%d}}`, h.room, h.signals))
	case 3:
		if !h.inside[guest] {
			h.owner.adds(h.room, guest)
		} else {
			h.owner.ok("DELETE", "/conversations/"+h.room+"/participants/"+guest.id, "")
		}
		h.inside[guest] = !h.inside[guest]
	case 4:
		h.deletes()
	default:
		m := author.says(h.room, fmt.Sprint("message ", h.signals))
		h.messages = append(h.messages, sentMessage{author, m["id"].(string)})
	}
}

// deletes removes a message whose author is still there, if it finds one.
func (h *history) deletes() {
	for i, m := range h.messages {
		if h.inside[m.by] && h.dice.IntN(3) == 0 {
			m.by.ok("DELETE", "/messages/"+m.id, "")
			h.messages = append(h.messages[:i:i], h.messages[i+1:]...)
			if h.deleted == nil {
				h.deleted = map[string]bool{}
			}
			h.deleted[m.id] = true
			return
		}
	}
	h.signals--
}

// log reads the log after a position to its end, a few signals at a time.
func (h *history) log(after int64, limit int) (out []heard) {
	h.Helper()
	log := Log{h.chat}
	head, err := log.Head(h.Context(), h.real)
	if err != nil || head != int64(h.signals) {
		h.Fatalf("the head is %d, want %d: %v", head, h.signals, err)
	}
	for after < head {
		var signals []realtime.Signal
		signals, upTo, err := log.Read(h.Context(), h.real, after, limit)
		if err != nil || upTo <= after || len(signals) > limit {
			h.Fatalf("reading %d after %d gave %d signals up to %d: %v", limit, after, len(signals), upTo, err)
		}
		for _, g := range signals {
			out = append(out, heard{g.Pos, string(g.Data)})
		}
		after = upTo
	}
	return out
}
