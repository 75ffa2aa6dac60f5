package lease_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/lease"
	"parley/internal/lease/leasetest"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestLocal(t *testing.T) {
	t.Parallel()
	l := lease.NewLocal()
	leasetest.Run(t, l, l)
}

func table(t *testing.T, db *sqldb.DB, term time.Duration) lease.Lease {
	t.Helper()
	l, err := lease.NewTable(lease.Config{DB: db, Node: "n", Term: term})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestTable(t *testing.T) {
	t.Parallel()
	if _, err := lease.NewTable(lease.Config{}); err == nil {
		t.Error("a lease without a database was made")
	}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		l := table(t, db, 5*time.Second)
		leasetest.Run(t, l, table(t, db, 5*time.Second))
	})
	t.Run("two nodes", func(t *testing.T) {
		sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
			leasetest.Run(t, table(t, a, 5*time.Second), table(t, b, 5*time.Second))
		})
	})
}

func exec(t *testing.T, db *sqldb.DB, query string, args ...any) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSilentHolder has the row of a node that is gone, whose clock was years ahead.
func TestSilentHolder(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		exec(t, db, "INSERT INTO leases (name, holder, until) VALUES ('job', 'gone', 9000000000000)")
		const term = 400 * time.Millisecond
		start := time.Now()
		err := table(t, db, term).Hold(t.Context(), "job", func(context.Context) error {
			if d := time.Since(start); d < term {
				t.Errorf("taken after %v, before the term of %v was over", d, term)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestLongJob runs for several terms beside one who waits.
func TestLongJob(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		const term = 5 * time.Second
		a, b := table(t, db, term), table(t, db, term)
		var over atomic.Bool
		next := make(chan error, 1)
		err := a.Hold(t.Context(), "job", func(ctx context.Context) error {
			go func() {
				next <- b.Hold(t.Context(), "job", func(context.Context) error {
					if !over.Load() {
						t.Error("two hold it")
					}
					return nil
				})
			}()
			timer := time.NewTimer(3 * term)
			defer timer.Stop()
			select {
			case <-ctx.Done():
				t.Errorf("the lease was lost: %v", context.Cause(ctx))
			case <-timer.C:
			}
			over.Store(true)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := <-next; err != nil {
			t.Error(err)
		}
	})
}

func TestStolen(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		runs := 0
		err := table(t, db, 2*time.Second).Hold(t.Context(), "job", func(ctx context.Context) error {
			if runs++; runs == 2 {
				return nil
			}
			exec(t, db, "UPDATE leases SET holder = 'thief' WHERE name = 'job'")
			<-ctx.Done()
			if cause := context.Cause(ctx); cause != lease.ErrLost {
				t.Errorf("cause %v, want ErrLost", cause)
			}
			return ctx.Err()
		})
		if err != nil || runs != 2 {
			t.Errorf("%d runs, %v; want a second run when the thief has been silent for a term", runs, err)
		}
	})
}

// TestCutOff takes the database away from the holder, which must stop before the
// other node starts.
func TestCutOff(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		const term = 3 * time.Second
		stopped := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		held, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- table(t, a, term).Hold(ctx, "job", func(ctx context.Context) error {
				close(held)
				<-ctx.Done()
				close(stopped)
				return nil
			})
		}()
		<-held
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		err := table(t, b, term).Hold(t.Context(), "job", func(context.Context) error {
			select {
			case <-stopped:
			default:
				t.Error("two hold it")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
