package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// TestBackupUnderLoad moves amounts between rows while copies are made: in every
// copy the sum must be the same.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := sqldbtest.Open(t, filepath.Join(dir, "it's.db"))
	do(t, db, counters)
	const accounts = 2000
	for i := range accounts {
		do(t, db, "INSERT INTO counters (k, n) VALUES ($1, 100)", fmt.Sprint(i))
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				_ = db.Write(ctx, func(tx *sqldb.Tx) error { // its error can only be that of ctx
					_, err := tx.Exec("UPDATE counters SET n = n - 1 WHERE k = $1", fmt.Sprint((i*7+w)%accounts))
					if err == nil {
						_, err = tx.Exec("UPDATE counters SET n = n + 1 WHERE k = $1", fmt.Sprint((i*13+w)%accounts))
					}
					return err
				})
			}
		})
	}
	for i := range 5 {
		file := filepath.Join(dir, fmt.Sprintf("copy '%d'.db", i))
		if err := db.Backup(t.Context(), file); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the copy has mode %v, %v; want 0600", info.Mode(), err)
		}
		copied := sqldbtest.Open(t, file)
		q := copied.Reader(t.Context())
		if s, err := sqldb.Scalar[string](q, "PRAGMA integrity_check"); s != "ok" || err != nil {
			t.Errorf("integrity_check says %q, %v", s, err)
		}
		if sum, err := sqldb.Scalar[int](q, "SELECT SUM(n) FROM counters"); sum != accounts*100 || err != nil {
			t.Errorf("the copy sums up to %d, %v; want %d", sum, err, accounts*100)
		}
	}
	stop()
	wg.Wait()
	if err := db.Backup(t.Context(), filepath.Join(dir, "copy '0'.db")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a backup over a file: got %v, want ErrExist", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Backup(ctx, filepath.Join(dir, "cancelled.db")); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled backup: got %v", err)
	}
	if err := db.Backup(t.Context(), filepath.Join(dir, "none", "x.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a backup into no directory: got %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}
