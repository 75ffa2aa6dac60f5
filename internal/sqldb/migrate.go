package sqldb

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

// MigrateOptions are the options of Migrate.
type MigrateOptions struct {
	// BeforeMigrate is called when an existing database is about to change from
	// one version to another. Its error stops the migration. nil does nothing.
	BeforeMigrate func(from, to int) error
}

// NewerSchemaError says that a newer program has migrated the database.
type NewerSchemaError struct{ Have, Known int }

func (e *NewerSchemaError) Error() string {
	return fmt.Sprintf("the database has schema version %d, this program knows versions up to %d: start the newer program that made it, or restore a backup of version %d", e.Have, e.Known, e.Known)
}

type migration struct {
	version        int
	name, sum, sql string
}

// online reports whether a migration runs statement by statement, outside a
// transaction, while other nodes write: its first line says so.
func (m migration) online() bool { return strings.HasPrefix(m.sql, "-- online\n") }

// migrator is what an engine lends to Migrate.
type migrator interface {
	// inTx runs a transaction that may take long. What it waits for, it does not
	// wait for so long that others queue behind it: then it begins anew.
	inTx(fn func(tx *Tx) error) error
	// alone runs a statement outside any transaction of ours, and what it left
	// half-made when it was broken off before is removed first.
	alone(statement string) (rows int64, err error)
}

const migrationTable = `CREATE TABLE IF NOT EXISTS migrations (
  version    BIGINT PRIMARY KEY,
  name       TEXT NOT NULL,
  checksum   TEXT NOT NULL,
  applied_at BIGINT NOT NULL
)`

// Migrate brings the schema to the newest version in files, which are named
// NNNN_word.sql and numbered from 0001 without a gap. Each runs in a
// transaction of its own, and only one node migrates at a time.
//
// The nodes of an older program may go on meanwhile, and they do not wait for
// long: a transaction that does not get a lock on a table within half a second
// gives up those that it has, and begins again a second later. What takes long, or locks a table
// for long, is an online migration. It begins with the line
//
//	-- online
//
// and its statements run one after the other, each by itself, so that one may be
// CREATE INDEX {concurrently}. A statement behind the line
//
//	-- in chunks of 1000
//
// changes up to so many rows, and is repeated until it changes fewer. When the
// program ends in the middle, all statements run again with the next start: each
// has to say IF NOT EXISTS, or to find nothing left to do. SQLite has one
// process at a time, and knows no difference but that.
func (db *DB) Migrate(ctx context.Context, files fs.FS, o MigrateOptions) error {
	ms, err := readMigrations(files)
	if err != nil {
		return err
	}
	return db.engine.migrating(ctx, func(to migrator) error {
		var from int
		err := to.inTx(func(tx *Tx) (err error) {
			if _, err = tx.Exec(migrationTable); err == nil {
				from, err = applied(tx, ms)
			}
			return err
		})
		if err != nil || from == len(ms) {
			return err
		}
		if from > 0 && o.BeforeMigrate != nil {
			if err := o.BeforeMigrate(from, len(ms)); err != nil {
				return fmt.Errorf("before the migration from schema version %d to %d: %w", from, len(ms), err)
			}
		}
		for _, m := range ms[from:] {
			if err := db.step(to, m, ms); err != nil {
				return fmt.Errorf("migration %s: %w", m.name, err)
			}
		}
		return nil
	})
}

// step runs one migration, unless another process was faster.
func (db *DB) step(to migrator, m migration, all []migration) error {
	if m.online() {
		if err := db.online(to, m); err != nil {
			return err
		}
	}
	return to.inTx(func(tx *Tx) error { return db.apply(tx, m, all) })
}

// online runs the statements of an online migration.
func (db *DB) online(to migrator, m migration) error {
	for _, s := range Statements(m.sql) {
		size, err := s.Chunk()
		if err != nil {
			return err
		}
		text := db.dialect.text(s.SQL)
		n, err := to.alone(text)
		for err == nil && size > 0 && n >= size {
			n, err = to.alone(text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// apply runs what of a migration belongs in the transaction that notes it.
func (db *DB) apply(tx *Tx, m migration, all []migration) error {
	if at, err := applied(tx, all); err != nil || at >= m.version {
		return err
	}
	if !m.online() {
		if err := tx.script(db.dialect.text(m.sql)); err != nil {
			return err
		}
	}
	_, err := tx.Exec("INSERT INTO migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)",
		m.version, m.name, m.sum, time.Now().UnixMilli())
	return err
}

// applied gives the version of the schema and compares it with what the program knows.
func applied(tx *Tx, ms []migration) (version int, err error) {
	rows, err := tx.Query("SELECT version, checksum FROM migrations ORDER BY version")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var sum string
		if err := rows.Scan(&version, &sum); err != nil {
			return 0, err
		}
		if version <= len(ms) && ms[version-1].sum != sum {
			return 0, fmt.Errorf("migration %s was applied to this database with other contents (checksum %.12s, now %.12s); a migration that has run is never edited", ms[version-1].name, sum, ms[version-1].sum)
		}
	}
	if version > len(ms) {
		return 0, &NewerSchemaError{version, len(ms)}
	}
	return version, rows.Err()
}

func readMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "*.sql") // sorted
	if err != nil {
		return nil, err
	}
	ms := make([]migration, len(names))
	for i, name := range names {
		if len(name) < 6 || name[4] != '_' {
			return nil, fmt.Errorf("migration %s is not named NNNN_word.sql", name)
		}
		if n, err := strconv.Atoi(name[:4]); err != nil || n != i+1 {
			return nil, fmt.Errorf("migration %s should have number %04d", name, i+1)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		ms[i] = migration{i + 1, path.Base(name), hex.EncodeToString(sum[:]), string(text)}
	}
	return ms, nil
}

// SchemaVersion is the number of the newest migration applied, 0 for a fresh database.
func (db *DB) SchemaVersion(ctx context.Context) (int, error) {
	exists := "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'migrations'"
	if db.dialect == Postgres {
		exists = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'migrations'"
	}
	q := db.Reader(ctx)
	if n, err := Scalar[int](q, exists); err != nil || n == 0 {
		return 0, err
	}
	return Scalar[int](q, "SELECT COALESCE(MAX(version), 0) FROM migrations")
}
