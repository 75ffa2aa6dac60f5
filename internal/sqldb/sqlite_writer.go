package sqldb

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"parley/internal/sqldb/lite"
)

const (
	maxBatch   = 256 // closures in one transaction
	maxCulprit = 3   // failing closures of a batch that are taken out one by one
	slow       = time.Second

	moveEvery = 4000  // pages of log after which the mover starts
	moveSelf  = 16000 // pages of log at which the writer moves the rest itself
	moveAgain = 500   // pages after which it tries again
)

// writer turns the closures that wait into one transaction, commits it and
// tells all of them.
type writer struct {
	conn  *lite.Conn
	mover *lite.Conn // moves the write-ahead log into the file beside the writer
	log   *slog.Logger
	fatal func(error)
	count counters

	mu       sync.Mutex
	wake     sync.Cond // queue, soon, due or closed changed
	room     sync.Cond // soon became shorter
	queue    []*write
	soon     []*write
	due      bool // the oldest of soon has waited long enough
	timer    *time.Timer
	closed   bool
	broken   error // the disk failed
	logPages int

	// Of the goroutine in run.
	batch   []*write // under way
	current *write   // whose closure runs
	moved   int      // pages of log when the mover was last started

	done  handover // WriteSoons whose callbacks are to run
	moves chan struct{}
}

func newWriter(conn *lite.Conn, o Options) *writer {
	w := &writer{conn: conn, log: o.Log, fatal: o.Fatal, moves: make(chan struct{}, 1)}
	w.wake.L, w.room.L = &w.mu, &w.mu
	w.done.init(o.Log)
	w.timer = time.AfterFunc(time.Hour, w.ripe)
	w.timer.Stop()
	conn.CountPages()
	return w
}

func (w *writer) write(ctx context.Context, fn func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := &write{fn: fn, done: make(chan struct{})}
	if err := w.push(o); err != nil {
		return err
	}
	select {
	case <-o.done:
	case <-ctx.Done():
		if o.state.CompareAndSwap(queued, given) {
			return ctx.Err()
		}
		// The closure may be running: what it shares with the caller is not the
		// caller's again before it is over, and that is soon.
		<-o.done
	}
	if o.err != nil {
		return o.err
	}
	for _, f := range o.after {
		f()
	}
	return nil
}

func (w *writer) push(o *write) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.broken != nil:
		return w.broken
	case w.closed:
		return ErrClosed
	case len(w.queue) >= maxWaiting:
		w.count.busy.Add(1)
		return ErrBusy
	}
	w.queue = append(w.queue, o)
	w.wake.Signal()
	return nil
}

func (w *writer) writeSoon(fn func(tx *Tx) error, tell func(error)) {
	o := &write{fn: fn, tell: tell}
	if err := w.pushSoon(o); err != nil {
		o.err = err
		o.finish()
	}
}

// pushSoon waits while the queue is full, which slows its callers down to what the disk takes.
func (w *writer) pushSoon(o *write) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.soon) >= maxWaiting && !w.closed && w.broken == nil {
		w.room.Wait()
	}
	if w.broken != nil {
		return w.broken
	}
	if w.closed {
		return ErrClosed
	}
	w.soon = append(w.soon, o)
	if len(w.soon) == 1 {
		w.timer.Reset(soonDelay)
	}
	return nil
}

func (w *writer) ripe() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = true
	w.wake.Signal()
}

func (w *writer) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.wake.Signal()
	w.room.Broadcast()
}

func (w *writer) waiting() (writes, logPages int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) + len(w.soon), w.logPages
}

// run commits batches until the writer is closed and nothing waits.
func (w *writer) run() {
	regular := false
	defer func() {
		if !regular {
			// A closure ended the goroutine, as t.FailNow does.
			w.exited()
			w.run()
		}
	}()
	for w.next() {
		start := time.Now()
		w.commit(w.batch)
		if d := time.Since(start); d > slow {
			w.log.Warn("slow writes", "closures", len(w.batch), "took", d)
		}
		w.report(w.batch)
		w.move()
	}
	regular = true
	w.done.close()
	close(w.moves)
}

// next waits for work and puts it into batch: what was asked for soon, once that
// is due, then what waits, in the order of arrival.
func (w *writer) next() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if len(w.queue) > 0 || len(w.soon) > 0 && (w.due || w.closed) {
			if w.take(); len(w.batch) > 0 {
				return true
			}
			continue
		}
		if w.closed {
			return false
		}
		w.wake.Wait()
	}
}

func (w *writer) take() {
	n := 0
	if w.due || w.closed {
		n = min(len(w.soon), maxBatch)
	}
	w.batch = append(w.batch[:0], w.soon[:n]...)
	if w.soon = drop(w.soon, n); len(w.soon) == 0 {
		w.due = false
		w.timer.Stop()
	}
	w.room.Broadcast()
	n = 0
	for _, o := range w.queue {
		if len(w.batch) == maxBatch {
			break
		}
		n++
		// claimed already: a neighbour of a closure that ended the goroutine
		if o.state.CompareAndSwap(queued, claimed) || o.state.Load() == claimed {
			w.batch = append(w.batch, o)
		}
	}
	w.queue = drop(w.queue, n)
}

// commit brings every closure of the batch to its end: its error, or nil after
// a commit that carried it.
func (w *writer) commit(batch []*write) {
	rest := append([]*write(nil), batch...)
	var culprits []*write
	for len(rest) > 0 {
		bad, ok := w.attempt(rest)
		if ok {
			break
		}
		w.count.replays.Add(1)
		if culprits = append(culprits, rest[bad]); len(culprits) == maxCulprit {
			culprits = append(culprits[:0], batch...)
			break
		}
		rest = append(rest[:bad], rest[bad+1:]...)
	}
	// Alone: the error may have come from a neighbour's effect that is gone now.
	for i := range culprits {
		w.attempt(culprits[i : i+1])
	}
}

// attempt runs the closures in one transaction and commits it. When one of
// them fails and has changed something, all is rolled back and attempt reports
// which; alone it has had its error then. One that fails and has changed
// nothing, as a closure whose precondition does not hold, disturbs nobody.
func (w *writer) attempt(batch []*write) (bad int, ok bool) {
	err := w.disk()
	if err == nil {
		err = w.exec("BEGIN IMMEDIATE")
	}
	if err != nil {
		w.failAll(batch, err)
		return 0, true
	}
	for i, o := range batch {
		before := w.conn.TotalChanges()
		schema := w.call(o)
		if o.err == nil || !schema && w.conn.InTransaction() && w.conn.TotalChanges() == before {
			continue
		}
		w.rollback()
		return i, len(batch) == 1
	}
	start := time.Now()
	if err := w.exec("COMMIT"); err != nil {
		w.rollback()
		w.failAll(batch, unseen(err))
		return 0, true
	}
	w.count.commitNanos.Add(int64(time.Since(start)))
	w.count.batches.Add(1)
	return 0, true
}

// unseen marks the error of a commit that is whole in the log and that SQLite had
// no room to show. It is taken back, unless the process dies before the next commit
// takes its place: a start reads the log.
func unseen(err error) error {
	if e, ok := errors.AsType[*lite.Error](err); ok && e.Code == lite.NoIndex {
		return &doubtError{err}
	}
	return err
}

func (w *writer) call(o *write) (schema bool) {
	w.current = o
	q := &liteQ{c: w.conn}
	tx := &Tx{q: q}
	o.err = tx.run(o.fn)
	o.after = tx.after
	w.current = nil
	return q.ddl
}

func (w *writer) exec(text string) error {
	_, err := (&liteQ{c: w.conn}).Exec(text)
	return err
}

func (w *writer) rollback() {
	if w.conn.InTransaction() {
		_ = w.exec("ROLLBACK") // it fails only where there is no transaction, which is what is wanted
	}
}

func (w *writer) failAll(batch []*write, err error) {
	for _, o := range batch {
		o.err = err
	}
	w.check(err)
}

// disk is the error that ended the trust in the disk, if any.
func (w *writer) disk() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

// check ends everything when a sync failed: the pages it was for may be lost
// and the next sync would not say so.
func (w *writer) check(err error) {
	e, ok := errors.AsType[*lite.Error](err)
	if !ok || e.Code != lite.SyncFailed && e.Code != lite.SyncDirFailed && e.Code != lite.FileSystemCorrupt {
		return
	}
	w.mu.Lock()
	first := w.broken == nil
	w.broken = err
	w.room.Broadcast()
	w.mu.Unlock()
	if first {
		w.fatal(err)
	}
}

// report tells the callers.
func (w *writer) report(batch []*write) {
	for _, o := range batch {
		if o.err == nil {
			w.count.writes.Add(1)
			if o.done == nil {
				w.count.soon.Add(1)
			}
		}
		if o.done != nil {
			close(o.done)
		} else {
			w.done.put(o)
		}
	}
	clear(batch)
	w.batch = w.batch[:0]
}

// exited fails the closure that ended the goroutine and puts its neighbours
// back where they were.
func (w *writer) exited() {
	w.rollback()
	bad := w.current
	w.current = nil
	bad.err = errExited
	w.mu.Lock()
	for _, o := range slices.Backward(w.batch) {
		switch {
		case o == bad:
		case o.done == nil:
			w.soon, w.due = slices.Insert(w.soon, 0, o), true
		default:
			w.queue = slices.Insert(w.queue, 0, o)
		}
	}
	w.mu.Unlock()
	w.report([]*write{bad})
}

// move keeps the write-ahead log short. The mover does most of the work beside
// the writer; the rest is done here, between two transactions, because only a
// log that is in the file to its last page is begun again from the start.
func (w *writer) move() {
	pages := w.conn.LogPages()
	w.mu.Lock()
	w.logPages = pages
	w.mu.Unlock()
	if pages < w.moved {
		w.moved = 0
	}
	switch {
	case pages >= moveSelf && pages >= w.moved+moveAgain:
		_, _, err := w.conn.Checkpoint()
		w.check(err)
	case pages < moveSelf && pages >= w.moved+moveEvery:
		select {
		case w.moves <- struct{}{}:
		default:
		}
	default:
		return
	}
	w.moved = pages
}

// checkpoints is the mover.
func (w *writer) checkpoints() {
	for range w.moves {
		_, _, err := w.mover.Checkpoint()
		w.check(err)
	}
}
