package sqldb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
)

// openFile opens an SQLite database with a table t (k TEXT PRIMARY KEY).
func openFile(t *testing.T) (*DB, *writer) {
	t.Helper()
	db, err := Open(t.Context(), Options{URL: filepath.Join(t.TempDir(), "x.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	err = db.Migrate(t.Context(), fstest.MapFS{"0001_t.sql": {Data: []byte("CREATE TABLE t (k TEXT PRIMARY KEY)")}}, MigrateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return db, db.engine.(*sqlite).writer
}

// hold keeps the writer busy until release is called, so that what is pushed
// meanwhile makes one batch.
func hold(t *testing.T, w *writer) (release func()) {
	t.Helper()
	held, free := make(chan struct{}), make(chan struct{})
	o := push(t, w, func(*Tx) error {
		close(held)
		<-free
		return nil
	})
	<-held
	return func() {
		close(free)
		<-o.done
	}
}

func push(t *testing.T, w *writer, fn func(tx *Tx) error) *write {
	t.Helper()
	o := &write{fn: fn, done: make(chan struct{})}
	if err := w.push(o); err != nil {
		t.Fatal(err)
	}
	return o
}

func put(k string) func(tx *Tx) error {
	return func(tx *Tx) error {
		_, err := tx.Exec("INSERT INTO t (k) VALUES ($1)", k)
		return err
	}
}

func keys(t *testing.T, db *DB) string {
	t.Helper()
	rows, err := db.Reader(t.Context()).Query("SELECT k FROM t ORDER BY k")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var k string
		if err := rows.Scan(&k); err != nil {
			t.Fatal(err)
		}
		all = append(all, k)
	}
	return strings.Join(all, " ")
}

func TestWaitingWritesShareACommit(t *testing.T) {
	t.Parallel()
	db, w := openFile(t)
	release := hold(t, w)
	before := db.Stats()
	var ops []*write
	for i := range 100 {
		ops = append(ops, push(t, w, put(fmt.Sprintf("%03d", i))))
	}
	if got := db.Stats().QueueLen; got != 100 {
		t.Errorf("%d writes wait, want 100", got)
	}
	release()
	for _, o := range ops {
		if <-o.done; o.err != nil {
			t.Error(o.err)
		}
	}
	if s := db.Stats(); s.Batches-before.Batches != 2 || s.Writes-before.Writes != 101 {
		t.Errorf("%d commits for %d writes, want 2 for 101", s.Batches-before.Batches, s.Writes-before.Writes)
	}
}

// TestReplay holds what a batch comes to in which closures fail: a rollback
// only where something was changed, a run of its own for each that failed then,
// and nothing that is seen of a run that was rolled back.
func TestReplay(t *testing.T) {
	t.Parallel()
	errOwn := errors.New("own")
	fail := func(tx *Tx) error { return errOwn }
	spoil := func(k string) func(tx *Tx) error {
		return func(tx *Tx) error { return errors.Join(put(k)(tx), errOwn) }
	}
	for name, c := range map[string]struct {
		batch   []func(tx *Tx) error
		wrong   string // which of the batch fail
		keys    string
		replays int64
	}{
		"a failed precondition disturbs nobody": {[]func(*Tx) error{put("a"), fail, put("b"), fail}, "1 3", "a b", 0},
		"an effect is taken back":               {[]func(*Tx) error{put("a"), spoil("x"), put("b")}, "1", "a b", 1},
		"two effects are taken back":            {[]func(*Tx) error{spoil("x"), put("a"), spoil("y"), put("b")}, "0 2", "a b", 2},
		"many effects are taken back": {[]func(*Tx) error{spoil("x"), put("a"), spoil("y"), put("b"), spoil("z"), spoil("x"), put("c")},
			"0 2 4 5", "a b c", 3},
		// The second finds what the first put in and fails with it; alone it
		// succeeds, because the first was rolled back.
		"an error caused by a neighbour that failed": {[]func(*Tx) error{spoil("x"), put("x")}, "0", "x", 1},
		"a conflict with a neighbour that succeeded": {[]func(*Tx) error{put("x"), put("x")}, "1", "x", 0},
		"a schema change is taken back": {[]func(*Tx) error{put("a"), func(tx *Tx) error {
			_, err := tx.Exec("CREATE TABLE other (k TEXT)")
			return errors.Join(err, errOwn)
		}, func(tx *Tx) error {
			_, err := tx.Exec("CREATE TABLE other (k TEXT)")
			return err
		}}, "1", "a", 1},
		"everything fails": {[]func(*Tx) error{fail, fail}, "0 1", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, w := openFile(t)
			before := db.Stats()
			after := make([]int, len(c.batch))
			ops := make([]*write, len(c.batch))
			release := hold(t, w)
			for i, fn := range c.batch {
				ops[i] = push(t, w, func(tx *Tx) error {
					tx.AfterCommit(func() { after[i]++ })
					return fn(tx)
				})
			}
			release()
			var wrong []string
			for i, o := range ops {
				if <-o.done; o.err == nil {
					for _, f := range o.after {
						f()
					}
				} else {
					wrong = append(wrong, fmt.Sprint(i))
				}
			}
			for i, o := range ops {
				want := 1
				if o.err != nil {
					want = 0
				}
				if after[i] != want {
					t.Errorf("AfterCommit of %d ran %d times, want %d", i, after[i], want)
				}
			}
			if got := strings.Join(wrong, " "); got != c.wrong {
				t.Errorf("failed: %q, want %q", got, c.wrong)
			}
			if got := keys(t, db); got != c.keys {
				t.Errorf("keys %q, want %q", got, c.keys)
			}
			if got := db.Stats().Replays - before.Replays; got != c.replays {
				t.Errorf("%d replays, want %d", got, c.replays)
			}
		})
	}
}

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	db, w := openFile(t)
	release := hold(t, w)
	var ops []*write
	for i := range maxWaiting {
		ops = append(ops, push(t, w, put(fmt.Sprint(i))))
	}
	if err := db.Write(t.Context(), put("one too many")); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	if got := db.Stats().Busy; got != 1 {
		t.Errorf("stats count %d refused, want 1", got)
	}
	release()
	for _, o := range ops {
		if <-o.done; o.err != nil {
			t.Fatal(o.err)
		}
	}
	if err := db.Write(t.Context(), put("in time")); err != nil {
		t.Errorf("a write after the queue was emptied: %v", err)
	}
}

func TestSoonQueueSlowsItsCallers(t *testing.T) {
	t.Parallel()
	db, w := openFile(t)
	release := hold(t, w)
	done := make(chan error, maxWaiting+1)
	for i := range maxWaiting {
		db.WriteSoon(put(fmt.Sprint(i)), func(err error) { done <- err })
	}
	through := make(chan struct{})
	go func() {
		db.WriteSoon(put("one more"), func(err error) { done <- err })
		close(through)
	}()
	select {
	case <-through:
		t.Error("a full queue took one more")
	default:
	}
	release()
	<-through
	for range maxWaiting + 1 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// TestSoonGoesFirst holds that a WriteSoon that is due is not overtaken.
func TestSoonGoesFirst(t *testing.T) {
	t.Parallel()
	db, w := openFile(t)
	release := hold(t, w)
	var order []string
	soon := make(chan error, 1)
	db.WriteSoon(func(*Tx) error { order = append(order, "soon"); return nil }, func(err error) { soon <- err })
	o := push(t, w, func(*Tx) error { order = append(order, "write"); return nil })
	for ripe := false; !ripe; runtime.Gosched() {
		w.mu.Lock()
		ripe = w.due
		w.mu.Unlock()
	}
	before := db.Stats()
	release()
	<-o.done
	if err := <-soon; err != nil || strings.Join(order, " ") != "soon write" {
		t.Errorf("order %q, %v", order, err)
	}
	if got := db.Stats().Batches - before.Batches; got != 2 { // that of hold is one
		t.Errorf("%d commits, want 2: the WriteSoon rides with the write", got)
	}
}

func TestCancelledWhileQueued(t *testing.T) {
	t.Parallel()
	db, w := openFile(t)
	release := hold(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { failed <- db.Write(ctx, put("never")) }()
	for db.Stats().QueueLen == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error before the writer is free", err)
	}
	release()
	if err := db.Write(ctx, put("late")); !errors.Is(err, context.Canceled) {
		t.Errorf("a write under a context that has ended: got %v", err)
	}
	if err := db.Write(t.Context(), put("a")); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, db); got != "a" {
		t.Errorf("keys %q, want a", got)
	}
}

// TestClosureEndsItsGoroutine is what t.Fatal in a closure does.
func TestClosureEndsItsGoroutine(t *testing.T) {
	t.Parallel()
	db, w := openFile(t)
	release := hold(t, w)
	soon := make(chan error, 1)
	db.WriteSoon(put("s"), func(err error) { soon <- err })
	a := push(t, w, put("a"))
	bad := push(t, w, func(tx *Tx) error {
		if err := put("x")(tx); err != nil {
			return err
		}
		runtime.Goexit()
		return nil
	})
	b := push(t, w, put("b"))
	release()
	for _, o := range []*write{a, b} {
		if <-o.done; o.err != nil {
			t.Errorf("a neighbour failed: %v", o.err)
		}
	}
	if err := <-soon; err != nil {
		t.Errorf("a neighbour failed: %v", err)
	}
	if <-bad.done; bad.err == nil {
		t.Error("a closure that did not return has no error")
	}
	if got := keys(t, db); got != "a b s" {
		t.Errorf("keys %q, want a b s", got)
	}
}

// TestFailedCommit uses a foreign key that is checked at the commit, the one
// thing that makes SQLite refuse a commit on a healthy disk.
func TestFailedCommit(t *testing.T) {
	t.Parallel()
	db, w := openFile(t)
	if err := w.conn.Script("PRAGMA foreign_keys = ON; CREATE TABLE child (k TEXT REFERENCES t (k) DEFERRABLE INITIALLY DEFERRED)"); err != nil {
		t.Fatal(err)
	}
	release := hold(t, w)
	after := false
	a := push(t, w, func(tx *Tx) error {
		tx.AfterCommit(func() { after = true })
		return put("a")(tx)
	})
	bad := push(t, w, func(tx *Tx) error {
		_, err := tx.Exec("INSERT INTO child (k) VALUES ('nobody')")
		return err
	})
	release()
	<-a.done
	<-bad.done
	if a.err == nil || bad.err == nil {
		t.Errorf("errors %v and %v, want both: neither has committed", a.err, bad.err)
	}
	if after {
		t.Error("AfterCommit ran without a commit")
	}
	if got := keys(t, db); got != "" {
		t.Errorf("keys %q after a failed commit", got)
	}
	if err := db.Write(t.Context(), put("b")); err != nil {
		t.Errorf("the write after it: %v", err)
	}
}

// TestLogStaysShort writes without a pause and looks at the write-ahead log.
func TestLogStaysShort(t *testing.T) {
	t.Parallel()
	db, _ := openFile(t)
	longest := 0
	text := strings.Repeat("x", 1<<20) // 256 pages
	for i := range 3 * moveSelf / 256 {
		if err := db.Write(t.Context(), put(fmt.Sprint(i, text))); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, db.Stats().LogPages)
	}
	if err := db.Write(t.Context(), func(tx *Tx) error { _, err := tx.Exec("DELETE FROM t"); return err }); err != nil {
		t.Fatal(err)
	}
	if longest > moveSelf+5000 {
		t.Errorf("the log grew to %d pages", longest)
	}
	if longest < moveEvery {
		t.Errorf("the log grew to %d pages, too few to be moved", longest)
	}
}

func TestFileBelongsToItsOwner(t *testing.T) {
	t.Parallel()
	db, _ := openFile(t)
	file := db.engine.(*sqlite).file
	for _, f := range []string{file, file + "-wal", file + "-shm"} {
		i, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if i.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", f, i.Mode())
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "text.db"), []byte(strings.Repeat("this is no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		filepath.Join(dir, "none", "x.db"):          "no such file or directory",
		"sqlite://" + filepath.Join(dir, "text.db"): "not a database",
		"sqlite://host/x.db":                        "database URL",
		"sqlite:x.db":                               "database URL",
		"mysql://localhost/x":                       "database URL",
		"":                                          "database URL",
		"postgres://127.0.0.1:1/x?connect_timeout=5": "connect",
	} {
		db, err := Open(t.Context(), Options{URL: url})
		if err == nil {
			t.Errorf("%s was opened", url)
			_ = db.Close()
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, want something with %q", url, err, want)
		}
	}
}
