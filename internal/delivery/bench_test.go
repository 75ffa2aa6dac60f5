package delivery

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"parley/internal/endpoint"
	"parley/internal/id"
	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func benchDB(b *testing.B) *sqldb.DB {
	b.Helper()
	db := sqldbtest.Open(b, sqldbtest.SQLiteURL(b))
	if err := db.Migrate(b.Context(), schema.FS, sqldb.MigrateOptions{}); err != nil {
		b.Fatal(err)
	}
	return db
}

// stopwatch measures how old entries are when they come by.
type stopwatch struct {
	mu     sync.Mutex
	begun  map[string]time.Time
	passed []time.Duration
}

func (s *stopwatch) begin(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun[id] = time.Now()
}

func (s *stopwatch) pass(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed = append(s.passed, time.Since(s.begun[id]))
}

func (s *stopwatch) report(b *testing.B, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.passed)
	b.ReportMetric(float64(s.passed[len(s.passed)/2].Microseconds()), "µs-p50-"+name)
}

// timed is a ledger that notes when outcomes are committed.
type timed struct {
	*ledger
	marked *stopwatch
}

func (s timed) Done(tx *sqldb.Tx, w *Work, o Outcome) error {
	tx.AfterCommit(func() { s.marked.pass(w.ID) })
	return s.ledger.Done(tx, w, o)
}

// BenchmarkTurn is an entry's way through a built-in endpoint: written durably,
// delivered, marked. Each lane has one producer, which waits for the delivery.
func BenchmarkTurn(b *testing.B) {
	for _, lanes := range []int{1, 64} {
		b.Run(strconv.Itoa(lanes)+" lanes", func(b *testing.B) {
			db := benchDB(b)
			delivered := make([]chan struct{}, lanes)
			for i := range delivered {
				delivered[i] = make(chan struct{}, 1)
			}
			reached, marked := &stopwatch{begun: map[string]time.Time{}}, &stopwatch{begun: map[string]time.Time{}}
			builtin := endpoint.NewBuiltin(func(_ context.Context, op endpoint.Operation) (endpoint.Answer, error) {
				reached.pass(op.Subject)
				lane, err := strconv.Atoi(op.Subject[len("evt_")+26:])
				delivered[lane] <- struct{}{}
				return endpoint.Answer{Status: 200}, err
			})
			w := engine(b, db, &clock{real: true}, handler(func(ctx context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
				return builtin.Invoke(ctx, op)
			}), exclusive)
			w.Source = timed{w.ledger, marked}
			w.run()
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for lane := range lanes {
				wg.Go(func() {
					for i := lane; i < b.N; i += lanes {
						event := id.New("evt") + strconv.Itoa(lane)
						reached.begin(event)
						marked.begin(event)
						if err := db.Write(b.Context(), func(tx *sqldb.Tx) error { return w.put(tx, conv(lane, "b"), event) }); err != nil {
							b.Error(err)
							return
						}
						<-delivered[lane]
					}
				})
			}
			wg.Wait()
			w.idle()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			reached.report(b, "delivered")
			marked.report(b, "marked")
		})
	}
}

// BenchmarkBacklog delivers what has piled up.
func BenchmarkBacklog(b *testing.B) {
	for _, lanes := range []int{1, 64} {
		b.Run(strconv.Itoa(lanes)+" lanes", func(b *testing.B) {
			w := engine(b, benchDB(b), &clock{real: true}, nil, exclusive)
			for lane := range lanes {
				for left := b.N / lanes; left > 0; left -= 400 {
					w.send(conv(lane, "b"), min(left, 400))
				}
			}
			b.ResetTimer()
			w.run()
			w.idle()
			b.ReportMetric(float64(b.N/lanes*lanes)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkEnqueue is what a producer pays inside its transaction.
func BenchmarkEnqueue(b *testing.B) {
	event := func(w *world, tx *sqldb.Tx, l Lane, id string) error {
		_, err := tx.Exec(`INSERT INTO events (id, bot_id, installation_id, type, payload, conversation_id, user_id, message_id, workflow_id, status, failure_reason, lane, lane_seq, attempts, created_at)
			VALUES ($1, '', '', '', '', '', '', '', '', 'pending', '', $2, $3, 0, $4)`, id, l.Key, 1, w.clock.Now().UnixMilli())
		return err
	}
	for name, run := range map[string]func(w *world, tx *sqldb.Tx, l Lane, id string) error{
		"event":      event,
		"event+lane": (*world).put,
	} {
		b.Run(name, func(b *testing.B) {
			w := engine(b, benchDB(b), nil, nil, exclusive)
			lanes := make([]Lane, 256)
			for i := range lanes {
				lanes[i] = conv(i, "b")
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += len(lanes) {
				if err := w.DB.Write(b.Context(), func(tx *sqldb.Tx) error {
					for i := range min(len(lanes), b.N-n) {
						if err := run(w, tx, lanes[i], id.New("evt")); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
