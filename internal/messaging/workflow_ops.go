package messaging

import (
	"context"
	"strings"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/page"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

func (s *Service) workflowOps() []api.Op {
	return []api.Op{
		api.Handle("createWorkflow", "POST /v1/chat/workflows", auth.Runtime, s.createWorkflow, api.Created, api.Doc("Creates a workflow and, if it is pending, tells the bot to start it.")),
		api.Handle("getWorkflow", "GET /v1/chat/workflows/{id}", auth.Runtime, s.getWorkflow, api.Doc("Returns a workflow.")),
		api.Handle("updateWorkflow", "PUT /v1/chat/workflows/{id}", auth.Runtime, s.updateWorkflow, api.Doc("Changes a workflow; what is completed, failed, cancelled or timed out stays so.")),
		api.Handle("deleteWorkflow", "DELETE /v1/chat/workflows/{id}", auth.Runtime, s.deleteWorkflow, api.Doc("Deletes a workflow.")),
		api.Handle("listWorkflows", "GET /v1/chat/workflows", auth.Runtime, s.listWorkflows, api.Doc("Lists workflows, newest first.")),
		api.Handle("getOrCreateWorkflow", "POST /v1/chat/workflows/get-or-create", auth.Runtime, s.getOrCreateWorkflow, api.Doc("Returns the workflow of this name with these tags, creating it if there is none.")),
	}
}

// ownCaller is Caller for what belongs to the bot itself.
func (s *Service) ownCaller(ctx context.Context, what string) (Caller, error) {
	c, err := s.Caller(ctx)
	if err == nil && c.Installation != nil {
		err = fault.Forbidden.New("%s belong to the bot; an integration has none", what)
	}
	return c, err
}

type workflowResult struct {
	Workflow *Workflow `json:"workflow"`
}

type createWorkflowInput struct {
	Name             string            `json:"name" min:"1" max:"200"`
	Status           string            `json:"status" enum:"pending,in_progress,listening"`
	Input            api.Object        `json:"input,omitempty"`
	ParentWorkflowID string            `json:"parentWorkflowId,omitempty" format:"id"`
	ConversationID   string            `json:"conversationId,omitempty" format:"id"`
	UserID           string            `json:"userId,omitempty" format:"id"`
	TimeoutAt        *api.Time         `json:"timeoutAt,omitempty"`
	Tags             map[string]string `json:"tags,omitempty"`
	EventID          string            `json:"eventId,omitempty" format:"id"`
}

// workflow checks what can be checked outside a transaction.
func (in createWorkflowInput) workflow(s *Service, c Caller, q sqldb.Q) (newWorkflow, error) {
	nw := newWorkflow{
		Name: in.Name, Status: in.Status, Input: in.Input, ParentWorkflowID: in.ParentWorkflowID, ConversationID: in.ConversationID, UserID: in.UserID,
		EventID: in.EventID, TimeoutAt: in.TimeoutAt, Tags: in.Tags,
	}
	if err := checkPayload("input", in.Input); err != nil {
		return nw, err
	}
	change := workflowChange{Status: in.Status, EventID: in.EventID, TimeoutAt: in.TimeoutAt}
	if err := change.check(&Workflow{Status: in.Status}, s.Now()); err != nil {
		return nw, err
	}
	if _, err := newTags(c, tag.Workflow, in.Tags); err != nil {
		return nw, err
	}
	return nw, s.checkWorkflow(q, c, nw)
}

func (s *Service) createWorkflow(ctx context.Context, in createWorkflowInput) (workflowResult, error) {
	c, err := s.ownCaller(ctx, "workflows")
	if err != nil {
		return workflowResult{}, err
	}
	nw, err := in.workflow(s, c, s.DB.Reader(ctx))
	if err != nil {
		return workflowResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (workflowResult, error) {
		w, err := s.addWorkflow(tx, c, nw)
		return workflowResult{w}, err
	})
}

func (s *Service) getWorkflow(ctx context.Context, in ref) (workflowResult, error) {
	c, err := s.ownCaller(ctx, "workflows")
	if err != nil {
		return workflowResult{}, err
	}
	w, err := s.Workflow(s.DB.Reader(ctx), c, in.ID)
	return workflowResult{w}, err
}

type getOrCreateWorkflowInput struct {
	Name                      string            `json:"name" min:"1" max:"200"`
	Status                    string            `json:"status" enum:"pending,in_progress,listening"`
	Input                     api.Object        `json:"input,omitempty"`
	ParentWorkflowID          string            `json:"parentWorkflowId,omitempty" format:"id"`
	ConversationID            string            `json:"conversationId,omitempty" format:"id"`
	UserID                    string            `json:"userId,omitempty" format:"id"`
	TimeoutAt                 *api.Time         `json:"timeoutAt,omitempty"`
	Tags                      map[string]string `json:"tags,omitempty"`
	EventID                   string            `json:"eventId,omitempty" format:"id"`
	DiscriminateByTags        []string          `json:"discriminateByTags,omitempty" each.max:"500"`
	DiscriminateByStatusGroup string            `json:"discriminateByStatusGroup,omitempty" enum:"active,finished"`
}

func (s *Service) getOrCreateWorkflow(ctx context.Context, in getOrCreateWorkflowInput) (workflowResult, error) {
	c, err := s.ownCaller(ctx, "workflows")
	if err != nil {
		return workflowResult{}, err
	}
	q := s.DB.Reader(ctx)
	nw, err := createWorkflowInput{
		in.Name, in.Status, in.Input, in.ParentWorkflowID, in.ConversationID, in.UserID, in.TimeoutAt, in.Tags, in.EventID,
	}.workflow(s, c, q)
	if err != nil {
		return workflowResult{}, err
	}
	key, err := newWorkflowKey(c, nw, in.DiscriminateByTags, in.DiscriminateByStatusGroup)
	if err != nil {
		return workflowResult{}, err
	}
	if w, err := key.find(q, c); err != nil || w != nil {
		return workflowResult{w}, err // the ordinary case needs no transaction
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (workflowResult, error) {
		w, err := s.getOrAddWorkflow(tx, c, nw, key)
		return workflowResult{w}, err
	})
}

type updateWorkflowInput struct {
	ID            string                          `path:"id"`
	Output        *api.Object                     `json:"output,omitempty"`
	TimeoutAt     *api.Time                       `json:"timeoutAt,omitempty"`
	Status        string                          `json:"status,omitempty" enum:"completed,cancelled,listening,paused,failed,in_progress"`
	FailureReason *string                         `json:"failureReason,omitempty" max:"2000"`
	Tags          map[string]api.Nullable[string] `json:"tags,omitempty"`
	UserID        string                          `json:"userId,omitempty" format:"id"`
	EventID       string                          `json:"eventId,omitempty" format:"id"`
}

func (s *Service) updateWorkflow(ctx context.Context, in updateWorkflowInput) (workflowResult, error) {
	c, err := s.ownCaller(ctx, "workflows")
	if err != nil {
		return workflowResult{}, err
	}
	change := workflowChange{
		Status: in.Status, EventID: in.EventID, UserID: in.UserID, Output: in.Output, TimeoutAt: in.TimeoutAt, FailureReason: in.FailureReason, Tags: values(in.Tags),
	}
	if err := s.admitChange(s.DB.Reader(ctx), c, in.ID, change); err != nil {
		return workflowResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (workflowResult, error) {
		w, err := s.changeWorkflow(tx, c, in.ID, change)
		return workflowResult{w}, err
	})
}

// admitChange refuses outside the transaction what it would refuse.
func (s *Service) admitChange(q sqldb.Q, c Caller, workflowID string, in workflowChange) error {
	w, err := s.Workflow(q, c, workflowID)
	if err != nil {
		return err
	}
	if err := in.check(w, s.Now()); err != nil {
		return err
	}
	if err := applyTags(c, tag.Workflow, w.AllTags, in.Tags); err != nil {
		return err
	}
	return s.checkWorkflow(q, c, newWorkflow{UserID: in.UserID, EventID: in.EventID})
}

func (s *Service) deleteWorkflow(ctx context.Context, in ref) (none, error) {
	c, err := s.ownCaller(ctx, "workflows")
	if err != nil {
		return none{}, err
	}
	if _, err := s.Workflow(s.DB.Reader(ctx), c, in.ID); err != nil {
		return none{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (none, error) {
		return none{}, s.dropWorkflow(tx, c, in.ID)
	})
}

type listWorkflowsInput struct {
	page.Query
	Tags             map[string]string `query:"tags"`
	ConversationID   string            `query:"conversationId" format:"id"`
	UserID           string            `query:"userId" format:"id"`
	ParentWorkflowID string            `query:"parentWorkflowId" format:"id"`
	Statuses         []string          `query:"statuses" enum:"pending,in_progress,failed,completed,listening,paused,timedout,cancelled"`
	Name             string            `query:"name"`
}

type workflowsResult struct {
	Workflows []*Workflow `json:"workflows"`
	Meta      page.Meta   `json:"meta"`
}

func (s *Service) listWorkflows(ctx context.Context, in listWorkflowsInput) (workflowsResult, error) {
	c, err := s.ownCaller(ctx, "workflows")
	if err != nil {
		return workflowsResult{}, err
	}
	l := newListing("workflows", c, "", "")
	l.of("conversation_id", in.ConversationID)
	l.of("user_id", in.UserID)
	l.of("parent_id", in.ParentWorkflowID)
	if in.Name != "" {
		l.And("e.name = ?", in.Name)
	}
	l.anyOf("status", in.Statuses)
	l.tagged(tag.Workflow, in.Tags)
	var out workflowsResult
	out.Workflows, out.Meta, err = s.workflowsPage(s.DB.Reader(ctx), l, in.Query)
	return out, err
}

// of keeps what belongs to something. That the column is not empty is said for
// its index, which has no empty ones.
func (l *listing) of(column, id string) {
	if id != "" {
		l.And("e."+column+" = ? AND e."+column+" <> ''", id)
	}
}

// anyOf keeps what has one of some values in a column; none given keeps all.
func (l *listing) anyOf(column string, values []string) {
	if len(values) == 0 {
		return
	}
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	l.And("e."+column+" IN ("+strings.Repeat("?, ", len(values)-1)+"?)", args...)
}
