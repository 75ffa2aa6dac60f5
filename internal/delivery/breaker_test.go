package delivery

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/bus"
	"parley/internal/endpoint"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// switched is an endpoint that can be down.
type switched struct {
	journal
	down atomic.Bool
}

func (s *switched) Invoke(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
	s.add(op)
	if s.down.Load() {
		return endpoint.Answer{}, errRefused
	}
	return endpoint.Answer{Status: 200}, nil
}

func (*switched) Limit(context.Context, string) time.Duration { return time.Minute }

func newSwitched(c *clock, down bool) *switched {
	s := &switched{journal: journal{clock: c}}
	s.down.Store(down)
	return s
}

// lanesOf groups the calls by lane, in their order.
func (w *world) lanesOf(calls []call) map[string][]string {
	out := map[string][]string{}
	for _, c := range calls {
		lane, err := sqldb.Scalar[string](w.DB.Reader(w.t.Context()), "SELECT lane FROM events WHERE id = $1", c.event)
		if err != nil {
			w.t.Fatal(err)
		}
		out[lane] = append(out[lane], c.event)
	}
	return out
}

func TestBreakerSendsOneProbeAndRecoversInOrder(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]option{"one node": exclusive, "cluster": func(*Config) {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
				const lanes, each = 20, 3
				c := newClock()
				s := newSwitched(c, true)
				w := start(t, db, c, s, opt)
				want := map[string][]string{}
				for n := range lanes {
					l := conv(n, "b")
					want[l.Key] = w.send(l, each)
				}
				w.flow()
				if n := len(s.take()); n == 0 || n > 2*lanes {
					t.Errorf("%d calls before the breaker was open, want few", n)
				}
				if n := w.count("SELECT count(*) FROM lanes WHERE owner = ''"); n != lanes {
					t.Fatalf("%d lanes parked, want %d", n, lanes)
				}
				for try, d := 1, firstProbe; try <= 12; try++ {
					w.pass(d * 7 / 10)
					w.flow()
					if n := len(s.take()); n != 0 {
						t.Fatalf("%d calls within %v after try %d", n, d*7/10, try)
					}
					w.pass(d * 6 / 10)
					w.flow()
					if n := len(s.take()); n != 1 {
						t.Fatalf("%d calls after about %v, want one", n, d)
					}
					d = min(2*d, longestProbe)
				}
				if n := w.count("SELECT failures FROM breakers WHERE endpoint = 'bot:b'"); n != 13 {
					t.Errorf("%d failures counted, want 13", n)
				}
				s.down.Store(false)
				w.pass(2 * longestProbe)
				w.flow()
				if diff := cmp.Diff(want, w.lanesOf(s.take())); diff != "" {
					t.Errorf("after the recovery (-want +got):\n%s", diff)
				}
				if n := w.count("SELECT count(*) FROM events WHERE status <> 'processed'") + w.count("SELECT count(*) FROM breakers"); n != 0 {
					t.Errorf("%d events or breakers are left", n)
				}
			})
		})
	}
}

func TestProbeKeepsOthersFromProbing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		c := newClock()
		calls, answers := make(chan string, 10), make(chan error)
		h := handler(func(ctx context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			calls <- op.Subject
			select {
			case err := <-answers:
				return endpoint.Answer{Status: 200}, err
			case <-ctx.Done():
				return endpoint.Answer{}, ctx.Err()
			}
		})
		a, b := start(t, db, c, h), start(t, db, c, h)
		a.send(conv(1, "b"), 1)
		await(t, calls, "the first try")
		answers <- errRefused
		a.idle()
		for n := range 5 {
			a.send(conv(n+2, "b"), 1)
		}
		a.flow()
		a.pass(2 * firstProbe)
		b.sweep(t.Context())
		await(t, calls, "the probe")
		for range 6 { // a minute, in which the probe has no answer
			c.advance(renewEvery)
			for _, w := range []*world{a, b} {
				if err := w.renew(t.Context(), w.expiring()); err != nil {
					t.Error(err)
				}
			}
			a.sweep(t.Context())
			b.sweep(t.Context())
			if n := len(calls); n != 0 {
				t.Fatal("a second lane tried while the probe was waiting")
			}
		}
		close(answers)
		a.flow()
		b.flow()
		a.flow()
		if n := a.count("SELECT count(*) FROM events WHERE status <> 'processed'"); n != 0 {
			t.Errorf("%d events are left", n)
		}
	})
}

func TestUnreachableForThreeDaysIsADeadLetter(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		c := newClock()
		s := newSwitched(c, true)
		w := start(t, db, c, s)
		old := w.send(conv(1, "b"), 2)
		other := w.send(conv(2, "b"), 1)
		w.flow()
		w.pass(50 * time.Hour)
		w.flow()
		young := w.send(conv(1, "b"), 1)
		w.pass(22*time.Hour - time.Millisecond)
		w.flow()
		for _, id := range slices.Concat(old, other, young) {
			if got := w.event(id); got.Status != "pending" {
				t.Errorf("%s is %+v before its time", id, got)
			}
		}
		w.pass(time.Millisecond)
		w.flow()
		for _, id := range slices.Concat(old, other) {
			if got := w.event(id); got.Status != "failed" || got.Reason == "" {
				t.Errorf("%s is %+v after 72 hours, want failed with the reason", id, got)
			}
		}
		if got := w.event(young[0]); got.Status != "pending" {
			t.Errorf("the younger event is %+v, want pending", got)
		}
		s.down.Store(false)
		s.take()
		w.pass(2 * longestProbe)
		w.flow()
		if diff := cmp.Diff(young, events(s.take())); diff != "" {
			t.Errorf("calls after the recovery (-want +got):\n%s", diff)
		}
	})
}

func TestOpenBreakerSurvivesARestart(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		c := newClock()
		s := newSwitched(c, true)
		w := start(t, db, c, s, exclusive)
		for n := range 5 {
			w.send(conv(n, "b"), 2)
		}
		w.flow()
		for range 4 {
			w.pass(20 * time.Second)
			w.flow()
		}
		w.kill()
		s.take()

		w = start(t, db, c, s, exclusive)
		w.flow()
		w.send(conv(9, "b"), 1)
		w.flow()
		if n := len(s.take()); n != 0 {
			t.Fatalf("%d calls after the restart while the breaker is open", n)
		}
		w.pass(20 * time.Second)
		w.flow()
		if n := len(s.take()); n != 1 {
			t.Fatalf("%d probes, want one", n)
		}
		if n := w.count("SELECT failures FROM breakers"); n != 6 {
			t.Errorf("%d failures, want the count to go on to 6", n)
		}
		s.down.Store(false)
		w.pass(time.Minute)
		w.flow()
		if n := w.count("SELECT count(*) FROM events WHERE status <> 'processed'"); n != 0 {
			t.Errorf("%d events are left", n)
		}
	})
}

// A process that has never called an endpoint may be the one that tries it for
// all of them. Its failure counts with those before, and the next try is not
// later than their number says.
func TestBreakerOfAnotherProcess(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		c := newClock()
		s := newSwitched(c, true)
		w := start(t, db, c, s)
		w.send(conv(1, "b"), 2)
		w.flow()
		for failures, wait := 1, firstProbe; failures <= 5; failures, wait = failures+1, 2*wait {
			if n := w.count("SELECT failures FROM breakers"); n != failures {
				t.Fatalf("%d failures, want %d", n, failures)
			}
			w.kill()
			s.take()
			w = start(t, db, c, s)
			w.pass(wait * 13 / 10)
			w.flow()
			if n := len(s.take()); n != 1 {
				t.Fatalf("%d tries about %v after failure %d, want one", n, wait, failures)
			}
		}
		s.down.Store(false)
		w.pass(time.Minute)
		w.flow()
		if n := w.count("SELECT count(*) FROM events WHERE status <> 'processed'"); n != 0 {
			t.Errorf("%d events are left", n)
		}
	})
}

func TestResetTriesAgainAtOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		c := newClock()
		s := newSwitched(c, true)
		w := start(t, db, c, s)
		for n := range 5 {
			w.send(conv(n, "b"), 2)
		}
		w.flow()
		s.down.Store(false)
		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error { return w.Reset(tx, "bot:b") }); err != nil {
			t.Fatal(err)
		}
		w.flow()
		if n := w.count("SELECT count(*) FROM events WHERE status <> 'processed'"); n != 0 {
			t.Errorf("%d events are left", n)
		}
	})
}

// What has failed and waits for hours is tried too: the address may have been the fault.
func TestResetEndsTheWaitForAnotherTry(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w, j := hook(t, db, func(call int, _ string, _ endpoint.Operation) (endpoint.Answer, error) {
			return endpoint.Answer{Status: []int{500, 200}[min(call, 2)-1]}, nil
		}, func(c *Config) { c.WebhookPauses = []time.Duration{10 * time.Hour} })
		ids := w.send(conv(1, "b"), 1)
		w.flow()
		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error { return w.Reset(tx, "bot:b") }); err != nil {
			t.Fatal(err)
		}
		w.flow()
		if got, want := w.event(ids[0]), (event{"processed", "", 2}); got != want || len(j.take()) != 2 {
			t.Errorf("event %+v, want %+v", got, want)
		}
		if n := w.count("SELECT count(*) FROM breakers"); n != 0 {
			t.Errorf("%d breakers are left", n)
		}
	})
}

// A try that is under way when the address changes says nothing about the new one.
func TestResetOutdatesWhatIsBeingTried(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]endpoint.Answer{
		"asked to wait": {Status: 503, Header: http.Header{"Retry-After": {"86400"}}},
		"failed":        {Status: 500},
		"unreachable":   {Status: 502},
	} {
		for where, other := range map[string]bool{"here": false, "on another node": true} {
			t.Run(name+" "+where, func(t *testing.T) {
				t.Parallel()
				sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
					h, c, b := newCalled(), newClock(), bus.NewLocal()
					w := engine(t, db, c, h, over(b), func(c *Config) { c.WebhookPauses = []time.Duration{10 * time.Hour} })
					w.webhook = true
					w.run()
					by := w
					if other {
						by = engine(t, db, c, h, over(b))
					}
					id := w.send(conv(1, "b"), 1)[0]
					await(t, h.calls, "the first try")
					if err := db.Write(t.Context(), func(tx *sqldb.Tx) error { return by.Reset(tx, "bot:b") }); err != nil {
						t.Fatal(err)
					}
					for other && !w.outdated("bot:b") {
						w.stillRunning()
					}
					h.answers <- answer
					for len(h.calls) == 0 { // it comes back by itself
						w.pass(time.Millisecond)
						w.stillRunning()
					}
					await(t, h.calls, "the next try")
					h.answers <- endpoint.Answer{Status: 200}
					w.flow()
					if got, want := w.event(id), (event{"processed", "", 2}); got != want {
						t.Errorf("event %+v, want %+v", got, want)
					}
					if n := w.count("SELECT count(*) FROM breakers"); n != 0 {
						t.Errorf("%d breakers are left", n)
					}
				})
			})
		}
	}
}

func (w *world) outdated(endpointID string) bool {
	w.Engine.mu.Lock()
	defer w.Engine.mu.Unlock()
	return w.targets[endpointID].resets > 0
}

// A probe that finds nothing to send must not end the probing.
func TestProbeOfAnEmptyLaneGoesToAnother(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		c := newClock()
		s := newSwitched(c, true)
		w := start(t, db, c, s)
		gone := w.send(conv(1, "b"), 1)
		w.flow()
		c.advance(time.Millisecond)
		left := w.send(conv(2, "b"), 1)
		w.flow()
		w.exec("DELETE FROM events WHERE id = $1", gone[0])
		s.take()
		s.down.Store(false)
		w.pass(2 * time.Second)
		w.flow()
		if diff := cmp.Diff(left, events(s.take())); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

// An endpoint that comes and goes while two nodes produce and deliver: whatever
// is parked and woken at the same time, nothing is left behind.
func TestNothingIsLeftBehindByABreaker(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		c := newClock()
		s := newSwitched(c, false)
		nodes := []*world{start(t, a, c, s), start(t, b, c, s)}
		var wg sync.WaitGroup
		for n := range 16 {
			wg.Go(func() {
				w := nodes[n%2]
				for i := range 40 {
					if err := w.DB.Write(t.Context(), func(tx *sqldb.Tx) error {
						return w.put(tx, conv((n+i)%8, "b"), "evt_"+strconv.Itoa(n)+"_"+strconv.Itoa(i))
					}); err != nil {
						t.Error(err)
						return
					}
					if i%10 == 0 {
						s.down.Store(!s.down.Load())
						c.advance(firstProbe)
					}
				}
			})
		}
		wg.Wait()
		s.down.Store(false)
		for range 3 { // no more than the longest wait of a breaker that failed some times
			for _, w := range nodes {
				w.pass(time.Minute)
				w.flow()
			}
		}
		if n := nodes[0].count("SELECT count(*) FROM events WHERE status <> 'processed'"); n != 0 {
			t.Errorf("%d events are left", n)
		}
		done := map[string]bool{}
		for _, call := range s.take() {
			done[call.event] = true
		}
		if len(done) != 16*40 {
			t.Errorf("%d events were delivered, want %d", len(done), 16*40)
		}
	})
}

func TestBackoffDoublesUpToFiveMinutes(t *testing.T) {
	t.Parallel()
	for failures, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 9: 256 * time.Second, 10: longestProbe, 1000: longestProbe} {
		for range 100 {
			if got := backoff(failures); got < want*8/10 || got > want*12/10 {
				t.Fatalf("backoff(%d) = %v, want about %v", failures, got, want)
			}
		}
	}
}
