package messaging

import (
	"cmp"
	"context"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/id"
	"parley/internal/once"
	"parley/internal/page"
	"parley/internal/sqldb"
)

func (s *Service) eventOps() []api.Op {
	return []api.Op{
		api.Handle("createEvent", "POST /v1/chat/events", auth.Runtime, s.createEvent, api.Created, api.Doc("Creates an event for the bot.")),
		api.Handle("getEvent", "GET /v1/chat/events/{id}", auth.Runtime, s.getEvent, api.Doc("Returns an event.")),
		api.Handle("listEvents", "GET /v1/chat/events", auth.Runtime, s.listEvents, api.Doc("Lists events, newest first.")),
		api.Handle("cancelScheduledEvent", "DELETE /v1/chat/events/scheduled/{id}", auth.Runtime, s.cancelScheduledEvent, api.Doc("Cancels an event that is scheduled.")),
	}
}

type eventResult struct {
	Event *Event `json:"event"`
}

type createEventInput struct {
	Type           string     `json:"type" max:"200"`
	Payload        api.Object `json:"payload"`
	Schedule       *schedule  `json:"schedule,omitempty"`
	ConversationID string     `json:"conversationId,omitempty" format:"id"`
	UserID         string     `json:"userId,omitempty" format:"id"`
	WorkflowID     string     `json:"workflowId,omitempty" format:"id"`
	MessageID      string     `json:"messageId,omitempty" format:"id"`
}

func (s *Service) createEvent(ctx context.Context, in createEventInput) (eventResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return eventResult{}, err
	}
	due, err := in.Schedule.due(s.now())
	if err != nil {
		return eventResult{}, err
	}
	if err := checkPayload("payload", in.Payload); err != nil {
		return eventResult{}, err
	}
	if _, _, err := c.eventType(in.Type); err != nil {
		return eventResult{}, err
	}
	e := NewEvent{Type: in.Type, Payload: in.Payload, ConversationID: in.ConversationID, UserID: in.UserID, MessageID: in.MessageID, WorkflowID: in.WorkflowID, Due: due}
	if err := s.checkReferences(s.DB.Reader(ctx), c, e); err != nil {
		return eventResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (eventResult, error) {
		e, err := s.AddEvent(tx, c, e)
		return eventResult{e}, err
	})
}

func (s *Service) getEvent(ctx context.Context, in ref) (eventResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return eventResult{}, err
	}
	e, err := s.Event(s.DB.Reader(ctx), c, in.ID)
	return eventResult{e}, err
}

func (s *Service) cancelScheduledEvent(ctx context.Context, in ref) (none, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return none{}, err
	}
	e, err := s.Event(s.DB.Reader(ctx), c, in.ID)
	if err == nil {
		err = e.cancelable()
	}
	if err != nil {
		return none{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (none, error) {
		return none{}, s.cancelEvent(tx, c, in.ID)
	})
}

// clockSkew bounds how far the clocks of two servers may lie apart.
const clockSkew = time.Minute

type listEventsInput struct {
	page.Query
	Type           string `query:"type"`
	ConversationID string `query:"conversationId" format:"id"`
	UserID         string `query:"userId" format:"id"`
	MessageID      string `query:"messageId" format:"id"`
	WorkflowID     string `query:"workflowId" format:"id"`
	Status         string `query:"status" enum:"pending,ignored,processed,failed,scheduled"`
}

type eventsResult struct {
	Events []*Event  `json:"events"`
	Meta   page.Meta `json:"meta"`
}

func (s *Service) listEvents(ctx context.Context, in listEventsInput) (eventsResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return eventsResult{}, err
	}
	q := s.DB.Reader(ctx)
	l := newListing("events", c, "", "")
	conversationID := in.ConversationID
	if in.MessageID != "" {
		// A message's events are events of its conversation, no older than itself.
		if m, err := s.message(q, c, in.MessageID); err != nil {
			return eventsResult{}, err
		} else if m != nil {
			l.And("e.id >= ?", id.Oldest("evt", int64(m.CreatedAt)-clockSkew.Milliseconds()))
			conversationID = cmp.Or(conversationID, m.ConversationID)
		}
		l.And("e.message_id = ?", in.MessageID)
	}
	l.key = ""
	if conversationID != "" {
		l.key = "e.lane_seq"
		l.And("e.lane = ?", lane(&Event{BotID: c.Bot.ID, ConversationID: conversationID}).Key)
	}
	if in.UserID != "" {
		l.And("e.user_id = ?", in.UserID)
	}
	if in.WorkflowID != "" {
		l.of("workflow_id", in.WorkflowID)
	}
	if in.Status != "" {
		l.And("e.status = ?", in.Status)
		switch {
		case in.Status == Scheduled && l.key != "":
			l.And("e.lane_seq = 0") // none of them has its place yet
		case in.Status != Processed && l.key == "":
			l.Where.And("e.status <> 'processed'") // a literal, so that the partial index serves it
		}
	}
	if in.Type != "" {
		owner, bare := c.eventFilter(in.Type)
		l.And("e.installation_id = ? AND e.type = ?", owner, bare)
	}
	var out eventsResult
	out.Events, out.Meta, err = s.eventsPage(q, c, l, in.Query)
	return out, err
}
