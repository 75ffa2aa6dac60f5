package messaging

import (
	"context"
	"errors"
	"time"

	"parley/internal/sqldb"
	"parley/internal/tag"
)

const (
	chunk = 500 // rows a sweeping transaction touches at most

	// signalsKept is how long a listener may be away and still be told of
	// everything; messages are told of for as long as they exist.
	signalsKept = 7 * 24 * time.Hour
	// actionsKept is how long the log of actions reaches back.
	actionsKept = 30 * 24 * time.Hour
)

// tombstoneBot is the kind of a deleted bot; users and conversations have the kinds of their tags.
const tombstoneBot = "bot"

// bury marks something deleted whose rows the sweeper removes.
func (s *Service) bury(tx *sqldb.Tx, kind, botID, entityID string) error {
	_, err := tx.Exec("INSERT INTO tombstones (kind, id, bot_id, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING", kind, entityID, botID, s.now())
	tx.AfterCommit(s.Wake)
	return err
}

// BuryBot marks a bot deleted: everything messaging keeps for it goes.
func (s *Service) BuryBot(tx *sqldb.Tx, botID string) error {
	if err := s.Recur(tx, botID, nil); err != nil {
		return err
	}
	return s.bury(tx, tombstoneBot, botID, botID)
}

// Wake makes the sweeper look for work.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run sweeps until ctx ends: what was deleted goes in chunks, what has had its
// time goes too. One node of a cluster runs it.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		for {
			more, err := s.Sweep(ctx)
			if err != nil && ctx.Err() == nil {
				s.Log.Warn("sweep", "err", err)
			}
			if !more || err != nil {
				break
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-tick.C:
		}
	}
}

// Sweep removes one chunk of what is to go and reports whether there is more.
func (s *Service) Sweep(ctx context.Context) (more bool, err error) {
	if aborted, err := s.abortSilent(ctx); aborted || err != nil {
		return aborted, err
	}
	var stone struct{ kind, id, botID string }
	rows, err := s.DB.Reader(ctx).Query("SELECT kind, id, bot_id FROM tombstones ORDER BY created_at LIMIT 1")
	if err != nil {
		return false, err
	}
	some := rows.Next()
	if some {
		err = rows.Scan(&stone.kind, &stone.id, &stone.botID)
	}
	if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
		return false, err
	}
	var n int64
	err = s.DB.Write(ctx, func(tx *sqldb.Tx) error {
		switch {
		case !some:
			n, err = s.expire(tx)
		case stone.kind == tag.Conversation:
			n, err = s.sweepConversation(tx, stone.botID, stone.id)
		case stone.kind == tag.User:
			n, err = sweepUser(tx, stone.id)
		case stone.kind == tag.Workflow:
			n, err = sweepWorkflow(tx, stone.botID, stone.id)
		case stone.kind == tag.Task:
			n, err = sweepTask(tx, stone.id)
		default:
			n, err = s.sweepBot(tx, stone.id)
		}
		if err == nil && some && n == 0 {
			_, err = tx.Exec("DELETE FROM tombstones WHERE kind = $1 AND id = $2", stone.kind, stone.id)
		}
		return err
	})
	return some || n > 0, err
}

// first runs statements that each remove up to a chunk and stops at the first that found something.
func first(tx *sqldb.Tx, arg any, statements ...string) (int64, error) {
	for _, text := range statements {
		if n, err := tx.Exec(text, arg, chunk); err != nil || n > 0 {
			return n, err
		}
	}
	return 0, nil
}

func (s *Service) sweepConversation(tx *sqldb.Tx, botID, conversationID string) (int64, error) {
	for _, table := range []string{"messages", "scheduled_messages"} {
		ids, err := column(tx, "SELECT id FROM "+table+" WHERE conversation_id = $1 LIMIT $2", conversationID, chunk/2)
		if err != nil {
			return 0, err
		}
		if len(ids) == 0 {
			continue
		}
		for _, text := range []string{"DELETE FROM tags WHERE bot_id = $1 AND entity IN ", "DELETE FROM " + table + " WHERE bot_id = $1 AND id IN "} {
			w := &sqldb.Where{Args: []any{botID}}
			if _, err := tx.Exec(text+sqldb.In(w, ids), w.Args...); err != nil {
				return 0, err
			}
		}
		return int64(len(ids)), nil
	}
	key := conversationLine(botID, conversationID)
	if n, err := s.Timers.CancelLine(tx, key, chunk); err != nil || n > 0 {
		return n, err
	}
	if n, err := first(tx, key,
		"DELETE FROM events WHERE (bot_id, id) IN (SELECT bot_id, id FROM events WHERE lane = $1 LIMIT $2)",
		"DELETE FROM lanes WHERE key = $1 AND due = 9223372036854775807 AND $2 > 0",
	); err != nil || n > 0 {
		return n, err
	}
	if n, err := first(tx, conversationID,
		"DELETE FROM streams WHERE conversation_id = $1 AND id IN (SELECT id FROM streams WHERE conversation_id = $1 LIMIT $2)",
		"DELETE FROM deltas WHERE conversation_id = $1 AND (stream_id, sequence) IN (SELECT stream_id, sequence FROM deltas WHERE conversation_id = $1 LIMIT $2)",
		"DELETE FROM signals WHERE conversation_id = $1 AND pos IN (SELECT pos FROM signals WHERE conversation_id = $1 LIMIT $2)",
		"DELETE FROM participants WHERE conversation_id = $1 AND user_id IN (SELECT user_id FROM participants WHERE conversation_id = $1 LIMIT $2)",
	); err != nil || n > 0 {
		return n, err
	}
	return sweepStates(tx, conversationID)
}

func sweepUser(tx *sqldb.Tx, userID string) (int64, error) {
	n, err := first(tx, userID, "DELETE FROM participants WHERE user_id = $1 AND conversation_id IN (SELECT conversation_id FROM participants WHERE user_id = $1 LIMIT $2)")
	if err != nil || n > 0 {
		return n, err
	}
	return sweepStates(tx, userID)
}

// sweepStates removes the states that hang on something, and their timers.
func sweepStates(tx *sqldb.Tx, ownerID string) (int64, error) {
	return first(tx, ownerID,
		"DELETE FROM timers WHERE kind = 'state' AND id IN (SELECT id FROM states WHERE owner_id = $1 ORDER BY id LIMIT $2)",
		"DELETE FROM states WHERE id IN (SELECT id FROM states WHERE owner_id = $1 ORDER BY id LIMIT $2)",
	)
}

func (s *Service) sweepBot(tx *sqldb.Tx, botID string) (int64, error) {
	ids, err := column(tx, "SELECT id FROM conversations WHERE bot_id = $1 ORDER BY created_at, id LIMIT $2", botID, chunk/5)
	if err != nil {
		return 0, err
	}
	for _, conversationID := range ids {
		for _, text := range []string{"DELETE FROM conversation_heads WHERE conversation_id = $1", "DELETE FROM conversations WHERE id = $1"} {
			if _, err := tx.Exec(text, conversationID); err != nil {
				return 0, err
			}
		}
		if err := s.bury(tx, tag.Conversation, botID, conversationID); err != nil {
			return 0, err
		}
		tx.AfterCommit(func() { s.conversationEnded(botID, conversationID) })
	}
	if len(ids) > 0 {
		return int64(len(ids)), nil
	}
	n, err := first(tx, botID,
		"DELETE FROM events WHERE bot_id = $1 AND id IN (SELECT id FROM events WHERE bot_id = $1 LIMIT $2)",
		"DELETE FROM states WHERE id IN (SELECT id FROM states WHERE bot_id = $1 LIMIT $2)",
		"DELETE FROM users WHERE id IN (SELECT id FROM users WHERE bot_id = $1 LIMIT $2)",
		"DELETE FROM workflows WHERE id IN (SELECT id FROM workflows WHERE bot_id = $1 LIMIT $2)",
		"DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE bot_id = $1 LIMIT $2)",
		"DELETE FROM tags WHERE bot_id = $1 AND entity IN (SELECT entity FROM tags WHERE bot_id = $1 LIMIT $2)",
		"DELETE FROM analytics WHERE bot_id = $1 AND (day, installation_id, name, shard) IN (SELECT day, installation_id, name, shard FROM analytics WHERE bot_id = $1 LIMIT $2)",
		"DELETE FROM scheduled_messages WHERE bot_id = $1 AND id IN (SELECT id FROM scheduled_messages WHERE bot_id = $1 LIMIT $2)",
		"DELETE FROM outbox WHERE bot_id = $1 AND id IN (SELECT id FROM outbox WHERE bot_id = $1 LIMIT $2)",
		"DELETE FROM action_log WHERE bot_id = $1 AND id IN (SELECT id FROM action_log WHERE bot_id = $1 LIMIT $2)",
		`DELETE FROM lanes WHERE key IN (SELECT l.key FROM installations i JOIN lanes l ON l.key >= 'inst:' || i.id || ':' AND l.key < 'inst:' || i.id || ';'
			WHERE i.bot_id = $1 LIMIT $2)`,
		"DELETE FROM installations WHERE id IN (SELECT id FROM installations WHERE bot_id = $1 LIMIT $2)",
	)
	if err != nil || n > 0 {
		return n, err
	}
	if n, err := s.Timers.CancelBot(tx, botID, chunk); err != nil || n > 0 {
		return n, err
	}
	// A lane's key begins with its bot: a range of the primary key.
	return first(tx, "bot:"+botID, "DELETE FROM lanes WHERE key IN (SELECT key FROM lanes WHERE key >= $1 || ':' AND key < $1 || ';' LIMIT $2)")
}

// expire removes a chunk of what has had its time.
func (s *Service) expire(tx *sqldb.Tx) (int64, error) {
	if n, err := s.sweepStreams(tx); err != nil || n > 0 {
		return n, err
	}
	now := s.Now()
	n, err := tx.Exec("DELETE FROM signals WHERE (conversation_id, pos) IN (SELECT conversation_id, pos FROM signals WHERE created_at < $1 ORDER BY created_at LIMIT $2)",
		now.Add(-signalsKept).UnixMilli(), chunk)
	if err != nil || n > 0 {
		return n, err
	}
	n, err = tx.Exec(`DELETE FROM analytics WHERE (bot_id, day, installation_id, name, shard) IN
		(SELECT bot_id, day, installation_id, name, shard FROM analytics WHERE day < $1 ORDER BY day LIMIT $2)`, now.Add(-countsKept).UnixMilli(), chunk)
	if err != nil || n > 0 {
		return n, err
	}
	n, err = tx.Exec("DELETE FROM action_log WHERE id IN (SELECT id FROM action_log WHERE started_at < $1 ORDER BY started_at LIMIT $2)", now.Add(-actionsKept).UnixMilli(), chunk)
	if err != nil || n > 0 {
		return n, err
	}
	return sweepDeliveries(tx, now.Add(-s.DeliveryLog).UnixMilli())
}

// sweepDeliveries removes a chunk of the deliveries that were over before a
// time, and of the tries that were made before it. Those at what is still
// pending stay: what comes next depends on their number.
func sweepDeliveries(tx *sqldb.Tx, before int64) (int64, error) {
	return first(tx, before,
		"DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE status IN ('processed', 'ignored') AND done_at < $1 ORDER BY done_at LIMIT $2)",
		`DELETE FROM attempts WHERE (work_id, number) IN (SELECT work_id, number FROM attempts
			WHERE started_at < $1 AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.id = work_id AND o.status = 'pending') ORDER BY started_at LIMIT $2)`,
	)
}
