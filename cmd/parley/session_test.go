package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// piped runs a command whose input is a text.
func (c cli) piped(input string, args ...string) result {
	c.t.Helper()
	var out, err bytes.Buffer
	p := &program{args: args, in: strings.NewReader(input), out: &out, err: &err, getenv: func(name string) string { return c.env[name] }}
	status := p.run(c.t.Context())
	return result{status, out.String(), err.String()}
}

func (c cli) environment(data string) environment {
	c.t.Helper()
	var e environment
	if err := json.Unmarshal([]byte(c.ok("env", "--data", data, "--json")), &e); err != nil {
		c.t.Fatal(err)
	}
	return e
}

// Where nobody sits at a terminal, each line is said and answered in turn.
func TestAConversationInLines(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	_, _ = c.dev(data)
	e := c.environment(data)
	for input, want := range map[string]string{
		"one\n\n  two \nthrée": "one\ntwo\nthrée\n",
		"":                     "",
		"\n \n":                "",
	} {
		if r := c.piped(input, "chat", "--data", data); r != (result{0, want, ""}) {
			t.Errorf("%q: %+v", input, r)
		}
	}
	far := cli{t, map[string]string{"PARLEY_CHAT_API_URL": e.ChatURL}}
	if r := far.piped("near\nfar", "chat"); r != (result{0, "near\nfar\n", ""}) {
		t.Errorf("over an address: %+v", r)
	}
	r := c.piped("a\nb\n", "chat", "--data", data, "--json", "--conversation", "demo")
	var said []string
	for line := range strings.Lines(r.out) {
		var m chatMessage
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Error(err)
		}
		said = append(said, m.Payload["text"].(string))
	}
	if strings.Join(said, " ") != "a b" || r.status != 0 {
		t.Errorf("as JSON: %+v", r)
	}
	if r := c.piped("c\n", "chat", "--data", data, "--conversation", "demo"); r != (result{0, "c\n", ""}) {
		t.Errorf("in a conversation that goes on: %+v", r)
	}
}

// A line with which the bot fails is told of, and the next one is said.
func TestAConversationInLinesGoesOn(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	_, _ = c.dev(data)
	e := c.environment(data)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte("bad")) {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"id":"err_1","code":400,"type":"Runtime","message":"no coffee"}`)
		}
	}))
	t.Cleanup(s.Close)
	botID := newBotAt(t, e, s.URL)
	for input, want := range map[string]struct {
		status int
		says   []string
	}{
		"bad\nquiet\nbad": {3, []string{"no coffee", "said nothing", "no coffee", "3 of 3 lines"}},
		"quiet\nbad":      {4, []string{"said nothing", "no coffee", "2 of 2 lines"}},
	} {
		r := c.piped(input, "chat", "--data", data, "--bot", botID)
		lines := strings.Split(strings.TrimSpace(r.err), "\n")
		if r.status != want.status || len(lines) != len(want.says) {
			t.Fatalf("%q: %+v", input, r)
		}
		for i, says := range want.says {
			if !strings.Contains(lines[i], says) {
				t.Errorf("%q: line %d is %q, want %q", input, i, lines[i], says)
			}
		}
	}
}
