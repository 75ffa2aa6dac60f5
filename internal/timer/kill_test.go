//go:build unix

package timer

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// childEnv names the database on which the test binary, started again, fires
// timers until it is killed.
const childEnv = "PARLEY_TIMER_CHILD"

// TestKill kills a server that fires timers, several times over the same
// database. Each timer has fired once in the end.
func TestKill(t *testing.T) {
	t.Parallel()
	if url := os.Getenv(childEnv); url != "" {
		fireUntilKilled(t, url)
		return
	}
	for name, url := range sqldbtest.URLs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 3000
			url := url(t)
			db := sqldbtest.Open(t, url)
			if err := db.Migrate(t.Context(), schema.FS, sqldb.MigrateOptions{}); err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, db)
			w.fill(-time.Hour, time.Second, n)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				killOnce(t, url)
			}
			w.db = sqldbtest.Open(t, url)
			// Sessions of the dead may still be ending, so both are counted by one statement.
			if all := w.count("SELECT (SELECT count(*) FROM fired) + (SELECT count(*) FROM timers)"); all != n || len(w.log()) == 0 {
				t.Errorf("%d have fired or are left of %d", all, n)
			}
			w.run(w.engine(nil))
			w.clock.settled(lookEach)
			if got := w.count("SELECT count(DISTINCT id) FROM fired"); got != n || len(w.log()) != n {
				t.Errorf("%d timers fired %d times, want each of %d once", got, len(w.log()), n)
			}
		})
	}
}

// killOnce starts a child and kills it when it has fired some timers.
func killOnce(t *testing.T, url string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), childEnv+"="+url)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 1 + rand.IntN(400); n > 0 && lines.Scan(); n-- {
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}

func fireUntilKilled(t *testing.T, url string) {
	db, err := sqldb.Open(context.Background(), sqldb.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	e := New(Config{DB: db, Log: slog.New(slog.DiscardHandler)})
	e.Handle("note", func(tx *sqldb.Tx, x Timer) error {
		tx.AfterCommit(func() { fmt.Println(x.ID) })
		_, err := tx.Exec("INSERT INTO fired (n, kind, id) VALUES (0, $1, $2)", x.Kind, x.ID)
		return err
	})
	if err := e.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
}
