package messaging

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/internal/api"
	"parley/internal/sqldb"
	"parley/internal/timer"
)

// The life of a workflow, and what its bot is told of it:
//
//	create ─► pending ── workflow_started ─► the bot acknowledges: in_progress, bound to that event
//	                                                     │
//	   listening ◄── the bot waits ── in_progress ◄──────┤
//	       │                              ▲              │ the event is over, and the workflow is still in_progress
//	       │ an event with its workflowId │              ▼
//	       └──────── is over ─────────────┴──── workflow_continued, bound to that event
//
//	completed, failed, cancelled: the bot says so      timedout: its time is over, workflow_timedout
//
// A start that nobody acknowledges is repeated three times; then the workflow
// has failed. The end or deletion of a workflow is told to its parent.
//
// # Locks
//
// The end of an event is written under the lock of a lane, and what is told to a
// bot needs the locks of other lanes. So the end of an event only leaves a timer
// behind, in its own transaction, and the rest happens in the transaction of
// that timer. Everybody locks in this order: the workflow, the event it is bound
// to, its timers, lanes. Timers that fire hold their timer already, so they do
// not wait for a workflow that somebody else has locked, but come back later.

// Kinds of timers.
const (
	timerWorkflowTimeout = "workflow_timeout" // id of a workflow: its time is over
	timerWorkflowResume  = "workflow_resume"  // id of a workflow: the bot is told again
	timerEventOver       = "event_over"       // id of an event: workflows that waited for its end go on
)

const (
	maxStarts  = 4                     // times a bot is told to start a workflow
	startWait  = 10 * time.Second      // what it has after that to acknowledge it
	quick      = time.Second           // a shorter handler has probably done nothing
	maxQuick   = 20                    // quick ones in a row; then they come one in a second
	retryLimit = 5 * time.Minute       // between two tries of a handler that fails
	busyWait   = 50 * time.Millisecond // until a timer tries again to lock a workflow
	boundChunk = 50                    // workflows of one event that go on in one transaction
)

func (s *Service) handleWorkflowTimers() {
	s.Timers.Handle(timerWorkflowTimeout, s.fireWorkflowTimeout)
	s.Timers.Handle(timerWorkflowResume, s.fireWorkflowResume)
	s.Timers.Handle(timerEventOver, s.fireEventOver)
	s.Timers.Handle(timerTaskTimeout, s.fireTaskTimeout)
}

// start tells the bot to begin with a pending workflow.
func (s *Service) start(tx *sqldb.Tx, w *Workflow) error {
	w.Tries++
	_, err := s.tell(tx, w.BotID, w.ID, workflowStarted, nil)
	return err
}

// goOn tells the bot to work on w again. The event that says so is the one it is bound to.
func (s *Service) goOn(tx *sqldb.Tx, w *Workflow) error {
	e, err := s.tell(tx, w.BotID, w.ID, workflowContinued, nil)
	if err != nil {
		return err
	}
	w.Status, w.EventID, w.UpdatedAt = InProgress, e.ID, e.CreatedAt
	return nil
}

// become gives a locked workflow another status, unless it has it already.
func (s *Service) become(tx *sqldb.Tx, c Caller, w *Workflow, status, eventID string) error {
	switch {
	case eventID != "":
		return s.bind(tx, c, w, eventID)
	case status == "" || status == w.Status:
		return nil
	case slices.Contains(workflowGroups["finished"], status):
		return s.finish(tx, w, status)
	}
	w.Status, w.EventID, w.Tries = status, "", 0
	_, err := s.Timers.Cancel(tx, timerWorkflowResume, w.ID)
	return err
}

// bind makes w in_progress for as long as an event is. If the event is over
// already, the bot is told to go on.
func (s *Service) bind(tx *sqldb.Tx, c Caller, w *Workflow, eventID string) error {
	if w.Status == InProgress && w.EventID == eventID {
		return nil
	}
	w.Status, w.EventID, w.Tries = InProgress, eventID, 0
	// The end of the event waits for this transaction, or this one for it.
	status, err := column(tx, "UPDATE events SET awaited = TRUE WHERE bot_id = $1 AND id = $2 RETURNING status", w.BotID, eventID)
	if err != nil {
		return err
	}
	if len(status) == 0 {
		return c.dangling("Event", eventID)
	}
	if _, err := s.Timers.Cancel(tx, timerWorkflowResume, w.ID); err != nil {
		return err
	}
	if isOver(status[0]) {
		return s.handlerEnded(tx, w, status[0] == Failed, 0)
	}
	return nil
}

// isOver reports whether nothing more comes of an event.
func isOver(eventStatus string) bool {
	return slices.Contains([]string{Processed, Ignored, Failed, Canceled}, eventStatus)
}

// handlerEnded follows the end of the event that w was bound to: the bot is told
// to go on. One whose handlers fail, or come back at once again and again, has to
// wait for that.
func (s *Service) handlerEnded(tx *sqldb.Tx, w *Workflow, failed bool, took time.Duration) error {
	var wait time.Duration
	switch {
	case failed:
		wait = min(time.Second<<min(w.Tries, 20), retryLimit)
		w.Tries++
	case took >= quick:
		w.Tries = 0
	default:
		if w.Tries++; w.Tries > maxQuick {
			wait = quick
		}
	}
	w.EventID = ""
	if wait == 0 {
		return s.goOn(tx, w)
	}
	return s.resumeIn(tx, w, wait)
}

func (s *Service) resumeIn(tx *sqldb.Tx, w *Workflow, wait time.Duration) error {
	return s.Timers.Set(tx, timer.Timer{Kind: timerWorkflowResume, ID: w.ID, BotID: w.BotID, Due: s.now() + wait.Milliseconds()})
}

// finish ends a workflow. A parent learns of its child's first end only.
func (s *Service) finish(tx *sqldb.Tx, w *Workflow, status string) error {
	before := w.finished()
	w.Status, w.EventID, w.UpdatedAt = status, "", api.Time(max(s.now(), int64(w.CreatedAt)))
	switch status {
	case Completed:
		w.CompletedAt = w.UpdatedAt
	case Cancelled:
		w.Output = nil
	}
	if before {
		return nil
	}
	if err := s.cancelTimers(tx, w); err != nil {
		return err
	}
	return s.tellParent(tx, w, childWorkflowFinished)
}

func (s *Service) setTimeout(tx *sqldb.Tx, w *Workflow) error {
	return s.Timers.Set(tx, timer.Timer{Kind: timerWorkflowTimeout, ID: w.ID, BotID: w.BotID, Due: int64(w.TimeoutAt)})
}

func (s *Service) cancelTimers(tx *sqldb.Tx, w *Workflow) error {
	for _, kind := range []string{timerWorkflowTimeout, timerWorkflowResume} {
		if _, err := s.Timers.Cancel(tx, kind, w.ID); err != nil {
			return err
		}
	}
	return nil
}

// eventOver is called in the transaction that ends an event somebody may wait for.
func (s *Service) eventOver(tx *sqldb.Tx, botID, eventID string) error {
	return s.Timers.Set(tx, timer.Timer{Kind: timerEventOver, ID: eventID, BotID: botID, Due: s.now()})
}

// seize locks the workflow of a timer that fires. One that somebody else has
// locked is busy; one that is gone is nil.
func seize(tx *sqldb.Tx, workflowID string) (w *Workflow, busy bool, err error) {
	w, err = oneWorkflow(tx, "WHERE id = $1 {skip_locked}", workflowID)
	if err != nil || w != nil {
		return w, false, err
	}
	there, err := column(tx, "SELECT id FROM workflows WHERE id = $1", workflowID)
	return nil, len(there) > 0, err
}

// comeBack sets a timer that fires again for a little later.
func (s *Service) comeBack(tx *sqldb.Tx, t timer.Timer) error {
	t.Due = max(s.now(), t.Due) + busyWait.Milliseconds()
	return s.Timers.Set(tx, t)
}

// fireWorkflowTimeout ends a workflow whose time is over.
func (s *Service) fireWorkflowTimeout(tx *sqldb.Tx, t timer.Timer) error {
	w, busy, err := seize(tx, t.ID)
	switch {
	case err != nil:
		return err
	case busy:
		return s.comeBack(tx, t)
	case w == nil || w.finished():
		return nil
	case int64(w.TimeoutAt) > s.now():
		return s.setTimeout(tx, w)
	}
	// The parent first: its lane comes before that of its child.
	if err := s.finish(tx, w, TimedOut); err != nil {
		return err
	}
	if _, err := s.tell(tx, w.BotID, w.ID, workflowTimedOut, nil); err != nil {
		return err
	}
	return s.saveWorkflow(tx, w)
}

// fireWorkflowResume tells the bot again: of a start that it has not
// acknowledged, or to go on after a pause.
func (s *Service) fireWorkflowResume(tx *sqldb.Tx, t timer.Timer) error {
	w, busy, err := seize(tx, t.ID)
	switch {
	case err != nil:
		return err
	case busy:
		return s.comeBack(tx, t)
	case w == nil:
		return nil
	case w.Status == Pending && w.Tries < maxStarts:
		err = s.start(tx, w)
	case w.Status == Pending:
		w.FailureReason = fmt.Sprintf("the bot was told %d times to start the workflow and never acknowledged it: it sets its status to in_progress, or to one that is final", w.Tries)
		err = s.finish(tx, w, Failed)
	case w.Status == InProgress && w.EventID == "":
		err = s.goOn(tx, w)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	return s.saveWorkflow(tx, w)
}

// fireEventOver lets go on what has waited for the end of an event: workflows
// that are bound to it, and the one it was made for.
func (s *Service) fireEventOver(tx *sqldb.Tx, t timer.Timer) error {
	found, err := sqldb.Select[Event](tx, "events", "WHERE bot_id = $1 AND id = $2", t.BotID, t.ID)
	if err != nil {
		return err
	}
	e := &Event{ID: t.ID, Status: Ignored, CreatedAt: api.Time(t.Due)} // its conversation was deleted
	if len(found) > 0 {
		e = found[0]
	}
	ids, err := column(tx, "SELECT id FROM workflows WHERE event_id = $1 AND event_id <> '' AND bot_id = $2 ORDER BY id LIMIT $3", t.ID, t.BotID, boundChunk)
	if err != nil {
		return err
	}
	more := len(ids) == boundChunk
	if e.WorkflowID != "" && !more {
		ids = append(ids, e.WorkflowID)
	}
	slices.Sort(ids)
	var all []*Workflow
	for _, workflowID := range slices.Compact(ids) {
		w, busy, err := seize(tx, workflowID)
		if err != nil {
			return err
		}
		if busy {
			return s.comeBack(tx, t)
		}
		if w != nil && w.BotID == t.BotID {
			all = append(all, w)
		}
	}
	for _, w := range all {
		if err := s.afterEvent(tx, w, e); err != nil {
			return err
		}
		if err := s.saveWorkflow(tx, w); err != nil {
			return err
		}
	}
	if more {
		return s.comeBack(tx, t)
	}
	return nil
}

// afterEvent is what the end of e means to w.
func (s *Service) afterEvent(tx *sqldb.Tx, w *Workflow, e *Event) error {
	what := e.workflowUpdate()
	switch {
	case w.EventID == e.ID && w.Status == InProgress:
		return s.handlerEnded(tx, w, e.Status == Failed, time.Duration(s.now()-int64(e.CreatedAt))*time.Millisecond)
	case w.EventID == e.ID:
		w.EventID = ""
	case w.ID != e.WorkflowID || e.Status == Canceled:
	case what == workflowStarted && w.Status == Pending:
		return s.resumeIn(tx, w, startWait)
	case w.Status == Listening && (what == "" || strings.HasPrefix(what, "child_")):
		w.Tries = 0
		return s.goOn(tx, w)
	}
	return nil
}
