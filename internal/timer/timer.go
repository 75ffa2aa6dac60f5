// Package timer makes things happen at a time. A timer is a row; when it is due
// a function of its kind runs in the transaction that removes the row, so its
// effect happens exactly once, whatever dies when.
//
//	Set ─ commit ─► row (due) ─► the engine sleeps until the earliest ─► reads what is due, a page at a time
//	                                       one transaction for each:  remove the row · fire
//
// # Rules
//
//   - A timer fires at its time or after it, never before. Idle servers are late
//     by milliseconds, busy ones by their write queue.
//   - A timer that fell due while no server ran fires when one does, once.
//   - A time is a point on the wall clock, in UTC. When the clock is set forward,
//     what has come due fires within seconds; when it is set back, timers wait for
//     their time again. The engine itself sleeps for lengths of time and is not
//     confused by either.
//   - Timers of one line fire one after the other, in the order of their times.
//     Nothing is said about the order of others.
//   - A function that fails leaves its timer, which is tried again after 1 s, 2 s,
//     4 s … up to 5 min, and hinders no other timer, not even in its line.
//   - A timer of a kind that this program does not know waits for one that does.
//
// # Cost
//
// A look reads one entry of the index on the due time, a page that is due reads
// as many rows as it has: how many timers wait for later makes no difference.
//
// # Several servers
//
// Servers on one database share the work. Removing the row is the claim: who
// comes second waits for the first, finds nothing and goes on. A server that
// lost a claim begins its next page elsewhere.
//
// # Locks
//
// A transaction that fires holds the row of its timer and takes the locks of its
// effect after it. So whoever holds something that a firing waits for must not
// wait for its timer: take the timer first (Set, Cancel), or do not wait.
package timer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"parley/internal/bus"
	"parley/internal/sqldb"
)

const (
	page     = 1000            // timers that are read at once
	workers  = 16              // transactions at once
	lookEach = 5 * time.Second // the net under lost hints and steps of the clock
	pause    = time.Second     // when the database fails
	longest  = 5 * time.Minute // between two tries of one that fails
	topic    = "timer"         // tells other servers of an earlier due time
	never    = int64(math.MaxInt64)
)

// Timer is one thing that is to happen.
type Timer struct {
	Kind     string
	ID       string
	BotID    string // "" = of no bot
	Line     string // in order with others of the same line; "" = with none
	Due      int64  // milliseconds since the epoch
	Failures int64  // times it was tried in vain
}

// Columns binds the columns of table timers.
func (t *Timer) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "kind", Field: &t.Kind},
		{Name: "id", Field: &t.ID},
		{Name: "bot_id", Field: &t.BotID},
		{Name: "line", Field: &t.Line},
		{Name: "due", Field: &t.Due},
		{Name: "failures", Field: &t.Failures},
	}
}

// Fire carries a timer out. It runs in the transaction that removes the timer,
// possibly more than once like every write closure. It may set the timer again,
// for a later time.
type Fire func(tx *sqldb.Tx, t Timer) error

// Prepare looks up what a transaction must not wait for, and returns the Fire
// that uses it.
type Prepare func(ctx context.Context, t Timer) (Fire, error)

// Config are the parts of an Engine.
type Config struct {
	DB  *sqldb.DB
	Bus bus.Bus // nil = this is the only server
	Now func() time.Time
	Log *slog.Logger
}

// Engine fires timers.
type Engine struct {
	Config
	kinds  map[string]Prepare
	kick   chan int64  // the earliest time that was set since the engine last looked
	beaten atomic.Bool // to a timer, by another server
	sleep  func(time.Duration) (<-chan time.Time, func() bool)

	late   prometheus.Histogram
	failed prometheus.Counter
}

// New returns an engine that takes timers; Run fires them.
func New(c Config) *Engine {
	if c.Bus == nil {
		c.Bus = bus.NewLocal()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Engine{
		Config: c, kinds: map[string]Prepare{}, kick: make(chan int64, 1),
		sleep: func(d time.Duration) (<-chan time.Time, func() bool) {
			t := time.NewTimer(d)
			return t.C, t.Stop
		},
		late: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "parley_timer_lateness_seconds", Help: "How long after its time a timer was carried out.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 300, 3600},
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_timer_failures_total", Help: "Timers that could not be carried out at their time and got another.",
		}),
	}
}

// Collectors are what the engine measures.
func (e *Engine) Collectors() []prometheus.Collector { return []prometheus.Collector{e.late, e.failed} }

// Handle says what happens when timers of a kind are due. Call it before Run.
func (e *Engine) Handle(kind string, fire Fire) {
	e.HandlePrepared(kind, func(context.Context, Timer) (Fire, error) { return fire, nil })
}

// HandlePrepared is Handle for what has to be prepared outside the transaction.
func (e *Engine) HandlePrepared(kind string, prepare Prepare) { e.kinds[kind] = prepare }

// Set makes a timer due at t.Due, also one that has another time so far.
func (e *Engine) Set(tx *sqldb.Tx, t Timer) error {
	if e.kinds[t.Kind] == nil {
		return fmt.Errorf("timer: nobody handles the kind %q", t.Kind)
	}
	_, err := tx.Exec(`INSERT INTO timers (kind, id, bot_id, line, due, failures) VALUES ($1, $2, $3, $4, $5, 0)
		ON CONFLICT (kind, id) DO UPDATE SET due = excluded.due, bot_id = excluded.bot_id, line = excluded.line, failures = 0`, t.Kind, t.ID, t.BotID, t.Line, t.Due)
	tx.AfterCommit(func() { e.announce(t.Due) })
	return err
}

// Postpone moves a timer to a later time. It does not wait for anybody: a timer
// that is being fired, set or postponed at this moment is left alone, as is one
// that has a later time already.
func (e *Engine) Postpone(tx *sqldb.Tx, kind, id string, due int64) error {
	_, err := tx.Exec(`UPDATE timers SET due = $3, failures = 0 WHERE (kind, id) IN
		(SELECT kind, id FROM timers WHERE kind = $1 AND id = $2 AND due < $3 {skip_locked})`, kind, id, due)
	return err
}

// Cancel removes a timer and reports whether there was one. Where it was, it has
// not fired and does not.
func (e *Engine) Cancel(tx *sqldb.Tx, kind, id string) (bool, error) {
	n, err := tx.Exec("DELETE FROM timers WHERE kind = $1 AND id = $2", kind, id)
	return n > 0, err
}

// CancelAll removes the timers of these ids. It is for the few of one thing.
func (e *Engine) CancelAll(tx *sqldb.Tx, kind string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	w := &sqldb.Where{}
	w.And("kind = ?", kind)
	w.And("id IN " + sqldb.In(w, ids))
	_, err := tx.Exec("DELETE FROM timers "+w.String(), w.Args...)
	return err
}

// CancelLine removes up to limit timers of a line and reports how many.
func (e *Engine) CancelLine(tx *sqldb.Tx, line string, limit int) (int64, error) {
	return tx.Exec("DELETE FROM timers WHERE (kind, id) IN (SELECT kind, id FROM timers WHERE line = $1 AND line <> '' LIMIT $2)", line, limit)
}

// CancelBot removes up to limit timers of a deleted bot and reports how many.
func (e *Engine) CancelBot(tx *sqldb.Tx, botID string, limit int) (int64, error) {
	return tx.Exec("DELETE FROM timers WHERE bot_id = $1 AND (kind, id) IN (SELECT kind, id FROM timers WHERE bot_id = $1 LIMIT $2)", botID, limit)
}

// announce tells this engine and those of other servers of a time. Times beyond
// their next look need no word.
func (e *Engine) announce(due int64) {
	if due-e.Now().UnixMilli() > lookEach.Milliseconds() {
		return
	}
	e.wake(due)
	if b, err := json.Marshal(due); err == nil {
		e.Bus.Publish(topic, b)
	}
}

// wake makes the engine look at due at the latest.
func (e *Engine) wake(due int64) {
	for {
		select {
		case e.kick <- due:
			return
		case other := <-e.kick:
			due = min(due, other)
		}
	}
}

// Run fires timers until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	defer e.Bus.Subscribe(topic, func(b []byte) {
		var due int64
		if json.Unmarshal(b, &due) == nil {
			e.wake(due)
		}
	})()
	for ctx.Err() == nil {
		next, err := e.Due(ctx)
		if err == nil {
			e.rest(ctx, next)
			continue
		}
		if ctx.Err() == nil && !errors.Is(err, sqldb.ErrBusy) {
			e.Log.Error("fire timers", "err", err)
		}
		e.wait(ctx, pause, nil)
	}
	return nil
}

// rest sleeps until next, for lookEach at most: the clock may be set meanwhile.
func (e *Engine) rest(ctx context.Context, next int64) {
	for ctx.Err() == nil {
		left := min(max(0, next-e.Now().UnixMilli()), lookEach.Milliseconds())
		if left == 0 {
			return
		}
		due, earlier := e.wait(ctx, time.Duration(left)*time.Millisecond, e.kick)
		if !earlier {
			return
		}
		next = min(next, due)
	}
}

// wait sleeps for d, or until there is word of an earlier time.
func (e *Engine) wait(ctx context.Context, d time.Duration, kick <-chan int64) (due int64, earlier bool) {
	woken, stop := e.sleep(d)
	defer stop()
	select {
	case <-woken:
	case due = <-kick:
		return due, true
	case <-ctx.Done():
	}
	return 0, false
}

// Due fires everything that is due and returns the time of the next timer.
func (e *Engine) Due(ctx context.Context) (next int64, err error) {
	now := e.Now().UnixMilli()
	var last Timer
	for more := true; more; {
		due, err := overdue(e.DB.Reader(ctx), now, last)
		if err != nil {
			return 0, err
		}
		if more = len(due) == page; more {
			last = *due[page-1]
		}
		if err := e.fireAll(ctx, due); err != nil {
			return 0, err
		}
	}
	return after(e.DB.Reader(ctx), now)
}

// overdue reads the earliest timers that are due, behind the last of the page before.
func overdue(q sqldb.Q, now int64, last Timer) ([]*Timer, error) {
	return sqldb.Select[Timer](q, "timers", "WHERE due <= $1 AND (due, kind, id) > ($2, $3, $4) ORDER BY due, kind, id LIMIT $5",
		now, last.Due, last.Kind, last.ID, page)
}

// after reads the earliest time that is to come. What is overdue and still there
// is of a kind that nobody handles here.
func after(q sqldb.Q, now int64) (int64, error) {
	next, err := sqldb.Scalar[int64](q, "SELECT due FROM timers WHERE due > $1 ORDER BY due LIMIT 1", now)
	if errors.Is(err, sqldb.ErrNoRow) {
		return never, nil
	}
	return next, err
}

// fireAll fires timers, some lines at a time.
func (e *Engine) fireAll(ctx context.Context, due []*Timer) error {
	all := lines(slices.DeleteFunc(due, func(t *Timer) bool { return e.kinds[t.Kind] == nil }))
	if e.beaten.Swap(false) && len(all) > 0 {
		at := rand.N(len(all))
		all = slices.Concat(all[at:], all[:at])
	}
	var g errgroup.Group
	g.SetLimit(workers)
	for _, line := range all {
		g.Go(func() error {
			for _, t := range line {
				if err := e.fire(ctx, *t); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// lines groups timers that are fired one after the other.
func lines(due []*Timer) [][]*Timer {
	at := map[string]int{}
	var all [][]*Timer
	for _, t := range due {
		i, ok := at[t.Line]
		if !ok || t.Line == "" {
			i = len(all)
			at[t.Line] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], t)
	}
	return all
}

// fire carries out one timer; if that fails it is moved on. What it returns is
// the failure of the database, not of the timer.
func (e *Engine) fire(ctx context.Context, t Timer) error {
	do, failed := e.prepare(ctx, t)
	began := failed != nil
	if failed == nil {
		failed = e.DB.Write(ctx, func(tx *sqldb.Tx) error {
			began = false
			mine, err := e.claim(tx, &t)
			if err != nil || !mine {
				return err
			}
			began = true
			return do(tx, t)
		})
	}
	if failed == nil && began {
		e.late.Observe(max(0, float64(e.Now().UnixMilli()-t.Due)/1000))
	}
	if failed == nil || ctx.Err() != nil || !began {
		return failed
	}
	e.failed.Inc()
	return e.moveOn(ctx, t, failed)
}

// prepare calls the Prepare of a timer. A panic in it is its error, as one in a
// transaction is.
func (e *Engine) prepare(ctx context.Context, t Timer) (do Fire, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("timer: panic in the preparation of %s: %v\n%s", t.Kind, v, debug.Stack())
		}
	}()
	return e.kinds[t.Kind](ctx, t)
}

// claim removes a timer that is due, unless it has been fired or canceled, or is
// not due any more. One that has been moved is taken as it is now.
func (e *Engine) claim(tx *sqldb.Tx, t *Timer) (bool, error) {
	due, err := sqldb.Scalar[int64](tx, "DELETE FROM timers WHERE kind = $1 AND id = $2 AND due <= $3 RETURNING due", t.Kind, t.ID, e.Now().UnixMilli())
	if errors.Is(err, sqldb.ErrNoRow) {
		e.beaten.Store(true)
		return false, nil
	}
	t.Due = due
	return err == nil, err
}

// moveOn gives a timer that failed another time.
func (e *Engine) moveOn(ctx context.Context, t Timer, failed error) error {
	wait := min(time.Second<<min(t.Failures, 20), longest)
	e.Log.Error("a timer cannot be carried out and is tried again", "kind", t.Kind, "id", t.ID, "bot", t.BotID, "failures", t.Failures+1, "after", wait, "err", failed)
	return e.DB.Write(ctx, func(tx *sqldb.Tx) error {
		now := e.Now()
		_, err := tx.Exec("UPDATE timers SET due = $1, failures = failures + 1 WHERE kind = $2 AND id = $3 AND due <= $4", now.Add(wait).UnixMilli(), t.Kind, t.ID, now.UnixMilli())
		return err
	})
}
