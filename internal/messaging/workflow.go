package messaging

import (
	"bytes"
	"slices"
	"time"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// Statuses of workflows and tasks, besides those they share with events.
const (
	InProgress = "in_progress"
	Listening  = "listening"
	Paused     = "paused"
	Completed  = "completed"
	Cancelled  = "cancelled"
	TimedOut   = "timedout" // a workflow; a task has "timeout"
)

// workflowGroups are the groups of statuses that a get-or-create tells apart.
var workflowGroups = map[string][]string{
	"active":   {Pending, InProgress, Listening, Paused},
	"finished": {Completed, Cancelled, Failed, TimedOut},
}

const (
	// workflowTime is what a workflow has if its maker says nothing.
	workflowTime = 5 * time.Minute
	// furthest is how far ahead anything may be planned.
	furthest = 10 * 365 * 24 * time.Hour
)

// Workflow is a piece of work of the bot that outlives the event it began with.
// Workflows belong to the bot itself; integrations have none.
type Workflow struct {
	ID               string            `json:"id"`
	Name             string            `json:"name"`
	Status           string            `json:"status"`
	Input            api.Object        `json:"input"`
	Output           api.Object        `json:"output"`
	ParentWorkflowID string            `json:"parentWorkflowId,omitempty"`
	ConversationID   string            `json:"conversationId,omitempty"`
	UserID           string            `json:"userId,omitempty"`
	CreatedAt        api.Time          `json:"createdAt"`
	UpdatedAt        api.Time          `json:"updatedAt"`
	CompletedAt      api.Time          `json:"completedAt,omitzero"`
	FailureReason    string            `json:"failureReason,omitempty"`
	TimeoutAt        api.Time          `json:"timeoutAt"`
	Tags             map[string]string `json:"tags"`

	BotID   string  `json:"-"`
	EventID string  `json:"-"` // the event whose handler works on it
	Tries   int64   `json:"-"` // times the bot was told in a row without anything coming of it
	AllTags tag.Set `json:"-"`
}

// Columns binds the columns of table workflows.
func (w *Workflow) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &w.ID},
		{Name: "bot_id", Field: &w.BotID},
		{Name: "name", Field: &w.Name},
		{Name: "status", Field: &w.Status},
		{Name: "input", Field: sqldb.JSON(&w.Input)},
		{Name: "output", Field: sqldb.JSON(&w.Output)},
		{Name: "parent_id", Field: &w.ParentWorkflowID},
		{Name: "conversation_id", Field: &w.ConversationID},
		{Name: "user_id", Field: &w.UserID},
		{Name: "event_id", Field: &w.EventID},
		{Name: "tries", Field: &w.Tries},
		{Name: "failure_reason", Field: &w.FailureReason},
		{Name: "tags", Field: sqldb.JSON(&w.AllTags)},
		{Name: "timeout_at", Field: (*int64)(&w.TimeoutAt)},
		{Name: "completed_at", Field: (*int64)(&w.CompletedAt)},
		{Name: "created_at", Field: (*int64)(&w.CreatedAt)},
		{Name: "updated_at", Field: (*int64)(&w.UpdatedAt)},
	}
}

// named fills the members that are kept in another form.
func (w *Workflow) named() *Workflow {
	w.Tags = ownTags(w.AllTags)
	return w
}

// ownTags are the tags of what only the bot tags.
func ownTags(s tag.Set) map[string]string {
	if own := s[""]; own != nil {
		return own
	}
	return map[string]string{}
}

// finished reports whether w has come to its end. What is finished stays so.
func (w *Workflow) finished() bool { return slices.Contains(workflowGroups["finished"], w.Status) }

// checkTimeout refuses an end that is too far away. One in the past is meant:
// the time is over at once.
func checkTimeout(at *api.Time, now time.Time) error {
	if at != nil && int64(*at) > now.Add(furthest).UnixMilli() {
		return fault.InvalidPayload.New("timeoutAt must lie within ten years from now")
	}
	return nil
}

// orElse is *at, or now and some time if at is nil.
func orElse(at *api.Time, now int64, some time.Duration) api.Time {
	if at != nil {
		return *at
	}
	return api.Time(now + some.Milliseconds())
}

// workflowChange is what changes on a workflow; what is nil or empty is left alone.
type workflowChange struct {
	Status, EventID, UserID string
	Output                  *api.Object
	TimeoutAt               *api.Time
	FailureReason           *string
	Tags                    map[string]string
}

// check refuses what may not become of w.
func (in workflowChange) check(w *Workflow, now time.Time) error {
	status := in.Status
	if status == "" {
		status = w.Status
	}
	switch {
	case in.Status == InProgress && in.EventID == "":
		return fault.InvalidPayload.New("eventId is required with status %q; it names the event whose handler does the work", InProgress)
	case in.EventID != "" && status != InProgress:
		return fault.InvalidPayload.New("eventId goes with status %q only, not with %q", InProgress, status)
	case in.FailureReason != nil && status != Failed:
		return fault.InvalidPayload.New("failureReason goes with status %q only, not with %q", Failed, status)
	}
	if err := checkTimeout(in.TimeoutAt, now); err != nil {
		return err
	}
	if in.Output != nil {
		if err := checkPayload("output", *in.Output); err != nil {
			return err
		}
	}
	if w.finished() && !in.keeps(w) && !(w.Status == TimedOut && in.onlyFails()) {
		return fault.InvalidPayload.New("Workflow %q is %s, which is final: only its tags and its user can change", w.ID, w.Status)
	}
	return nil
}

// keeps reports whether what is final on a finished workflow stays as it is, so
// that a request that is sent twice gets the same answer twice.
func (in workflowChange) keeps(w *Workflow) bool {
	return (in.Status == "" || in.Status == w.Status) &&
		in.EventID == "" &&
		(in.Output == nil || w.Status == Cancelled || bytes.Equal(*in.Output, w.Output)) &&
		(in.TimeoutAt == nil || *in.TimeoutAt == w.TimeoutAt) &&
		(in.FailureReason == nil || *in.FailureReason == w.FailureReason)
}

// onlyFails is what bots do when they are told that a workflow has timed out:
// they say what that means.
func (in workflowChange) onlyFails() bool {
	return in.Status == Failed && in.Output == nil && in.TimeoutAt == nil
}
