package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/internal/sqldb"
)

const (
	sweepPause  = 10 * time.Millisecond // between two sweeps, so that retries that fall due together are claimed together
	targetsKept = time.Minute           // what is known of an endpoint nobody writes to
)

// sweepLoop claims what became due. It runs at the earliest due time it knows
// of, when it is called, and now and then in case a call got lost.
func (e *Engine) sweepLoop(ctx context.Context) {
	for ; ; e.sweep(ctx) {
		earliest := e.now() + sweepPause.Milliseconds()
		for {
			e.mu.Lock()
			wait := max(e.soonest, earliest) - e.now()
			e.mu.Unlock()
			if wait <= 0 {
				break
			}
			// The clock may be set back while the timer runs; the timer is not.
			fired, stop := e.timer(min(time.Duration(wait)*time.Millisecond, sweepEvery))
			ripe := false
			select {
			case <-fired:
				ripe = true
			case <-e.kick:
			case <-ctx.Done():
				stop()
				return
			}
			stop()
			if ripe {
				break
			}
		}
	}
}

// sweepBy has the sweeper run at the given time at the latest.
func (e *Engine) sweepBy(at int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sweepByLocked(at)
}

func (e *Engine) sweepByLocked(at int64) {
	if at < e.soonest {
		e.soonest = at
		signal(e.kick)
	}
}

func (e *Engine) sweepSoon() { e.sweepBy(0) }

func (e *Engine) sweep(ctx context.Context) {
	now := e.now()
	e.mu.Lock()
	e.soonest = now + sweepEvery.Milliseconds()
	if len(e.again) > 0 {
		e.toWrite = append(e.toWrite, e.again...)
		e.again = nil
		signal(e.pen)
	}
	for id, t := range e.targets {
		if t.lanes == 0 && !t.open() && now-t.used > targetsKept.Milliseconds() {
			delete(e.targets, id)
		}
	}
	stopping := e.stopping
	e.mu.Unlock()
	if stopping {
		return
	}
	if err := errors.Join(e.inherit(ctx), e.disclaim(ctx), e.tend(ctx), e.claimDue(ctx)); err != nil && ctx.Err() == nil {
		e.Log.Error("sweep", "err", err)
		e.sweepBy(e.now() + writeWait.Milliseconds())
	}
}

// doubt keeps a claim whose commit got no answer. If it happened, the lane is
// taken by nobody until its lease ends.
func (e *Engine) doubt(c claim) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.doubted = append(e.doubted, c)
	e.sweepByLocked(e.now() + writeWait.Milliseconds())
}

// disclaim ends the leases of claims in doubt. The owner of a claim is unique, so
// a lane that somebody else has taken since stays with them.
func (e *Engine) disclaim(ctx context.Context) error {
	e.mu.Lock()
	cs := slices.SortedFunc(slices.Values(e.doubted), func(a, b claim) int { return strings.Compare(a.key, b.key) })
	e.mu.Unlock()
	for batch := range slices.Chunk(cs, sweepBatch) {
		err := e.DB.Write(ctx, func(tx *sqldb.Tx) error {
			for _, c := range batch {
				if _, err := tx.Exec("UPDATE lanes SET lease_until = 0, owner = '' WHERE key = $1 AND owner = $2", c.key, c.token); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err // they stay in doubt
		}
		e.mu.Lock()
		e.doubted = slices.DeleteFunc(e.doubted, func(d claim) bool { return slices.Contains(batch, d) })
		e.mu.Unlock()
	}
	return nil
}

// claimDue claims due lanes while there is room, and finds out when the next one is due.
func (e *Engine) claimDue(ctx context.Context) error {
	for full := true; full; {
		n, crowded := e.room()
		if n == 0 {
			break
		}
		got, err := e.claimBatch(ctx, n, crowded)
		if err != nil {
			return err
		}
		full = got == n
	}
	due, err := sqldb.Scalar[int64](e.DB.Reader(ctx), "SELECT due FROM lanes WHERE due > $1 AND due < 9223372036854775807 ORDER BY due LIMIT 1", e.now())
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil
	}
	if err == nil {
		e.sweepBy(due)
	}
	return err
}

// room says how many lanes may be claimed now, and of which endpoints none.
func (e *Engine) room() (n int, crowded []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping || e.dead {
		return 0, nil
	}
	if n = min(sweepBatch, e.Queue-e.waiting); n <= 0 {
		e.starved = true
		return 0, nil
	}
	for id, t := range e.targets {
		if !e.mayQueueLocked(t) {
			t.starved = true
			crowded = append(crowded, id)
		}
	}
	return n, crowded
}

// claimBatch claims up to n due lanes, the longest due first. The reader is
// asked before, so that looking costs the writer nothing.
func (e *Engine) claimBatch(ctx context.Context, n int, crowded []string) (got int, err error) {
	now := e.now()
	token, until := e.claimID(), now+term.Milliseconds()
	w := sqldb.Where{Args: []any{now}}
	due := "due <= $1 AND due < 9223372036854775807 AND lease_until < $1"
	if len(crowded) > 0 {
		due += " AND endpoint NOT IN " + sqldb.In(&w, crowded)
	}
	_, err = sqldb.Scalar[int64](e.DB.Reader(ctx), "SELECT 1 FROM lanes WHERE "+due+" LIMIT 1", w.Args...)
	if errors.Is(err, sqldb.ErrNoRow) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	// The predicate stands twice: without the outer one PostgreSQL gives a lane to two claimers.
	query := "UPDATE lanes SET owner = " + w.Arg(token) + ", lease_until = " + w.Arg(until) +
		" WHERE key IN (SELECT key FROM lanes WHERE " + due + " ORDER BY due LIMIT " + w.Arg(n) + " {skip_locked}) AND " + due +
		" " + claimSQL
	var cs []claim
	err = e.DB.Write(ctx, func(tx *sqldb.Tx) (err error) {
		cs, err = claimed(tx, claim{token: token, until: until}, query, w.Args...)
		for _, c := range cs {
			tx.AfterCommit(func() { e.accept(c) })
			tx.InDoubt(func() { e.doubt(c) })
		}
		return err
	})
	return len(cs), err
}

// claimSQL ends a statement for claimed.
const claimSQL = "RETURNING key, endpoint, seq, done, ephemeral"

// claimed runs a statement that claims lanes, each as c says.
func claimed(tx *sqldb.Tx, c claim, query string, args ...any) ([]claim, error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var cs []claim
	for rows.Next() {
		if err := rows.Scan(&c.key, &c.endpoint, &c.seq, &c.done, &c.ephemeral); err != nil {
			return nil, err
		}
		cs = append(cs, c)
	}
	return cs, rows.Close()
}

// inherit ends the leases of earlier processes once: at the start, or when the
// database takes writes, if its disk is full at the start.
func (e *Engine) inherit(ctx context.Context) error {
	e.mu.Lock()
	nothing := e.heir || !e.Exclusive && e.Home == ""
	e.mu.Unlock()
	if nothing {
		return nil
	}
	if err := e.reset(ctx); err != nil {
		return fmt.Errorf("end the leases of earlier processes: %w", err)
	}
	e.mu.Lock()
	e.heir = true
	e.mu.Unlock()
	return nil
}

// reset ends the leases of earlier processes, which the lock on the data
// directory proves to be gone: all of them, or those of this home.
func (e *Engine) reset(ctx context.Context) error {
	w := sqldb.Where{Args: []any{len(e.node), e.node}}
	left := "due < 9223372036854775807 AND owner <> '' AND substr(owner, 1, $1) <> $2"
	if !e.Exclusive {
		home := e.Home + "/"
		left += " AND substr(owner, 1, " + w.Arg(len(home)) + ") = " + w.Arg(home)
	}
	return e.DB.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec("UPDATE lanes SET lease_until = 0, owner = '' WHERE key IN (SELECT key FROM lanes WHERE "+left+" ORDER BY key {for_update})", w.Args...)
		return err
	})
}
