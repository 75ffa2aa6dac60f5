package messaging

import (
	"context"
	"errors"
	"math"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/tag"
	"parley/internal/timer"
)

// Scheduling, of events and of messages:
//
//	schedule in the past or now    made at once, as without a schedule
//	an event                       is made at once with the status scheduled; at its time it
//	                               becomes pending behind the others of its lane
//	a message                      is promised: the answer shows it as it will be, with the id
//	                               that it will have; it is made at its time, until then nobody
//	                               finds it, and a get-or-create that means it gets the promise
//
// What is scheduled for one conversation happens in the order of its times.
// When its conversation, its author or the installation that scheduled it is
// gone by then, a message is not made and an event is ignored.
//
// An event is canceled by cancelScheduledEvent, a message by deleteMessage.

// Kinds of timers.
const (
	timerEvent   = "event"
	timerMessage = "message"
)

// tagScheduled is the kind under which the tags of promised messages are found.
const tagScheduled = "scheduled"

func (s *Service) handleScheduleTimers() {
	s.Timers.HandlePrepared(timerEvent, s.prepareEvent)
	s.Timers.HandlePrepared(timerMessage, s.prepareMessage)
}

// schedule is when a message or event is to be made.
type schedule struct {
	DateTime *string  `json:"dateTime,omitempty" min:"24" max:"28" format:"date-time" doc:"When it is to be made; in the past = now, ten years ahead at most."`
	Delay    *float64 `json:"delay,omitempty" min:"0" doc:"Milliseconds after which it is to be made, ten years at most."`
}

// due is the time that is meant in milliseconds, 0 for at once.
func (in *schedule) due(now int64) (int64, error) {
	var at int64
	switch {
	case in == nil:
		return 0, nil
	case in.DateTime != nil && in.Delay != nil:
		return 0, fault.InvalidPayload.New("schedule must have either dateTime or delay, not both")
	case in.DateTime != nil:
		t, err := api.ParseTime(*in.DateTime)
		if err != nil {
			return 0, fault.InvalidPayload.New("schedule.dateTime must be an ISO 8601 date and time with an offset, such as 2027-01-31T09:00:00.000Z")
		}
		if at = int64(t); at > now+furthest.Milliseconds() {
			return 0, fault.InvalidPayload.New("schedule.dateTime must lie within ten years from now")
		}
	case in.Delay != nil:
		if !(*in.Delay <= float64(furthest.Milliseconds())) {
			return 0, fault.InvalidPayload.New("schedule.delay must be at most ten years in milliseconds, %d", furthest.Milliseconds())
		}
		at = now + int64(math.Ceil(*in.Delay))
	default:
		return 0, fault.InvalidPayload.New("schedule must have dateTime or delay; leave it out for now")
	}
	if at <= now {
		return 0, nil
	}
	return at, nil
}

// atTime sets the timer of an event or a message. Timers of a conversation keep
// their order.
func (s *Service) atTime(tx *sqldb.Tx, kind, botID, entityID, conversationID string, due int64) error {
	t := timer.Timer{Kind: kind, ID: entityID, BotID: botID, Due: due}
	if conversationID != "" {
		t.Line = conversationLine(botID, conversationID)
	}
	return s.Timers.Set(tx, t)
}

// conversationLine is the line of the timers of a conversation: that of its events.
func conversationLine(botID, conversationID string) string {
	return lane(&Event{BotID: botID, ConversationID: conversationID}).Key
}

// nothing is the Fire of what is gone.
func nothing(*sqldb.Tx, timer.Timer) error { return nil }

// maker is CallerFor at the time of something that was scheduled. The fault, if
// any, says why it may not happen.
func (s *Service) maker(ctx context.Context, botID, installationID string) (Caller, *fault.Error, error) {
	c, err := s.CallerFor(ctx, botID, installationID)
	if err == nil && c.Installation != nil && (c.Installation.Removed || !c.Installation.Enabled) {
		err = fault.Forbidden.New("the integration is no longer installed and enabled in the bot")
	}
	if refused, ok := errors.AsType[*fault.Error](err); ok {
		return c, refused, nil
	}
	return c, nil, err
}

// prepareEvent finds out whether a scheduled event still concerns anybody.
func (s *Service) prepareEvent(ctx context.Context, t timer.Timer) (timer.Fire, error) {
	e, err := sqldb.One[Event](s.DB.Reader(ctx), "events", "WHERE bot_id = $1 AND id = $2", t.BotID, t.ID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nothing, nil // it went with its bot or conversation
	}
	if err != nil {
		return nil, err
	}
	c, refused, err := s.maker(ctx, t.BotID, e.InstallationID)
	if err != nil {
		return nil, err
	}
	why := ""
	switch {
	case refused != nil:
		why = refused.Message
	case c.ignores(e.BareType):
		why = unsubscribed
	}
	return func(tx *sqldb.Tx, _ timer.Timer) error { return s.fireEvent(tx, c, e, why) }, nil
}

// fireEvent makes a scheduled event pending, or ignored if there is a reason.
func (s *Service) fireEvent(tx *sqldb.Tx, c Caller, e *Event, why string) error {
	if why == "" && e.ConversationID != "" {
		_, err := s.lock(tx, c, e.ConversationID, 0)
		if err != nil && !fault.Is(err, fault.ResourceNotFound) {
			return err
		}
		if err != nil {
			why = "the conversation was deleted before the time of the event"
		}
	}
	if why != "" {
		_, err := s.giveUp(tx, e.BotID, e.ID, Ignored, why)
		return err
	}
	seq, err := s.Delivery.Enqueue(tx, lane(e))
	if err != nil {
		return err
	}
	_, err = tx.Exec("UPDATE events SET status = 'pending', lane_seq = $1, pending_at = $2 WHERE bot_id = $3 AND id = $4 AND status = 'scheduled'", seq, s.now(), e.BotID, e.ID)
	return err
}

// cancelEvent cancels a scheduled event. It takes the timer first: a firing
// holds it and waits for the rest.
func (s *Service) cancelEvent(tx *sqldb.Tx, c Caller, eventID string) error {
	if _, err := s.Timers.Cancel(tx, timerEvent, eventID); err != nil {
		return err
	}
	was, err := s.giveUp(tx, c.Bot.ID, eventID, Canceled, "")
	if err != nil || was {
		return err
	}
	e, err := s.Event(tx, c, eventID)
	if err != nil {
		return err
	}
	return e.cancelable()
}

// giveUp ends an event that will not become pending. It reports false if it was
// not scheduled.
func (s *Service) giveUp(tx *sqldb.Tx, botID, eventID, status, reason string) (bool, error) {
	rows, err := tx.Query("UPDATE events SET status = $1, failure_reason = $2 WHERE bot_id = $3 AND id = $4 AND status = 'scheduled' RETURNING workflow_id, awaited",
		status, reason, botID, eventID)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	var workflowID string
	var awaited bool
	was := rows.Next()
	if was {
		err = rows.Scan(&workflowID, &awaited)
	}
	if err = errors.Join(err, rows.Err(), rows.Close()); err != nil || workflowID == "" && !awaited {
		return was, err
	}
	return was, s.eventOver(tx, botID, eventID)
}

// cancelable refuses to cancel what is not scheduled. One that has been canceled
// stays so: clients repeat a request whose answer they have not got.
func (e *Event) cancelable() error {
	if e.Status == Scheduled || e.Status == Canceled {
		return nil
	}
	return fault.ResourceNotFound.New("Event %q is not scheduled: it is %s", e.ID, e.Status)
}

// scheduledMessage is a message that is to be made.
type scheduledMessage struct {
	Message
	Due int64
}

// Columns binds the columns of table scheduled_messages.
func (m *scheduledMessage) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &m.ID},
		{Name: "bot_id", Field: &m.BotID},
		{Name: "installation_id", Field: &m.InstallationID},
		{Name: "conversation_id", Field: &m.ConversationID},
		{Name: "user_id", Field: &m.UserID},
		{Name: "direction", Field: &m.Direction},
		{Name: "type", Field: &m.Type},
		{Name: "payload", Field: sqldb.JSON(&m.Payload)},
		{Name: "tags", Field: sqldb.JSON(&m.AllTags)},
		{Name: "origin", Field: &m.Origin},
		{Name: "due", Field: &m.Due},
	}
}

// madeBy is the installation that makes the message, "" for the bot.
func (m *scheduledMessage) madeBy() string {
	if m.Direction == Incoming {
		return m.InstallationID
	}
	return ""
}

// promise is the message as it will be.
func (m *scheduledMessage) promise(c Caller) *Message {
	m.CreatedAt, m.UpdatedAt = api.Time(m.Due), api.Time(m.Due)
	return m.As(c)
}

// tags are where the tags of the promise stand.
func (m *scheduledMessage) tags() entity { return entity{m.BotID, tagScheduled, m.ID, m.Due} }

// addOrSchedule makes a message, or promises it.
func (s *Service) addOrSchedule(tx *sqldb.Tx, c Caller, in NewMessage) (*Message, error) {
	if in.Due == 0 {
		return s.AddMessage(tx, c, in)
	}
	return s.scheduleMessage(tx, c, in)
}

// scheduleMessage promises a message.
func (s *Service) scheduleMessage(tx *sqldb.Tx, c Caller, in NewMessage) (*Message, error) {
	set, err := newTags(c, tag.Message, in.Tags)
	if err != nil {
		return nil, err
	}
	h, err := s.lock(tx, c, in.ConversationID, 0)
	if fault.Is(err, fault.ResourceNotFound) {
		return nil, c.dangling("Conversation", in.ConversationID)
	}
	if err != nil {
		return nil, err
	}
	if err := s.checkAuthor(tx, c, h.installationID, in); err != nil {
		return nil, err
	}
	m := &scheduledMessage{Due: in.Due, Message: Message{
		ID: id.At("msg", in.Due), Type: in.Type, Payload: in.Payload, Direction: c.direction(), UserID: in.UserID, ConversationID: in.ConversationID,
		Origin: in.Origin, BotID: c.Bot.ID, InstallationID: h.installationID, AllTags: set,
	}}
	if _, err := sqldb.Insert(tx, "scheduled_messages", m); err != nil {
		return nil, err
	}
	if err := writeTags(tx, m.tags(), nil, set); err != nil {
		return nil, err
	}
	return m.promise(c), s.atTime(tx, timerMessage, m.BotID, m.ID, m.ConversationID, m.Due)
}

// scheduledMessage reads a promised message the caller may see, nil if there is none.
func (s *Service) scheduledMessage(q sqldb.Q, c Caller, messageID string) (*scheduledMessage, error) {
	m, err := sqldb.One[scheduledMessage](q, "scheduled_messages", "WHERE bot_id = $1 AND id = $2", c.Bot.ID, messageID)
	if errors.Is(err, sqldb.ErrNoRow) || err == nil && !c.sees(m.InstallationID) {
		return nil, nil
	}
	return m, err
}

// findScheduled finds the promise a get-or-create means, nil if there is none.
func (s *Service) findScheduled(q sqldb.Q, c Caller, in NewMessage, key discriminator) (*Message, error) {
	found, err := key.within(q, c, tagScheduled, "scheduled_messages", in.ConversationID)
	if err != nil || found == "" {
		return nil, err
	}
	m, err := s.scheduledMessage(q, c, found)
	if err != nil || m == nil {
		return nil, err
	}
	return m.promise(c), nil
}

// takeScheduled removes a promised message, for it is made or canceled. It
// reports false if there is none.
func takeScheduled(tx *sqldb.Tx, m *scheduledMessage) (bool, error) {
	n, err := tx.Exec("DELETE FROM scheduled_messages WHERE bot_id = $1 AND id = $2", m.BotID, m.ID)
	if err != nil || n == 0 {
		return false, err
	}
	return true, writeTags(tx, m.tags(), m.AllTags, nil)
}

// cancelMessage cancels a promised message, and reports false if there is none.
// It takes the timer first, as cancelEvent does.
func (s *Service) cancelMessage(tx *sqldb.Tx, c Caller, messageID string) (bool, error) {
	if m, err := s.scheduledMessage(tx, c, messageID); err != nil || m == nil {
		return false, err
	}
	if _, err := s.Timers.Cancel(tx, timerMessage, messageID); err != nil {
		return false, err
	}
	m, err := s.scheduledMessage(tx, c, messageID)
	if err != nil || m == nil {
		return false, err
	}
	return takeScheduled(tx, m)
}

// prepareMessage finds out who makes a scheduled message.
func (s *Service) prepareMessage(ctx context.Context, t timer.Timer) (timer.Fire, error) {
	m, err := sqldb.One[scheduledMessage](s.DB.Reader(ctx), "scheduled_messages", "WHERE bot_id = $1 AND id = $2", t.BotID, t.ID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nothing, nil
	}
	if err != nil {
		return nil, err
	}
	c, refused, err := s.maker(ctx, m.BotID, m.madeBy())
	if err != nil {
		return nil, err
	}
	return func(tx *sqldb.Tx, _ timer.Timer) error { return s.fireMessage(tx, c, m, refused) }, nil
}

// fireMessage makes a scheduled message, unless that is refused or what it
// belongs to is gone. That is found out before anything of it is made.
func (s *Service) fireMessage(tx *sqldb.Tx, c Caller, m *scheduledMessage, refused *fault.Error) error {
	if there, err := takeScheduled(tx, m); err != nil || !there {
		return err
	}
	in := NewMessage{ConversationID: m.ConversationID, UserID: m.UserID, Type: m.Type, Origin: m.Origin, Payload: m.Payload, promised: m}
	if refused == nil {
		_, err := s.reference(tx, c, m.ConversationID)
		if err == nil {
			err = s.checkAuthor(tx, c, m.InstallationID, in)
		}
		if gone, ok := errors.AsType[*fault.Error](err); ok {
			refused = gone
		} else if err != nil {
			return err
		}
	}
	if refused != nil {
		tx.AfterCommit(func() {
			s.Log.Warn("a scheduled message is not made", "message", m.ID, "bot", m.BotID, "conversation", m.ConversationID, "reason", refused.Message)
		})
		return nil
	}
	_, err := s.AddMessage(tx, c, in)
	return err
}
