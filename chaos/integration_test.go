package chaos

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/parleytest"
)

// plain is an integration and a bot in one program that knows no SDK: it reads
// headers and JSON, and calls back with plain requests.
type plain struct {
	t     *testing.T
	api   parleytest.Settings
	url   string
	botID string
	id    string // of the integration
	mu    sync.Mutex
	told  []string            // operations, in the order they came
	out   map[string][]string // texts that were to go out, by conversation
	seen  map[string]bool     // messages that went out
}

// serve is the integration's side: one POST for each operation.
func (p *plain) serve(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Type         string
		WebhookURL   string `json:"webhookUrl"`
		Input        map[string]any
		Payload      struct{ Text string }
		Conversation struct{ ID string }
		Message      struct{ ID string }
		Req          struct{ Method, Path, Query, Body string }
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	configuration, err := base64.StdEncoding.DecodeString(r.Header.Get("x-bp-configuration"))
	if err != nil || !strings.Contains(string(configuration), "s3cret") {
		http.Error(w, "no configuration", http.StatusUnauthorized)
		return
	}
	operation := r.Header.Get("x-bp-operation")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, operation)
	switch operation {
	case "message_created":
		if !p.seen[in.Message.ID] { // at least once: the id tells
			p.seen[in.Message.ID] = true
			p.out[in.Conversation.ID] = append(p.out[in.Conversation.ID], in.Payload.Text)
		}
	case "action_triggered":
		_ = json.NewEncoder(w).Encode(map[string]any{"output": map[string]any{"echo": in.Input["say"]}})
		return
	case "webhook_received":
		w.Header().Set("X-Path", in.Req.Path)
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, in.Req.Method+" "+in.Req.Body)
		return
	}
	_, _ = io.WriteString(w, "{}")
}

// call makes a request as a person, as the bot or as the integration.
func (p *plain) call(method, path string, header map[string]string, in, out any) error {
	_, err := call(p.t.Context(), method, p.api.APIURL+path, p.who(header), in, out)
	return err
}

// who adds the person whose program it is to a header.
func (p *plain) who(header map[string]string) map[string]string {
	all := map[string]string{"authorization": "Bearer " + p.api.Token, "x-workspace-id": p.api.WorkspaceID, "x-multiple-integrations": "true"}
	maps.Copy(all, header)
	return all
}

func (p *plain) must(method, path string, header map[string]string, in, out any) {
	p.t.Helper()
	if err := p.call(method, path, header, in, out); err != nil {
		p.t.Fatal(err)
	}
}

type object = map[string]any

// newPlain creates the integration and a bot that has it.
func newPlain(t *testing.T, s *parleytest.Setup) (p *plain, webhookID string) {
	p = &plain{t: t, out: map[string][]string{}, seen: map[string]bool{}}
	_, p.api = s.Settings()
	server := httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(server.Close)
	p.url = server.URL
	anything := object{"schema": object{"type": "object"}}
	var made struct{ Integration struct{ ID string } }
	p.must("POST", "/v1/admin/integrations", nil, object{
		"name": "plainhttp", "version": "0.1.0", "url": p.url, "configuration": anything,
		"channels": object{"channel": object{"messages": object{"text": anything}}},
		"actions":  object{"echo": object{"input": anything, "output": object{"schema": object{"type": "object", "required": []string{"echo"}}}}},
	}, &made)
	p.id = made.Integration.ID
	var bot struct {
		Bot struct {
			ID           string
			Integrations map[string]struct {
				WebhookID string `json:"webhookId"`
				Status    string
			}
		}
	}
	p.must("POST", "/v1/admin/bots", nil, object{"name": "plain"}, &bot)
	p.botID = bot.Bot.ID
	p.must("PUT", "/v1/admin/bots/"+p.botID, nil, object{"integrations": object{
		"plain": object{"integrationId": p.id, "enabled": true, "configuration": object{"key": "s3cret"}},
	}}, &bot)
	webhookID = bot.Bot.Integrations["plain"].WebhookID
	for bot.Bot.Integrations["plain"].Status != "registered" {
		if t.Context().Err() != nil {
			t.Fatal("the integration is not registered")
		}
		p.must("GET", "/v1/admin/bots/"+p.botID, nil, nil, &bot)
	}
	return p, webhookID
}

func (p *plain) asBot() map[string]string { return map[string]string{"x-bot-id": p.botID} }

func (p *plain) asIntegration() map[string]string {
	return map[string]string{"x-bot-id": p.botID, "x-integration-id": p.id, "x-integration-alias": "plain"}
}

// TestIntegration connects a channel without any SDK, and kills the server while
// messages go out: each acknowledged one arrives, in the order of its
// conversation, and no id of ours makes two.
func TestIntegration(t *testing.T) {
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		p, webhookID := newPlain(t, s)
		p.door(webhookID)
		p.act()
		const conversations = 4
		written := make([][]string, conversations)
		ids := make([]string, conversations)
		for i := range ids {
			var made struct{ Conversation struct{ ID string } }
			p.must("POST", "/v1/chat/conversations", p.asIntegration(), object{"channel": "channel", "tags": object{}}, &made)
			ids[i] = made.Conversation.ID
		}
		stop := make(chan struct{})
		var writing sync.WaitGroup
		for i := range ids {
			writing.Go(func() { written[i] = p.write(ids[i], i, stop) })
		}
		n := &toll{}
		killOften(t, s, n)
		close(stop)
		writing.Wait()
		for i, id := range ids {
			p.arrived(id, written[i])
		}
		record(t, "kill -9 beside an integration, "+s.Name, fmt.Sprintf("%v; %d messages acknowledged, all arrived at the integration in order", n, len(slices.Concat(written...))))
	})
}

// door knocks at the installation's webhook.
func (p *plain) door(webhookID string) {
	p.t.Helper()
	answer, err := client.Post(p.api.APIURL+"/"+webhookID+"/sub/path?x=1", "text/plain", strings.NewReader("h€llo"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusTeapot || answer.Header.Get("X-Path") != "/sub/path" || string(text) != "POST h€llo" {
		p.t.Errorf("the door answers %s %q %q, %v", answer.Status, answer.Header.Get("X-Path"), text, err)
	}
}

func (p *plain) act() {
	p.t.Helper()
	var out struct{ Output struct{ Echo string } }
	p.must("POST", "/v1/chat/actions", p.asBot(), object{"type": "plain:echo", "input": object{"say": "hi"}}, &out)
	if out.Output.Echo != "hi" {
		p.t.Errorf("the action answers %+v", out)
	}
	if err := p.call("POST", "/v1/chat/actions", p.asBot(), object{"type": "plain:nope", "input": object{}}, &out); err == nil || !strings.Contains(err.Error(), "InvalidPayload") {
		p.t.Errorf("an unknown action: %v", err)
	}
}

// write sends messages as the bot, each under a key of its own, until stop.
func (p *plain) write(conversation string, n int, stop <-chan struct{}) (acknowledged []string) {
	for i := 0; ; i++ {
		text := fmt.Sprintf("%d.%d", n, i)
		header := p.asBot()
		header["Idempotency-Key"] = "plain-http-message-" + text
		for {
			select {
			case <-stop:
				return acknowledged
			case <-p.t.Context().Done():
				return acknowledged
			default:
			}
			var made struct{ Message struct{ ID string } }
			if err := p.call("POST", "/v1/chat/messages", header, object{
				"conversationId": conversation, "userId": p.botID, "type": "text", "tags": object{}, "payload": object{"text": text},
			}, &made); err == nil {
				break
			}
			<-time.After(5 * time.Millisecond) // the server is being killed
		}
		acknowledged = append(acknowledged, text)
	}
}

// forget begins anew with what went out of a conversation.
func (p *plain) forget(conversation string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.out, conversation)
}

// arrived waits until the integration has been told of all that was
// acknowledged. One more may have been written whose answer got lost.
func (p *plain) arrived(conversation string, want []string) {
	p.t.Helper()
	if len(want) == 0 {
		p.t.Errorf("conversation %s: nothing was written", conversation)
	}
	deadline := time.Now().Add(3 * time.Minute)
	for {
		p.mu.Lock()
		got := slices.Clone(p.out[conversation])
		p.mu.Unlock()
		if len(got) >= len(want) {
			if !slices.Equal(got[:len(want)], want) || len(got) > len(want)+1 {
				p.t.Errorf("conversation %s: %q went out, want %q", conversation, got, want)
			}
			return
		}
		if time.Now().After(deadline) {
			p.t.Errorf("conversation %s: %d of %d messages went out", conversation, len(got), len(want))
			return
		}
		<-time.After(10 * time.Millisecond)
	}
}
