package messaging

import (
	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// Conversation is an exchange in one channel of one installation.
type Conversation struct {
	ID            string            `json:"id"`
	CurrentTaskID string            `json:"currentTaskId,omitempty"`
	CreatedAt     api.Time          `json:"createdAt"`
	UpdatedAt     api.Time          `json:"updatedAt"`
	Channel       string            `json:"channel"`
	Integration   string            `json:"integration"` // alias of the installation
	Tags          map[string]string `json:"tags"`

	BotID          string  `json:"-"`
	InstallationID string  `json:"-"`
	AllTags        tag.Set `json:"-"` // of every owner; Tags is the caller's view of them
}

// Columns binds the columns of table conversations.
func (v *Conversation) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &v.ID},
		{Name: "bot_id", Field: &v.BotID},
		{Name: "installation_id", Field: &v.InstallationID},
		{Name: "channel", Field: &v.Channel},
		{Name: "current_task_id", Field: &v.CurrentTaskID},
		{Name: "tags", Field: sqldb.JSON(&v.AllTags)},
		{Name: "created_at", Field: (*int64)(&v.CreatedAt)},
		{Name: "updated_at", Field: (*int64)(&v.UpdatedAt)},
	}
}

// As returns v as the caller sees it.
func (v *Conversation) As(c Caller) *Conversation {
	v.Tags, v.Integration = c.view(v.AllTags), c.names().Alias(v.InstallationID)
	return v
}

// head is the row every write to a conversation locks first.
type head struct {
	conversationID, botID, installationID string
	seq, pos, lastAt                      int64
	bot                                   *auth.Bot // as whoever locked it knows it
}
