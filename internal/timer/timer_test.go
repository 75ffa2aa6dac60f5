package timer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/bus"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// each runs fn on every database.
func each(t *testing.T, fn func(w *world)) {
	t.Helper()
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { fn(newWorld(t, db)) })
}

func TestFiresAtItsTimeAndNotBefore(t *testing.T) {
	each(t, func(w *world) {
		e := w.engine(nil)
		w.run(e)
		w.clock.settled(lookEach)
		w.set(e, w.in(3*time.Second, "a"))
		w.clock.settled(3 * time.Second)
		w.clock.advance(2999 * time.Millisecond)
		w.clock.settled(time.Millisecond)
		if got := w.log(); got != nil {
			t.Fatalf("%q fired a millisecond early", got)
		}
		due := w.clock.ms() + 1
		w.clock.advance(time.Millisecond)
		w.await(1)
		if n := w.count("SELECT n FROM fired"); int64(n) != due {
			t.Errorf("fired at %d, due at %d", n, due)
		}
		w.clock.settled(lookEach)
		if n := w.count("SELECT count(*) FROM timers"); n != 0 {
			t.Errorf("%d timers are left", n)
		}
	})
}

func TestFarTimers(t *testing.T) {
	each(t, func(w *world) {
		e := w.engine(nil)
		w.set(e, w.in(10*365*24*time.Hour, "decade"), w.in(time.Hour, "hour"))
		w.run(e)
		w.clock.settled(lookEach)
		w.clock.advance(time.Hour - lookEach)
		w.clock.settled(lookEach)
		w.clock.advance(lookEach - time.Millisecond)
		w.clock.settled(time.Millisecond)
		w.clock.advance(time.Millisecond)
		w.await(1)
		w.clock.settled(lookEach)
		if got := w.log(); !slices.Equal(got, []string{"hour"}) {
			t.Errorf("fired %q", got)
		}
	})
}

func TestMissedTimesFireOnceAtTheStart(t *testing.T) {
	each(t, func(w *world) {
		e := w.engine(nil)
		w.set(e, w.in(time.Second, "a"), w.in(time.Hour, "b"), w.in(48*time.Hour, "later"))
		w.clock.step(24 * time.Hour)
		stop := w.run(e)
		w.await(2)
		w.clock.settled(lookEach)
		stop()
		if m := w.measured(e); m != (measured{2, (47*time.Hour - time.Second).Seconds(), 0}) {
			t.Errorf("measured is %+v", m)
		}
		w.run(w.engine(nil)) // and the next start finds nothing
		w.clock.settled(lookEach)
		if got := w.log(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("fired %q", got)
		}
	})
}

func TestReplaceAndCancel(t *testing.T) {
	each(t, func(w *world) {
		e := w.engine(nil)
		w.run(e)
		w.clock.settled(lookEach)
		w.set(e, w.in(time.Second, "earlier"), w.in(time.Second, "later"), w.in(time.Second, "never"))
		w.set(e, w.in(500*time.Millisecond, "earlier"), w.in(2*time.Second, "later"))
		if !w.cancel(e, "never") || w.cancel(e, "never") || w.cancel(e, "unknown") {
			t.Error("Cancel does not say whether there was a timer")
		}
		w.clock.settled(500 * time.Millisecond)
		w.clock.advance(500 * time.Millisecond)
		if got := w.await(1); got[0] != "earlier" {
			t.Errorf("%q fired first", got)
		}
		w.clock.settled(1500 * time.Millisecond)
		w.clock.advance(1500 * time.Millisecond)
		if got := w.await(1); got[0] != "later" {
			t.Errorf("%q fired second", got)
		}
		w.clock.settled(lookEach)
		if got := w.log(); len(got) != 2 {
			t.Errorf("fired %q", got)
		}
	})
}

func TestPostponeOnlyEverDelays(t *testing.T) {
	each(t, func(w *world) {
		e := w.engine(nil)
		start := w.clock.ms()
		w.set(e, w.in(time.Second, "a"))
		for _, c := range []struct{ to, want int64 }{{start + 3000, start + 3000}, {start + 2000, start + 3000}, {start + 4000, start + 4000}} {
			w.write(func(tx *sqldb.Tx) error {
				return errors.Join(e.Postpone(tx, "note", "a", c.to), e.Postpone(tx, "note", "unknown", c.to))
			})
			if due := w.count("SELECT due FROM timers"); int64(due) != c.want {
				t.Errorf("postponed to %d it is due at %d, want %d", c.to-start, int64(due)-start, c.want-start)
			}
		}
	})
}

// Whoever cancels knows for certain whether the timer has fired.
func TestCancelRacesWithFiring(t *testing.T) {
	each(t, func(w *world) {
		const n = 200
		e := w.engine(nil)
		var ts []Timer
		for i := range n {
			ts = append(ts, w.in(-time.Second, fmt.Sprintf("t%03d", i)))
		}
		w.set(e, ts...)
		w.run(e)
		var canceled atomic.Int64
		var left [n]bool
		var g sync.WaitGroup
		for i := n - 1; i >= 0; i-- {
			g.Go(func() {
				if left[i] = w.cancel(e, ts[i].ID); left[i] {
					canceled.Add(1)
				}
			})
		}
		g.Wait()
		w.await(n - int(canceled.Load()))
		w.clock.settled(lookEach)
		log := w.log()
		for i, was := range left {
			if was == slices.Contains(log, ts[i].ID) {
				t.Errorf("%s: canceled %v, fired %v", ts[i].ID, was, !was)
			}
		}
		if len(log) != n-int(canceled.Load()) {
			t.Errorf("%d fired and %d were canceled of %d", len(log), canceled.Load(), n)
		}
	})
}

// A timer that is set anew at the moment it fires has fired for its old time and
// fires again for the new one.
func TestSetRacesWithFiring(t *testing.T) {
	each(t, func(w *world) {
		e := w.engine(nil)
		w.run(e)
		for range 20 {
			w.set(e, w.in(-time.Second, "a"))
			w.set(e, w.in(-2*time.Second, "a"))
			w.await(1)
		}
		for w.count("SELECT count(*) FROM timers") != 0 {
			w.await(1)
		}
		if n := len(w.log()); n < 20 || n > 40 {
			t.Errorf("40 times made it fire %d times", n)
		}
	})
}

// A timer that is moved between the look at it and its transaction fires if it
// is due all the same, and not before.
func TestTimerThatIsMovedWhileItIsLookedAt(t *testing.T) {
	each(t, func(w *world) {
		e := w.engine(nil)
		seen := []Timer{w.in(-3*time.Second, "due"), w.in(-3*time.Second, "later"), w.in(-3*time.Second, "gone")}
		w.set(e, seen...)
		w.set(e, w.in(-time.Second, "due"), w.in(time.Second, "later"))
		w.cancel(e, "gone")
		for _, x := range seen {
			if err := e.fire(t.Context(), x); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.await(1); got[0] != "due" {
			t.Errorf("fired %q", got)
		}
		if got := w.log(); len(got) != 1 {
			t.Errorf("fired %q", got)
		}
		if got := w.column("SELECT id FROM timers"); !slices.Equal(got, []string{"later"}) {
			t.Errorf("left are %q", got)
		}
	})
}

func TestFailingTimerIsTriedAgainAndHindersNoOther(t *testing.T) {
	broken := map[string]func(tx *sqldb.Tx) error{
		"error":     func(*sqldb.Tx) error { return errors.New("not now") },
		"statement": func(tx *sqldb.Tx) error { _, err := tx.Exec("SELECT nonsense"); return err },
		"panic":     func(*sqldb.Tx) error { panic("not now") },
		"late": func(tx *sqldb.Tx) error {
			_, err := tx.Exec("INSERT INTO fired (n, kind, id) VALUES (0, 'bad', 'must be rolled back')")
			return errors.Join(err, errors.New("not now"))
		},
	}
	for name, fail := range broken {
		t.Run(name, func(t *testing.T) {
			each(t, func(w *world) {
				e := w.engine(nil)
				var ill atomic.Bool
				ill.Store(true)
				e.Handle("bad", func(tx *sqldb.Tx, t Timer) error {
					if ill.Load() {
						return fail(tx)
					}
					return w.note(tx, t)
				})
				bad := w.in(0, "bad")
				bad.Kind, bad.Line = "bad", "line"
				good := w.in(0, "good")
				good.Line = "line"
				w.set(e, bad, good, w.in(0, "other"))
				w.run(e)
				w.await(2)
				for _, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
					wait *= time.Second
					for wait > lookEach {
						w.clock.settled(lookEach)
						w.clock.advance(lookEach)
						wait -= lookEach
					}
					w.clock.settled(wait)
					w.clock.advance(wait)
				}
				w.clock.settled(lookEach)
				if m := w.measured(e); m.failed != 12 {
					t.Errorf("measured is %+v, want 12 failures", m)
				}
				if n := w.count("SELECT failures FROM timers WHERE kind = 'bad'"); n != 12 {
					t.Errorf("tried %d times, want 12", n)
				}
				ill.Store(false)
				for range longest / lookEach {
					w.clock.advance(lookEach)
					w.clock.settled(lookEach)
				}
				w.await(1)
				if got := w.log(); !slices.Equal(got, []string{"good", "other", "bad"}) {
					t.Errorf("fired %q", got)
				}
			})
		})
	}
}

func TestFailingPreparation(t *testing.T) {
	each(t, func(w *world) {
		e := w.engine(nil)
		tries := 0
		e.HandlePrepared("bad", func(context.Context, Timer) (Fire, error) {
			switch tries++; tries {
			case 1:
				return nil, errors.New("not now")
			case 2:
				panic("not now")
			}
			return w.note, nil
		})
		bad := w.in(0, "bad")
		bad.Kind = "bad"
		w.set(e, bad, w.in(0, "good"))
		w.run(e)
		w.await(1)
		w.clock.settled(time.Second)
		w.clock.advance(time.Second)
		w.clock.settled(2 * time.Second)
		w.clock.advance(2 * time.Second)
		w.await(1)
		w.clock.settled(lookEach)
		if got := w.log(); !slices.Equal(got, []string{"good", "bad"}) {
			t.Errorf("fired %q", got)
		}
	})
}

func TestClockSteps(t *testing.T) {
	each(t, func(w *world) {
		e := w.engine(nil)
		w.run(e)
		w.clock.settled(lookEach)
		w.set(e, w.in(time.Hour, "hour"), w.in(2*time.Second, "soon"))
		w.clock.settled(2 * time.Second)
		w.clock.step(-time.Hour) // soon is an hour and two seconds away now
		w.clock.advance(2 * time.Second)
		w.clock.settled(lookEach)
		w.clock.advance(lookEach)
		w.clock.settled(lookEach)
		if got := w.log(); got != nil {
			t.Fatalf("after a step back %q fired early", got)
		}
		w.clock.step(time.Hour)
		w.clock.advance(lookEach)
		w.await(1)
		w.clock.settled(lookEach)
		w.clock.step(-time.Hour) // what has fired does not fire again
		w.clock.advance(lookEach)
		w.clock.settled(lookEach)
		w.clock.step(3 * time.Hour)
		w.clock.advance(lookEach)
		w.await(1)
		w.clock.settled(lookEach)
		if got := w.log(); !slices.Equal(got, []string{"soon", "hour"}) {
			t.Errorf("fired %q", got)
		}
	})
}

// A Fire that sets its timer again makes it recur, once for each time.
func TestFireMaySetTheTimerAgain(t *testing.T) {
	each(t, func(w *world) {
		e := w.engine(nil)
		e.Handle("recurring", func(tx *sqldb.Tx, t Timer) error {
			t.Due += 1000
			return errors.Join(w.note(tx, t), e.Set(tx, t))
		})
		first := w.in(time.Second, "a")
		first.Kind = "recurring"
		w.set(e, first)
		w.run(e)
		for range 5 {
			w.clock.settled(time.Second)
			w.clock.advance(time.Second)
			w.await(1)
		}
		w.clock.settled(time.Second)
		if got := w.log(); len(got) != 5 {
			t.Errorf("fired %d times, want 5", len(got))
		}
	})
}

func TestOrderOfALine(t *testing.T) {
	each(t, func(w *world) {
		e := w.counting(w.engine(nil))
		ts, want := w.lined(300)
		slices.Reverse(ts)
		w.set(e, ts...)
		w.run(e)
		w.await(300)
		w.inOrder(want)
	})
}

// lined makes overdue timers, every second one of them in a line, and says which
// ids each line has in which order.
func (w *world) lined(n int) (ts []Timer, want map[string][]string) {
	want = map[string][]string{}
	for i := range n {
		t := w.in(time.Duration(i-n)*time.Second, fmt.Sprintf("t%04d", 9999-i)) // ids in the other order
		t.Kind = "counted"
		if i%2 == 0 {
			t.Line = fmt.Sprintf("line%d", i%14)
			want[t.Line] = append(want[t.Line], t.ID)
		}
		ts = append(ts, t)
	}
	return ts, want
}

// counting makes e number what fires in each line, in the transaction.
func (w *world) counting(e *Engine) *Engine {
	w.write(func(tx *sqldb.Tx) error {
		_, err := tx.Exec("CREATE TABLE IF NOT EXISTS counters (line TEXT PRIMARY KEY, n BIGINT NOT NULL)")
		return err
	})
	e.Handle("counted", func(tx *sqldb.Tx, t Timer) error {
		tx.AfterCommit(func() { w.fired <- t })
		if t.Line == "" {
			_, err := tx.Exec("INSERT INTO fired (n, kind, id) VALUES (0, '', $1)", t.ID)
			return err
		}
		n, err := sqldb.Scalar[int64](tx, "INSERT INTO counters (line, n) VALUES ($1, 1) ON CONFLICT (line) DO UPDATE SET n = counters.n + 1 RETURNING n", t.Line)
		if err != nil {
			return err
		}
		_, err = tx.Exec("INSERT INTO fired (n, kind, id) VALUES ($1, $2, $3)", n, t.Line, t.ID)
		return err
	})
	return e
}

// inOrder compares what has fired with the order of each line.
func (w *world) inOrder(want map[string][]string) {
	w.Helper()
	for line, ids := range want {
		if got := w.column("SELECT id FROM fired WHERE kind = $1 ORDER BY n", line); !slices.Equal(got, ids) {
			w.Errorf("%s fired in the order %q, want %q", line, got, ids)
		}
	}
}

func TestUnknownKinds(t *testing.T) {
	each(t, func(w *world) {
		e, newer := w.engine(nil), w.engine(nil)
		newer.Handle("new", w.note)
		other := w.in(0, "b")
		other.Kind = "new"
		if err := w.db.Write(t.Context(), func(tx *sqldb.Tx) error { return e.Set(tx, other) }); err == nil || !strings.Contains(err.Error(), `"new"`) {
			t.Errorf("Set of a kind that nobody handles: %v", err)
		}
		w.set(newer, other, w.in(time.Second, "a"))
		stop := w.run(e)
		w.clock.settled(time.Second)
		w.clock.advance(time.Second)
		w.await(1)
		w.clock.settled(lookEach)
		stop()
		if n := w.count("SELECT failures FROM timers WHERE kind = 'new'"); n != 0 {
			t.Errorf("an engine that does not know the kind tried it %d times", n)
		}
		w.run(newer)
		w.await(1)
	})
}

func TestAnEngineThatHandlesNothing(t *testing.T) {
	each(t, func(w *world) {
		w.set(w.engine(nil), w.in(0, "a"))
		if next, err := New(Config{DB: w.db}).Due(t.Context()); next != never || err != nil {
			t.Errorf("Due answered %d, %v", next, err)
		}
	})
}

func TestTimersOfADeletedBot(t *testing.T) {
	each(t, func(w *world) {
		e := w.engine(nil)
		for i := range 5 {
			x := w.in(time.Hour, fmt.Sprint(i))
			x.BotID = "bot"
			w.set(e, x)
		}
		w.set(e, w.in(time.Hour, "other"))
		for _, want := range []int64{3, 2, 0} {
			w.write(func(tx *sqldb.Tx) error {
				n, err := e.CancelBot(tx, "bot", 3)
				if n != want {
					t.Errorf("removed %d timers, want %d", n, want)
				}
				return err
			})
		}
		w.write(func(tx *sqldb.Tx) error { return e.CancelAll(tx, "note", nil) })
		if n := w.count("SELECT count(*) FROM timers"); n != 1 {
			t.Errorf("%d timers are left, want the other's", n)
		}
		w.write(func(tx *sqldb.Tx) error { return e.CancelAll(tx, "note", []string{"x", "other"}) })
		if n := w.count("SELECT count(*) FROM timers"); n != 0 {
			t.Errorf("%d timers are left", n)
		}
	})
}

// A timer that another server sets is known at once over the bus, and at the
// next look without it.
func TestTimersOfAnotherServer(t *testing.T) {
	for name, shared := range map[string]bool{"bus": true, "no bus": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
				w := newWorld(t, a)
				one, two := bus.NewLocal(), bus.NewLocal()
				if shared {
					two = one
				}
				w.run(w.engine(one))
				w.clock.settled(lookEach)
				w.db = b
				w.set(w.engine(two), w.in(time.Second, "a"))
				if shared {
					w.clock.settled(time.Second)
					w.clock.advance(time.Second)
				} else {
					w.clock.advance(lookEach)
				}
				w.await(1)
			})
		})
	}
}

// Two servers on one database fire each timer once between them, and those of a
// line in order.
func TestTwoServersShareTheWork(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		const n = 3000
		w := newWorld(t, a)
		one, two := w.counting(w.engine(nil)), w.counting(w.engine(nil))
		two.DB = b
		ts, want := w.lined(n)
		w.set(one, ts...)
		w.run(one)
		w.run(two)
		w.await(n)
		w.inOrder(want)
		if got := w.count("SELECT count(*) FROM fired"); got != n {
			t.Errorf("fired %d times, want %d", got, n)
		}
		if n := w.count("SELECT count(*) FROM timers"); n != 0 {
			t.Errorf("%d timers are left", n)
		}
	})
}

// A write that could not begin, for the queue is full or the server stops, says
// nothing about the timer.
func TestWriteThatNeverBeganIsNoFailure(t *testing.T) {
	each(t, func(w *world) {
		e := w.engine(nil)
		w.set(e, w.in(0, "a"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := e.fire(ctx, w.in(0, "a")); err == nil {
			t.Error("a write that never began is reported as done")
		}
		if n := w.count("SELECT failures FROM timers"); n != 0 {
			t.Errorf("it counts as %d failures of the timer", n)
		}
	})
}
