package messaging

import (
	"slices"
	"time"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// timeout is the status of a task whose time is over.
const timeout = "timeout"

// taskTime is what a task has if its maker says nothing: people work on it.
const taskTime = 24 * time.Hour

// Task is something to be done in a conversation, by whoever looks for it: the
// server keeps it and its time, and tells nobody. Tasks belong to the bot.
type Task struct {
	ID             string            `json:"id"`
	Title          string            `json:"title"`
	Description    string            `json:"description"`
	Type           string            `json:"type"`
	Data           api.Object        `json:"data"`
	Status         string            `json:"status"`
	ParentTaskID   string            `json:"parentTaskId,omitempty"`
	ConversationID string            `json:"conversationId,omitempty"`
	UserID         string            `json:"userId,omitempty"`
	TimeoutAt      api.Time          `json:"timeoutAt"`
	CreatedAt      api.Time          `json:"createdAt"`
	UpdatedAt      api.Time          `json:"updatedAt"`
	Tags           map[string]string `json:"tags"`

	BotID   string  `json:"-"`
	AllTags tag.Set `json:"-"`
}

// Columns binds the columns of table tasks.
func (t *Task) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &t.ID},
		{Name: "bot_id", Field: &t.BotID},
		{Name: "type", Field: &t.Type},
		{Name: "title", Field: &t.Title},
		{Name: "description", Field: &t.Description},
		{Name: "data", Field: sqldb.JSON(&t.Data)},
		{Name: "status", Field: &t.Status},
		{Name: "parent_id", Field: &t.ParentTaskID},
		{Name: "conversation_id", Field: &t.ConversationID},
		{Name: "user_id", Field: &t.UserID},
		{Name: "tags", Field: sqldb.JSON(&t.AllTags)},
		{Name: "timeout_at", Field: (*int64)(&t.TimeoutAt)},
		{Name: "created_at", Field: (*int64)(&t.CreatedAt)},
		{Name: "updated_at", Field: (*int64)(&t.UpdatedAt)},
	}
}

// named fills the members that are kept in another form.
func (t *Task) named() *Task {
	t.Tags = ownTags(t.AllTags)
	return t
}

// finished reports whether t has come to its end. What is finished stays so.
func (t *Task) finished() bool {
	return slices.Contains([]string{Completed, Failed, Cancelled, timeout}, t.Status)
}

// taskChange is what changes on a task; what is nil or empty is left alone.
type taskChange struct {
	Title, Description *string
	Data               *api.Object
	Status             string
	TimeoutAt          *api.Time
	Tags               map[string]string
}

// check refuses what may not become of t.
func (in taskChange) check(t *Task, now time.Time) error {
	if err := checkTimeout(in.TimeoutAt, now); err != nil {
		return err
	}
	if in.Data != nil {
		if err := checkPayload("data", *in.Data); err != nil {
			return err
		}
	}
	same := (in.Status == "" || in.Status == t.Status) && (in.TimeoutAt == nil || *in.TimeoutAt == t.TimeoutAt)
	if t.finished() && !same {
		return fault.InvalidPayload.New("Task %q has the status %q, which is final: its status and timeoutAt cannot change", t.ID, t.Status)
	}
	return nil
}
