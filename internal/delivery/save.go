package delivery

import (
	"context"
	"errors"

	"parley/internal/sqldb"
)

// pass is one run of the closure that writes what became of a lane. The fields
// of the first group are what it found in memory, the others what it did.
type pass struct {
	claim
	entries  []entry
	position int64
	idle     bool // nothing more is known: give the lane up if that is true
	leave    leave
	due      int64

	gone bool // the lane is given up
	lost bool // somebody else has it, nothing was written
	back bool // it was to wait, and there is no reason any more
}

// save writes the outcomes of a lane with the next commit. One closure of a
// lane is on its way at a time, because a lane may only be given up together
// with the last of its outcomes.
func (e *Engine) save(l *lane) {
	var p pass
	e.DB.WriteSoonRanked(l.key,
		func(tx *sqldb.Tx) error {
			p = e.found(l)
			return e.write(tx, &p)
		},
		func(err error) { e.saved(l, &p, err) },
	)
}

// found takes down the state of a lane when its closure runs: what was added
// since the closure was handed over is written along.
func (e *Engine) found(l *lane) pass {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := pass{claim: l.claim, lost: e.dead, entries: l.unsaved[:len(l.unsaved):len(l.unsaved)], position: l.position}
	if l.state == resting {
		p.leave, p.due = l.leave, l.due
		p.idle = l.leave == stay && l.seq <= l.position
		if e.stopping && p.leave == stay && !p.idle {
			p.leave, p.due = later, e.now()
		}
		p.back = p.leave == later && l.resets != l.t.resets && !e.stopping
	}
	for i := range p.entries {
		p.entries[i].breaker.outdate(l.t)
	}
	return p
}

// Statements of write. The release compares the sequence with what this claim
// has attended to: an entry that was committed before it, or waits for the row
// lock in a producer's open transaction, either keeps the lane or finds it idle.
const (
	idleSQL   = "UPDATE lanes SET due = 9223372036854775807, lease_until = 0, owner = '', done = seq WHERE key = $1 AND owner = $2 AND seq = $3"
	removeSQL = "DELETE FROM lanes WHERE key = $1 AND owner = $2 AND seq = $3"
	fenceSQL  = "SELECT seq FROM lanes WHERE key = $1 AND owner = $2 {for_update}"
	leaveSQL  = "UPDATE lanes SET due = $1, lease_until = 0, owner = '', done = $2 WHERE key = $3"
	extendSQL = "UPDATE lanes SET lease_until = $1, done = $2 WHERE key = $3"
	tryoutSQL = `INSERT INTO attempts (work_id, number, endpoint, outcome, status, reason, started_at, duration_ms, response, response_type)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`
)

// write locks the lane first, then events, then the breaker.
func (e *Engine) write(tx *sqldb.Tx, p *pass) error {
	if p.lost {
		return nil // the engine has ended
	}
	if err := e.fence(tx, p); err != nil || p.lost {
		return err
	}
	for i := range p.entries {
		n := &p.entries[i]
		if err := e.Source.Done(tx, n.work, n.outcome); err != nil {
			return err
		}
		if t := n.try; t != nil {
			if err := tx.Send(tryoutSQL, n.work.ID, n.work.Attempt, p.endpoint, t.class.String(), t.status, t.reason, t.started, t.took.Milliseconds(), t.response, t.responseType); err != nil {
				return err
			}
		}
	}
	for i := range p.entries {
		if err := e.writeBreaker(tx, p.endpoint, p.entries[i].breaker); err != nil {
			return err
		}
	}
	return e.part(tx, p)
}

// fence makes sure that the claim still holds, and gives the lane up at once
// if it has nothing more. The owner of a claim is unique, so a lease that ran
// out without anybody taking the lane is no reason to deliver again.
func (e *Engine) fence(tx *sqldb.Tx, p *pass) error {
	if p.idle {
		release := idleSQL
		if p.ephemeral {
			release = removeSQL
		}
		n, err := tx.Exec(release, p.key, p.token, p.position)
		if err != nil || n == 1 {
			p.gone = n == 1
			return err
		}
	}
	seq, err := sqldb.Scalar[int64](tx, fenceSQL, p.key, p.token)
	if errors.Is(err, sqldb.ErrNoRow) {
		p.lost = true
		return nil
	}
	p.seq = seq
	return err
}

// part leaves the lane to wait, or sees to it that the lease goes on.
func (e *Engine) part(tx *sqldb.Tx, p *pass) error {
	now := e.now()
	if p.probe && (p.gone || p.leave != stay) {
		// The breaker is still waiting for the try this claim was given for.
		if err := e.writeBreaker(tx, p.endpoint, &change{kind: unused, at: now}); err != nil {
			return err
		}
	}
	if p.leave == park {
		open, err := breakerOpen(tx, p.endpoint)
		if err != nil {
			return err
		}
		p.back = !open
	}
	switch {
	case p.gone:
		return nil
	case p.leave != stay && !p.back:
		p.gone = true
		return tx.Send(leaveSQL, p.due, p.position, p.key)
	case p.until-now < renewBelow.Milliseconds():
		p.until = now + term.Milliseconds()
		return tx.Send(extendSQL, p.until, p.position, p.key)
	}
	return nil
}

// saved follows the commit, or failure, of a write.
func (e *Engine) saved(l *lane, p *pass, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.unsavedLocked(l, err)
		return
	}
	l.writing = false
	if p.lost && !e.dead {
		e.Log.Warn("a lane was lost to another claim, its work is delivered again", "lane", l.key, "outcomes", len(p.entries))
	}
	if l.unsaved = l.unsaved[len(p.entries):]; len(l.unsaved) == 0 {
		l.unsaved = nil
	}
	for i := range p.entries {
		e.breakerSavedLocked(l.t, p.entries[i].breaker, p.lost)
	}
	if p.probe && p.gone {
		e.sweepByLocked(0)
	}
	switch {
	case (p.lost || p.gone) && l.state == resting:
		if p.leave != stay {
			e.sweepByLocked(p.due)
		}
		e.forgetLocked(l)
	case p.lost || p.gone:
		l.lost = true // the worker that has it finds out before its next try
	default:
		l.seq, l.until, l.lost = max(l.seq, p.seq), max(l.until, p.until), false
		if p.back && p.leave == park {
			e.closedLocked(l.t)
		}
		if p.back {
			l.leave = stay
		}
		e.goOnLocked(l)
	}
}

// goOnLocked finds the next thing to do for a lane whose write has returned.
func (e *Engine) goOnLocked(l *lane) {
	switch {
	case l.state == resting && l.mayGoOn(e.now()) && !e.stopping:
		e.readyLocked(l)
	case l.state == resting:
		e.restLocked(l) // something changed after the closure had run
	case len(l.unsaved) > 0:
		l.writing = true
		e.toWrite = append(e.toWrite, l)
		signal(e.pen)
	}
}

// unsavedLocked keeps a lane whose outcomes could not be written. It goes no
// further than its bound of them and is tried again.
func (e *Engine) unsavedLocked(l *lane, err error) {
	if errors.Is(err, sqldb.ErrClosed) {
		l.writing, l.next = false, nil
		if l.state == resting {
			e.forgetLocked(l)
		}
		return
	}
	e.Log.Error("write outcomes", "lane", l.key, "err", err)
	e.again = append(e.again, l)
	e.sweepByLocked(e.now() + writeWait.Milliseconds())
}

// writeLoop hands over the writes that are asked for where nobody may wait for room in the queue.
func (e *Engine) writeLoop(ctx context.Context) {
	for {
		select {
		case <-e.pen:
		case <-ctx.Done():
			return
		}
		e.mu.Lock()
		ls := e.toWrite
		e.toWrite = nil
		e.mu.Unlock()
		for _, l := range ls {
			e.save(l)
		}
	}
}
