package timer

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/internal/sqldb"
)

// fill adds n timers that are due from a time on, spread over a length of time.
func (w *world) fill(from, over time.Duration, n int) {
	w.Helper()
	due := w.clock.Now().Add(from).UnixMilli()
	w.write(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(`INSERT INTO timers (kind, id, bot_id, line, due, failures)
			WITH RECURSIVE numbers (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < CAST($1 AS BIGINT))
			SELECT 'note', CAST($2 AS BIGINT) || '-' || i, 'bot', '', CAST($2 AS BIGINT) + i % CAST($3 AS BIGINT), 0 FROM numbers`, n, due, over.Milliseconds())
		return err
	})
}

// Both queries of a look go through the index on the due time and stop after
// what they need, however many timers wait.
func TestDeepQueueIsNotRead(t *testing.T) {
	each(t, func(w *world) {
		w.fill(time.Hour, time.Hour, 50_000)
		w.fill(-time.Minute, time.Second, 3*page)
		w.write(func(tx *sqldb.Tx) error {
			_, err := tx.Exec("ANALYZE")
			return err
		})
		now := w.clock.ms()
		for name, ask := range map[string]func(q sqldb.Q) error{
			"after":   func(q sqldb.Q) error { _, err := after(q, now); return err },
			"overdue": func(q sqldb.Q) error { _, err := overdue(q, now, Timer{}); return err },
			"overdue, second page": func(q sqldb.Q) error {
				_, err := overdue(q, now, Timer{Due: now - time.Minute.Milliseconds() + 300, Kind: "note"})
				return err
			},
		} {
			plan := &explainer{Q: w.db.Reader(t.Context())}
			if err := ask(plan); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(plan.text, "timers_due") || strings.Contains(plan.text, "TEMP B-TREE") || strings.Contains(plan.text, "Sort") {
				t.Errorf("%s does not read in the order of timers_due:\n%s", name, plan.text)
			}
			if plan.rows > page {
				t.Errorf("%s reads %d rows, want at most a page:\n%s", name, plan.rows, plan.text)
			}
		}
	})
}

// explainer is a Q that also notes how its query is carried out.
type explainer struct {
	sqldb.Q
	text string
	rows int // that were read, where the engine says so
}

func (x *explainer) Query(query string, args ...any) (*sqldb.Rows, error) {
	for _, explain := range []string{"EXPLAIN (ANALYZE, COSTS OFF) ", "EXPLAIN QUERY PLAN "} {
		rows, err := x.Q.Query(explain+query, args...)
		if err != nil {
			continue // the other engine's
		}
		for rows.Next() {
			var line string
			into := []any{&line}
			if rows.Columns() == 4 {
				into = append([]any{new(int64), new(int64), new(int64)}, into...)
			}
			if err := rows.Scan(into...); err != nil {
				return nil, errors.Join(err, rows.Close())
			}
			x.text += line + "\n"
			for _, mark := range []string{" rows=", "Removed by Filter: "} {
				if _, after, ok := strings.Cut(line, mark); ok {
					n, _, _ := strings.Cut(after, " ")
					if read, err := strconv.Atoi(n); err == nil {
						x.rows = max(x.rows, read)
					}
				}
			}
		}
		if err := rows.Close(); err != nil {
			return nil, err
		}
	}
	return x.Q.Query(query, args...)
}

// Timers that are due within one second, many of them, each fire once.
func TestCrowd(t *testing.T) {
	const n = 20_000
	each(t, func(w *world) {
		w.fill(0, time.Second, n)
		w.clock.step(time.Second)
		e := w.engine(nil)
		w.run(e)
		ids := w.await(n)
		slices.Sort(ids)
		if len(slices.Compact(ids)) != n {
			t.Error("some fired more than once")
		}
		w.clock.settled(lookEach)
		if got := w.count("SELECT count(*) FROM fired"); got != n {
			t.Errorf("fired %d times, want %d", got, n)
		}
	})
}
