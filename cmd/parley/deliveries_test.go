package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"
)

func TestDeliveries(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	_, stop := c.dev(data)
	var e environment
	if err := json.Unmarshal([]byte(c.ok("env", "--data", data, "--json")), &e); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		return c.ok(append([]string{"deliveries", args[0], "--data", data}, args[1:]...)...)
	}
	c.ok("chat", "--data", data, "hello")
	table := run("list", "--kind", "bot")
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "ID  ") || !strings.Contains(lines[1], "bot          message_created        processed  1") {
		t.Errorf("deliveries list prints\n%s", table)
	}

	// A bot that refuses, with a reason that would steer a terminal, and later does not.
	var well atomic.Bool
	got := make(chan string, 100)
	bot := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if well.Load() {
			got <- r.Header.Get("webhook-id")
			_, _ = io.WriteString(w, "{}")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(400)
		_, _ = fmt.Fprintf(w, `{"id":"err_1","code":400,"type":"Runtime","message":"no coffee \u001b[2J%s"}`, strings.Repeat("ä", 200))
	}))
	t.Cleanup(bot.Close)
	botID := newBotAt(t, e, bot.URL)
	for range 3 {
		c.run("chat", "--data", data, "--bot", botID, "hello")
	}
	table = run("list", "--bot", botID, "--status", "failed")
	if strings.Count(table, "evt_") != 3 || !strings.Contains(table, "\n  no coffee [2Jä") || strings.Contains(table, "\x1b") {
		t.Errorf("deliveries list prints\n%s", table)
	}
	for line := range strings.Lines(table) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > wide {
			t.Errorf("a line has %d characters: %s", n, line)
		}
	}
	var list []delivered
	if err := json.Unmarshal([]byte(run("list", "--bot", botID, "--json", "--since", "1h")), &list); err != nil || len(list) != 3 || list[0].Status != "failed" || list[0].Kind != "bot" || list[0].AttemptCount != 1 {
		t.Fatalf("as JSON they are %+v (%v)", list, err)
	}
	if r := c.run("deliveries", "list", "--data", data, "--bot", botID, "--limit", "2"); strings.Count(r.out, "evt_") != 2 || !strings.Contains(r.err, "There are more") {
		t.Errorf("with a limit: %+v", r)
	}
	if r := c.run("deliveries", "list", "--data", data, "--bot", botID, "--dead"); r.status != 0 || r.out != "" || !strings.Contains(r.err, "no deliveries") {
		t.Errorf("without any: %+v", r)
	}
	shown := run("show", "--bot", botID, list[0].ID)
	for _, want := range []string{
		list[0].ID + " is failed after 1 attempt\n", "  event         message_created\n", "\nPOST " + bot.URL, "\nwebhook-id: " + list[0].ID + "\n", "\nx-bp-configuration: ***\n",
		`"type": "message_created"`, "\nattempt 1 at ", ": final, status 400, in ", "  answered application/json\n  {\"id\":\"err_1\"",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is missing from\n%s", want, shown)
		}
	}
	var full shownDelivery
	if err := json.Unmarshal([]byte(run("show", "--bot", botID, "--json", list[0].ID)), &full); err != nil || full.Request == nil || len(full.Attempts) != 1 || full.Attempts[0].Response == nil {
		t.Errorf("as JSON it is %+v (%v)", full, err)
	}

	well.Store(true)
	hears := func(ids ...string) {
		t.Helper()
		for _, want := range ids {
			select {
			case id := <-got:
				if id != want {
					t.Errorf("the bot got %s, want %s", id, want)
				}
			case <-time.After(patience):
				t.Fatal("the bot got nothing")
			}
		}
	}
	if out := run("replay", "--bot", botID, list[1].ID); out != "1 replayed\n" {
		t.Errorf("replay prints %q", out)
	}
	hears(list[1].ID)
	var done replayed
	if err := json.Unmarshal([]byte(run("replay", "--bot", botID, "--json", "--since", "1h", "--status", "failed")), &done); err != nil || done.Replayed != 2 || len(done.LeftOut) != 0 {
		t.Errorf("replay of a range gives %+v (%v)", done, err)
	}
	for range 2 {
		select {
		case id := <-got: // of two conversations, in no order
			if id != list[0].ID && id != list[2].ID {
				t.Errorf("the bot got %s", id)
			}
		case <-time.After(patience):
			t.Fatal("the bot got nothing")
		}
	}
	for late := time.Now().Add(patience); run("list", "--bot", botID, "--status", "pending", "--json") != "[]\n"; {
		if time.Now().After(late) {
			t.Fatal("the deliveries stay pending")
		}
	}
	if out := run("replay", "--bot", botID, "--dead"); out != "0 replayed\n" {
		t.Errorf("replay --dead prints %q", out)
	}

	unknown := "evt_01M7WG5B4NG636278DN5Q0FC0Z"
	none := filepath.Join(t.TempDir(), "none")
	wrong := func(status int, says string, args ...string) {
		t.Helper()
		if r := c.run(append([]string{"deliveries"}, args...)...); r.status != status || !strings.Contains(r.err, says) || r.out != "" {
			t.Errorf("parley deliveries %s: status %d, %q, %q, want %d and %q", strings.Join(args, " "), r.status, r.out, r.err, status, says)
		}
	}
	wrong(1, "doesn't exist", "show", "--data", data, unknown)
	wrong(1, "doesn't exist", "show", "--data", data, "--bot", "bot_01M7WG5B4NG636278DN5Q0FC0Z", unknown)
	wrong(1, "doesn't exist", "replay", "--data", data, unknown)
	wrong(1, "replayed before it: 1", "replay", "--data", data, "--bot", botID, list[0].ID, unknown)
	hears(list[0].ID)
	wrong(1, "status", "list", "--data", data, "--status", "lost")
	wrong(1, "after must not be later than before", "list", "--data", data, "--since", "1h", "--until", "2h")
	wrong(1, "name the bot with --bot ID", "list", "--data", none)
	wrong(2, "takes one delivery id", "show", "--data", data)
	wrong(2, "takes no argument", "list", "--data", data, "x")
	wrong(2, "--limit -1", "list", "--data", data, "--limit", "-1")
	wrong(2, `--since "yesterday" is neither`, "list", "--data", data, "--since", "yesterday")
	wrong(2, `--until "-1h" is neither`, "list", "--data", data, "--until", "-1h")
	wrong(2, "say what to replay", "replay", "--data", data)
	wrong(2, "say what to replay", "replay", "--data", data, "--until", "1h")
	wrong(2, "not both", "replay", "--data", data, "--dead", unknown)

	stop() // what was delivered can still be read, and nothing is delivered
	if table := run("list", "--bot", botID); strings.Count(table, "evt_") != 3 {
		t.Errorf("without a server deliveries list prints\n%s", table)
	}
	wrong(1, "no server uses "+data, "replay", "--data", data, "--dead")
}
