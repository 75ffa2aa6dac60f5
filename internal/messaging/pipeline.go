package messaging

import (
	"context"

	"parley/internal/api"
	"parley/internal/delivery"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// The way of a message, in the order of its stages:
//
//	Admit       outside the transaction: what can be refused is refused before
//	            it may disturb its neighbours in a group commit
//	advance     the head of the conversation: sequence, position, time
//	author      whose message it is, and so its direction
//	messages    the row
//	lane, event the outbox entry to the bot, for incoming messages; for outgoing
//	            ones that to an installation that runs outside Parley
//	streams     the one that the message of the bot ends
//	signal      for an installation that deliveries tell of signals
//	after the commit: listeners, lane workers

// NewMessage is what a message is made of.
type NewMessage struct {
	ConversationID, UserID, Type, Origin string
	Payload                              api.Object
	Tags                                 map[string]string // as the caller names them
	// Participant demands that the author takes part in the conversation
	// already; otherwise the author becomes a participant.
	Participant bool
	// Due is when the message is to be made, 0 = at once.
	Due int64
	// Waited says that somebody waits for what the bot says about it; see Await.
	Waited   bool
	promised *scheduledMessage // what becomes this message
}

// Admit checks a message outside the transaction. It reads nothing where the
// conversation and author have passed lately: AddMessage checks all of it again.
func (s *Service) Admit(ctx context.Context, c Caller, in NewMessage) error {
	if err := checkPayload("payload", in.Payload); err != nil {
		return err
	}
	if _, err := newTags(c, tag.Message, in.Tags); err != nil {
		return err
	}
	key := knownKey{in.ConversationID, in.UserID, c.Owner()}
	if s.known.has(key) {
		return nil
	}
	q := s.DB.Reader(ctx)
	v, err := s.reference(q, c, in.ConversationID)
	if err != nil {
		return err
	}
	if err := s.checkAuthor(q, c, v.InstallationID, in); err != nil {
		return err
	}
	s.known.add(key)
	return nil
}

// AddMessage stores a message, with the event that carries it to the bot if it
// is incoming, and signals it to the listeners of the conversation.
func (s *Service) AddMessage(tx *sqldb.Tx, c Caller, in NewMessage) (*Message, error) {
	set, err := newTags(c, tag.Message, in.Tags)
	if err != nil {
		return nil, err
	}
	if in.promised != nil {
		set = in.promised.AllTags.Clone()
	}
	streamID, signals := c.completes(in.Payload), 1
	if streamID != "" {
		signals++
	}
	h, err := s.advance(tx, c, in.ConversationID, 1, signals, s.now())
	if err != nil {
		if fault.Is(err, fault.ResourceNotFound) {
			s.known.forget(in.ConversationID)
			err = c.dangling("Conversation", in.ConversationID)
		}
		return nil, err
	}
	if h, err = s.author(tx, c, h, in); err != nil {
		s.known.forget(in.ConversationID)
		return nil, err
	}
	m := &Message{
		ID: id.At("msg", h.lastAt), CreatedAt: api.Time(h.lastAt), UpdatedAt: api.Time(h.lastAt), Type: in.Type, Payload: in.Payload,
		Direction: c.direction(), UserID: in.UserID, ConversationID: h.conversationID, Origin: in.Origin,
		BotID: c.Bot.ID, InstallationID: h.installationID, Seq: h.seq, Pos: h.pos, AllTags: set,
	}
	if in.promised != nil {
		m.ID = in.promised.ID
	}
	if err := tx.Send(`INSERT INTO messages (id, bot_id, installation_id, conversation_id, user_id, direction, type, payload, tags, origin, seq, signal_pos, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		m.ID, m.BotID, m.InstallationID, m.ConversationID, m.UserID, m.Direction, m.Type, string(m.Payload), encodeTags(set), m.Origin, m.Seq, m.Pos,
		int64(m.CreatedAt), int64(m.UpdatedAt)); err != nil {
		return nil, err
	}
	if err := writeTags(tx, entity{m.BotID, tag.Message, m.ID, h.lastAt}, nil, set); err != nil {
		return nil, err
	}
	if m.Direction == Incoming {
		if err := s.outbox(tx, m, in.Waited); err != nil {
			return nil, err
		}
	}
	if err := s.sendMessage(tx, c, m); err != nil {
		return nil, err
	}
	m.As(c)
	if streamID != "" {
		if err := s.completeStream(tx, h, m, streamID); err != nil {
			return nil, err
		}
	}
	return m, s.publish(tx, c.Bot, &Signal{ConversationID: m.ConversationID, InstallationID: m.InstallationID, BotID: m.BotID, Pos: m.Pos, Type: MessageCreated, At: m.CreatedAt, Message: m})
}

// direction of the messages a caller makes.
func (c Caller) direction() string {
	if c.Installation == nil {
		return Outgoing
	}
	return Incoming
}

// author checks whose message it is. On the first message of a user it makes
// the user a participant, whose signal comes before the message's.
func (s *Service) author(tx *sqldb.Tx, c Caller, h head, in NewMessage) (head, error) {
	if c.Installation == nil {
		if in.UserID != c.Bot.ID {
			return h, s.checkAuthor(tx, c, h.installationID, in)
		}
		return h, nil
	}
	participates, err := s.Participates(tx, h.conversationID, in.UserID)
	if err != nil || participates {
		return h, err
	}
	if err := s.checkAuthor(tx, c, h.installationID, in); err != nil {
		return h, err
	}
	// The message keeps the position behind that of its author's arrival.
	h.pos--
	h, err = s.join(tx, h, in.UserID)
	h.pos++
	return h, err
}

// checkAuthor refuses an author who may not write this message.
func (s *Service) checkAuthor(q sqldb.Q, c Caller, installationID string, in NewMessage) error {
	if c.Installation == nil && in.UserID == c.Bot.ID {
		return nil
	}
	u, err := s.user(q, c, in.UserID)
	if err != nil {
		return err
	}
	switch {
	case u == nil && c.Installation != nil && in.UserID == c.Bot.ID:
		return fault.InvalidPayload.New("User %q is the bot; an integration posts as one of its own users, the bot posts without x-integration-id", in.UserID)
	case u == nil:
		return c.dangling("User", in.UserID)
	case c.Installation == nil:
		return fault.InvalidPayload.New("User %q is not the bot; to post as this user send x-integration-id", in.UserID)
	case in.Participant:
		participates, err := s.Participates(q, in.ConversationID, in.UserID)
		if err != nil || participates {
			return err
		}
		return fault.Forbidden.New("User %q doesn't participate in conversation %q", in.UserID, in.ConversationID)
	}
	return nil
}

// outbox adds the event that takes an incoming message to the bot.
func (s *Service) outbox(tx *sqldb.Tx, m *Message, waited bool) error {
	e := &Event{
		ID: id.At("evt", int64(m.CreatedAt)), CreatedAt: m.CreatedAt, Type: eventMessageCreated, Status: Pending, BotID: m.BotID,
		ConversationID: m.ConversationID, UserID: m.UserID, MessageID: m.ID,
	}
	if waited {
		e.RepliesFrom = notBegun
	}
	tx.AfterCommit(func() { s.fresh.put(s.Now(), e, m) }) // before the lane is handed over
	return s.addEvent(tx, e)
}

// lane is the order in which an event reaches its bot: that of its
// conversation, that of what it tells of, or its own.
func lane(e *Event) delivery.Lane {
	l := delivery.Lane{Key: "evt:" + e.ID, Endpoint: "bot:" + e.BotID, Ephemeral: true}
	switch {
	case e.ConversationID != "":
		l.Key, l.Ephemeral = "bot:"+e.BotID+":conv:"+e.ConversationID, false
	case e.BareType == eventWorkflowUpdate && e.InstallationID == "":
		l.Key, l.Ephemeral = workflowLane(e.BotID, e.WorkflowID), false
	case e.Lane != "":
		l.Key = e.Lane // that of the state or recurring event it tells of
	}
	return l
}
