package messaging

import (
	"context"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/once"
	"parley/internal/page"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

func (s *Service) taskOps() []api.Op {
	return []api.Op{
		api.Handle("createTask", "POST /v1/chat/tasks", auth.Runtime, s.createTask, api.Created, api.Doc("Creates a task in a conversation.")),
		api.Handle("getTask", "GET /v1/chat/tasks/{id}", auth.Runtime, s.getTask, api.Doc("Returns a task.")),
		api.Handle("updateTask", "PUT /v1/chat/tasks/{id}", auth.Runtime, s.updateTask, api.Doc("Changes a task; one that is completed, failed, cancelled or out of time stays so.")),
		api.Handle("deleteTask", "DELETE /v1/chat/tasks/{id}", auth.Runtime, s.deleteTask, api.Doc("Deletes a task.")),
		api.Handle("listTasks", "GET /v1/chat/tasks", auth.Runtime, s.listTasks, api.Doc("Lists tasks, newest first.")),
	}
}

type taskResult struct {
	Task *Task `json:"task"`
}

type createTaskInput struct {
	Title          string            `json:"title,omitempty" max:"2000"`
	Description    string            `json:"description,omitempty" max:"20000"`
	Type           string            `json:"type" min:"1" max:"200"`
	Data           api.Object        `json:"data,omitempty"`
	ParentTaskID   string            `json:"parentTaskId,omitempty" format:"id"`
	ConversationID string            `json:"conversationId" format:"id"`
	UserID         string            `json:"userId,omitempty" format:"id"`
	TimeoutAt      *api.Time         `json:"timeoutAt,omitempty"`
	Tags           map[string]string `json:"tags,omitempty"`
}

func (s *Service) createTask(ctx context.Context, in createTaskInput) (taskResult, error) {
	c, err := s.ownCaller(ctx, "tasks")
	if err != nil {
		return taskResult{}, err
	}
	nt := newTask{in.Type, in.Title, in.Description, in.Data, in.ParentTaskID, in.ConversationID, in.UserID, in.TimeoutAt, in.Tags}
	if err := (taskChange{Data: &in.Data, TimeoutAt: in.TimeoutAt}).check(&Task{}, s.Now()); err != nil {
		return taskResult{}, err
	}
	if _, err := newTags(c, tag.Task, in.Tags); err != nil {
		return taskResult{}, err
	}
	if err := s.checkTask(s.DB.Reader(ctx), c, nt); err != nil {
		return taskResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (taskResult, error) {
		t, err := s.addTask(tx, c, nt)
		return taskResult{t}, err
	})
}

func (s *Service) getTask(ctx context.Context, in ref) (taskResult, error) {
	c, err := s.ownCaller(ctx, "tasks")
	if err != nil {
		return taskResult{}, err
	}
	t, err := s.Task(s.DB.Reader(ctx), c, in.ID)
	return taskResult{t}, err
}

type updateTaskInput struct {
	ID          string                          `path:"id"`
	Title       *string                         `json:"title,omitempty" max:"2000"`
	Description *string                         `json:"description,omitempty" max:"20000"`
	Data        *api.Object                     `json:"data,omitempty"`
	TimeoutAt   *api.Time                       `json:"timeoutAt,omitempty"`
	Status      string                          `json:"status,omitempty" enum:"pending,in_progress,failed,completed,blocked,paused,timeout,cancelled"`
	Tags        map[string]api.Nullable[string] `json:"tags,omitempty"`
}

func (s *Service) updateTask(ctx context.Context, in updateTaskInput) (taskResult, error) {
	c, err := s.ownCaller(ctx, "tasks")
	if err != nil {
		return taskResult{}, err
	}
	change := taskChange{in.Title, in.Description, in.Data, in.Status, in.TimeoutAt, values(in.Tags)}
	t, err := s.Task(s.DB.Reader(ctx), c, in.ID)
	if err != nil {
		return taskResult{}, err
	}
	if err := firstOf(change.check(t, s.Now()), applyTags(c, tag.Task, t.AllTags, change.Tags)); err != nil {
		return taskResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (taskResult, error) {
		t, err := s.changeTask(tx, c, in.ID, change)
		return taskResult{t}, err
	})
}

func (s *Service) deleteTask(ctx context.Context, in ref) (none, error) {
	c, err := s.ownCaller(ctx, "tasks")
	if err != nil {
		return none{}, err
	}
	if _, err := s.Task(s.DB.Reader(ctx), c, in.ID); err != nil {
		return none{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (none, error) {
		return none{}, s.dropTask(tx, c, in.ID)
	})
}

type listTasksInput struct {
	page.Query
	Tags           map[string]string `query:"tags"`
	ConversationID string            `query:"conversationId" format:"id"`
	UserID         string            `query:"userId" format:"id"`
	ParentTaskID   string            `query:"parentTaskId" format:"id"`
	Status         []string          `query:"status" enum:"pending,in_progress,failed,completed,blocked,paused,timeout,cancelled"`
	Type           string            `query:"type"`
}

type tasksResult struct {
	Tasks []*Task   `json:"tasks"`
	Meta  page.Meta `json:"meta"`
}

func (s *Service) listTasks(ctx context.Context, in listTasksInput) (tasksResult, error) {
	c, err := s.ownCaller(ctx, "tasks")
	if err != nil {
		return tasksResult{}, err
	}
	l := newListing("tasks", c, "", "")
	l.of("conversation_id", in.ConversationID)
	l.of("user_id", in.UserID)
	l.of("parent_id", in.ParentTaskID)
	l.anyOf("status", in.Status)
	if in.Type != "" {
		l.And("e.type = ?", in.Type)
	}
	l.tagged(tag.Task, in.Tags)
	var out tasksResult
	out.Tasks, out.Meta, err = list(s.DB.Reader(ctx), l, in.Query, func(t *Task) (int64, string) {
		t.named()
		return int64(t.CreatedAt), t.ID
	})
	return out, err
}
