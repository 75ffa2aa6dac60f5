//go:build unix

// Package sqldbtest runs a test on every database the server supports.
package sqldbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest/pgserver"
)

// Each runs fn as two parallel subtests, on a fresh SQLite file and in a fresh
// PostgreSQL schema, both migrated. With PARLEY_TEST_DB=sqlite it is SQLite
// alone; otherwise a machine without PostgreSQL fails the test.
func Each(t *testing.T, fn func(t *testing.T, db *sqldb.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		fn(t, migrated(t, SQLiteURL(t)))
	})
	if sqliteOnly() {
		return
	}
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		fn(t, migrated(t, PostgresURL(t)))
	})
}

// Pair runs fn with two handles to one PostgreSQL schema, as two nodes have.
func Pair(t *testing.T, fn func(t *testing.T, a, b *sqldb.DB)) {
	t.Helper()
	NeedsPostgres(t)
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		u := PostgresURL(t)
		a := migrated(t, u)
		fn(t, a, Open(t, u))
	})
}

// NeedsPostgres leaves a test out where PARLEY_TEST_DB=sqlite says so.
func NeedsPostgres(t testing.TB) {
	t.Helper()
	if sqliteOnly() {
		t.Skip("PARLEY_TEST_DB=sqlite")
	}
}

func sqliteOnly() bool { return os.Getenv("PARLEY_TEST_DB") == "sqlite" }

// URLs gives a fresh, empty database of each engine by name, for tests that
// open and migrate by themselves.
func URLs(t *testing.T) map[string]func(t testing.TB) string {
	t.Helper()
	if sqliteOnly() {
		return map[string]func(testing.TB) string{"sqlite": SQLiteURL}
	}
	return map[string]func(testing.TB) string{"sqlite": SQLiteURL, "postgres": PostgresURL}
}

// Open opens a database and closes it with the test.
func Open(t testing.TB, url string) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil && !errors.Is(err, sqldb.ErrClosed) {
			t.Errorf("close the database: %v", err)
		}
	})
	return db
}

func migrated(t testing.TB, url string) *sqldb.DB {
	t.Helper()
	db := Open(t, url)
	if err := db.Migrate(t.Context(), schema.FS, sqldb.MigrateOptions{}); err != nil {
		t.Fatal(err)
	}
	return db
}

// SQLiteURL names a file that does not exist yet.
func SQLiteURL(t testing.TB) string {
	t.Helper()
	return "sqlite://" + filepath.Join(t.TempDir(), "parley.db")
}

// PostgresURL names a fresh schema, dropped with the test. Its sessions have more
// time than those of a server: on a busy machine many wait for each other.
func PostgresURL(t testing.TB) string {
	t.Helper()
	base, err := cluster()
	if err != nil {
		t.Fatal(err)
	}
	name := "t_" + strings.ToLower(rand.Text())
	if err := admin(base, "CREATE SCHEMA "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin(base, "DROP SCHEMA "+name+" CASCADE"); err != nil {
			t.Errorf("drop the schema: %v", err)
		}
	})
	return patient(with(base, "search_path", name))
}

// DatabaseURL is PostgresURL in a database of its own: for a test that makes an
// index beside others, which waits for all transactions in its database.
func DatabaseURL(t testing.TB) string {
	t.Helper()
	return patient(Database(t, "ENCODING 'UTF8' LOCALE 'C'"))
}

// patient gives the sessions of a URL more time.
func patient(u string) string {
	for _, limit := range []string{"statement_timeout", "idle_in_transaction_session_timeout"} {
		u = with(u, limit, "60s")
	}
	return u
}

// own is kept here because the server ends when nothing refers to it any more.
var own *pgserver.Server

// Database makes a database of its own with the given options of CREATE
// DATABASE, dropped with the test, and returns its URL.
func Database(t testing.TB, options string) string {
	t.Helper()
	base, err := cluster()
	if err != nil {
		t.Fatal(err)
	}
	name := "t_" + strings.ToLower(rand.Text())
	if err := admin(base, "CREATE DATABASE "+name+" TEMPLATE template0 "+options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin(base, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the database: %v", err)
		}
	})
	return strings.Replace(base, "/"+database, "/"+name, 1)
}

// database holds the schemas of all tests.
const database = "parley_test"

// cluster gives the URL of the database in which the schemas are made. The
// server is that of PARLEY_TEST_PG_URL or one that this test binary starts and
// that ends with it.
var cluster = sync.OnceValues(func() (string, error) {
	server := os.Getenv("PARLEY_TEST_PG_URL")
	if server == "" {
		var err error
		if own, err = pgserver.Start(context.Background()); err != nil {
			return "", err
		}
		server = own.URL
	}
	err := admin(server, "CREATE DATABASE "+database+" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
	// Another test binary may have made it, or be making it, on a shared server.
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && (e.Code == "42P04" || e.Code == "23505") {
		err = nil
	}
	if err != nil {
		return "", err
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	u.Path = "/" + database
	return u.String(), nil
})

func with(base, key, value string) string {
	sep := "?"
	if strings.Contains(base, "?") {
		sep = "&"
	}
	return base + sep + key + "=" + url.QueryEscape(value)
}

func admin(url, statement string) error {
	ctx := context.Background() // a test's context is over when its clean-up runs
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	// Dropping a schema locks its tables one by one; what cleans tables up or makes an
	// index in another schema may stand in the way both before and behind it.
	for range 5 {
		if _, err = c.Exec(ctx, statement); !deadlocked(err) {
			break
		}
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Detail != "" {
		return fmt.Errorf("%w: %s", err, e.Detail)
	}
	return err
}

func deadlocked(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "40P01"
}
