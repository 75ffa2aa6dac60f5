package delivery

// claim is the right to work on a lane, as the database granted it.
type claim struct {
	key, endpoint string
	ephemeral     bool
	token         string // owner
	until         int64
	seq           int64 // newest entry known to be committed
	done          int64 // every entry up to here has its outcome
	probe         bool  // for one try although the breaker is open
}

// lane is a lane this engine holds. The engine's mutex guards it; only the
// worker that has it in hand advances position.
type lane struct {
	claim
	t        *target
	state    state
	position int64   // every entry up to here has been attended to under this claim
	next     *claim  // granted while this one was ending
	unsaved  []entry // outcomes waiting for their commit
	writing  bool    // a closure is on its way
	lost     bool    // somebody else holds the lane
	leave    leave
	due      int64 // when to come back, for leave
	resets   int   // of its target, when its source was last asked
}

type state uint8

const (
	resting state = iota // nothing to attend to until a write returns or an entry is announced
	queued
	held // by a worker
)

// leave is how a resting lane is given up.
type leave uint8

const (
	stay  leave = iota // unless nothing is left to do
	later              // until due
	park               // until due or until the breaker of the endpoint closes
)

// target is an endpoint as the workers see it.
type target struct {
	id      string
	queue   fifo[*lane]
	lanes   int   // held here, in whatever state
	used    int64 // when the last lane came
	running int
	listed  bool // in Engine.ready
	starved bool // lanes were left in the database for want of room

	// The breaker, as known here; see breaker.go.
	failures  int
	openUntil int64
	reason    string
	readAt    int64 // 0 = read it again before the next try
	changing  int   // changes made here that are not committed yet
	resets    int   // times that Reset was called: what a try says that began before is of no use
}

func (t *target) open() bool { return t.failures > 0 }

func (e *Engine) targetLocked(endpoint string) *target {
	t := e.targets[endpoint]
	if t == nil {
		t = &target{id: endpoint}
		e.targets[endpoint] = t
	}
	return t
}

// roomFor reports whether another lane of the endpoint may be claimed. If not,
// the sweeper is called as soon as there is room.
func (e *Engine) roomFor(endpoint string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping || e.dead {
		return false
	}
	if e.waiting >= e.Queue {
		e.starved = true
		return false
	}
	if t := e.targets[endpoint]; t != nil && !e.mayQueueLocked(t) {
		t.starved = true
		return false
	}
	return true
}

// mayQueueLocked reports whether another lane of a target may be claimed. What
// is left free bounds each: however many endpoints are slow, there is room for
// one that is not.
func (e *Engine) mayQueueLocked(t *target) bool { return t.queue.len() < (e.Queue-e.waiting+1)/2 }

// mayRunLocked does the same for workers.
func (e *Engine) mayRunLocked(t *target) bool {
	return t.running < min(e.PerEndpoint, max(1, (e.Workers-e.busy+1)/2))
}

// accept takes over a claim.
func (e *Engine) accept(c claim) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dead {
		return
	}
	if l := e.lanes[c.key]; l != nil {
		// Its release has committed but has not been heard of yet, or its lease ran out.
		l.next = &c
		return
	}
	l := new(lane)
	e.lanes[c.key] = l
	e.beginLocked(l, c)
}

// beginLocked starts the work on a claim.
func (e *Engine) beginLocked(l *lane, c claim) {
	t := e.targetLocked(c.endpoint)
	t.lanes++
	t.used = e.now()
	*l = lane{claim: c, t: t, position: c.done}
	e.readyLocked(l)
}

// look tells the holder of a claim that an entry has been committed. A claim
// that has ended meanwhile needs no word: it could only end after that entry.
func (e *Engine) look(key, token string, seq int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lanes[key]
	if l == nil || l.token != token {
		return
	}
	l.seq = max(l.seq, seq)
	if l.state == resting && l.mayGoOn(e.now()) && !e.stopping {
		e.readyLocked(l)
	}
}

// mayGoOn reports whether the next entry may be attended to.
func (l *lane) mayGoOn(now int64) bool {
	return l.seq > l.position && l.leave == stay && !l.lost && len(l.unsaved) < maxUnsaved && l.until-now > (term/4).Milliseconds()
}

// readyLocked puts a lane behind the others of its target.
func (e *Engine) readyLocked(l *lane) {
	if e.stopping {
		e.restLocked(l)
		return
	}
	l.state = queued
	e.waiting++
	if l.probe {
		l.t.queue.pushFront(l)
	} else {
		l.t.queue.push(l)
	}
	e.listLocked(l.t)
}

// listLocked offers a target to the workers if it has something for them. One
// that has its share of them is offered again when one of them is done.
func (e *Engine) listLocked(t *target) {
	if t.listed || t.queue.len() == 0 || !e.mayRunLocked(t) {
		return
	}
	t.listed = true
	e.ready.push(t)
	e.wakeWorker()
}

func (e *Engine) wakeWorker() {
	switch {
	case e.parked > 0:
		e.parked--
		e.wake.Signal()
	case e.started && !e.dead && e.workers < e.Workers:
		e.workers++
		e.wg.Go(e.worker)
	}
}

// take gives the next lane, turn by turn between targets, and waits for one.
// It returns nil when the worker is not needed any more.
func (e *Engine) take() *lane {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.turnLocked()
	if t == nil {
		e.workers--
		return nil
	}
	l := t.queue.pop()
	l.state = held
	t.running++
	e.busy++
	e.waiting--
	e.listLocked(t)
	if e.starved && e.waiting < e.Queue/2 {
		e.starved = false
		e.sweepByLocked(0)
	}
	if t.starved && t.queue.len() < (e.Queue-e.waiting)/4 {
		t.starved = false
		e.sweepByLocked(0)
	}
	return l
}

// turnLocked gives the target whose turn it is, and nil to a worker who is not needed any more.
func (e *Engine) turnLocked() *target {
	for {
		for e.ready.len() == 0 || e.dead {
			if e.dead || e.parked >= keepIdle {
				return nil
			}
			e.parked++
			e.wake.Wait()
		}
		t := e.ready.pop()
		t.listed = false
		if t.running == 0 || e.mayRunLocked(t) {
			return t
		}
	}
}

// putLocked takes a lane out of the hands of its worker.
func (e *Engine) putLocked(l *lane) {
	l.t.running--
	e.busy--
	e.listLocked(l.t)
}

// restLocked leaves a lane to the write that decides what becomes of it.
func (e *Engine) restLocked(l *lane) {
	l.state = resting
	if !l.writing {
		l.writing = true
		e.toWrite = append(e.toWrite, l)
		signal(e.pen)
	}
}

// forgetLocked ends the work on a lane, or goes over to its next claim.
func (e *Engine) forgetLocked(l *lane) {
	l.t.lanes--
	for i := range l.unsaved {
		e.breakerSavedLocked(l.t, l.unsaved[i].breaker, true)
	}
	if c := l.next; c != nil && !e.dead {
		e.beginLocked(l, *c)
		return
	}
	delete(e.lanes, l.key)
	if len(e.lanes) == 0 && e.emptied != nil {
		close(e.emptied)
		e.emptied = nil
	}
}

// signal wakes a loop that reads from c; one signal waiting is enough.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// fifo is a queue in a ring.
type fifo[T any] struct {
	ring    []T
	head, n int
}

func (q *fifo[T]) len() int { return q.n }

func (q *fifo[T]) grow() {
	if q.n == len(q.ring) {
		ring := make([]T, max(8, 2*q.n))
		copy(ring[copy(ring, q.ring[q.head:]):], q.ring[:q.head])
		q.ring, q.head = ring, 0
	}
}

func (q *fifo[T]) push(v T) {
	q.grow()
	q.ring[(q.head+q.n)%len(q.ring)] = v
	q.n++
}

func (q *fifo[T]) pushFront(v T) {
	q.grow()
	q.head = (q.head + len(q.ring) - 1) % len(q.ring)
	q.ring[q.head] = v
	q.n++
}

func (q *fifo[T]) pop() T {
	var zero T
	v := q.ring[q.head]
	q.ring[q.head] = zero
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	return v
}
