package chatapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/internal/fault"
	"parley/internal/messaging"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

func positions(all []heard) (out []int64) {
	for _, h := range all {
		out = append(out, h.pos)
	}
	return out
}

func TestPositions(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		for i := range 30 {
			ann.says("room", fmt.Sprint(i))
		}
		want := []int64{28, 29, 30}
		for name, s := range map[string]*stream{
			"Last-Event-ID":               ann.listens("room", "", "Last-Event-ID", "27"),
			"lastEventId":                 ann.listens("room", "?lastEventId=27"),
			"after":                       ann.listens("room", "?after=27"),
			"the header before the query": ann.listens("room", "?after=1&lastEventId=2", "Last-Event-ID", "27"),
		} {
			if got := positions(s.take(3)); !slices.Equal(got, want) {
				r.Errorf("%s: got the positions %v, want %v", name, got, want)
			}
		}
		s := ann.dials("room", "&after=27")
		for i := range 3 {
			if got := s.next().data; !strings.Contains(got, fmt.Sprintf(`"text":"%d"`, 27+i)) {
				r.Errorf("over WebSocket: signal %d is %s", i, got)
			}
		}
		if got := positions(ann.listens("room", "?after=0").take(30)); got[0] != 1 || got[29] != 30 {
			r.Errorf("from the beginning: %v", got)
		}
		ahead := ann.listens("room", "?after=9007199254740993")
		ann.says("room", "next")
		if got := ahead.next(); got.pos != 31 {
			r.Errorf("from the future: %v", got)
		}
		for _, query := range []string{"after=x", "after=-1", "after=1e3", "after=1.5", "after=99999999999999999999", "lastEventId=%2B", "after=1%20", "after=0x10", "until=5", "after=1&after=2"} {
			ann.refused(fault.InvalidQuery, "", "GET", "/conversations/room/listen?"+query, "")
		}
		ann.refused(fault.InvalidQuery, "Last-Event-ID", "GET", "/conversations/room/listen", "", "Last-Event-ID", "x")
	})
}

// Clients post first and listen then, and a fast bot has answered in between.
func TestAListenerWithoutAPositionLooksBack(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		real := r.real(tag.Conversation, "room")
		ann.says("room", "long ago")
		r.clock.pass(time.Second)
		ann.says("room", "just now")
		r.says(chatA, real, "text", `{"text":"answer"}`)
		r.clock.pass(200 * time.Millisecond)
		s := ann.listens("room", "")
		if got := positions(s.take(2)); !slices.Equal(got, []int64{2, 3}) {
			r.Errorf("200 ms later: %v", got)
		}
		r.clock.pass(100 * time.Millisecond)
		s = ann.listens("room", "")
		ann.says("room", "next")
		if got := s.next(); got.pos != 4 {
			r.Errorf("300 ms later: %v", got)
		}
	})
}

func TestAListenerHearsOnlyItsConversation(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		ann.opens("other")
		s := ann.listens("room", "")
		ann.says("other", "not here")
		ann.says("room", "here")
		if got := s.next(); !strings.Contains(got.data, `"text":"here"`) {
			r.Errorf("heard %s", got.data)
		}
	})
}

// A stream ends, cleanly and at once, when what it stands on goes.
func TestStreamsEnd(t *testing.T) {
	for name, end := range map[string]func(r *rig, ann, bob *person){
		"the participant is removed": func(_ *rig, ann, _ *person) {
			ann.ok("DELETE", "/conversations/room/participants/bob", "")
		},
		"the participant is removed by the bot": func(r *rig, _, _ *person) {
			r.runtime(chatA, "DELETE", "/conversations/"+r.real(tag.Conversation, "room")+"/participants/"+r.real(tag.User, "bob"), "")
		},
		"the user is deleted": func(_ *rig, _, bob *person) { bob.ok("DELETE", "/users/me", "") },
		"the conversation is deleted": func(_ *rig, ann, _ *person) {
			ann.ok("DELETE", "/conversations/room", "")
		},
		"the installation is disabled": func(r *rig, _, _ *person) {
			r.town.change(chatA, func(in *Installation) { in.Enabled = false })
			r.hub.End("inst:" + chatA.installation) // as the bot module does
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(r *rig) {
				ann, bob := r.join("ann"), r.join("bob")
				ann.opens("room")
				ann.adds("room", bob)
				sse, ws := bob.listens("room", "?after=1"), bob.dials("room", "&after=1")
				end(r, ann, bob)
				for _, h := range append(sse.ends(), ws.ends()...) {
					if !strings.Contains(h.data, "participant_removed") {
						r.Errorf("heard %s", h.data)
					}
				}
				if status, _ := bob.do("GET", "/conversations/room/listen", ""); status < 400 {
					r.Errorf("listening again answered %d", status)
				}
			})
		})
	}
}

// The others stay, and who is gone is told nothing of what comes later.
func TestARemovedParticipantHearsNothingLater(t *testing.T) {
	each(t, func(r *rig) {
		ann, bob := r.join("ann"), r.join("bob")
		ann.opens("room")
		ann.adds("room", bob)
		hers, his := ann.listens("room", "?after=1"), bob.listens("room", "?after=1")
		ann.says("room", "both hear")
		hers.next()
		his.next()
		ann.ok("DELETE", "/conversations/room/participants/bob", "")
		ann.says("room", "one hears")
		for _, h := range his.ends() {
			if h.pos > 3 {
				r.Errorf("the removed participant heard %v", h)
			}
		}
		if got := positions(hers.take(2)); !slices.Equal(got, []int64{3, 4}) {
			r.Errorf("the owner heard %v", got)
		}
		// Back again: what was missed is there to read.
		ann.adds("room", bob)
		if got := positions(bob.listens("room", "", "Last-Event-ID", "2").take(3)); !slices.Equal(got, []int64{3, 4, 5}) {
			r.Errorf("back again: %v", got)
		}
	})
}

// The hub asks once more when a stream is registered, and from time to time.
func TestWhoMayListen(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		c := must(r.msg.CallerFor(t.Context(), chatA.bot, chatA.installation))
		may := func(p *person, conversation string) bool {
			r.Helper()
			ok, err := r.chat.allowed(t.Context(), me{c, r.real(tag.User, p.id)}.listener(conversation))
			if err != nil {
				r.Fatal(err)
			}
			return ok
		}
		open := func(name string) (*person, string) {
			bob := r.join(name)
			ann.opens("room-" + name)
			ann.adds("room-"+name, bob)
			return bob, r.real(tag.Conversation, "room-"+name)
		}
		bob, room := open("bob")
		if !may(bob, room) {
			r.Error("a participant may not listen")
		}
		ann.ok("DELETE", "/conversations/room-bob/participants/bob", "")
		if may(bob, room) {
			r.Error("a removed participant may listen")
		}
		cid, room := open("cid")
		ann.ok("DELETE", "/conversations/room-cid", "")
		if may(cid, room) {
			r.Error("somebody may listen to a deleted conversation")
		}
		dan, room := open("dan")
		m := me{c, r.real(tag.User, "dan")}
		dan.ok("DELETE", "/users/me", "")
		if ok, err := r.chat.allowed(t.Context(), m.listener(room)); ok || err != nil {
			r.Errorf("a deleted user may listen: %v", err)
		}
		eve, room := open("eve")
		for _, change := range []func(in *Installation){
			func(in *Installation) { in.Enabled = false },
			func(in *Installation) { in.Enabled, in.Removed = true, true },
		} {
			r.town.change(chatA, change)
			if may(eve, room) {
				r.Error("somebody may listen through a closed door")
			}
		}
		r.town.change(chatA, func(in *Installation) { in.Removed = false })
		if !may(eve, room) {
			r.Error("a participant may not listen through the door that is open again")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.chat.allowed(ctx, me{c, r.real(tag.User, "eve")}.listener(room)); err == nil {
			r.Error("not knowing passes for an answer")
		}
	})
}

// Losing the race between the check and the registration is the client's
// error, and a server that stops says when to come back.
func TestRefusedStreams(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		calls := 0
		r.chat.Installations = installations(func(ctx context.Context, webhookID string) (*Installation, error) {
			if calls++; calls > 1 { // the first look is that of the door
				return nil, nil
			}
			return r.town.ByWebhook(ctx, webhookID)
		})
		ann.refused(fault.Forbidden, "You don't participate", "GET", "/conversations/room/listen", "")
		r.chat.Installations = r.town
		if err := r.hub.Shutdown(t.Context()); err != nil {
			r.Fatal(err)
		}
		ann.refused(fault.RateLimited, "The server is stopping", "GET", "/conversations/room/listen", "")
	})
}

// installations is a function as Installations.
type installations func(context.Context, string) (*Installation, error)

func (f installations) ByWebhook(ctx context.Context, webhookID string) (*Installation, error) {
	return f(ctx, webhookID)
}

func TestWebSocketsOfStrangersAreRefused(t *testing.T) {
	each(t, func(r *rig) {
		ann, eve := r.join("ann"), r.join("eve")
		ann.opens("room")
		for _, c := range []struct {
			p            *person
			conversation string
			want         int
		}{
			{eve, "room", http.StatusForbidden},
			{ann, "none", http.StatusNotFound},
			{&person{r, chatA, "", "nonsense"}, "room", http.StatusUnauthorized},
			{r.joinB("zoe"), "room", http.StatusNotFound},
		} {
			at := strings.Replace(r.url, "http", "ws", 1) + "/" + c.p.at.webhook + "/conversations/" + c.conversation + "/listen?x-user-key=" + c.p.key
			conn, res, err := websocket.Dial(t.Context(), at, nil)
			if err == nil {
				conn.CloseNow()
			}
			if err == nil || res == nil || res.StatusCode != c.want {
				r.Errorf("%s was answered %v, %v, want %d", c.p.id, res, err, c.want)
			}
		}
	})
}

// A signal whose bot or conversation is gone by the time it is told breaks nothing.
func TestSignalsOfWhatIsGone(t *testing.T) {
	each(t, func(r *rig) {
		ann := r.join("ann")
		ann.opens("room")
		real := r.real(tag.Conversation, "room")
		s := ann.listens("room", "")
		r.chat.Notify(&messaging.Signal{ConversationID: real, BotID: "gone", InstallationID: "gone", Pos: 1, Type: messaging.ParticipantAdded})
		r.chat.Notify(&messaging.Signal{ConversationID: real, BotID: chatA.bot, InstallationID: chatA.installation, Pos: 1, Type: messaging.ParticipantAdded, Data: []byte("no JSON")})
		r.chat.Notify(&messaging.Signal{ConversationID: real, BotID: chatA.bot, InstallationID: chatA.installation, Pos: 1, Type: "something_new"})
		ann.says("room", "hi")
		if got := s.next(); !strings.Contains(got.data, `"text":"hi"`) {
			r.Errorf("heard %s", got.data)
		}
		// Kinds that this version does not know are passed over in the log.
		r.write(func(tx *sqldb.Tx) error {
			_, err := tx.Exec("INSERT INTO signals (conversation_id, pos, type, data, created_at) VALUES ($1, 2, 'something_new', '{}', 1)", real)
			if err == nil {
				_, err = tx.Exec("UPDATE conversation_heads SET signal_pos = 2 WHERE conversation_id = $1", real)
			}
			return err
		})
		ann.says("room", "later")
		if got := positions(ann.listens("room", "?after=0").take(2)); !slices.Equal(got, []int64{1, 3}) {
			r.Errorf("the log says %v", got)
		}
		if signals, upTo, err := (Log{r.chat}).Read(t.Context(), "nowhere", 5, 10); signals != nil || upTo != 5 || err != nil {
			r.Errorf("the log of nowhere is %v up to %d: %v", signals, upTo, err)
		}
	})
}

// Whatever is sent as a position, it is one or the client's mistake.
func FuzzPosition(f *testing.F) {
	for _, text := range []string{"", "0", "27", "-1", "+1", "1e3", "99999999999999999999", "0x10", " 1", "\x00", "１"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, in := range []listenInput{{Header: text}, {LastEvent: text}, {After: text}} {
			at, err := in.position()
			if err != nil && !fault.Is(err, fault.InvalidQuery) || err == nil && (at < -1 || at == -1 && text != "") {
				t.Errorf("%+v is the position %d, %v", in, at, err)
			}
		}
	})
}
