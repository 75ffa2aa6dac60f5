package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

const counters = "CREATE TABLE counters (k TEXT PRIMARY KEY, n BIGINT NOT NULL)"

func insert(k string, n int) func(tx *sqldb.Tx) error {
	return func(tx *sqldb.Tx) error {
		_, err := tx.Exec("INSERT INTO counters (k, n) VALUES ($1, $2)", k, n)
		return err
	}
}

func count(t *testing.T, db *sqldb.DB, where string, args ...any) int {
	t.Helper()
	n, err := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT COUNT(*) FROM counters WHERE "+where, args...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestReaderSeesWriteAtOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, counters)
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := range 50 {
					k := fmt.Sprintf("%d-%d", w, i)
					if err := db.Write(t.Context(), insert(k, i)); err != nil {
						t.Error(err)
						return
					}
					got, err := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT n FROM counters WHERE k = $1", k)
					if err != nil || got != i {
						t.Errorf("read of %s after its write: got %d, %v", k, got, err)
					}
				}
			})
		}
		wg.Wait()
	})
}

// TestCancelledRequests holds that a request that goes away takes nobody with
// it, and that it knows what became of its write.
func TestCancelledRequests(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, counters)
		var wg sync.WaitGroup
		for w := range 200 {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if w%4 == 1 {
					go cancel() // at some moment
				}
				k := fmt.Sprint(w)
				err := db.Write(ctx, func(tx *sqldb.Tx) error {
					if w%4 == 2 {
						cancel() // in the middle
					}
					if err := insert(k, 1)(tx); err != nil {
						return err
					}
					_, err := tx.Exec("UPDATE counters SET n = 2 WHERE k = $1", k)
					return err
				})
				whole, half := count(t, db, "k = $1 AND n = 2", k), count(t, db, "k = $1 AND n = 1", k)
				switch {
				case half != 0:
					t.Errorf("write %d is there by half", w)
				case (err == nil) != (whole == 1):
					t.Errorf("write %d: error %v, rows %d", w, err, whole)
				case err != nil && w%4 != 1:
					t.Errorf("write %d was not cancelled while it waited, and failed: %v", w, err)
				case err != nil && !errors.Is(err, context.Canceled):
					t.Errorf("write %d: got %v, want the context's error", w, err)
				}
			})
		}
		wg.Wait()
	})
}

// TestFailingNeighbours mixes writes that fail in every way with writes that do not.
func TestFailingNeighbours(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, counters)
		errOwn := errors.New("own")
		var after atomic.Int64
		var wg sync.WaitGroup
		for w := range 300 {
			wg.Go(func() {
				k := fmt.Sprint(w)
				err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
					tx.AfterCommit(func() { after.Add(1) })
					if err := insert(k, w)(tx); err != nil {
						return err
					}
					switch w % 10 {
					case 1:
						return errOwn
					case 2:
						panic("boom " + k)
					case 3:
						_, err := tx.Exec("INSERT INTO counters (k, n) VALUES ($1, 0)", k)
						return err
					case 4:
						_, err := tx.Exec("SELECT nonsense")
						return err
					}
					return nil
				})
				p, panicked := errors.AsType[*sqldb.PanicError](err)
				switch w % 10 {
				case 1:
					if err != errOwn {
						t.Errorf("write %d: got %v, want its own error", w, err)
					}
				case 2:
					if !panicked || p.Value != "boom "+k || !strings.Contains(string(p.Stack), "write_test.go") {
						t.Errorf("write %d: got %v, want its panic with the stack", w, err)
					}
				case 3:
					if !sqldb.IsUnique(err) {
						t.Errorf("write %d: got %v, want a unique violation", w, err)
					}
				case 4:
					if err == nil || sqldb.IsUnique(err) {
						t.Errorf("write %d: got %v, want an error about the statement", w, err)
					}
				default:
					if err != nil {
						t.Errorf("write %d: %v", w, err)
					}
				}
			})
		}
		wg.Wait()
		if got := count(t, db, "n % 10 IN (0, 5, 6, 7, 8, 9)"); got != 180 {
			t.Errorf("%d good writes are there, want 180", got)
		}
		if got := count(t, db, "n % 10 NOT IN (0, 5, 6, 7, 8, 9)"); got != 0 {
			t.Errorf("%d failed writes left something", got)
		}
		if after.Load() != 180 {
			t.Errorf("AfterCommit ran %d times, want 180", after.Load())
		}
	})
}

func TestAfterCommitBeforeWriteReturns(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, counters)
		var order []string
		err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			tx.AfterCommit(func() {
				order = append(order, fmt.Sprint("first, rows ", count(t, db, "k = 'a'")))
			})
			tx.AfterCommit(func() { order = append(order, "second") })
			return insert("a", 1)(tx)
		})
		order = append(order, fmt.Sprint("returned ", err))
		if want := []string{"first, rows 1", "second", "returned <nil>"}; !slices.Equal(order, want) {
			t.Errorf("got %q, want %q", order, want)
		}
	})
}

// TestTransactionRules holds SQLite to what PostgreSQL enforces anyway.
func TestTransactionRules(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, counters)
		var kept *sqldb.Tx
		for name, fn := range map[string]func(tx *sqldb.Tx) error{
			"an error that is passed over": func(tx *sqldb.Tx) error {
				_ = insert("a", 1)(tx)
				_ = insert("a", 1)(tx)
				return nil
			},
			"a statement after an error": func(tx *sqldb.Tx) error {
				_, _ = tx.Exec("SELECT nonsense")
				if err := insert("b", 1)(tx); err == nil {
					t.Error("a statement after an error was run")
				}
				return nil
			},
			"rows left open": func(tx *sqldb.Tx) error {
				_, err := tx.Query("SELECT k FROM counters")
				return err
			},
			"rows open at the next statement": func(tx *sqldb.Tx) error {
				rows, err := tx.Query("SELECT 1 UNION ALL SELECT 2")
				if err != nil {
					return err
				}
				defer rows.Close()
				rows.Next()
				return insert("c", 1)(tx)
			},
			"a zero byte":        insert("a\x00b", 1),
			"text not in UTF-8":  insert("a\xff", 1),
			"too few arguments":  func(tx *sqldb.Tx) error { _, err := tx.Exec("DELETE FROM counters WHERE k = $1"); return err },
			"too many arguments": func(tx *sqldb.Tx) error { _, err := tx.Exec("DELETE FROM counters WHERE k = $1", "a", "b"); return err },
			"a text in double quotes": func(tx *sqldb.Tx) error {
				_, err := tx.Exec(`DELETE FROM counters WHERE k = "a"`)
				return err
			},
			"two statements": func(tx *sqldb.Tx) error {
				_, err := tx.Exec("DELETE FROM counters WHERE k = $1; DELETE FROM counters", "a")
				return err
			},
			"kept": func(tx *sqldb.Tx) error { kept = tx; return errRollback },
		} {
			if err := db.Write(t.Context(), fn); err == nil {
				t.Errorf("%s: no error", name)
			} else if (name == "a zero byte" || name == "text not in UTF-8") && !errors.Is(err, sqldb.ErrText) {
				t.Errorf("%s: got %v, want ErrText", name, err)
			}
		}
		if got := count(t, db, "TRUE"); got != 0 {
			t.Errorf("failed writes left %d rows", got)
		}
		if err := insert("d", 1)(kept); err == nil {
			t.Error("a transaction that is over took a statement")
		}
	})
}

// What is sent is there for the statements behind it and for the commit, in its
// order, and one of it that fails takes everything with it, wherever that is found.
func TestSend(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, counters)
		send := func(tx *sqldb.Tx, k string, n int) error {
			return tx.Send("INSERT INTO counters (k, n) VALUES ($1, $2)", k, n)
		}
		add := func(tx *sqldb.Tx, k string, n int) error {
			return tx.Send("UPDATE counters SET n = n + $1 WHERE k = $2", n, k)
		}
		passOver := func(...error) {} // the transaction fails all the same
		for name, c := range map[string]struct {
			want int // the sum of what is there afterwards, -1 = a unique violation and nothing
			fn   func(tx *sqldb.Tx) error
		}{
			"alone":           {1, func(tx *sqldb.Tx) error { return send(tx, "a", 1) }},
			"nothing behind":  {111, func(tx *sqldb.Tx) error { return errors.Join(send(tx, "a", 1), send(tx, "b", 10), add(tx, "b", 100)) }},
			"behind a change": {12, func(tx *sqldb.Tx) error { return errors.Join(insert("a", 2)(tx), add(tx, "a", 10)) }},
			"before a change": {12, func(tx *sqldb.Tx) error { return errors.Join(send(tx, "a", 2), insert("b", 10)(tx)) }},
			"before a read": {13, func(tx *sqldb.Tx) error {
				err := errors.Join(send(tx, "a", 3), add(tx, "a", 10))
				if n, failed := sqldb.Scalar[int](tx, "SELECT n FROM counters WHERE k = 'a'"); n != 13 || failed != nil {
					t.Errorf("the read sees %d, %v; want 13", n, failed)
				}
				return err
			}},
			"before a lock": {4, func(tx *sqldb.Tx) error { return errors.Join(send(tx, "a", 4), tx.LockKey("x")) }},
			"twice, found at the commit": {-1, func(tx *sqldb.Tx) error {
				passOver(insert("b", 1)(tx), send(tx, "a", 1), send(tx, "a", 2))
				return nil
			}},
			"twice, found at a read": {-1, func(tx *sqldb.Tx) error {
				passOver(send(tx, "a", 1), send(tx, "a", 2))
				if _, err := sqldb.Scalar[int](tx, "SELECT count(*) FROM counters"); !sqldb.IsUnique(err) || strings.Contains(err.Error(), `in "SELECT`) {
					t.Errorf("the read fails with %v, want a unique violation in the insert", err)
				}
				return nil
			}},
			"twice, found at a change": {-1, func(tx *sqldb.Tx) error {
				passOver(send(tx, "a", 1), send(tx, "a", 2))
				if err := insert("b", 1)(tx); !sqldb.IsUnique(err) {
					t.Errorf("the change fails with %v, want a unique violation", err)
				}
				return nil
			}},
		} {
			after := 0
			err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
				tx.AfterCommit(func() { after++ })
				return c.fn(tx)
			})
			sum, read := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT coalesce(sum(n), 0) FROM counters")
			switch {
			case read != nil:
				t.Errorf("%s: %v", name, read)
			case c.want >= 0 && (err != nil || sum != c.want || after != 1):
				t.Errorf("%s: %v, %d, AfterCommit ran %d times; want nil, %d, 1", name, err, sum, after, c.want)
			case c.want < 0 && (!sqldb.IsUnique(err) || !strings.Contains(err.Error(), "INSERT INTO counters") || sum != 0 || after != 0):
				t.Errorf("%s: %v, %d, AfterCommit ran %d times; want a unique violation, 0, 0", name, err, sum, after)
			}
			do(t, db, "DELETE FROM counters")
		}
		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error { _, err := tx.Exec("SELECT nonsense"); return err }); err == nil || !strings.Contains(err.Error(), `in "SELECT nonsense"`) {
			t.Errorf("a first statement that is wrong: got %v, want it to be named", err)
		}
		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error { return send(tx, "a\x00b", 1) }); !errors.Is(err, sqldb.ErrText) {
			t.Errorf("a zero byte: got %v, want ErrText", err)
		}
		var kept *sqldb.Tx
		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error { kept = tx; return errRollback }); err != errRollback {
			t.Error(err)
		}
		if err := send(kept, "a", 1); err == nil {
			t.Error("a transaction that is over took a statement")
		}
	})
}

func TestReaderCannotWrite(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, counters)
		q := db.Reader(t.Context())
		if _, err := q.Exec("INSERT INTO counters (k, n) VALUES ('a', 1)"); err == nil {
			t.Error("a reader's Exec succeeded")
		}
		if _, err := sqldb.Scalar[string](q, "INSERT INTO counters (k, n) VALUES ('a', 1) RETURNING k"); err == nil || errors.Is(err, sqldb.ErrNoRow) {
			t.Errorf("a reader's INSERT: got %v", err)
		}
		if got := count(t, db, "TRUE"); got != 0 {
			t.Errorf("a reader wrote %d rows", got)
		}
	})
}

const endless = "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 2000000000) SELECT COUNT(*) FROM r"

func TestCancelledRead(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		for range 10 { // more than there are readers
			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error)
			go func() {
				_, err := sqldb.Scalar[int](db.Reader(ctx), endless)
				failed <- err
			}()
			for db.Stats().ReadersInUse == 0 {
				if _, err := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT 1"); err != nil {
					t.Fatal(err)
				}
			}
			cancel()
			if err := <-failed; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want the context's error", err)
			}
			if n, err := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT 7"); n != 7 || err != nil {
				t.Errorf("the read after it: %d, %v", n, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := sqldb.Scalar[int](db.Reader(ctx), "SELECT 1"); !errors.Is(err, context.Canceled) {
			t.Errorf("a reader of a context that has ended: got %v", err)
		}
	})
}

func TestWriteSoon(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, counters)
		before := db.Stats()
		errOwn := errors.New("own")
		const n = 200
		got := make(chan error, n)
		var after atomic.Int64
		for i := range n {
			db.WriteSoon(func(tx *sqldb.Tx) error {
				tx.AfterCommit(func() { after.Add(1) })
				if err := insert(fmt.Sprint(i), i)(tx); err != nil || i%50 != 7 {
					return err
				}
				return errOwn
			}, func(err error) {
				if err == nil && count(t, db, "n = $1", i) != 1 {
					t.Errorf("WriteSoon %d was confirmed before its commit", i)
				}
				got <- err
			})
		}
		failed := 0
		for range n {
			if err := <-got; err == errOwn {
				failed++
			} else if err != nil {
				t.Error(err)
			}
		}
		if failed != 4 || count(t, db, "TRUE") != n-4 || after.Load() != n-4 {
			t.Errorf("%d failed, %d rows, %d AfterCommits; want 4, %d, %d", failed, count(t, db, "TRUE"), after.Load(), n-4, n-4)
		}
		s := db.Stats()
		if s.Soon-before.Soon != n-4 || s.Writes-before.Writes != n-4 {
			t.Errorf("stats count %d soon, %d writes, want %d", s.Soon-before.Soon, s.Writes-before.Writes, n-4)
		}
		db.WriteSoon(insert("last", 1), nil)
		db.WriteSoon(func(*sqldb.Tx) error { runtime.Goexit(); return nil }, func(err error) { got <- err })
		if err := <-got; err == nil {
			t.Error("a closure that did not return has no error")
		}
		db.WriteSoon(func(*sqldb.Tx) error { panic("boom") }, func(err error) { got <- err })
		if _, ok := errors.AsType[*sqldb.PanicError](<-got); !ok {
			t.Error("a panic in a WriteSoon was not reported")
		}
	})
}

func TestCloseFinishesWhatWaits(t *testing.T) {
	t.Parallel()
	for engine, fresh := range sqldbtest.URLs(t) {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			url := fresh(t)
			db := sqldbtest.Open(t, url)
			do(t, db, counters)
			const n = 500
			var done atomic.Int64
			for i := range n {
				db.WriteSoon(insert(fmt.Sprint(i), i), func(err error) {
					if err == nil {
						done.Add(1)
					}
				})
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if done.Load() != n {
				t.Errorf("%d of %d were confirmed when Close returned", done.Load(), n)
			}
			if err := db.Write(t.Context(), insert("late", 1)); !errors.Is(err, sqldb.ErrClosed) {
				t.Errorf("a write after Close: got %v", err)
			}
			if _, err := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT 1"); !errors.Is(err, sqldb.ErrClosed) {
				t.Errorf("a read after Close: got %v", err)
			}
			late := make(chan error, 1)
			db.WriteSoon(insert("late", 1), func(err error) { late <- err })
			if err := <-late; !errors.Is(err, sqldb.ErrClosed) {
				t.Errorf("a WriteSoon after Close: got %v", err)
			}
			if err := db.Close(); !errors.Is(err, sqldb.ErrClosed) {
				t.Errorf("a second Close: got %v", err)
			}
			if got := count(t, sqldbtest.Open(t, url), "TRUE"); got != n {
				t.Errorf("%d rows after opening again, want %d", got, n)
			}
		})
	}
}

// TestCloseWithOpenRows holds that a reader that forgot its rows cannot stop a
// shutdown, and is named.
func TestCloseWithOpenRows(t *testing.T) {
	t.Parallel()
	for engine, fresh := range sqldbtest.URLs(t) {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			db, err := sqldb.Open(t.Context(), sqldb.Options{URL: fresh(t), CloseTimeout: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			rows, err := db.Reader(t.Context()).Query("SELECT 1")
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err == nil || !strings.Contains(err.Error(), "rows") {
				t.Errorf("got %v, want an error about rows", err)
			}
			_ = rows.Close()
		})
	}
}

// TestNoUpdateIsLost adds to one row from many sides.
func TestNoUpdateIsLost(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, counters)
		do(t, db, "INSERT INTO counters (k, n) VALUES ('a', 0)")
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 20 {
					err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
						n, err := sqldb.Scalar[int64](tx, "SELECT n FROM counters WHERE k = 'a' {for_update}")
						if err != nil {
							return err
						}
						_, err = tx.Exec("UPDATE counters SET n = $1 WHERE k = 'a'", n+1)
						return err
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if got := count(t, db, "n = 320"); got != 1 {
			t.Error("an update was lost")
		}
	})
}

// TestClaim holds the form in which workers claim rows: without {skip_locked},
// and without the predicate once more outside, PostgreSQL gives a row to several.
func TestClaim(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, "CREATE TABLE work (id BIGINT PRIMARY KEY, owner TEXT NOT NULL)")
		const rows = 400
		for i := range rows {
			do(t, db, "INSERT INTO work (id, owner) VALUES ($1, '')", i)
		}
		var mu sync.Mutex
		claims := map[int64]int{}
		claim := func(worker string) (n int) {
			var ids []int64
			err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
				ids = ids[:0]
				found, err := tx.Query(`UPDATE work SET owner = $1 WHERE id IN
					(SELECT id FROM work WHERE owner = '' ORDER BY id LIMIT 7 {skip_locked}) AND owner = '' RETURNING id`, worker)
				if err != nil {
					return err
				}
				defer found.Close()
				for found.Next() {
					var id int64
					if err := found.Scan(&id); err != nil {
						return err
					}
					ids = append(ids, id)
				}
				return found.Err()
			})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, id := range ids {
				claims[id]++
			}
			return len(ids)
		}
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for claim(fmt.Sprint("w", w)) > 0 {
				}
			})
		}
		wg.Wait()
		for id, n := range claims {
			if n != 1 {
				t.Errorf("row %d was claimed %d times", id, n)
			}
		}
		if len(claims) != rows {
			t.Errorf("%d of %d rows were claimed", len(claims), rows)
		}
	})
}

// Closures with ranks run in their order where they share a transaction, so that
// rows which several writers lock are always locked in one order.
func TestWriteSoonRanked(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		begun, hold, done := make(chan struct{}), make(chan struct{}), make(chan error, 10)
		db.WriteSoon(func(*sqldb.Tx) error {
			close(begun)
			<-hold
			return nil
		}, func(err error) { done <- err })
		<-begun
		var order []string
		for _, rank := range []string{"c", "a", "", "b"} {
			db.WriteSoonRanked(rank, func(*sqldb.Tx) error {
				order = append(order, rank)
				return nil
			}, func(err error) { done <- err })
		}
		close(hold)
		for range 5 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if db.Dialect() == sqldb.Postgres && !slices.IsSorted(order) || len(order) != 4 {
			t.Errorf("the order is %q", order)
		}
	})
}

// Two kinds of writers of the same pairs of rows: some lock both at once, the
// others one at a time in a transaction that they share.
func TestRanksPreventDeadlocks(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, counters)
		const pairs = 8
		for i := range 2 * pairs {
			if err := db.Write(t.Context(), insert(fmt.Sprintf("%02d", i), 0)); err != nil {
				t.Fatal(err)
			}
		}
		add := func(tx *sqldb.Tx, i int) error {
			_, err := tx.Exec("UPDATE counters SET n = n + 1 WHERE k = $1", fmt.Sprintf("%02d", i))
			return err
		}
		var wg sync.WaitGroup
		var soon sync.WaitGroup
		for i := range pairs {
			wg.Go(func() {
				for range 40 {
					for _, one := range []int{i + pairs, i} {
						soon.Add(1)
						db.WriteSoonRanked(fmt.Sprintf("%02d", one), func(tx *sqldb.Tx) error { return add(tx, one) }, func(error) { soon.Done() })
					}
					if err := db.Write(t.Context(), func(tx *sqldb.Tx) error { return errors.Join(add(tx, i), add(tx, i+pairs)) }); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		soon.Wait()
		if s := db.Stats(); s.Reruns != 0 {
			t.Errorf("%d transactions met a deadlock", s.Reruns)
		}
	})
}
