package sqldb_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"parley/internal/sqldb"
	"parley/internal/sqldb/litetest"
)

// TestPowerLoss takes the power away at random moments of a life with many
// writers and a checkpoint: what was acknowledged is there, what is
// there is whole, and nothing is doubled. On a disk that lies about its syncs
// the same test finds losses.
func TestPowerLoss(t *testing.T) {
	const writers, each = 8, 130
	dir := t.TempDir()
	r, err := litetest.Record(dir)
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, filepath.Join(dir, "x.db"))
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			for n := range each {
				id := fmt.Sprintf("%d.%d", w, n)
				size := 100 + rnd.IntN(40_000) // enough pages for checkpoints
				if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
					// Two rows that belong together.
					if _, err := tx.Exec("INSERT INTO a (id, text) VALUES ($1, $2)", id, strings.Repeat("x", size)); err != nil {
						return err
					}
					_, err := tx.Exec("INSERT INTO b (id, size) VALUES ($1, $2)", id, size)
					return err
				}); err != nil {
					t.Error(err)
					return
				}
				r.Mark(id)
			}
		})
	}
	wg.Wait()
	rnd := rand.New(rand.NewPCG(2, 3))
	lost := func(moments int) (n int) {
		for range moments {
			n += lose(t, r, rnd)
		}
		return n
	}
	if n := lost(25); n > 0 {
		t.Errorf("%d acknowledged rows are lost", n)
	}
	r.Lies = true
	if lost(5) == 0 {
		t.Error("a disk that lies loses nothing: this test would not see a loss")
	}
}

func open(t *testing.T, file string) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // a lost power leaves nothing to complain about
	err = db.Migrate(t.Context(), fstest.MapFS{"0001_t.sql": {Data: []byte("CREATE TABLE a (id TEXT PRIMARY KEY, text TEXT NOT NULL);\nCREATE TABLE b (id TEXT PRIMARY KEY, size BIGINT NOT NULL)")}}, sqldb.MigrateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// lose takes the power away once and counts what is missing.
func lose(t *testing.T, r *litetest.Recorder, rnd *rand.Rand) (missing int) {
	t.Helper()
	dir := t.TempDir()
	acknowledged, err := r.Lose(rnd.IntN(r.Len()), rnd, dir)
	if err != nil {
		t.Fatal(err)
	}
	if r.Lies {
		defer func() { // such a file may be anything
			if recover() != nil {
				missing++
			}
		}()
	}
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: filepath.Join(dir, "x.db")})
	if err != nil {
		if !r.Lies {
			t.Fatal(err)
		}
		return 1
	}
	defer db.Close()
	q := db.Reader(t.Context())
	if len(acknowledged) == 0 {
		return 0 // perhaps before the tables
	}
	if !r.Lies {
		if answer, err := sqldb.Scalar[string](q, "PRAGMA integrity_check"); err != nil || answer != "ok" {
			t.Errorf("the database is damaged: %s %v", answer, err)
		}
		if n, err := sqldb.Scalar[int](q, "SELECT count(*) FROM a LEFT JOIN b ON a.id = b.id WHERE b.id IS NULL OR length(text) <> size"); err != nil || n != 0 {
			t.Errorf("%d transactions are there in part, %v", n, err)
		}
	}
	there, err := ids(q)
	if err != nil && !r.Lies {
		t.Fatal(err)
	}
	for _, id := range acknowledged {
		if there[id] != 1 {
			missing++
			if !r.Lies {
				t.Errorf("row %s was acknowledged and is there %d times", id, there[id])
			}
		}
	}
	return missing
}

// ids counts the rows that are there in both tables.
func ids(q sqldb.Q) (map[string]int, error) {
	there := map[string]int{}
	rows, err := q.Query("SELECT a.id FROM a JOIN b ON a.id = b.id WHERE length(text) = size")
	if err != nil {
		return there, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return there, err
		}
		there[id]++
	}
	return there, rows.Err()
}
