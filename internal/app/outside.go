package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bot"
	"parley/internal/builtin/chatapi"
	"parley/internal/builtin/messagingapi"
	"parley/internal/bus"
	"parley/internal/catalog"
	"parley/internal/delivery"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/messaging"
	"parley/internal/signing"
	"parley/internal/sqldb"
)

// What runs outside Parley and is called while somebody waits has places of its
// own, apart from those of events: a bot whose handlers all wait for actions
// would otherwise wait for itself.
const (
	callsAtATime     = 256
	callsPerEndpoint = 64
)

// webhookLimit is how long the place may take that an integration which Parley
// brings along hands something to. It has nothing to do but to take it.
const webhookLimit = 30 * time.Second

// brought carries out an operation for an installation of an integration that
// Parley brings along.
type brought func(ctx context.Context, in *bot.Installation, op endpoint.Operation) (endpoint.Answer, error)

// broughtAlong are the integrations that deliveries reach in Go code, by name.
// What they send goes out through client.
func (p *parts) broughtAlong(client endpoint.Client) map[string]brought {
	return map[string]brought{messagingapi.Name: tellMessages(client), chatapi.Name: tellSignals(client)}
}

// tellSignals carries out the operations for installations of chat.
func tellSignals(client endpoint.Client) brought {
	return func(ctx context.Context, in *bot.Installation, op endpoint.Operation) (endpoint.Answer, error) {
		return chatapi.WebhookOf(in.Configuration).Endpoint(client).Invoke(ctx, op)
	}
}

// signalled is bot.Integration.Signals.
func signalled(d *catalog.Integration) func(configuration api.Object) bool {
	if !d.Builtin || d.Name != chatapi.Name {
		return nil
	}
	return func(configuration api.Object) bool { return chatapi.WebhookOf(configuration).URL != "" }
}

// installation calls an integration for one of its installations.
func (i *invoker) installation(ctx context.Context, installationID string, op endpoint.Operation) (endpoint.Answer, error) {
	in, b, err := i.p.bot.Installation(ctx, installationID)
	if err != nil {
		return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Unreachable, Err: err}
	}
	if in == nil {
		return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Final, Err: errors.New("the bot was deleted")}
	}
	d, err := i.p.catalog.Lookup(ctx, in.IntegrationID)
	switch {
	case err != nil:
		return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Unreachable, Err: err}
	case d == nil:
		return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Final, Err: errors.New("this version of the integration was deleted")}
	}
	if op.Signer, err = i.p.signer(ctx, d, in); err != nil {
		return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Unreachable, Err: err}
	}
	switch {
	case d.Builtin:
		invoke := i.brought[d.Name]
		if invoke == nil {
			return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Final, Err: fmt.Errorf("the integration %q takes no deliveries in this version of Parley", d.Name)}
		}
		return invoke(ctx, in, op)
	case d.URL == "":
		return nowhere("the integration has no url yet; updateIntegration sets one").Invoke(ctx, op)
	}
	op.Header = installationHeader(in, b, op)
	return endpoint.NewHTTP(d.URL, i.client).Invoke(ctx, op)
}

// signer finds what signs for an installation: the secret of its integration, or
// for one that Parley brings along the webhookSecret it is set up with, and the
// bot's own where there is none.
func (p *parts) signer(ctx context.Context, d *catalog.Integration, in *bot.Installation) (*signing.Signer, error) {
	if !d.Builtin {
		return p.secrets.Signer(ctx, d.Family())
	}
	if secret, _ := in.Configuration.Member("webhookSecret").Text(); secret != "" {
		return signing.New(p.now, signing.Split(secret)...), nil
	}
	return p.secrets.Signer(ctx, in.BotID)
}

func installationHeader(in *bot.Installation, b *auth.Bot, op endpoint.Operation) http.Header {
	h := endpoint.IntegrationCall{
		BotID: b.ID, BotUserID: b.ID, IntegrationID: in.IntegrationID, Alias: in.Alias, WebhookID: in.WebhookID, Operation: op.Name, Type: op.Type,
		ConfigurationType: in.ConfigurationType, Configuration: in.Configuration, EventID: op.Subject,
	}.Header()
	for name, values := range op.Header {
		h[name] = values
	}
	return h
}

// installationLimit is how long a call to an installation may take.
func (i *invoker) installationLimit(ctx context.Context, installationID string) time.Duration {
	in, _, err := i.p.bot.Installation(ctx, installationID)
	if err != nil || in == nil {
		return defaultLimit
	}
	d, err := i.p.catalog.Lookup(ctx, in.IntegrationID)
	switch {
	case err != nil || d == nil:
		return defaultLimit
	case d.Builtin:
		return cmp.Or(i.p.cfg.webhookLimit, webhookLimit)
	case d.Limit() == 0:
		return defaultLimit
	}
	return d.Limit()
}

// actions is messaging.Actions: those of bots and of what is installed in them.
type actions struct {
	p     *parts
	cache *answers
}

// Act implements messaging.Actions.
func (a *actions) Act(ctx context.Context, botID string, in *auth.Installation, action string, input api.Object) (messaging.Acted, error) {
	switch {
	case in == nil:
		output, err := a.own(ctx, botID, action, input)
		return messaging.Acted{Output: output}, err
	case in.Outside:
		return a.outside(ctx, in, action, input)
	case in.IntegrationName == messagingapi.Name:
		return messaging.Acted{}, fault.InvalidPayload.New("the integration %s has no actions", messagingapi.Name)
	}
	return a.p.chat.Act(ctx, botID, in.ID, action, input)
}

// own performs an action of the bot itself.
func (a *actions) own(ctx context.Context, botID, action string, input api.Object) (api.Object, error) {
	d, err := a.p.bot.Definition(ctx, botID)
	if err != nil || d == nil {
		return nil, errors.Join(err, fault.Forbidden.New("the bot no longer exists"))
	}
	if err := d.CheckInput(action, input); err != nil {
		return nil, err
	}
	output, err := a.call(ctx, endpointOf(botID), action, input)
	if err != nil {
		return nil, err
	}
	return output, d.CheckOutput(action, output)
}

// outside performs an action of an integration that runs outside Parley.
func (a *actions) outside(ctx context.Context, in *auth.Installation, action string, input api.Object) (messaging.Acted, error) {
	d, err := a.p.catalog.Lookup(ctx, in.IntegrationID)
	switch {
	case err != nil:
		return messaging.Acted{}, err
	case d == nil:
		return messaging.Acted{}, fault.ReferenceNotFound.New("version %s of the integration %q was deleted; install another one", in.Version, in.IntegrationName)
	}
	if err := d.ValidateInput(action, input); err != nil {
		return messaging.Acted{}, err
	}
	var key answerKey
	if d.Cacheable(action) {
		full, _, err := a.p.bot.Installation(ctx, in.ID)
		if err != nil || full == nil {
			return messaging.Acted{}, err
		}
		key = keyOf(full, action, input)
		if output := a.cache.get(key); output != nil {
			return messaging.Acted{Output: output, Cached: true}, nil
		}
	}
	output, err := a.call(ctx, bot.InstallationEndpoint(in.ID), action, input)
	if err != nil {
		return messaging.Acted{}, err
	}
	if err := d.ValidateOutput(action, output); err != nil {
		return messaging.Acted{}, err
	}
	if d.Cacheable(action) {
		a.cache.put(key, output)
	}
	return messaging.Acted{Output: output}, nil
}

func (a *actions) call(ctx context.Context, endpointID, action string, input api.Object) (api.Object, error) {
	answer, err := a.p.calls.Call(ctx, endpointID, endpoint.Operation{Name: "action_triggered", Body: endpoint.ActionTriggered(action, input)})
	if errors.Is(err, delivery.ErrFull) {
		return nil, fault.RateLimited.New("too many calls wait for the place that performs %q; try again in a moment", action)
	}
	output, err := endpoint.ActionOutput(answer, err)
	return api.Object(output), err
}

// answers keeps what cacheable actions answered, for a while. Servers tell each
// other, so that a client gets the same answer from each of them.
type answers struct {
	bus bus.Bus
	now func() time.Time

	mu   sync.Mutex
	kept map[answerKey]answered
}

const answersTopic = "answers"

// newAnswers listens to the bus for as long as that is open.
func newAnswers(b bus.Bus, now func() time.Time) *answers {
	c := &answers{bus: b, now: now}
	b.Subscribe(answersTopic, func(data []byte) {
		if len(data) > len(answerKey{}) {
			c.keep(answerKey(data[:len(answerKey{})]), api.Object(data[len(answerKey{}):]))
		}
	})
	return c
}

type answered struct {
	output api.Object
	until  time.Time
}

const (
	answerLife  = 5 * time.Minute
	maxAnswers  = 2_000
	maxAnswered = 16 << 10 // bytes; larger ones are asked for each time
)

// answerKey is an installation as it is set up now, an action and its input.
type answerKey [sha256.Size]byte

func keyOf(in *bot.Installation, action string, input api.Object) answerKey {
	return sha256.Sum256([]byte(strings.Join([]string{in.ID, in.IntegrationID, in.ConfigurationType, string(in.Configuration), action, string(input)}, "\x00")))
}

func (c *answers) get(key answerKey) api.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.kept[key]
	if !ok || !c.now().Before(a.until) {
		return nil
	}
	return a.output
}

// put has every server keep an output, this one included.
func (c *answers) put(key answerKey, output api.Object) {
	if len(output) <= maxAnswered {
		c.bus.Publish(answersTopic, slices.Concat(key[:], output))
	}
}

// keep stores an output; when there are too many, those that have had their time
// go, or all.
func (c *answers) keep(key answerKey, output api.Object) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) >= maxAnswers {
		for k, a := range c.kept {
			if !now.Before(a.until) {
				delete(c.kept, k)
			}
		}
	}
	if c.kept == nil || len(c.kept) >= maxAnswers {
		c.kept = map[answerKey]answered{}
	}
	c.kept[key] = answered{output, now.Add(answerLife)}
}

// source hands the engine the work of all modules; the lane says whose it is.
type source struct{ p *parts }

func (s source) of(lane string) delivery.Source {
	if bot.IsRegistration(lane) {
		return bot.Registrations{Service: s.p.bot}
	}
	return messaging.Source{Service: s.p.messaging}
}

func (s source) Next(ctx context.Context, lane string, after int64) (*delivery.Work, error) {
	return s.of(lane).Next(ctx, lane, after)
}

func (s source) Done(tx *sqldb.Tx, w *delivery.Work, o delivery.Outcome) error {
	return s.of(w.Lane).Done(tx, w, o)
}
