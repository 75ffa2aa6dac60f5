package delivery

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/bus"
	"parley/internal/id"
	"parley/internal/sqldb"
)

const (
	term       = 30 * time.Second // of a lease
	renewEvery = 10 * time.Second
	renewBelow = 22 * time.Second // what is left of a lease held for more than 8 s
	sweepEvery = 5 * time.Second  // the net under lost hints
	sweepBatch = 100              // lanes in one claim, renewal or wake-up
	sourceWait = 5 * time.Second  // before a lane whose Source failed is looked at again
	writeWait  = time.Second      // before outcomes that could not be written are tried again
	maxUnsaved = 64               // outcomes of one lane that may wait for their commit
	keepIdle   = 16               // workers that stay when there is nothing to do
)

// Config are the parts and bounds of an Engine.
type Config struct {
	DB      *sqldb.DB
	Bus     bus.Bus
	Source  Source
	Invoker Invoker
	// Exclusive says that this process alone uses the database, as the lock
	// on the data directory guarantees for SQLite. Leases left by an earlier
	// process then end at the start instead of running out.
	Exclusive bool
	// Elsewhere says that other processes deliver: this engine enqueues for them
	// and tells them of it. It is not run.
	Elsewhere bool
	// Home is a place where one process at a time runs, such as a data directory
	// with a lock; '' = none. Leases that earlier processes there have left end at
	// the start, also where other nodes use the database.
	Home string
	// Workers bounds the lanes worked on at a time; 0 = 1024.
	Workers int
	// PerEndpoint bounds those of one endpoint; 0 = 64. It also gets no more of
	// the workers than half of those that are free.
	PerEndpoint int
	// Queue bounds the claimed lanes that wait for a worker; 0 = 4096. One
	// endpoint gets half of what is free. Lanes beyond stay in the database until
	// there is room.
	Queue int
	// WebhookPauses are the waits after each failed try at a webhook, the last one
	// after each further one too; nil = what the package comment says.
	WebhookPauses []time.Duration
	Metrics       prometheus.Registerer // may be nil
	Log           *slog.Logger
	Now           func() time.Time
}

// Engine carries the work of a Source to endpoints, lane by lane.
type Engine struct {
	Config
	node    string // prefix of the claims of this engine
	claims  atomic.Int64
	timer   func(time.Duration) (<-chan time.Time, func() bool)
	metrics *metrics
	kick    chan struct{} // the sweeper looks again
	pen     chan struct{} // something is in toWrite
	up      chan struct{} // closed when Run has begun to deliver
	quit    chan struct{} // closed when Stop has drained
	ended   chan struct{} // closed when Run has returned
	wg      sync.WaitGroup

	work    context.Context // of reads and attempts
	abandon context.CancelFunc

	mu       sync.Mutex
	wake     *sync.Cond // a lane is ready, or the engine ends
	lanes    map[string]*lane
	targets  map[string]*target
	ready    fifo[*target] // targets with a waiting lane and a free slot
	waiting  int           // lanes in the queues of targets
	workers  int
	busy     int // of them, those that have a lane in hand
	parked   int // workers waiting on wake
	starved  bool
	toWrite  []*lane  // for writeLoop
	again    []*lane  // outcomes that could not be written, for the next sweep
	doubted  []claim  // that nobody works on, and that may stand in the database
	changed  []string // endpoints whose breaker other nodes should look at
	soonest  int64    // when the sweeper has to look at the latest
	started  bool
	heir     bool // the leases of earlier processes have ended
	stopping bool
	dead     bool
	emptied  chan struct{} // closed when lanes becomes empty; nil while nobody waits
}

// New checks c and returns an engine that accepts entries; Run delivers them.
func New(c Config) (*Engine, error) {
	if c.DB == nil || c.Bus == nil || c.Source == nil || c.Invoker == nil {
		return nil, errors.New("delivery: DB, Bus, Source and Invoker are needed")
	}
	if c.Workers == 0 {
		c.Workers = 1024
	}
	if c.PerEndpoint == 0 {
		c.PerEndpoint = 64
	}
	if c.Queue == 0 {
		c.Queue = 4096
	}
	if c.WebhookPauses == nil {
		c.WebhookPauses = webhookPauses
	}
	if c.Workers < 1 || c.PerEndpoint < 1 || c.Queue < 4 {
		return nil, errors.New("delivery: Workers and PerEndpoint must be at least 1, Queue at least 4")
	}
	if len(c.WebhookPauses) == 0 {
		return nil, errors.New("delivery: WebhookPauses are empty")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	e := &Engine{
		Config: c, node: id.New("node"), timer: realTimer,
		kick: make(chan struct{}, 1), pen: make(chan struct{}, 1), up: make(chan struct{}), quit: make(chan struct{}), ended: make(chan struct{}),
		lanes: map[string]*lane{}, targets: map[string]*target{}, soonest: never,
		stopping: c.Elsewhere, // one that takes no lane any more
	}
	if c.Home != "" {
		e.node = c.Home + "/" + e.node
	}
	e.wake = sync.NewCond(&e.mu)
	e.work, e.abandon = context.WithCancel(context.Background())
	var err error
	e.metrics, err = newMetrics(c.Metrics, e)
	return e, err
}

func realTimer(d time.Duration) (<-chan time.Time, func() bool) {
	t := time.NewTimer(d)
	return t.C, t.Stop
}

func (e *Engine) now() int64 { return e.Now().UnixMilli() }

// claimID makes an owner that no other claim ever had, so that whoever holds
// it knows that nobody took the lane in between.
func (e *Engine) claimID() string { return e.node + "." + strconv.FormatInt(e.claims.Add(1), 36) }

// ours reports whether an owner is a claim of this engine.
func (e *Engine) ours(owner string) bool {
	return len(owner) > len(e.node) && owner[:len(e.node)] == e.node
}

// Run delivers until Stop has drained the engine or ctx ends. The end of ctx is
// abrupt: attempts are cut off, nothing more is written, and what was held is
// delivered again when its leases end. An engine runs once.
func (e *Engine) Run(ctx context.Context) error {
	defer close(e.ended)
	unsubscribe := e.Bus.Subscribe(topic, e.hear)
	defer unsubscribe()
	loops, stop := context.WithCancel(ctx)
	defer stop()
	e.mu.Lock()
	e.started = true
	for range min(e.ready.len(), e.Workers) {
		e.wakeWorker()
	}
	e.mu.Unlock()
	e.sweep(ctx)
	close(e.up)
	for _, loop := range []func(context.Context){e.sweepLoop, e.renewLoop, e.writeLoop} {
		e.wg.Go(func() { loop(loops) })
	}
	select {
	case <-e.quit:
	case <-ctx.Done():
	}
	e.mu.Lock()
	e.dead = true
	e.wake.Broadcast()
	e.mu.Unlock()
	e.abandon()
	stop()
	e.wg.Wait()
	return nil
}

// Stop ends the engine without loss of work done: no lane is claimed any more,
// attempts under way are finished and their outcomes written, held lanes are
// released. When ctx ends first, attempts are cut off and their work stays
// pending. Run returns after Stop.
func (e *Engine) Stop(ctx context.Context) error {
	e.mu.Lock()
	e.stopping = true
	for _, t := range e.targets {
		for t.queue.len() > 0 {
			e.waiting--
			e.restLocked(t.queue.pop())
		}
		t.listed = false
	}
	e.ready = fifo[*target]{}
	if !e.started {
		clear(e.lanes) // nobody works on them; their leases end
	}
	e.mu.Unlock()
	err := e.Idle(ctx)
	if err != nil {
		e.abandon()
		// What honours its context ends at once; for the rest the lease ends.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = e.Idle(grace) // the first error says more
	}
	select {
	case <-e.quit:
	default:
		close(e.quit)
	}
	e.mu.Lock()
	started := e.started
	e.dead = true
	e.mu.Unlock()
	if started {
		e.hint(hint{})
		<-e.ended
	}
	return err
}

// Idle waits until this engine holds no lane: everything handed to it is
// delivered, or waits in the database for its time.
func (e *Engine) Idle(ctx context.Context) error {
	for {
		e.mu.Lock()
		if len(e.lanes) == 0 {
			e.mu.Unlock()
			return nil
		}
		if e.emptied == nil {
			e.emptied = make(chan struct{})
		}
		emptied := e.emptied
		e.mu.Unlock()
		select {
		case <-emptied:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
