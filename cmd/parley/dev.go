package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"parley/internal/app"
)

func (p *program) dev() *cobra.Command {
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run a server for development, with an echo bot to talk to",
		Long: `Run a server for development. The first start makes a workspace, a personal
access token, the echo bot and a chat for it, and prints what there is to
paste; later starts with the same data directory print the same.

Unlike serve it keeps its token readable in DATA/credentials.json, and lets bots
live on this machine. Every setting is a flag or the variable in parentheses.`,
		Example: `  parley dev
  parley dev --addr 127.0.0.1:0 --data /tmp/parley`,
		Args: noArgs,
	}
	load := p.settings(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		cfg.Dev = true
		return p.runServer(cmd.Context(), cfg, func(ctx context.Context, a *app.App) error { return p.welcome(ctx, cfg, a) })
	}
	return c
}

// welcome prints what there is to paste.
func (p *program) welcome(ctx context.Context, cfg app.Config, a *app.App) error {
	return p.connect(ctx, cfg, false, func(ctx context.Context, conn *connection) error {
		e, err := conn.environment(ctx, cfg, "")
		if err != nil {
			return err
		}
		if host, _, err := net.SplitHostPort(a.Addr()); err == nil && !net.ParseIP(host).IsLoopback() {
			fmt.Fprintf(p.err, "parley: %s is reachable from other machines, and tokens travel there in clear; use parley dev only on a network you trust\n", a.Addr())
		}
		self := shellWord(os.Args[0])
		if strings.Contains(self, "go-build") {
			self = "go run ./cmd/parley"
		}
		flags := ""
		if cfg.Data != app.DefaultData {
			flags = " --data " + shellWord(cfg.Data)
		}
		return welcomeText.Execute(p.out, map[string]any{"e": e, "addr": a.Addr(), "data": cfg.Data, "self": self, "flags": flags})
	})
}

// The lines to paste carry their own values: they work in any shell, also in
// one that has other variables set.
var welcomeText = template.Must(template.New("").Funcs(template.FuncMap{"q": shellWord}).Parse(`
Parley is running. Ctrl-C stops it; the data is in {{.data}}.

  API         {{.e.APIURL}}      (documented at {{.e.APIURL}}/docs)
  chat        {{.e.ChatURL}}
  messaging   {{.e.MessagingURL}}
  token       {{.e.Token}}

Talk to the echo bot, in another terminal:

  {{.self}} chat{{.flags}} "hello"

or with curl:

  CHAT={{q .e.ChatURL}}
  KEY=$(curl -s $CHAT/users -H 'content-type: application/json' -d '{}' | sed 's/.*"key":"\([^"]*\)".*/\1/')
  CONV=$(curl -s $CHAT/conversations -H "x-user-key: $KEY" -H 'content-type: application/json' -d '{}' | sed 's/.*"id":"\([^"]*\)".*/\1/')
  curl -s $CHAT/messages -H "x-user-key: $KEY" -H 'content-type: application/json' -d '{"conversationId":"'$CONV'","payload":{"type":"text","text":"hello"}}'; echo
  curl -s $CHAT/conversations/$CONV/messages -H "x-user-key: $KEY"; echo

or with a single request to the Messaging API, for a backend of your own:

  curl -s {{q .e.MessagingURL}}'?wait=10' -H 'authorization: bearer {{.e.Token}}' -d '{"userId":"me","conversationId":"1","messageId":"'$(date +%s)'","type":"text","text":"hello","payload":{}}'; echo

Replies are in the answer for as long as ?wait says, and go to your response endpoint, each in a request. To set that, for
a start to "{{.self}} listen" in another terminal, which prints what it gets:

  curl -s -X PUT {{q .e.APIURL}}/v1/admin/bots/{{.e.BotID}} -H 'authorization: Bearer {{.e.Token}}' -H 'x-workspace-id: {{.e.WorkspaceID}}' -H 'x-multiple-integrations: true' -H 'content-type: application/json' -d '{"integrations":{"messaging":{"configuration":{"responseEndpointUrl":"http://127.0.0.1:7401/"}}}}'

Log the bp command in:

  bp login --api-url {{q .e.APIURL}} --token {{q .e.Token}} --workspace-id {{q .e.WorkspaceID}}

Point an existing bot here:

  export BP_API_URL={{q .e.APIURL}}
  export BP_TOKEN={{q .e.Token}}
  export BP_BOT_ID={{q .e.BotID}}      # the echo bot; put the id of your own here

`))

// shellWord quotes s only where a shell would not take it as it is.
func shellWord(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+=,", r))
	}) < 0 {
		return s
	}
	return shellQuote(s)
}
