package app

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sink is a place that a chat tells of its signals.
type sink struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	answer   func() int // status of the next answer
	requests int
	got      []string // what was answered with 2xx
	header   http.Header
}

func newSink(t *testing.T) *sink {
	t.Helper()
	s := &sink{t: t, answer: func() int { return 204 }}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests++
		s.header = r.Header
		status := s.answer()
		if r.URL.Path != "/hook/" {
			status = 404
		}
		w.WriteHeader(status)
		if status < 300 {
			s.got = append(s.got, string(text))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *sink) answers(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = func() int { return status }
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// hook sets the webhook of the chat of a bot.
func (s *server) hook(botID, url, secret string) (int, string) {
	s.t.Helper()
	code, text := s.raw("PUT", "/v1/admin/bots/"+botID, s.as(""), map[string]any{"integrations": map[string]any{"chat": map[string]any{
		"configuration": map[string]string{"webhookUrl": url, "webhookSecret": secret},
	}}})
	return code, string(text)
}

// chatStatus is the registration of the chat of a bot.
func (s *server) chatStatus(botID string) (status, reason string) {
	s.t.Helper()
	var got struct {
		Bot struct {
			Integrations map[string]struct{ Status, StatusReason string }
		}
	}
	s.call("GET", "/v1/admin/bots/"+botID, s.as(""), nil, &got)
	return got.Bot.Integrations["chat"].Status, got.Bot.Integrations["chat"].StatusReason
}

// signals are what a listener hears of a conversation from its beginning.
func (v *visitor) signals(n int) []string {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), "GET", v.URL()+v.path+"/conversations/"+v.conversation+"/listen?after=0", nil)
	must(v.t, err)
	req.Header.Set("x-user-key", v.header["x-user-key"])
	return listened(v.t, req, n)
}

// listened opens a stream and returns the first n signals.
func listened(t *testing.T, req *http.Request, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(req.Context(), time.Minute)
	defer cancel()
	resp, err := http.DefaultClient.Do(req.WithContext(ctx))
	must(t, err)
	defer resp.Body.Close()
	var all []string
	lines := bufio.NewScanner(resp.Body)
	for len(all) < n && lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok && text != "ping" {
			all = append(all, text)
		}
	}
	if len(all) < n {
		t.Fatalf("the stream ended after %d signals, want %d: %v", len(all), n, lines.Err())
	}
	return all
}

// until waits for what the server does by itself.
func (s *server) until(what string, true func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !true() {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain until %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func TestAChatTellsItsWebhook(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c) })
			c, err := ReadCredentials(s.cfg.Data)
			must(t, err)
			v := s.visit(s.door(c.BotID))
			s.idle()
			to := newSink(t)
			if code, text := s.hook(c.BotID, to.URL+"/hook", "s3cret"); code != 200 {
				t.Fatalf("updateBot answers %d %s", code, text)
			}
			v.say("one")
			v.say("two")
			s.until("four messages were told of", func() bool { return to.count() >= 4 })
			s.idle()
			if diff := cmp.Diff(v.signals(4), to.got); diff != "" {
				t.Errorf("the webhook (-listener +webhook):\n%s", diff)
			}
			h := to.header
			if h.Get("X-Secret-Key") != "s3cret" || h.Get("X-Parley-Attempt") != "1" || !strings.HasPrefix(h.Get("Webhook-Id"), "dlv_") || h.Get("Content-Type") != "application/json" {
				t.Errorf("headers %v", h)
			}
			// A conversation whose webhook answers nothing good waits, until somebody sets the right URL.
			if code, text := s.hook(c.BotID, to.URL+"/hook", ""); code != 200 {
				t.Fatalf("updateBot answers %d %s", code, text)
			}
			to.answers(500)
			v.say("three")
			s.until("it was tried", func() bool { return to.count() >= 5 })
			s.idle()
			to.answers(200)
			if code, text := s.hook(c.BotID, to.URL+"/hook/", ""); code != 200 {
				t.Fatalf("updateBot answers %d %s", code, text)
			}
			s.until("the rest was told of", func() bool { return to.count() >= 7 })
			s.idle()
			if diff := cmp.Diff(v.signals(6), to.got); diff != "" {
				t.Errorf("after the failure (-listener +webhook):\n%s", diff)
			}
		})
	}
}

func TestAWebhookThatIsGoneIsDisabled(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c) })
			c, err := ReadCredentials(s.cfg.Data)
			must(t, err)
			v := s.visit(s.door(c.BotID))
			s.idle()
			to := newSink(t)
			to.answers(410)
			if code, text := s.hook(c.BotID, to.URL+"/hook", ""); code != 200 {
				t.Fatalf("updateBot answers %d %s", code, text)
			}
			<-time.After(2 * time.Millisecond) // a setup is not blamed for the millisecond it was made in
			v.say("one")
			s.until("the chat is disabled", func() bool {
				status, reason := s.chatStatus(c.BotID)
				return status == "registration_failed" && strings.Contains(reason, "410") && strings.Contains(reason, "updateBot")
			})
			s.idle()
			told := to.count()
			v.say("two")
			s.until("the echo is there", func() bool { return len(v.texts()) == 4 })
			s.idle()
			if n := to.count(); n != told {
				t.Errorf("%d calls of an endpoint that is gone", n-told)
			}
			to.answers(200)
			if code, text := s.hook(c.BotID, to.URL+"/hook", ""); code != 200 || !strings.Contains(text, `"registered"`) {
				t.Fatalf("updateBot answers %d %s", code, text)
			}
			v.say("three")
			s.until("what is new was told of", func() bool { return to.count() == told+2 })
			s.idle()
			if len(to.got) != 2 || !strings.Contains(to.got[0], `"three"`) {
				t.Errorf("set up anew, it was told of %q", to.got)
			}
		})
	}
}

func TestAWebhookMustBeOneThatCanBeCalled(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	c, err := ReadCredentials(s.cfg.Data)
	must(t, err)
	for _, v := range []struct{ url, secret, says string }{
		{"example.com", "", "integrations.chat.configuration.webhookUrl can never be called"},
		{"ftp://example.com", "", "integrations.chat.configuration.webhookUrl can never be called"},
		{"http://169.254.169.254/latest", "", "integrations.chat.configuration.webhookUrl can never be called: calls to the address 169.254.169.254 are not allowed"},
		{"https://example.com", "né", "integrations.chat.configuration.webhookSecret"},
	} {
		if code, text := s.hook(c.BotID, v.url, v.secret); code != 400 || !strings.Contains(text, v.says) || !strings.Contains(text, `"InvalidPayload"`) {
			t.Errorf("%s %s: %d %s", v.url, v.secret, code, text)
		}
	}
	if code, text := s.raw("PUT", "/v1/admin/bots/"+c.BotID, s.as(""), map[string]any{"integrations": map[string]any{"chat": map[string]any{
		"configuration": map[string]any{"webhookUrl": 7},
	}}}); code != 400 || !strings.Contains(string(text), "configuration.webhookUrl") {
		t.Errorf("a number: %d %s", code, text)
	}
	for _, url := range []string{"", "https://example.com/hook?a=b"} {
		if code, text := s.hook(c.BotID, url, "whsec_one whsec_two"); code != 200 {
			t.Errorf("%s: %d %s", url, code, text)
		}
	}
}

// Chats whose webhooks hang keep nobody from those whose webhook does not.
func TestHangingWebhooksDelayNobody(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.webhookLimit = time.Hour })
	hang := make(chan struct{})
	stuck := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(stuck.Close)
	t.Cleanup(func() { close(hang) })
	c, err := ReadCredentials(s.cfg.Data)
	must(t, err)
	if code, text := s.hook(c.BotID, stuck.URL, ""); code != 200 {
		t.Fatalf("updateBot answers %d %s", code, text)
	}
	path := s.door(c.BotID)
	for range 80 { // more than one endpoint may have at a time
		s.visit(path).say("hi")
	}
	to := newSink(t)
	botID := s.made("bot", "POST", "/v1/admin/bots", s.as(""), map[string]string{"name": "quick"})
	if code, text := s.raw("PUT", "/v1/admin/bots/"+botID, s.as(""), map[string]any{"integrations": map[string]any{"chat": map[string]any{
		"integrationId": s.parts.catalog.Builtin("chat", "latest").ID, "configuration": map[string]string{"webhookUrl": to.URL + "/hook"},
	}}}); code != 200 {
		t.Fatalf("updateBot answers %d %s", code, text)
	}
	v := s.visit(s.door(botID))
	for i := range 20 {
		before := to.count()
		v.say(fmt.Sprint(i))
		s.until("the quick one was told", func() bool { return to.count() > before })
	}
	s.until("all was told of", func() bool { return to.count() == 20 })
	for i, text := range to.got {
		if !strings.Contains(text, fmt.Sprintf(`"text":"%d"`, i)) {
			t.Errorf("signal %d is %s", i, text)
		}
	}
}
