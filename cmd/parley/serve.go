package main

import (
	"context"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"parley/internal/app"
)

func (p *program) serve() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server. It makes no workspace, token or bot by itself, and it does not
start with a configuration that is insecure or contradicts itself; it then says
what is wrong. Every setting is a flag or the variable in parentheses.

Make the first token before the first start: parley token create.`,
		Example: `  parley serve --data /var/lib/parley --public-url https://bots.example.com --trusted-proxy 127.0.0.1
  parley serve --addr :443 --tls-cert cert.pem --tls-key key.pem --public-url https://bots.example.com`,
		Args: noArgs,
	}
	load := p.settings(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return p.runServer(cmd.Context(), cfg, func(context.Context, *app.App) error { return nil })
	}
	return c
}

// impatient is how soon after the first signal a second one counts.
const impatient = 500 * time.Millisecond

// runServer runs a server until a signal asks it to stop. A second signal ends
// the process at once.
func (p *program) runServer(ctx context.Context, cfg app.Config, ready func(context.Context, *app.App) error) error {
	cfg.LogTo = p.err
	if err := cfg.Check(); err != nil {
		return &exitError{exitUsage, err}
	}
	ctx, release := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer release()
	// The next signal has its usual effect, but not the same one twice: some
	// tools signal a process and its group.
	context.AfterFunc(ctx, func() { time.AfterFunc(impatient, release) })
	a, err := app.New(ctx, cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error {
		tendHeap(ctx)
		return nil
	})
	g.Go(func() error {
		defer cancel(nil)
		return a.Run(ctx)
	})
	g.Go(func() error {
		select {
		case <-a.Ready():
			err := ready(running, a)
			if ctx.Err() != nil {
				return nil // somebody stopped the server while it greeted
			}
			if err != nil {
				cancel(err)
			}
			return err
		case <-ctx.Done():
			return nil
		}
	})
	return g.Wait()
}
