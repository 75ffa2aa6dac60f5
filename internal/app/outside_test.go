package app

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/internal/api"
	"parley/internal/bot"
	"parley/internal/bus"
)

// patient is a time limit that a slow machine does not come near, in seconds.
const patient = 60

// installed is a bot with an integration at url that may take limit seconds for
// an operation.
func (s *server) installed(url string, limit int) (botID, door string) {
	s.t.Helper()
	anything := map[string]any{"schema": map[string]any{"type": "object"}}
	var made struct{ Integration struct{ ID string } }
	if code := s.call("POST", "/v1/admin/integrations", s.as(""), map[string]any{
		"name": "hooky", "version": "0.1.0", "url": url, "maxExecutionTime": limit, "configuration": anything,
		"channels": map[string]any{"channel": map[string]any{"messages": map[string]any{"text": anything}}},
		"actions":  map[string]any{"ping": map[string]any{"input": anything, "output": map[string]any{"schema": map[string]any{"type": "object", "required": []string{"pong"}}}}},
	}, &made); code != 200 {
		s.t.Fatalf("createIntegration answers %d", code)
	}
	var b struct {
		Bot struct {
			ID           string
			Integrations map[string]struct {
				WebhookID string `json:"webhookId"`
			}
		}
	}
	if code := s.call("POST", "/v1/admin/bots", s.as(""), map[string]any{"name": "x"}, &b); code != 200 {
		s.t.Fatalf("createBot answers %d", code)
	}
	botID = b.Bot.ID
	if code := s.call("PUT", "/v1/admin/bots/"+botID, s.as(""), map[string]any{"integrations": map[string]any{
		"hooky": map[string]any{"integrationId": made.Integration.ID, "enabled": true, "configuration": map[string]any{}},
	}}, &b); code != 200 {
		s.t.Fatalf("updateBot answers %d", code)
	}
	return botID, "/" + b.Bot.Integrations["hooky"].WebhookID
}

// Whatever an integration answers, who waits for it hears a typed error in
// time, and the server goes on.
func TestIntegrationsThatAnswerAnything(t *testing.T) {
	t.Parallel()
	flood := bytes.Repeat([]byte("x"), 1<<20)
	for name, c := range map[string]struct {
		answer       http.HandlerFunc
		action, door string // types of the faults
		doorStatus   int
		says         string
	}{
		"two gigabytes": {func(w http.ResponseWriter, _ *http.Request) {
			for range 2048 {
				if _, err := w.Write(flood); err != nil {
					return
				}
			}
		}, "Runtime", "Unknown", 500, "larger than"},
		"nothing": {func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = c.Close() // it is meant to break off
			}
		}, "Runtime", "Unknown", 500, ""},
		"a web page": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>it works</html>")
		}, "Runtime", "", 200, "JSON"},
		"never": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, "OperationTimeout", "OperationTimeout", 504, "time limit"},
		"an error page":             {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "proxy says no", 502) }, "Runtime", "", 502, "proxy says no"},
		"a redirect":                {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(302) }, "Runtime", "", 302, "redirect"},
		"output that is none":       {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"output":[1]}`) }, "Runtime", "", 200, "object"},
		"output against its schema": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"output":{}}`) }, "InvalidDataFormat", "", 200, "output.pong"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, nil)
			there := httptest.NewServer(c.answer)
			t.Cleanup(there.Close)
			limit := patient
			if c.action == "OperationTimeout" {
				limit = 1
			}
			botID, door := s.installed(there.URL, limit)
			begin := time.Now()
			var got struct{ Type, Message string }
			s.call("POST", "/v1/chat/actions", s.as(botID), map[string]any{"type": "hooky:ping", "input": map[string]any{}}, &got)
			if got.Type != c.action || !strings.Contains(got.Message, c.says) {
				t.Errorf("the action: %s %q, want %s with %q", got.Type, got.Message, c.action, c.says)
			}
			status, text := s.raw("POST", door+"/x", nil, map[string]any{})
			kind, _ := api.Raw(text).Member("type").Text()
			if status != c.doorStatus || kind != c.door {
				t.Errorf("the door: %d %s, want %d %q", status, kind, c.doorStatus, c.door)
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("both took %v", took)
			}
			if code, _ := s.raw("GET", "/readyz", nil, nil); code != 200 {
				t.Errorf("/readyz answers %d", code)
			}
		})
	}
}

// An unknown door, one of a removed installation, and one whose integration was
// deleted answer what official clients know.
func TestDoorsThatLeadNowhere(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	t.Cleanup(there.Close)
	botID, door := s.installed(there.URL, patient)
	if code, text := s.raw("POST", door, nil, map[string]any{}); code != 200 {
		t.Fatalf("the door answers %d %s", code, text)
	}
	if code := s.call("PUT", "/v1/admin/bots/"+botID, s.as(""), map[string]any{"integrations": map[string]any{"hooky": nil}}, nil); code != 200 {
		t.Fatalf("updateBot answers %d", code)
	}
	for _, path := range []string{door, "/00000000-0000-4000-8000-000000000000", "/00000000-0000-4000-8000-000000000000/sub", "/oauth?state=" + strings.TrimPrefix(door, "/"), "/oauth", "/oauth/wizard/a?state=x"} {
		var got struct{ Type, Message string }
		if code := s.call("POST", path, nil, map[string]any{}, &got); code != 404 || got.Type != "ResourceNotFound" || !strings.Contains(got.Message, "[Webhook Handler]") {
			t.Errorf("%s: %d %+v", path, code, got)
		}
	}
}

// The largest body a door takes goes through whole.
func TestALargeBodyPassesTheDoor(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	got := make(chan int64, 1)
	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Bp-Operation") == "webhook_received" {
			n, _ := io.Copy(io.Discard, r.Body)
			got <- n
		}
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(there.Close)
	_, door := s.installed(there.URL, patient)
	const size = bot.MaxDoorBody / 2
	resp, err := http.Post(s.URL()+door, "text/plain", io.LimitReader(letters{}, size))
	must(t, err)
	must(t, resp.Body.Close())
	if n := <-got; resp.StatusCode != 200 || n < size {
		t.Errorf("%d, and %d bytes arrived of %d", resp.StatusCode, n, int64(size))
	}
}

type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

// What a cacheable action answered is asked for once by all servers together,
// until it is too old or there is too much of it.
func TestServersShareWhatActionsAnswered(t *testing.T) {
	t.Parallel()
	wire, now := bus.NewLocal(), time.Unix(1_700_000_000, 0)
	clock := func() time.Time { return now }
	a, b := newAnswers(wire, clock), newAnswers(wire, clock)
	key := func(n int) answerKey { return keyOf(&bot.Installation{}, "now", api.Object(strconv.Itoa(n))) }
	a.put(key(1), api.Object(`{"at":1}`))
	for name, c := range map[string]*answers{"the one that asked": a, "the other one": b} {
		if got := c.get(key(1)); string(got) != `{"at":1}` {
			t.Errorf("%s has kept %q", name, got)
		}
		if got := c.get(key(2)); got != nil {
			t.Errorf("%s has kept %q for another input", name, got)
		}
	}
	a.put(key(3), append(api.Object(`"`), make([]byte, maxAnswered)...))
	if b.get(key(3)) != nil {
		t.Error("an answer was kept that is too large")
	}
	wire.Publish(answersTopic, []byte("short")) // what cannot be read harms nobody
	now = now.Add(answerLife)
	if b.get(key(1)) != nil {
		t.Error("an answer was kept for too long")
	}
	for n := range maxAnswers + 10 {
		a.put(key(n), api.Object(`{}`))
	}
	if n := len(b.kept); n > maxAnswers {
		t.Errorf("%d answers are kept, want at most %d", n, maxAnswers)
	}
}
