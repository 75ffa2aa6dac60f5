package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// waiting returns when n transactions wait for a lock.
func waiting(t *testing.T, db *sqldb.DB, n int) {
	t.Helper()
	for {
		got, err := sqldb.Scalar[int](db.Reader(t.Context()), `SELECT COUNT(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
			WHERE NOT l.granted AND a.datname = current_database() AND a.query LIKE '%/* ' || current_schema() || ' */%'`)
		if err != nil {
			t.Fatal(err)
		}
		if got >= n {
			return
		}
	}
}

// marked is a statement that waiting finds.
func marked(t *testing.T, db *sqldb.DB, query string) string {
	t.Helper()
	schema, err := sqldb.Scalar[string](db.Reader(t.Context()), "SELECT current_schema()::text")
	if err != nil {
		t.Fatal(err)
	}
	return query + " /* " + schema + " */"
}

func TestRowLockHoldsTheOtherNode(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		do(t, a, counters)
		do(t, a, "INSERT INTO counters (k, n) VALUES ('x', 1)")
		locked, free := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			err := a.Write(t.Context(), func(tx *sqldb.Tx) error {
				n, err := sqldb.Scalar[int](tx, "SELECT n FROM counters WHERE k = 'x' {for_update}")
				if err != nil {
					return err
				}
				close(locked)
				<-free
				_, err = tx.Exec("UPDATE counters SET n = $1 WHERE k = 'x'", n*10)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-locked
		look := marked(t, b, "SELECT n FROM counters WHERE k = 'x' {for_update}")
		wg.Go(func() {
			err := b.Write(t.Context(), func(tx *sqldb.Tx) error {
				n, err := sqldb.Scalar[int](tx, look)
				if err != nil {
					return err
				}
				_, err = tx.Exec("UPDATE counters SET n = $1 WHERE k = 'x'", n+1)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
		waiting(t, b, 1)
		if n, err := sqldb.Scalar[string](b.Reader(t.Context()), "SELECT k FROM counters WHERE n = 1"); n != "x" || err != nil {
			t.Errorf("a reader waits for a lock or sees what is not committed: %q, %v", n, err)
		}
		err := b.Write(t.Context(), func(tx *sqldb.Tx) error {
			if _, err := sqldb.Scalar[int](tx, "SELECT n FROM counters WHERE k = 'x' {skip_locked}"); !errors.Is(err, sqldb.ErrNoRow) {
				t.Errorf("a locked row was not skipped: %v", err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		close(free)
		wg.Wait()
		if got := count(t, a, "n = 11"); got != 1 {
			t.Error("the second write did not build on the first")
		}
	})
}

// TestGetOrCreate makes fifty racers look and then insert under one key.
func TestGetOrCreate(t *testing.T) {
	t.Parallel()
	race := func(t *testing.T, dbs ...*sqldb.DB) {
		do(t, dbs[0], "CREATE TABLE users2 (id TEXT PRIMARY KEY, tag TEXT NOT NULL)")
		var wg sync.WaitGroup
		var mu sync.Mutex
		ids := map[string]int{}
		for i := range 50 {
			wg.Go(func() {
				var id string
				err := dbs[i%len(dbs)].Write(t.Context(), func(tx *sqldb.Tx) (err error) {
					if err := tx.LockKey("bot", "", "user", "tag"); err != nil {
						return err
					}
					id, err = sqldb.Scalar[string](tx, "SELECT id FROM users2 WHERE tag = 't'")
					if !errors.Is(err, sqldb.ErrNoRow) {
						return err
					}
					id = fmt.Sprint("user", i)
					_, err = tx.Exec("INSERT INTO users2 (id, tag) VALUES ($1, 't')", id)
					return err
				})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				ids[id]++
			})
		}
		wg.Wait()
		if len(ids) != 1 {
			t.Errorf("racers got %d different users: %v", len(ids), ids)
		}
	}
	t.Run("one node", func(t *testing.T) {
		sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { race(t, db) })
	})
	t.Run("two nodes", func(t *testing.T) {
		sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) { race(t, a, b) })
	})
}

func TestDeadlockIsRunAgain(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		do(t, a, counters)
		do(t, a, "INSERT INTO counters (k, n) VALUES ('x', 0), ('y', 0)")
		var both sync.WaitGroup // each holds its first row
		both.Add(2)
		var after, runs atomic.Int64
		cross := func(db *sqldb.DB, first, second string) {
			once := sync.OnceFunc(func() { both.Done(); both.Wait() })
			err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
				runs.Add(1)
				tx.AfterCommit(func() { after.Add(1) })
				if _, err := tx.Exec("UPDATE counters SET n = n + 1 WHERE k = $1", first); err != nil {
					return err
				}
				once()
				_, err := tx.Exec("UPDATE counters SET n = n + 1 WHERE k = $1", second)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { cross(a, "x", "y") })
		wg.Go(func() { cross(b, "y", "x") })
		wg.Wait()
		if got := count(t, a, "n = 2"); got != 2 {
			t.Error("a deadlock lost or doubled an update")
		}
		if after.Load() != 2 || runs.Load() < 3 {
			t.Errorf("%d runs, %d AfterCommits; want more than 2 and 2", runs.Load(), after.Load())
		}
		if got := a.Stats().Reruns + b.Stats().Reruns; got < 1 {
			t.Errorf("stats count %d reruns", got)
		}
	})
}

func TestRerun(t *testing.T) {
	t.Parallel()
	raise := func(code string) string {
		return "DO $$ BEGIN RAISE EXCEPTION 'for the test' USING ERRCODE = '" + code + "'; END $$"
	}
	for name, c := range map[string]struct {
		statement  string // or several with THEN between
		fails      int    // runs that fail
		runs, rows int
	}{
		"a serialization failure":      {raise("40001"), 2, 3, 1},
		"again and again":              {raise("40001"), 100, 4, 0},
		"another error":                {raise("22012"), 100, 1, 0},
		"a connection that was cut":    {"SELECT pg_terminate_backend(pg_backend_pid())", 1, 2, 1},
		"cut again and again":          {"SELECT pg_terminate_backend(pg_backend_pid())", 100, 4, 0},
		"a statement that takes hours": {"SET LOCAL statement_timeout = 1 THEN SELECT pg_sleep(3600)", 100, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Pair(t, func(t *testing.T, db, _ *sqldb.DB) {
				do(t, db, counters)
				runs, after := 0, 0
				err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
					runs++
					tx.AfterCommit(func() { after++ })
					if err := insert("a", 1)(tx); err != nil {
						return err
					}
					if runs > c.fails {
						return nil
					}
					for s := range strings.SplitSeq(c.statement, " THEN ") {
						if _, err := tx.Exec(s); err != nil {
							return fmt.Errorf("wrapped: %w", err)
						}
					}
					return nil
				})
				if (err == nil) != (c.rows == 1) {
					t.Errorf("error %v", err)
				}
				if got := count(t, db, "TRUE"); runs != c.runs || got != c.rows || after != c.rows {
					t.Errorf("%d runs, %d rows, %d AfterCommits; want %d, %d, %d", runs, got, after, c.runs, c.rows, c.rows)
				}
			})
		})
	}
}

func TestPostgresFailedCommit(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, db, _ *sqldb.DB) {
		do(t, db, "CREATE TABLE late (k TEXT UNIQUE DEFERRABLE INITIALLY DEFERRED)")
		after := false
		err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			tx.AfterCommit(func() { after = true })
			_, err := tx.Exec("INSERT INTO late (k) VALUES ('a'), ('a')")
			return err
		})
		if !sqldb.IsUnique(err) || after {
			t.Errorf("got %v, AfterCommit ran: %t; want a unique violation and no AfterCommit", err, after)
		}
	})
}

// A commit whose answer gets lost may have happened: the write fails, and whoever
// wants to know is told.
func TestPostgresCommitInDoubt(t *testing.T) {
	t.Parallel()
	sqldbtest.Forgetting(t, func(t *testing.T, db *sqldb.DB, f *sqldbtest.Forgetful) {
		do(t, db, "CREATE TABLE doubtful (k TEXT)")
		const query = "INSERT INTO doubtful (k) VALUES ('a')"
		for way, insert := range map[string]func(tx *sqldb.Tx) error{
			"before the commit":    func(tx *sqldb.Tx) error { _, err := tx.Exec(query); return err },
			"together with commit": func(tx *sqldb.Tx) error { return tx.Send(query) },
		} {
			var after, doubt int
			write := func() error {
				return db.Write(t.Context(), func(tx *sqldb.Tx) error {
					tx.AfterCommit(func() { after++ })
					tx.InDoubt(func() { doubt++ })
					return insert(tx)
				})
			}
			f.ForgetNextCommit()
			if err := write(); err == nil || after != 0 || doubt != 1 {
				t.Errorf("%s: got %v, AfterCommit ran %d times, InDoubt %d times; want an error, 0, 1", way, err, after, doubt)
			}
			if err := write(); err != nil || after != 1 || doubt != 1 {
				t.Errorf("%s: then got %v, AfterCommit ran %d times, InDoubt %d times; want nil, 1, 1", way, err, after, doubt)
			}
			if n, err := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT count(*) FROM doubtful"); n != 2 || err != nil {
				t.Errorf("%s: %d rows, %v; want both", way, n, err)
			}
			do(t, db, "DELETE FROM doubtful")
		}
	})
}

func TestPostgresQueueIsBounded(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, db, _ *sqldb.DB) {
		do(t, db, counters)
		const most = 4096
		free := make(chan struct{})
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for range most {
			wg.Go(func() {
				err := db.Write(ctx, func(*sqldb.Tx) error { <-free; return nil })
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		for db.Stats().QueueLen < most {
			if _, err := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT 1"); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Write(t.Context(), insert("a", 1)); !errors.Is(err, sqldb.ErrBusy) {
			t.Errorf("got %v, want ErrBusy", err)
		}
		cancel() // those that wait for a connection go, the others are let through
		close(free)
		wg.Wait()
		if err := db.Write(t.Context(), insert("a", 1)); err != nil {
			t.Errorf("a write after the queue was emptied: %v", err)
		}
	})
}

func TestPostgresSession(t *testing.T) {
	t.Parallel()
	sqldbtest.NeedsPostgres(t)
	t.Run("postgres", func(t *testing.T) {
		url, _, _ := strings.Cut(sqldbtest.PostgresURL(t), "&statement_timeout") // tests are given more
		db := sqldbtest.Open(t, url)
		for setting, want := range map[string]string{
			"application_name": "parley", "statement_timeout": "10s", "idle_in_transaction_session_timeout": "5s",
			"synchronous_commit": "on", "transaction_isolation": "read committed", "client_encoding": "UTF8",
		} {
			err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
				got, err := sqldb.Scalar[string](tx, "SELECT current_setting($1)", setting)
				if err == nil && got != want {
					t.Errorf("%s is %s, want %s", setting, got, want)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		for setting, want := range map[string]string{"default_transaction_read_only": "on", "plan_cache_mode": "force_generic_plan"} {
			if got, err := sqldb.Scalar[string](db.Reader(t.Context()), "SELECT current_setting($1)", setting); err != nil || got != want {
				t.Errorf("of readers: %s is %s, %v; want %s", setting, got, err, want)
			}
		}
	})
}

func TestPostgresRefusesAnotherCollation(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, db, _ *sqldb.DB) {
		if err := db.Backup(t.Context(), t.TempDir()+"/x"); !errors.Is(err, sqldb.ErrBackup) {
			t.Errorf("backup: got %v, want ErrBackup", err)
		}
		for _, create := range []string{"ENCODING 'SQL_ASCII' LOCALE 'C'", "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'"} {
			url := sqldbtest.Database(t, create)
			other, err := sqldb.Open(t.Context(), sqldb.Options{URL: url})
			if err == nil {
				_ = other.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "LOCALE 'C'") {
				t.Errorf("a database with %s: got %v, want an error that says how to make one", create, err)
			}
		}
	})
}

// On a slow server WriteSoons that share a transaction would hold the locks of
// all for as long as they take together.
func TestSlowWriteSoonsGiveTheirLocksUpEarly(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, db, _ *sqldb.DB) {
		do(t, db, counters)
		do(t, db, "INSERT INTO counters (k, n) VALUES ('x', 1)")
		begun, gathered, free := make(chan struct{}), make(chan struct{}), make(chan struct{})
		done := make(chan error, 4)
		tell := func(err error) { done <- err }
		db.WriteSoon(func(*sqldb.Tx) error { // the others gather behind it
			close(begun)
			<-gathered
			return nil
		}, tell)
		<-begun
		db.WriteSoon(func(tx *sqldb.Tx) error {
			if _, err := tx.Exec("UPDATE counters SET n = 2 WHERE k = 'x'"); err != nil {
				return err
			}
			_, err := sqldb.Scalar[string](tx, "SELECT pg_sleep(0.1)::text")
			return err
		}, tell)
		db.WriteSoon(func(*sqldb.Tx) error {
			<-free
			return nil
		}, tell)
		close(gathered)
		for range 2 {
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(3 * time.Second):
				t.Error("the slow one waits for what comes behind it")
			}
		}
		if n, err := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT n FROM counters WHERE k = 'x'"); err != nil || n != 2 {
			t.Errorf("n is %d, %v: the slow one has not committed", n, err)
		}
		close(free)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What is to be noted soon is noted while writes wait for each other.
func TestWriteSoonDoesNotQueueBehindWrites(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, db, _ *sqldb.DB) {
		const enough = 40 // more than there are connections
		free := make(chan struct{})
		var held sync.WaitGroup
		for range enough {
			held.Go(func() {
				if err := db.Write(t.Context(), func(*sqldb.Tx) error {
					<-free
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
		}
		for db.Stats().QueueLen < enough {
			runtime.Gosched()
		}
		done := make(chan error, 1)
		db.WriteSoon(func(*sqldb.Tx) error { return nil }, func(err error) { done <- err })
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(3 * time.Second):
			t.Error("it waits behind the writes")
		}
		close(free)
		held.Wait()
	})
}
