package messaging

import (
	"errors"

	"parley/internal/api"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/tag"
	"parley/internal/timer"
)

// timerTaskTimeout is the kind of the timers of tasks; their ids are those of the tasks.
const timerTaskTimeout = "task_timeout"

// task reads one task the caller may see, nil if there is none.
func (s *Service) task(q sqldb.Q, c Caller, taskID string) (*Task, error) {
	if c.Installation != nil {
		return nil, nil
	}
	return oneTask(q, "WHERE id = $1 AND bot_id = $2", taskID, c.Bot.ID)
}

// oneTask reads the first task that matches, nil if there is none.
func oneTask(q sqldb.Q, tail string, args ...any) (*Task, error) {
	t, err := sqldb.One[Task](q, "tasks", tail, args...)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return t.named(), nil
}

// Task reads one task of the caller; what is missing is a client's error.
func (s *Service) Task(q sqldb.Q, c Caller, taskID string) (*Task, error) {
	t, err := s.task(q, c, taskID)
	if err == nil && t == nil {
		err = c.missing("Task", taskID)
	}
	return t, err
}

// taskReference is Task for an id in a body.
func (s *Service) taskReference(q sqldb.Q, c Caller, taskID string) (*Task, error) {
	t, err := s.task(q, c, taskID)
	if err == nil && t == nil {
		err = c.dangling("Task", taskID)
	}
	return t, err
}

// lockTask is Task for the rest of the transaction: the task first, then its timer.
func (s *Service) lockTask(tx *sqldb.Tx, c Caller, taskID string) (*Task, error) {
	t, err := oneTask(tx, "WHERE id = $1 AND bot_id = $2 {for_update}", taskID, c.Bot.ID)
	if err == nil && t == nil {
		err = c.missing("Task", taskID)
	}
	return t, err
}

// newTask is what a task is made of.
type newTask struct {
	Type, Title, Description             string
	Data                                 api.Object
	ParentTaskID, ConversationID, UserID string
	TimeoutAt                            *api.Time
	Tags                                 map[string]string
}

// checkTask refuses a task about something the caller cannot reach.
func (s *Service) checkTask(q sqldb.Q, c Caller, in newTask) error {
	if in.ParentTaskID != "" {
		if _, err := s.taskReference(q, c, in.ParentTaskID); err != nil {
			return err
		}
	}
	return s.checkReferences(q, c, NewEvent{ConversationID: in.ConversationID, UserID: in.UserID})
}

// addTask makes a task, with the timer that ends it.
func (s *Service) addTask(tx *sqldb.Tx, c Caller, in newTask) (*Task, error) {
	if err := s.checkTask(tx, c, in); err != nil {
		return nil, err
	}
	set, err := newTags(c, tag.Task, in.Tags)
	if err != nil {
		return nil, err
	}
	now := s.now()
	t := &Task{
		ID: id.At("task", now), BotID: c.Bot.ID, Type: in.Type, Title: in.Title, Description: in.Description, Data: in.Data, Status: Pending,
		ParentTaskID: in.ParentTaskID, ConversationID: in.ConversationID, UserID: in.UserID, TimeoutAt: orElse(in.TimeoutAt, now, taskTime),
		CreatedAt: api.Time(now), UpdatedAt: api.Time(now), AllTags: set,
	}
	if _, err := sqldb.Insert(tx, "tasks", t); err != nil {
		return nil, err
	}
	if err := writeTags(tx, entity{t.BotID, tag.Task, t.ID, now}, nil, set); err != nil {
		return nil, err
	}
	return t.named(), s.setTaskTimeout(tx, t)
}

func (s *Service) setTaskTimeout(tx *sqldb.Tx, t *Task) error {
	return s.Timers.Set(tx, timer.Timer{Kind: timerTaskTimeout, ID: t.ID, BotID: t.BotID, Due: int64(t.TimeoutAt)})
}

// changeTask changes a task and sets its timer right.
func (s *Service) changeTask(tx *sqldb.Tx, c Caller, taskID string, in taskChange) (*Task, error) {
	t, err := s.lockTask(tx, c, taskID)
	if err != nil {
		return nil, err
	}
	if err := in.check(t, s.Now()); err != nil {
		return nil, err
	}
	before := t.AllTags.Clone()
	if err := applyTags(c, tag.Task, t.AllTags, in.Tags); err != nil {
		return nil, err
	}
	if err := writeTags(tx, entity{t.BotID, tag.Task, t.ID, int64(t.CreatedAt)}, before, t.AllTags); err != nil {
		return nil, err
	}
	if in.Title != nil {
		t.Title = *in.Title
	}
	if in.Description != nil {
		t.Description = *in.Description
	}
	if in.Data != nil {
		t.Data = *in.Data
	}
	if in.Status != "" {
		t.Status = in.Status
	}
	if in.TimeoutAt != nil {
		t.TimeoutAt = *in.TimeoutAt
	}
	switch {
	case t.finished():
		_, err = s.Timers.Cancel(tx, timerTaskTimeout, t.ID)
	case in.TimeoutAt != nil:
		err = s.setTaskTimeout(tx, t)
	}
	if err != nil {
		return nil, err
	}
	t.UpdatedAt = api.Time(max(s.now(), int64(t.CreatedAt)))
	return t.named(), s.saveTask(tx, t)
}

func (s *Service) saveTask(tx *sqldb.Tx, t *Task) error {
	return sqldb.Update(tx, "tasks", t, sqldb.Column{Name: "id", Field: &t.ID})
}

// fireTaskTimeout ends a task whose time is over. Like every timer that fires
// it waits for nobody who holds the task.
func (s *Service) fireTaskTimeout(tx *sqldb.Tx, fired timer.Timer) error {
	t, err := oneTask(tx, "WHERE id = $1 {skip_locked}", fired.ID)
	if err != nil {
		return err
	}
	if t == nil {
		there, err := column(tx, "SELECT id FROM tasks WHERE id = $1", fired.ID)
		if err == nil && len(there) > 0 {
			err = s.comeBack(tx, fired)
		}
		return err
	}
	switch {
	case t.finished():
		return nil
	case int64(t.TimeoutAt) > s.now():
		return s.setTaskTimeout(tx, t)
	}
	t.Status, t.UpdatedAt = timeout, api.Time(max(s.now(), int64(t.CreatedAt)))
	return s.saveTask(tx, t)
}

// dropTask deletes a task; the states that hang on it are swept.
func (s *Service) dropTask(tx *sqldb.Tx, c Caller, taskID string) error {
	t, err := s.lockTask(tx, c, taskID)
	if err != nil {
		return err
	}
	for _, statement := range []string{
		"UPDATE conversations SET current_task_id = '' WHERE id = (SELECT conversation_id FROM tasks WHERE id = $1) AND current_task_id = $1",
		"DELETE FROM tasks WHERE id = $1",
		"DELETE FROM tags WHERE entity = $1",
	} {
		if _, err := tx.Exec(statement, t.ID); err != nil {
			return err
		}
	}
	tx.AfterCommit(func() { s.conversations.Drop(t.ConversationID) })
	if _, err := s.Timers.Cancel(tx, timerTaskTimeout, t.ID); err != nil {
		return err
	}
	return s.bury(tx, tag.Task, t.BotID, t.ID)
}

// sweepTask removes a chunk of what hung on a deleted task.
func sweepTask(tx *sqldb.Tx, taskID string) (int64, error) {
	return sweepStates(tx, taskID)
}
