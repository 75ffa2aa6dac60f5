package app

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"parley/internal/fault"
)

// refusesRole checks that a request is answered as one that went to the wrong server.
func (s *server) refusesRole(role Role, method, path string, header map[string]string, in any) {
	s.t.Helper()
	status, text := s.raw(method, path, header, in)
	var e fault.Body
	if json.Unmarshal(text, &e) != nil || status != 502 || e.Code != 502 || e.Status != 502 || e.Type != "Unknown" || e.ID == "" ||
		!strings.Contains(e.Message, "does not have the role "+string(role)+" (it has "+s.cfg.Roles.String()+")") {
		s.t.Errorf("%s %s at a server with the roles %s: %d %s", method, path, s.cfg.Roles, status, text)
	}
}

// Four servers that have one role each do together what one does: a message
// comes in at the first, the second takes it to the bot, the third lets it be
// heard, and the fourth says what was to be said later. They wake each other:
// twelve turns, one after the other, take no longer than five would if each server
// looked by itself.
func TestServersDivideTheWork(t *testing.T) {
	t.Parallel()
	all, wire := nodesWith(t, Roles{RoleAPI}, Roles{RoleDelivery}, Roles{RoleRealtime}, Roles{RoleTimers})
	api, realtime := all[0], all[2]
	creds, err := ReadCredentials(api.cfg.Data)
	must(t, err)
	door := api.door(creds.BotID)
	var v *visitor
	var heard <-chan string
	began := time.Now()
	for range 12 { // in new conversations, which nobody has in hand
		v = api.visit(door)
		heard = realtime.listen(door, v.conversation, v.header)
		v.say("hello")
		nextSignal(t, heard, "hello", fromGuest)
		nextSignal(t, heard, "hello", fromBot)
	}
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("12 turns take %v: the servers do not wake each other", took)
	}
	if got := <-v.asks("waited for"); len(got.Replies) != 1 || !*got.Finished {
		t.Errorf("who waits at the first server gets %+v", got)
	}
	nextSignal(t, heard, "waited for", fromGuest)
	nextSignal(t, heard, "waited for", fromBot)
	if status, text := api.raw("POST", "/v1/chat/messages", api.as(creds.BotID), map[string]any{
		"type": "text", "conversationId": v.conversation, "userId": creds.BotID, "payload": map[string]string{"text": "as agreed"},
		"tags": map[string]string{}, "schedule": map[string]any{"delay": 1000},
	}); status != 200 && status != 201 {
		t.Fatalf("createMessage with a schedule answers %d %s", status, text)
	}
	nextSignal(t, heard, "as agreed", fromBot)

	// Each is asked for what another one does.
	listen := door + "/conversations/" + v.conversation + "/listen"
	say := map[string]any{"conversationId": v.conversation, "payload": map[string]string{"type": "text", "text": "lost"}}
	for _, s := range all {
		for _, role := range allRoles {
			want := 503
			if s.cfg.Roles.has(role) {
				want = 200
			}
			if status, text := s.raw("GET", "/readyz?role="+string(role), nil, nil); status != want {
				t.Errorf("/readyz?role=%s of a server with the roles %s answers %d %s", role, s.cfg.Roles, status, text)
			}
		}
		if status, _ := s.raw("GET", "/readyz", nil, nil); status != 200 {
			t.Errorf("/readyz of a server with the roles %s answers %d", s.cfg.Roles, status)
		}
		if s != realtime {
			s.refusesRole(RoleRealtime, "GET", listen, v.header, nil)
		}
		if s == api {
			continue
		}
		s.refusesRole(RoleAPI, "POST", door+"/messages", v.header, say)
		s.refusesRole(RoleAPI, "POST", door+"/messages?wait=5", v.header, say)
		s.refusesRole(RoleAPI, "GET", "/v1/admin/bots", nil, nil)
		s.refusesRole(RoleAPI, "POST", "/v1/chat/actions", s.as(creds.BotID), map[string]any{"type": "x", "input": map[string]any{}})
		if status, text := s.raw("GET", "/openapi.json", nil, nil); status != 200 || !strings.Contains(string(text), `"chat.createMessage"`) {
			t.Errorf("the document of a server with the roles %s: %d, %d bytes", s.cfg.Roles, status, len(text))
		}
	}
	for n, text := range v.texts() {
		if strings.Contains(text, "lost") {
			t.Errorf("message %d is %q, which was refused", n, text)
		}
	}

	// Without wake-ups it is found by looking.
	wire.Stop()
	v.say("is anybody there?")
	nextSignal(t, heard, "is anybody there?", fromGuest)
	nextSignal(t, heard, "is anybody there?", fromBot)
}

// Who waits is served where the request is: an integration behind a door and an
// action are called by the server with the role api, while its registration, for
// which nobody waits, is a delivery.
func TestCallsThatSomebodyWaitsForAreOfTheAPI(t *testing.T) {
	t.Parallel()
	all, _ := nodesWith(t, Roles{RoleAPI}, Roles{RoleDelivery}, Roles{RoleRealtime, RoleTimers})
	called := make(chan string, 100)
	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		called <- r.Header.Get("x-bp-operation")
		_, _ = io.WriteString(w, `{"output":{"pong":1}}`)
	}))
	t.Cleanup(there.Close)
	next := func(want string) {
		t.Helper()
		select {
		case got := <-called:
			if got != want {
				t.Errorf("the integration is called for %s, want %s", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("the integration is not called for %s", want)
		}
	}
	botID, door := all[0].installed(there.URL, patient)
	next("register")
	if status, text := all[0].raw("POST", door, nil, map[string]any{}); status != 200 {
		t.Errorf("the door answers %d %s", status, text)
	}
	next("webhook_received")
	if status, text := all[0].raw("POST", "/v1/chat/actions", all[0].as(botID), map[string]any{"type": "hooky:ping", "input": map[string]any{}}); status != 200 {
		t.Errorf("callAction answers %d %s", status, text)
	}
	next("action_triggered")
	for _, s := range all[1:] {
		s.refusesRole(RoleAPI, "POST", door, nil, map[string]any{})
	}
	select {
	case op := <-called:
		t.Errorf("the integration is called for %s by a server that refused", op)
	default:
	}
}
