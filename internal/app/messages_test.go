package app

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/internal/auth"
	"parley/internal/signing"
	"parley/internal/sqldb"
	"parley/internal/workspace"
)

// replies is a response endpoint: it keeps what it gets, and asks those whom it
// does not serve to come back in an hour.
type replies struct {
	*httptest.Server
	got    chan map[string]any
	signed chan func(secrets ...auth.Secret) error // verifies the signature of what it got
}

func newReplies(t *testing.T, status int) *replies {
	t.Helper()
	s := &replies{got: make(chan map[string]any, 100), signed: make(chan func(...auth.Secret) error, 100)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		var body map[string]any
		_ = json.Unmarshal(text, &body)
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "thanks")
		s.signed <- func(secrets ...auth.Secret) error { return signing.Verify(r.Header, text, time.Now(), secrets...) }
		s.got <- body
	}))
	t.Cleanup(s.Close)
	return s
}

// next is what the endpoint gets next.
func (s *replies) next(t *testing.T) map[string]any {
	t.Helper()
	select {
	case body := <-s.got:
		return body
	case <-time.After(time.Minute):
		t.Fatal("the response endpoint waits in vain")
		return nil
	}
}

// messagingOf is the installation of the Messaging API in a bot, as its owner sees it.
type messagingOf struct {
	WebhookID, WebhookURL, Status string
	StatusReason                  string
	Configuration                 map[string]any
}

func (s *server) messagingOf(botID string) messagingOf {
	s.t.Helper()
	var got struct {
		Bot struct{ Integrations map[string]messagingOf }
	}
	if code := s.call("GET", "/v1/admin/bots/"+botID, s.as(""), nil, &got); code != 200 {
		s.t.Fatalf("getBot answers %d", code)
	}
	return got.Bot.Integrations["messaging"]
}

// setUp changes the installation of the Messaging API in a bot.
func (s *server) setUp(botID string, change any) (int, string) {
	s.t.Helper()
	code, text := s.raw("PUT", "/v1/admin/bots/"+botID, s.as(""), map[string]any{"integrations": map[string]any{"messaging": change}})
	s.idle()
	return code, string(text)
}

func configured(url string) any {
	return map[string]any{"configuration": map[string]string{"responseEndpointUrl": url}}
}

func bring(messageID string) map[string]any {
	return map[string]any{"userId": "u", "conversationId": "c", "messageId": messageID, "type": "text", "text": "hello", "payload": struct{}{}}
}

func (s *server) bearer(token string) map[string]string {
	return map[string]string{"Authorization": "bearer " + token}
}

func TestAMessageGoesInAndTheReplyOut(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c) })
			c, err := ReadCredentials(s.cfg.Data)
			must(t, err)
			s.idle()
			in := s.messagingOf(c.BotID)
			door := "/" + in.WebhookID
			if in.Status != "registered" || in.WebhookURL != s.URL()+door || len(in.Configuration) != 0 {
				t.Errorf("the echo bot comes with %+v", in)
			}
			if code, text := s.raw("POST", door, s.bearer(c.Token), bring("m0")); code != 400 || !strings.Contains(string(text), "no response endpoint") {
				t.Errorf("without an endpoint the door answers %d %s", code, text)
			}
			sink := newReplies(t, 202)
			if code, text := s.setUp(c.BotID, configured(sink.URL)); code != 200 {
				t.Fatalf("updateBot answers %d %s", code, text)
			}
			if probe := sink.next(t); fmt.Sprint(probe) != "map[payload:test type:test]" {
				t.Errorf("the probe is %v", probe)
			}
			if in := s.messagingOf(c.BotID); in.Status != "registered" || in.StatusReason != "" {
				t.Errorf("the installation is %+v", in)
			}
			var out map[string]struct{ ID string }
			for range 2 { // the second time it is the first message again
				if code := s.call("POST", door, s.bearer(c.Token), bring("m1"), &out); code != 200 {
					t.Fatalf("the door answers %d", code)
				}
			}
			got := sink.next(t)
			messageID := got["botpressMessageId"]
			delete(got, "botpressMessageId")
			want := map[string]any{"type": "text", "payload": map[string]any{"text": "hello"}, "conversationId": "c", "botpressUserId": c.BotID, "botpressConversationId": out["conversation"].ID}
			if fmt.Sprint(got) != fmt.Sprint(want) || messageID == "" || messageID == out["message"].ID {
				t.Errorf("the endpoint got %v (message %v), want %v", got, messageID, want)
			}
			s.idle()
			if len(sink.got) != 0 {
				t.Errorf("and then %v", <-sink.got)
			}
			if code, text := s.raw("GET", door+"/openapi.json", nil, nil); code != 200 || !strings.Contains(string(text), `"createMessage"`) {
				t.Errorf("the document: %d %.200s", code, text)
			}
			if code, text := s.raw("POST", "/v1/chat/actions", s.as(c.BotID), map[string]any{"type": "messaging:sendEvent", "input": struct{}{}}); code != 400 || !strings.Contains(string(text), "the integration messaging has no actions") {
				t.Errorf("an action: %d %s", code, text)
			}
			for _, step := range []struct {
				change string
				want   int
			}{{`{"enabled":false}`, 403}, {`null`, 404}} {
				if code, text := s.setUp(c.BotID, json.RawMessage(step.change)); code != 200 {
					t.Fatalf("updateBot answers %d %s", code, text)
				}
				if code, text := s.raw("POST", door, s.bearer(c.Token), bring("m2")); code != step.want {
					t.Errorf("after %s the door answers %d %s, want %d", step.change, code, text, step.want)
				}
			}
		})
	}
}

func TestTheStatusTellsWhetherTheResponseEndpointTakesMessages(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c) })
			c, err := ReadCredentials(s.cfg.Data)
			must(t, err)
			gone, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			must(t, gone.Close())
			good, bad := newReplies(t, 200), newReplies(t, 500)
			for _, step := range []struct {
				change         any
				status, reason string
			}{
				{configured(good.URL), "registered", ""},
				{configured(bad.URL), "registration_failed", "the response endpoint does not take messages: HTTP 500 Internal Server Error: thanks"},
				{configured("http://" + gone.Addr().String()), "registration_failed", gone.Addr().String() + " is unreachable"},
				{configured("http://nobody.invalid/"), "registration_failed", "nobody.invalid is unreachable"},
				{map[string]any{"configuration": map[string]string{"responseEndpointURL": good.URL}}, "registered", ""},
				{map[string]any{"enabled": false}, "unregistered", ""},
				{map[string]any{"enabled": true}, "registered", ""},
				{configured(""), "registered", ""},
			} {
				if code, text := s.setUp(c.BotID, step.change); code != 200 {
					t.Fatalf("updateBot %v answers %d %s", step.change, code, text)
				}
				if in := s.messagingOf(c.BotID); in.Status != step.status || !strings.Contains(in.StatusReason, step.reason) || step.reason == "" && in.StatusReason != "" {
					t.Errorf("after %v it is %s: %q, want %s: %q", step.change, in.Status, in.StatusReason, step.status, step.reason)
				}
			}
			for configuration, says := range map[string]string{
				`{"responseEndpointUrl":"http://a.example","responseEndpointURL":"http://b.example"}`: "integrations.messaging.configuration.responseEndpointUrl and configuration.responseEndpointURL are two names",
				`{"responseEndpointUrl":"a.example"}`:                                                 "integrations.messaging.configuration.responseEndpointUrl can never be called",
				`{"responseEndpointURL":"http://10.1.2.3/"}`:                                          "integrations.messaging.configuration.responseEndpointURL can never be called: calls to the address 10.1.2.3 are not allowed",
				`{"responseEndpointUrl":7}`:                                                           "integrations.messaging.configuration.responseEndpointUrl must be a string",
				`{"url":"http://a.example"}`:                                                          "integrations.messaging.configuration.url is not a member",
			} {
				code, text := s.setUp(c.BotID, map[string]any{"configuration": json.RawMessage(configuration)})
				if code != 400 || !strings.Contains(text, says) {
					t.Errorf("%s: updateBot answers %d %s, want %q", configuration, code, text, says)
				}
			}
		})
	}
}

// A message that waits for an endpoint goes out as soon as another one is set.
func TestANewResponseEndpointGetsWhatWaited(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c) })
			c, err := ReadCredentials(s.cfg.Data)
			must(t, err)
			bad, good := newReplies(t, 503), newReplies(t, 200)
			s.setUp(c.BotID, configured(bad.URL))
			bad.next(t) // the probe
			if code, text := s.raw("POST", "/"+s.messagingOf(c.BotID).WebhookID, s.bearer(c.Token), bring("m")); code != 200 {
				t.Fatalf("the door answers %d %s", code, text)
			}
			bad.next(t)
			s.setUp(c.BotID, configured(good.URL))
			good.next(t) // the probe
			if got := good.next(t); got["conversationId"] != "c" {
				t.Errorf("the new endpoint got %v", got)
			}
		})
	}
}

// The response endpoint can tell who its requests come from.
func TestWhatTheResponseEndpointGetsIsSigned(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	c, err := ReadCredentials(s.cfg.Data)
	must(t, err)
	var of struct {
		Bot struct{ SigningSecret string }
	}
	s.call("GET", "/v1/admin/bots/"+c.BotID, s.as(""), nil, &of)
	sink := newReplies(t, 200)
	for i, secret := range []string{"", "whsec_c2VjcmV0", "plain"} {
		code, text := s.setUp(c.BotID, map[string]any{"configuration": map[string]string{"responseEndpointUrl": sink.URL, "webhookSecret": secret}})
		if code != 200 {
			t.Fatalf("updateBot answers %d %s", code, text)
		}
		want := auth.Secret(secret)
		if secret == "" {
			want = auth.Secret(of.Bot.SigningSecret)
		}
		if code, text := s.raw("POST", "/"+s.messagingOf(c.BotID).WebhookID, s.bearer(c.Token), bring(fmt.Sprint(i))); code != 200 {
			t.Fatalf("the door answers %d %s", code, text)
		}
		for range 2 { // the probe and the reply
			sink.next(t)
			verify := <-sink.signed
			if err := verify(want); err != nil {
				t.Errorf("with %q: %v", secret, err)
			}
			if verify("another") == nil {
				t.Errorf("with %q any secret verifies", secret)
			}
		}
	}
}

// Who knows the address of a door is not let in by it.
func TestStrangersAtTheDoorOfTheMessagingAPI(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c) })
			c, err := ReadCredentials(s.cfg.Data)
			must(t, err)
			w, err := s.parts.workspace.Create(t.Context(), workspace.NewWorkspace{Email: "stranger@example.com", DisplayName: "S", Name: "Elsewhere"})
			must(t, err)
			_, person, err := s.parts.workspace.CreateToken(t.Context(), workspace.Token{Kind: auth.PAT, AccountID: w.OwnerID, Note: "x"})
			must(t, err)
			theirs := map[string]string{"Authorization": "Bearer " + string(person), "x-workspace-id": w.ID}
			botID := s.made("bot", "POST", "/v1/admin/bots", theirs, map[string]any{"name": "theirs"})
			_, bot, err := s.parts.workspace.CreateToken(t.Context(), workspace.Token{Kind: auth.BAK, BotID: botID, WorkspaceID: w.ID, Note: "x"})
			must(t, err)
			s.setUp(c.BotID, configured(newReplies(t, 200).URL))
			door := "/" + s.messagingOf(c.BotID).WebhookID
			for token, want := range map[string]int{string(person): 403, string(bot): 403, "": 401, c.Token: 200} {
				code, text := s.raw("POST", door, s.bearer(token), bring("m"))
				if code != want || code != 200 && strings.Contains(string(text), c.BotID) {
					t.Errorf("%.12s: %d %s, want %d", token, code, text, want)
				}
			}
		})
	}
}

// An alias that belongs to another integration stays with it, and the server starts.
func TestTheEchoBotKeepsWhatHasTheAliasOfTheMessagingAPI(t *testing.T) {
	t.Parallel()
	var cfg Config
	s := start(t, func(c *Config) { cfg = *c })
	c, err := ReadCredentials(cfg.Data)
	must(t, err)
	id := s.made("integration", "POST", "/v1/admin/integrations", s.as(""), map[string]any{"name": "hooky", "version": "1.0.0", "url": "http://127.0.0.1:1"})
	// As it is where the alias was given away before there was a Messaging API.
	must(t, s.parts.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec("UPDATE installations SET integration_id = $1, name = 'hooky', version = '1.0.0', removed = TRUE WHERE alias = 'messaging'", id)
		return err
	}))
	must(t, s.stop())
	s = start(t, func(c *Config) { *c = cfg })
	s.idle()
	if in := s.integrationsOf(c.BotID); !slices.Equal(in, []string{"chat registered"}) {
		t.Errorf("after the next start the bot has %v", in)
	}
}

// A directory that knows nothing of the Messaging API gets it on the next start.
func TestTheEchoBotOfAnOlderStartGetsTheMessagingAPI(t *testing.T) {
	t.Parallel()
	var cfg Config
	s := start(t, func(c *Config) { cfg = *c })
	c, err := ReadCredentials(cfg.Data)
	must(t, err)
	before := s.messagingOf(c.BotID)
	if code, text := s.setUp(c.BotID, nil); code != 200 || s.messagingOf(c.BotID).Status != "" {
		t.Fatalf("removing it: %d %s", code, text)
	}
	must(t, s.stop())
	s = start(t, func(c *Config) { *c = cfg })
	s.idle()
	if in := s.messagingOf(c.BotID); in.Status != "registered" || in.WebhookID != before.WebhookID {
		t.Errorf("after the next start it is %+v, was %+v", in, before)
	}
}
