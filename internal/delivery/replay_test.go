package delivery

import (
	"context"
	"testing"

	"parley/internal/endpoint"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// Work that is replayed has all its tries again, under numbers that go on.
func TestTriesCountAnewOnceReplayed(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := start(t, db, nil, handler(func(context.Context, string, endpoint.Operation) (endpoint.Answer, error) {
			return endpoint.Answer{Status: 500}, nil
		}))
		id := w.send(conv(1, "b"), 1)[0]
		w.finish()
		if got := w.event(id); got.Status != "failed" || got.Attempts != maxTries {
			t.Fatalf("event %+v, want failed after %d tries", got, maxTries)
		}
		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			seq, err := w.Enqueue(tx, conv(1, "b"))
			if err != nil {
				return err
			}
			_, err = tx.Exec("UPDATE events SET status = 'pending', lane_seq = $1, tries_before = attempts WHERE id = $2", seq, id)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		w.finish()
		if got := w.event(id); got.Status != "failed" || got.Attempts != 2*maxTries {
			t.Errorf("event %+v, want failed after %d tries", got, 2*maxTries)
		}
		if n := w.count("SELECT count(*) FROM attempts WHERE work_id = $1 AND number BETWEEN 1 AND $2", id, 2*maxTries); n != 2*maxTries {
			t.Errorf("%d tries recorded, want %d", n, 2*maxTries)
		}
	})
}
