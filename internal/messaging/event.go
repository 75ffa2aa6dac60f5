package messaging

import (
	"strings"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/sqldb"
)

// Statuses of an event.
const (
	Pending   = "pending"
	Processed = "processed"
	Ignored   = "ignored"
	Failed    = "failed"
	Scheduled = "scheduled" // pending at its time
	Canceled  = "canceled"  // before its time
)

// Types of events that only the server makes.
const (
	eventMessageCreated = "message_created"
	eventStateExpired   = "state_expired"
	eventWorkflowUpdate = "workflow_update"
)

// Event is something a bot is told of.
type Event struct {
	ID             string               `json:"id"`
	CreatedAt      api.Time             `json:"createdAt"`
	Type           string               `json:"type"`
	Payload        api.Object           `json:"payload"`
	ConversationID string               `json:"conversationId,omitempty"`
	UserID         string               `json:"userId,omitempty"`
	MessageID      string               `json:"messageId,omitempty"`
	Status         string               `json:"status"`
	FailureReason  api.Nullable[string] `json:"failureReason"`

	BotID          string `json:"-"`
	InstallationID string `json:"-"` // whose type it is; "" = the bot's own or the system's
	BareType       string `json:"-"` // Type without the alias
	WorkflowID     string `json:"-"`
	Reason         string `json:"-"`
	Lane           string `json:"-"`
	LaneSeq        int64  `json:"-"`
	Attempts       int64  `json:"-"`
	PendingAt      int64  `json:"-"` // when it fired, if it was scheduled, or was replayed
	TriesBefore    int64  `json:"-"` // of its attempts, those before it was replayed
	RepliesFrom    int64  `json:"-"` // the messages so far when it reached the bot, if somebody waits
}

// Columns binds the columns of table events.
func (e *Event) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &e.ID},
		{Name: "bot_id", Field: &e.BotID},
		{Name: "installation_id", Field: &e.InstallationID},
		{Name: "type", Field: &e.BareType},
		{Name: "payload", Field: sqldb.JSON(&e.Payload)},
		{Name: "conversation_id", Field: &e.ConversationID},
		{Name: "user_id", Field: &e.UserID},
		{Name: "message_id", Field: &e.MessageID},
		{Name: "workflow_id", Field: &e.WorkflowID},
		{Name: "status", Field: &e.Status},
		{Name: "failure_reason", Field: &e.Reason},
		{Name: "lane", Field: &e.Lane},
		{Name: "lane_seq", Field: &e.LaneSeq},
		{Name: "attempts", Field: &e.Attempts},
		{Name: "created_at", Field: (*int64)(&e.CreatedAt)},
		{Name: "pending_at", Field: &e.PendingAt},
		{Name: "tries_before", Field: &e.TriesBefore},
		{Name: "replies_from", Field: &e.RepliesFrom},
	}
}

// As names the event's type as the caller sees it: the bot sees those of its
// installations as alias:type.
func (e *Event) As(c Caller) *Event {
	e.Type = e.BareType
	if e.InstallationID != "" && c.Installation == nil {
		e.Type = c.names().Alias(e.InstallationID) + ":" + e.BareType
	}
	e.FailureReason = api.Nullable[string]{Set: e.Reason != "", Value: e.Reason}
	return e
}

// eventType splits the type a caller names into its owner and bare form. The
// first colon ends the alias, which may hold slashes.
func (c Caller) eventType(name string) (owner, bare string, err error) {
	switch name {
	case eventMessageCreated, eventStateExpired, eventWorkflowUpdate:
		return "", "", fault.InvalidPayload.New("type %q is made by the server only", name)
	case "":
		return "", "", fault.InvalidPayload.New("type must not be empty")
	}
	alias, bare, qualified := strings.Cut(name, ":")
	switch {
	case !qualified:
		bare = name
	case c.names().Owner(alias) != c.Owner() || c.Installation == nil:
		return "", "", fault.InvalidPayload.New("type %q belongs to an integration; only that integration creates such events", name)
	}
	if c.Installation != nil && len(c.Rules.Events) > 0 && !c.Rules.Events[bare] {
		return "", "", fault.InvalidPayload.New("type %q is not declared by the integration %q", bare, c.Installation.Alias)
	}
	return c.Owner(), bare, nil
}

// eventFilter is eventType for looking events up: what nobody owns matches nothing.
func (c Caller) eventFilter(name string) (owner, bare string) {
	alias, bare, qualified := strings.Cut(name, ":")
	if !qualified {
		return c.Owner(), name
	}
	owner = c.names().Owner(alias)
	if owner == "" || !c.sees(owner) {
		owner = "?"
	}
	return owner, bare
}
