package sqldb_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// contents are the files of a directory, but for the memory that SQLite shares.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if filepath.Ext(f.Name()) == ".db-shm" {
			continue
		}
		if files[f.Name()], err = os.ReadFile(filepath.Join(dir, f.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestLookChangesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "parley.db")
	db := sqldbtest.Open(t, file)
	if err := db.Migrate(t.Context(), schema.FS, sqldb.MigrateOptions{}); err != nil {
		t.Fatal(err)
	}
	look := func(what, mode string) {
		t.Helper()
		before := contents(t, dir)
		seen, err := sqldb.Look(t.Context(), sqldb.Options{URL: file})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if v, err := seen.SchemaVersion(t.Context()); err != nil || v == 0 {
			t.Errorf("%s: schema version %d, %v", what, v, err)
		}
		if f, err := seen.SQLiteFacts(t.Context()); err != nil || f.JournalMode != mode || f.Size == 0 || f.Version == "" {
			t.Errorf("%s: %+v, %v", what, f, err)
		}
		if wrong, err := seen.QuickCheck(t.Context()); err != nil || len(wrong) > 0 {
			t.Errorf("%s: quick check: %v, %v", what, wrong, err)
		}
		if err := seen.Write(t.Context(), func(*sqldb.Tx) error { return nil }); err == nil {
			t.Errorf("%s: a write is let in", what)
		}
		if err := errors.Join(seen.Close()); err != nil {
			t.Error(err)
		}
		after := contents(t, dir)
		if len(after) != len(before) {
			t.Errorf("%s: %d files became %d", what, len(before), len(after))
		}
		for name, text := range before {
			if !bytes.Equal(text, after[name]) {
				t.Errorf("%s: %s has changed", what, name)
			}
		}
	}
	look("beside a writer", "wal")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	look("alone", "wal")
}

func TestLookFindsDamage(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "parley.db")
	db := sqldbtest.Open(t, file)
	if err := db.Migrate(t.Context(), schema.FS, sqldb.MigrateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for at := 8 << 10; at < len(text); at += 4 << 10 {
		copy(text[at:], bytes.Repeat([]byte{0xa5}, 100))
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	seen, err := sqldb.Look(t.Context(), sqldb.Options{URL: file})
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	if wrong, err := seen.QuickCheck(t.Context()); err == nil && len(wrong) == 0 {
		t.Error("a file full of holes is called sound")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := seen.QuickCheck(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a check whose time is up: %v", err)
	}
}

func TestLookMakesNoDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := sqldb.Look(t.Context(), sqldb.Options{URL: filepath.Join(dir, "parley.db")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is missing: %v", err)
	}
	if files := contents(t, dir); len(files) > 0 {
		t.Errorf("it made %d files", len(files))
	}
}

func TestLookAtPostgres(t *testing.T) {
	t.Parallel()
	sqldbtest.NeedsPostgres(t)
	url := sqldbtest.PostgresURL(t)
	seen, err := sqldb.Look(t.Context(), sqldb.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	f, err := seen.PostgresFacts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f.TooOld || !f.ByteOrder || f.SyncCommit != "on" || f.Standby || !f.MayCreate || f.Pool != 24 || f.MaxConns < f.Pool || f.Version == "" {
		t.Errorf("%+v", f)
	}
	if f.Ahead.Abs() > f.RoundTrip+time.Second || f.RoundTrip <= 0 {
		t.Errorf("its clock differs by %v, asked in %v", f.Ahead, f.RoundTrip)
	}
	if v, err := seen.SchemaVersion(t.Context()); v != 0 || err != nil {
		t.Errorf("an empty schema has version %d, %v", v, err)
	}
	if err := seen.Write(t.Context(), func(*sqldb.Tx) error { return nil }); err == nil {
		t.Error("a write is let in")
	}
	other, err := sqldb.Look(t.Context(), sqldb.Options{URL: sqldbtest.Database(t, "ENCODING 'SQL_ASCII' LOCALE 'C'")})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if f, err := other.PostgresFacts(t.Context()); err != nil || f.ByteOrder || f.Encoding != "SQL_ASCII" {
		t.Errorf("with another encoding: %+v, %v", f, err)
	}
}
