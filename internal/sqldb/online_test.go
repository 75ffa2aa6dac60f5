package sqldb_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// online runs fn on an empty database of each engine that no other test has
// transactions in: an index is made only when all that began before have ended.
func online(t *testing.T, fn func(t *testing.T, url string)) {
	t.Helper()
	for engine := range sqldbtest.URLs(t) {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			url := sqldbtest.SQLiteURL(t)
			if engine == "postgres" {
				url = sqldbtest.DatabaseURL(t)
			}
			fn(t, url)
		})
	}
}

const (
	large  = "CREATE TABLE a (k BIGINT PRIMARY KEY, v BIGINT NOT NULL);\nCREATE TABLE log (k BIGINT)"
	expand = `-- online
-- Which of them have no v yet; the text 'a;b' is no end, and neither is this ;
CREATE INDEX {concurrently} IF NOT EXISTS a_empty ON a (k) WHERE v < 0;
-- in chunks of 100
UPDATE a SET v = k * 2 WHERE k IN (SELECT k FROM a WHERE v < 0 ORDER BY k LIMIT 100); -- by the index
CREATE UNIQUE INDEX {concurrently} IF NOT EXISTS a_v ON a (v);
`
)

func change(t *testing.T, db *sqldb.DB, query string, args ...any) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// fill makes the rows from to until.
func fill(t *testing.T, db *sqldb.DB, from, until int) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
		for k := from; k < until; k++ {
			if _, err := tx.Exec("INSERT INTO a (k, v) VALUES ($1, -1)", k); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func number(t *testing.T, db *sqldb.DB, query string) int {
	t.Helper()
	n, err := sqldb.Scalar[int](db.Reader(t.Context()), query)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// An online migration changes a table of some size statement by statement, also
// when others come with the same at the same time.
func TestOnlineMigration(t *testing.T) {
	t.Parallel()
	online(t, func(t *testing.T, url string) {
		db := sqldbtest.Open(t, url)
		if err := migrate(t, db, migrations(large)); err != nil {
			t.Fatal(err)
		}
		fill(t, db, 1, 251)
		var nodes sync.WaitGroup
		for range 3 {
			node := sqldbtest.Open(t, url)
			nodes.Go(func() {
				if err := node.Migrate(t.Context(), migrations(large, expand), sqldb.MigrateOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
		nodes.Wait()
		version(t, db, 2)
		if n := number(t, db, "SELECT COUNT(*) FROM a WHERE v = k * 2"); n != 250 {
			t.Errorf("%d rows of 250 have been changed", n)
		}
		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec("INSERT INTO a (k, v) VALUES (1000, 2)")
			return err
		}); !sqldb.IsUnique(err) {
			t.Errorf("a second row with the same v: %v", err)
		}
		bad := migrations(large, expand, "-- online\n-- in chunks of many\nDELETE FROM a;")
		if err := migrate(t, db, bad); err == nil || number(t, db, "SELECT COUNT(*) FROM a") != 250 {
			t.Errorf("a mark that means nothing: %v", err)
		}
	})
}

// What an online migration has done when it breaks off stays, and the next start
// goes on: also where it broke off in the middle of an index.
func TestOnlineMigrationThatBrokeOff(t *testing.T) {
	t.Parallel()
	online(t, func(t *testing.T, url string) {
		db := sqldbtest.Open(t, url)
		if err := migrate(t, db, migrations(large)); err != nil {
			t.Fatal(err)
		}
		fill(t, db, 1, 251)
		change(t, db, "INSERT INTO a (k, v) VALUES (1000, 2)") // as k = 1 will have
		err := migrate(t, db, migrations(large, expand))
		if !sqldb.IsUnique(err) {
			t.Fatalf("an index that cannot be made: %v", err)
		}
		version(t, db, 1)
		if n := number(t, db, "SELECT COUNT(*) FROM a WHERE v = k * 2"); n != 250 {
			t.Errorf("%d rows of 250 have been changed before it broke off", n)
		}
		change(t, db, "DELETE FROM a WHERE k = 1000")
		fill(t, db, 251, 301)
		if err := migrate(t, db, migrations(large, expand)); err != nil {
			t.Fatalf("the next start: %v", err)
		}
		version(t, db, 2)
		if n := number(t, db, "SELECT COUNT(*) FROM a WHERE v = k * 2"); n != 300 {
			t.Errorf("%d rows of 300 have been changed", n)
		}
		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec("INSERT INTO a (k, v) VALUES (1000, 2)")
			return err
		}); !sqldb.IsUnique(err) {
			t.Errorf("the index is not one: %v", err)
		}
	})
}

// waiters counts the transactions that wait for a lock on a.
const waiters = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted AND relation = to_regclass('a')"

// A migration that has to wait for a transaction lets those pass that come after it.
func TestAMigrationThatWaitsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	sqldbtest.NeedsPostgres(t)
	url := sqldbtest.PostgresURL(t)
	db := sqldbtest.Open(t, url)
	if err := migrate(t, db, migrations(large)); err != nil {
		t.Fatal(err)
	}
	locked, released := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	defer release()
	var others sync.WaitGroup
	others.Go(func() {
		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			if _, err := tx.Exec("INSERT INTO a (k, v) VALUES (1, 1)"); err != nil {
				return err
			}
			close(locked)
			<-released
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-locked
	node := sqldbtest.Open(t, url)
	others.Go(func() {
		if err := node.Migrate(t.Context(), migrations(large, "ALTER TABLE log ADD COLUMN w BIGINT NOT NULL DEFAULT 0;\nALTER TABLE a ADD COLUMN w BIGINT NOT NULL DEFAULT 0"), sqldb.MigrateOptions{}); err != nil {
			t.Error(err)
		}
	})
	for n := range 3 {
		for number(t, db, waiters) == 0 {
			if t.Context().Err() != nil {
				t.Fatal("the migration does not wait")
			}
		}
		began := time.Now()
		change(t, db, "INSERT INTO a (k, v) VALUES ($1, 0)", n+2)
		change(t, db, "INSERT INTO log (k) VALUES ($1)", n)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("a write waited %v behind the migration", took)
		}
	}
	version(t, db, 1)
	release()
	others.Wait()
	version(t, db, 2)
	if n := number(t, db, "SELECT SUM(w) + COUNT(*) FROM a"); n != 4 {
		t.Errorf("%d rows, want 4", n)
	}
}

// An older program waits for its turn with a statement, for as long as another
// one migrates: an index would wait for it, and it for the index.
func TestAnIndexIsMadeBesideAProgramThatWaitsItsTurn(t *testing.T) {
	t.Parallel()
	sqldbtest.NeedsPostgres(t)
	at, err := url.Parse(sqldbtest.DatabaseURL(t))
	if err != nil {
		t.Fatal(err)
	}
	db := sqldbtest.Open(t, at.String())
	// It has no limits, and has looked for a deadlock when there was none yet.
	query := at.Query()
	query.Set("statement_timeout", "0")
	query.Set("deadlock_timeout", "1h")
	at.RawQuery = query.Encode()
	older := sqldbtest.Open(t, at.String())
	if err := migrate(t, db, migrations(large)); err != nil {
		t.Fatal(err)
	}
	fill(t, db, 1, 11)
	const (
		locks  = " FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
		turn   = "SELECT COALESCE(MAX((classid::bigint << 32) | objid::bigint), 0)" + locks
		queued = "SELECT COUNT(*)" + locks + " AND NOT granted"
	)
	var waits sync.WaitGroup
	err = db.Migrate(t.Context(), migrations(large, expand), sqldb.MigrateOptions{BeforeMigrate: func(int, int) error {
		lock := number(t, db, turn)
		waits.Go(func() {
			if err := older.Write(t.Context(), func(tx *sqldb.Tx) error {
				_, err := tx.Exec("SELECT pg_advisory_lock($1)", lock)
				if err == nil {
					_, err = tx.Exec("SELECT pg_advisory_unlock($1)", lock)
				}
				return err
			}); err != nil {
				t.Errorf("the older program does not get its turn: %v", err)
			}
		})
		for number(t, db, queued) == 0 {
			if t.Context().Err() != nil {
				return context.Cause(t.Context())
			}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	waits.Wait()
	version(t, db, 2)
	if n := number(t, db, "SELECT COUNT(*) FROM pg_index WHERE indrelid = 'a'::regclass AND indisvalid"); n != 3 {
		t.Errorf("%d indexes are valid, want 3", n)
	}
}

func TestStatementsOfAMigration(t *testing.T) {
	t.Parallel()
	got := sqldb.Statements("-- one\n--two\nINSERT INTO a VALUES (';', 'it''s; -- so', 1); -- after\n\n-- in chunks of 7\nDELETE -- ; here\nFROM a;;\nSELECT 'open")
	var texts []string
	for _, s := range got {
		n, err := s.Chunk()
		if err != nil {
			t.Error(err)
		}
		texts = append(texts, fmt.Sprintf("%q %q %d", s.SQL, s.Marks, n))
	}
	want := []string{
		`"INSERT INTO a VALUES (';', 'it''s; -- so', 1)" ["one" "two"] 0`,
		`"DELETE \nFROM a" ["after" "in chunks of 7"] 7`,
		`"SELECT 'open" [] 0`,
	}
	if !slices.Equal(texts, want) {
		t.Errorf("got\n%q, want\n%q", texts, want)
	}
}
