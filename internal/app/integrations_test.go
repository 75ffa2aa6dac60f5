package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

// outside is an integration that runs outside: it notes what it is told.
func outside(t *testing.T) (url string, told chan string) {
	t.Helper()
	told = make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told <- r.Header.Get("x-bp-operation")
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(s.Close)
	return s.URL, told
}

// hears waits until the integration is told of one operation and nothing else.
func hears(t *testing.T, told chan string, want string) {
	t.Helper()
	select {
	case got := <-told:
		if got != want {
			t.Fatalf("the integration is told of %s, want %s", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatalf("the integration is not told of %s", want)
	}
}

// What an update of an integration changes is seen at once by the bots that have
// it: where it runs, what it declares and what it wants to be told of.
func TestAnIntegrationThatChangesIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c) })
			url, told := outside(t)
			gone := httptest.NewServer(nil)
			gone.Close()
			id := s.made("integration", "POST", "/v1/admin/integrations", s.as(""), map[string]any{
				"name": "hooky", "version": "1.0.0", "url": gone.URL,
				"channels": map[string]any{"channel": map[string]any{"messages": map[string]any{"text": map[string]any{"schema": map[string]any{"type": "object"}}}}},
				"user":     map[string]any{"tags": map[string]any{"id": struct{}{}}},
			})
			update := func(body map[string]any) {
				t.Helper()
				s.made("integration", "PUT", "/v1/admin/integrations/"+id, s.as(""), body)
			}
			botID := s.made("bot", "POST", "/v1/admin/bots", s.as(""), map[string]any{"name": "b"})
			s.made("bot", "PUT", "/v1/admin/bots/"+botID, s.as(""), map[string]any{"integrations": map[string]any{"hooky": map[string]any{"integrationId": id, "enabled": true, "configuration": struct{}{}}}})
			update(map[string]any{"url": url})
			hears(t, told, "register")

			mine := s.as(botID)
			mine["x-integration-id"] = id
			nick := map[string]any{"tags": map[string]string{"nick": "x"}}
			if code, text := s.raw("POST", "/v1/chat/users", mine, nick); code != 400 {
				t.Errorf("createUser with a tag that is not declared answers %d %s", code, text)
			}
			update(map[string]any{"user": map[string]any{"tags": map[string]any{"nick": struct{}{}}}})
			user := s.made("user", "POST", "/v1/chat/users", mine, nick)

			conversation := s.made("conversation", "POST", "/v1/chat/conversations", mine, map[string]any{"channel": "channel", "tags": struct{}{}})
			message := s.made("message", "POST", "/v1/chat/messages", s.as(botID), map[string]any{
				"type": "text", "payload": map[string]string{"text": "x"}, "tags": struct{}{}, "conversationId": conversation, "userId": botID,
			})
			hears(t, told, "message_created")
			change := func() {
				t.Helper()
				s.made("message", "PUT", "/v1/chat/messages/"+message, s.as(botID), map[string]any{"payload": map[string]string{"text": "y"}, "tags": struct{}{}})
			}
			change()
			s.idle()
			if len(told) > 0 {
				t.Errorf("the integration is told of %s, which it did not ask for", <-told)
			}
			update(map[string]any{"extraOperations": map[string]any{"message_updated": map[string]bool{"enabled": true}}})
			change()
			hears(t, told, "message_updated")
			s.idle()
			if user == "" || !slices.Equal(s.integrationsOf(botID), []string{"hooky registered"}) {
				t.Errorf("the bot has %v", s.integrationsOf(botID))
			}
		})
	}
}

// made sends a request and returns the id of what the answer holds under a name.
func (s *server) made(what, method, path string, header map[string]string, in any) string {
	s.t.Helper()
	out := map[string]struct{ ID string }{}
	if code := s.call(method, path, header, in, &out); code >= 300 {
		s.t.Fatalf("%s %s answers %d", method, path, code)
	}
	return out[what].ID
}

// integrationsOf lists what a bot has installed, with its status.
func (s *server) integrationsOf(botID string) []string {
	s.t.Helper()
	var got struct {
		Bot struct {
			Integrations map[string]struct{ Status string }
		}
	}
	s.call("GET", "/v1/admin/bots/"+botID, s.as(""), nil, &got)
	var all []string
	for alias, in := range got.Bot.Integrations {
		all = append(all, alias+" "+in.Status)
	}
	return all
}
