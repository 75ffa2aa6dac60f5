package sqldb_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/internal/sqldb"
	"parley/internal/sqldb/litetest"
)

// TestCommitWithoutRoomForItsIndex fills the log of SQLite to where its index has
// to grow, on a disk that has no room for that. The commit fails when it is whole
// in the log: it is taken back, and there again if the process ends now.
func TestCommitWithoutRoomForItsIndex(t *testing.T) {
	dir := t.TempDir()
	r, err := litetest.Record(dir)
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, filepath.Join(dir, "x.db"))
	write := func(id string) error {
		return db.Write(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec("INSERT INTO a (id, text) VALUES ($1, $2)", id, strings.Repeat("x", 6<<20)) // stays in the cache until the commit
			return err
		})
	}
	count := func(db *sqldb.DB) int {
		n, err := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT count(*) FROM a")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for n := range 2 {
		if err := write(fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
	}
	r.NoIndex.Store(true)
	if err := write("doubtful"); !sqldb.IsInDoubt(err) || sqldb.IsFull(err) {
		t.Errorf("a commit that is only in the log got %v, want that nobody knows", err)
	}
	if n := count(db); n != 2 {
		t.Errorf("%d rows can be read, want 2", n)
	}
	crashed := t.TempDir()
	for _, name := range []string{"x.db", "x.db-wal"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(crashed, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(open(t, filepath.Join(crashed, "x.db"))); n != 3 {
		t.Errorf("%d rows are there after a crash, want 3: then the commit was in no doubt", n)
	}
	r.NoIndex.Store(false)
	if err := write("with room"); err != nil {
		t.Error(err)
	}
	if n := count(db); n != 3 {
		t.Errorf("%d rows can be read when there is room, want 3", n)
	}
}
