package messaging

import (
	"errors"
	"strings"

	"parley/internal/api"
	"parley/internal/id"
	"parley/internal/page"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// workflow reads one workflow the caller may see, nil if there is none.
func (s *Service) workflow(q sqldb.Q, c Caller, workflowID string) (*Workflow, error) {
	if c.Installation != nil {
		return nil, nil
	}
	return oneWorkflow(q, "WHERE id = $1 AND bot_id = $2", workflowID, c.Bot.ID)
}

// oneWorkflow reads the first workflow that matches, nil if there is none.
func oneWorkflow(q sqldb.Q, tail string, args ...any) (*Workflow, error) {
	w, err := sqldb.One[Workflow](q, "workflows", tail, args...)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return w.named(), nil
}

// Workflow reads one workflow of the caller; what is missing is a client's error.
func (s *Service) Workflow(q sqldb.Q, c Caller, workflowID string) (*Workflow, error) {
	w, err := s.workflow(q, c, workflowID)
	if err == nil && w == nil {
		err = c.missing("Workflow", workflowID)
	}
	return w, err
}

// workflowReference is Workflow for an id in a body.
func (s *Service) workflowReference(q sqldb.Q, c Caller, workflowID string) (*Workflow, error) {
	w, err := s.workflow(q, c, workflowID)
	if err == nil && w == nil {
		err = c.dangling("Workflow", workflowID)
	}
	return w, err
}

// lockWorkflow is Workflow for the rest of the transaction. The row of a
// workflow is the first thing that every change of it locks.
func (s *Service) lockWorkflow(tx *sqldb.Tx, c Caller, workflowID string) (*Workflow, error) {
	w, err := oneWorkflow(tx, "WHERE id = $1 AND bot_id = $2 {for_update}", workflowID, c.Bot.ID)
	if err == nil && w == nil {
		err = c.missing("Workflow", workflowID)
	}
	return w, err
}

// newWorkflow is what a workflow is made of.
type newWorkflow struct {
	Name, Status                                      string
	Input                                             api.Object
	ParentWorkflowID, ConversationID, UserID, EventID string
	TimeoutAt                                         *api.Time
	Tags                                              map[string]string
}

// checkWorkflow refuses a workflow about something the caller cannot reach.
func (s *Service) checkWorkflow(q sqldb.Q, c Caller, in newWorkflow) error {
	if in.ParentWorkflowID != "" {
		if _, err := s.workflowReference(q, c, in.ParentWorkflowID); err != nil {
			return err
		}
	}
	if in.EventID != "" {
		if err := s.checkEvent(q, c, in.EventID); err != nil {
			return err
		}
	}
	return s.checkReferences(q, c, NewEvent{ConversationID: in.ConversationID, UserID: in.UserID})
}

// checkEvent refuses the id of an event the caller cannot reach.
func (s *Service) checkEvent(q sqldb.Q, c Caller, eventID string) error {
	rows, err := column(q, "SELECT id FROM events WHERE bot_id = $1 AND id = $2", c.Bot.ID, eventID)
	if err == nil && len(rows) == 0 {
		err = c.dangling("Event", eventID)
	}
	return err
}

// addWorkflow makes a workflow, with the timer that ends it, and tells the bot
// to begin with it unless somebody does already.
func (s *Service) addWorkflow(tx *sqldb.Tx, c Caller, in newWorkflow) (*Workflow, error) {
	if err := s.checkWorkflow(tx, c, in); err != nil {
		return nil, err
	}
	set, err := newTags(c, tag.Workflow, in.Tags)
	if err != nil {
		return nil, err
	}
	now := s.now()
	w := &Workflow{
		ID: id.At("wrkflow", now), BotID: c.Bot.ID, Name: in.Name, Status: in.Status, Input: in.Input, ParentWorkflowID: in.ParentWorkflowID,
		ConversationID: in.ConversationID, UserID: in.UserID, CreatedAt: api.Time(now), UpdatedAt: api.Time(now),
		TimeoutAt: orElse(in.TimeoutAt, now, workflowTime), AllTags: set,
	}
	if _, err := sqldb.Insert(tx, "workflows", w); err != nil {
		return nil, err
	}
	if err := writeTags(tx, entity{w.BotID, tag.Workflow, w.ID, now}, nil, set); err != nil {
		return nil, err
	}
	if err := s.setTimeout(tx, w); err != nil {
		return nil, err
	}
	switch w.Status {
	case Pending:
		err = s.start(tx, w)
	case InProgress:
		err = s.bind(tx, c, w, in.EventID)
	}
	if err != nil {
		return nil, err
	}
	return w.named(), s.saveWorkflow(tx, w)
}

// saveWorkflow writes a locked workflow.
func (s *Service) saveWorkflow(tx *sqldb.Tx, w *Workflow) error {
	return sqldb.Update(tx, "workflows", w, sqldb.Column{Name: "id", Field: &w.ID})
}

// workflowKey is what a get-or-create of a workflow looks for: one of that name
// with these tags, which may be none, in a group of statuses if one is given.
type workflowKey struct {
	discriminator
	name, group string
}

func newWorkflowKey(c Caller, in newWorkflow, by []string, group string) (workflowKey, error) {
	set, err := newTags(c, tag.Workflow, in.Tags)
	if err != nil || len(set) == 0 && len(by) == 0 {
		return workflowKey{discriminator{whole: true}, in.Name, group}, err
	}
	d, err := discriminators(c, in.Tags, by)
	return workflowKey{d, in.Name, group}, err
}

// find returns the newest workflow that k means, nil if there is none.
func (k workflowKey) find(q sqldb.Q, c Caller) (*Workflow, error) {
	w, from, order := &sqldb.Where{}, "workflows e", "e.created_at DESC, e.id DESC"
	if len(k.tags) > 0 {
		var err error
		if w, err = k.where(q, c, tag.Workflow); err != nil {
			return nil, err
		}
		from, order = "tags t JOIN workflows e ON e.id = t.entity", "t.created_at DESC, t.entity DESC"
	}
	w.And("e.bot_id = ? AND e.name = ?", c.Bot.ID, k.name)
	if k.group != "" {
		w.And("e.status IN ('" + strings.Join(workflowGroups[k.group], "', '") + "')") // literals, so that the partial index serves it
	}
	if k.whole {
		set := tag.Set{}
		set.Apply("", k.tags)
		w.And("e.tags = ?", sqldb.JSON(&set)) // as Insert writes it
	}
	ids, err := column(q, "SELECT e.id FROM "+from+" "+w.String()+" ORDER BY "+order+" LIMIT 1", w.Args...)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	return oneWorkflow(q, "WHERE id = $1", ids[0])
}

// getOrAddWorkflow finds the workflow that key means, or makes one.
func (s *Service) getOrAddWorkflow(tx *sqldb.Tx, c Caller, in newWorkflow, key workflowKey) (*Workflow, error) {
	if err := key.lock(tx, c, tag.Workflow, key.name); err != nil {
		return nil, err
	}
	if w, err := key.find(tx, c); err != nil || w != nil {
		return w, err
	}
	return s.addWorkflow(tx, c, in)
}

// changeWorkflow changes a workflow and does what follows from it.
func (s *Service) changeWorkflow(tx *sqldb.Tx, c Caller, workflowID string, in workflowChange) (*Workflow, error) {
	w, err := s.lockWorkflow(tx, c, workflowID)
	if err != nil {
		return nil, err
	}
	if err := in.check(w, s.Now()); err != nil {
		return nil, err
	}
	if in.UserID != "" {
		if _, err := s.userReference(tx, c, in.UserID); err != nil {
			return nil, err
		}
		w.UserID = in.UserID
	}
	before := w.AllTags.Clone()
	if err := applyTags(c, tag.Workflow, w.AllTags, in.Tags); err != nil {
		return nil, err
	}
	if err := writeTags(tx, entity{w.BotID, tag.Workflow, w.ID, int64(w.CreatedAt)}, before, w.AllTags); err != nil {
		return nil, err
	}
	if in.TimeoutAt != nil && *in.TimeoutAt != w.TimeoutAt {
		w.TimeoutAt = *in.TimeoutAt
		if err := s.setTimeout(tx, w); err != nil {
			return nil, err
		}
	}
	if in.Output != nil {
		w.Output = *in.Output
	}
	if in.FailureReason != nil {
		w.FailureReason = *in.FailureReason
	}
	w.UpdatedAt = api.Time(max(s.now(), int64(w.CreatedAt)))
	if err := s.become(tx, c, w, in.Status, in.EventID); err != nil {
		return nil, err
	}
	return w.named(), s.saveWorkflow(tx, w)
}

// dropWorkflow deletes a workflow and tells its parent; what hangs on it is swept.
func (s *Service) dropWorkflow(tx *sqldb.Tx, c Caller, workflowID string) error {
	w, err := s.lockWorkflow(tx, c, workflowID)
	if err != nil {
		return err
	}
	for _, statement := range []string{"DELETE FROM workflows WHERE id = $1", "DELETE FROM tags WHERE entity = $1"} {
		if _, err := tx.Exec(statement, w.ID); err != nil {
			return err
		}
	}
	if err := s.cancelTimers(tx, w); err != nil {
		return err
	}
	if err := s.tellParent(tx, w, childWorkflowDeleted); err != nil {
		return err
	}
	return s.bury(tx, tag.Workflow, w.BotID, w.ID)
}

// sweepWorkflow removes a chunk of what hung on a deleted workflow.
func sweepWorkflow(tx *sqldb.Tx, botID, workflowID string) (int64, error) {
	n, err := first(tx, workflowLane(botID, workflowID),
		"DELETE FROM events WHERE lane = $1 AND lane_seq IN (SELECT lane_seq FROM events WHERE lane = $1 LIMIT $2)",
		"DELETE FROM lanes WHERE key = $1 AND due = 9223372036854775807 AND $2 > 0",
	)
	if err != nil || n > 0 {
		return n, err
	}
	return sweepStates(tx, workflowID)
}

// workflowsPage reads a page of workflows, newest first.
func (s *Service) workflowsPage(q sqldb.Q, l *listing, pq page.Query) ([]*Workflow, page.Meta, error) {
	return list(q, l, pq, func(w *Workflow) (int64, string) {
		w.named()
		return int64(w.CreatedAt), w.ID
	})
}
