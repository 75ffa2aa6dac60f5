package sqldb_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func migrations(texts ...string) fstest.MapFS {
	fs := fstest.MapFS{}
	for i, text := range texts {
		fs[fmt.Sprintf("%04d_m.sql", i+1)] = &fstest.MapFile{Data: []byte(text)}
	}
	return fs
}

// empty runs fn on an empty database of each engine.
func empty(t *testing.T, fn func(t *testing.T, url string)) {
	t.Helper()
	for engine, fresh := range sqldbtest.URLs(t) {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			fn(t, fresh(t))
		})
	}
}

func migrate(t *testing.T, db *sqldb.DB, fs fstest.MapFS) error {
	t.Helper()
	return db.Migrate(t.Context(), fs, sqldb.MigrateOptions{})
}

func version(t *testing.T, db *sqldb.DB, want int) {
	t.Helper()
	if got, err := db.SchemaVersion(t.Context()); got != want || err != nil {
		t.Errorf("schema version %d, %v; want %d", got, err, want)
	}
}

const (
	first  = "CREATE TABLE a (k TEXT PRIMARY KEY, d {json}, b {bytes}) {without_rowid};\nCREATE INDEX a_k ON a (k {c});"
	second = "CREATE TABLE b (k TEXT PRIMARY KEY);\nINSERT INTO b (k) VALUES ('it''s; here');"
)

func TestMigrate(t *testing.T) {
	t.Parallel()
	empty(t, func(t *testing.T, url string) {
		db := sqldbtest.Open(t, url)
		version(t, db, 0)
		var hooks []string
		hook := sqldb.MigrateOptions{BeforeMigrate: func(from, to int) error {
			hooks = append(hooks, fmt.Sprint(from, to))
			return nil
		}}
		for i, fs := range []fstest.MapFS{migrations(first), migrations(first), migrations(first, second), migrations(first, second)} {
			if err := db.Migrate(t.Context(), fs, hook); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
		version(t, db, 2)
		if !slices.Equal(hooks, []string{"1 2"}) {
			t.Errorf("BeforeMigrate was called with %q, want once with 1 2", hooks)
		}
		if k, err := sqldb.Scalar[string](db.Reader(t.Context()), "SELECT k FROM b"); k != "it's; here" || err != nil {
			t.Errorf("got %q, %v", k, err)
		}
		n, err := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT COUNT(*) FROM migrations WHERE name = '0002_m.sql' AND applied_at > 1700000000000 AND LENGTH(checksum) = 64")
		if n != 1 || err != nil {
			t.Errorf("the table of migrations has %d such rows, %v", n, err)
		}
	})
}

func TestMigrateRefuses(t *testing.T) {
	t.Parallel()
	empty(t, func(t *testing.T, url string) {
		db := sqldbtest.Open(t, url)
		if err := migrate(t, db, migrations(first, second)); err != nil {
			t.Fatal(err)
		}
		err := migrate(t, db, migrations(first))
		newer, ok := errors.AsType[*sqldb.NewerSchemaError](err)
		if !ok || *newer != (sqldb.NewerSchemaError{Have: 2, Known: 1}) || strings.Contains(err.Error(), "\n") {
			t.Errorf("a newer schema: got %v", err)
		}
		if err := migrate(t, db, migrations(first, second+" ")); err == nil || !strings.Contains(err.Error(), "0002_m.sql") {
			t.Errorf("a changed migration: got %v, want an error that names it", err)
		}
		err = db.Migrate(t.Context(), migrations(first, second, "CREATE TABLE c (k TEXT)"), sqldb.MigrateOptions{
			BeforeMigrate: func(int, int) error { return errRollback },
		})
		if !errors.Is(err, errRollback) {
			t.Errorf("a failing BeforeMigrate: got %v", err)
		}
		version(t, db, 2)
		err = migrate(t, db, migrations(first, second, "CREATE TABLE c (k TEXT);\nINSERT INTO c (k) VALUES ('x');\nnonsense;"))
		if err == nil || !strings.Contains(err.Error(), "0003_m.sql") {
			t.Errorf("a failing migration: got %v, want an error that names it", err)
		}
		version(t, db, 2)
		if err := migrate(t, db, migrations(first, second, "CREATE TABLE c (k TEXT)")); err != nil {
			t.Errorf("the mended migration: %v (the failed one left something)", err)
		}
		version(t, db, 3)
		for _, name := range []string{"1_x.sql", "0002_x.sql", "000a_x.sql", "x.sql"} {
			fs := fstest.MapFS{name: {Data: []byte(first)}}
			if err := migrate(t, db, fs); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("a migration named %s: got %v", name, err)
			}
		}
	})
}

// TestMigrateTogether starts several nodes on an empty database at once.
func TestMigrateTogether(t *testing.T) {
	t.Parallel()
	empty(t, func(t *testing.T, url string) {
		var wg sync.WaitGroup
		for range 4 {
			db := sqldbtest.Open(t, url)
			wg.Go(func() {
				if err := db.Migrate(t.Context(), schema.FS, sqldb.MigrateOptions{}); err != nil {
					t.Error(err)
				}
				if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
					_, err := tx.Exec("INSERT INTO tombstones (kind, id, bot_id, created_at) VALUES ('x', 'y', '', 0) ON CONFLICT DO NOTHING")
					return err
				}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}
