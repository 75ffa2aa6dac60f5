package app

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/internal/auth"
	"parley/internal/bot"
	"parley/internal/signing"
)

// letter is a request that came to a bot or an integration.
type letter struct {
	to     string // its path
	header http.Header
	body   []byte
}

func (l letter) name() string { return l.to + " " + l.header.Get("x-bp-operation") }

// postbox is a server that answers 200 and keeps what comes.
func postbox(t *testing.T) (url string, letters chan letter) {
	t.Helper()
	letters = make(chan letter, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		letters <- letter{r.URL.Path, r.Header, body}
		_, _ = io.WriteString(w, `{"output":{"pong":true}}`)
	}))
	t.Cleanup(s.Close)
	return s.URL, letters
}

// next waits for a letter of a name.
func next(t *testing.T, letters chan letter, name string) letter {
	t.Helper()
	select {
	case l := <-letters:
		if l.name() != name {
			t.Fatalf("there came %s, want %s", l.name(), name)
		}
		return l
	case <-time.After(patient * time.Second):
		t.Fatalf("no %s came", name)
	}
	return letter{}
}

// secrets are those of a bot or an integration, the newest first.
func (s *server) secrets(of string) []auth.Secret {
	s.t.Helper()
	return s.secretsIn("GET", "/v1/parley/signing-secrets?"+of, nil)
}

func (s *server) secretsIn(method, path string, in any) []auth.Secret {
	s.t.Helper()
	var got struct {
		SigningSecrets []struct{ Secret string }
	}
	if code := s.call(method, path, s.as(""), in, &got); code != 200 {
		s.t.Fatalf("%s %s answers %d", method, path, code)
	}
	var all []auth.Secret
	for _, one := range got.SigningSecrets {
		all = append(all, auth.Secret(one.Secret))
	}
	return all
}

// Every call to a bot or an integration carries signatures of its bytes, with
// the secrets of the one it goes to, and an id that only its repetitions share.
func TestEveryCallIsSigned(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c) })
			url, letters := postbox(t)
			botID, door := s.installed(url+"/integration", patient)
			s.made("bot", "PUT", "/v1/admin/bots/"+botID, s.as(""), map[string]any{"url": url + "/bot"})
			integrationID := s.versionIn(botID)
			ours, theirs := s.secrets("botId="+botID), s.secrets("integrationId="+integrationID)
			if len(ours) != 1 || len(theirs) != 1 || ours[0] == theirs[0] {
				t.Fatalf("there are %d and %d secrets", len(ours), len(theirs))
			}
			seen := map[string]bool{}
			check := func(name string) letter {
				t.Helper()
				l := next(t, letters, name)
				mine, other := ours, theirs
				if strings.HasPrefix(name, "/integration ") {
					mine, other = theirs, ours
				}
				for _, secret := range mine {
					if err := signing.Verify(l.header, l.body, time.Now(), secret); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				if err := signing.Verify(l.header, l.body, time.Now(), other...); err == nil {
					t.Errorf("%s is signed with the secret of another", name)
				}
				if id := l.header.Get("webhook-id"); id == "" || seen[id] || strings.Contains(id, ".") {
					t.Errorf("%s has the id %q", name, id)
				}
				seen[l.header.Get("webhook-id")] = true
				return l
			}
			round := func() {
				t.Helper()
				mine := s.as(botID)
				mine["x-integration-id"] = integrationID
				conversation := s.made("conversation", "POST", "/v1/chat/conversations", mine, map[string]any{"channel": "channel", "tags": struct{}{}})
				s.made("event", "POST", "/v1/chat/events", s.as(botID), map[string]any{"type": "custom", "payload": map[string]string{"text": "é 漢"}, "conversationId": conversation})
				check("/bot event_received")
				s.made("message", "POST", "/v1/chat/messages", s.as(botID), map[string]any{
					"type": "text", "payload": map[string]string{"text": "ü"}, "tags": struct{}{}, "conversationId": conversation, "userId": botID,
				})
				check("/integration message_created")
				for range 2 { // two calls are two messages
					s.raw("POST", "/v1/chat/actions", s.as(botID), map[string]any{"type": "hooky:ping", "input": struct{}{}})
					check("/integration action_triggered")
					s.raw("POST", "/v1/chat/actions", s.as(botID), map[string]any{"type": "own", "input": struct{}{}})
					check("/bot action_triggered")
					s.raw("POST", door, nil, map[string]string{"a": "b"})
					check("/integration webhook_received")
				}
			}
			check("/integration register")
			round()

			for _, in := range []map[string]string{{"botId": botID}, {"integrationId": integrationID}} {
				s.secretsIn("POST", "/v1/parley/signing-secrets/rotate", in)
			}
			before := slices.Concat(ours, theirs)
			ours, theirs = s.secrets("botId="+botID), s.secrets("integrationId="+integrationID)
			if len(ours) != 2 || len(theirs) != 2 || ours[1] != before[0] || theirs[1] != before[1] {
				t.Fatal("the rotation does not keep the secrets before")
			}
			var shown struct {
				Bot struct{ SigningSecret string }
			}
			if s.call("GET", "/v1/admin/bots/"+botID, s.as(""), nil, &shown); shown.Bot.SigningSecret != string(ours[0]) {
				t.Error("getBot does not show the new secret")
			}
			round()
		})
	}
}

// versionIn is the id of the version of hooky that a bot has.
func (s *server) versionIn(botID string) string {
	s.t.Helper()
	var got struct {
		Bot struct {
			Integrations map[string]struct{ ID string }
		}
	}
	if code := s.call("GET", "/v1/admin/bots/"+botID, s.as(""), nil, &got); code != 200 {
		s.t.Fatalf("getBot answers %d", code)
	}
	return got.Bot.Integrations["hooky"].ID
}

// All versions of an integration are signed for with one secret, and the last
// one takes it along.
func TestVersionsShareASigningSecret(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	make := func(version string, dev bool) string {
		return s.made("integration", "POST", "/v1/admin/integrations", s.as(""), map[string]any{"name": "hooky", "version": version, "dev": dev})
	}
	one, two, dev := make("1.0.0", false), make("2.0.0", false), make("1.0.0", true)
	first := s.secrets("integrationId=" + one)
	for _, id := range []string{two, dev} {
		if got := s.secrets("integrationId=" + id); len(first) != 1 || !slices.Equal(got, first) {
			t.Errorf("a version of the same integration has %d other secrets", len(got))
		}
	}
	for _, id := range []string{one, dev} {
		s.raw("DELETE", "/v1/admin/integrations/"+id, s.as(""), nil)
	}
	if got := s.secrets("integrationId=" + two); !slices.Equal(got, first) {
		t.Error("the secret went with another version")
	}
	s.raw("DELETE", "/v1/admin/integrations/"+two, s.as(""), nil)
	if got := s.secrets("integrationId=" + make("3.0.0", false)); len(got) != 1 || slices.Equal(got, first) {
		t.Error("the secret outlived its integration")
	}
	botID := s.newBot("http://127.0.0.1:1/")
	s.raw("DELETE", "/v1/admin/bots/"+botID, s.as(""), nil)
	if signer, err := s.parts.secrets.Signer(t.Context(), botID); signer != nil || err != nil {
		t.Errorf("the secret outlived its bot: %v, %v", signer, err)
	}
}

// What an integration that Parley brings along sends is signed with its own
// webhookSecret, both while one replaces the other, or the bot's.
func TestWhatSignsForBuiltinIntegrations(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	botID := s.newBot("http://127.0.0.1:1/")
	bots := s.secrets("botId=" + botID)[0]
	for configuration, want := range map[string][]auth.Secret{
		`{}`:                    {bots},
		`{"webhookSecret":""}`:  {bots},
		`{"webhookSecret":"a"}`: {"a"},
		`{"webhookSecret":"whsec_bmV3 whsec_b2xk"}`: {"whsec_bmV3", "whsec_b2xk"},
	} {
		in, err := s.parts.bot.Install(t.Context(), botID, "chat", s.parts.catalog.Builtin("chat", "latest").ID, []byte(configuration))
		must(t, err)
		d, err := s.parts.catalog.Lookup(t.Context(), in.IntegrationID)
		must(t, err)
		signer, err := s.parts.signer(t.Context(), d, &bot.Installation{Installation: in.Installation, BotID: botID, Configuration: in.Configuration})
		must(t, err)
		h := http.Header{"Webhook-Id": {"m"}}
		signer.Sign(h, []byte("{}"))
		for _, secret := range want {
			if err := signing.Verify(h, []byte("{}"), time.Now(), secret); err != nil {
				t.Errorf("%s: %v", configuration, err)
			}
		}
		if n := len(strings.Fields(h.Get("webhook-signature"))); n != len(want) {
			t.Errorf("%s: %d signatures, want %d", configuration, n, len(want))
		}
		if err := signing.Verify(h, []byte("{}"), time.Now(), bots); (err == nil) != slices.Contains(want, bots) || errors.Is(err, signing.ErrUnsigned) {
			t.Errorf("%s: with the bot's secret: %v", configuration, err)
		}
	}
}
