// Package timer makes things happen at a time. A timer is a row; when it is due
// a function of its kind runs in the transaction that removes the row, so its
// effect happens exactly once, whatever dies when.
//
//	Set ─ commit ─► row (due) ─► the engine sleeps until the earliest ─► one transaction:
//	                                              claim ≤ 50 rows · fire each · remove or move each
//
// # Rules
//
//   - A timer fires at its time or after it, never before. Idle servers are late
//     by milliseconds, busy ones by their write queue.
//   - A timer that fell due while no server ran fires when one does, once.
//   - A time is a point on the wall clock. When the clock is set forward, what has
//     come due fires; when it is set back, timers wait for their time again. The
//     engine itself sleeps for lengths of time and is not confused by either.
//   - Timers of one time fire in the order of kind and id. Nothing else is said
//     about order.
//   - A function that fails leaves its timer, which is tried again after 1 s, 2 s,
//     4 s … up to 5 min, and hinders no other timer.
//
// Several servers on one database share the work: a claim skips rows that
// another one has locked.
package timer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"parley/internal/bus"
	"parley/internal/sqldb"
)

const (
	batch    = 50              // timers in one transaction; each may touch a few rows
	lookEach = 5 * time.Second // the net under lost hints and steps of the clock
	longest  = 5 * time.Minute // between two tries of one that fails
	topic    = "timer"         // tells other servers of an earlier due time
	never    = int64(math.MaxInt64)
)

// Timer is one thing that is to happen.
type Timer struct {
	Kind     string
	ID       string
	BotID    string // "" = of no bot
	Due      int64  // milliseconds since the epoch
	Failures int64  // times it was tried in vain
}

// Columns binds the columns of table timers.
func (t *Timer) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "kind", Field: &t.Kind},
		{Name: "id", Field: &t.ID},
		{Name: "bot_id", Field: &t.BotID},
		{Name: "due", Field: &t.Due},
		{Name: "failures", Field: &t.Failures},
	}
}

// Fire carries a timer out. It runs in the transaction that removes the timer,
// possibly more than once like every write closure. It may set the timer again,
// for a later time.
type Fire func(tx *sqldb.Tx, t Timer) error

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
	kinds map[string]Fire
	kick  chan int64 // the earliest time that was set since the engine last looked
	sleep func(time.Duration) (<-chan time.Time, func() bool)
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
	return &Engine{Config: c, kinds: map[string]Fire{}, kick: make(chan int64, 1), sleep: func(d time.Duration) (<-chan time.Time, func() bool) {
		t := time.NewTimer(d)
		return t.C, t.Stop
	}}
}

// Handle says what happens when timers of a kind are due. Call it before Run.
func (e *Engine) Handle(kind string, fire Fire) { e.kinds[kind] = fire }

// Set makes a timer due at t.Due, also one that has another time so far.
func (e *Engine) Set(tx *sqldb.Tx, t Timer) error {
	if e.kinds[t.Kind] == nil {
		return fmt.Errorf("timer: nobody handles the kind %q", t.Kind)
	}
	_, err := tx.Exec(`INSERT INTO timers (kind, id, bot_id, due, failures) VALUES ($1, $2, $3, $4, 0)
		ON CONFLICT (kind, id) DO UPDATE SET due = excluded.due, bot_id = excluded.bot_id, failures = 0`, t.Kind, t.ID, t.BotID, t.Due)
	tx.AfterCommit(func() { e.announce(t.Due) })
	return err
}

// Cancel removes a timer and reports whether there was one.
func (e *Engine) Cancel(tx *sqldb.Tx, kind, id string) (bool, error) {
	n, err := tx.Exec("DELETE FROM timers WHERE kind = $1 AND id = $2", kind, id)
	return n > 0, err
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
		if err != nil && ctx.Err() == nil {
			e.Log.Error("fire timers", "err", err)
			next = e.Now().Add(time.Second).UnixMilli()
		}
		e.rest(ctx, next)
	}
	return nil
}

// rest sleeps until next, for lookEach at most: the clock may be set meanwhile.
func (e *Engine) rest(ctx context.Context, next int64) {
	for ctx.Err() == nil {
		wait := min(time.Duration(min(max(0, next-e.Now().UnixMilli()), lookEach.Milliseconds()))*time.Millisecond, lookEach)
		if wait == 0 {
			return
		}
		woken, stop := e.sleep(wait)
		select {
		case <-woken:
			return
		case due := <-e.kick:
			stop()
			next = min(next, due)
		case <-ctx.Done():
			stop()
		}
	}
}

// Due fires everything that is due and returns the time of the next timer.
func (e *Engine) Due(ctx context.Context) (next int64, err error) {
	for {
		next, err = sqldb.Scalar[int64](e.DB.Reader(ctx), "SELECT due FROM timers ORDER BY due LIMIT 1")
		if errors.Is(err, sqldb.ErrNoRow) {
			return never, nil
		}
		if err != nil || next > e.Now().UnixMilli() {
			return next, err
		}
		n, err := e.fireSome(ctx)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			// Another server has them.
			return e.Now().Add(50 * time.Millisecond).UnixMilli(), nil
		}
	}
}

// fireSome carries out a batch in one transaction. If one of it fails, each is
// tried in a transaction of its own.
func (e *Engine) fireSome(ctx context.Context) (n int, err error) {
	var claimed []*Timer
	err = e.DB.Write(ctx, func(tx *sqldb.Tx) (err error) {
		if claimed, err = e.claim(tx, "due <= $1 ORDER BY due, kind, id LIMIT $2 {skip_locked}", e.Now().UnixMilli(), batch); err != nil {
			return err
		}
		for _, t := range claimed {
			if err := e.fire(tx, *t); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil || ctx.Err() != nil || claimed == nil {
		return len(claimed), err
	}
	for _, t := range claimed {
		if err := e.fireOne(ctx, *t); err != nil {
			return 0, err
		}
	}
	return len(claimed), nil
}

// claim locks rows and reads them.
func (e *Engine) claim(tx *sqldb.Tx, where string, args ...any) ([]*Timer, error) {
	return sqldb.Select[Timer](tx, "timers", "WHERE "+where, args...)
}

func (e *Engine) fire(tx *sqldb.Tx, t Timer) error {
	if _, err := e.Cancel(tx, t.Kind, t.ID); err != nil {
		return err
	}
	do := e.kinds[t.Kind]
	if do == nil {
		return fmt.Errorf("timer: nobody handles the kind %q", t.Kind)
	}
	return do(tx, t)
}

// fireOne carries out one timer; if that fails it is moved on.
func (e *Engine) fireOne(ctx context.Context, t Timer) error {
	still := func(tx *sqldb.Tx) (bool, error) {
		found, err := e.claim(tx, "kind = $1 AND id = $2 AND due = $3 {skip_locked}", t.Kind, t.ID, t.Due)
		return len(found) == 1, err
	}
	failed := e.DB.Write(ctx, func(tx *sqldb.Tx) error {
		if ok, err := still(tx); err != nil || !ok {
			return err
		}
		return e.fire(tx, t)
	})
	if failed == nil || ctx.Err() != nil {
		return failed
	}
	wait := min(time.Second<<min(t.Failures, 20), longest)
	e.Log.Error("a timer cannot be carried out and is tried again", "kind", t.Kind, "id", t.ID, "bot", t.BotID, "failures", t.Failures+1, "after", wait, "err", failed)
	return e.DB.Write(ctx, func(tx *sqldb.Tx) error {
		if ok, err := still(tx); err != nil || !ok {
			return err
		}
		_, err := tx.Exec("UPDATE timers SET due = $1, failures = failures + 1 WHERE kind = $2 AND id = $3", e.Now().Add(wait).UnixMilli(), t.Kind, t.ID)
		return err
	})
}
