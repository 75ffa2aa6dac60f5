package messaging

import (
	"parley/internal/api"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// Directions of a message, seen from the bot.
const (
	Incoming = "incoming" // made by an integration, on behalf of one of its users
	Outgoing = "outgoing" // made by the bot
)

// Message is one message of a conversation.
type Message struct {
	ID             string            `json:"id"`
	CreatedAt      api.Time          `json:"createdAt"`
	UpdatedAt      api.Time          `json:"updatedAt"`
	Type           string            `json:"type"`
	Payload        api.Object        `json:"payload"`
	Direction      string            `json:"direction"`
	UserID         string            `json:"userId"`
	ConversationID string            `json:"conversationId"`
	Tags           map[string]string `json:"tags"`
	Origin         string            `json:"origin,omitempty"`

	BotID          string  `json:"-"`
	InstallationID string  `json:"-"` // the conversation's
	Seq            int64   `json:"-"` // place in the conversation, gap-free
	Pos            int64   `json:"-"` // position of its signal
	AllTags        tag.Set `json:"-"` // of every owner; Tags is the caller's view of them
}

// Columns binds the columns of table messages.
func (m *Message) Columns() []sqldb.Column {
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
		{Name: "seq", Field: &m.Seq},
		{Name: "signal_pos", Field: &m.Pos},
		{Name: "created_at", Field: (*int64)(&m.CreatedAt)},
		{Name: "updated_at", Field: (*int64)(&m.UpdatedAt)},
	}
}

// As returns m as the caller sees it.
func (m *Message) As(c Caller) *Message {
	m.Tags = c.view(m.AllTags)
	return m
}
