package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

// signingSecret signs what a bot or an integration is sent.
type signingSecret struct {
	Secret    string `json:"secret"`
	CreatedAt string `json:"createdAt"`
	RetiresAt string `json:"retiresAt,omitempty"`
}

type signingSecrets struct {
	Secrets []signingSecret `json:"signingSecrets"`
}

const signingPath = "/v1/parley/signing-secrets"

// signed says whose secrets are meant.
type signed struct{ botID, integrationID string }

func (p *program) secret() *cobra.Command {
	c := &cobra.Command{
		Use:   "secret",
		Short: "Show and rotate the secrets that sign what bots and integrations are sent",
		Long: `Show and rotate the secrets that sign what bots and integrations are sent. Every
such request carries the headers of Standard Webhooks; its receiver verifies
them with the secret shown here, and libraries for that exist in most languages.

A bot's secret also signs its webhooks where these are set up without a
webhookSecret of their own. An integration has one secret for all its versions.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.secretShow(), p.secretRotate())
	return c
}

// secretCommand adds what both have in common.
func (p *program) secretCommand(c *cobra.Command, run func(ctx context.Context, conn *connection, of signed) (signingSecrets, error)) *cobra.Command {
	var of signed
	var asJSON bool
	load := p.settings(c, "data", "database-url", "master-key-file")
	c.Flags().StringVar(&of.botID, "bot", "", "`ID` of the bot (default: the echo bot of parley dev)")
	c.Flags().StringVar(&of.integrationID, "integration", "", "`ID` of a version of the integration, instead of a bot")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if of.botID != "" && of.integrationID != "" {
			return usage("--bot and --integration exclude each other")
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		if of.botID == "" && of.integrationID == "" {
			if of.botID, err = devBot(cfg); err != nil {
				return err
			}
		}
		return p.connect(cmd.Context(), cfg, false, func(ctx context.Context, conn *connection) error {
			list, err := run(ctx, conn, of)
			if err != nil {
				return err
			}
			if asJSON {
				return p.writeJSON(list.Secrets)
			}
			return p.printSecrets(list.Secrets)
		})
	}
	return c
}

// printSecrets prints the newest first, alone on its line.
func (p *program) printSecrets(list []signingSecret) error {
	for _, one := range list {
		line := one.Secret
		if one.RetiresAt != "" {
			line += "\tsigns along until " + one.RetiresAt
		}
		if _, err := fmt.Fprintln(p.out, line); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) secretShow() *cobra.Command {
	return p.secretCommand(&cobra.Command{
		Use:   "show",
		Short: "Show the secrets in use, the newest first",
		Example: `  parley secret show --bot bot_01…
  parley secret show --integration intver_01… --json`,
		Args: noArgs,
	}, func(ctx context.Context, conn *connection, of signed) (out signingSecrets, err error) {
		err = conn.call(ctx, "GET", signingPath+"?"+of.query(), nil, &out)
		return out, err
	})
}

func (s signed) query() string {
	if s.integrationID != "" {
		return "integrationId=" + url.QueryEscape(s.integrationID)
	}
	return "botId=" + url.QueryEscape(s.botID)
}

func (p *program) secretRotate() *cobra.Command {
	var keep time.Duration
	c := p.secretCommand(&cobra.Command{
		Use:   "rotate",
		Short: "Make a new secret; the one before signs along for a while",
		Long: `Make a new secret and print it. The one before signs along for a while, so that
receivers can be changed one after the other: each accepts a request that one of
the secrets it knows has signed. --keep-for 0s replaces a secret that has leaked.`,
		Example: `  parley secret rotate --bot bot_01… --keep-for 72h`,
		Args:    noArgs,
	}, func(ctx context.Context, conn *connection, of signed) (out signingSecrets, err error) {
		if keep < 0 || keep%time.Second != 0 {
			return out, usage("--keep-for %s is not a number of whole seconds, 0 or more", keep)
		}
		in := map[string]any{"keepFor": int64(keep.Seconds())}
		if of.integrationID != "" {
			in["integrationId"] = of.integrationID
		} else {
			in["botId"] = of.botID
		}
		err = conn.call(ctx, "POST", signingPath+"/rotate", in, &out)
		return out, err
	})
	c.Flags().DurationVar(&keep, "keep-for", 24*time.Hour, "how long the secret before signs along")
	return c
}
