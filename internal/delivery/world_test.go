package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"parley/internal/bus"
	"parley/internal/endpoint"
	"parley/internal/id"
	"parley/internal/sqldb"
)

// ledger is a Source over the table of events, as a module writes one.
type ledger struct {
	mu            sync.Mutex
	db            *sqldb.DB
	refused       map[string]bool // events whose outcome cannot be written
	ill           func() error    // what reading fails with
	retryTimeouts bool
	webhook       bool
	gone          string // why an endpoint that is gone is told nothing
	skip          map[string]*Outcome
}

func (s *ledger) Next(ctx context.Context, lane string, after int64) (*Work, error) {
	if s.ill != nil {
		if err := s.ill(); err != nil {
			return nil, err
		}
	}
	rows, err := s.db.Reader(ctx).Query(`SELECT id, lane_seq, attempts, tries_before, created_at, type FROM events
		WHERE lane = $1 AND lane_seq > $2 AND status = 'pending' ORDER BY lane_seq LIMIT 1`, lane, after)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	if !rows.Next() {
		return nil, rows.Err()
	}
	w := &Work{RetryTimeouts: s.retryTimeouts, Webhook: s.webhook}
	var recorded int
	if err := rows.Scan(&w.ID, &w.Seq, &recorded, &w.Before, &w.CreatedAt, &w.Operation.Type); err != nil {
		return nil, err
	}
	w.Attempt = recorded + 1
	w.Operation.Name, w.Operation.Subject = "event_received", w.ID
	w.Operation.Header = http.Header{"Attempt": {strconv.Itoa(w.Attempt)}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.Skip = s.skip[w.ID]; s.gone != "" {
		w.Skip = &Outcome{Status: Ignored, Reason: s.gone}
	}
	return w, rows.Close()
}

func (s *ledger) Done(tx *sqldb.Tx, w *Work, o Outcome) error {
	s.mu.Lock()
	refused := s.refused[w.ID]
	s.mu.Unlock()
	if o.Gone {
		tx.AfterCommit(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.gone = "gone: " + o.Reason
		})
	}
	if refused {
		return fmt.Errorf("event %s is refused", w.ID)
	}
	_, err := tx.Exec("UPDATE events SET status = $1, failure_reason = $2, attempts = $3 WHERE bot_id = '' AND id = $4 AND status = 'pending'",
		string(o.Status), o.Reason, o.Attempts, w.ID)
	return err
}

func (s *ledger) refuse(event string, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[event] = refused
}

// handler answers for all endpoints of a test.
type handler func(ctx context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error)

func (h handler) Invoke(ctx context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error) {
	return h(ctx, endpointID, op)
}

func (handler) Limit(context.Context, string) time.Duration { return 30 * time.Second }

// limited is a handler whose calls may take a given time.
type limited struct {
	handler
	limit time.Duration
}

func (l limited) Limit(context.Context, string) time.Duration { return l.limit }

func ok(context.Context, string, endpoint.Operation) (endpoint.Answer, error) {
	return endpoint.Answer{Status: 200}, nil
}

var errRefused = &endpoint.Error{Class: endpoint.Unreachable, Err: errors.New("connection refused")}

// clock is a time that moves when a test says so.
type clock struct {
	real   bool // it moves by itself
	mu     sync.Mutex
	moved  *sync.Cond
	now    time.Time
	timers []*timer
}

type timer struct {
	at time.Time
	c  chan time.Time
}

func newClock() *clock {
	c := &clock{now: time.UnixMilli(1_700_000_000_000)}
	c.moved = sync.NewCond(&c.mu)
	return c
}

func (c *clock) Now() time.Time {
	if c.real {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) timer(d time.Duration) (<-chan time.Time, func() bool) {
	if c.real {
		return realTimer(d)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{c.now.Add(d), make(chan time.Time, 1)}
	c.timers = append(c.timers, t)
	c.moved.Broadcast()
	return t.c, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.timers = slices.DeleteFunc(c.timers, func(o *timer) bool { return o == t })
		return true
	}
}

// advance moves the time and fires what is due.
func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.timers = slices.DeleteFunc(c.timers, func(t *timer) bool {
		if t.at.After(c.now) {
			return false
		}
		t.c <- c.now
		return true
	})
}

// step sets the clock without time passing, as an operator or NTP does: what
// sleeps goes on sleeping.
func (c *clock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for _, t := range c.timers {
		t.at = t.at.Add(d)
	}
}

// settled waits until somebody sleeps until exactly that time.
func (c *clock) settled(t testing.TB, at time.Time) {
	t.Helper()
	stop := context.AfterFunc(t.Context(), c.moved.Broadcast)
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !slices.ContainsFunc(c.timers, func(t *timer) bool { return t.at.Equal(at) }) {
		if t.Context().Err() != nil {
			t.Fatalf("nobody sleeps until %v", at)
		}
		c.moved.Wait()
	}
}

// world is an engine on a database with a clock of its own.
type world struct {
	*Engine
	*ledger
	t     testing.TB
	clock *clock
	kill  func() // ends the engine as the end of a process does
}

// option changes the configuration of an engine.
type option func(*Config)

func exclusive(o *Config)         { o.Exclusive = true }
func over(b bus.Bus) option       { return func(o *Config) { o.Bus = b } }
func logTo(h slog.Handler) option { return func(o *Config) { o.Log = slog.New(h) } }

func bounds(workers, perEndpoint, queue int) option {
	return func(o *Config) { o.Workers, o.PerEndpoint, o.Queue = workers, perEndpoint, queue }
}

// engine makes an engine that does not run yet.
func engine(t testing.TB, db *sqldb.DB, c *clock, i Invoker, opts ...option) *world {
	t.Helper()
	if i == nil {
		i = handler(ok)
	}
	if c == nil {
		c = newClock()
	}
	s := &ledger{db: db, refused: map[string]bool{}, skip: map[string]*Outcome{}}
	cfg := Config{DB: db, Bus: bus.NewLocal(), Source: s, Invoker: i, Now: c.Now, Log: slog.New(slog.DiscardHandler)}
	for _, o := range opts {
		o(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	e.timer = c.timer
	return &world{Engine: e, ledger: s, t: t, clock: c}
}

// run starts the engine; it ends with the test.
func (w *world) run() *world {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Engine.Run(ctx) }()
	w.kill = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.t.Cleanup(w.kill)
	await(w.t, w.up, "the engine")
	return w
}

func start(t testing.TB, db *sqldb.DB, c *clock, i Invoker, opts ...option) *world {
	t.Helper()
	return engine(t, db, c, i, opts...).run()
}

func conv(n int, bot string) Lane {
	return Lane{Key: "bot:" + bot + ":conv:" + strconv.Itoa(n), Endpoint: "bot:" + bot}
}

// put enqueues an event in tx.
func (w *world) put(tx *sqldb.Tx, l Lane, eventID string) error {
	seq, err := w.Enqueue(tx, l)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO events (id, bot_id, installation_id, type, payload, conversation_id, user_id, message_id, workflow_id, status, failure_reason, lane, lane_seq, attempts, created_at)
		VALUES ($1, '', '', $2, '', '', '', '', '', 'pending', '', $3, $4, 0, $5)`, eventID, strconv.FormatInt(seq, 10), l.Key, seq, w.clock.Now().UnixMilli())
	return err
}

// send enqueues events in one transaction and returns their ids.
func (w *world) send(l Lane, n int) []string {
	w.t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = id.New("evt")
	}
	if err := w.DB.Write(w.t.Context(), func(tx *sqldb.Tx) error {
		for _, id := range ids {
			if err := w.put(tx, l, id); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return ids
}

// idle waits until the engine holds nothing, in memory and in the database:
// a claim that has committed may not have been handed over yet.
func (w *world) idle() {
	w.t.Helper()
	for {
		if err := w.Idle(w.t.Context()); err != nil {
			w.t.Fatalf("not idle: %v", err)
		}
		if w.count("SELECT count(*) FROM lanes WHERE substr(owner, 1, $1) = $2", len(w.node), w.node) == 0 {
			return
		}
		w.stillRunning()
	}
}

// stillRunning fails a test that looks again and again for too long.
func (w *world) stillRunning() {
	w.t.Helper()
	if w.t.Context().Err() != nil {
		w.t.Fatal("the test ended while it waited")
	}
	runtime.Gosched()
}

// event is what a test looks at of a row in events.
type event struct {
	Status, Reason string
	Attempts       int
}

func (w *world) event(id string) event {
	w.t.Helper()
	rows, err := w.DB.Reader(w.t.Context()).Query("SELECT status, failure_reason, attempts FROM events WHERE bot_id = '' AND id = $1", id)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	if !rows.Next() {
		w.t.Fatalf("event %s does not exist", id)
	}
	var e event
	if err := rows.Scan(&e.Status, &e.Reason, &e.Attempts); err != nil {
		w.t.Fatal(err)
	}
	return e
}

// held is how many lanes the engine holds.
func (w *world) held() int {
	w.Engine.mu.Lock()
	defer w.Engine.mu.Unlock()
	return len(w.lanes)
}

func (w *world) count(query string, args ...any) int {
	w.t.Helper()
	n, err := sqldb.Scalar[int](w.DB.Reader(w.t.Context()), query, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) exec(query string, args ...any) {
	w.t.Helper()
	if err := w.DB.Write(w.t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
}

// pass moves the clock and sweeps, so that what fell due has a worker when it returns.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	w.clock.advance(d)
	w.sweep(w.t.Context())
}

// flow lets everything happen that happens without the time moving on.
func (w *world) flow() {
	w.t.Helper()
	for {
		w.idle()
		w.sweep(w.t.Context())
		if !w.due() && w.held() == 0 {
			return
		}
		w.stillRunning()
	}
}

// due reports whether a lane is held or to be claimed, or a breaker to be tended.
func (w *world) due() bool {
	now := w.now()
	return w.count("SELECT count(*) FROM lanes WHERE due <= $1", now)+w.count("SELECT count(*) FROM breakers WHERE open_until <= $1", now) > 0
}

// finish moves the clock from one due time to the next until nothing is pending.
func (w *world) finish() {
	w.t.Helper()
	for {
		w.idle()
		if w.count("SELECT count(*) FROM events WHERE status = 'pending'") == 0 {
			return
		}
		w.pass(sweepEvery)
	}
}

// journal notes the calls of endpoints in their order.
type journal struct {
	mu    sync.Mutex
	calls []call
	clock *clock
}

type call struct {
	event string
	at    time.Time
}

func (j *journal) add(op endpoint.Operation) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.calls = append(j.calls, call{op.Subject, j.clock.Now()})
}

// take returns the calls since the last take.
func (j *journal) take() []call {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.calls
	j.calls = nil
	return c
}

func events(calls []call) []string {
	ids := make([]string, len(calls))
	for i, c := range calls {
		ids[i] = c.event
	}
	return ids
}

func await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-t.Context().Done():
		t.Fatalf("waiting for %s", what)
	case <-time.After(time.Minute):
		t.Fatalf("waiting for %s took too long", what)
	}
	panic("unreachable")
}
