package messaging

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/endpoint"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
	"parley/internal/timer"
)

// recur declares the recurring events of bot A.
func (r *rig) recur(events map[string]Recurring) {
	r.Helper()
	r.write(func(tx *sqldb.Tx) error { return r.s.Recur(tx, botA, events) })
}

// atNoon is a calendar that shows a noon to come.
func (r *rig) atNoon() *calendar {
	c := r.calendar()
	noon := time.Now().UTC().Truncate(24 * time.Hour).Add(36 * time.Hour)
	c.ahead.Store(int64(noon.Sub(c.since) + time.Second)) // and a second
	return c
}

var everyHour = Recurring{"0 * * * *", "tick", api.Object(`{"n":1}`)}

func TestRecurringEvent(t *testing.T) {
	each(t, func(r *rig) {
		c := r.atNoon()
		r.recur(map[string]Recurring{"hourly": everyHour})
		c.forward(59*time.Minute + 50*time.Second)
		if n := r.count("SELECT count(*) FROM events"); n != 0 {
			r.Fatal("it happened early")
		}
		for i := range 3 {
			c.forward(map[bool]time.Duration{true: 10 * time.Second, false: time.Hour}[i == 0])
			e := r.await(1)[i]
			if e["type"] != "tick" || e["conversationId"] != nil || cmp.Diff(map[string]any{"n": 1.0}, e["payload"]) != "" {
				r.Errorf("the bot got %v", e)
			}
			c.fire()
			r.idle()
			if n := r.count("SELECT count(*) FROM events"); n != i+1 {
				r.Fatalf("after time %d there are %d events", i+1, n)
			}
		}
		if n := r.count("SELECT count(*) FROM lanes"); n != 0 {
			r.Errorf("%d lanes are left", n)
		}
		due := time.UnixMilli(int64(r.count("SELECT due FROM timers"))).UTC()
		if due.Minute() != 0 || due.Second() != 0 || due.Before(c.now()) {
			r.Errorf("the next time is %v", due)
		}
	})
}

// Of the times that were missed one event is made, and the next comes at the next time.
func TestMissedTimesOfARecurringEventMakeOne(t *testing.T) {
	each(t, func(r *rig) {
		c := r.atNoon()
		r.recur(map[string]Recurring{"hourly": everyHour, "minutely": {"* * * * *", "tock", api.Object(`{}`)}})
		c.ahead.Add(int64(50*time.Hour + 30*time.Minute)) // no server runs
		r.s.Timers = timer.New(timer.Config{DB: r.s.DB, Now: c.now})
		r.s.handleRecurringTimers()
		c.fire()
		c.fire()
		var types []string
		for _, e := range r.await(2) {
			types = append(types, e["type"].(string))
		}
		slices.Sort(types)
		if diff := cmp.Diff([]string{"tick", "tock"}, types); diff != "" {
			r.Error(diff)
		}
		if due := time.UnixMilli(int64(r.count("SELECT max(due) FROM timers"))); due.Sub(c.now()) > 30*time.Minute {
			r.Errorf("the next hour is %v, it is %v now", due, c.now())
		}
		c.forward(30 * time.Minute)
		r.await(2)
	})
}

func TestRecurringEventsChange(t *testing.T) {
	each(t, func(r *rig) {
		c := r.atNoon()
		due := func(name string) time.Duration {
			r.Helper()
			at := r.count("SELECT t.due FROM timers t JOIN recurring_events e ON e.id = t.id WHERE e.name = $1 AND t.kind = 'recurring'", name)
			return time.UnixMilli(int64(at)).Sub(c.now()).Round(time.Minute)
		}
		r.recur(map[string]Recurring{"a": everyHour, "b": everyHour})
		c.forward(30 * time.Minute)
		half := everyHour
		half.Cron = "*/45 * * * *"
		r.recur(map[string]Recurring{"a": half, "b": everyHour, "c": everyHour})
		if a, b := due("a"), due("b"); a != 15*time.Minute || b != 30*time.Minute {
			r.Errorf("after the change they are due in %v and %v", a, b)
		}
		r.recur(map[string]Recurring{"a": half})
		if n := r.count("SELECT count(*) FROM timers") + r.count("SELECT count(*) FROM recurring_events"); n != 2 {
			r.Errorf("%d timers and events are left, want one of each", n)
		}
		half.Payload, half.Type = api.Object(`{"n":2}`), "tack"
		r.recur(map[string]Recurring{"a": half})
		c.forward(15 * time.Minute)
		if e := r.await(1)[0]; e["type"] != "tack" || cmp.Diff(map[string]any{"n": 2.0}, e["payload"]) != "" {
			r.Errorf("the bot got %v", e)
		}
		r.recur(nil)
		c.forward(24 * time.Hour)
		r.idle()
		if n := r.count("SELECT count(*) FROM events"); n != 1 {
			r.Errorf("%d events, want 1", n)
		}
	})
}

// A change that fails leaves everything as it was: the timer goes with it.
func TestRecurringEventsChangeWithTheirBot(t *testing.T) {
	each(t, func(r *rig) {
		r.atNoon()
		r.recur(map[string]Recurring{"a": everyHour})
		before := r.count("SELECT due FROM timers")
		failed := errors.New("the change fails")
		err := r.s.DB.Write(r.Context(), func(tx *sqldb.Tx) error {
			return errors.Join(r.s.Recur(tx, botA, map[string]Recurring{"b": {"@yearly", "x", api.Object("{}")}}), failed)
		})
		if !errors.Is(err, failed) || r.count("SELECT due FROM timers") != before {
			r.Errorf("%v; due at %d, before at %d", err, r.count("SELECT due FROM timers"), before)
		}
		r.write(func(tx *sqldb.Tx) error { return r.s.BuryBot(tx, botA) })
		if n := r.count("SELECT count(*) FROM timers") + r.count("SELECT count(*) FROM recurring_events"); n != 0 {
			r.Errorf("%d rows are left of a deleted bot", n)
		}
	})
}

// What has come round does not come round again when the clock is set back.
func TestRecurringEventAndStepsOfTheClock(t *testing.T) {
	each(t, func(r *rig) {
		c := r.atNoon()
		r.recur(map[string]Recurring{"hourly": everyHour})
		c.forward(time.Hour)
		r.await(1)
		c.ahead.Add(int64(-45 * time.Minute))
		for range 4 {
			c.forward(15 * time.Minute)
		}
		r.idle()
		if n := r.count("SELECT count(*) FROM events"); n != 1 {
			r.Errorf("after a step back there are %d events, want 1", n)
		}
		// The step may come between the look at the timers and the transaction.
		r.write(func(tx *sqldb.Tx) error {
			t, err := sqldb.One[timer.Timer](tx, "timers", "")
			if err != nil {
				return err
			}
			return r.s.fireRecurring(tx, *t)
		})
		if due := time.UnixMilli(int64(r.count("SELECT due FROM timers"))); due.Sub(c.now()) < time.Hour {
			r.Errorf("it fired for %v and comes again at %v", c.now(), due)
		}
	})
}

func TestFailuresOfARecurringEvent(t *testing.T) {
	each(t, func(r *rig) {
		c := r.atNoon()
		r.recur(map[string]Recurring{"hourly": everyHour, "other": {"@yearly", "x", api.Object("{}")}})
		var fail error
		r.mu.Lock()
		r.handle = func(map[string]any) error { return fail }
		r.mu.Unlock()
		check := func(want ...RecurringFailure) {
			r.Helper()
			r.idle()
			got, err := r.s.RecurringFailures(r.s.DB.Reader(r.Context()), botA)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				r.Errorf("%v %s", err, diff)
			}
		}
		fail = &endpoint.Error{Class: endpoint.Final, Err: errors.New("no such handler")}
		for i := range 3 {
			c.forward(time.Hour)
			r.await(1)
			check(RecurringFailure{"hourly", int64(i + 1), "no such handler"})
		}
		fail = nil
		c.forward(time.Hour)
		r.await(1)
		check()
		fail = &endpoint.Error{Class: endpoint.Final, Err: errors.New("again")}
		c.forward(time.Hour)
		r.await(1)
		check(RecurringFailure{"hourly", 1, "again"})
		changed := everyHour
		changed.Payload = api.Object(`{"n":2}`)
		r.recur(map[string]Recurring{"hourly": changed}) // a new beginning
		check()
	})
}

// Two servers make one event for each time between them.
func TestRecurringEventsOnTwoServers(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		one, two := newRig(t, a), newRig(t, b)
		c := one.atNoon()
		d := two.shares(c.passed)
		events := map[string]Recurring{}
		for i := range 20 {
			events[fmt.Sprint(i)] = everyHour
		}
		one.recur(events)
		for hour := range 5 {
			c.ahead.Add(int64(time.Hour))
			var g sync.WaitGroup
			g.Go(d.fire)
			g.Go(c.fire)
			g.Wait()
			if n := one.count("SELECT count(*) FROM events"); n != 20*(hour+1) {
				t.Fatalf("after %d hours there are %d events", hour+1, n)
			}
		}
	})
}
