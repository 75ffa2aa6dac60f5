package once_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

var now = time.Date(2026, 11, 20, 12, 5, 0, 0, time.UTC)

type answer struct {
	Name  string   `json:"name"`
	Items []string `json:"items"`
}

// effect is the write of these tests: one row of tombstones, which nothing else here uses.
func effect(ctx context.Context, db *sqldb.DB, id string) (answer, error) {
	return once.Write(ctx, db, func(tx *sqldb.Tx) (answer, error) {
		n, err := tx.Exec("INSERT INTO tombstones (kind, id, bot_id, created_at) VALUES ('test', $1, '', 0)", id)
		if err == nil && n != 1 {
			err = fmt.Errorf("%d rows", n)
		}
		return answer{Name: id}, err
	})
}

func effects(t *testing.T, db *sqldb.DB) int64 {
	t.Helper()
	n, err := sqldb.Scalar[int64](db.Reader(t.Context()), "SELECT COUNT(*) FROM tombstones")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func with(ctx context.Context, scope, text, request string) context.Context {
	return once.With(ctx, &once.Key{Scope: scope, Text: text, Request: request, Now: now})
}

func wantReplay(t *testing.T, err error, want string) {
	t.Helper()
	r, ok := errors.AsType[*once.Replay](err)
	if !ok || string(r.Answer) != want {
		t.Errorf("got %v, want a replay of %s", err, want)
	}
}

func TestWriteWithoutAKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		for i := range 2 {
			out, err := effect(t.Context(), db, fmt.Sprint(i))
			if err != nil || out.Name != fmt.Sprint(i) {
				t.Fatalf("got %+v, %v", out, err)
			}
		}
		if once.From(t.Context()) != nil || effects(t, db) != 2 {
			t.Error("writes without a key depend on each other")
		}
	})
}

func TestSecondRequestGetsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		ctx := with(t.Context(), "alice|createUser", "k1", "r1")
		out, err := effect(ctx, db, "a")
		if err != nil || out.Name != "a" || !once.From(ctx).Written() {
			t.Fatalf("got %+v, %v", out, err)
		}
		again := with(t.Context(), "alice|createUser", "k1", "r1")
		const first = `{"name":"a","items":[]}`
		wantReplay(t, once.From(again).Look(again, db), first)
		_, err = effect(again, db, "b")
		wantReplay(t, err, first)

		_, err = effect(with(t.Context(), "alice|createUser", "k1", "other"), db, "b")
		if !fault.Is(err, fault.InvalidPayload) || !strings.Contains(err.Error(), `Idempotency-Key "k1"`) {
			t.Errorf("another request under the key: %v", err)
		}
		if n := effects(t, db); n != 1 {
			t.Errorf("%d effects, want 1", n)
		}
		if _, err := effect(ctx, db, "c"); err == nil {
			t.Error("a second Write under one key is allowed")
		}
	})
}

func TestScopesDoNotCollide(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		for i, scope := range []string{"alice|createUser", "bob|createUser", "alice|createMessage", ""} {
			if _, err := effect(with(t.Context(), scope, "k", "r"), db, fmt.Sprint(i)); err != nil {
				t.Errorf("%s: %v", scope, err)
			}
		}
	})
}

func TestAFailedWriteLeavesNoKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		ctx := with(t.Context(), "s", "k", "r")
		_, err := once.Write(ctx, db, func(*sqldb.Tx) (answer, error) { return answer{}, fault.AlreadyExists.New("taken") })
		if !fault.Is(err, fault.AlreadyExists) || once.From(ctx).Written() {
			t.Fatalf("got %v", err)
		}
		if err := once.From(ctx).Look(ctx, db); err != nil {
			t.Errorf("the failed write left its key: %v", err)
		}
		// A retry may even ask for something else: nothing was done under the key.
		if _, err := effect(with(t.Context(), "s", "k", "r2"), db, "a"); err != nil {
			t.Errorf("retry: %v", err)
		}
	})
}

func TestAnswersThatAreTooLarge(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		write := func(key string, size int) error {
			_, err := once.Write(with(t.Context(), "s", key, "r"), db, func(*sqldb.Tx) (string, error) { return strings.Repeat("x", size), nil })
			return err
		}
		for _, size := range []int{once.MaxAnswer - 2, once.MaxAnswer - 1} {
			key := fmt.Sprint(size)
			if err := write(key, size); err != nil {
				t.Fatal(err)
			}
			err := write(key, size)
			_, replayed := errors.AsType[*once.Replay](err)
			if small := size+2 <= once.MaxAnswer; small != replayed || !small && !fault.Is(err, fault.AlreadyExists) {
				t.Errorf("an answer of %d bytes: %v", size+2, err)
			}
		}
	})
}

func TestStoreKeepsAnAnswerWithoutATransaction(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		store := func() error {
			ctx := with(t.Context(), "s", "k", "r")
			return once.From(ctx).Store(ctx, db, []byte(`{"a":1}`))
		}
		if err := store(); err != nil {
			t.Fatal(err)
		}
		wantReplay(t, store(), `{"a":1}`)
	})
}

func TestKeysExpire(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		later := func(d time.Duration, request string) context.Context {
			return once.With(t.Context(), &once.Key{Scope: "s", Text: "k", Request: request, Now: now.Add(d)})
		}
		if _, err := effect(later(0, "r"), db, "a"); err != nil {
			t.Fatal(err)
		}
		ctx := later(once.Kept, "r")
		wantReplay(t, once.From(ctx).Look(ctx, db), `{"name":"a","items":[]}`)

		ctx = later(once.Kept+time.Millisecond, "other")
		if err := once.From(ctx).Look(ctx, db); err != nil {
			t.Errorf("an expired key still answers: %v", err)
		}
		if _, err := effect(ctx, db, "b"); err != nil {
			t.Fatalf("an expired key is not free: %v", err)
		}
		ctx = later(once.Kept+2*time.Millisecond, "other")
		wantReplay(t, once.From(ctx).Look(ctx, db), `{"name":"b","items":[]}`)
	})
}

func TestSweepRemovesExpiredKeysInChunks(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			for i := range 705 {
				at := now
				if i < 5 {
					at = now.Add(time.Hour) // alive
				}
				if _, err := tx.Exec("INSERT INTO idempotency (scope, key, request, answer, created_at) VALUES ('s', $1, '', '', $2)", fmt.Sprint(i), at.UnixMilli()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		at := now.Add(once.Kept + time.Minute)
		for _, want := range []int{500, 200, 0} {
			if n, err := once.Sweep(t.Context(), db, at); err != nil || n != want {
				t.Errorf("swept %d, %v; want %d", n, err, want)
			}
		}
		if n, err := sqldb.Scalar[int64](db.Reader(t.Context()), "SELECT COUNT(*) FROM idempotency"); err != nil || n != 5 {
			t.Errorf("%d keys are left, want 5: %v", n, err)
		}
	})
}

// race lets many twins write under one key and counts how each ended.
func race(t *testing.T, dbs ...*sqldb.DB) {
	t.Helper()
	const twins = 20
	const want = `{"name":"0","items":[]}`
	var wg sync.WaitGroup
	start := make(chan struct{})
	results := make([]error, twins)
	for i := range twins {
		wg.Go(func() {
			<-start
			// Every twin writes a row of its own, so a second effect would show.
			ctx := with(t.Context(), "s", "k", "r")
			_, results[i] = once.Write(ctx, dbs[i%len(dbs)], func(tx *sqldb.Tx) (answer, error) {
				_, err := tx.Exec("INSERT INTO tombstones (kind, id, bot_id, created_at) VALUES ('test', $1, '', 0)", fmt.Sprint(i))
				return answer{Name: "0"}, err
			})
		})
	}
	close(start)
	wg.Wait()
	first := 0
	for _, err := range results {
		if err == nil {
			first++
			continue
		}
		wantReplay(t, err, want)
	}
	if first != 1 {
		t.Errorf("%d twins took effect, want 1", first)
	}
	if n := effects(t, dbs[0]); n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
}

func TestTwinsTakeEffectOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { race(t, db) })
}

func TestTwinsOnTwoNodesTakeEffectOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) { race(t, a, b) })
}

// On PostgreSQL a twin waits for the one before it and goes ahead when that one fails.
func TestATwinGoesAheadWhenTheFirstFails(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		inside, fail := make(chan struct{}), make(chan struct{})
		first := make(chan error)
		go func() {
			ran := false
			_, err := once.Write(with(t.Context(), "s", "k", "r"), a, func(*sqldb.Tx) (answer, error) {
				if !ran {
					ran = true
					close(inside)
					<-fail
				}
				return answer{}, fault.AlreadyExists.New("taken")
			})
			first <- err
		}()
		<-inside
		second := make(chan error)
		go func() {
			_, err := effect(with(t.Context(), "s", "k", "r"), b, "b")
			second <- err
		}()
		close(fail)
		if err := <-first; !fault.Is(err, fault.AlreadyExists) {
			t.Errorf("the first: %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("the second: %v", err)
		}
	})
}

func TestAnswersAreSealedAtRest(t *testing.T) {
	t.Parallel()
	box, err := auth.NewBox(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		sealing := func(text string) context.Context {
			return once.With(t.Context(), &once.Key{Scope: "s", Text: text, Request: "r", Now: now, Box: box})
		}
		write := func(ctx context.Context) error {
			_, err := once.Write(ctx, db, func(*sqldb.Tx) (answer, error) { return answer{Name: "bp_pat_secret"}, nil })
			return err
		}
		if err := write(sealing("k")); err != nil {
			t.Fatal(err)
		}
		kept, err := sqldb.Scalar[string](db.Reader(t.Context()), "SELECT answer FROM idempotency WHERE key = 'k'")
		if err != nil || kept == "" || strings.Contains(kept, "secret") {
			t.Errorf("the database holds %q, %v", kept, err)
		}
		wantReplay(t, write(sealing("k")), `{"name":"bp_pat_secret","items":[]}`)
		if err := write(with(t.Context(), "s", "k", "r")); err == nil {
			t.Error("without the key a sealed answer was read")
		}
	})
}
