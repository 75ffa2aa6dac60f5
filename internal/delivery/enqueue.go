package delivery

import (
	"encoding/json"
	"errors"
	"fmt"

	"parley/internal/sqldb"
)

// Lane names an order of deliveries.
type Lane struct {
	Key      string
	Endpoint string // the same for the life of the lane
	// Ephemeral lanes are removed when their work is done. They serve entries
	// that stand in no order with others.
	Ephemeral bool
}

// never is the due time of a lane with nothing to do. It is written out in SQL
// so that both engines see that the partial index applies.
const never = 9223372036854775807

// A lane that has nothing to do gets a due time; one that nobody holds and that
// does not wait for a retry gets the claim of the producer.
const enqueueSQL = `INSERT INTO lanes (key, endpoint, seq, done, ephemeral, due, lease_until, owner) VALUES ($1, $2, 1, 0, $6, $3, $4, $5)
	ON CONFLICT (key) DO UPDATE SET seq = lanes.seq + 1,
	due = CASE WHEN lanes.due = 9223372036854775807 THEN excluded.due ELSE lanes.due END,
	lease_until = CASE WHEN lanes.lease_until < excluded.due AND (lanes.due = 9223372036854775807 OR lanes.due <= excluded.due) THEN excluded.lease_until ELSE lanes.lease_until END,
	owner = CASE WHEN lanes.lease_until < excluded.due AND (lanes.due = 9223372036854775807 OR lanes.due <= excluded.due) THEN excluded.owner ELSE lanes.owner END
	RETURNING seq, done, owner`

// Enqueue takes the next sequence of a lane. A producer calls it in its
// transaction before it inserts the entry with that sequence as pending; after
// the commit a worker looks at the lane. An entry that becomes pending without
// Enqueue may never be seen.
//
// The row of the lane stays locked until the transaction ends, which makes
// sequences commit in their order. A producer of several lanes enqueues in the
// order of their keys.
func (e *Engine) Enqueue(tx *sqldb.Tx, l Lane) (seq int64, err error) {
	c := claim{key: l.Key, endpoint: l.Endpoint, ephemeral: l.Ephemeral}
	now := e.now()
	if e.roomFor(l.Endpoint) {
		c.token, c.until = e.claimID(), now+term.Milliseconds()
	}
	rows, err := tx.Query(enqueueSQL, l.Key, l.Endpoint, now, c.until, c.token, l.Ephemeral)
	if err != nil {
		return 0, fmt.Errorf("enqueue: %w", err)
	}
	defer rows.Close()
	var owner string
	if !rows.Next() {
		return 0, fmt.Errorf("enqueue: %w", errors.Join(rows.Err(), sqldb.ErrNoRow))
	}
	if err := rows.Scan(&c.seq, &c.done, &owner); err != nil {
		return 0, fmt.Errorf("enqueue: %w", err)
	}
	tx.AfterCommit(func() { e.handOver(c, owner) })
	if owner != "" && owner == c.token {
		tx.InDoubt(func() { e.doubt(c) })
	}
	return c.seq, rows.Close()
}

// handOver follows the commit of an entry. owner is who holds its lane.
func (e *Engine) handOver(c claim, owner string) {
	switch {
	case owner == "" && c.token == "":
		// There was no room. Room that came before the commit called the sweeper too early.
		if e.roomFor(c.endpoint) {
			e.sweepSoon()
		}
		e.hint(hint{})
	case owner == "":
		// the lane waits for its time
	case owner == c.token:
		e.accept(c)
	case e.ours(owner):
		e.look(c.key, owner, c.seq)
	default:
		e.hint(hint{Key: c.key, Owner: owner, Seq: c.seq})
	}
}

// topic is where engines tell each other what to look at.
const topic = "lane"

// hint says: lanes are free (no Key), the holder of a lane should look at it,
// or the breaker of an endpoint has changed, maybe because its address has.
type hint struct {
	From     string `json:"from"`
	Key      string `json:"key,omitempty"`
	Owner    string `json:"owner,omitempty"`
	Seq      int64  `json:"seq,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Reset    bool   `json:"reset,omitempty"`
}

func (e *Engine) hint(h hint) {
	if e.Exclusive {
		return // nobody else is there
	}
	h.From = e.node
	b, err := json.Marshal(h)
	if err != nil {
		e.Log.Error("hint", "err", err)
		return
	}
	e.Bus.Publish(topic, b)
}

// hear takes a hint. What cannot be read is ignored: hints are not needed to be right.
func (e *Engine) hear(data []byte) {
	var h hint
	if json.Unmarshal(data, &h) != nil || h.From == e.node {
		return
	}
	switch {
	case h.Key == "" && h.Endpoint == "":
		e.sweepSoon()
	case h.Key == "":
		if h.Reset {
			e.outdate(h.Endpoint)
		}
		e.mu.Lock()
		if t := e.targets[h.Endpoint]; t != nil {
			t.readAt = 0
		}
		e.mu.Unlock()
		e.sweepSoon()
	case e.ours(h.Owner):
		e.look(h.Key, h.Owner, h.Seq)
	}
}
