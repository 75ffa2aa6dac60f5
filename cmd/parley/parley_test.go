package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/spec"
)

// patience is what a slow machine does not come near.
const patience = 60 * time.Second

// cli runs the command line as a terminal would, with an environment of its own.
type cli struct {
	t   *testing.T
	env map[string]string
}

type result struct {
	status   int
	out, err string
}

func (c cli) run(args ...string) result {
	c.t.Helper()
	return c.runIn(c.t.Context(), args...)
}

func (c cli) runIn(ctx context.Context, args ...string) result {
	var out, err bytes.Buffer
	p := &program{args: args, in: strings.NewReader(""), out: &out, err: &err, getenv: func(name string) string { return c.env[name] }}
	status := p.run(ctx)
	return result{status, out.String(), err.String()}
}

// ok runs a command that must succeed and returns its output.
func (c cli) ok(args ...string) string {
	c.t.Helper()
	r := c.run(args...)
	if r.status != 0 {
		c.t.Fatalf("parley %s: status %d, %s", strings.Join(args, " "), r.status, r.err)
	}
	return r.out
}

// dev starts parley dev on a free port and returns what it printed, once it
// has, and what ends it.
func (c cli) dev(data string) (printed string, stop func()) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	said := &announcer{told: make(chan struct{})}
	p := &program{
		args: []string{"dev", "--addr", "127.0.0.1:0", "--data", data, "--log-level", "error"},
		out:  said, err: io.Discard, getenv: func(string) string { return "" },
	}
	done := make(chan int, 1)
	go func() { done <- p.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if status := <-done; status != 0 {
			c.t.Errorf("parley dev ended with status %d", status)
		}
	})
	c.t.Cleanup(stop)
	select {
	case <-said.told:
	case status := <-done:
		done <- status
		c.t.Fatalf("parley dev ended with status %d before it was ready", status)
	case <-time.After(patience):
		c.t.Fatal("parley dev does not become ready")
	}
	return said.text, stop
}

// announcer keeps what is written and tells when the last paragraph has come.
type announcer struct {
	text string
	told chan struct{}
}

func (a *announcer) Write(b []byte) (int, error) {
	a.text += string(b)
	if strings.Contains(a.text, "export BP_BOT_ID=") && strings.HasSuffix(a.text, "\n\n") {
		close(a.told)
	}
	return len(b), nil
}

func TestWhatDevPrintsCanBePasted(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	printed, stop := c.dev(data)
	for _, tool := range []string{"sh", "curl", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test pastes into a shell and needs %s: apt-get install %s", tool, tool)
		}
	}
	var lines []string
	for line := range strings.Lines(printed) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "CHAT=") || strings.HasPrefix(line, "KEY=") || strings.HasPrefix(line, "CONV=") || strings.HasPrefix(line, "curl ") {
			lines = append(lines, line)
		}
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", strings.Join(lines, "\n")).CombinedOutput()
	if err != nil || len(lines) != 7 || strings.Count(string(out), `"text":"hello"`) < 2 || !strings.Contains(string(out), `"finished":true`) || strings.Contains(string(out), `"err_`) {
		t.Errorf("pasting\n%s\ngave (%v)\n%s", strings.Join(lines, "\n"), err, out)
	}
	var e environment
	if err := json.Unmarshal([]byte(c.ok("env", "--data", data, "--json")), &e); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		e.APIURL + " ", "chat        " + e.ChatURL, "messaging   " + e.MessagingURL, "token       " + e.Token,
		"bp login --api-url " + e.APIURL + " --token " + e.Token + " --workspace-id " + e.WorkspaceID,
		"export BP_API_URL=" + e.APIURL, "export BP_TOKEN=" + e.Token, "export BP_BOT_ID=" + e.BotID,
	} {
		if !strings.Contains(printed, want) {
			t.Errorf("%q is missing from\n%s", want, printed)
		}
	}
	stop()
	port := regexp.MustCompile(`127\.0\.0\.1:\d+`)
	again, _ := c.dev(data)
	if got, want := port.ReplaceAllString(again, "ADDR"), port.ReplaceAllString(printed, "ADDR"); got != want {
		t.Errorf("the second start printed\n%s\nthe first\n%s", got, want)
	}
}

func TestTalkingToTheEchoBot(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	_, _ = c.dev(data)
	if got := c.ok("chat", "--data", data, "héllo\nworld"); got != "héllo\nworld\n" {
		t.Errorf("the bot said %q", got)
	}
	for _, text := range []string{"one", "two"} {
		if got := c.ok("chat", "--data", data, "--conversation", "demo", text); got != text+"\n" {
			t.Errorf("in a conversation that goes on the bot said %q, want %q", got, text)
		}
	}
	var m chatMessage
	if err := json.Unmarshal([]byte(c.ok("chat", "--data", data, "--json", "hi")), &m); err != nil || m.Payload["text"] != "hi" {
		t.Errorf("as JSON the bot said %+v (%v)", m, err)
	}
	var e environment
	if err := json.Unmarshal([]byte(c.ok("env", "--data", data, "--json")), &e); err != nil {
		t.Fatal(err)
	}
	far := cli{t, map[string]string{"PARLEY_CHAT_API_URL": e.ChatURL}}
	if got := far.ok("chat", "from afar"); got != "from afar\n" {
		t.Errorf("over an address the bot said %q", got)
	}
}

func TestHowATalkCanEnd(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	_, _ = c.dev(data)
	var e environment
	if err := json.Unmarshal([]byte(c.ok("env", "--data", data, "--json")), &e); err != nil {
		t.Fatal(err)
	}
	answer := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		return newBotAt(t, e, s.URL)
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close() // it listens and never answers
	for _, one := range []struct {
		what   string
		args   []string
		status int
		says   string
	}{
		{"a bot that fails", []string{"--bot", answer(400, `{"id":"err_1","code":400,"type":"Runtime","message":"no coffee"}`)}, 3, "no coffee"},
		{"a bot that says nothing", []string{"--bot", answer(200, `{}`)}, 4, "said nothing"},
		{"a bot that never answers", []string{"--bot", newBotAt(t, e, "http://"+gone.Addr().String()), "--timeout", "300ms"}, 4, "did not answer within 300ms"},
		{"a bot that does not exist", []string{"--bot", "bot_01M7WG5B4NG636278DN5Q0FC0Z"}, 1, "doesn't exist"},
		{"two texts", []string{"hello"}, 2, "takes one text"},
	} {
		args := append(append([]string{"chat", "--data", data}, one.args...), "hello")
		if r := c.run(args...); r.status != one.status || !strings.Contains(r.err, one.says) {
			t.Errorf("%s: status %d, %q, want %d and %q", one.what, r.status, r.err, one.status, one.says)
		}
	}
}

// newBotAt makes a bot at a URL, with a chat.
func newBotAt(t *testing.T, e environment, url string) string {
	t.Helper()
	c := newClient(e.APIURL, e.Token).with("x-workspace-id", e.WorkspaceID).with("x-multiple-integrations", "true")
	var made struct {
		Bot struct{ ID string } `json:"bot"`
	}
	var hub struct {
		Integration struct{ ID string } `json:"integration"`
	}
	for _, err := range []error{
		c.call(t.Context(), "POST", "/v1/admin/bots", map[string]string{"name": "a bot", "url": url}, &made),
		c.call(t.Context(), "GET", "/v1/admin/hub/integrations/chat/latest", nil, &hub),
		c.call(t.Context(), "PUT", "/v1/admin/bots/"+made.Bot.ID, map[string]any{"integrations": map[string]any{
			"chat": map[string]any{"integrationId": hub.Integration.ID, "enabled": true, "configuration": struct{}{}},
		}}, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return made.Bot.ID
}

func TestTokensWithAndWithoutAServer(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	if r := c.run("token", "list", "--data", data); r.status != 1 || !strings.Contains(r.err, "run parley dev") {
		t.Errorf("without data: %+v", r)
	}
	first := strings.TrimSpace(c.ok("token", "create", "--note", "first", "--data", data))
	if !strings.HasPrefix(first, "bp_pat_") {
		t.Fatalf("token create printed %q", first)
	}
	list := c.ok("token", "list", "--data", data)
	if strings.Count(list, "pat_") != 1 || !strings.Contains(list, "first") || strings.Contains(list, first) {
		t.Errorf("token list printed\n%s", list)
	}

	_, stop := c.dev(data)
	var made pat
	if err := json.Unmarshal([]byte(c.ok("token", "create", "--note", "second", "--json", "--data", data)), &made); err != nil {
		t.Fatal(err)
	}
	other := cli{t, map[string]string{tokenEnv: made.Value}}
	if list := other.ok("token", "list", "--data", data); strings.Count(list, "pat_") != 3 {
		t.Errorf("token list printed\n%s\nwant the first, the second and that of parley dev", list)
	}
	c.ok("token", "revoke", made.ID, "--data", data)
	if r := other.run("token", "list", "--data", data); r.status != 1 || !strings.Contains(r.err, "Unauthorized") {
		t.Errorf("with a revoked token: %+v", r)
	}
	if err := os.Remove(filepath.Join(data, "credentials.json")); err != nil {
		t.Fatal(err)
	}
	if r := c.run("token", "list", "--data", data); r.status != 1 || !strings.Contains(r.err, tokenEnv) {
		t.Errorf("beside a server, without a token: %+v", r)
	}
	stop()
	if r := c.run("token", "revoke", made.ID, "--data", data); r.status != 1 || !strings.Contains(r.err, "ResourceNotFound") {
		t.Errorf("revoking twice: %+v", r)
	}
}

func TestEnvIsWhatAShellEvaluates(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "it's data")
	_, stop := c.dev(data)
	running := c.ok("env", "--data", data)
	out, err := exec.CommandContext(t.Context(), "sh", "-c", running+`printf '%s\n' "$BP_API_URL" "$BP_TOKEN" "$BP_WORKSPACE_ID" "$BP_BOT_ID" "$PARLEY_CHAT_API_URL" "$PARLEY_CHAT_ENCRYPTION_KEY" "$PARLEY_MESSAGING_URL"`).Output()
	if err != nil {
		t.Fatal(err)
	}
	var e environment
	if err := json.Unmarshal([]byte(c.ok("env", "--data", data, "--json")), &e); err != nil {
		t.Fatal(err)
	}
	if want := strings.Join([]string{e.APIURL, e.Token, e.WorkspaceID, e.BotID, e.ChatURL, e.ChatKey, e.MessagingURL, ""}, "\n"); string(out) != want {
		t.Errorf("the shell has\n%swant\n%s", out, want)
	}
	for name, value := range map[string]string{"BP_API_URL": e.APIURL, "BP_TOKEN": e.Token, "PARLEY_CHAT_API_URL": e.ChatURL, "PARLEY_CHAT_ENCRYPTION_KEY": e.ChatKey, "PARLEY_MESSAGING_URL": e.MessagingURL} {
		if value == "" {
			t.Errorf("%s is empty", name)
		}
	}
	stop()
	if stopped := c.ok("env", "--data", data); stopped != running {
		t.Errorf("without the server:\n%s\nwith it:\n%s", stopped, running)
	}
}

func TestShellQuote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"a": "'a'", "it's": `'it'\''s'`, "": "''", "$x `y`": "'$x `y`'"} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestVersionAndOperations(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	var b buildInfo
	if err := json.Unmarshal([]byte(c.ok("version", "--json")), &b); err != nil || b.Version == "" || b.Go == "" || b.APIs["runtime"] == "" {
		t.Errorf("version --json gives %+v (%v)", b, err)
	}
	if got := c.ok("version"); !strings.HasPrefix(got, "parley ") {
		t.Errorf("version prints %q", got)
	}
	var ops []spec.Operation
	if err := json.Unmarshal([]byte(c.ok("ops", "--json")), &ops); err != nil || len(ops) != len(spec.Operations()) {
		t.Errorf("ops --json lists %d operations (%v), want %d", len(ops), err, len(spec.Operations()))
	}
	if got := c.ok("ops", "billing"); !strings.Contains(got, "10 operations: 0 done, 0 planned, 10 refused") || strings.Contains(got, "createMessage") {
		t.Errorf("ops billing prints\n%s", got)
	}
}

func TestWrongUsageSaysWhatIsRight(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	for _, one := range []struct{ args, says string }{
		{"start", `no command "start"`},
		{"dev now", `takes no argument "now"`},
		{"dev --port 1", "parley dev --help"},
		{"serve --addr 0.0.0.0:7400", "would carry tokens in clear"},
		{"serve --drain-timeout soon", "--drain-timeout"},
		{"token revoke", "takes one token id"},
		{"backup", "takes one file"},
		{"ops trading", `no API family "trading"`},
		{"ops --state maybe", "none of done, planned and refused"},
	} {
		if r := c.run(strings.Fields(one.args)...); r.status != exitUsage || !strings.Contains(r.err, one.says) || r.out != "" {
			t.Errorf("parley %s: %+v, want status %d and %q", one.args, r, exitUsage, one.says)
		}
	}
}

func TestWordsOfABotDoNotSteerTheTerminal(t *testing.T) {
	t.Parallel()
	for want, payload := range map[string]map[string]any{
		"[2Jhi\nyou":                  {"type": "text", "text": "\x1b[2Jhi\nyou\u009b"},
		"Which?\n  - A\n  - B":        {"type": "choice", "text": "Which?", "options": []any{map[string]any{"label": "A"}, map[string]any{"label": "B"}}},
		"[image] https://x.example/i": {"type": "image", "imageUrl": "https://x.example/i"},
		`{"type":"bloc","x":1}`:       {"type": "bloc", "x": 1},
	} {
		if got := plainText(payload); got != want {
			t.Errorf("plainText(%v) = %q, want %q", payload, got, want)
		}
	}
}
