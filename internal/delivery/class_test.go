package delivery

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/endpoint"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// An endpoint that has nobody to tell says so; that is no failure.
func TestWhatAnEndpointIgnoresIsOver(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := engine(t, db, nil, nil)
		w.Invoker = handler(func(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			if op.Type == "1" {
				return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Ignored, Err: errors.New("nobody is there")}
			}
			return endpoint.Answer{Status: 200}, nil
		})
		w.run()
		ids := w.send(conv(1, "b"), 2)
		w.idle()
		if got, want := w.event(ids[0]), (event{"ignored", "nobody is there", 1}); got != want {
			t.Errorf("first event %+v, want %+v", got, want)
		}
		if got, want := w.event(ids[1]), (event{"processed", "", 1}); got != want {
			t.Errorf("second event %+v, want %+v", got, want)
		}
		if n := w.count("SELECT count(*) FROM attempts WHERE work_id = $1 AND outcome = 'ignored'", ids[0]); n != 1 {
			t.Errorf("%d tries recorded, want 1", n)
		}
	})
}

func TestFinalFailureMovesOn(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := engine(t, db, nil, nil)
		j := &journal{clock: w.clock}
		w.Invoker = handler(func(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			j.add(op)
			if op.Type == "1" {
				return endpoint.Answer{Status: 400, Body: []byte(`{"message":"no such thing"}`)}, nil
			}
			return endpoint.Answer{Status: 200}, nil
		})
		w.run()
		ids := w.send(conv(1, "b"), 2)
		w.idle()
		if diff := cmp.Diff(ids, events(j.take())); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		if got, want := w.event(ids[0]), (event{"failed", "no such thing", 1}); got != want {
			t.Errorf("first event %+v, want %+v", got, want)
		}
		if got, want := w.event(ids[1]), (event{"processed", "", 1}); got != want {
			t.Errorf("second event %+v, want %+v", got, want)
		}
	})
}

func TestFailedTriesAreRepeatedThreeTimes(t *testing.T) {
	t.Parallel()
	fails := map[string]func() (endpoint.Answer, error){
		"status 500": func() (endpoint.Answer, error) { return endpoint.Answer{Status: 500}, nil },
		"panic":      func() (endpoint.Answer, error) { panic("a bug") },
	}
	for name, fail := range fails {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
				w := engine(t, db, nil, nil)
				j := &journal{clock: w.clock}
				w.Invoker = handler(func(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
					j.add(op)
					if op.Type == "1" {
						return fail()
					}
					return endpoint.Answer{Status: 200}, nil
				})
				w.run()
				ids := w.send(conv(1, "b"), 2)
				for range maxTries - 1 {
					w.idle()
					due := w.count("SELECT due FROM lanes")
					w.pass(time.Duration(int64(due)-w.now()-1) * time.Millisecond)
					w.idle()
					if w.count("SELECT attempts FROM events WHERE lane_seq = 2") != 0 {
						t.Fatal("the second event overtook the first")
					}
					w.pass(time.Millisecond)
				}
				w.idle()
				calls := j.take()
				if diff := cmp.Diff([]string{ids[0], ids[0], ids[0], ids[0], ids[1]}, events(calls)); diff != "" {
					t.Fatalf("calls (-want +got):\n%s", diff)
				}
				for i, d := range retryAfter {
					got := calls[i+1].at.Sub(calls[i].at)
					if got < d*8/10 || got > d*12/10 {
						t.Errorf("try %d came after %v, want about %v", i+2, got, d)
					}
				}
				if took := calls[3].at.Sub(calls[0].at); took > time.Minute {
					t.Errorf("the tries took %v, want at most a minute", took)
				}
				if got := w.event(ids[0]); got.Status != "failed" || got.Attempts != 4 || got.Reason == "" {
					t.Errorf("dead letter %+v", got)
				}
				if n := w.count("SELECT count(*) FROM attempts WHERE work_id = $1 AND outcome = 'failed'", ids[0]); n != 4 {
					t.Errorf("%d tries recorded, want 4", n)
				}
			})
		})
	}
}

func TestTimeoutsAreNotRepeatedUnlessAskedFor(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]bool{"default": false, "opted in": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
				w := engine(t, db, nil, nil)
				w.retryTimeouts = again
				var calls atomic.Int32
				w.Invoker = limited{func(ctx context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
					if op.Type != "1" {
						return endpoint.Answer{Status: 200}, nil
					}
					calls.Add(1)
					<-ctx.Done()
					return endpoint.Answer{}, ctx.Err()
				}, 20 * time.Millisecond}
				w.run()
				ids := w.send(conv(1, "b"), 2)
				w.finish()
				want := 1
				if again {
					want = maxTries
				}
				if got := int(calls.Load()); got != want {
					t.Errorf("%d calls, want %d", got, want)
				}
				if got := w.event(ids[0]); got.Status != "failed" || got.Attempts != want || got.Reason == "" {
					t.Errorf("event %+v, want failed after %d tries", got, want)
				}
				if got := w.event(ids[1]); got.Status != "processed" {
					t.Errorf("the next event is %+v, want processed", got)
				}
			})
		})
	}
}

func TestSkippedWorkIsNotSent(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := engine(t, db, nil, nil)
		j := &journal{clock: w.clock}
		w.Invoker = handler(func(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			j.add(op)
			return endpoint.Answer{Status: 200}, nil
		})
		ids := w.send(conv(1, "b"), 3)
		w.skip[ids[1]] = &Outcome{Status: Ignored, Reason: "the message was deleted"}
		w.run()
		w.idle()
		if diff := cmp.Diff([]string{ids[0], ids[2]}, events(j.take())); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		if got, want := w.event(ids[1]), (event{"ignored", "the message was deleted", 0}); got != want {
			t.Errorf("skipped event %+v, want %+v", got, want)
		}
	})
}

func TestEveryTryIsOneLineWithoutBodies(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		var log bytes.Buffer
		w := start(t, db, nil, handler(func(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			if op.Type == "1" {
				return endpoint.Answer{Status: 200, Body: []byte("secret")}, nil
			}
			return endpoint.Answer{Status: 422, Body: []byte(`{"message":"secret"}`)}, nil
		}), logTo(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		ids := w.send(conv(1, "b"), 2)
		w.idle()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2 {
			t.Fatalf("%d lines, want 2:\n%s", len(lines), log.String())
		}
		for i, want := range []string{"level=DEBUG msg=attempt work=" + ids[0] + " endpoint=bot:b attempt=1 class=ok status=200 took=",
			"level=WARN msg=attempt work=" + ids[1] + " endpoint=bot:b attempt=1 class=final status=422 took="} {
			if !strings.Contains(lines[i], want) {
				t.Errorf("line %q, want %q in it", lines[i], want)
			}
		}
		if strings.Contains(log.String(), "secret") {
			t.Errorf("the log holds a body:\n%s", log.String())
		}
	})
}
