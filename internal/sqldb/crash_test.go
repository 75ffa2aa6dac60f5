//go:build unix

package sqldb_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// Tests that kill a process start this test binary again with childEnv set to
// what the child is to do.
const childEnv = "PARLEY_SQLDB_CHILD"

// child starts the test of the given name as a child and returns its output.
func child(t *testing.T, name, arg string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$")
	cmd.Env = append(os.Environ(), childEnv+"="+arg)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// TestKill kills a process that writes without a pause, several times over the
// same file, and looks for every write that it confirmed.
func TestKill(t *testing.T) {
	t.Parallel()
	if file := os.Getenv(childEnv); file != "" {
		writeUntilKilled(t, file)
		return
	}
	file := filepath.Join(t.TempDir(), "x.db")
	db := sqldbtest.Open(t, file)
	do(t, db, "CREATE TABLE pairs (k TEXT NOT NULL, half BIGINT NOT NULL, doc TEXT NOT NULL, PRIMARY KEY (k, half))")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	confirmed := map[string]bool{}
	for round := range 6 {
		cmd, out := child(t, "TestKill", file)
		lines := bufio.NewScanner(out)
		for n := 200 + rand.IntN(1500); n > 0 && lines.Scan(); n-- {
			confirmed[lines.Text()] = true
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it said before it died counts
			confirmed[lines.Text()] = true
		}
		_ = cmd.Wait() // it was killed
		checkPairs(t, file, round, confirmed)
	}
}

func checkPairs(t *testing.T, file string, round int, confirmed map[string]bool) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: file})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	q := db.Reader(t.Context())
	if s, err := sqldb.Scalar[string](q, "PRAGMA integrity_check"); s != "ok" || err != nil {
		t.Fatalf("round %d: integrity_check says %q, %v", round, s, err)
	}
	rows, err := q.Query("SELECT k, COUNT(*) FROM pairs GROUP BY k")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	stored := map[string]bool{}
	for rows.Next() {
		var k string
		var n int
		if err := rows.Scan(&k, &n); err != nil {
			t.Fatal(err)
		}
		if n != 2 {
			t.Errorf("round %d: %s is there by half", round, k)
		}
		stored[k] = true
	}
	lost := 0
	for k := range confirmed {
		if strings.HasPrefix(k, "w") && !stored[k] {
			lost++
		}
	}
	if lost > 0 || len(confirmed) < 200 {
		t.Errorf("round %d: %d of %d confirmed writes are lost", round, lost, len(confirmed))
	}
}

func writeUntilKilled(t *testing.T, file string) {
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: file})
	if err != nil {
		t.Fatal(err)
	}
	var out sync.Mutex
	say := func(k string) {
		out.Lock()
		defer out.Unlock()
		fmt.Println(k)
	}
	doc := strings.Repeat("some text ", 50)
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := 0; ; i++ {
				k := fmt.Sprintf("w%d-%d-%d", os.Getpid(), w, i)
				pair := func(tx *sqldb.Tx) error {
					if w == 0 && i%3 == 0 {
						tx.AfterCommit(func() {})
						_, _ = tx.Exec("INSERT INTO pairs (k, half, doc) VALUES ('spoilt', 1, '')")
						return errors.New("a failing neighbour")
					}
					_, err := tx.Exec("INSERT INTO pairs (k, half, doc) VALUES ($1, 1, $2)", k, doc)
					if err == nil {
						_, err = tx.Exec("INSERT INTO pairs (k, half, doc) VALUES ($1, 2, $2)", k, doc)
					}
					return err
				}
				outcome := make(chan error, 1)
				if w%8 == 1 {
					db.WriteSoon(pair, func(err error) { outcome <- err })
				} else {
					outcome <- db.Write(context.Background(), pair)
				}
				if <-outcome == nil {
					say(k)
				}
			}
		})
	}
	wg.Wait()
}

// TestFullDisk lets the file grow no further: writes fail, what was confirmed
// stays, and there is no more harm once there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if file := os.Getenv(childEnv); file != "" {
		writeUntilFull(t, file)
		return
	}
	file := filepath.Join(t.TempDir(), "x.db")
	cmd, out := child(t, "TestFullDisk", file)
	said, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the child ended with %v:\n%s", err, said)
	}
	var confirmed int
	if _, err := fmt.Sscanf(string(said), "confirmed %d", &confirmed); err != nil || confirmed < 10 {
		t.Errorf("the child said %q, %v", said, err)
	}
	if got := count(t, sqldbtest.Open(t, file), "TRUE"); got != confirmed {
		t.Errorf("%d rows, %d were confirmed", got, confirmed)
	}
}

func writeUntilFull(t *testing.T, file string) {
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: file})
	if err != nil {
		t.Fatal(err)
	}
	do(t, db, counters)
	limit := func(bytes uint64) {
		var l syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
		l.Cur = min(bytes, l.Max)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	limit(1 << 20)
	confirmed, failed := 0, 0
	for i := 0; failed < 5; i++ {
		if err := db.Write(context.Background(), insert(fmt.Sprint(strings.Repeat("x", 3000), i), i)); err == nil {
			confirmed++
		} else {
			failed++
		}
	}
	limit(1 << 62)
	if err := db.Write(context.Background(), insert("room again", 0)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	fmt.Println("confirmed", confirmed+1)
}
