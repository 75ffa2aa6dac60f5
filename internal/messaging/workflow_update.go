package messaging

import (
	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/id"
	"parley/internal/sqldb"
)

// Types of workflow_update events.
const (
	workflowStarted       = "workflow_started"
	workflowContinued     = "workflow_continued"
	workflowTimedOut      = "workflow_timedout"
	childWorkflowFinished = "child_workflow_finished"
	childWorkflowDeleted  = "child_workflow_deleted"
)

// workflowLane is where the bot is told of a workflow, in order and beside its
// conversations: background work must not hold a chat up.
func workflowLane(botID, workflowID string) string { return "bot:" + botID + ":workflow:" + workflowID }

// tell adds the event that tells the bot of w. What it says of w, its
// conversation and its user is put together when it is read.
func (s *Service) tell(tx *sqldb.Tx, botID, workflowID, what string, child *Workflow) (*Event, error) {
	var b api.Builder
	b.AddText("type", what)
	if child != nil {
		text, err := json.Marshal(child.named())
		if err != nil {
			return nil, err
		}
		b.Add("childWorkflow", text)
	}
	now := s.now()
	e := &Event{ID: id.At("evt", now), CreatedAt: api.Time(now), Type: eventWorkflowUpdate, Payload: b.Object(), Status: Pending, BotID: botID, WorkflowID: workflowID}
	return e, s.addEvent(tx, e)
}

// tellParent tells a parent that its child w has ended or was deleted.
func (s *Service) tellParent(tx *sqldb.Tx, w *Workflow, what string) error {
	if w.ParentWorkflowID == "" {
		return nil
	}
	parent, err := column(tx, "SELECT id FROM workflows WHERE id = $1 AND bot_id = $2", w.ParentWorkflowID, w.BotID)
	if err != nil || len(parent) == 0 {
		return err
	}
	_, err = s.tell(tx, w.BotID, w.ParentWorkflowID, what, w)
	return err
}

// workflowUpdate is what a workflow_update event says, "" for other events.
func (e *Event) workflowUpdate() string {
	if e.BareType != eventWorkflowUpdate || e.InstallationID != "" {
		return ""
	}
	what, _ := e.Payload.Member("type").Text()
	return what
}

// workflowParts are what the payloads of workflow_update events are put together from.
type workflowParts struct {
	workflows     map[string]*Workflow
	conversations map[string]*Conversation
	users         map[string]*User
}

// workflowParts reads what is told of the workflows of some events.
func (s *Service) workflowParts(q sqldb.Q, c Caller, events []*Event) (workflowParts, error) {
	p := workflowParts{map[string]*Workflow{}, map[string]*Conversation{}, map[string]*User{}}
	var ids, conversationIDs, userIDs []string
	for _, e := range events {
		if e.workflowUpdate() != "" {
			ids = append(ids, e.WorkflowID)
		}
	}
	workflows, err := manyByID[Workflow](q, "workflows", c, ids, func(w *Workflow) { w.named() })
	if err != nil {
		return p, err
	}
	for _, w := range workflows {
		p.workflows[w.ID] = w
		conversationIDs, userIDs = append(conversationIDs, w.ConversationID), append(userIDs, w.UserID)
	}
	conversations, err := s.Conversations(q, c, conversationIDs)
	if err != nil {
		return p, err
	}
	for _, v := range conversations {
		p.conversations[v.ID] = v
	}
	users, err := s.Users(q, c, userIDs)
	for _, u := range users {
		p.users[u.ID] = u
	}
	return p, err
}

// fill puts the payload of a workflow_update event together. What has been
// deleted since is left out.
func (p workflowParts) fill(e *Event) error {
	w := p.workflows[e.WorkflowID]
	if w == nil {
		return nil
	}
	out := workflowPayload{Type: e.workflowUpdate(), Workflow: w, Child: e.Payload.Member("childWorkflow"), Conversation: p.conversations[w.ConversationID], User: p.users[w.UserID]}
	var err error
	e.Payload, err = json.Marshal(out)
	return err
}

// workflowPayload is the payload of a workflow_update event.
type workflowPayload struct {
	Type         string        `json:"type"`
	Workflow     *Workflow     `json:"workflow"`
	Child        api.Raw       `json:"childWorkflow,omitzero"`
	Conversation *Conversation `json:"conversation,omitempty"`
	User         *User         `json:"user,omitempty"`
}

// fillWorkflowUpdate fills an event that is about to be delivered, or says why
// the bot is not to be told any more.
func (s *Service) fillWorkflowUpdate(q sqldb.Q, c Caller, e *Event) (why string, err error) {
	p, err := s.workflowParts(q, c, []*Event{e})
	if err != nil {
		return "", err
	}
	w := p.workflows[e.WorkflowID]
	if w == nil {
		return "the workflow was deleted before the bot was told", nil
	}
	bound := w.Status == InProgress && w.EventID == e.ID
	switch e.workflowUpdate() {
	case workflowStarted:
		bound = bound || w.Status == Pending
	case workflowContinued:
	default:
		bound = true
	}
	if !bound {
		return "the workflow is " + w.Status + " and not to be worked on for this event any more", nil
	}
	return "", p.fill(e)
}
