package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bot"
	"parley/internal/builtin/chatapi"
	"parley/internal/builtin/echobot"
	"parley/internal/catalog"
	"parley/internal/delivery"
	"parley/internal/messaging"
	"parley/internal/once"
	"parley/internal/outbound"
	"parley/internal/realtime"
	"parley/internal/signing"
	"parley/internal/sqldb"
	"parley/internal/timer"
	"parley/internal/workspace"
)

// parts are what a server consists of, each handed what it needs of the others.
type parts struct {
	*core
	outbound  *outbound.Client
	secrets   *signing.Store
	workspace *workspace.Service
	bot       *bot.Service
	catalog   *catalog.Service
	delivery  *delivery.Engine
	calls     *delivery.Pool // of what somebody waits for
	doors     *bot.Doors
	timers    *timer.Engine
	messaging *messaging.Service
	hub       *realtime.Hub
	chat      *chatapi.Service

	main, chats, messages *api.API
}

// build makes the parts. Some need each other: those reach the later one
// through p, which is complete before anything runs.
func build(c *core) (*parts, error) {
	p := &parts{core: c}
	p.outbound = outbound.New(c.cfg.Outbound())
	for _, make := range []func() error{
		p.makeTimers, p.makeSecrets, p.makeWorkspace, p.makeCatalog, p.makeBot, p.checkKey, p.makeDelivery, p.makeMessaging, p.makeHub, p.makeChat,
	} {
		if err := make(); err != nil {
			return nil, err
		}
	}
	p.main = api.New(api.Config{
		Name: "v1", Ops: p.cfg.Roles.here(slices.Concat(p.ops(), unbuilt(p.ops()))), Admit: p.gate().Admit,
		DB: c.db, Box: c.box, Log: c.log, Metrics: c.metrics, RateLimit: float64(c.cfg.RateLimit), Now: c.now,
	})
	p.chats = api.New(api.Config{
		Name: "chat", Prefix: chatapi.Prefix, Ops: p.cfg.Roles.here(p.chat.Ops()), Admit: p.chat.Admit,
		DB: c.db, Box: c.box, Log: c.log, Metrics: c.metrics, RateLimit: float64(c.cfg.RateLimit), Now: c.now,
	})
	var err error
	p.messages, err = p.newMessages()
	return p, err
}

// ops are the operations of all modules, in the order of the published documents.
func (p *parts) ops() []api.Op {
	return slices.Concat(p.messaging.Ops(), p.bot.RuntimeOps(), p.workspace.Ops(), p.bot.Ops(), p.catalog.Ops())
}

func (p *parts) gate() *auth.Gate {
	return &auth.Gate{Tokens: p.workspace, Directory: directory{p}, BotNow: directory{p}.BotNow, Now: p.now}
}

func (p *parts) makeSecrets() (err error) {
	p.secrets, err = signing.NewStore(signing.Config{DB: p.db, Bus: p.bus, Box: p.box, Now: p.now, MaxAge: p.maxAge})
	return err
}

func (p *parts) makeWorkspace() (err error) {
	p.workspace, err = workspace.New(workspace.Config{DB: p.db, Bus: p.bus, Secrets: p.secrets, Integrations: owned{p}, Bots: homes{p}, Now: p.now, Log: p.log, MaxAge: p.maxAge})
	return err
}

func (p *parts) makeCatalog() (err error) {
	p.catalog, err = catalog.New(catalog.Config{
		DB: p.db, Bus: p.bus, Box: p.box, Secrets: p.secrets, Directory: directory{p}, Workspaces: p.workspace, Installations: installedIn{p},
		Deleting: func(tx *sqldb.Tx, integrationID string) error {
			return p.workspace.ForgetIntegration(tx, integrationID)
		},
		// Where it runs may have changed: what waits for it is tried at once.
		Changed: func(integrationID string) {
			p.db.WriteSoon(func(tx *sqldb.Tx) error { return p.resetInstallations(tx, integrationID) }, nil)
		},
		Now: p.now, Log: p.log, MaxAge: p.maxAge,
	})
	return err
}

// resetInstallations closes the breakers of everybody who has a version installed.
func (p *parts) resetInstallations(tx *sqldb.Tx, integrationID string) error {
	all, err := p.bot.Installed(tx, integrationID)
	if err != nil {
		return err
	}
	for _, installationID := range all {
		for _, endpointID := range []string{bot.InstallationEndpoint(installationID), bot.RegistrationEndpoint(installationID)} {
			if err := p.delivery.Reset(tx, endpointID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *parts) makeBot() (err error) {
	p.bot, err = bot.New(bot.Config{
		DB: p.db, Bus: p.bus, Box: p.box, Secrets: p.secrets, Users: botUsers{p}, Recurring: botEvents{p}, Catalog: integrations{p}, PublicURL: p.url,
		Timers:  p.timers,
		Enqueue: func(tx *sqldb.Tx, l delivery.Lane) (int64, error) { return p.delivery.Enqueue(tx, l) },
		Deleting: func(tx *sqldb.Tx, botID string) error {
			return errors.Join(p.workspace.ForgetBot(tx, botID), p.messaging.BuryBot(tx, botID))
		},
		// Where a bot runs may have changed: what waits for it is tried at once.
		Changed: func(botID string) {
			p.db.WriteSoon(func(tx *sqldb.Tx) error { return p.delivery.Reset(tx, endpointOf(botID)) }, nil)
		},
		// So may the place that an installation tells of things.
		Ended: func(installationID string) {
			p.hub.End("inst:" + installationID)
			p.db.WriteSoon(func(tx *sqldb.Tx) error { return p.delivery.Reset(tx, bot.InstallationEndpoint(installationID)) }, nil)
		},
		Now: p.now, Log: p.log, MaxAge: p.maxAge,
	})
	return err
}

// checkKey refuses a master key that belongs to another database, before
// something new is sealed with it.
func (p *parts) checkKey() error {
	ctx := context.Background() // a read of one row, at the start
	botID, err := anyBot(ctx, p.db)
	if err != nil || botID == "" {
		return err
	}
	if _, err := p.bot.Definition(ctx, botID); err != nil {
		return fmt.Errorf("the master key in %s does not open what is sealed in the database, so it belongs to another one; put the right file there, it is in every backup: %w", p.cfg.MasterKeyPath(), err)
	}
	return nil
}

func (p *parts) makeDelivery() (err error) {
	i := newInvoker(p, p.outbound)
	p.calls = delivery.NewPool(i, callsAtATime, callsPerEndpoint)
	p.doors = bot.NewDoors(p.bot, p.calls.Call)
	p.delivery, err = delivery.New(delivery.Config{
		DB: p.db, Bus: p.bus, Source: source{p}, Invoker: i, Exclusive: p.exclusive, Elsewhere: !p.cfg.Roles.has(RoleDelivery), Home: p.home, WebhookPauses: p.cfg.webhookPauses,
		Metrics: p.metrics, Log: p.log, Now: p.now,
	})
	return err
}

func (p *parts) makeTimers() error {
	p.timers = timer.New(timer.Config{DB: p.db, Bus: p.bus, Now: p.now, Log: p.log})
	var errs []error
	for _, c := range p.timers.Collectors() {
		errs = append(errs, p.metrics.Register(c))
	}
	return errors.Join(errs...)
}

func (p *parts) makeMessaging() (err error) {
	p.messaging, err = messaging.New(messaging.Config{
		DB: p.db, Bus: p.bus, MaxAge: p.maxAge, Directory: newRules(p), Delivery: p.delivery, Timers: p.timers, Calls: p.calls, Actions: &actions{p, newAnswers(p.bus, p.now)},
		Sketch:      p.sketch,
		Words:       func(q sqldb.Q, c messaging.Caller, g *messaging.Signal) ([]byte, error) { return p.chat.Words(q, c, g) },
		Gone:        p.bot.Gone,
		Listeners:   func(g *messaging.Signal) { p.chat.Notify(g) },
		Ended:       func(group string) { p.hub.End(group) },
		DeliveryLog: p.cfg.DeliveryLog, Now: p.now, Log: p.log,
	})
	return err
}

func (p *parts) makeHub() (err error) {
	p.hub, err = realtime.New(realtime.Config{Bus: p.bus, Log: signals{p}, Logger: p.log, Metrics: p.metrics, Now: p.now})
	return err
}

func (p *parts) makeChat() (err error) {
	p.chat, err = chatapi.New(chatapi.Config{
		DB: p.db, Messaging: p.messaging, Installations: doors{p}, Box: p.box, Hub: p.hub, Now: p.now, Log: p.log,
	})
	return err
}

// run starts what runs for long and is of this server's roles, each in a
// goroutine that the group waits for. A part that ends with an error brings the
// server down through failed.
func (p *parts) run(ctx context.Context, failed context.CancelCauseFunc) *errgroup.Group {
	var g errgroup.Group
	for _, part := range p.works() {
		if !p.cfg.Roles.has(part.role) {
			continue
		}
		g.Go(func() error {
			err := part.run(ctx)
			if err != nil && ctx.Err() == nil {
				failed(err)
			}
			return nil
		})
	}
	return &g
}

// sweepKeys removes idempotency keys that have had their day, a chunk at a time.
func (p *parts) sweepKeys(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		n, err := once.Sweep(ctx, p.db, p.now())
		if err != nil && ctx.Err() == nil {
			p.log.Warn("remove old idempotency keys", "err", err)
		}
		if n > 0 && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// close ends what does not run but holds something.
func (p *parts) close() error {
	p.messaging.Close()
	p.bot.Close()
	p.catalog.Close()
	p.workspace.Close()
	p.secrets.Close()
	p.outbound.Close()
	return p.core.close()
}

// handler serves everything but health and metrics.
func (p *parts) handler() http.Handler { return newRoutes(p) }

// echo is the built-in bot of that name.
func (p *parts) echo() echobot.Sender { return speaker{p} }
