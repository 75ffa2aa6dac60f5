package delivery

import (
	"context"
	"errors"
	"time"

	"parley/internal/endpoint"
	"parley/internal/sqldb"
)

// A row in breakers says that an endpoint could not be reached:
//
//	no row         closed
//	failures > 0   open: one lane may try at open_until, which is then moved on
//	               for as long as that try lasts; all other lanes are parked
//	failures = 0   closing: the parked lanes are being woken, then the row goes
//
// A lane is parked only under the lock of an open row and rows close before
// lanes are woken, so no lane is left behind.

const (
	firstProbe   = time.Second
	longestProbe = 5 * time.Minute
	probeTerm    = term        // how long a try keeps others from trying, renewed with its lane
	breakerAge   = time.Second // of the copy kept in memory
)

// change is what a try did to a breaker.
type change struct {
	kind      changeKind
	failures  int
	openUntil int64
	reason    string
	at        int64
	resets    int // of the target, when it was made
}

// outdate forgets a failure of an address that has changed since.
func (c *change) outdate(t *target) {
	if c != nil && c.resets != t.resets && c.kind != closed {
		c.kind = outdated
	}
}

type changeKind uint8

const (
	opened changeKind = iota
	kept              // the one try failed too
	closed
	unused   // the lane that was to try had nothing to send
	outdated // it was about the address before
)

// backoff is the time until the next try after so many failures in a row.
func backoff(failures int) time.Duration {
	d := firstProbe << min(failures-1, 20)
	return jitter(min(d, longestProbe))
}

// blocked reports whether the endpoint of a lane must not be called now, and why.
func (e *Engine) blocked(l *lane) (bool, string) {
	if l.probe {
		return false, ""
	}
	t, now := l.t, e.now()
	e.mu.Lock()
	stale := t.changing == 0 && (t.readAt == 0 || !e.Exclusive && now-t.readAt > breakerAge.Milliseconds())
	e.mu.Unlock()
	if stale {
		e.refresh(t)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return t.open(), "the endpoint could not be reached for 72 hours: " + t.reason
}

// refresh reads the breaker of a target. If that fails the copy stays.
func (e *Engine) refresh(t *target) {
	bs, err := breakers(e.DB.Reader(e.work), "WHERE endpoint = $1", t.id)
	if err != nil {
		if e.work.Err() == nil {
			e.Log.Error("read breaker", "endpoint", t.id, "err", err)
		}
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(bs) == 0 {
		bs = []*breaker{{}}
	}
	e.knowLocked(t, bs[0])
}

// knowLocked takes over what the database says, unless it is about to hear of something newer.
func (e *Engine) knowLocked(t *target, b *breaker) {
	if t.changing == 0 {
		t.failures, t.openUntil, t.reason, t.readAt = b.failures, b.openUntil, b.reason, e.now()
	}
}

// learn notes what a try says about the endpoint and returns what is to be written.
func (e *Engine) learn(l *lane, try *try) *change {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, probe := l.t, l.probe
	l.probe = false
	c := &change{at: e.now(), reason: try.reason, resets: t.resets}
	switch reached := try.class != endpoint.Unreachable; {
	case reached && probe:
		c.kind = closed
		t.failures = 0
	case reached || !probe && t.open() || l.resets != t.resets:
		return nil
	default:
		if c.kind = opened; probe || t.open() {
			c.kind = kept
		}
		t.failures++
		t.openUntil, t.reason = c.at+max(backoff(t.failures), try.wait).Milliseconds(), try.reason
	}
	c.failures, c.openUntil = t.failures, t.openUntil
	t.changing++
	return c
}

// writeBreaker writes a change. It is the last lock a transaction takes.
func (e *Engine) writeBreaker(tx *sqldb.Tx, endpointID string, c *change) error {
	if c == nil {
		return nil
	}
	var err error
	switch c.kind {
	case closed:
		_, err = tx.Exec("UPDATE breakers SET failures = 0, open_until = 0, updated_at = $1 WHERE endpoint = $2", c.at, endpointID)
	case unused:
		_, err = tx.Exec("UPDATE breakers SET open_until = $1 WHERE endpoint = $2 AND failures > 0", c.at, endpointID)
	case kept:
		var n int64
		n, err = tx.Exec("UPDATE breakers SET failures = $1, open_until = $2, reason = $3, updated_at = $4 WHERE endpoint = $5 AND failures > 0",
			c.failures, c.openUntil, c.reason, c.at, endpointID)
		if err != nil || n == 1 {
			break
		}
		fallthrough // it was reset meanwhile, for a try that began before
	case opened:
		_, err = tx.Exec(`INSERT INTO breakers (endpoint, failures, open_until, reason, updated_at) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (endpoint) DO UPDATE SET failures = excluded.failures, open_until = excluded.open_until, reason = excluded.reason, updated_at = excluded.updated_at
			WHERE breakers.failures = 0`, endpointID, c.failures, c.openUntil, c.reason, c.at)
	}
	return err
}

// breakerSavedLocked follows the commit of a change, or the loss of it.
func (e *Engine) breakerSavedLocked(t *target, c *change, lost bool) {
	if c == nil {
		return
	}
	t.changing--
	if lost || c.kind == outdated {
		t.readAt = 0
		return
	}
	if c.kind == closed {
		e.sweepByLocked(0)
	} else {
		e.sweepByLocked(c.openUntil)
	}
	e.changed = append(e.changed, t.id)
}

// closedLocked notes that the breaker was found closed.
func (e *Engine) closedLocked(t *target) {
	if t.changing == 0 {
		t.failures, t.openUntil = 0, 0
	}
}

// Reset closes the breaker of an endpoint whose address has changed: everything
// that waits, for it or for another try, is tried after the commit. So is what
// is being tried now, if that fails.
func (e *Engine) Reset(tx *sqldb.Tx, endpointID string) error {
	e.outdate(endpointID) // before what waits for the row
	if _, err := tx.Exec(`INSERT INTO breakers (endpoint, failures, open_until, reason, updated_at) VALUES ($1, 0, 0, '', $2)
		ON CONFLICT (endpoint) DO UPDATE SET failures = 0, open_until = 0, updated_at = excluded.updated_at`, endpointID, e.now()); err != nil {
		return err
	}
	tx.AfterCommit(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if t := e.targets[endpointID]; t != nil {
			e.closedLocked(t)
		}
		if !e.stopping { // or no sweep would ever tell of it
			e.changed = append(e.changed, endpointID)
		}
		e.sweepByLocked(0)
	})
	tx.AfterCommit(func() { e.hint(hint{Endpoint: endpointID, Reset: true}) })
	return nil
}

// outdate makes what is being tried at an endpoint say nothing about it.
func (e *Engine) outdate(endpointID string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t := e.targets[endpointID]; t != nil {
		t.resets++
	}
}

func breakerOpen(tx *sqldb.Tx, endpointID string) (bool, error) {
	n, err := sqldb.Scalar[int64](tx, "SELECT failures FROM breakers WHERE endpoint = $1 {for_update}", endpointID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return false, nil
	}
	return n > 0, err
}

// breaker is a row of breakers.
type breaker struct {
	endpoint  string
	failures  int
	openUntil int64
	reason    string
}

func (b *breaker) Columns() []sqldb.Column {
	return []sqldb.Column{{Name: "endpoint", Field: &b.endpoint}, {Name: "failures", Field: &b.failures}, {Name: "open_until", Field: &b.openUntil}, {Name: "reason", Field: &b.reason}}
}

func breakers(q sqldb.Q, tail string, args ...any) ([]*breaker, error) {
	return sqldb.Select[breaker](q, "breakers", tail, args...)
}

// tend does what the breakers ask for: it wakes the lanes of those that close
// and sends one lane of those whose time has come.
func (e *Engine) tend(ctx context.Context) error {
	bs, err := breakers(e.DB.Reader(ctx), "")
	if err != nil {
		return err
	}
	e.compare(bs)
	var errs []error
	for _, b := range bs {
		switch {
		case b.failures == 0:
			errs = append(errs, e.wakeParked(ctx, b.endpoint))
		case b.openUntil <= e.now():
			errs = append(errs, e.probe(ctx, b))
		default:
			e.sweepBy(b.openUntil)
		}
	}
	return errors.Join(errs...)
}

// compare brings the copies in memory up to date and tells the other nodes of changes made here.
func (e *Engine) compare(bs []*breaker) {
	e.mu.Lock()
	if !e.Exclusive {
		rows := make(map[string]*breaker, len(bs))
		for _, b := range bs {
			rows[b.endpoint] = b
		}
		for id, t := range e.targets {
			if b := rows[id]; b != nil {
				e.knowLocked(t, b)
			} else if t.open() {
				t.readAt = 0
			}
		}
	}
	changed := e.changed
	e.changed = nil
	e.mu.Unlock()
	for _, id := range changed {
		e.hint(hint{Endpoint: id})
	}
}

// wakeParked ends the wait of every lane of an endpoint, then forgets its
// breaker. Lanes that producers have locked are left for a second round.
func (e *Engine) wakeParked(ctx context.Context, endpointID string) error {
	defer e.hint(hint{Endpoint: endpointID})
	for {
		now := e.now()
		parked := "due > $1 AND due < 9223372036854775807 AND owner = ''"
		keys, err := texts(e.DB.Reader(ctx), "SELECT key FROM lanes WHERE "+parked+" AND endpoint = $2 LIMIT $3", now, endpointID, sweepBatch)
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			break
		}
		var woken int64
		if err := e.DB.Write(ctx, func(tx *sqldb.Tx) (err error) {
			w := sqldb.Where{Args: []any{now}}
			woken, err = tx.Exec("UPDATE lanes SET due = $1 WHERE key IN (SELECT key FROM lanes WHERE "+parked+" AND key IN "+sqldb.In(&w, keys)+" {skip_locked}) AND "+parked, w.Args...)
			return err
		}); err != nil {
			return err
		}
		if woken == 0 {
			e.sweepBy(now + writeWait.Milliseconds())
			return nil
		}
	}
	return e.DB.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec("DELETE FROM breakers WHERE endpoint = $1 AND failures = 0", endpointID)
		return err
	})
}

// probe gives one lane of an endpoint the right to try.
func (e *Engine) probe(ctx context.Context, b *breaker) error {
	now, endpointID := e.now(), b.endpoint
	keys, err := texts(e.DB.Reader(ctx), "SELECT key FROM lanes WHERE due < 9223372036854775807 AND lease_until < $1 AND endpoint = $2 ORDER BY due LIMIT 8", now, endpointID)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return e.closeUnless(ctx, endpointID)
	}
	c := claim{endpoint: endpointID, token: e.claimID(), until: now + term.Milliseconds(), probe: true}
	err = e.DB.Write(ctx, func(tx *sqldb.Tx) error {
		for _, key := range keys {
			got, err := claimed(tx, c, probeSQL, c.token, c.until, now, key)
			if err != nil {
				return err
			}
			if len(got) > 0 { // otherwise somebody has it
				return e.mayProbe(tx, got[0], b, now)
			}
		}
		return nil
	})
	e.sweepBy(now + firstProbe.Milliseconds())
	return err
}

const probeSQL = "UPDATE lanes SET owner = $1, lease_until = $2, due = $3 WHERE key = $4 AND lease_until < $3 AND due < 9223372036854775807 " + claimSQL

// mayProbe takes the one try an open breaker allows for a lane that has been
// claimed before: like everywhere, the lane is locked first.
func (e *Engine) mayProbe(tx *sqldb.Tx, c claim, b *breaker, now int64) error {
	n, err := tx.Exec("UPDATE breakers SET open_until = $1 WHERE endpoint = $2 AND failures > 0 AND open_until <= $3", now+probeTerm.Milliseconds(), c.endpoint, now)
	if err != nil {
		return err
	}
	if n == 0 { // another node was first
		_, err := tx.Exec(leaveSQL, now, c.done, c.key)
		return err
	}
	tx.AfterCommit(func() {
		// Another process may have opened it: the next wait is longer than the last one was.
		e.mu.Lock()
		e.knowLocked(e.targetLocked(c.endpoint), b)
		e.mu.Unlock()
		e.accept(c)
	})
	return nil
}

// closeUnless closes a breaker unless a lane of its endpoint has something to do:
// one that somebody holds at this moment is about to wait for it.
func (e *Engine) closeUnless(ctx context.Context, endpointID string) error {
	_, err := sqldb.Scalar[int64](e.DB.Reader(ctx), "SELECT 1 FROM lanes WHERE due < 9223372036854775807 AND endpoint = $1 LIMIT 1", endpointID)
	switch {
	case errors.Is(err, sqldb.ErrNoRow):
		return e.closeUnused(ctx, endpointID)
	case err == nil:
		e.sweepBy(e.now() + firstProbe.Milliseconds())
	}
	return err
}

// closeUnused closes a breaker that nothing waits for. The next entry finds out.
func (e *Engine) closeUnused(ctx context.Context, endpointID string) error {
	now, closes := e.now(), int64(0)
	if err := e.DB.Write(ctx, func(tx *sqldb.Tx) (err error) {
		closes, err = tx.Exec("UPDATE breakers SET failures = 0, open_until = 0, updated_at = $1 WHERE endpoint = $2 AND failures > 0 AND open_until <= $1", now, endpointID)
		return err
	}); err != nil || closes == 0 { // somebody else has begun to try
		return err
	}
	e.mu.Lock()
	if t := e.targets[endpointID]; t != nil {
		e.closedLocked(t)
	}
	e.mu.Unlock()
	return e.wakeParked(ctx, endpointID)
}

func texts(q sqldb.Q, query string, args ...any) ([]string, error) {
	rows, err := q.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}
