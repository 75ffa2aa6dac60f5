package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"parley/internal/app"
)

// environment is what a program needs to work with a bot, in the order it is printed.
type environment struct {
	APIURL       string `json:"BP_API_URL"`
	Token        string `json:"BP_TOKEN"`
	WorkspaceID  string `json:"BP_WORKSPACE_ID"`
	BotID        string `json:"BP_BOT_ID"`
	ChatURL      string `json:"PARLEY_CHAT_API_URL,omitempty"`
	ChatKey      string `json:"PARLEY_CHAT_ENCRYPTION_KEY,omitempty"`
	MessagingURL string `json:"PARLEY_MESSAGING_URL,omitempty"`
}

func (p *program) env() *cobra.Command {
	var botID string
	var asJSON bool
	c := &cobra.Command{
		Use:   "env",
		Short: "Print what a program needs to talk to the server as a bot",
		Long: `Print what a program needs to talk to the server as a bot:

  BP_API_URL                   where the APIs are; official clients and SDKs read it
  BP_TOKEN                     the token of parley dev, or $PARLEY_TOKEN
  BP_WORKSPACE_ID, BP_BOT_ID   the bot and its workspace; the echo bot unless --bot names one
  PARLEY_CHAT_API_URL          the door of the bot's chat, for the official chat client
  PARLEY_CHAT_ENCRYPTION_KEY   what signs the user keys of that chat
  PARLEY_MESSAGING_URL         the door of the bot's Messaging API, for plain HTTP requests`,
		Example: `  eval "$(parley env)"
  parley env --bot bot_01… --json`,
		Args: noArgs,
	}
	load := p.settings(c, "data", "database-url", "master-key-file")
	c.Flags().StringVar(&botID, "bot", "", "`ID` of the bot (default: the echo bot of parley dev)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return p.connect(cmd.Context(), cfg, false, func(ctx context.Context, conn *connection) error {
			e, err := conn.environment(ctx, cfg, botID)
			if err != nil {
				return err
			}
			if asJSON {
				return p.writeJSON(e)
			}
			_, err = fmt.Fprint(p.out, e.exports())
			return err
		})
	}
	return c
}

// exports are the lines a shell evaluates.
func (e environment) exports() string {
	var b strings.Builder
	for _, v := range []struct{ name, value string }{
		{"BP_API_URL", e.APIURL}, {"BP_TOKEN", e.Token}, {"BP_WORKSPACE_ID", e.WorkspaceID}, {"BP_BOT_ID", e.BotID},
		{"PARLEY_CHAT_API_URL", e.ChatURL}, {"PARLEY_CHAT_ENCRYPTION_KEY", e.ChatKey},
		{"PARLEY_MESSAGING_URL", e.MessagingURL},
	} {
		if v.value != "" {
			fmt.Fprintf(&b, "export %s=%s\n", v.name, shellQuote(v.value))
		}
	}
	return b.String()
}

// shellQuote makes one word of s for any POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// installation is what a bot says of one of its integrations.
type installation struct {
	Name          string `json:"name"`
	Enabled       bool   `json:"enabled"`
	WebhookID     string `json:"webhookId"`
	Configuration struct {
		EncryptionKey string `json:"encryptionKey"`
	} `json:"configuration"`
}

// environment asks the server about a bot, "" for the one of parley dev.
func (c *connection) environment(ctx context.Context, cfg app.Config, botID string) (environment, error) {
	e := environment{APIURL: c.server.URL, Token: c.token, BotID: botID}
	if e.APIURL == "" {
		return e, fmt.Errorf("%w: %s; start one with parley dev --data %s, so that it has an address", app.ErrNoServer, cfg.Data, cfg.Data)
	}
	if botID == "" {
		var err error
		if e.BotID, err = devBot(cfg); err != nil {
			return e, err
		}
	}
	if e.Token == "" {
		return e, fmt.Errorf("no token is kept in %s; set %s to one that parley token create printed", cfg.Data, tokenEnv)
	}
	workspaceID, in, err := c.findBot(ctx, e.BotID)
	if err != nil {
		return e, err
	}
	e.WorkspaceID = workspaceID
	for _, alias := range slices.Sorted(maps.Keys(in)) {
		one := in[alias]
		door := e.APIURL + "/" + one.WebhookID
		switch {
		case !one.Enabled:
		case one.Name == "chat" && e.ChatURL == "":
			e.ChatURL = door
			if e.ChatKey, err = app.ChatKey(cfg, one.WebhookID, one.Configuration.EncryptionKey); err != nil {
				return e, err
			}
		case one.Name == "messaging" && e.MessagingURL == "":
			e.MessagingURL = door
		}
	}
	return e, nil
}

// devBot is the bot that parley dev has made.
func devBot(cfg app.Config) (string, error) {
	made, err := app.ReadCredentials(cfg.Data)
	if err != nil {
		return "", errors.New("name the bot with --bot ID: only a directory of parley dev has an echo bot of its own")
	}
	return made.BotID, nil
}

// findBot looks for a bot in every workspace that the token reaches.
func (c *connection) findBot(ctx context.Context, botID string) (workspaceID string, in map[string]installation, err error) {
	next := ""
	for {
		var list struct {
			Workspaces []struct {
				ID string `json:"id"`
			} `json:"workspaces"`
			Meta struct {
				NextToken string `json:"nextToken"`
			} `json:"meta"`
		}
		if err := c.call(ctx, "GET", "/v1/admin/workspaces?nextToken="+url.QueryEscape(next), nil, &list); err != nil {
			return "", nil, err
		}
		for _, w := range list.Workspaces {
			var found struct {
				Bot struct {
					Integrations map[string]installation `json:"integrations"`
				} `json:"bot"`
			}
			err := c.with("x-workspace-id", w.ID).with("x-multiple-integrations", "true").call(ctx, "GET", "/v1/admin/bots/"+url.PathEscape(botID), nil, &found)
			if err == nil {
				return w.ID, found.Bot.Integrations, nil
			}
			if !isType(err, "ResourceNotFound") && !isType(err, "Forbidden") {
				return "", nil, err
			}
		}
		if next = list.Meta.NextToken; next == "" {
			return "", nil, fmt.Errorf("bot %q doesn't exist, or the token does not reach it", botID)
		}
	}
}
