package messaging

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/delivery"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
)

// Operations that an installation is told of its conversations by. It hears of
// changes only if its definition asks for them (PROTOCOL §2.2).
const (
	opMessageCreated      = "message_created"
	opMessageUpdated      = "message_updated"
	opConversationUpdated = "conversation_updated"
	// opSignal hands an installation the words of a signal.
	opSignal = "signal"
)

// InstallationEndpoint is the endpoint of an installation that is told. Its lanes
// begin with the same words.
func InstallationEndpoint(installationID string) string { return outgoingLane + installationID }

const outgoingLane = "inst:"

// outgoingLaneOf is the order in which an installation hears of a conversation.
func outgoingLaneOf(installationID, conversationID string) string {
	return InstallationEndpoint(installationID) + ":conv:" + conversationID
}

// outgoing is something an installation is to be told of.
type outgoing struct {
	ID             string
	BotID          string
	InstallationID string
	Operation      string
	Payload        api.Object // of all but message_created
	ConversationID string
	MessageID      string
	Status         string
	Reason         string
	Lane           string
	LaneSeq        int64
	Attempts       int64
	CreatedAt      int64
	DoneAt         int64 // 0 = pending
	PendingAt      int64 // when it was replayed, 0 = never
	TriesBefore    int64 // of its attempts, those before that
	Dead           bool
}

// Columns binds the columns of table outbox.
func (o *outgoing) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &o.ID},
		{Name: "bot_id", Field: &o.BotID},
		{Name: "installation_id", Field: &o.InstallationID},
		{Name: "operation", Field: &o.Operation},
		{Name: "payload", Field: sqldb.JSON(&o.Payload)},
		{Name: "conversation_id", Field: &o.ConversationID},
		{Name: "message_id", Field: &o.MessageID},
		{Name: "status", Field: &o.Status},
		{Name: "failure_reason", Field: &o.Reason},
		{Name: "lane", Field: &o.Lane},
		{Name: "lane_seq", Field: &o.LaneSeq},
		{Name: "attempts", Field: &o.Attempts},
		{Name: "created_at", Field: &o.CreatedAt},
		{Name: "done_at", Field: &o.DoneAt},
		{Name: "pending_at", Field: &o.PendingAt},
		{Name: "tries_before", Field: &o.TriesBefore},
		{Name: "dead", Field: &o.Dead},
	}
}

// send puts o behind what its installation is yet to be told of the same
// conversation. Installations that are not told of messages, and those that are
// switched off, are told nothing.
func (s *Service) send(tx *sqldb.Tx, c Caller, o *outgoing) error {
	in := installation(c.Bot, o.InstallationID)
	if in == nil || !in.Told || !in.Enabled || in.Removed {
		return nil
	}
	o.BotID = c.Bot.ID
	return s.enqueue(tx, o)
}

// enqueue puts o into the lane of its conversation.
func (s *Service) enqueue(tx *sqldb.Tx, o *outgoing) error {
	now := s.now()
	o.ID, o.Status, o.CreatedAt = id.At("dlv", now), Pending, now
	o.Lane = outgoingLaneOf(o.InstallationID, o.ConversationID)
	var err error
	if o.LaneSeq, err = s.Delivery.Enqueue(tx, delivery.Lane{Key: o.Lane, Endpoint: InstallationEndpoint(o.InstallationID)}); err != nil {
		return err
	}
	_, err = sqldb.Insert(tx, "outbox", o)
	return err
}

// sendMessage tells the installation of a conversation of the bot's new message.
// What was made up for the record alone is not sent on (PROTOCOL §2.3).
func (s *Service) sendMessage(tx *sqldb.Tx, c Caller, m *Message) error {
	if m.Direction != Outgoing || m.Origin == originSynthetic {
		return nil
	}
	return s.send(tx, c, &outgoing{Operation: opMessageCreated, InstallationID: m.InstallationID, ConversationID: m.ConversationID, MessageID: m.ID})
}

const originSynthetic = "synthetic"

// wants reports whether the installation of something the caller changes is to
// be told of it. Nobody is told of a change of their own.
func (s *Service) wants(ctx context.Context, c Caller, installationID, operation string) (bool, error) {
	if c.Owner() == installationID {
		return false, nil
	}
	rules, err := s.Directory.Rules(ctx, c.Bot.ID, installationID)
	return err == nil && rules.Operations[operation], err
}

// outgoingBody is what an installation gets, put together for its own eyes.
type outgoingBody struct {
	Type                 string        `json:"type,omitempty"`
	Payload              api.Object    `json:"payload,omitempty"`
	Conversation         *Conversation `json:"conversation,omitempty"`
	User                 *User         `json:"user,omitempty"`
	Message              *Message      `json:"message,omitempty"`
	CurrentMessage       *Message      `json:"currentMessage,omitempty"`
	PreviousMessage      *Message      `json:"previousMessage,omitempty"`
	CurrentConversation  *Conversation `json:"currentConversation,omitempty"`
	PreviousConversation *Conversation `json:"previousConversation,omitempty"`
}

// sendMessageUpdate tells an installation that asked for it of a change to a
// message in one of its conversations.
func (s *Service) sendMessageUpdate(tx *sqldb.Tx, c Caller, before, after Message) error {
	mine := c.standingIn(after.InstallationID)
	b, err := json.Marshal(outgoingBody{Type: after.Type, Payload: after.Payload, PreviousMessage: before.As(mine), CurrentMessage: after.As(mine)})
	if err != nil {
		return err
	}
	return s.send(tx, c, &outgoing{Operation: opMessageUpdated, Payload: b, InstallationID: after.InstallationID, ConversationID: after.ConversationID, MessageID: after.ID})
}

// sendConversationUpdate is sendMessageUpdate for a conversation.
func (s *Service) sendConversationUpdate(tx *sqldb.Tx, c Caller, before, after Conversation) error {
	mine := c.standingIn(after.InstallationID)
	b, err := json.Marshal(outgoingBody{PreviousConversation: before.As(mine), CurrentConversation: after.As(mine)})
	if err != nil {
		return err
	}
	return s.send(tx, c, &outgoing{Operation: opConversationUpdated, Payload: b, InstallationID: after.InstallationID, ConversationID: after.ID})
}

// standingIn is an installation of the caller's bot, for the names it goes by.
func (c Caller) standingIn(installationID string) Caller {
	return Caller{Bot: c.Bot, Installation: installation(c.Bot, installationID), Rules: &Rules{}}
}

// nextOutgoing is Next for the lane of an installation.
func (s Source) nextOutgoing(ctx context.Context, lane string, after int64) (*delivery.Work, error) {
	o, err := sqldb.One[outgoing](s.DB.Reader(ctx), "outbox", "WHERE lane = $1 AND lane_seq > $2 AND status = 'pending' ORDER BY lane_seq LIMIT 1", lane, after)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.entryWork(ctx, o)
}

// entryWork is the work of telling an installation what an entry of the outbox says.
func (s *Service) entryWork(ctx context.Context, o *outgoing) (*delivery.Work, error) {
	w := &delivery.Work{ID: o.ID, Seq: o.LaneSeq, Attempt: int(o.Attempts) + 1, Before: int(o.TriesBefore), CreatedAt: max(o.CreatedAt, o.PendingAt)}
	asOf := s.now()
	c, why, err := s.receiver(ctx, o)
	var body []byte
	if err == nil && why == "" {
		body, why, err = s.outgoingBody(ctx, c, o)
	}
	if err != nil {
		return nil, err
	}
	if why != "" {
		w.Skip = &delivery.Outcome{Status: delivery.Ignored, Reason: why, Attempts: int(o.Attempts)}
		return w, nil
	}
	w.Webhook, w.Ref = !c.Installation.Outside, toldOf{o.BotID, o.InstallationID, asOf}
	w.Operation = endpoint.Operation{
		Name: o.Operation, Body: body, Subject: o.ID, Header: http.Header{"X-Parley-Attempt": {strconv.Itoa(w.Attempt)}},
	}
	return w, nil
}

// toldOf is whom work from the outbox goes to, and when that was looked up.
type toldOf struct {
	botID, installationID string
	asOf                  int64
}

// receiver is the installation that is to be told, or why it is told nothing any more.
func (s *Service) receiver(ctx context.Context, o *outgoing) (c Caller, why string, err error) {
	c, err = s.CallerFor(ctx, o.BotID, o.InstallationID)
	switch {
	case fault.Is(err, fault.Forbidden):
		return c, "the bot has been deleted", nil
	case err != nil:
		return c, "", err
	}
	return c, deaf(c.Installation, o.Operation), nil
}

// deaf says why an installation is not told of an operation, "" if it is.
func deaf(in *auth.Installation, operation string) string {
	switch {
	case in == nil || !in.Enabled || in.Removed:
		return "the integration is disabled or no longer installed"
	case in.Gone:
		return "the webhook of the integration is gone (410); set its URL again with updateBot"
	case operation == opSignal && !in.Signals:
		return "the integration has no webhook any more"
	}
	return ""
}

// outgoingBody puts together what an installation is told, or says why there is
// nothing to tell any more.
func (s *Service) outgoingBody(ctx context.Context, c Caller, o *outgoing) (body []byte, why string, err error) {
	if o.Operation == opSignal {
		return o.Payload, "", nil // also of what has been deleted since
	}
	v, err := s.cachedConversation(ctx, c, o.ConversationID)
	if err != nil || v == nil {
		return nil, "the conversation has been deleted", err
	}
	if slices.Contains(c.Installation.DisabledChannels, v.Channel) {
		return nil, "the channel " + v.Channel + " is disabled", nil
	}
	if o.Operation == opConversationUpdated {
		return o.Payload, "", nil
	}
	m, err := sqldb.One[Message](s.DB.Reader(ctx), "messages", "WHERE bot_id = $1 AND id = $2", o.BotID, o.MessageID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, "the message has been deleted", nil
	}
	if err != nil {
		return nil, "", err
	}
	out := outgoingBody{Type: m.Type, Payload: m.Payload, Message: m.As(c)}
	if o.Operation == opMessageUpdated {
		out = outgoingBody{}
		if err := json.Unmarshal(o.Payload, &out); err != nil {
			return nil, "", err
		}
	}
	out.Conversation = v
	// The bot's user is seen by everybody it speaks to.
	u, err := s.users.Get(ctx, m.UserID)
	if err != nil {
		return nil, "", err
	}
	if u != nil {
		mine := *u
		out.User = mine.As(c)
	}
	body, err = json.Marshal(out)
	return body, "", err
}

// doneOutgoing is Done for work from the outbox. What is over stays for the log
// of deliveries.
func (s Source) doneOutgoing(tx *sqldb.Tx, w *delivery.Work, o delivery.Outcome) error {
	if to, ok := w.Ref.(toldOf); ok && o.Gone {
		if err := s.Gone(tx, to.botID, to.installationID, to.asOf); err != nil {
			return err
		}
	}
	var doneAt int64
	if o.Status != delivery.Pending {
		doneAt = s.now()
	}
	return tx.Send("UPDATE outbox SET status = $1, failure_reason = $2, attempts = $3, done_at = $4, dead = $5 WHERE id = $6 AND status = 'pending'",
		string(o.Status), o.Reason, int64(o.Attempts), doneAt, o.Dead, w.ID)
}

// isOutgoing tells the lanes of installations from those of bots.
func isOutgoing(lane string) bool { return strings.HasPrefix(lane, outgoingLane) }
