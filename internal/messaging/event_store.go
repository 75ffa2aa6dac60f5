package messaging

import (
	"errors"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/page"
	"parley/internal/sqldb"
)

// NewEvent is what an event is made of.
type NewEvent struct {
	Type                              string // as the caller names it
	Payload                           api.Object
	ConversationID, UserID, MessageID string
	WorkflowID                        string // told to go on when the event is over, if it listens
	Due                               int64  // when it becomes pending, 0 = at once
}

// AddEvent makes an event that is pending for the bot, or scheduled, or ignored
// if the bot does not want it.
func (s *Service) AddEvent(tx *sqldb.Tx, c Caller, in NewEvent) (*Event, error) {
	owner, bare, err := c.eventType(in.Type)
	if err != nil {
		return nil, err
	}
	if in.ConversationID != "" {
		if _, err := s.lock(tx, c, in.ConversationID, 0); fault.Is(err, fault.ResourceNotFound) {
			return nil, c.dangling("Conversation", in.ConversationID)
		} else if err != nil {
			return nil, err
		}
	}
	if err := s.checkReferences(tx, c, in); err != nil {
		return nil, err
	}
	now := s.now()
	e := &Event{
		ID: id.At("evt", now), CreatedAt: api.Time(now), BareType: bare, Payload: in.Payload, Status: Pending, BotID: c.Bot.ID, InstallationID: owner,
		ConversationID: in.ConversationID, UserID: in.UserID, MessageID: in.MessageID, WorkflowID: in.WorkflowID,
	}
	switch {
	case in.Due != 0:
		e.Status = Scheduled
		if err := s.atTime(tx, timerEvent, e.BotID, e.ID, e.ConversationID, in.Due); err != nil {
			return nil, err
		}
	case c.ignores(bare):
		e.Status, e.Reason = Ignored, unsubscribed
	}
	return e.As(c), s.addEvent(tx, e)
}

// checkReferences refuses an event about something the caller cannot reach.
func (s *Service) checkReferences(q sqldb.Q, c Caller, in NewEvent) error {
	if in.ConversationID != "" {
		if _, err := s.reference(q, c, in.ConversationID); err != nil {
			return err
		}
	}
	if in.UserID != "" {
		if _, err := s.userReference(q, c, in.UserID); err != nil {
			return err
		}
	}
	if in.MessageID != "" {
		if m, err := s.message(q, c, in.MessageID); err != nil || m == nil {
			return firstOf(err, c.dangling("Message", in.MessageID))
		}
	}
	if in.WorkflowID != "" {
		if _, err := s.workflowReference(q, c, in.WorkflowID); err != nil {
			return err
		}
	}
	return nil
}

// addEvent puts an event behind the others of its lane. One that nobody is to
// be told of only takes its place among those of its conversation, and one that
// is scheduled has none yet.
func (s *Service) addEvent(tx *sqldb.Tx, e *Event) error {
	if e.BareType == "" {
		e.BareType = e.Type
	}
	l := lane(e)
	e.Lane = l.Key
	switch {
	case e.Status == Scheduled:
	case e.Status == Pending || !l.Ephemeral:
		seq, err := s.Delivery.Enqueue(tx, l)
		if err != nil {
			return err
		}
		e.LaneSeq = seq
	default:
		e.LaneSeq = 1
	}
	return tx.Send(`INSERT INTO events (id, bot_id, installation_id, type, payload, conversation_id, user_id, message_id, workflow_id, status, failure_reason, lane, lane_seq, attempts, created_at, replies_from)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0, $14, $15)`,
		e.ID, e.BotID, e.InstallationID, e.BareType, string(e.Payload), e.ConversationID, e.UserID, e.MessageID, e.WorkflowID, e.Status, e.Reason, e.Lane, e.LaneSeq, int64(e.CreatedAt), e.RepliesFrom)
}

// Event reads one event the caller may see; what is missing is a client's error.
func (s *Service) Event(q sqldb.Q, c Caller, eventID string) (*Event, error) {
	e, err := sqldb.One[Event](q, "events", "WHERE id = $1 AND bot_id = $2", eventID, c.Bot.ID)
	if errors.Is(err, sqldb.ErrNoRow) || err == nil && !c.sees(e.InstallationID) {
		return nil, c.missing("Event", eventID)
	}
	if err != nil {
		return nil, err
	}
	return e.As(c), s.fill(q, c, []*Event{e})
}

// messageCreated is the payload of a message_created event.
type messageCreated struct {
	User         *User         `json:"user,omitempty"`
	Conversation *Conversation `json:"conversation,omitempty"`
	Message      *Message      `json:"message,omitempty"`
}

// fill puts the payloads of message_created events together. What has been
// deleted since is left out.
func (s *Service) fill(q sqldb.Q, c Caller, events []*Event) error {
	workflows, err := s.workflowParts(q, c, events)
	if err != nil {
		return err
	}
	var messageIDs, conversationIDs, userIDs []string
	for _, e := range events {
		if e.workflowUpdate() != "" {
			if err := workflows.fill(e); err != nil {
				return err
			}
		}
		if e.BareType == eventMessageCreated && e.InstallationID == "" {
			messageIDs, conversationIDs, userIDs = append(messageIDs, e.MessageID), append(conversationIDs, e.ConversationID), append(userIDs, e.UserID)
		}
	}
	if messageIDs == nil {
		return nil
	}
	messages, err := manyByID[Message](q, "messages", c, messageIDs, func(m *Message) { m.As(c) })
	if err != nil {
		return err
	}
	conversations, err := s.Conversations(q, c, conversationIDs)
	if err != nil {
		return err
	}
	users, err := s.Users(q, c, userIDs)
	if err != nil {
		return err
	}
	message, conversation, user := map[string]*Message{}, map[string]*Conversation{}, map[string]*User{}
	for _, m := range messages {
		message[m.ID] = m
	}
	for _, v := range conversations {
		conversation[v.ID] = v
	}
	for _, u := range users {
		user[u.ID] = u
	}
	for _, e := range events {
		if e.BareType == eventMessageCreated && e.InstallationID == "" {
			if e.Payload, err = json.Marshal(messageCreated{user[e.UserID], conversation[e.ConversationID], message[e.MessageID]}); err != nil {
				return err
			}
		}
	}
	return nil
}

// eventsPage reads a page of events, newest first.
func (s *Service) eventsPage(q sqldb.Q, c Caller, l *listing, pq page.Query) ([]*Event, page.Meta, error) {
	events, meta, err := list(q, l, pq, func(e *Event) (int64, string) {
		e.As(c)
		if l.key == "e.lane_seq" {
			return e.LaneSeq, e.ID
		}
		return int64(e.CreatedAt), e.ID
	})
	if err != nil {
		return nil, meta, err
	}
	return events, meta, s.fill(q, c, events)
}
