package messaging

import (
	"parley/internal/api"
	"parley/internal/delivery"
	"parley/internal/sqldb"
)

// A delivery is what somebody outside is told: an event that goes to its bot, or
// an entry of the outbox that goes to an installation. Its row stays when it is
// over, and the tries that were made stay beside it: together they are the log
// of deliveries, which operators read and replay from.

// Kinds of deliveries: who is told.
const (
	toBot         = "bot"
	toIntegration = "integration" // one that runs outside Parley
	toWebhook     = "webhook"     // the place that an installation of a built-in integration names
)

const opEventReceived = "event_received"

// Delivery is an entry of the log of deliveries.
type Delivery struct {
	ID             string               `json:"id" doc:"The same with every attempt, as the header webhook-id."`
	CreatedAt      api.Time             `json:"createdAt"`
	PendingAt      api.Time             `json:"pendingAt" doc:"When it last became pending: with its creation, at the time it was scheduled for, or when it was replayed."`
	Kind           string               `json:"kind" doc:"Who is told: the bot, an integration that runs outside, or a webhook of an integration that Parley brings along."`
	BotID          string               `json:"botId"`
	InstallationID string               `json:"installationId,omitempty" doc:"The installation that is told; absent for the bot."`
	Integration    string               `json:"integration,omitempty" doc:"Its alias."`
	Operation      string               `json:"operation"`
	Type           string               `json:"type,omitempty" doc:"The type of the event that a bot is told of."`
	ConversationID string               `json:"conversationId,omitempty"`
	UserID         string               `json:"userId,omitempty"`
	MessageID      string               `json:"messageId,omitempty"`
	WorkflowID     string               `json:"workflowId,omitempty"`
	Status         string               `json:"status"`
	Dead           bool                 `json:"dead" doc:"It failed because its tries or its time ran out, and nobody refused it."`
	FailureReason  api.Nullable[string] `json:"failureReason"`
	AttemptCount   int64                `json:"attemptCount"`

	reason  string
	lane    string
	laneSeq int64
	// Of events.
	awaited bool   // somebody waits for the end
	bare    string // Type without the alias
	owner   string // installation whose type it is, "" = the bot's own or the system's
}

// columns binds what both tables have.
func (d *Delivery) columns(more ...sqldb.Column) []sqldb.Column {
	return append(more,
		sqldb.Column{Name: "id", Field: &d.ID},
		sqldb.Column{Name: "bot_id", Field: &d.BotID},
		sqldb.Column{Name: "conversation_id", Field: &d.ConversationID},
		sqldb.Column{Name: "message_id", Field: &d.MessageID},
		sqldb.Column{Name: "status", Field: &d.Status},
		sqldb.Column{Name: "failure_reason", Field: &d.reason},
		sqldb.Column{Name: "dead", Field: &d.Dead},
		sqldb.Column{Name: "lane", Field: &d.lane},
		sqldb.Column{Name: "lane_seq", Field: &d.laneSeq},
		sqldb.Column{Name: "attempts", Field: &d.AttemptCount},
		sqldb.Column{Name: "created_at", Field: (*int64)(&d.CreatedAt)},
		sqldb.Column{Name: "pending_at", Field: (*int64)(&d.PendingAt)},
	)
}

// deliveredEvent is a delivery as table events has it.
type deliveredEvent struct{ Delivery }

// Columns binds columns of table events. The payload is not among them.
func (d *deliveredEvent) Columns() []sqldb.Column {
	return d.columns(
		sqldb.Column{Name: "installation_id", Field: &d.owner},
		sqldb.Column{Name: "type", Field: &d.bare},
		sqldb.Column{Name: "user_id", Field: &d.UserID},
		sqldb.Column{Name: "workflow_id", Field: &d.WorkflowID},
		sqldb.Column{Name: "awaited", Field: &d.awaited},
	)
}

// deliveredEntry is a delivery as table outbox has it.
type deliveredEntry struct{ Delivery }

// Columns binds columns of table outbox. The payload is not among them.
func (d *deliveredEntry) Columns() []sqldb.Column {
	return d.columns(
		sqldb.Column{Name: "installation_id", Field: &d.InstallationID},
		sqldb.Column{Name: "operation", Field: &d.Operation},
	)
}

// as names a delivery for the bot whose it is.
func (d *Delivery) as(c Caller) *Delivery {
	d.PendingAt = max(d.CreatedAt, d.PendingAt)
	d.FailureReason = api.Nullable[string]{Set: d.reason != "", Value: d.reason}
	if d.InstallationID == "" {
		d.Kind, d.Operation, d.Type = toBot, opEventReceived, (&Event{BareType: d.bare, InstallationID: d.owner}).As(c).Type
		return d
	}
	d.Kind, d.Integration = toIntegration, c.names().Alias(d.InstallationID)
	if in := installation(c.Bot, d.InstallationID); in != nil && !in.Outside {
		d.Kind = toWebhook
	}
	return d
}

// isOne reports whether a row is a delivery: of an event that is scheduled, or
// was canceled, nobody is told.
func (d *Delivery) isOne() bool { return d.Status != Scheduled && d.Status != Canceled }

// route is the lane of a delivery.
func (d *Delivery) route() delivery.Lane {
	if d.InstallationID != "" {
		return delivery.Lane{Key: d.lane, Endpoint: InstallationEndpoint(d.InstallationID)}
	}
	return lane(&Event{ID: d.ID, BotID: d.BotID, InstallationID: d.owner, BareType: d.bare, ConversationID: d.ConversationID, WorkflowID: d.WorkflowID, Lane: d.lane})
}
