package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecrets(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	_, stop := c.dev(data)
	var e environment
	if err := json.Unmarshal([]byte(c.ok("env", "--data", data, "--json")), &e); err != nil {
		t.Fatal(err)
	}
	first := c.ok("secret", "show", "--data", data)
	if !strings.HasPrefix(first, "whsec_") || strings.Count(first, "\n") != 1 || c.ok("secret", "show", "--data", data, "--bot", e.BotID) != first {
		t.Errorf("the echo bot's secrets are %q", first)
	}
	lines := strings.Split(c.ok("secret", "rotate", "--data", data, "--keep-for", "90s"), "\n")
	if len(lines) != 3 || lines[0] == strings.TrimSpace(first) || !strings.HasPrefix(lines[1], strings.TrimSpace(first)+"\tsigns along until 2") {
		t.Errorf("after the rotation they are %q", lines)
	}
	stop() // and without a server
	var list []signingSecret
	if err := json.Unmarshal([]byte(c.ok("secret", "show", "--data", data, "--json")), &list); err != nil || len(list) != 2 || list[0].Secret != lines[0] || list[1].RetiresAt == "" || list[0].CreatedAt <= list[1].CreatedAt {
		t.Errorf("as JSON they are %+v (%v)", list, err)
	}
	at := c.ok("secret", "rotate", "--data", data, "--bot", e.BotID, "--keep-for", "0s")
	if strings.Count(at, "\n") != 1 || strings.Contains(at, lines[0]) {
		t.Errorf("replaced at once they are %q", at)
	}

	none := filepath.Join(t.TempDir(), "none")
	for _, one := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"secret", "show", "--data", data, "--bot", e.BotID, "--integration", "intver_01"}, 2, "exclude each other"},
		{[]string{"secret", "show", "--data", data, "--bot", "bella"}, 1, "The provided UUID is invalid"},
		{[]string{"secret", "show", "--data", data, "--bot", "bot_01M7WG5B4NG636278DN5Q0FC0Z"}, 1, "doesn't exist"},
		{[]string{"secret", "rotate", "--data", data, "--integration", "intver_01M7WG5B4NG636278DN5Q0FC0Z"}, 1, "doesn't exist"},
		{[]string{"secret", "rotate", "--data", data, "--keep-for", "1.5s"}, 2, "whole seconds"},
		{[]string{"secret", "rotate", "--data", data, "--keep-for", "-1s"}, 2, "whole seconds"},
		{[]string{"secret", "rotate", "--data", data, "--keep-for", "1000h"}, 1, "keepFor"},
		{[]string{"secret", "show", "--data", none}, 1, "name the bot with --bot ID"},
		{[]string{"secret", "show", "x"}, 2, "takes no argument"},
	} {
		if r := c.run(one.args...); r.status != one.status || !strings.Contains(r.err, one.says) || r.out != "" {
			t.Errorf("parley %s: status %d, %q, %q", strings.Join(one.args, " "), r.status, r.out, r.err)
		}
	}
}
