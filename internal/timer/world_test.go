package timer

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/bus"
	"parley/internal/sqldb"
)

// clock is a time that moves when a test says so.
type clock struct {
	mu       sync.Mutex
	moved    *sync.Cond
	now      time.Time
	sleepers []*sleeper
}

type sleeper struct {
	at time.Time
	c  chan time.Time
}

func newClock() *clock {
	c := &clock{now: time.UnixMilli(1_700_000_000_000)}
	c.moved = sync.NewCond(&c.mu)
	return c
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) ms() int64 { return c.Now().UnixMilli() }

func (c *clock) sleep(d time.Duration) (<-chan time.Time, func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &sleeper{c.now.Add(d), make(chan time.Time, 1)}
	c.sleepers = append(c.sleepers, s)
	c.moved.Broadcast()
	return s.c, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sleepers = slices.DeleteFunc(c.sleepers, func(o *sleeper) bool { return o == s })
		return true
	}
}

// advance lets time pass and wakes who has slept long enough.
func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.sleepers = slices.DeleteFunc(c.sleepers, func(s *sleeper) bool {
		if s.at.After(c.now) {
			return false
		}
		s.c <- c.now
		return true
	})
}

// step sets the clock without time passing, as an operator or NTP does: who
// sleeps goes on sleeping.
func (c *clock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for _, s := range c.sleepers {
		s.at = s.at.Add(d)
	}
}

// settled waits until somebody sleeps for exactly d from now.
func (c *clock) settled(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !slices.ContainsFunc(c.sleepers, func(s *sleeper) bool { return s.at.Equal(c.now.Add(d)) }) {
		c.moved.Wait()
	}
}

// world is a database with a table of what has fired, and engines on it.
type world struct {
	testing.TB
	db    *sqldb.DB
	clock *clock
	fired chan Timer // one for each commit
}

func newWorld(t testing.TB, db *sqldb.DB) *world {
	w := &world{TB: t, db: db, clock: newClock(), fired: make(chan Timer, 200_000)}
	w.write(func(tx *sqldb.Tx) error {
		_, err := tx.Exec("CREATE TABLE fired (n BIGINT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL)")
		return err
	})
	return w
}

// engine makes an engine that notes the timers of kind "note".
func (w *world) engine(b bus.Bus) *Engine {
	e := New(Config{DB: w.db, Bus: b, Now: w.clock.Now, Log: slog.New(slog.DiscardHandler)})
	e.sleep = w.clock.sleep
	e.Handle("note", w.note)
	return e
}

// note is a Fire: it leaves a row, with the time.
func (w *world) note(tx *sqldb.Tx, t Timer) error {
	tx.AfterCommit(func() { w.fired <- t })
	_, err := tx.Exec("INSERT INTO fired (n, kind, id) VALUES ($1, $2, $3)", w.clock.ms(), t.Kind, t.ID)
	return err
}

// run runs an engine until the test or stop ends it.
func (w *world) run(e *Engine) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var g sync.WaitGroup
	g.Go(func() {
		if err := e.Run(ctx); err != nil {
			w.Error(err)
		}
	})
	stop = func() {
		cancel()
		g.Wait()
	}
	w.Cleanup(stop)
	return stop
}

func (w *world) write(fn func(tx *sqldb.Tx) error) {
	w.Helper()
	if err := w.db.Write(context.Background(), fn); err != nil {
		w.Fatal(err)
	}
}

func (w *world) set(e *Engine, ts ...Timer) {
	w.Helper()
	w.write(func(tx *sqldb.Tx) error {
		for _, t := range ts {
			if err := e.Set(tx, t); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *world) cancel(e *Engine, id string) (was bool) {
	w.Helper()
	w.write(func(tx *sqldb.Tx) (err error) {
		was, err = e.Cancel(tx, "note", id)
		return err
	})
	return was
}

// in makes a timer of kind "note" that is due in d.
func (w *world) in(d time.Duration, id string) Timer {
	return Timer{Kind: "note", ID: id, Due: w.clock.Now().Add(d).UnixMilli()}
}

// await waits until n timers have fired and returns their ids in order.
func (w *world) await(n int) []string {
	w.Helper()
	var ids []string
	for range n {
		select {
		case t := <-w.fired:
			ids = append(ids, t.ID)
		case <-time.After(time.Minute):
			w.Fatalf("waited for %d timers to fire, got %q", n, ids)
		}
	}
	return ids
}

// log is the ids of what has fired in all, in the order of the time.
func (w *world) log() []string {
	w.Helper()
	return w.column("SELECT id FROM fired ORDER BY n, id")
}

func (w *world) column(query string, args ...any) []string {
	w.Helper()
	rows, err := w.db.Reader(context.Background()).Query(query, args...)
	if err != nil {
		w.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			w.Fatal(err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		w.Fatal(err)
	}
	return out
}

func (w *world) count(query string, args ...any) int {
	w.Helper()
	n, err := sqldb.Scalar[int](w.db.Reader(context.Background()), query, args...)
	if err != nil {
		w.Fatal(err)
	}
	return n
}

// measured are the numbers that an engine shows.
type measured struct {
	fired        uint64
	late, failed float64 // late: by how many seconds in all
}

func (w *world) measured(e *Engine) (m measured) {
	r := prometheus.NewRegistry()
	r.MustRegister(e.Collectors()...)
	families, err := r.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range families {
		m.fired += f.GetMetric()[0].GetHistogram().GetSampleCount()
		m.late += f.GetMetric()[0].GetHistogram().GetSampleSum()
		m.failed += f.GetMetric()[0].GetCounter().GetValue()
	}
	return m
}
