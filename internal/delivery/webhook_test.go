package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/endpoint"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// hook is an engine whose work is webhooks, and the calls that it makes. answer
// gets the number of the call, from 1.
func hook(t *testing.T, db *sqldb.DB, answer func(call int, endpointID string, op endpoint.Operation) (endpoint.Answer, error), opts ...option) (*world, *journal) {
	t.Helper()
	w := engine(t, db, nil, nil, opts...)
	w.webhook = true
	j := &journal{clock: w.clock}
	var calls atomic.Int32
	w.Invoker = handler(func(_ context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error) {
		j.add(op)
		return answer(int(calls.Add(1)), endpointID, op)
	})
	return w.run(), j
}

// wait moves the clock to the next time at which a lane is due or an endpoint
// may be tried, and reports how far that was.
func (w *world) wait() time.Duration {
	w.t.Helper()
	w.idle()
	due := w.count("SELECT coalesce(min(at), 0) FROM (SELECT due AS at FROM lanes WHERE due < 9223372036854775807 UNION ALL SELECT open_until FROM breakers WHERE failures > 0) AS times")
	if due == 0 {
		return 0
	}
	d := time.Duration(int64(due)-w.now()) * time.Millisecond
	w.pass(d)
	w.flow()
	return d
}

// A webhook that fails again and again gets three days, and what is behind it waits.
func TestAWebhookIsTriedForThreeDays(t *testing.T) {
	t.Parallel()
	fails := map[string]func() (endpoint.Answer, error){
		"500": func() (endpoint.Answer, error) { return endpoint.Answer{Status: 500}, nil },
		"302": func() (endpoint.Answer, error) {
			return endpoint.Answer{Status: 302, Header: http.Header{"Location": {"/elsewhere"}}}, nil
		},
		"408":     func() (endpoint.Answer, error) { return endpoint.Answer{Status: 408}, nil },
		"425":     func() (endpoint.Answer, error) { return endpoint.Answer{Status: 425}, nil },
		"429":     func() (endpoint.Answer, error) { return endpoint.Answer{Status: 429}, nil },
		"timeout": func() (endpoint.Answer, error) { return endpoint.Answer{}, context.DeadlineExceeded },
		"reset":   func() (endpoint.Answer, error) { return endpoint.Answer{}, errors.New("connection reset") },
		"panic":   func() (endpoint.Answer, error) { panic("a bug") },
	}
	for name, fail := range fails {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
				w, j := hook(t, db, func(_ int, _ string, op endpoint.Operation) (endpoint.Answer, error) {
					if op.Type == "1" {
						return fail()
					}
					return endpoint.Answer{Status: 200}, nil
				})
				begun := w.clock.Now()
				ids := w.send(conv(1, "b"), 2)
				for w.event(ids[0]).Status == "pending" {
					if w.event(ids[1]).Attempts > 0 {
						t.Fatal("the second one overtook the first")
					}
					w.wait()
				}
				calls := j.take()
				n := len(calls) - 1
				if diff := cmp.Diff(ids[1:], events(calls[n:])); diff != "" {
					t.Errorf("the last call (-want +got):\n%s", diff)
				}
				for i := 1; i < n; i++ {
					got, want := calls[i].at.Sub(calls[i-1].at), webhookPauses[min(i, len(webhookPauses))-1]
					if i == n-1 && got < want {
						continue // cut short by the end of the three days
					}
					if got < want*8/10 || got > want*12/10 {
						t.Errorf("try %d came after %v, want about %v", i+1, got, want)
					}
				}
				if took := calls[n-1].at.Sub(begun); took != patience {
					t.Errorf("the last try came after %v, want %v", took, patience)
				}
				if n < 13 || n > 17 {
					t.Errorf("%d tries in three days", n)
				}
				if got := w.event(ids[0]); got.Status != "failed" || got.Attempts != n || got.Reason == "" {
					t.Errorf("dead letter %+v after %d tries", got, n)
				}
				if got, want := w.event(ids[1]), (event{"processed", "", 1}); got != want {
					t.Errorf("the next one is %+v, want %+v", got, want)
				}
			})
		})
	}
}

// Tries that do not reach the endpoint leave the pauses as they are. When it is
// back all that waits for it is tried once, whatever it waits for.
func TestAWebhookThatIsBackGoesOnWithItsPauses(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w, j := hook(t, db, func(call int, _ string, _ endpoint.Operation) (endpoint.Answer, error) {
			switch {
			case call == 1 || call == 22 || call == 23:
				return endpoint.Answer{Status: 500}, nil
			case call <= 21:
				return endpoint.Answer{}, errRefused
			}
			return endpoint.Answer{Status: 204}, nil
		})
		ids := w.send(conv(1, "b"), 1)
		for w.event(ids[0]).Status == "pending" {
			w.wait()
		}
		calls := j.take()
		if len(calls) != 24 {
			t.Fatalf("%d calls, want 24", len(calls))
		}
		if got := calls[23].at.Sub(calls[22].at); got < 96*time.Second || got > 144*time.Second {
			t.Errorf("the pause after the third failure was %v, want about 2 min", got)
		}
		if got, want := w.event(ids[0]), (event{"processed", "", 24}); got != want {
			t.Errorf("event %+v, want %+v", got, want)
		}
	})
}

// An endpoint that cannot be reached for three days costs what waits for it its life.
func TestAWebhookThatIsNeverReachedIsADeadLetter(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w, j := hook(t, db, func(int, string, endpoint.Operation) (endpoint.Answer, error) {
			return endpoint.Answer{Status: 503}, nil
		})
		ids := w.send(conv(1, "b"), 2)
		w.flow()
		w.pass(patience - time.Millisecond)
		w.flow()
		if got := w.event(ids[0]); got.Status != "pending" {
			t.Fatalf("just before the end: %+v", got)
		}
		w.pass(2 * longestProbe)
		w.flow()
		for _, id := range ids {
			if got := w.event(id); got.Status != "failed" || got.Reason == "" {
				t.Errorf("event %+v, want it dead", got)
			}
		}
		if n := len(j.take()); n > 5 {
			t.Errorf("%d calls of an endpoint that was tried now and then", n)
		}
	})
}

// An endpoint that wants to be left alone is, in all its lanes, and others are not.
func TestRetryAfterIsRespected(t *testing.T) {
	t.Parallel()
	date := func(w *world, d time.Duration) string {
		return w.clock.Now().Add(d).UTC().Truncate(time.Second).Format(http.TimeFormat)
	}
	for name, c := range map[string]struct {
		status int
		header func(w *world) string
		want   time.Duration
	}{
		"429 with seconds": {429, func(*world) string { return "120" }, 2 * time.Minute},
		"503 with seconds": {503, func(*world) string { return "3600" }, time.Hour},
		"429 with a date":  {429, func(w *world) string { return date(w, 10*time.Minute) }, 10 * time.Minute},
		"more than a day":  {503, func(*world) string { return "1000000" }, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
				var w *world
				var busy atomic.Bool
				busy.Store(true)
				ready := make(chan struct{})
				w, j := hook(t, db, func(_ int, endpointID string, _ endpoint.Operation) (endpoint.Answer, error) {
					<-ready
					if endpointID == "bot:busy" && busy.Load() {
						return endpoint.Answer{Status: c.status, Header: http.Header{"Retry-After": {c.header(w)}}}, nil
					}
					return endpoint.Answer{Status: 200}, nil
				})
				close(ready)
				first := w.send(conv(1, "busy"), 2)
				w.flow()
				others := w.send(conv(2, "busy"), 1)
				free := w.send(conv(3, "free"), 1)
				w.flow()
				if diff := cmp.Diff([]string{first[0], free[0]}, events(j.take())); diff != "" {
					t.Fatalf("calls (-want +got):\n%s", diff)
				}
				w.pass(c.want - 2*time.Second)
				w.flow()
				if calls := j.take(); len(calls) > 0 {
					t.Fatalf("%d calls before the time had come", len(calls))
				}
				w.pass(2 * time.Second)
				w.flow()
				if n := len(j.take()); n != 1 {
					t.Errorf("%d calls when the time had come, want one", n)
				}
				busy.Store(false)
				w.pass(c.want)
				w.flow()
				for _, id := range append(first, others...) {
					if got := w.event(id); got.Status != "processed" {
						t.Errorf("event %+v, want it delivered", got)
					}
				}
				if diff := cmp.Diff(map[string][]string{conv(1, "busy").Key: first, conv(2, "busy").Key: others}, w.lanesOf(j.take())); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestOther4xxOfAWebhookAreFinal(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		statuses := []int{400, 401, 403, 404, 405, 409, 413, 422, 451}
		w, j := hook(t, db, func(call int, _ string, _ endpoint.Operation) (endpoint.Answer, error) {
			return endpoint.Answer{Status: append(statuses, 200)[call-1]}, nil
		})
		ids := w.send(conv(1, "b"), len(statuses)+1)
		w.flow()
		if diff := cmp.Diff(ids, events(j.take())); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		for i, status := range statuses {
			if got := w.event(ids[i]); got.Status != "failed" || got.Attempts != 1 || got.Reason != fmt.Sprintf("HTTP %d %s", status, http.StatusText(status)) {
				t.Errorf("%d: %+v", status, got)
			}
		}
		if got := w.event(ids[len(statuses)]); got.Status != "processed" {
			t.Errorf("the last one is %+v", got)
		}
	})
}

// 410 is final, the Source hears of it, and nothing is sent any more.
func TestAWebhookThatIsGone(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w, j := hook(t, db, func(int, string, endpoint.Operation) (endpoint.Answer, error) {
			return endpoint.Answer{Status: 410}, nil
		})
		ids := w.send(conv(1, "b"), 3)
		w.flow()
		if diff := cmp.Diff(ids[:1], events(j.take())); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		if got, want := w.event(ids[0]), (event{"failed", "HTTP 410 Gone", 1}); got != want {
			t.Errorf("event %+v, want %+v", got, want)
		}
		for _, id := range ids[1:] {
			if got, want := w.event(id), (event{"ignored", "gone: HTTP 410 Gone", 0}); got != want {
				t.Errorf("event %+v, want %+v", got, want)
			}
		}
		if n := w.count("SELECT count(*) FROM attempts WHERE outcome = 'gone' AND status = 410"); n != 1 {
			t.Errorf("%d tries found it gone, want 1", n)
		}
	})
}

// A bot that says 410, 429 or Retry-After is a bot that refuses an event.
func TestBotsKeepTheirClasses(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w, j := hook(t, db, func(call int, _ string, _ endpoint.Operation) (endpoint.Answer, error) {
			return endpoint.Answer{Status: []int{410, 429, 408}[call-1], Header: http.Header{"Retry-After": {"5"}}}, nil
		})
		w.webhook = false
		ids := w.send(conv(1, "b"), 3)
		w.flow()
		if diff := cmp.Diff(ids, events(j.take())); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		for _, id := range ids {
			if got := w.event(id); got.Status != "failed" || got.Attempts != 1 {
				t.Errorf("event %+v, want it failed at once", got)
			}
		}
	})
}

// Whatever goes wrong, a lane keeps its order and loses nothing.
func TestWebhooksKeepTheirOrder(t *testing.T) {
	t.Parallel()
	const lanes, each = 16, 30
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		var mu sync.Mutex
		last := map[string]int{}
		of := map[string]string{}
		w, _ := hook(t, db, func(_ int, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			seq, err := strconv.Atoi(op.Type)
			if err != nil {
				return endpoint.Answer{}, err
			}
			switch rand.IntN(20) {
			case 0, 1, 2, 3, 4:
				return endpoint.Answer{Status: 500}, nil
			case 5, 6:
				return endpoint.Answer{}, context.DeadlineExceeded
			case 7:
				return endpoint.Answer{}, errors.New("connection reset")
			case 8:
				return endpoint.Answer{Status: 429, Header: http.Header{"Retry-After": {"2"}}}, nil
			case 9:
				return endpoint.Answer{}, errRefused
			}
			mu.Lock()
			defer mu.Unlock()
			lane := of[op.Subject]
			if seq != last[lane]+1 {
				t.Errorf("lane %s: %d was taken after %d", lane, seq, last[lane])
			}
			last[lane] = seq
			return endpoint.Answer{Status: 200}, nil
		}, func(c *Config) { c.WebhookPauses = []time.Duration{time.Second} })
		for n := range lanes {
			l := conv(n, strconv.Itoa(n%3))
			mu.Lock()
			for _, id := range w.send(l, each) {
				of[id] = l.Key
			}
			mu.Unlock()
		}
		for w.count("SELECT count(*) FROM events WHERE status = 'pending'") > 0 {
			w.wait()
		}
		if n := w.count("SELECT count(*) FROM events WHERE status <> 'processed'"); n != 0 {
			t.Errorf("%d were not delivered", n)
		}
		for lane, n := range last {
			if n != each {
				t.Errorf("lane %s: %d were delivered, want %d", lane, n, each)
			}
		}
	})
}

// However many endpoints hang, one that does not is delivered at once.
func TestManySlowEndpointsSlowNobodyElse(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		const slow, lanes = 20, 12
		var stuck atomic.Int32
		delivered := make(chan string, 100)
		w := engine(t, db, &clock{real: true}, limited{func(ctx context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error) {
			if endpointID != "bot:quick" {
				stuck.Add(1)
				<-ctx.Done()
				return endpoint.Answer{}, ctx.Err()
			}
			delivered <- op.Subject
			return endpoint.Answer{Status: 200}, nil
		}, time.Hour}, bounds(64, 8, 100))
		w.webhook = true
		w.run()
		for n := range slow * lanes {
			w.send(conv(n, "slow"+strconv.Itoa(n%slow)), 1)
		}
		for stuck.Load() < slow {
			w.stillRunning()
		}
		for n := range 30 {
			ids := w.send(conv(n, "quick"), 1)
			if got := await(t, delivered, "the quick endpoint's event"); got != ids[0] {
				t.Errorf("%s was delivered, want %s", got, ids[0])
			}
		}
		if n := stuck.Load(); n >= 64 {
			t.Errorf("the slow endpoints hold %d workers, all there are", n)
		}
	})
}
