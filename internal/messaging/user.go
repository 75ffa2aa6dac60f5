package messaging

import (
	"parley/internal/api"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// User is somebody who takes part in conversations: a person of one
// installation, or the bot itself, whose id is the bot's.
type User struct {
	ID         string            `json:"id"`
	CreatedAt  api.Time          `json:"createdAt"`
	UpdatedAt  api.Time          `json:"updatedAt"`
	Tags       map[string]string `json:"tags"`
	Name       *string           `json:"name,omitempty"`
	PictureURL *string           `json:"pictureUrl,omitempty"`

	BotID          string  `json:"-"`
	InstallationID string  `json:"-"` // "" = made by the bot
	AllTags        tag.Set `json:"-"` // of every owner; Tags is the caller's view of them
}

// Columns binds the columns of table users.
func (u *User) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &u.ID},
		{Name: "bot_id", Field: &u.BotID},
		{Name: "installation_id", Field: &u.InstallationID},
		{Name: "name", Field: &u.Name},
		{Name: "picture_url", Field: &u.PictureURL},
		{Name: "tags", Field: sqldb.JSON(&u.AllTags)},
		{Name: "created_at", Field: (*int64)(&u.CreatedAt)},
		{Name: "updated_at", Field: (*int64)(&u.UpdatedAt)},
	}
}

// As returns u as the caller sees it.
func (u *User) As(c Caller) *User {
	u.Tags = c.view(u.AllTags)
	return u
}
