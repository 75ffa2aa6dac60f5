package sqldb

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"strconv"
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

const migrationTable = `CREATE TABLE IF NOT EXISTS migrations (
  version    BIGINT PRIMARY KEY,
  name       TEXT NOT NULL,
  checksum   TEXT NOT NULL,
  applied_at BIGINT NOT NULL
)`

// Migrate brings the schema to the newest version in files, which are named
// NNNN_word.sql and numbered from 0001 without a gap. Each runs in a
// transaction of its own, and only one node migrates at a time.
func (db *DB) Migrate(ctx context.Context, files fs.FS, o MigrateOptions) error {
	ms, err := readMigrations(files)
	if err != nil {
		return err
	}
	return db.engine.migrating(ctx, func(inTx func(func(tx *Tx) error) error) error {
		var from int
		err := inTx(func(tx *Tx) (err error) {
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
			if err := inTx(func(tx *Tx) error { return db.apply(tx, m, ms) }); err != nil {
				return fmt.Errorf("migration %s: %w", m.name, err)
			}
		}
		return nil
	})
}

// apply runs one migration, unless another process was faster.
func (db *DB) apply(tx *Tx, m migration, all []migration) error {
	if at, err := applied(tx, all); err != nil || at >= m.version {
		return err
	}
	if err := tx.script(db.dialect.text(m.sql)); err != nil {
		return err
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
