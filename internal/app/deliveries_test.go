package app

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/auth"
	"parley/internal/bot"
	"parley/internal/sqldb"
	"parley/internal/workspace"
)

// place at which calls are noted and answered.
type noting struct {
	mu     sync.Mutex
	status int
	calls  []noted
}

// noted is a call: its webhook-id, which conversation it is about, and what was said.
type noted struct{ id, conversation, text string }

func (n *noting) answer(status int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status = status
}

// take returns the calls so far and forgets them.
func (n *noting) take() []noted {
	n.mu.Lock()
	defer n.mu.Unlock()
	calls := n.calls
	n.calls = nil
	return calls
}

func (n *noting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	type message struct {
		ConversationID string
		Payload        struct{ Text string }
	}
	var body struct {
		Event   struct{ Payload struct{ Message message } }
		Message message
	}
	text, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(text, &body) // what is no message is noted as nothing
	n.mu.Lock()
	defer n.mu.Unlock()
	if m := body.Event.Payload.Message; m.ConversationID != "" {
		n.calls = append(n.calls, noted{r.Header.Get("webhook-id"), m.ConversationID, m.Payload.Text})
	} else if m := body.Message; m.ConversationID != "" {
		n.calls = append(n.calls, noted{r.Header.Get("webhook-id"), m.ConversationID, m.Payload.Text})
	}
	w.WriteHeader(n.status)
	_, _ = io.WriteString(w, "{}")
}

// outlast lets time pass for the deliveries to an endpoint until none is
// pending: each try comes at once, and after some of them three days are over.
func (s *server) outlast(endpointID string) {
	s.t.Helper()
	for tries := 0; ; tries++ {
		s.idle()
		pending := 0
		for _, table := range []string{"events", "outbox"} {
			n, err := sqldb.Scalar[int](s.parts.db.Reader(s.t.Context()), "SELECT count(*) FROM "+table+" WHERE status = 'pending'")
			must(s.t, err)
			pending += n
		}
		if pending == 0 {
			return
		}
		must(s.t, s.parts.db.Write(s.t.Context(), func(tx *sqldb.Tx) error {
			if _, err := tx.Exec("UPDATE lanes SET due = 1 WHERE due < 9223372036854775807 AND owner = ''"); err != nil {
				return err
			}
			if tries == 5 {
				if _, err := tx.Exec("UPDATE events SET created_at = created_at - 260000000 WHERE status = 'pending'"); err != nil {
					return err
				}
			}
			return s.parts.delivery.Reset(tx, endpointID)
		}))
	}
}

// dead lists the dead letters of a bot.
func (s *server) dead(botID string) []string {
	s.t.Helper()
	var list struct {
		Deliveries []struct {
			ID, Status    string
			AttemptCount  int
			FailureReason string
		}
		Meta struct{ NextToken string }
	}
	if code := s.call("GET", "/v1/parley/deliveries?dead=true&botId="+botID, s.as(""), nil, &list); code != 200 || list.Meta.NextToken != "" {
		s.t.Fatalf("listDeliveries answers %d %+v", code, list)
	}
	var ids []string
	for _, d := range list.Deliveries {
		if d.Status != "failed" || d.FailureReason == "" {
			s.t.Errorf("a dead letter is %+v", d)
		}
		ids = append(ids, d.ID)
	}
	return ids
}

// A bot that was down gets everything once more when it is back and its dead
// letters are replayed: under the same ids, and in the order of each
// conversation. So does an integration that failed.
func TestDeadLettersAreReplayedWhenTheirEndpointIsBack(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c) })
			down := httptest.NewServer(nil)
			down.Close()
			up := &noting{status: 200}
			back := httptest.NewServer(up)
			t.Cleanup(back.Close)
			botID := s.newBot(down.URL)
			var want []noted
			for range 2 {
				v := s.visit(s.door(botID))
				for _, text := range []string{"one", "two", "three"} {
					v.say(text)
					want = append(want, noted{"", v.conversation, text})
				}
			}
			s.outlast(endpointOf(botID))
			ids := s.dead(botID)
			if len(ids) != len(want) {
				t.Fatalf("%d dead letters, want %d", len(ids), len(want))
			}
			if code := s.call("PUT", "/v1/admin/bots/"+botID, s.as(""), map[string]string{"url": back.URL}, nil); code != 200 {
				t.Fatalf("updateBot answers %d", code)
			}
			s.replayDead(botID, len(want))
			got := up.take()
			check(t, want, got, ids)

			// The same for what an integration is told.
			told := &noting{status: 200}
			there := httptest.NewServer(told)
			t.Cleanup(there.Close)
			botID, door := s.installed(there.URL, patient)
			s.idle()
			told.answer(500)
			in := s.at(door)
			conversation := s.conversationOf(in)
			want = nil
			for _, text := range []string{"one", "two", "three"} {
				s.made("message", "POST", "/v1/chat/messages", s.as(botID), map[string]any{
					"type": "text", "payload": map[string]string{"text": text}, "tags": struct{}{}, "conversationId": conversation, "userId": botID,
				})
				want = append(want, noted{"", conversation, text})
			}
			s.outlast(bot.InstallationEndpoint(in.ID))
			told.answer(200)
			told.take()
			ids = s.dead(botID)
			s.replayDead(botID, len(want))
			check(t, want, told.take(), ids)
		})
	}
}

// check compares calls with what was said, in the order of each conversation,
// and with the ids of deliveries, the newest first.
func check(t *testing.T, want, got []noted, ids []string) {
	t.Helper()
	var heard []string
	for i := range got {
		heard = append(heard, got[i].id)
		got[i].id = ""
	}
	slices.SortStableFunc(want, func(a, b noted) int { return strings.Compare(a.conversation, b.conversation) })
	slices.SortStableFunc(got, func(a, b noted) int { return strings.Compare(a.conversation, b.conversation) })
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(noted{})); diff != "" {
		t.Errorf("what was told (-want +got):\n%s", diff)
	}
	slices.Sort(heard)
	slices.Sort(ids)
	if diff := cmp.Diff(ids, heard); diff != "" {
		t.Errorf("under which ids (-want +got):\n%s", diff)
	}
}

func (s *server) replayDead(botID string, want int) {
	s.t.Helper()
	var done struct{ Replayed int }
	if code := s.call("POST", "/v1/parley/deliveries/replay", s.as(""), map[string]any{"botId": botID, "dead": true}, &done); code != 200 || done.Replayed != want {
		s.t.Fatalf("replayDeliveries answers %d %+v, want %d", code, done, want)
	}
	s.idle()
	if left := s.dead(botID); len(left) != 0 {
		s.t.Errorf("dead letters are left: %v", left)
	}
}

// at is the installation behind a door.
func (s *server) at(door string) *bot.Installation {
	s.t.Helper()
	in, _, err := s.parts.bot.ByWebhook(s.t.Context(), strings.TrimPrefix(door, "/"))
	must(s.t, err)
	return in
}

// conversationOf opens a conversation of an integration.
func (s *server) conversationOf(in *bot.Installation) string {
	s.t.Helper()
	mine := s.as(in.BotID)
	mine["x-integration-id"] = in.IntegrationID
	return s.made("conversation", "POST", "/v1/chat/conversations", mine, map[string]any{"channel": "channel", "tags": struct{}{}})
}

// Who may read the log: a person of the workspace and the bot itself.
func TestWhoReadsTheLogOfDeliveries(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	there := httptest.NewServer(&noting{status: 200})
	t.Cleanup(there.Close)
	botID, door := s.installed(there.URL, patient)
	other := s.newBot(there.URL)
	token := func(k workspace.Token) map[string]string {
		t.Helper()
		_, text, err := s.parts.workspace.CreateToken(t.Context(), k)
		must(t, err)
		return map[string]string{"Authorization": "Bearer " + string(text)}
	}
	credentials, err := ReadCredentials(s.cfg.Data)
	must(t, err)
	in := s.at(door)
	stranger, err := s.parts.workspace.Create(t.Context(), workspace.NewWorkspace{Email: "x@example.com", DisplayName: "X", Name: "X"})
	must(t, err)
	own := token(workspace.Token{Kind: auth.BAK, BotID: botID, WorkspaceID: credentials.WorkspaceID})
	acting := s.as(botID)
	acting["x-integration-id"] = in.IntegrationID
	for _, c := range []struct {
		who    string
		header map[string]string
		query  string
		status int
		kind   string
	}{
		{"a person", s.as(""), "?botId=" + botID, 200, ""},
		{"a person with a header", s.as(botID), "", 200, ""},
		{"a person who names no bot", s.as(""), "", 400, "InvalidPayload"},
		{"a person who names two bots", s.as(botID), "?botId=" + other, 400, "InvalidPayload"},
		{"a person with another bot's header", s.as("bot_01M7WG5B4NG636278DN5Q0FC0Z"), "", 403, "Forbidden"},
		{"a stranger", token(workspace.Token{Kind: auth.PAT, AccountID: stranger.OwnerID}), "?botId=" + botID, 400, "ReferenceNotFound"},
		{"the bot", own, "", 200, ""},
		{"the bot by name", own, "?botId=" + botID, 200, ""},
		{"the bot, of another", own, "?botId=" + other, 400, "ReferenceNotFound"},
		{"an integration", token(workspace.Token{Kind: auth.IAK, IntegrationID: in.IntegrationID}), "?botId=" + botID, 403, "Forbidden"},
		{"a person as an integration", acting, "", 403, "Forbidden"},
		{"nobody", nil, "?botId=" + botID, 401, "Unauthorized"},
		{"a user of the chat", s.visit(s.door(other)).header, "?botId=" + other, 401, "Unauthorized"},
	} {
		var out struct{ Type string }
		if status := s.call("GET", "/v1/parley/deliveries"+c.query, c.header, nil, &out); status != c.status || out.Type != c.kind {
			t.Errorf("%s: %d %s, want %d %s", c.who, status, out.Type, c.status, c.kind)
		}
	}
}

// A delivery is shown as it goes out, with what is secret masked: to a bot, to
// one that lives in the server, to an integration and to a webhook.
func TestTheRequestOfADelivery(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	calls := &noting{status: 200}
	there := httptest.NewServer(calls)
	t.Cleanup(there.Close)
	type request struct {
		Method, URL string
		Headers     map[string]string
		Body        map[string]any
	}
	shown := func(botID, query string) request {
		t.Helper()
		s.idle()
		var list struct{ Deliveries []struct{ ID string } }
		s.call("GET", "/v1/parley/deliveries?botId="+botID+"&"+query, s.as(""), nil, &list)
		if len(list.Deliveries) == 0 {
			t.Fatalf("no delivery with %s", query)
		}
		var out struct {
			Delivery struct {
				Request  request
				Attempts []struct{ Outcome string }
			}
		}
		id := list.Deliveries[0].ID
		if code := s.call("GET", "/v1/parley/deliveries/"+id, s.as(botID), nil, &out); code != 200 || len(out.Delivery.Attempts) != 1 || out.Delivery.Attempts[0].Outcome != "ok" {
			t.Errorf("getDelivery answers %d %+v", code, out)
		}
		if h := out.Delivery.Request.Headers; h["webhook-id"] != id || h["webhook-signature"] != "***" || query != "kind=webhook" && h["x-bp-configuration"] != "***" {
			t.Errorf("its headers are %v", h)
		}
		return out.Delivery.Request
	}
	at := s.newBot(there.URL + "/bot?key=1")
	s.visit(s.door(at)).say("hello")
	if r := shown(at, "kind=bot"); r.Method != "POST" || r.URL != there.URL+"/bot?key=1" || r.Headers["x-bp-operation"] != "event_received" || r.Headers["x-bp-type"] != "message_created" || r.Body["event"] == nil {
		t.Errorf("to a bot: %+v", r)
	}
	credentials, err := ReadCredentials(s.cfg.Data)
	must(t, err)
	s.visit(s.door(credentials.BotID)).say("hello")
	if r := shown(credentials.BotID, "kind=bot"); r.URL != "builtin:echo" || r.Body["event"] == nil {
		t.Errorf("to the echo bot: %+v", r)
	}
	botID, door := s.installed(there.URL, patient)
	s.made("message", "POST", "/v1/chat/messages", s.as(botID), map[string]any{
		"type": "text", "payload": map[string]string{"text": "x"}, "tags": struct{}{}, "conversationId": s.conversationOf(s.at(door)), "userId": botID,
	})
	if r := shown(botID, "kind=integration"); r.URL != there.URL || r.Headers["x-bp-operation"] != "message_created" || r.Headers["x-integration-alias"] != "hooky" || r.Body["message"] == nil {
		t.Errorf("to an integration: %+v", r)
	}
	if code, text := s.setUp(credentials.BotID, map[string]any{"configuration": map[string]string{"responseEndpointUrl": there.URL + "/replies", "webhookSecret": "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}}); code != 200 {
		t.Fatalf("updateBot answers %d %s", code, text)
	}
	if code, text := s.raw("POST", "/"+s.messagingOf(credentials.BotID).WebhookID, s.as(""), map[string]any{
		"userId": "u", "conversationId": "c", "messageId": "m", "type": "text", "text": "hello", "payload": struct{}{},
	}); code != 200 {
		t.Fatalf("the Messaging API answers %d %s", code, text)
	}
	if r := shown(credentials.BotID, "kind=webhook"); r.URL != there.URL+"/replies" || r.Headers["x-secret-key"] != "***" || r.Body["conversationId"] != "c" || r.Body["type"] != "text" {
		t.Errorf("to a webhook: %+v", r)
	}
	sink := newSink(t)
	if code, text := s.hook(at, sink.URL+"/hook/", ""); code != 200 {
		t.Fatalf("updateBot answers %d %s", code, text)
	}
	s.idle()
	s.visit(s.door(at)).say("hello")
	if r := shown(at, "kind=webhook"); r.URL != sink.URL+"/hook/" || r.Body["type"] == nil {
		t.Errorf("to the webhook of a chat: %+v", r)
	}
	sink.answers(410)
	s.visit(s.door(at)).say("anybody?")
	s.idle()
	var refused struct{ Type, Message string }
	var list struct{ Deliveries []struct{ ID string } }
	s.call("GET", "/v1/parley/deliveries?kind=webhook&botId="+at, s.as(""), nil, &list)
	if code := s.call("POST", "/v1/parley/deliveries/"+list.Deliveries[0].ID+"/replay?botId="+at, s.as(""), nil, &refused); code != 400 || refused.Type != "InvalidPayload" || !strings.Contains(refused.Message, "gone (410); set its URL again") {
		t.Errorf("once the webhook is gone a replay answers %d %+v", code, refused)
	}
	if n := len(calls.take()); n != 4 {
		t.Errorf("%d messages were told to a bot and an integration, want 4: to show them makes no call", n)
	}
}
