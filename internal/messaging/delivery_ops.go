package messaging

import (
	"context"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/page"
)

func (s *Service) deliveryOps() []api.Op {
	return []api.Op{
		api.Handle("listDeliveries", "GET /v1/parley/deliveries", auth.Operator, s.listDeliveries,
			api.Doc("Lists what a bot and its installations were told, the newest first."), api.Faults(fault.ReferenceNotFound)),
		api.Handle("getDelivery", "GET /v1/parley/deliveries/{id}", auth.Operator, s.getDelivery,
			api.Doc("Returns a delivery with its request and its attempts."), api.Faults(fault.ReferenceNotFound)),
		api.Handle("replayDelivery", "POST /v1/parley/deliveries/{id}/replay", auth.Operator, s.replayDelivery,
			api.Doc("Makes a delivery that is over pending again, at the end of its lane and under the same id.")),
		api.Handle("replayDeliveries", "POST /v1/parley/deliveries/replay", auth.Operator, s.replayDeliveries,
			api.Doc("Makes the deliveries of a range, or all dead letters, pending again in the order they had.")),
	}
}

// operated finds the bot that an operator's request is about: the one it names,
// or the one of its header or token.
func (s *Service) operated(ctx context.Context, botID string) (Caller, error) {
	p := auth.From(ctx)
	switch {
	case botID == "" && p.BotID == "":
		return Caller{}, fault.InvalidPayload.New("botId is missing; send it, or the header x-bot-id, with the id of the bot")
	case botID == "" || botID == p.BotID:
		return s.CallerFor(ctx, p.BotID, "")
	case p.BotID != "" && p.Kind == auth.Person:
		return Caller{}, fault.InvalidPayload.New("botId %q is not the bot of the header x-bot-id, %q; send one of them", botID, p.BotID)
	}
	b, err := s.Directory.Bot(ctx, botID)
	if err != nil {
		return Caller{}, err
	}
	reached := b != nil && p.Kind == auth.Person && (p.WorkspaceID == "" || p.WorkspaceID == b.WorkspaceID)
	if reached {
		if reached, err = s.Directory.Member(ctx, p.AccountID, b.WorkspaceID); err != nil {
			return Caller{}, err
		}
	}
	if !reached {
		return Caller{}, fault.ReferenceNotFound.New("Bot %q doesn't exist or this token does not reach it", botID)
	}
	return s.CallerFor(ctx, botID, "")
}

// checkDeliveryFilter refuses a filter that names an installation of somebody
// else, or that contradicts itself.
func (f *deliveryFilter) check(kind *fault.Kind) error {
	if f.installationID != "" && installation(f.caller.Bot, f.installationID) == nil {
		return f.caller.dangling("Installation", f.installationID)
	}
	switch {
	case f.after != nil && f.before != nil && *f.after > *f.before:
		return kind.New("after must not be later than before")
	case f.dead != nil && *f.dead && f.status != "" && f.status != Failed:
		return kind.New("status must be %s where dead is true: a dead letter is a delivery that failed", Failed)
	}
	return nil
}

type listDeliveriesInput struct {
	page.Query
	BotID          string    `query:"botId" format:"id" doc:"The bot, unless the header x-bot-id or the token names it."`
	Status         string    `query:"status" enum:"pending,processed,failed,ignored"`
	Kind           string    `query:"kind" enum:"bot,integration,webhook" doc:"Who is told."`
	Operation      string    `query:"operation" enum:"event_received,message_created,message_updated,conversation_updated,signal" doc:"What is told: event_received to bots, the others to installations."`
	InstallationID string    `query:"installationId" format:"id" doc:"The installation that is told."`
	ConversationID string    `query:"conversationId" format:"id"`
	Dead           *bool     `query:"dead" doc:"true: only dead letters, which failed because their tries or their time ran out; false: no dead letters."`
	After          *api.Time `query:"after" format:"date-time" doc:"Only those created at that time or later."`
	Before         *api.Time `query:"before" format:"date-time" doc:"Only those created at that time or earlier."`
}

type deliveriesResult struct {
	Deliveries []*Delivery `json:"deliveries"`
	Meta       page.Meta   `json:"meta"`
}

func (s *Service) listDeliveries(ctx context.Context, in listDeliveriesInput) (deliveriesResult, error) {
	c, err := s.operated(ctx, in.BotID)
	if err != nil {
		return deliveriesResult{}, err
	}
	f := &deliveryFilter{c, in.Status, in.Kind, in.Operation, in.InstallationID, in.ConversationID, in.Dead, span{in.After, in.Before}}
	if err := f.check(fault.InvalidQuery); err != nil {
		return deliveriesResult{}, err
	}
	var out deliveriesResult
	out.Deliveries, out.Meta, err = f.page(s.DB.Reader(ctx), in.Query)
	return out, err
}

type deliveryRef struct {
	ID    string `path:"id"`
	BotID string `query:"botId" format:"id" doc:"The bot, unless the header x-bot-id or the token names it."`
}

type deliveryResult struct {
	Delivery *Delivery `json:"delivery"`
}

// shownDelivery is a delivery with all that is known of it.
type shownDelivery struct {
	Delivery
	Request   *deliveryRequest `json:"request,omitempty"`
	NoRequest string           `json:"noRequest,omitempty" doc:"Why there would be nothing to send, in place of the request."`
	Attempts  []*Attempt       `json:"attempts"`
}

type shownDeliveryResult struct {
	Delivery shownDelivery `json:"delivery"`
}

func (s *Service) getDelivery(ctx context.Context, in deliveryRef) (shownDeliveryResult, error) {
	c, err := s.operated(ctx, in.BotID)
	if err != nil {
		return shownDeliveryResult{}, err
	}
	q := s.DB.Reader(ctx)
	d, err := s.oneDelivery(q, c, in.ID)
	if err != nil {
		return shownDeliveryResult{}, err
	}
	out := shownDelivery{Delivery: *d}
	if out.Attempts, err = attempts(q, d.ID); err != nil {
		return shownDeliveryResult{}, err
	}
	out.Request, out.NoRequest, err = s.request(ctx, d)
	return shownDeliveryResult{out}, err
}
