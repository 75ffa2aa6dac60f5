package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/signing"
)

// ear is parley listen in this process.
type ear struct {
	t        *testing.T
	url      string
	greeting string
	printed  *io.PipeReader
	stop     func() int
}

var listeningAt = regexp.MustCompile(`Listening on (http://127\.0\.0\.1:\d+)\.`)

// listens starts parley listen and reads what it greets with.
func (c cli) listens(args ...string) *ear {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	said, out := io.Pipe()
	greeting := &greeting{told: make(chan struct{})}
	p := &program{args: append([]string{"listen", "--port", "0"}, args...), in: strings.NewReader(""), out: out, err: greeting, getenv: func(name string) string { return c.env[name] }}
	greeting.next = out
	for _, arg := range args {
		if arg == "--json" {
			greeting.next = nil
		}
	}
	if greeting.next != nil { // for people: all of it goes where the requests go
		p.out = greeting
	}
	status := make(chan int, 1)
	go func() { status <- p.run(ctx) }()
	e := &ear{t: c.t, printed: said}
	e.stop = sync.OnceValue(func() int {
		cancel()
		_ = said.Close() // never fails
		return <-status
	})
	c.t.Cleanup(func() { e.stop() })
	select {
	case <-greeting.told:
	case s := <-status:
		status <- s
		c.t.Fatalf("parley listen ended with status %d before it was ready", s)
	}
	e.greeting = greeting.text
	e.url = listeningAt.FindStringSubmatch(e.greeting)[1]
	return e
}

// greeting keeps what is written first, and passes on what follows.
type greeting struct {
	text string
	told chan struct{}
	next io.Writer
}

func (g *greeting) Write(b []byte) (int, error) {
	if g.text != "" {
		if g.next == nil {
			return len(b), nil
		}
		return g.next.Write(b)
	}
	g.text = string(b)
	close(g.told)
	return len(b), nil
}

// post sends a request to the ear and returns the status of the answer.
func (e *ear) post(path, body string, header http.Header) int {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), "POST", e.url+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode < 300 && resp.StatusCode != 204 && strings.TrimSpace(string(text)) != "{}" {
		e.t.Errorf("it answers %q, %v", text, err)
	}
	return resp.StatusCode
}

func signedHeader(secret string, body string) http.Header {
	h := http.Header{"Content-Type": {"application/json"}, "Webhook-Id": {"msg_1"}}
	signing.New(time.Now, signing.Split(secret)...).Sign(h, []byte(body))
	return h
}

// The lines that listen prints are pasted, and what the bot says comes to it,
// signed, from both of its integrations.
func TestWhatListenPrintsCanBePasted(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "it's data")
	_, _ = c.dev(data)
	e := c.listens("--data", data, "--json")
	if !strings.Contains(e.greeting, "verified with the secret of bot bot_") {
		t.Errorf("it greets with\n%s", e.greeting)
	}
	var lines []string
	for line := range strings.Lines(e.greeting) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "curl ") {
			lines = append(lines, line)
		}
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", strings.Join(lines, "\n")).CombinedOutput()
	if err != nil || len(lines) != 2 || strings.Contains(string(out), `"err_`) || !strings.Contains(string(out), `"webhookUrl":"`+e.url+`/chat"`) {
		t.Fatalf("pasting\n%s\ngave (%v)\n%s", strings.Join(lines, "\n"), err, out)
	}
	if got := c.ok("chat", "--data", data, "over here"); got != "over here\n" {
		t.Errorf("the bot said %q", got)
	}
	env := c.environment(data)
	if err := newClient(env.MessagingURL, env.Token).call(t.Context(), "POST", "", map[string]any{
		"userId": "u", "messageId": "1", "conversationId": "c", "type": "text", "text": "over there", "payload": struct{}{},
	}, nil); err != nil {
		t.Fatal(err)
	}
	heardOf := map[string]bool{}
	requests := json.NewDecoder(e.printed)
	for !heardOf["/chat over here"] || !heardOf["/messaging over there"] {
		var h struct {
			heard
			Body json.RawMessage `json:"body"`
		}
		if err := requests.Decode(&h); err != nil {
			t.Fatalf("%v; so far %v", err, heardOf)
		}
		if h.Signature != "ok" || h.Method != "POST" || h.Headers["webhook-id"] == "" {
			t.Errorf("got %+v %s", h.heard, h.Body)
		}
		for _, text := range []string{"over here", "over there"} {
			if bytes.Contains(h.Body, []byte(text)) {
				heardOf["/"+strings.Trim(h.Path, "/")+" "+text] = true
			}
		}
	}
	if status := e.stop(); status != 0 {
		t.Errorf("it ends with %d", status)
	}
}

// A bot and an integration may live at its address.
func TestListenIsABotAndAnIntegration(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	_, _ = c.dev(data)
	env := c.environment(data)
	as := newClient(env.APIURL, env.Token).with("x-workspace-id", env.WorkspaceID).with("x-multiple-integrations", "true")
	var made struct {
		Integration struct{ ID string }
	}
	if err := as.call(t.Context(), "POST", "/v1/admin/integrations", map[string]string{"name": "hooky", "version": "1.0.0"}, &made); err != nil {
		t.Fatal(err)
	}
	botID := newBotAt(t, env, "http://127.0.0.1:1/")
	bot, integration := c.listens("--data", data, "--bot", botID, "--json"), c.listens("--data", data, "--integration", made.Integration.ID, "--json")
	for _, err := range []error{
		as.call(t.Context(), "PUT", "/v1/admin/integrations/"+made.Integration.ID, map[string]string{"url": integration.url}, nil),
		as.call(t.Context(), "PUT", "/v1/admin/bots/"+botID, map[string]any{"url": bot.url, "integrations": map[string]any{
			"hooky": map[string]any{"integrationId": made.Integration.ID, "enabled": true, "configuration": struct{}{}},
		}}, nil),
		as.with("x-bot-id", botID).call(t.Context(), "POST", "/v1/chat/events", map[string]any{"type": "custom", "payload": map[string]string{"a": "é"}}, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for want, e := range map[string]*ear{"event_received": bot, "register": integration} {
		var h heard
		if err := json.NewDecoder(e.printed).Decode(&h); err != nil || h.Signature != "ok" || h.Headers["x-bp-operation"] != want {
			t.Errorf("got %+v, %v, want %s", h, err, want)
		}
	}
	if strings.Contains(integration.greeting, "curl") || !strings.Contains(integration.greeting, "the integration of "+made.Integration.ID) {
		t.Errorf("it greets with\n%s", integration.greeting)
	}
}

func TestWhatListenMakesOfARequest(t *testing.T) {
	t.Parallel()
	nowhere := filepath.Join(t.TempDir(), "none")
	c := cli{t: t}
	const body = `{"b":[1,{"text":"h\u00e9"}],"a":"x"}`
	for name, o := range map[string]struct {
		args   []string
		body   string
		header http.Header
		status int
		want   string // what is printed, after the time
	}{
		"signed": {[]string{"--secret", "s3cret"}, body, signedHeader("s3cret", body), 200, `  POST /p?q=1  signature ok
  content-type: application/json
  webhook-id: msg_1
  webhook-timestamp: NOW
  {
    "b": [
      1,
      {
        "text": "h\u00e9"
      }
    ],
    "a": "x"
  }

`},
		"signed with the older of two": {[]string{"--secret", "new old"}, `{}`, signedHeader("old", `{}`), 200, "  POST /p?q=1  signature ok\n  content-type: application/json\n  webhook-id: msg_1\n  webhook-timestamp: NOW\n  {}\n\n"},
		"signed with another":          {[]string{"--secret", "s"}, `{}`, signedHeader("t", `{}`), 200, "  POST /p?q=1  signature wrong: no signature is of this body with this secret\n  content-type: application/json\n  webhook-id: msg_1\n  webhook-timestamp: NOW\n  {}\n\n"},
		"signed for another body":      {[]string{"--secret", "s"}, `{} `, signedHeader("s", `{}`), 200, "  POST /p?q=1  signature wrong: no signature is of this body with this secret\n  content-type: application/json\n  webhook-id: msg_1\n  webhook-timestamp: NOW\n  {}\n\n"},
		"signed, and nobody knows":     {nil, `{}`, signedHeader("s", `{}`), 200, "  POST /p?q=1  signature unchecked\n  content-type: application/json\n  webhook-id: msg_1\n  webhook-timestamp: NOW\n  {}\n\n"},
		"not signed":                   {[]string{"--secret", "s", "--status", "503"}, "", http.Header{"X-Secret-Key": {"s"}, "X-Other": {"y"}}, 503, "  POST /p?q=1  signature none\n  x-secret-key: s\n\n"},
		"text":                         {[]string{"--status", "204"}, "one\n\x1b[31mtwo", nil, 204, "  POST /p?q=1  signature none\n  one\n  [31mtwo\n\n"},
		"bytes":                        {nil, "\xff\xfe", nil, 200, "  POST /p?q=1  signature none\n  (2 bytes that are no text)\n\n"},
		"much":                         {nil, strings.Repeat("x", maxShown+5), nil, 200, "  POST /p?q=1  signature none\n  " + strings.Repeat("x", maxShown) + "\n  … (5 bytes more)\n\n"},
	} {
		e := c.listens(append([]string{"--data", nowhere}, o.args...)...)
		var printed bytes.Buffer
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = io.Copy(&printed, e.printed) })
		if status := e.post("/p?q=1", o.body, o.header); status != o.status {
			t.Errorf("%s: it answers %d, want %d", name, status, o.status)
		}
		if status := e.stop(); status != 0 {
			t.Errorf("%s: it ends with %d", name, status)
		}
		reading.Wait()
		got := regexp.MustCompile(`webhook-timestamp: \d+`).ReplaceAllString(printed.String(), "webhook-timestamp: NOW")
		if at := strings.Index(got, "  POST"); at != len("15:04:05.000") || got[at:] != o.want {
			t.Errorf("%s: it printed\n%.2000s\nwant\n%.2000s", name, got, o.want)
		}
		if verified := strings.Contains(e.greeting, "verified with the secret given"); verified != (len(o.args) > 0 && o.args[0] == "--secret") {
			t.Errorf("%s: it greets with\n%s", name, e.greeting)
		}
	}
}

func TestListenRefuses(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	e := c.listens("--data", data)
	for _, one := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--port", strings.TrimPrefix(e.url, "http://127.0.0.1:")}, 1, "choose another port with --port"},
		{[]string{"--port", "65536"}, 2, "not a port"},
		{[]string{"--status", "99"}, 2, "not a status"},
		{[]string{"--bot", "bot_1", "--integration", "intver_1"}, 2, "exclude each other"},
		{[]string{"--bot", "bot_01M7WG5B4NG636278DN5Q0FC0Z"}, 1, "run parley dev"},
		{[]string{"x"}, 2, "takes no argument"},
	} {
		if r := c.run(append([]string{"listen", "--data", data}, one.args...)...); r.status != one.status || !strings.Contains(r.err, one.says) {
			t.Errorf("%v: %+v", one.args, r)
		}
	}
	resp, err := http.Post(e.url, "", io.LimitReader(zeros{}, maxHeard+1))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a body without end: %d", resp.StatusCode)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
