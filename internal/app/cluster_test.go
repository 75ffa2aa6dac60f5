package app

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/internal/bus/natstest"
	"parley/internal/sqldb/sqldbtest"
)

// nodes starts n servers on one PostgreSQL database that reach each other over NATS.
func nodes(t *testing.T, n int) (all []*server, wire *natstest.Server) {
	t.Helper()
	return nodesWith(t, slices.Repeat([]Roles{allRoles}, n)...)
}

// nodesWith is nodes, each with roles of its own.
func nodesWith(t *testing.T, roles ...Roles) (all []*server, wire *natstest.Server) {
	t.Helper()
	sqldbtest.NeedsPostgres(t)
	database, wire := sqldbtest.PostgresURL(t), natstest.Start(t)
	key := filepath.Join(t.TempDir(), "master.key")
	var secret [32]byte
	rand.Read(secret[:])
	must(t, os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString(secret[:])+"\n"), 0o600))
	for _, has := range roles {
		all = append(all, start(t, func(c *Config) {
			c.Roles, c.DatabaseURL, c.NATSURL, c.MasterKeyFile, c.PublicURL = has, database, wire.URL, key, "http://127.0.0.1:1"
		}))
	}
	return all, wire
}

// listen reads the signals of a conversation until the test ends.
func (s *server) listen(path, conversation string, header map[string]string) <-chan string {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), "GET", s.local()+path+"/conversations/"+conversation+"/listen", nil)
	must(s.t, err)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	must(s.t, err)
	if resp.StatusCode != 200 {
		s.t.Fatalf("listenConversation answers %d", resp.StatusCode)
	}
	got := make(chan string, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(got)
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && data != "ping" {
				got <- data
			}
		}
	}()
	s.t.Cleanup(func() { resp.Body.Close(); <-done })
	return got
}

// nextSignal waits for the next signal.
func nextSignal(t *testing.T, heard <-chan string, text, from string) {
	t.Helper()
	select {
	case signal, ok := <-heard:
		if !ok || !strings.Contains(signal, text) || !strings.Contains(signal, from) {
			t.Fatalf("heard %q, want %q with %s", signal, text, from)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%q with %s is not heard", text, from)
	}
}

const (
	fromGuest = `"isBot":false`
	fromBot   = `"isBot":true`
)

// A conversation is at home on every server: it is written here, answered by a
// bot whose events any of them delivers, and heard there.
func TestServersShareAConversation(t *testing.T) {
	t.Parallel()
	all, _ := nodes(t, 3)
	creds, err := ReadCredentials(all[0].cfg.Data)
	must(t, err)
	door := all[0].door(creds.BotID)
	v := all[0].visit(door)
	heard := all[2].listen(door, v.conversation, v.header)
	for n := range 20 {
		at, text := *v, fmt.Sprint("hello ", n)
		at.server = all[n%3]
		at.say(text)
		nextSignal(t, heard, text, fromGuest)
		nextSignal(t, heard, text, fromBot)
	}
}

// What is changed at one server counts at the others within the second for
// which they believe what they have read.
func TestServersHearOfChanges(t *testing.T) {
	t.Parallel()
	all, _ := nodes(t, 2)
	a, b := all[0], all[1]
	within := func(what string, changed func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !changed(); {
			if time.Now().After(end) {
				t.Fatalf("%s is not known to the other server", what)
			}
		}
	}
	var made struct{ PAT struct{ ID, Value string } }
	if code := a.call("POST", "/v1/admin/account/pats", a.as(""), map[string]any{"note": "short-lived"}, &made); code != 200 {
		t.Fatalf("createPersonalAccessToken answers %d", code)
	}
	mine := map[string]string{"Authorization": "Bearer " + made.PAT.Value}
	within("a new token", func() bool { return b.call("GET", "/v1/admin/account/me", mine, nil, nil) == 200 })
	if code := a.call("DELETE", "/v1/admin/account/pats/"+made.PAT.ID, a.as(""), nil, nil); code != 200 {
		t.Fatalf("deletePersonalAccessToken answers %d", code)
	}
	within("a revoked token", func() bool { return b.call("GET", "/v1/admin/account/me", mine, nil, nil) == 401 })

	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	t.Cleanup(there.Close)
	botID, door := a.installed(there.URL, patient)
	within("a new door", func() bool { code, _ := b.raw("POST", door, nil, map[string]any{}); return code == 200 })
	off := map[string]any{"integrations": map[string]any{"hooky": map[string]any{"enabled": false}}}
	if code := a.call("PUT", "/v1/admin/bots/"+botID, a.as(""), off, nil); code != 200 {
		t.Fatalf("updateBot answers %d", code)
	}
	within("a closed door", func() bool { code, _ := b.raw("POST", door, nil, map[string]any{}); return code == 403 })
}

// Without the NATS servers everything still arrives, late.
func TestServersWithoutTheBus(t *testing.T) {
	t.Parallel()
	all, wire := nodes(t, 2)
	creds, err := ReadCredentials(all[0].cfg.Data)
	must(t, err)
	door := all[0].door(creds.BotID)
	v := all[0].visit(door)
	heard := all[1].listen(door, v.conversation, v.header)
	wire.Stop()
	v.say("is anybody there?")
	nextSignal(t, heard, "is anybody there?", fromGuest)
	nextSignal(t, heard, "is anybody there?", fromBot)
	if code, _ := all[1].raw("GET", "/readyz", nil, nil); code != 200 {
		t.Errorf("/readyz answers %d", code)
	}
}
