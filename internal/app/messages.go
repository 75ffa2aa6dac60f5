package app

import (
	"context"

	"parley/internal/api"
	"parley/internal/bot"
	"parley/internal/builtin/chatapi"
	"parley/internal/builtin/messagingapi"
	"parley/internal/catalog"
	"parley/internal/endpoint"
)

// What the built-in integration messaging is handed of the other parts.

// newMessages makes the API at the doors of messaging.
func (p *parts) newMessages() (*api.API, error) {
	s, err := messagingapi.New(messagingapi.Config{DB: p.db, Messaging: p.messaging, Installations: messageDoors{p}, Enter: p.gate().Enter})
	if err != nil {
		return nil, err
	}
	return api.New(api.Config{
		Name: messagingapi.Name, Prefix: messagingapi.Prefix, Ops: p.cfg.Roles.here(s.Ops()), Admit: s.Admit,
		DB: p.db, Box: p.box, Log: p.log, Metrics: p.metrics, RateLimit: float64(p.cfg.RateLimit), Now: p.now,
	}), nil
}

// messageDoors is messagingapi.Installations.
type messageDoors struct{ p *parts }

func (d messageDoors) ByWebhook(ctx context.Context, webhookID string) (*messagingapi.Installation, error) {
	in, b, err := d.p.bot.ByWebhook(ctx, webhookID)
	if in == nil || err != nil {
		return nil, err
	}
	c, err := messagingapi.ReadConfiguration(in.Configuration)
	return &messagingapi.Installation{Installation: in.Installation, BotID: b.ID, Configuration: c}, err
}

// tellMessages carries out the operations for installations of messaging.
func tellMessages(client endpoint.Client) brought {
	return func(ctx context.Context, in *bot.Installation, op endpoint.Operation) (endpoint.Answer, error) {
		c, err := messagingapi.ReadConfiguration(in.Configuration)
		if err != nil {
			return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Final, Err: err}
		}
		return messagingapi.NewEndpoint(client, c).Invoke(ctx, op)
	}
}

// check is bot.Integration.Check: what the schema of an integration asks, and
// what one that Parley brings along asks besides.
func (p *parts) check(d *catalog.Integration) func(configurationType string, configuration api.Object) error {
	ofBuiltin := map[string]func(endpoint.Client, api.Object) error{
		chatapi.Name: chatapi.CheckConfiguration, messagingapi.Name: messagingapi.CheckConfiguration,
	}[d.Name]
	if !d.Builtin || ofBuiltin == nil {
		return d.CheckConfiguration
	}
	return func(configurationType string, configuration api.Object) error {
		if err := d.CheckConfiguration(configurationType, configuration); err != nil {
			return err
		}
		return ofBuiltin(p.outbound, configuration)
	}
}
