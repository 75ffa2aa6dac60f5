package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"parley/internal/endpoint"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestEventIsDelivered(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := start(t, db, nil, handler(ok))
		ids := w.send(conv(1, "b"), 1)
		w.idle()
		if got, want := w.event(ids[0]), (event{"processed", "", 1}); got != want {
			t.Errorf("event %+v, want %+v", got, want)
		}
		if n := w.count("SELECT count(*) FROM attempts WHERE work_id = $1 AND number = 1 AND outcome = 'ok' AND status = 200", ids[0]); n != 1 {
			t.Errorf("%d attempts, want 1", n)
		}
		if n := w.count("SELECT count(*) FROM lanes WHERE owner = '' AND lease_until = 0 AND due = 9223372036854775807 AND seq = 1"); n != 1 {
			t.Error("the lane is not idle")
		}
	})
}

func TestOrderPerLaneWithRandomFailures(t *testing.T) {
	t.Parallel()
	const lanes, events = 32, 200
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		var mu sync.Mutex
		inFlight, last := map[string]bool{}, map[string]int{}
		laneOf := map[string]string{}
		failed := map[string]int{}
		h := handler(func(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			seq, err := strconv.Atoi(op.Type)
			if err != nil {
				return endpoint.Answer{}, err
			}
			mu.Lock()
			lane := laneOf[op.Subject]
			if inFlight[lane] {
				t.Errorf("lane %s has two attempts in flight", lane)
			}
			if seq != last[lane]+1 {
				t.Errorf("lane %s: event %d after %d", lane, seq, last[lane])
			}
			inFlight[lane] = true
			mu.Unlock()
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				inFlight[lane] = false
			}()
			mu.Lock()
			defer mu.Unlock()
			switch r := rand.IntN(100); {
			case r < 4:
				if failed[op.Subject]++; failed[op.Subject] == maxTries {
					last[lane] = seq
				}
				return endpoint.Answer{Status: 500}, nil
			case r < 8:
				last[lane] = seq
				return endpoint.Answer{Status: 400}, nil
			case r < 9:
				return endpoint.Answer{}, errRefused
			}
			last[lane] = seq
			return endpoint.Answer{Status: 200}, nil
		})
		w := start(t, db, nil, h)
		var wg sync.WaitGroup
		for n := range lanes {
			wg.Go(func() {
				l := conv(n, strconv.Itoa(n%4))
				for i := 0; i < events; {
					batch := 1 + rand.IntN(4)
					var ids []string
					for range min(batch, events-i) {
						ids = append(ids, fmt.Sprintf("evt_%d_%d", n, i))
						i++
					}
					mu.Lock()
					for _, id := range ids {
						laneOf[id] = l.Key
					}
					mu.Unlock()
					if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
						for _, id := range ids {
							if err := w.put(tx, l, id); err != nil {
								return err
							}
						}
						return nil
					}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		w.finish()
		if n := w.count("SELECT count(*) FROM events WHERE status = 'processed'"); n < lanes*events*9/10 {
			t.Errorf("%d events processed of %d", n, lanes*events)
		}
	})
}
