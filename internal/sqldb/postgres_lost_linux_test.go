package sqldb_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// The network forgets the connections to PostgreSQL, in use and idle, and tells
// nobody. Who waits for an answer hears within seconds that there is none, also
// where no context ends, and new connections are made.
func TestPostgresForgottenConnections(t *testing.T) {
	t.Parallel()
	sqldbtest.Forgetting(t, func(t *testing.T, db *sqldb.DB, f *sqldbtest.Forgetful) {
		do(t, db, "CREATE TABLE forgotten (k TEXT)")
		read := func(text string) error {
			_, err := sqldb.Scalar[string](db.Reader(context.Background()), text)
			return err
		}
		write := func(text string) error {
			return db.Write(context.Background(), func(tx *sqldb.Tx) error {
				_, err := sqldb.Scalar[string](tx, text)
				return err
			})
		}
		const long = "SELECT pg_sleep(3)::text"
		errs := make(chan error, 2)
		var busy sync.WaitGroup
		busy.Go(func() { errs <- read(long) })
		busy.Go(func() { errs <- write(long) })
		for db.Stats().ReadersInUse == 0 || db.Stats().WritersInUse == 0 {
			<-time.After(time.Millisecond)
		}
		if err := f.Each(sqldbtest.Silence); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := read("SELECT 'x'"); err != nil {
			t.Errorf("a read over connections that are forgotten: %v", err)
		}
		if err := write("INSERT INTO forgotten (k) VALUES ('x') RETURNING k"); err != nil {
			t.Errorf("a write over connections that are forgotten: %v", err)
		}
		t.Logf("others go on after %v", time.Since(began))
		busy.Wait()
		// A read is not repeated; a write is, unless it was being committed.
		for range 2 {
			if err := <-errs; err != nil && !sqldb.IsUnavailable(err) && !sqldb.IsInDoubt(err) {
				t.Errorf("who waited for an answer got %v", err)
			}
		}
		if d := time.Since(began); d > 25*time.Second {
			t.Errorf("who waited for an answer heard after %v that there is none", d)
		}
	})
}
