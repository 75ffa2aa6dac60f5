package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"parley/internal/sqldb"
)

// timers measures how late scheduled events become pending when very many of
// them are due within one second, at a server that has nothing else to do. The
// bot is down: what is measured ends where delivery begins.
type timers struct{}

const timersWithin = 1000 // milliseconds

// timersAhead is time enough to write n timers and to start the server.
func timersAhead(n int) time.Duration {
	return 2*time.Second + time.Duration(n)*60*time.Microsecond
}

type timersResult struct {
	scheduled, fired, twice, left int64
}

func (timers) prepare(context.Context, *bench) error { return nil }
func (timers) round(context.Context, *bench) error   { return nil }

func (timers) finish(ctx context.Context, b *bench) error {
	p, err := b.start(ctx, "timers")
	if err != nil {
		return err
	}
	absent, err := p.newBot(ctx, "http://127.0.0.1:1")
	if err != nil {
		return err
	}
	if err := p.end(); err != nil {
		return err
	}
	var begin time.Time
	if err := p.open(ctx, func(db *sqldb.DB) (err error) {
		begin, err = seedTimers(ctx, db, absent.id, b.timers)
		return err
	}); err != nil {
		return err
	}
	if _, err := p.run(ctx); err != nil {
		return err
	}
	if late := time.Since(begin); late > 0 {
		return fmt.Errorf("the server was ready %s after the first timer was due", late)
	}
	if err := allFired(ctx, absent); err != nil {
		return err
	}
	if err := p.end(); err != nil {
		return err
	}
	return p.open(ctx, func(db *sqldb.DB) error { return b.readTimers(db.Reader(ctx), begin) })
}

// seedTimers writes n scheduled events past the server, as createEvent would,
// and says when the first is due.
func seedTimers(ctx context.Context, db *sqldb.DB, botID string, n int) (begin time.Time, err error) {
	const chunk = 10_000
	numbers := func(from int) string {
		return fmt.Sprintf("WITH RECURSIVE n (i) AS (SELECT CAST(%d AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < %d) ", from, min(from+chunk, n)-1)
	}
	write := func(statement func(from int) (string, []any)) {
		for from := 0; from < n && err == nil; from += chunk {
			err = db.Write(ctx, func(tx *sqldb.Tx) error {
				text, args := statement(from)
				_, err := tx.Exec(text, args...)
				return err
			})
		}
	}
	now := time.Now().UnixMilli()
	write(func(from int) (string, []any) {
		return `INSERT INTO events (bot_id, id, installation_id, type, payload, conversation_id, user_id, message_id, workflow_id, status, failure_reason, lane, lane_seq, attempts, created_at) ` +
			numbers(from) + `SELECT $1, ` + timerID + `, '', 'due', '{}', '', '', '', '', 'scheduled', '', 'evt:' || ` + timerID + `, 0, 0, $2 FROM n`, []any{botID, now}
	})
	begin = time.Now().Add(timersAhead(n)).Truncate(time.Millisecond)
	write(func(from int) (string, []any) {
		return `INSERT INTO timers (kind, id, bot_id, line, due, failures) ` +
			numbers(from) + `SELECT 'event', ` + timerID + `, $1, '', $2 + i * $3 / $4, 0 FROM n`, []any{botID, begin.UnixMilli(), timersWithin, n}
	})
	return begin, err
}

// The i-th event that is seeded.
const (
	timerID    = "'evt_' || CAST(1000000000 + i AS TEXT)"
	firstTimer = 1_000_000_000
)

// allFired waits until no event of the bot is scheduled any more.
func allFired(ctx context.Context, b *bot) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	c, err := dial(b.p.addr)
	if err != nil {
		return err
	}
	defer c.close()
	request := format("GET", "/v1/chat/events?status=scheduled", b.p.addr, b.asBot(), "")
	for {
		text, err := c.expect(http.StatusOK, request)
		if err != nil {
			return err
		}
		var page struct{ Events []struct{} }
		if err := json.Unmarshal(text, &page); err != nil || len(page.Events) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.New("events are still scheduled long after their time")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// readTimers reads what became of the events: when each became pending, and
// whether any has more than one place among those to be delivered.
func (b *bench) readTimers(q sqldb.Q, begin time.Time) error {
	r := &timersResult{scheduled: int64(b.timers)}
	rows, err := q.Query("SELECT id, pending_at FROM events WHERE type = 'due' AND pending_at > 0")
	if err != nil {
		return err
	}
	defer rows.Close()
	var late []time.Duration
	end := int64(0)
	for rows.Next() {
		var id string
		var at int64
		if err := rows.Scan(&id, &at); err != nil {
			return err
		}
		i, err := strconv.ParseInt(strings.TrimPrefix(id, "evt_"), 10, 64)
		if err != nil {
			return err
		}
		due := begin.UnixMilli() + (i-firstTimer)*timersWithin/int64(b.timers)
		late = append(late, time.Duration(at-due)*time.Millisecond)
		end = max(end, at)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	r.fired = int64(len(late))
	if r.twice, err = sqldb.Scalar[int64](q, "SELECT count(*) FROM lanes WHERE key LIKE 'evt:%' AND seq > 1"); err != nil {
		return err
	}
	if r.left, err = sqldb.Scalar[int64](q, "SELECT count(*) FROM timers WHERE kind = 'event'"); err != nil {
		return err
	}
	slices.Sort(late)
	took := max(time.Duration(end-begin.UnixMilli())*time.Millisecond, time.Millisecond)
	b.results.add("timers", sample{rate: float64(len(late)) / took.Seconds(), p50: quantile(late, 0.50), p99: quantile(late, 0.99)})
	b.results.timers = r
	if r.fired != r.scheduled || r.twice > 0 || r.left > 0 {
		return fmt.Errorf("of %d timers %d fired, %d more than once, and %d are left", r.scheduled, r.fired, r.twice, r.left)
	}
	if late[0] < 0 {
		return fmt.Errorf("a timer fired %s before its time", -late[0])
	}
	return nil
}

func (b *bench) timerTable(w *strings.Builder) {
	r := b.results.timers
	if r == nil {
		return
	}
	fmt.Fprintf(w, "\n## Timers\n\n%d scheduled events fall due within %d ms at a server on SQLite that has nothing else to do. What it cannot write in that time waits: lateness is the queue, ", r.scheduled, timersWithin)
	w.WriteString("from the due time to the transaction that made the event pending. Each timer is a write of its own that shares its commit with others; its event is made pending and given its place in the same transaction.\n\n")
	w.WriteString("| fired | more than once | left | timers/s | p50 ms late | p99 ms late |\n|--:|--:|--:|--:|--:|--:|\n")
	fmt.Fprintf(w, "| %d | %d | %d | %s |\n", r.fired, r.twice, r.left, b.results.figures("timers"))
}
