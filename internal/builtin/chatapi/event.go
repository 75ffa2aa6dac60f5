package chatapi

import (
	"context"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/messaging"
	"parley/internal/once"
	"parley/internal/sqldb"
)

// custom is the event type of `chat`: the bot sees it as alias:custom.
const custom = "custom"

func (s *Service) eventOps() []api.Op {
	return []api.Op{
		api.Handle("createEvent", "POST /events", auth.Chat, s.createEvent, api.Created, api.Doc("Sends an event to the bot.")),
		api.Handle("getEvent", "GET /events/{id}", auth.Chat, s.getEvent, api.Doc("Returns an event of a conversation the caller takes part in.")),
	}
}

// event is an event as chat clients see it.
type event struct {
	ID             string     `json:"id"`
	CreatedAt      api.Time   `json:"createdAt"`
	Payload        api.Object `json:"payload"`
	ConversationID string     `json:"conversationId"`
	UserID         string     `json:"userId"`
}

type eventResult struct {
	Event event `json:"event"`
}

// customPayload is what the bot gets of a chat event, with real ids.
type customPayload struct {
	UserID         string     `json:"userId"`
	ConversationID string     `json:"conversationId"`
	Payload        api.Object `json:"payload"`
}

type createEventInput struct {
	Payload        api.Object `json:"payload"`
	ConversationID string     `json:"conversationId"`
}

func (s *Service) createEvent(ctx context.Context, in createEventInput) (eventResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return eventResult{}, err
	}
	if err := checkSize(in.Payload); err != nil {
		return eventResult{}, err
	}
	v, err := s.conversation(s.DB.Reader(ctx), m, in.ConversationID, participant)
	if err != nil {
		return eventResult{}, inBody(err)
	}
	sent, err := json.Marshal(customPayload{m.UserID, v.ID, in.Payload})
	if err != nil {
		return eventResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (eventResult, error) {
		e, err := s.Messaging.AddEvent(tx, m.Caller, messaging.NewEvent{Type: custom, Payload: sent, ConversationID: v.ID, UserID: m.UserID})
		if err != nil {
			return eventResult{}, refusal(err, in.ConversationID)
		}
		// The conversation is locked now: who is taken out of it waits or came first.
		if err := s.require(tx, m, v, in.ConversationID, participant); err != nil {
			return eventResult{}, err
		}
		if err := s.Messaging.SignalEvent(tx, m.Caller, v.ID, messaging.EventData{EventID: e.ID, CreatedAt: e.CreatedAt, UserID: m.UserID, Payload: in.Payload}); err != nil {
			return eventResult{}, err
		}
		return s.eventResult(tx, m, e, in.Payload)
	})
}

// checkSize refuses the payload of an event that is over the limit.
func checkSize(payload api.Object) error {
	if len(payload) > messaging.MaxPayload {
		return fault.PayloadTooLarge.New("payload has %d bytes; at most %d are allowed", len(payload), messaging.MaxPayload)
	}
	return nil
}

// eventResult shows an event.
//
// Compat: the official getEvent names the reader as the author; here it is the
// author.
func (s *Service) eventResult(q sqldb.Q, m me, e *messaging.Event, payload api.Object) (eventResult, error) {
	out := event{ID: e.ID, CreatedAt: e.CreatedAt, Payload: payload}
	var err error
	out.ConversationID, out.UserID, err = s.bothNames(q, m.Caller, e.ConversationID, e.UserID)
	return eventResult{out}, err
}

func (s *Service) getEvent(ctx context.Context, in ref) (eventResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return eventResult{}, err
	}
	q := s.DB.Reader(ctx)
	e, err := s.Messaging.Event(q, m.Caller, in.ID)
	switch {
	case fault.Is(err, fault.ResourceNotFound) || err == nil && e.BareType != custom:
		return eventResult{}, missing("Event", in.ID)
	case err != nil:
		return eventResult{}, err
	}
	if err := s.partOf(q, m, e.ConversationID, "Event", in.ID); err != nil {
		return eventResult{}, err
	}
	return s.eventResult(q, m, e, asObject(e.Payload.Member("payload")))
}
