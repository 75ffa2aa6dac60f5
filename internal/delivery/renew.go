package delivery

import (
	"context"
	"slices"

	"parley/internal/sqldb"
)

// renewLoop keeps the leases of lanes that are held for long, by a slow
// endpoint or a long queue.
func (e *Engine) renewLoop(ctx context.Context) {
	for {
		fired, stop := e.timer(renewEvery)
		select {
		case <-fired:
		case <-ctx.Done():
			stop()
			return
		}
		for batch := range slices.Chunk(e.expiring(), sweepBatch) {
			if err := e.renew(ctx, batch); err != nil && ctx.Err() == nil {
				// A lane is not worked on once its lease runs low; the next round or the write of its outcome tries again.
				e.Log.Error("renew leases", "err", err)
			}
		}
	}
}

// expiring lists the claims to renew.
func (e *Engine) expiring() []claim {
	e.mu.Lock()
	defer e.mu.Unlock()
	var cs []claim
	soon := e.now() + renewBelow.Milliseconds()
	for _, l := range e.lanes {
		if l.until < soon {
			cs = append(cs, l.claim)
		}
	}
	return cs
}

// renew extends the claims that still stand. Rows that somebody has locked are
// left for the next round, or deadlocks with the writes of outcomes would be
// frequent. A claim that is lost is not looked for here: its lease ends, no try
// begins on the last of it, and the next write meets the fence. The probes among
// the claims keep other nodes from probing the same endpoint.
func (e *Engine) renew(ctx context.Context, cs []claim) error {
	var until int64
	w := sqldb.Where{Args: []any{&until, len(e.node), e.node}}
	keys := make([]string, len(cs))
	for i, c := range cs {
		keys[i] = c.key
	}
	mine := "substr(owner, 1, $2) = $3 AND lease_until < $1"
	query := "UPDATE lanes SET lease_until = $1 WHERE key IN (SELECT key FROM lanes WHERE " + mine + " AND key IN " + sqldb.In(&w, keys) +
		" {skip_locked}) AND " + mine + " RETURNING key, owner"
	var held map[string]string
	if err := e.DB.Write(ctx, func(tx *sqldb.Tx) (err error) {
		until = e.now() + term.Milliseconds()
		if held, err = owners(tx, query, w.Args...); err != nil {
			return err
		}
		for _, c := range cs {
			if !c.probe || held[c.key] != c.token {
				continue
			}
			if _, err := tx.Exec("UPDATE breakers SET open_until = $1 WHERE endpoint = $2 AND failures > 0 AND open_until < $1", until, c.endpoint); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, owner := range held {
		if l := e.lanes[key]; l != nil && l.token == owner {
			l.until = max(l.until, until)
		}
	}
	return nil
}

func owners(tx *sqldb.Tx, query string, args ...any) (map[string]string, error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var key, owner string
		if err := rows.Scan(&key, &owner); err != nil {
			return nil, err
		}
		out[key] = owner
	}
	return out, rows.Close()
}
