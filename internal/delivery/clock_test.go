package delivery

import (
	"context"
	"testing"
	"time"

	"parley/internal/endpoint"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// A clock that is set back or forward delays nothing that waits for no time,
// loses nothing, and keeps the order.
func TestClockSteps(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"back": -time.Hour, "forward": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
				j := &journal{clock: newClock()}
				s := newSwitched(j.clock, false)
				w := start(t, db, j.clock, s)
				l := conv(1, "b")
				ids := w.send(l, 2)
				w.flow()
				j.clock.step(by)
				ids = append(ids, w.send(l, 2)...)
				w.flow()
				for i, id := range ids {
					if e := w.event(id); e.Status != "processed" {
						t.Errorf("event %d is %+v", i+1, e)
					}
				}
				if got := events(s.take()); len(got) != len(ids) || got[0] != ids[0] || got[3] != ids[3] {
					t.Errorf("delivered %q, want %q", got, ids)
				}
			})
		})
	}
}

// The sweeper sleeps for a length of time, not until a time: an hour taken from
// the clock does not keep it asleep for an hour.
func TestSweeperOutlivesAStepBack(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		c := newClock()
		w := start(t, db, c, handler(ok))
		w.flow()
		c.settled(t, c.Now().Add(sweepEvery))
		c.step(-time.Hour)
		// A lane nobody was told of, as after a lost hint.
		w.exec("INSERT INTO lanes (key, endpoint, seq, done, ephemeral, due, lease_until, owner) VALUES ('bot:b:conv:9', 'bot:b', 1, 0, FALSE, $1, 0, '')", c.Now().UnixMilli())
		c.advance(sweepEvery)
		for w.count("SELECT count(*) FROM lanes WHERE key = 'bot:b:conv:9' AND due = 9223372036854775807") == 0 {
			w.stillRunning()
		}
	})
}

// A retry that waits for its time waits longer by the step, and is made.
func TestRetryAfterAStepBack(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		c := newClock()
		tries := make(chan int, 9)
		w := start(t, db, c, handler(func(context.Context, string, endpoint.Operation) (endpoint.Answer, error) {
			tries <- 1
			if len(tries) == 1 {
				return endpoint.Answer{Status: 500}, nil
			}
			return endpoint.Answer{Status: 200}, nil
		}))
		ids := w.send(conv(1, "b"), 1)
		w.flow()
		c.step(-time.Minute)
		w.pass(time.Minute + 3*time.Second)
		w.flow()
		if e := w.event(ids[0]); e != (event{"processed", "", 2}) {
			t.Errorf("event %+v after the retry", e)
		}
	})
}
