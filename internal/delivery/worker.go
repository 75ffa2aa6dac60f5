package delivery

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"parley/internal/endpoint"
	"parley/internal/sqldb"
)

const (
	patience = 72 * time.Hour // an entry waits this long for its endpoint, from its creation
	maxTries = 4              // that may fail otherwise
)

// retryAfter is the wait after each failed try but the last.
var retryAfter = [maxTries - 1]time.Duration{2 * time.Second, 8 * time.Second, 30 * time.Second}

// entry is work attended to, and what is to be written about it.
type entry struct {
	work    *Work
	outcome Outcome
	try     *try    // nil if the endpoint was not called
	breaker *change // nil if nothing changed
}

// try is one call of an endpoint.
type try struct {
	class   endpoint.Class
	status  int
	reason  string
	started int64
	took    time.Duration
	wait    time.Duration // that the endpoint asks for before the next try
	// How the answer began, and of what type it was; see endpoint.Excerpt.
	response, responseType string
}

// step is how a lane goes on after a look at its source.
type step struct {
	entry    *entry
	position int64
	leave    leave
	due      int64
}

func (e *Engine) worker() {
	for l := e.take(); l != nil; l = e.take() {
		for e.serve(l) {
		}
	}
}

// serve attends to the next entry of a lane. It reports whether the worker
// keeps the lane for the one after it.
func (e *Engine) serve(l *lane) bool {
	e.mu.Lock()
	after, known := l.position, l.seq
	l.resets = l.t.resets
	hold := !e.stopping && !l.lost && l.until-e.now() > (term/4).Milliseconds()
	e.mu.Unlock()
	if !hold {
		return e.settle(l, step{})
	}
	w, err := e.next(l, after)
	switch {
	case e.work.Err() != nil: // what a source says while it is cut off is not to be trusted
		return e.settle(l, step{leave: later, due: e.now()})
	case err != nil:
		e.Log.Error("read the next entry", "lane", l.key, "err", err)
		return e.settle(l, step{leave: later, due: e.now() + sourceWait.Milliseconds()})
	case w == nil:
		return e.settle(l, step{position: known})
	}
	return e.settle(l, e.attend(l, w))
}

func (e *Engine) next(l *lane, after int64) (w *Work, err error) {
	defer caught(&err)
	if w, err = e.Source.Next(e.work, l.key, after); w != nil {
		w.Lane = l.key
	}
	return w, err
}

// settle puts down what became of an entry and decides who has the lane next:
// this worker, the queue, or the write that gives it up.
func (e *Engine) settle(l *lane, s step) (again bool) {
	e.mu.Lock()
	l.position = max(l.position, s.position)
	if s.entry != nil {
		l.unsaved = append(l.unsaved, *s.entry)
		l.seq = max(l.seq, s.entry.work.Seq)
		if s.leave == stay { // otherwise the lane comes back to it
			l.position = max(l.position, s.entry.work.Seq)
		}
	}
	l.leave, l.due = s.leave, s.due
	switch {
	case e.stopping || !l.mayGoOn(e.now()):
		l.state = resting
		e.putLocked(l)
	case e.ready.len() > 0 || l.t.queue.len() > 0:
		e.putLocked(l)
		e.readyLocked(l)
	default:
		again = true
	}
	save := !l.writing && (l.state == resting || len(l.unsaved) > 0)
	if save {
		l.writing = true
	}
	e.mu.Unlock()
	if save {
		e.save(l)
	}
	return again
}

// attend delivers an entry unless its outcome is known without a try.
func (e *Engine) attend(l *lane, w *Work) step {
	if w.Skip != nil {
		o := *w.Skip
		o.Attempts = w.Attempt - 1
		return step{entry: &entry{work: w, outcome: o}}
	}
	if open, why := e.blocked(l); open {
		due := w.CreatedAt + patience.Milliseconds()
		if e.now() < due {
			return step{leave: park, due: due}
		}
		return step{entry: &entry{work: w, outcome: Outcome{Status: Failed, Reason: why, Dead: true, Attempts: w.Attempt - 1}}}
	}
	t := e.try(l, w)
	if t == nil {
		return step{leave: later, due: e.now()}
	}
	if w.Ended != nil {
		w.Ended(e.work)
	}
	s := e.judge(l, w, t)
	s.entry.try = t
	s.entry.breaker = e.learn(l, t)
	return s
}

// judge decides what a try means for the work and its lane.
func (e *Engine) judge(l *lane, w *Work, t *try) step {
	done := func(s Status, dead bool) step {
		return step{entry: &entry{work: w, outcome: Outcome{Status: s, Reason: t.reason, Dead: dead, Attempts: w.Attempt}}}
	}
	now := e.now()
	switch {
	case t.class == endpoint.OK:
		return done(Processed, false)
	case t.class == endpoint.Ignored:
		return done(Ignored, false)
	case t.class == endpoint.Unreachable:
		due := w.CreatedAt + patience.Milliseconds()
		if now >= due {
			return done(Failed, true)
		}
		s := done(Pending, false)
		s.leave, s.due = park, due
		return s
	case t.class == endpoint.Gone:
		s := done(Failed, false)
		s.entry.outcome.Gone = true
		s.leave, s.due = later, now // what follows is looked at when that is written
		return s
	case t.class == endpoint.Final, t.class == endpoint.TimedOut && !w.RetryTimeouts && !w.Webhook:
		return done(Failed, false)
	case w.Webhook:
		return e.judgeWebhook(w, t)
	}
	failed := e.failedTries(w)
	if failed >= len(retryAfter) {
		return done(Failed, true)
	}
	s := done(Pending, false)
	s.leave, s.due = later, now+jitter(retryAfter[failed]).Milliseconds()
	return s
}

// failedTries counts the earlier tries that failed. Tries that did not reach
// the endpoint do not count, nor those before the work was replayed.
func (e *Engine) failedTries(w *Work) int {
	if w.Attempt <= w.Before+1 {
		return 0
	}
	n, err := sqldb.Scalar[int64](e.DB.Reader(e.work), "SELECT count(*) FROM attempts WHERE work_id = $1 AND number > $2 AND outcome IN ($3, $4)",
		w.ID, w.Before, endpoint.Failed.String(), endpoint.TimedOut.String())
	if err != nil {
		e.Log.Error("count tries", "work", w.ID, "err", err)
		return w.Attempt - w.Before - 1
	}
	return int(n)
}

// jitter spreads d by a fifth to either side, so that what failed together is not tried together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// try calls the endpoint. It returns nil if the engine ended first: the call
// was cut off by us, which says nothing.
func (e *Engine) try(l *lane, w *Work) *try {
	ctx, cancel := context.WithTimeout(e.work, e.Invoker.Limit(e.work, l.endpoint))
	defer cancel()
	e.metrics.inFlight.Inc()
	start := e.Now()
	e.metrics.lag.Observe(max(0, float64(start.UnixMilli()-w.CreatedAt)/1000))
	a, err := invoke(ctx, e.Invoker, l.endpoint, w.Operation)
	t := &try{class: endpoint.Classify(a, err), status: a.Status, started: start.UnixMilli(), took: e.Now().Sub(start)}
	if w.Webhook {
		e.classifyWebhook(t, a, err)
	}
	e.metrics.inFlight.Dec()
	if err != nil && e.work.Err() != nil {
		return nil
	}
	if t.class == endpoint.Canceled { // by nobody here
		t.class = endpoint.Failed
	}
	if t.class != endpoint.OK {
		t.reason = endpoint.Reason(a, err)
	}
	t.response, t.responseType = endpoint.Excerpt(a)
	e.metrics.attempts.WithLabelValues(t.class.String()).Inc()
	e.report(l, w, t, err)
	return t
}

// report writes the line about a try. The text of an answer stays out of it.
func (e *Engine) report(l *lane, w *Work, t *try, err error) {
	level := slog.LevelDebug
	if t.class != endpoint.OK && t.class != endpoint.Ignored {
		level = slog.LevelWarn
	}
	if !e.Log.Enabled(e.work, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("work", w.ID), slog.String("endpoint", l.endpoint), slog.Int("attempt", w.Attempt),
		slog.String("class", t.class.String()), slog.Int("status", t.status), slog.Duration("took", t.took),
	}
	if err != nil {
		attrs = append(attrs, slog.String("err", err.Error()))
	}
	if p, ok := errors.AsType[*endpoint.PanicError](err); ok {
		attrs = append(attrs, slog.String("stack", string(p.Stack)))
	}
	e.Log.LogAttrs(e.work, level, "attempt", attrs...)
}

// invoke calls an endpoint and turns a panic in a built-in into its error.
func invoke(ctx context.Context, i Invoker, endpointID string, op endpoint.Operation) (a endpoint.Answer, err error) {
	defer caught(&err)
	return i.Invoke(ctx, endpointID, op)
}

func caught(err *error) {
	if v := recover(); v != nil {
		*err = &endpoint.PanicError{Value: v, Stack: debug.Stack()}
	}
}
