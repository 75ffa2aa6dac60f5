package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/bus"
	"parley/internal/endpoint"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestNewChecksItsConfig(t *testing.T) {
	t.Parallel()
	good := Config{DB: new(sqldb.DB), Bus: bus.NewLocal(), Source: &ledger{}, Invoker: handler(ok)}
	if _, err := New(good); err != nil {
		t.Errorf("New(%+v): %v", good, err)
	}
	for name, change := range map[string]func(*Config){
		"no database":  func(c *Config) { c.DB = nil },
		"no bus":       func(c *Config) { c.Bus = nil },
		"no source":    func(c *Config) { c.Source = nil },
		"no invoker":   func(c *Config) { c.Invoker = nil },
		"workers":      func(c *Config) { c.Workers = -1 },
		"per endpoint": func(c *Config) { c.PerEndpoint = -1 },
		"queue":        func(c *Config) { c.Queue = 3 },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: New returned no error", name)
		}
	}
}

// 300 lanes of an endpoint that never answers, and one of an endpoint that does.
func TestSlowEndpointSlowsNobodyElse(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		var stuck atomic.Int32
		delivered := make(chan string, 100)
		full := make(chan struct{}, 300)
		w := start(t, db, &clock{real: true}, limited{func(ctx context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error) {
			if endpointID == "bot:slow" {
				stuck.Add(1)
				full <- struct{}{}
				<-ctx.Done()
				return endpoint.Answer{}, ctx.Err()
			}
			delivered <- op.Subject
			return endpoint.Answer{Status: 200}, nil
		}, time.Hour}, bounds(32, 8, 64))
		for n := range 300 {
			w.send(conv(n, "slow"), 1)
		}
		for range 8 {
			await(t, full, "the slow endpoint to be busy")
		}
		for n := range 50 {
			ids := w.send(conv(n, "quick"), 1)
			if got := await(t, delivered, "the quick endpoint's event"); got != ids[0] {
				t.Errorf("%s was delivered, want %s", got, ids[0])
			}
		}
		if n := stuck.Load(); n != 8 {
			t.Errorf("%d calls of the slow endpoint, want the bound of 8", n)
		}
	})
}

// More lanes than the queue takes stay in the database and come when there is room.
func TestLanesBeyondTheQueueAreNotForgotten(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		h := newCalled()
		w := start(t, db, &clock{real: true}, h, bounds(2, 2, 8))
		const lanes = 60
		for n := range lanes {
			w.send(conv(n, strconv.Itoa(n%3)), 1)
		}
		if n := w.held(); n > 2+8 {
			t.Errorf("%d lanes are held, want no more than workers and queue take", n)
		}
		for range lanes {
			await(t, h.calls, "the next lane")
			h.answers <- endpoint.Answer{Status: 200}
		}
		w.idle()
		if n := w.count("SELECT count(*) FROM events WHERE status <> 'processed'"); n != 0 {
			t.Errorf("%d events are left", n)
		}
	})
}

func TestEverythingIsDeliveredAfterACrash(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		const lanes, each, crashes = 8, 30, 5
		c := newClock()
		var mu sync.Mutex
		type try struct{ event, attempt int }
		tries := map[int][]try{}
		var left atomic.Int32
		crash := make(chan struct{}, lanes*each)
		h := handler(func(ctx context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			var lane, event int
			if _, err := fmt.Sscanf(op.Subject, "evt_%d_%d", &lane, &event); err != nil {
				return endpoint.Answer{}, err
			}
			attempt, err := strconv.Atoi(op.Header.Get("Attempt"))
			if err != nil {
				return endpoint.Answer{}, err
			}
			mu.Lock()
			tries[lane] = append(tries[lane], try{event, attempt})
			mu.Unlock()
			if n := left.Add(-1); n <= 0 {
				crash <- struct{}{}
				if n%2 == 0 { // cut off in the middle
					<-ctx.Done()
					return endpoint.Answer{}, ctx.Err()
				}
			}
			if attempt == 1 && rand.IntN(10) == 0 {
				return endpoint.Answer{Status: 500}, nil
			}
			return endpoint.Answer{Status: 200}, nil
		})
		left.Store(30)
		w := start(t, db, c, h, exclusive)
		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			for n := range lanes {
				for i := range each {
					if err := w.put(tx, conv(n, "b"), fmt.Sprintf("evt_%d_%d", n, i)); err != nil {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for i := range crashes {
			for len(crash) == 0 { // lanes that wait for a retry come back
				w.pass(100 * time.Millisecond)
				w.stillRunning()
			}
			w.kill()
			for len(crash) > 0 {
				<-crash
			}
			if left.Store(30); i == crashes-1 {
				left.Store(lanes * each * maxTries) // the last one lives
			}
			w = start(t, db, c, h, exclusive)
		}
		w.finish()

		if n := w.count("SELECT count(*) FROM events WHERE status <> 'processed'"); n != 0 {
			t.Errorf("%d of %d events were not processed", n, lanes*each)
		}
		for lane, ts := range tries {
			next, attempts := 0, map[int]int{}
			for i, try := range ts {
				if try.event > next {
					t.Fatalf("lane %d: event %d came before event %d (try %d)", lane, try.event, next, i)
				}
				if try.attempt < attempts[try.event] || try.attempt > attempts[try.event]+1 {
					t.Errorf("lane %d event %d: attempt %d after %d", lane, try.event, try.attempt, attempts[try.event])
				}
				attempts[try.event] = try.attempt
				next = max(next, try.event+1)
			}
			if next != each {
				t.Errorf("lane %d: %d events were delivered, want %d", lane, next, each)
			}
		}
		if n := w.count("SELECT count(*) FROM events e WHERE attempts <> (SELECT count(*) FROM attempts a WHERE a.work_id = e.id)"); n != 0 {
			t.Errorf("%d events count other tries than were recorded", n)
		}
	})
}

func TestStopFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		c := newClock()
		h := newCalled()
		w := start(t, db, c, h, bounds(1, 1, 64))
		var ids []string
		for n := range 3 {
			ids = append(ids, w.send(conv(n, "b"), 2)...)
		}
		await(t, h.calls, "the first try")
		stopped := make(chan error, 1)
		go func() { stopped <- w.Stop(t.Context()) }()
		w.untilStopping()
		late := w.send(conv(9, "b"), 1)
		if len(stopped) != 0 {
			t.Fatal("Stop did not wait for the try in flight")
		}
		h.answers <- endpoint.Answer{Status: 200}
		if err := await(t, stopped, "Stop"); err != nil {
			t.Fatal(err)
		}
		if got, want := w.event(ids[0]), (event{"processed", "", 1}); got != want {
			t.Errorf("the event in flight is %+v, want %+v", got, want)
		}
		if n := w.count("SELECT count(*) FROM lanes WHERE owner <> '' OR lease_until <> 0 OR due > $1", c.Now().UnixMilli()); n != 0 {
			t.Errorf("%d lanes are not free for others", n)
		}
		if n := len(h.calls); n != 0 {
			t.Error("another try began after Stop")
		}
		j := &journal{clock: c}
		next := start(t, db, c, handler(func(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			j.add(op)
			return endpoint.Answer{Status: 200}, nil
		}))
		next.flow()
		got := events(j.take())
		slices.Sort(got)
		want := append(ids[1:], late...)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("the next process delivered %v, want %v", got, want)
		}
	})
}

// untilStopping waits until Stop has begun.
func (w *world) untilStopping() {
	for {
		w.Engine.mu.Lock()
		stopping := w.stopping
		w.Engine.mu.Unlock()
		if stopping {
			return
		}
		w.stillRunning()
	}
}

func TestStopCutsOffWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		h := newCalled()
		w := start(t, db, nil, h)
		ids := w.send(conv(1, "b"), 1)
		await(t, h.calls, "the try")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.Stop(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Stop: %v, want context.Canceled", err)
		}
		if got, want := w.event(ids[0]), (event{"pending", "", 0}); got != want {
			t.Errorf("event %+v, want %+v", got, want)
		}
		if n := w.count("SELECT count(*) FROM lanes WHERE owner <> ''"); n != 0 {
			t.Error("the lane was not released")
		}
	})
}

func TestOutcomeThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		c := newClock()
		refused := make(lines, 100)
		w := engine(t, db, c, nil, logTo(slog.NewTextHandler(refused, nil)))
		j := &journal{clock: c}
		w.Invoker = handler(func(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			j.add(op)
			return endpoint.Answer{Status: 200}, nil
		})
		bad := w.send(conv(1, "b"), 2)
		w.refuse(bad[0], true)
		w.run()
		await(t, refused, "the refusal")
		good := w.send(conv(2, "b"), 2)
		for w.event(good[1]).Status != "processed" {
			w.stillRunning()
		}
		w.refuse(bad[0], false)
		w.pass(writeWait)
		w.idle()
		if diff := cmp.Diff(slices.Concat(bad, good), events(j.take())); diff != "" {
			t.Errorf("calls, every event once (-want +got):\n%s", diff)
		}
		for _, id := range slices.Concat(bad, good) {
			if got, want := w.event(id), (event{"processed", "", 1}); got != want {
				t.Errorf("event %+v, want %+v", got, want)
			}
		}
	})
}

func TestSourceThatFailsIsAskedAgain(t *testing.T) {
	t.Parallel()
	for name, ill := range map[string]func() error{
		"error": func() error { return errors.New("the disk is slow") },
		"panic": func() error { panic("a bug") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
				w := engine(t, db, nil, nil)
				var well atomic.Bool
				w.ill = func() error {
					if well.Load() {
						return nil
					}
					return ill()
				}
				ids := w.send(conv(1, "b"), 2)
				w.run()
				w.idle()
				if got, want := w.event(ids[0]), (event{"pending", "", 0}); got != want {
					t.Errorf("event %+v, want %+v", got, want)
				}
				well.Store(true)
				w.pass(sourceWait)
				w.idle()
				for _, id := range ids {
					if got, want := w.event(id), (event{"processed", "", 1}); got != want {
						t.Errorf("event %+v, want %+v", got, want)
					}
				}
			})
		})
	}
}

func TestEngineThatNeverRanStops(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := engine(t, db, nil, nil)
		ids := w.send(conv(1, "b"), 1)
		if err := w.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		next := start(t, db, nil, nil, exclusive)
		next.flow()
		if got := next.event(ids[0]); got.Status != "processed" {
			t.Errorf("event %+v, want it delivered by the next process", got)
		}
	})
}

// A process goes on at once with what an earlier one at its home was at, and
// leaves to other nodes what is theirs.
func TestHomeIsTakenOver(t *testing.T) {
	t.Parallel()
	at := func(home string) option { return func(o *Config) { o.Home = home } }
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		c := newClock()
		mine := engine(t, db, c, nil, at("home_1")).send(conv(1, "b"), 2)
		theirs := engine(t, db, c, nil, at("home_11")).send(conv(2, "b"), 2)
		nobodys := engine(t, db, c, nil).send(conv(3, "b"), 2)
		w := start(t, db, c, nil, at("home_1"))
		w.idle()
		for want, ids := range map[string][]string{"processed": mine, "pending": append(theirs, nobodys...)} {
			for _, id := range ids {
				if got := w.event(id).Status; got != want {
					t.Errorf("%s is %s, want %s", id, got, want)
				}
			}
		}
		w.pass(term + time.Second)
		w.flow()
		if n := w.count("SELECT count(*) FROM events WHERE status <> 'processed'"); n != 0 {
			t.Errorf("%d events are left after the leases of dead nodes", n)
		}
	})
}

// lines is a log whose lines can be waited for.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := prometheus.NewPedanticRegistry()
		w := start(t, db, nil, handler(func(_ context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error) {
			if endpointID == "bot:down" {
				return endpoint.Answer{}, errRefused
			}
			return endpoint.Answer{Status: 200}, nil
		}), func(c *Config) { c.Metrics = r })
		w.send(conv(1, "b"), 3)
		w.send(conv(2, "down"), 1)
		w.idle()
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := strings.TrimPrefix(f.GetName(), "parley_delivery_")
				for _, l := range m.GetLabel() {
					name += "." + l.GetValue()
				}
				got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		for name, want := range map[string]float64{
			"attempts_total.ok": 3, "attempts_total.unreachable": 1, "attempts_in_flight": 0, "lag_seconds": 4,
			"lanes_held": 0, "lanes_waiting": 0, "breakers_open": 1,
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s = %v, want %v", name, v, want)
			}
		}
	})
}

func TestFifoAgainstASlice(t *testing.T) {
	t.Parallel()
	var q fifo[int]
	var want []int
	for i := range 10000 {
		switch r := rand.IntN(10); {
		case r < 4:
			q.push(i)
			want = append(want, i)
		case r < 5:
			q.pushFront(i)
			want = slices.Insert(want, 0, i)
		case len(want) > 0:
			if got := q.pop(); got != want[0] {
				t.Fatalf("pop %d, want %d", got, want[0])
			}
			want = want[1:]
		}
		if q.len() != len(want) {
			t.Fatalf("%d queued, want %d", q.len(), len(want))
		}
	}
}
