package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"

	"parley/internal/sqldb/sqldbtest"
)

// server is a whole server in this process, on a free port.
type server struct {
	*App
	t    *testing.T
	stop func() error // ends it and returns what Run did
}

// start runs a server over a fresh directory, or the one that set names, until
// stop or the end of the test.
func start(t *testing.T, set func(*Config)) *server {
	t.Helper()
	s, err := tryStart(t, set)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryStart(t *testing.T, set func(*Config)) (*server, error) {
	t.Helper()
	cfg, err := Load(func(string) string { return "" }, map[string]string{"addr": "127.0.0.1:0", "data": filepath.Join(t.TempDir(), "data"), "drain-timeout": "20s"})
	if err != nil {
		return nil, err
	}
	cfg.Dev, cfg.Version = true, "test"
	if set != nil {
		set(&cfg)
	}
	a, err := New(t.Context(), cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	s := &server{App: a, t: t}
	ended := false
	s.stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("the server stopped with: %v", err)
		}
	})
	select {
	case <-a.Ready():
		return s, nil
	case err := <-done:
		ended = true
		return nil, err
	}
}

// engines are the databases a whole server is tested on, by name.
func engines(t *testing.T) map[string]func(t *testing.T, c *Config) {
	t.Helper()
	all := map[string]func(*testing.T, *Config){}
	for name, url := range sqldbtest.URLs(t) {
		all[name] = func(t *testing.T, c *Config) {
			if name == "postgres" {
				c.DatabaseURL = url(t)
			}
		}
	}
	return all
}

// call sends a request and reads the answer into out, unless that is nil.
func (s *server) call(method, path string, header map[string]string, in, out any) int {
	s.t.Helper()
	status, body := s.raw(method, path, header, in)
	if out != nil {
		if err := json.Unmarshal(body, out); err != nil {
			s.t.Errorf("%s %s: %d %s: %v", method, path, status, body, err)
		}
	}
	return status
}

// raw is call with the answer as text. It may be used by any goroutine: what
// fails is reported and answers 0.
func (s *server) raw(method, path string, header map[string]string, in any) (int, []byte) {
	s.t.Helper()
	status, text, err := s.exchange(method, path, header, in)
	if err != nil {
		s.t.Errorf("%s %s: %v", method, path, err)
	}
	return status, text
}

func (s *server) exchange(method, path string, header map[string]string, in any) (int, []byte, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.local()+path, body)
	if err != nil {
		return 0, nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// as are the headers of the development token, for its workspace and a bot.
func (s *server) as(botID string) map[string]string {
	s.t.Helper()
	c, err := ReadCredentials(s.cfg.Data)
	if err != nil {
		s.t.Fatal(err)
	}
	h := map[string]string{"Authorization": "Bearer " + c.Token, "x-workspace-id": c.WorkspaceID, "x-multiple-integrations": "true"}
	if botID != "" {
		h["x-bot-id"] = botID
	}
	return h
}

// door is the path of a bot's chat.
func (s *server) door(botID string) string {
	s.t.Helper()
	var got struct {
		Bot struct {
			Integrations map[string]struct {
				WebhookID string `json:"webhookId"`
			} `json:"integrations"`
		} `json:"bot"`
	}
	if status := s.call("GET", "/v1/admin/bots/"+botID, s.as(""), nil, &got); status != 200 {
		s.t.Fatalf("getBot answers %d", status)
	}
	return "/" + got.Bot.Integrations["chat"].WebhookID
}

// visitor is a chat user in a conversation of their own.
type visitor struct {
	*server
	path, conversation string
	header             map[string]string
}

func (s *server) visit(path string) *visitor {
	s.t.Helper()
	var u struct {
		Key string `json:"key"`
	}
	if status := s.call("POST", path+"/users", nil, struct{}{}, &u); status != 201 {
		s.t.Fatalf("createUser answers %d", status)
	}
	v := &visitor{server: s, path: path, header: map[string]string{"x-user-key": u.Key}}
	var c struct {
		Conversation struct {
			ID string `json:"id"`
		} `json:"conversation"`
	}
	if status := v.call("POST", path+"/conversations", v.header, struct{}{}, &c); status != 201 {
		s.t.Fatalf("createConversation answers %d", status)
	}
	v.conversation = c.Conversation.ID
	return v
}

// say sends a text and returns the id of the message.
func (v *visitor) say(text string) string {
	v.t.Helper()
	var m struct {
		Message struct {
			ID string `json:"id"`
		} `json:"message"`
	}
	status := v.call("POST", v.path+"/messages", v.header, map[string]any{
		"conversationId": v.conversation, "payload": map[string]string{"type": "text", "text": text},
	}, &m)
	if status != 201 {
		v.t.Errorf("createMessage answers %d", status)
	}
	return m.Message.ID
}

// texts lists what was said, the oldest first.
func (v *visitor) texts() []string {
	v.t.Helper()
	var list struct {
		Messages []struct {
			Payload struct {
				Text string `json:"text"`
			} `json:"payload"`
		} `json:"messages"`
	}
	if status := v.call("GET", fmt.Sprintf("%s/conversations/%s/messages", v.path, v.conversation), v.header, nil, &list); status != 200 {
		v.t.Fatalf("listMessages answers %d", status)
	}
	var out []string
	for i := len(list.Messages) - 1; i >= 0; i-- {
		out = append(out, list.Messages[i].Payload.Text)
	}
	return out
}
