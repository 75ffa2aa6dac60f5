package messaging

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/delivery"
	"parley/internal/endpoint"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

const workflowsPath = "/v1/chat/workflows"

// runTimers fires the timers of the rig as they fall due.
func (r *rig) runTimers() {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.s.Timers.Run(ctx) }()
	r.Cleanup(func() { stop(); <-done })
}

// hasten fires all timers of a kind as if their time had come, and what
// follows from them.
func (r *rig) hasten(kind string) {
	r.Helper()
	r.write(func(tx *sqldb.Tx) error {
		_, err := tx.Exec("UPDATE timers SET due = 1 WHERE kind = $1", kind)
		return err
	})
	r.fire()
}

// fire waits until everything is delivered and fires what is due, until nothing
// is left, nor comes back because it found somebody at work.
func (r *rig) fire() {
	r.Helper()
	for {
		r.idle()
		if _, err := r.s.Timers.Due(r.Context()); err != nil {
			r.Fatal(err)
		}
		r.idle()
		if r.count("SELECT count(*) FROM timers WHERE due <= $1", r.s.now()+busyWait.Milliseconds()) == 0 {
			return
		}
	}
}

func (r *rig) workflow(body string) map[string]any {
	r.Helper()
	return r.ok(botOfA, "POST", workflowsPath, body, "workflow")
}

func (r *rig) getWorkflow(id any) map[string]any {
	r.Helper()
	return r.ok(botOfA, "GET", workflowsPath+"/"+id.(string), "", "workflow")
}

func (r *rig) putWorkflow(id any, body string) map[string]any {
	r.Helper()
	return r.ok(botOfA, "PUT", workflowsPath+"/"+id.(string), body, "workflow")
}

// updates are the workflow_update events that reached bot A, as "what name status".
func (r *rig) updates() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.got {
		if e["type"] == eventWorkflowUpdate {
			p := e["payload"].(map[string]any)
			w := p["workflow"].(map[string]any)
			line := fmt.Sprint(p["type"], " ", w["name"], " ", w["status"])
			if child, ok := p["childWorkflow"].(map[string]any); ok {
				line += fmt.Sprint(" of ", child["name"], " ", child["status"])
			}
			out = append(out, line)
		}
	}
	return out
}

func (r *rig) wantUpdates(want ...string) {
	r.Helper()
	if diff := cmp.Diff(want, r.updates()); diff != "" {
		r.Errorf("the bot was told (-want +got): %s", diff)
	}
}

// acts makes bot A do something with each workflow_update event: what says what.
func (r *rig) acts(act func(what string, workflow, event map[string]any) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handle = func(e map[string]any) error {
		if e["type"] != eventWorkflowUpdate {
			return nil
		}
		p := e["payload"].(map[string]any)
		return act(p["type"].(string), p["workflow"].(map[string]any), e)
	}
}

func (r *rig) acknowledge(workflow, event map[string]any) {
	r.Helper()
	r.putWorkflow(workflow["id"], fmt.Sprintf(`{"status":"in_progress","eventId":%q}`, event["id"]))
}

func TestWorkflows(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{}`)
		w := r.workflow(`{"name":"sync","status":"listening"}`)
		created, _ := time.Parse(time.RFC3339, w["createdAt"].(string))
		ends, _ := time.Parse(time.RFC3339, w["timeoutAt"].(string))
		want := map[string]any{
			"id": w["id"], "name": "sync", "status": "listening", "input": map[string]any{}, "output": map[string]any{}, "tags": map[string]any{},
			"createdAt": w["createdAt"], "updatedAt": w["createdAt"], "timeoutAt": w["timeoutAt"],
		}
		if diff := cmp.Diff(want, w); diff != "" || ends.Sub(created) != 5*time.Minute || !strings.HasPrefix(w["id"].(string), "wrkflow_") {
			r.Errorf("created %v: %s", w, diff)
		}
		full := r.workflow(fmt.Sprintf(`{"name":"sync","status":"listening","input":{"a":[1]},"parentWorkflowId":%q,"conversationId":%q,"userId":%q,"timeoutAt":"2030-01-02T03:04:05.678Z","tags":{"key":"k1","other":""}}`,
			w["id"], conv, user))
		if got := r.getWorkflow(full["id"]); cmp.Diff(full, got) != "" || got["timeoutAt"] != "2030-01-02T03:04:05.678Z" || got["parentWorkflowId"] != w["id"] ||
			got["conversationId"] != conv || got["userId"] != user || cmp.Diff(map[string]any{"key": "k1"}, got["tags"]) != "" || cmp.Diff(map[string]any{"a": []any{1.0}}, got["input"]) != "" {
			r.Errorf("read back %v, created %v", got, full)
		}
		other := r.user(hookOfA, `{}`)
		got := r.putWorkflow(full["id"], fmt.Sprintf(`{"tags":{"key":"","stage":"2"},"userId":%q,"output":{"n":1},"timeoutAt":"2031-01-02T03:04:05.678Z"}`, other))
		if cmp.Diff(map[string]any{"stage": "2"}, got["tags"]) != "" || got["userId"] != other || got["timeoutAt"] != "2031-01-02T03:04:05.678Z" ||
			got["output"].(map[string]any)["n"] != 1.0 || got["status"] != "listening" || cmp.Diff(got, r.getWorkflow(full["id"])) != "" {
			r.Errorf("updated %v", got)
		}
		if again := r.putWorkflow(full["id"], `{}`); again["output"].(map[string]any)["n"] != 1.0 {
			r.Errorf("an update of nothing changed %v", again)
		}
		r.workflow(`{"name":"mail","status":"listening","tags":{"stage":"2"}}`)
		r.putWorkflow(w["id"], `{"status":"paused"}`)
		for query, want := range map[string]int{
			"": 3, "?name=sync": 2, "?name=syn": 0, "?statuses=paused": 1, "?statuses=paused&statuses=listening": 3, "?statuses=failed": 0,
			"?conversationId=" + conv: 1, "?conversationId=" + id.New("conv"): 0, "?userId=" + other: 1, "?userId=" + user: 0, "?parentWorkflowId=" + w["id"].(string): 1,
			"?tags.stage=2": 2, "?tags.stage=2&name=mail": 1, "?tags[stage]=2&tags[key]=k1": 0, "?tags.chat%3Astage=2": 0, "?name=sync&statuses=listening&userId=" + other + "&conversationId=" + conv: 1,
		} {
			if got := r.pages(botOfA, workflowsPath+query, "workflows", nil); len(got) != want {
				r.Errorf("%q lists %v, want %d", query, got, want)
			}
		}
		if got := r.pages(botOfB, workflowsPath, "workflows", nil); got != nil {
			r.Errorf("another bot lists %v", got)
		}
		r.ok(botOfA, "DELETE", workflowsPath+"/"+full["id"].(string), "{}", "")
		if status, out := r.do(botOfA, "GET", workflowsPath+"/"+full["id"].(string), ""); status != 404 || out["type"] != "ResourceNotFound" {
			r.Errorf("a deleted workflow: %d %v", status, out)
		}
		if n := r.count("SELECT count(*) FROM timers WHERE id = $1", full["id"]) + r.count("SELECT count(*) FROM tags WHERE entity = $1", full["id"]); n != 0 {
			r.Errorf("%d timers and tags outlived the workflow", n)
		}
	})
}

func TestWorkflowsListNewestFirstToTheEnd(t *testing.T) {
	each(t, func(r *rig) {
		var made []string
		for i := range 45 {
			made = append(made, r.workflow(fmt.Sprintf(`{"name":"n%d","status":"listening","tags":{"even":"%d"}}`, i%3, i%2))["id"].(string))
		}
		slices.Reverse(made)
		if diff := cmp.Diff(made, r.pages(botOfA, workflowsPath, "workflows", func() { r.workflow(`{"name":"late","status":"listening"}`) })); diff != "" {
			r.Error(diff)
		}
		if got := r.pages(botOfA, workflowsPath+"?tags.even=1&name=n1", "workflows", nil); len(got) != 8 {
			r.Errorf("filtered pages list %d", len(got))
		}
		token := r.ok(botOfA, "GET", workflowsPath, "", "")["meta"].(map[string]any)["nextToken"].(string)
		if status, out := r.do(botOfA, "GET", workflowsPath+"?name=n1&nextToken="+token, ""); status != 400 || out["type"] != "InvalidQuery" {
			r.Errorf("a token of another list: %d %v", status, out)
		}
	})
}

// A workflow is started, acknowledged, continued until it is completed, and
// none of that holds its conversation up.
func TestWorkflowLife(t *testing.T) {
	each(t, func(r *rig) {
		r.runTimers()
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{}`)
		rounds, release := 0, make(chan struct{})
		r.acts(func(what string, w, e map[string]any) error {
			switch what {
			case workflowStarted:
				<-release
				r.acknowledge(w, e)
			case workflowContinued:
				if rounds++; rounds == 3 {
					r.putWorkflow(w["id"], `{"status":"completed","output":{"rounds":3}}`)
				}
			}
			return nil
		})
		w := r.workflow(fmt.Sprintf(`{"name":"sync","status":"pending","conversationId":%q,"userId":%q,"input":{"n":1}}`, conv, user))
		r.message(hookOfA, conv, user, "hello")
		r.await(1) // the message passes the workflow, which is still being started
		close(release)
		events := r.await(4)
		r.wantUpdates("workflow_started sync pending", "workflow_continued sync in_progress", "workflow_continued sync in_progress", "workflow_continued sync in_progress")
		for _, e := range events {
			if e["type"] != eventWorkflowUpdate {
				continue
			}
			p := e["payload"].(map[string]any)
			if e["conversationId"] != nil || e["workflowId"] != w["id"] || p["conversation"].(map[string]any)["id"] != conv || p["user"].(map[string]any)["id"] != user {
				r.Errorf("the bot got %v", e)
			}
			answer := r.ok(botOfA, "GET", "/v1/chat/events/"+e["id"].(string), "", "event")
			if answer["workflowId"] != nil || answer["payload"].(map[string]any)["workflow"].(map[string]any)["id"] != w["id"] {
				r.Errorf("the event reads %v", answer)
			}
		}
		r.fire()
		done := r.getWorkflow(w["id"])
		if done["status"] != "completed" || done["completedAt"] == nil || done["output"].(map[string]any)["rounds"] != 3.0 || done["failureReason"] != nil {
			r.Errorf("it ended as %v", done)
		}
		if got := r.pages(botOfA, "/v1/chat/events?workflowId="+w["id"].(string), "events", nil); len(got) != 4 {
			r.Errorf("%d events of the workflow are listed", len(got))
		}
		if got := r.pages(botOfA, "/v1/chat/events?conversationId="+conv, "events", nil); len(got) != 1 {
			r.Errorf("%d events of the conversation are listed", len(got))
		}
		if n := r.count("SELECT count(*) FROM timers"); n != 0 {
			r.Errorf("%d timers are left", n)
		}
	})
}

// A workflow that is made in a handler goes on when that handler has ended.
func TestWorkflowMadeInProgress(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{}`)
		r.mu.Lock()
		r.handle = func(e map[string]any) error {
			switch {
			case e["type"] == "message_created":
				for i := range 3 {
					r.workflow(fmt.Sprintf(`{"name":"w%d","status":"in_progress","eventId":%q}`, i, e["id"]))
				}
			case e["type"] == eventWorkflowUpdate:
				r.putWorkflow(e["workflowId"], `{"status":"completed"}`)
			}
			return nil
		}
		r.mu.Unlock()
		r.message(hookOfA, conv, user, "go")
		r.await(1)
		r.fire()
		told := r.updates()
		slices.Sort(told)
		if diff := cmp.Diff([]string{"workflow_continued w0 in_progress", "workflow_continued w1 in_progress", "workflow_continued w2 in_progress"}, told); diff != "" {
			r.Error(diff)
		}
		// The event is over: who binds to it now is told at once.
		over := r.pages(botOfA, "/v1/chat/events?conversationId="+conv, "events", nil)[0]
		late := r.workflow(fmt.Sprintf(`{"name":"late","status":"in_progress","eventId":%q}`, over))
		r.fire()
		if got := r.getWorkflow(late["id"]); got["status"] != "completed" {
			r.Errorf("a late binding left %v", got)
		}
	})
}

func TestWorkflowsOfManyAreAllContinued(t *testing.T) {
	each(t, func(r *rig) {
		// Otherwise each would go on for ever, and a slow machine never be done with them.
		r.acts(func(what string, w, _ map[string]any) error {
			if what == workflowContinued {
				r.putWorkflow(w["id"], `{"status":"completed"}`)
			}
			return nil
		})
		e := r.ok(botOfA, "POST", "/v1/chat/events", `{"type":"tick","payload":{}}`, "event")
		r.idle()
		r.write(func(tx *sqldb.Tx) error {
			_, err := tx.Exec("UPDATE events SET status = 'pending' WHERE id = $1", e["id"])
			return err
		})
		const many = 2*boundChunk + 7
		for range many {
			r.workflow(fmt.Sprintf(`{"name":"w","status":"in_progress","eventId":%q}`, e["id"]))
		}
		r.finishEvent(e["id"].(string), Processed)
		for range 3 {
			r.hasten(timerEventOver)
		}
		if n := r.count("SELECT count(*) FROM events WHERE type = 'workflow_update'"); n < many {
			r.Errorf("%d workflows went on, want %d", n, many)
		}
	})
}

// finishEvent ends an event as delivery does.
func (r *rig) finishEvent(eventID, status string) {
	r.Helper()
	r.write(func(tx *sqldb.Tx) error {
		return Source{r.s}.Done(tx, &delivery.Work{ID: eventID, Ref: &inHand{botID: botA}}, delivery.Outcome{Status: delivery.Status(status), Attempts: 1})
	})
}

func TestListeningWorkflowGoesOnWithItsEvents(t *testing.T) {
	each(t, func(r *rig) {
		r.acts(func(what string, w, e map[string]any) error {
			r.putWorkflow(w["id"], `{"status":"listening"}`)
			return nil
		})
		w := r.workflow(`{"name":"wait","status":"listening"}`)
		other := r.workflow(`{"name":"other","status":"listening"}`)
		r.fire()
		r.wantUpdates()
		event := func(workflowID any) {
			r.ok(botOfA, "POST", "/v1/chat/events", fmt.Sprintf(`{"type":"answer","payload":{},"workflowId":%q}`, workflowID), "event")
			r.fire()
		}
		event(w["id"])
		event(w["id"])
		r.wantUpdates("workflow_continued wait in_progress", "workflow_continued wait in_progress")
		if got := r.getWorkflow(w["id"]); got["status"] != "listening" {
			r.Errorf("it is %v", got["status"])
		}
		r.putWorkflow(w["id"], `{"status":"paused"}`)
		event(w["id"])
		if got := r.getWorkflow(w["id"]); got["status"] != "paused" || len(r.updates()) != 2 {
			r.Errorf("a paused workflow is %v, the bot was told %v", got["status"], r.updates())
		}
		r.putWorkflow(other["id"], `{"status":"cancelled"}`)
		event(other["id"])
		if got := r.updates(); len(got) != 2 {
			r.Errorf("a cancelled workflow goes on: %v", got)
		}
		for name, who := range map[string]as{"another bot": botOfB, "an integration": chatOfA} {
			if status, out := r.do(who, "POST", "/v1/chat/events", fmt.Sprintf(`{"type":"custom","payload":{},"workflowId":%q}`, w["id"])); status != 400 || out["type"] != "ReferenceNotFound" {
				r.Errorf("%s made an event for the workflow: %d %v", name, status, out)
			}
		}
	})
}

func TestWorkflowTimesOut(t *testing.T) {
	each(t, func(r *rig) {
		r.acts(func(what string, w, _ map[string]any) error {
			if what == workflowContinued {
				r.putWorkflow(w["id"], `{"status":"listening"}`)
			}
			return nil
		})
		parent := r.workflow(`{"name":"parent","status":"listening"}`)
		late := r.workflow(fmt.Sprintf(`{"name":"late","status":"pending","timeoutAt":"2001-01-01T00:00:00.000Z","parentWorkflowId":%q}`, parent["id"]))
		r.idle()
		r.fire()
		want := []string{"workflow_started late pending", "workflow_timedout late timedout", "child_workflow_finished parent listening of late timedout", "workflow_continued parent in_progress"}
		told := r.updates()
		slices.Sort(want)
		slices.Sort(told)
		if diff := cmp.Diff(want, told); diff != "" {
			r.Error(diff)
		}
		if got := r.getWorkflow(late["id"]); got["status"] != "timedout" || got["completedAt"] != nil {
			r.Errorf("it is %v", got)
		}
		// Bots say what a timeout means when they are told of it.
		got := r.putWorkflow(late["id"], `{"status":"failed","failureReason":"too slow"}`)
		if got["status"] != "failed" || got["failureReason"] != "too slow" {
			r.Errorf("it is %v", got)
		}
		r.fire()
		if n := r.count("SELECT count(*) FROM events WHERE payload LIKE '%child_workflow_finished%'"); n != 1 {
			r.Errorf("the parent was told of the end %d times", n)
		}
		// More time is more time; no time is none.
		w := r.workflow(`{"name":"more","status":"listening","timeoutAt":"2001-01-01T00:00:00.000Z"}`)
		r.putWorkflow(w["id"], `{"timeoutAt":"2030-01-01T00:00:00.000Z"}`)
		r.fire()
		if got := r.getWorkflow(w["id"]); got["status"] != "listening" {
			r.Errorf("it had more time and is %v", got["status"])
		}
		r.putWorkflow(w["id"], `{"timeoutAt":"2001-01-01T00:00:00.000Z"}`)
		r.fire()
		if got := r.getWorkflow(w["id"]); got["status"] != "timedout" {
			r.Errorf("it had no time and is %v", got["status"])
		}
	})
}

func TestParentsLearnOfTheirChildren(t *testing.T) {
	each(t, func(r *rig) {
		parent := r.workflow(`{"name":"parent","status":"listening","timeoutAt":"2030-01-01T00:00:00.000Z"}`)
		child := func(name string) any {
			return r.workflow(fmt.Sprintf(`{"name":%q,"status":"listening","parentWorkflowId":%q,"tags":{"key":"x"}}`, name, parent["id"]))["id"]
		}
		r.acts(func(what string, w, e map[string]any) error {
			if what == workflowContinued {
				r.putWorkflow(w["id"], `{"status":"listening"}`)
			}
			return nil
		})
		done := child("done")
		r.putWorkflow(done, `{"status":"completed","output":{"n":1}}`)
		r.putWorkflow(child("bad"), `{"status":"failed","failureReason":"no"}`)
		r.putWorkflow(child("off"), `{"status":"cancelled"}`)
		r.ok(botOfA, "DELETE", workflowsPath+"/"+child("gone").(string), "{}", "")
		r.ok(botOfA, "DELETE", workflowsPath+"/"+done.(string), "{}", "")
		r.fire()
		var children []string
		for _, line := range r.updates() {
			if what, rest, _ := strings.Cut(line, " "); what != workflowContinued {
				_, of, _ := strings.Cut(rest, " of ")
				children = append(children, what+" "+of)
			}
		}
		want := []string{"child_workflow_finished done completed", "child_workflow_finished bad failed", "child_workflow_finished off cancelled", "child_workflow_deleted gone listening", "child_workflow_deleted done completed"}
		if diff := cmp.Diff(want, children); diff != "" {
			r.Error(diff)
		}
		r.mu.Lock()
		first := r.got[0]["payload"].(map[string]any)["childWorkflow"].(map[string]any)
		r.mu.Unlock()
		if first["output"].(map[string]any)["n"] != 1.0 || first["tags"].(map[string]any)["key"] != "x" || first["failureReason"] != nil {
			r.Errorf("the parent was told of %v", first)
		}
		if got := r.getWorkflow(parent["id"]); got["status"] != "listening" {
			r.Errorf("the parent is %v", got["status"])
		}
		// A child outlives its parent and has nobody to tell.
		orphan := child("orphan")
		r.ok(botOfA, "DELETE", workflowsPath+"/"+parent["id"].(string), "{}", "")
		before := len(r.updates())
		r.putWorkflow(orphan, `{"status":"completed"}`)
		r.fire()
		if after := len(r.updates()); after != before {
			r.Errorf("somebody was told of an orphan: %v", r.updates()[before:])
		}
	})
}

// What is finished stays so, and a request that is sent twice is answered twice.
func TestFinishedWorkflowsStayAsTheyAre(t *testing.T) {
	each(t, func(r *rig) {
		event := r.ok(botOfA, "POST", "/v1/chat/events", `{"type":"tick","payload":{}}`, "event")["id"].(string)
		for status, body := range map[string]string{
			"completed": `{"status":"completed","output":{"a":1}}`, "failed": `{"status":"failed","failureReason":"no"}`, "cancelled": `{"status":"cancelled"}`,
		} {
			path := workflowsPath + "/" + r.workflow(`{"name":"w","status":"listening","timeoutAt":"2030-01-01T00:00:00.000Z"}`)["id"].(string)
			r.ok(botOfA, "PUT", path, `{"output":{"b":2}}`, "workflow")
			ended := r.ok(botOfA, "PUT", path, body, "workflow")
			again := r.ok(botOfA, "PUT", path, body, "workflow")
			again["updatedAt"] = ended["updatedAt"]
			if diff := cmp.Diff(ended, again); diff != "" || ended["status"] != status {
				r.Errorf("%s twice: %s", status, diff)
			}
			output := map[string]any{"completed": map[string]any{"a": 1.0}, "failed": map[string]any{"b": 2.0}, "cancelled": map[string]any{}}[status]
			if diff := cmp.Diff(output, ended["output"]); diff != "" {
				r.Errorf("%s leaves the output %s", status, diff)
			}
			for _, change := range []string{
				`{"status":"listening"}`, `{"status":"paused"}`, `{"status":"in_progress","eventId":"` + event + `"}`, `{"timeoutAt":"2031-01-01T00:00:00.000Z"}`,
				`{"status":"` + map[string]string{"completed": "failed", "failed": "cancelled", "cancelled": "completed"}[status] + `"}`,
			} {
				if code, out := r.do(botOfA, "PUT", path, change); code != 400 || out["type"] != "InvalidPayload" || !strings.Contains(out["message"].(string), "is "+status+", which is final") {
					r.Errorf("%s of a %s workflow: %d %v", change, status, code, out)
				}
			}
			if status != "cancelled" {
				if code, out := r.do(botOfA, "PUT", path, `{"output":{"c":3}}`); code != 400 || out["type"] != "InvalidPayload" {
					r.Errorf("an output of a %s workflow: %d %v", status, code, out)
				}
			}
			if got := r.ok(botOfA, "PUT", path, `{"tags":{"seen":"1"}}`, "workflow"); got["tags"].(map[string]any)["seen"] != "1" || got["status"] != status {
				r.Errorf("tagged %v", got)
			}
		}
	})
}

func TestWorkflowBadInput(t *testing.T) {
	each(t, func(r *rig) {
		event := r.ok(botOfA, "POST", "/v1/chat/events", `{"type":"tick","payload":{}}`, "event")["id"].(string)
		foreignEvent := r.ok(botOfB, "POST", "/v1/chat/events", `{"type":"tick","payload":{}}`, "event")["id"].(string)
		foreign := r.ok(botOfB, "POST", workflowsPath, `{"name":"w","status":"listening"}`, "workflow")["id"].(string)
		foreignConv, foreignUser := r.conversation(chatOfB, "channel", `{}`), r.user(chatOfB, `{}`)
		w := r.workflow(`{"name":"w","status":"listening"}`)["id"].(string)
		far := time.Now().Add(furthest + time.Hour).UTC().Format("2006-01-02T15:04:05.000Z")
		long := strings.Repeat("x", 201)
		r.town.rules[botA] = &Rules{Tags: map[string]map[string]int{"workflow": {"key": 500}}}
		for name, c := range map[string]struct {
			who                as
			method, path, body string
			status             int
			kind, says         string
		}{
			"no name":                {botOfA, "POST", "", `{"status":"pending"}`, 400, "InvalidPayload", "name"},
			"an empty name":          {botOfA, "POST", "", `{"name":"","status":"pending"}`, 400, "InvalidPayload", "name"},
			"a long name":            {botOfA, "POST", "", `{"name":"` + long + `","status":"pending"}`, 400, "InvalidPayload", "name"},
			"no status":              {botOfA, "POST", "", `{"name":"w"}`, 400, "InvalidPayload", "status"},
			"made finished":          {botOfA, "POST", "", `{"name":"w","status":"completed"}`, 400, "InvalidPayload", "status"},
			"input that is a list":   {botOfA, "POST", "", `{"name":"w","status":"pending","input":[]}`, 400, "InvalidPayload", "input"},
			"much input":             {botOfA, "POST", "", `{"name":"w","status":"pending","input":{"x":"` + strings.Repeat("x", MaxPayload) + `"}}`, 413, "PayloadTooLarge", "input"},
			"made without event":     {botOfA, "POST", "", `{"name":"w","status":"in_progress"}`, 400, "InvalidPayload", "eventId is required"},
			"pending with an event":  {botOfA, "POST", "", `{"name":"w","status":"pending","eventId":"` + event + `"}`, 400, "InvalidPayload", "eventId goes with"},
			"unknown event":          {botOfA, "POST", "", `{"name":"w","status":"in_progress","eventId":"` + id.New("evt") + `"}`, 400, "ReferenceNotFound", "Event"},
			"foreign event":          {botOfA, "POST", "", `{"name":"w","status":"in_progress","eventId":"` + foreignEvent + `"}`, 400, "ReferenceNotFound", "Event"},
			"malformed event":        {botOfA, "POST", "", `{"name":"w","status":"in_progress","eventId":"x"}`, 400, "InvalidPayload", "The provided UUID is invalid"},
			"unknown parent":         {botOfA, "POST", "", `{"name":"w","status":"pending","parentWorkflowId":"` + id.New("wrkflow") + `"}`, 400, "ReferenceNotFound", "Workflow"},
			"foreign parent":         {botOfA, "POST", "", `{"name":"w","status":"pending","parentWorkflowId":"` + foreign + `"}`, 400, "ReferenceNotFound", "Workflow"},
			"unknown conversation":   {botOfA, "POST", "", `{"name":"w","status":"pending","conversationId":"` + id.New("conv") + `"}`, 400, "ReferenceNotFound", "Conversation"},
			"foreign conversation":   {botOfA, "POST", "", `{"name":"w","status":"pending","conversationId":"` + foreignConv + `"}`, 400, "ReferenceNotFound", "Conversation"},
			"foreign user":           {botOfA, "POST", "", `{"name":"w","status":"pending","userId":"` + foreignUser + `"}`, 400, "ReferenceNotFound", "User"},
			"beyond ten years":       {botOfA, "POST", "", `{"name":"w","status":"pending","timeoutAt":"` + far + `"}`, 400, "InvalidPayload", "timeoutAt must lie within ten years"},
			"no time":                {botOfA, "POST", "", `{"name":"w","status":"pending","timeoutAt":"soon"}`, 400, "InvalidPayload", "timeoutAt"},
			"an undeclared tag":      {botOfA, "POST", "", `{"name":"w","status":"pending","tags":{"nope":"1"}}`, 400, "InvalidPayload", "tags.nope"},
			"a long tag":             {botOfA, "POST", "", `{"name":"w","status":"pending","tags":{"key":"` + strings.Repeat("x", 501) + `"}}`, 400, "InvalidPayload", "tags.key"},
			"a tag of an alias":      {botOfA, "POST", "", `{"name":"w","status":"pending","tags":{"chat:id":"1"}}`, 400, "InvalidPayload", "tags.chat:id"},
			"an unknown member":      {botOfA, "POST", "", `{"name":"w","status":"pending","colour":"red"}`, 400, "InvalidPayload", "colour"},
			"its own parent":         {botOfA, "PUT", w, `{"parentWorkflowId":"` + w + `"}`, 400, "InvalidPayload", "parentWorkflowId"},
			"an update without":      {botOfA, "PUT", w, `{"status":"in_progress"}`, 400, "InvalidPayload", "eventId is required"},
			"an event alone":         {botOfA, "PUT", w, `{"eventId":"` + event + `"}`, 400, "InvalidPayload", "eventId goes with"},
			"an update of unknown":   {botOfA, "PUT", w, `{"status":"in_progress","eventId":"` + id.New("evt") + `"}`, 400, "ReferenceNotFound", "Event"},
			"timed out by hand":      {botOfA, "PUT", w, `{"status":"timedout"}`, 400, "InvalidPayload", "status"},
			"back to pending":        {botOfA, "PUT", w, `{"status":"pending"}`, 400, "InvalidPayload", "status"},
			"a reason for nothing":   {botOfA, "PUT", w, `{"failureReason":"no"}`, 400, "InvalidPayload", "failureReason goes with"},
			"a reason for success":   {botOfA, "PUT", w, `{"status":"completed","failureReason":"no"}`, 400, "InvalidPayload", "failureReason goes with"},
			"a long reason":          {botOfA, "PUT", w, `{"status":"failed","failureReason":"` + strings.Repeat("x", 2001) + `"}`, 400, "InvalidPayload", "failureReason"},
			"much output":            {botOfA, "PUT", w, `{"output":{"x":"` + strings.Repeat("x", MaxPayload) + `"}}`, 413, "PayloadTooLarge", "output"},
			"output that is text":    {botOfA, "PUT", w, `{"output":"x"}`, 400, "InvalidPayload", "output"},
			"an update too far":      {botOfA, "PUT", w, `{"timeoutAt":"` + far + `"}`, 400, "InvalidPayload", "timeoutAt"},
			"an undeclared change":   {botOfA, "PUT", w, `{"tags":{"nope":"1"}}`, 400, "InvalidPayload", "tags.nope"},
			"an update by a foreign": {botOfA, "PUT", w, `{"userId":"` + foreignUser + `"}`, 400, "ReferenceNotFound", "User"},
			"reading a foreign one":  {botOfA, "GET", foreign, ``, 404, "ResourceNotFound", foreign},
			"changing a foreign one": {botOfA, "PUT", foreign, `{"status":"cancelled"}`, 404, "ResourceNotFound", foreign},
			"deleting a foreign one": {botOfA, "DELETE", foreign, `{}`, 404, "ResourceNotFound", foreign},
			"reading a malformed id": {botOfA, "GET", "x", ``, 404, "ResourceNotFound", "x"},
			"an unknown filter":      {botOfA, "GET", "?statuses=asleep", ``, 400, "InvalidQuery", "statuses"},
			"a malformed filter":     {botOfA, "GET", "?userId=x", ``, 400, "InvalidPayload", "The provided UUID is invalid"},
			"an integration makes":   {chatOfA, "POST", "", `{"name":"w","status":"pending"}`, 403, "Forbidden", "workflows belong to the bot"},
			"an integration reads":   {chatOfA, "GET", w, ``, 403, "Forbidden", "workflows belong to the bot"},
			"an integration changes": {chatOfA, "PUT", w, `{"status":"cancelled"}`, 403, "Forbidden", "workflows belong to the bot"},
			"an integration deletes": {chatOfA, "DELETE", w, `{}`, 403, "Forbidden", "workflows belong to the bot"},
			"an integration lists":   {chatOfA, "GET", "", ``, 403, "Forbidden", "workflows belong to the bot"},
			"an integration finds":   {chatOfA, "POST", "get-or-create", `{"name":"w","status":"pending"}`, 403, "Forbidden", "workflows belong to the bot"},
			"found by no tag":        {botOfA, "POST", "get-or-create", `{"name":"w","status":"pending","discriminateByTags":["key"]}`, 400, "InvalidPayload", "discriminateByTags[0]"},
			"found by no group":      {botOfA, "POST", "get-or-create", `{"name":"w","status":"pending","discriminateByStatusGroup":"all"}`, 400, "InvalidPayload", "discriminateByStatusGroup"},
			"found without event":    {botOfA, "POST", "get-or-create", `{"name":"w","status":"in_progress"}`, 400, "InvalidPayload", "eventId is required"},
		} {
			path := workflowsPath
			if c.path != "" && c.path[0] != '?' {
				path += "/"
			}
			status, out := r.do(c.who, c.method, path+c.path, c.body)
			if status != c.status || out["type"] != c.kind || !strings.Contains(fmt.Sprint(out["message"]), c.says) {
				r.Errorf("%s: got %d %.300v, want %d %s with %q", name, status, out, c.status, c.kind, c.says)
			}
		}
		if got := r.getWorkflow(w); got["status"] != "listening" {
			r.Errorf("the workflow has become %v", got)
		}
	})
}

func TestGetOrCreateWorkflow(t *testing.T) {
	each(t, func(r *rig) {
		get := func(body string) any {
			return r.ok(botOfA, "POST", workflowsPath+"/get-or-create", body, "workflow")["id"]
		}
		first := get(`{"name":"sync","status":"listening","tags":{"key":"a<b","part":"1"},"input":{"n":1}}`)
		for name, c := range map[string]struct {
			body string
			same bool
		}{
			"the same tags":                 {`{"name":"sync","status":"listening","tags":{"part":"1","key":"a<b"}}`, true},
			"one more tag":                  {`{"name":"sync","status":"listening","tags":{"part":"1","key":"a<b","more":"x"}}`, false},
			"one tag less":                  {`{"name":"sync","status":"listening","tags":{"key":"a<b"}}`, false},
			"no tags":                       {`{"name":"sync","status":"listening"}`, false},
			"another name":                  {`{"name":"other","status":"listening","tags":{"part":"1","key":"a<b"}}`, false},
			"the tag that counts":           {`{"name":"sync","status":"listening","tags":{"part":"2","key":"a<b"},"discriminateByTags":["key"]}`, true},
			"the tag that counts otherwise": {`{"name":"sync","status":"listening","tags":{"part":"1","key":"b"},"discriminateByTags":["key"]}`, false},
			"in its group":                  {`{"name":"sync","status":"listening","tags":{"part":"1","key":"a<b"},"discriminateByStatusGroup":"active"}`, true},
			"not in its group":              {`{"name":"sync","status":"listening","tags":{"part":"1","key":"a<b"},"discriminateByStatusGroup":"finished"}`, false},
		} {
			made := get(c.body)
			if (made == first) != c.same {
				r.Errorf("%s: found the first: %v", name, made == first)
			}
			if made != first {
				r.ok(botOfA, "DELETE", workflowsPath+"/"+made.(string), "{}", "")
			}
		}
		if status, _ := r.do(botOfB, "POST", workflowsPath+"/get-or-create", `{"name":"sync","status":"listening","tags":{"key":"a<b","part":"1"}}`); status != 200 {
			r.Errorf("another bot got %d", status)
		}
		r.putWorkflow(first, `{"status":"completed"}`)
		active := get(`{"name":"sync","status":"pending","tags":{"key":"a<b","part":"1"},"discriminateByStatusGroup":"active"}`)
		if active == first || get(`{"name":"sync","status":"pending","tags":{"key":"a<b","part":"1"},"discriminateByStatusGroup":"finished"}`) != first {
			r.Error("the groups of statuses are not told apart")
		}
		if got := r.getWorkflow(first); got["input"].(map[string]any)["n"] != 1.0 {
			r.Errorf("found and changed %v", got)
		}
		// Without tags the name alone is meant, among those that have none.
		plain := get(`{"name":"lint","status":"pending","discriminateByStatusGroup":"active"}`)
		r.workflow(`{"name":"lint","status":"pending","tags":{"key":"x"}}`)
		if get(`{"name":"lint","status":"pending","discriminateByStatusGroup":"active"}`) != plain {
			r.Error("a workflow without tags was not found")
		}
		r.fire()
		told := r.updates()
		slices.Sort(told)
		if diff := cmp.Diff([]string{"workflow_started lint pending", "workflow_started lint pending", "workflow_started sync pending"}, told); diff != "" {
			r.Error(diff)
		}
	})
}

func TestConcurrentGetOrCreateMakesOneWorkflow(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		rigs := []*rig{newRig(t, a), newRig(t, b)}
		for _, body := range []string{
			`{"name":"w","status":"listening","tags":{"key":"k"}}`, `{"name":"plain","status":"listening","discriminateByStatusGroup":"active"}`,
			`{"name":"w","status":"listening","tags":{"key":"j","nr":"%d"},"discriminateByTags":["key"]}`,
		} {
			var mu sync.Mutex
			seen := map[any]bool{}
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					got := rigs[i%2].ok(botOfA, "POST", workflowsPath+"/get-or-create", strings.ReplaceAll(body, "%d", fmt.Sprint(i)), "workflow")
					mu.Lock()
					defer mu.Unlock()
					seen[got["id"]] = true
				})
			}
			wg.Wait()
			if len(seen) != 1 {
				t.Errorf("%s made %d workflows", body, len(seen))
			}
		}
	})
}

// Whoever comes first, the acknowledgement or the end of the event: the bot is
// told to go on, once.
func TestBindingRacesWithTheEndOfTheEvent(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		one, two := newRig(t, a), newRig(t, b)
		two.runTimers()
		for i := range 40 {
			event := one.ok(botOfA, "POST", "/v1/chat/events", `{"type":"tick","payload":{}}`, "event")["id"].(string)
			one.idle()
			two.idle()
			one.write(func(tx *sqldb.Tx) error {
				_, err := tx.Exec("UPDATE events SET status = 'pending' WHERE id = $1", event)
				return err
			})
			w := one.workflow(`{"name":"w","status":"listening"}`)["id"]
			var wg sync.WaitGroup
			wg.Go(func() { one.putWorkflow(w, fmt.Sprintf(`{"status":"in_progress","eventId":%q}`, event)) })
			wg.Go(func() { two.finishEvent(event, Processed) })
			wg.Wait()
			// It goes on, is told so, and as nobody answers again and again until it waits.
			for one.count("SELECT count(*) FROM events WHERE workflow_id = $1", w) == 0 {
				if one.Context().Err() != nil {
					t.Fatalf("round %d: nobody was told", i)
				}
				if n := one.count("SELECT count(*) FROM workflows WHERE id = $1 AND (event_id <> '' OR tries > 0)", w); n == 0 {
					t.Fatalf("round %d: the workflow has lost its event", i)
				}
				if _, err := one.s.Timers.Due(one.Context()); err != nil {
					t.Fatal(err)
				}
			}
			one.putWorkflow(w, `{"status":"completed"}`)
		}
	})
}

// An acknowledgement that is not committed yet and the end of its event see each other.
func TestTheEndOfAnEventWaitsForItsBinding(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		one, two := newRig(t, a), newRig(t, b)
		event := one.ok(botOfA, "POST", "/v1/chat/events", `{"type":"tick","payload":{}}`, "event")["id"].(string)
		one.idle()
		two.idle()
		one.write(func(tx *sqldb.Tx) error {
			_, err := tx.Exec("UPDATE events SET status = 'pending' WHERE id = $1", event)
			return err
		})
		w := one.workflow(`{"name":"w","status":"listening"}`)["id"].(string)
		c, err := one.s.CallerFor(one.Context(), botA, "")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		one.write(func(tx *sqldb.Tx) error {
			if _, err := one.s.changeWorkflow(tx, c, w, workflowChange{Status: InProgress, EventID: event}); err != nil {
				return err
			}
			go func() { // waits for this transaction where the database lets two write
				defer close(ended)
				two.finishEvent(event, Processed)
			}()
			return nil
		})
		<-ended
		one.fire()
		if n := one.count("SELECT count(*) FROM events WHERE workflow_id = $1", w); n == 0 {
			t.Error("the workflow was never told to go on")
		}
	})
}

// A start that nobody acknowledges is told four times.
func TestUnacknowledgedStart(t *testing.T) {
	each(t, func(r *rig) {
		r.calendar()
		w := r.workflow(`{"name":"w","status":"pending","timeoutAt":"2030-01-01T00:00:00.000Z"}`)
		for range maxStarts {
			r.fire()
			if due := r.count("SELECT due FROM timers WHERE kind = $1", timerWorkflowResume); int64(due) < r.s.now() || int64(due) > r.s.now()+startWait.Milliseconds() {
				r.Errorf("it is told again at %d, now is %d", due, r.s.now())
			}
			r.hasten(timerWorkflowResume)
		}
		r.wantUpdates("workflow_started w pending", "workflow_started w pending", "workflow_started w pending", "workflow_started w pending")
		got := r.getWorkflow(w["id"])
		if got["status"] != "failed" || !strings.Contains(fmt.Sprint(got["failureReason"]), "never acknowledged") {
			r.Errorf("it is %v", got)
		}
		if n := r.count("SELECT count(*) FROM timers"); n != 0 {
			r.Errorf("%d timers are left", n)
		}
		// One that the bot takes up late goes on.
		w = r.workflow(`{"name":"late","status":"pending"}`)
		r.fire()
		r.mu.Lock()
		event := r.got[len(r.got)-1]
		r.mu.Unlock()
		r.acts(func(what string, w, _ map[string]any) error {
			r.putWorkflow(w["id"], `{"status":"completed"}`)
			return nil
		})
		r.acknowledge(w, event)
		r.fire()
		if got := r.getWorkflow(w["id"]); got["status"] != "completed" {
			r.Errorf("it is %v", got)
		}
	})
}

// Handlers that fail, or do nothing, do not make the server run in circles.
func TestWorkflowsThatGoInCirclesWait(t *testing.T) {
	each(t, func(r *rig) {
		r.calendar()
		r.acts(func(what string, w, e map[string]any) error {
			if what == workflowStarted {
				r.acknowledge(w, e)
			}
			return nil
		})
		w := r.workflow(`{"name":"idle","status":"pending"}`)
		r.fire()
		before := len(r.updates())
		if before != maxQuick+1 {
			r.Errorf("an idle bot was told %d times before a pause", before)
		}
		until := r.count("SELECT due FROM timers WHERE kind = $1", timerWorkflowResume)
		if wait := int64(until) - r.s.now(); wait > quick.Milliseconds() {
			r.Errorf("the pause is %d ms", wait)
		}
		r.hasten(timerWorkflowResume)
		if n := len(r.updates()); n <= before {
			r.Errorf("after the pause it was told %d times", n)
		}
		r.putWorkflow(w["id"], `{"status":"completed"}`)

		r.acts(func(what string, w, e map[string]any) error {
			if what == workflowStarted {
				r.acknowledge(w, e)
			}
			return &endpoint.Error{Class: endpoint.Final, Err: errors.New("thrown")}
		})
		bad := r.workflow(`{"name":"bad","status":"pending"}`)
		for i := range 3 {
			r.fire()
			wait := int64(r.count("SELECT due FROM timers WHERE kind = $1 AND id = $2", timerWorkflowResume, bad["id"])) - r.s.now()
			if tries := r.count("SELECT tries FROM workflows WHERE id = $1", bad["id"]); tries != i+1 || wait > 1000<<i {
				r.Errorf("after failure %d it waits %d ms, with %d tries", i+1, wait, tries)
			}
			r.hasten(timerWorkflowResume)
		}
		if got := r.getWorkflow(bad["id"]); got["status"] != "in_progress" {
			r.Errorf("it is %v", got)
		}
		// The bot may decide otherwise meanwhile.
		r.putWorkflow(bad["id"], `{"status":"listening"}`)
		if n := r.count("SELECT count(*) FROM timers WHERE kind = $1", timerWorkflowResume); n != 0 {
			r.Errorf("%d timers are left", n)
		}
	})
}

// Events that have lost their sense while they waited are not delivered.
func TestStaleWorkflowEventsAreIgnored(t *testing.T) {
	each(t, func(r *rig) {
		hold, entered := make(chan struct{}), make(chan struct{})
		var once sync.Once
		r.acts(func(what string, w, _ map[string]any) error {
			if w["name"] == "first" {
				once.Do(func() { close(entered); <-hold })
			}
			return nil
		})
		// Its own lane is busy with the news of a child.
		w := r.workflow(`{"name":"first","status":"listening"}`)
		child := r.workflow(fmt.Sprintf(`{"name":"child","status":"listening","parentWorkflowId":%q}`, w["id"]))
		r.putWorkflow(child["id"], `{"status":"completed"}`)
		<-entered
		event := r.ok(botOfA, "POST", "/v1/chat/events", fmt.Sprintf(`{"type":"tick","payload":{},"workflowId":%q}`, w["id"]), "event")["id"]
		for r.count("SELECT count(*) FROM events WHERE id = $1 AND status = 'pending'", event) != 0 {
			if r.Context().Err() != nil {
				r.Fatal("the event is not delivered")
			}
		}
		if _, err := r.s.Timers.Due(r.Context()); err != nil {
			r.Fatal(err)
		}
		r.putWorkflow(w["id"], `{"status":"cancelled"}`)
		close(hold)
		r.fire()
		r.wantUpdates("child_workflow_finished first listening of child completed")
		stale := r.ok(botOfA, "GET", "/v1/chat/events?workflowId="+w["id"].(string)+"&status=ignored", "", "")["events"].([]any)
		if len(stale) != 1 || !strings.Contains(fmt.Sprint(stale[0]), "the workflow is cancelled") {
			r.Errorf("ignored were %v", stale)
		}
		// A deleted one is told of nothing either.
		gone := r.workflow(`{"name":"gone","status":"listening"}`)
		r.write(func(tx *sqldb.Tx) error {
			if _, err := r.s.tell(tx, botA, gone["id"].(string), workflowContinued, nil); err != nil {
				return err
			}
			_, err := tx.Exec("DELETE FROM workflows WHERE id = $1", gone["id"])
			return err
		})
		r.fire()
		if n := r.count("SELECT count(*) FROM events WHERE workflow_id = $1 AND status = 'ignored' AND failure_reason LIKE '%deleted%'", gone["id"]); n != 1 {
			r.Error("the event of a deleted workflow was not ignored")
		}
	})
}

// A conversation that is deleted while its handler runs takes no workflow with it.
func TestWorkflowOutlivesTheConversationOfItsEvent(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{}`)
		var made any
		r.mu.Lock()
		r.handle = func(e map[string]any) error {
			if e["type"] == "message_created" {
				made = r.workflow(fmt.Sprintf(`{"name":"w","status":"in_progress","eventId":%q,"conversationId":%q}`, e["id"], conv))["id"]
				r.ok(botOfA, "DELETE", "/v1/chat/conversations/"+conv, "{}", "")
				r.sweep()
			} else if e["type"] == eventWorkflowUpdate {
				r.putWorkflow(made, `{"status":"completed"}`)
			}
			return nil
		}
		r.mu.Unlock()
		r.message(hookOfA, conv, user, "go")
		r.await(1)
		r.fire()
		if got := r.getWorkflow(made); got["status"] != "completed" {
			r.Errorf("it is %v", got)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if p := r.got[1]["payload"].(map[string]any); p["conversation"] != nil {
			r.Errorf("it was told of %v", p["conversation"])
		}
	})
}

func TestSweepOfWorkflowsAndTasks(t *testing.T) {
	each(t, func(r *rig) {
		conv := r.conversation(hookOfA, "hook", `{}`)
		w := r.workflow(`{"name":"w","status":"pending","tags":{"key":"1"}}`)["id"]
		kept := r.workflow(`{"name":"kept","status":"pending","tags":{"key":"1"}}`)["id"]
		task := r.task(fmt.Sprintf(`{"type":"t","conversationId":%q,"tags":{"key":"1"}}`, conv))["id"]
		r.task(fmt.Sprintf(`{"type":"t","conversationId":%q,"tags":{"key":"1"}}`, conv))
		r.fire()
		for i, owner := range []any{w, kept, task} {
			r.ok(botOfA, "POST", fmt.Sprintf("/v1/chat/states/%s/%s/s", []string{"workflow", "workflow", "task"}[i], owner), `{"payload":{"n":1}}`, "state")
		}
		r.ok(botOfA, "DELETE", workflowsPath+"/"+w.(string), "{}", "")
		r.ok(botOfA, "DELETE", tasksPath+"/"+task.(string), "{}", "")
		r.sweep()
		for _, gone := range []any{w, task} {
			for table, column := range map[string]string{"workflows": "id", "tasks": "id", "events": "workflow_id", "states": "owner_id", "tags": "entity", "timers": "id", "tombstones": "id"} {
				if n := r.count("SELECT count(*) FROM "+table+" WHERE "+column+" = $1", gone); n != 0 {
					r.Errorf("%d rows of %s stayed", n, table)
				}
			}
		}
		if n := r.count("SELECT count(*) FROM lanes WHERE key = $1", workflowLane(botA, w.(string))); n != 0 {
			r.Error("the lane stayed")
		}
		if n := r.count("SELECT count(*) FROM states WHERE owner_id = $1", kept); n != 1 {
			r.Error("the state of another workflow went")
		}
		r.write(func(tx *sqldb.Tx) error { return r.s.BuryBot(tx, botA) })
		r.sweep()
		for _, table := range []string{"workflows", "tasks", "events", "states", "tags", "timers", "tombstones"} {
			if n := r.count("SELECT count(*) FROM "+table+" WHERE bot_id = $1", botA); n != 0 {
				r.Errorf("%d rows of %s outlived the bot", n, table)
			}
		}
	})
}

// The same request under the same key makes one workflow and starts it once.
func TestWorkflowIsMadeOnceUnderAKey(t *testing.T) {
	each(t, func(r *rig) {
		body := `{"name":"w","status":"pending"}`
		_, first := r.do(botOfA, "POST", workflowsPath, body, "Idempotency-Key", "k")
		_, again := r.do(botOfA, "POST", workflowsPath, body, "Idempotency-Key", "k")
		if diff := cmp.Diff(first, again); diff != "" {
			r.Error(diff)
		}
		r.fire()
		r.wantUpdates("workflow_started w pending")
	})
}

// Two servers end the children of the same parents at once, while the parents
// listen, go on and listen again: each is told of each child once.
func TestParentsOnTwoServers(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		const parents, children = 8, 6
		rigs := []*rig{newRig(t, a), newRig(t, b)}
		var mu sync.Mutex
		heard := map[any]int{}
		for _, r := range rigs {
			r.runTimers()
			r.acts(func(what string, w, e map[string]any) error {
				mu.Lock()
				if what == childWorkflowFinished {
					heard[e["payload"].(map[string]any)["childWorkflow"].(map[string]any)["id"]]++
				}
				mu.Unlock()
				if what == workflowContinued {
					r.putWorkflow(w["id"], `{"status":"listening"}`)
				}
				return nil
			})
		}
		var kids []any
		for range parents {
			parent := rigs[0].workflow(`{"name":"parent","status":"listening","timeoutAt":"2030-01-01T00:00:00.000Z"}`)["id"]
			for range children {
				kids = append(kids, rigs[0].workflow(fmt.Sprintf(`{"name":"child","status":"listening","parentWorkflowId":%q}`, parent))["id"])
			}
		}
		var wg sync.WaitGroup
		for i, id := range kids {
			wg.Go(func() {
				r := rigs[i%2]
				if i%3 == 0 { // by its time
					r.putWorkflow(id, `{"timeoutAt":"2001-01-01T00:00:00.000Z"}`)
				} else {
					r.putWorkflow(id, `{"status":"completed"}`)
				}
			})
		}
		wg.Wait()
		for done := false; !done; {
			if t.Context().Err() != nil {
				t.Fatal("it takes too long")
			}
			rigs[0].idle()
			rigs[1].idle()
			mu.Lock()
			done = len(heard) == len(kids)
			mu.Unlock()
		}
		mu.Lock()
		defer mu.Unlock()
		for id, n := range heard {
			if n != 1 {
				t.Errorf("the end of %v was told %d times", id, n)
			}
		}
	})
}
