package messaging

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

const tasksPath = "/v1/chat/tasks"

func (r *rig) task(body string) map[string]any {
	r.Helper()
	return r.ok(botOfA, "POST", tasksPath, body, "task")
}

func TestTasks(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{}`)
		plain := r.task(fmt.Sprintf(`{"type":"call","conversationId":%q}`, conv))
		want := map[string]any{
			"id": plain["id"], "type": "call", "conversationId": conv, "title": "", "description": "", "data": map[string]any{}, "status": "pending",
			"tags": map[string]any{}, "createdAt": plain["createdAt"], "updatedAt": plain["createdAt"], "timeoutAt": plain["timeoutAt"],
		}
		created, _ := time.Parse(time.RFC3339, plain["createdAt"].(string))
		ends, _ := time.Parse(time.RFC3339, plain["timeoutAt"].(string))
		if diff := cmp.Diff(want, plain); diff != "" || ends.Sub(created) != taskTime || !strings.HasPrefix(plain["id"].(string), "task_") {
			r.Errorf("created %v: %s", plain, diff)
		}
		full := r.task(fmt.Sprintf(`{"type":"visit","conversationId":%q,"userId":%q,"parentTaskId":%q,"title":"T","description":"D","data":{"a":1},"timeoutAt":"2030-01-01T00:00:00.000Z","tags":{"key":"k"}}`,
			conv, user, plain["id"]))
		path := tasksPath + "/" + full["id"].(string)
		if got := r.ok(botOfA, "GET", path, "", "task"); cmp.Diff(full, got) != "" || got["parentTaskId"] != plain["id"] || got["userId"] != user || got["tags"].(map[string]any)["key"] != "k" {
			r.Errorf("read back %v, created %v", got, full)
		}
		got := r.ok(botOfA, "PUT", path, `{"title":"","description":"E","data":{"b":2},"status":"blocked","timeoutAt":"2031-01-01T00:00:00.000Z","tags":{"key":null,"other":"o"}}`, "task")
		if got["title"] != "" || got["description"] != "E" || cmp.Diff(map[string]any{"b": 2.0}, got["data"]) != "" || got["status"] != "blocked" ||
			got["timeoutAt"] != "2031-01-01T00:00:00.000Z" || cmp.Diff(map[string]any{"other": "o"}, got["tags"]) != "" {
			r.Errorf("updated %v", got)
		}
		for query, want := range map[string]int{
			"": 2, "?type=visit": 1, "?type=vis": 0, "?status=pending": 1, "?status=pending&status=blocked": 2, "?status=timeout": 0, "?conversationId=" + conv: 2,
			"?conversationId=" + id.New("conv"): 0, "?userId=" + user: 1, "?parentTaskId=" + plain["id"].(string): 1, "?tags.other=o": 1, "?tags.key=k": 0,
		} {
			if got := r.pages(botOfA, tasksPath+query, "tasks", nil); len(got) != want {
				r.Errorf("%q lists %v, want %d", query, got, want)
			}
		}
		if got := r.pages(botOfB, tasksPath, "tasks", nil); got != nil {
			r.Errorf("another bot lists %v", got)
		}
		convPath := "/v1/chat/conversations/" + conv
		if got := r.ok(botOfA, "PUT", convPath, fmt.Sprintf(`{"currentTaskId":%q}`, full["id"]), "conversation"); got["currentTaskId"] != full["id"] {
			r.Errorf("the conversation is %v", got)
		}
		if got := r.ok(botOfA, "PUT", convPath, `{"tags":{"seen":"1"}}`, "conversation"); got["currentTaskId"] != full["id"] {
			r.Errorf("after another change it is %v", got)
		}
		elsewhere := r.conversation(hookOfA, "hook", `{}`)
		for at, c := range map[string]struct{ task, kind string }{
			convPath:                              {id.New("task"), "ReferenceNotFound"},
			"/v1/chat/conversations/" + elsewhere: {plain["id"].(string), "RelationConflict"},
		} {
			if status, out := r.do(botOfA, "PUT", at, fmt.Sprintf(`{"currentTaskId":%q}`, c.task)); out["type"] != c.kind {
				r.Errorf("the current task %s: %d %v, want %s", c.task, status, out, c.kind)
			}
		}
		r.ok(botOfA, "DELETE", path, "{}", "")
		if got := r.ok(botOfA, "GET", convPath, "", "conversation"); got["currentTaskId"] != nil {
			r.Errorf("the current task was deleted and the conversation is %v", got)
		}
		if status, _ := r.do(botOfA, "GET", path, ""); status != 404 {
			r.Errorf("a deleted task answers %d", status)
		}
		if n := r.count("SELECT count(*) FROM timers WHERE id = $1", full["id"]) + r.count("SELECT count(*) FROM tags WHERE entity = $1", full["id"]); n != 0 {
			r.Errorf("%d timers and tags outlived the task", n)
		}
	})
}

func TestTaskTimesOut(t *testing.T) {
	each(t, func(r *rig) {
		conv := r.conversation(hookOfA, "hook", `{}`)
		status := func(id any) any {
			return r.ok(botOfA, "GET", tasksPath+"/"+id.(string), "", "task")["status"]
		}
		late := r.task(fmt.Sprintf(`{"type":"t","conversationId":%q,"timeoutAt":"2001-01-01T00:00:00.000Z"}`, conv))["id"]
		done := r.task(fmt.Sprintf(`{"type":"t","conversationId":%q}`, conv))["id"]
		more := r.task(fmt.Sprintf(`{"type":"t","conversationId":%q,"timeoutAt":"2001-01-01T00:00:00.000Z"}`, conv))["id"]
		r.ok(botOfA, "PUT", tasksPath+"/"+done.(string), `{"status":"completed"}`, "task")
		r.ok(botOfA, "PUT", tasksPath+"/"+more.(string), `{"timeoutAt":"2030-01-01T00:00:00.000Z"}`, "task")
		r.fire()
		if status(late) != "timeout" || status(done) != "completed" || status(more) != "pending" {
			r.Errorf("they are %v, %v and %v", status(late), status(done), status(more))
		}
		r.hasten(timerTaskTimeout)
		if n := r.count("SELECT count(*) FROM timers"); status(more) != "pending" || n != 1 {
			r.Errorf("a timer before its time leaves %v and %d timers", status(more), n)
		}
		for _, id := range []any{late, done} {
			path := tasksPath + "/" + id.(string)
			for _, body := range []string{`{"status":"pending"}`, `{"status":"failed"}`, `{"timeoutAt":"2030-01-01T00:00:00.000Z"}`} {
				if code, out := r.do(botOfA, "PUT", path, body); code != 400 || out["type"] != "InvalidPayload" || !strings.Contains(out["message"].(string), "final") {
					r.Errorf("%s of a finished task: %d %v", body, code, out)
				}
			}
			r.ok(botOfA, "PUT", path, `{"title":"afterwards","status":"`+status(id).(string)+`"}`, "task")
		}
		if len(r.updates()) != 0 {
			r.Errorf("the bot was told %v", r.updates())
		}
	})
}

// A timer that fires does not wait for somebody who has locked its task or
// workflow, for they may wait for the timer.
func TestTimersWaitForNobody(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		one, two := newRig(t, a), newRig(t, b)
		conv := one.conversation(hookOfA, "hook", `{}`)
		task := one.task(fmt.Sprintf(`{"type":"t","conversationId":%q}`, conv))["id"].(string)
		w := one.workflow(`{"name":"w","status":"listening"}`)["id"].(string)
		c, err := one.s.CallerFor(one.Context(), botA, "")
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			soon := api.Time(one.s.now() - 1)
			fired := make(chan struct{})
			one.write(func(tx *sqldb.Tx) error {
				_, err := tx.Exec("UPDATE timers SET due = 1")
				return err
			})
			go func() {
				defer close(fired)
				two.fire()
			}()
			one.write(func(tx *sqldb.Tx) error {
				if _, err := one.s.lockTask(tx, c, task); err != nil {
					return err
				}
				if _, err := one.s.lockWorkflow(tx, c, w); err != nil {
					return err
				}
				later := soon + 1_000_000
				if _, err := one.s.changeTask(tx, c, task, taskChange{TimeoutAt: &later}); err != nil {
					return err
				}
				_, err := one.s.changeWorkflow(tx, c, w, workflowChange{TimeoutAt: &later})
				return err
			})
			<-fired
		}
		if got := one.getWorkflow(w); got["status"] != "listening" {
			t.Errorf("the workflow is %v", got)
		}
	})
}

func TestTaskBadInput(t *testing.T) {
	each(t, func(r *rig) {
		conv, foreignConv := r.conversation(hookOfA, "hook", `{}`), r.conversation(chatOfB, "channel", `{}`)
		foreign := r.ok(botOfB, "POST", tasksPath, fmt.Sprintf(`{"type":"t","conversationId":%q}`, foreignConv), "task")["id"].(string)
		task := r.task(fmt.Sprintf(`{"type":"t","conversationId":%q}`, conv))["id"].(string)
		far := time.Now().Add(furthest + time.Hour).UTC().Format("2006-01-02T15:04:05.000Z")
		in := func(more string) string { return fmt.Sprintf(`{"type":"t","conversationId":%q%s}`, conv, more) }
		r.town.rules[botA] = &Rules{Tags: map[string]map[string]int{"task": {"key": 500}}}
		for name, c := range map[string]struct {
			who                as
			method, path, body string
			status             int
			kind, says         string
		}{
			"no type":                 {botOfA, "POST", "", `{"conversationId":"` + conv + `"}`, 400, "InvalidPayload", "type"},
			"an empty type":           {botOfA, "POST", "", `{"type":"","conversationId":"` + conv + `"}`, 400, "InvalidPayload", "type"},
			"a long type":             {botOfA, "POST", "", `{"type":"` + strings.Repeat("x", 201) + `","conversationId":"` + conv + `"}`, 400, "InvalidPayload", "type"},
			"no conversation":         {botOfA, "POST", "", `{"type":"t"}`, 400, "InvalidPayload", "conversationId"},
			"unknown conversation":    {botOfA, "POST", "", `{"type":"t","conversationId":"` + id.New("conv") + `"}`, 400, "ReferenceNotFound", "Conversation"},
			"foreign conversation":    {botOfA, "POST", "", `{"type":"t","conversationId":"` + foreignConv + `"}`, 400, "ReferenceNotFound", "Conversation"},
			"unknown user":            {botOfA, "POST", "", in(`,"userId":"` + id.New("user") + `"`), 400, "ReferenceNotFound", "User"},
			"foreign parent":          {botOfA, "POST", "", in(`,"parentTaskId":"` + foreign + `"`), 400, "ReferenceNotFound", "Task"},
			"malformed parent":        {botOfA, "POST", "", in(`,"parentTaskId":"x"`), 400, "InvalidPayload", "The provided UUID is invalid"},
			"a long title":            {botOfA, "POST", "", in(`,"title":"` + strings.Repeat("x", 2001) + `"`), 400, "InvalidPayload", "title"},
			"a long description":      {botOfA, "POST", "", in(`,"description":"` + strings.Repeat("x", 20001) + `"`), 400, "InvalidPayload", "description"},
			"much data":               {botOfA, "POST", "", in(`,"data":{"x":"` + strings.Repeat("x", MaxPayload) + `"}`), 413, "PayloadTooLarge", "data"},
			"beyond ten years":        {botOfA, "POST", "", in(`,"timeoutAt":"` + far + `"`), 400, "InvalidPayload", "ten years"},
			"an undeclared tag":       {botOfA, "POST", "", in(`,"tags":{"nope":"1"}`), 400, "InvalidPayload", "tags.nope"},
			"a status from the start": {botOfA, "POST", "", in(`,"status":"pending"`), 400, "InvalidPayload", "status"},
			"its own parent":          {botOfA, "PUT", task, `{"parentTaskId":"` + task + `"}`, 400, "InvalidPayload", "parentTaskId"},
			"no status":               {botOfA, "PUT", task, `{"status":"asleep"}`, 400, "InvalidPayload", "status"},
			"an undeclared change":    {botOfA, "PUT", task, `{"tags":{"nope":"1"}}`, 400, "InvalidPayload", "tags.nope"},
			"an update too far":       {botOfA, "PUT", task, `{"timeoutAt":"` + far + `"}`, 400, "InvalidPayload", "ten years"},
			"reading a foreign one":   {botOfA, "GET", foreign, ``, 404, "ResourceNotFound", foreign},
			"changing a foreign one":  {botOfA, "PUT", foreign, `{}`, 404, "ResourceNotFound", foreign},
			"deleting a foreign one":  {botOfA, "DELETE", foreign, `{}`, 404, "ResourceNotFound", foreign},
			"an unknown filter":       {botOfA, "GET", "?status=asleep", ``, 400, "InvalidQuery", "status"},
			"an integration makes":    {hookOfA, "POST", "", in(""), 403, "Forbidden", "tasks belong to the bot"},
			"an integration reads":    {hookOfA, "GET", task, ``, 403, "Forbidden", "tasks belong to the bot"},
			"an integration lists":    {hookOfA, "GET", "", ``, 403, "Forbidden", "tasks belong to the bot"},
			"an integration changes":  {hookOfA, "PUT", task, `{}`, 403, "Forbidden", "tasks belong to the bot"},
			"an integration deletes":  {hookOfA, "DELETE", task, `{}`, 403, "Forbidden", "tasks belong to the bot"},
		} {
			path := tasksPath
			if c.path != "" && c.path[0] != '?' {
				path += "/"
			}
			if status, out := r.do(c.who, c.method, path+c.path, c.body); status != c.status || out["type"] != c.kind || !strings.Contains(fmt.Sprint(out["message"]), c.says) {
				r.Errorf("%s: got %d %.300v, want %d %s with %q", name, status, out, c.status, c.kind, c.says)
			}
		}
	})
}
