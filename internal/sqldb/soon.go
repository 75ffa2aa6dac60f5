package sqldb

import (
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// flusher gathers WriteSoons for a few milliseconds and hands them on together.
type flusher struct {
	flush func([]*write)
	done  handover

	mu     sync.Mutex
	wake   sync.Cond // ops, due or closed changed
	room   sync.Cond // ops became shorter
	ops    []*write
	due    bool
	timer  *time.Timer
	closed bool
}

func newFlusher(log *slog.Logger, flush func([]*write)) *flusher {
	f := &flusher{flush: flush}
	f.wake.L, f.room.L = &f.mu, &f.mu
	f.done.init(log)
	f.timer = time.AfterFunc(time.Hour, f.ripe)
	f.timer.Stop()
	return f
}

func (f *flusher) ripe() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.due = true
	f.wake.Signal()
}

// add waits while the queue is full, which slows its callers down to what the server takes.
func (f *flusher) add(o *write) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.ops) >= maxWaiting && !f.closed {
		f.room.Wait()
	}
	if f.closed {
		return ErrClosed
	}
	f.ops = append(f.ops, o)
	if len(f.ops) == 1 {
		f.timer.Reset(soonDelay)
	}
	return nil
}

// run flushes until the flusher is closed and empty.
func (f *flusher) run() {
	defer f.done.close()
	for {
		batch := f.next()
		if len(batch) == 0 {
			return
		}
		f.flushed(batch)
	}
}

// flushed flushes a batch on a goroutine that a closure may end, as t.FailNow
// does. Then each that is not finished is flushed alone.
func (f *flusher) flushed(batch []*write) {
	regular := false
	var wg sync.WaitGroup
	wg.Go(func() {
		f.flush(batch)
		regular = true
	})
	wg.Wait()
	for i, o := range batch {
		switch {
		case regular || o.state.Load() != queued:
		case len(batch) == 1:
			f.finished(o, errExited)
		default:
			f.flushed(batch[i : i+1])
		}
	}
}

// finished hands on a write whose outcome is known.
func (f *flusher) finished(o *write, err error) {
	o.state.Store(claimed)
	o.err = err
	f.done.put(o)
}

// next waits until the oldest has waited long enough. Under load the next batch
// is ready when the one before has been committed.
func (f *flusher) next() []*write {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.ops) == 0 || !f.due && !f.closed {
		if f.closed {
			return nil
		}
		f.wake.Wait()
	}
	n := min(len(f.ops), pgBatch)
	batch := append([]*write(nil), f.ops[:n]...)
	if f.ops = drop(f.ops, n); len(f.ops) == 0 {
		f.due = false
		f.timer.Stop()
	}
	f.room.Broadcast()
	slices.SortStableFunc(batch, func(a, b *write) int { return strings.Compare(a.rank, b.rank) })
	return batch
}

func (f *flusher) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ops)
}

func (f *flusher) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.wake.Signal()
	f.room.Broadcast()
}

// handover is a queue without bound in front of the goroutine that runs what
// follows the commit of a WriteSoon. What is in it is bounded by what may wait.
type handover struct {
	log    *slog.Logger
	mu     sync.Mutex
	filled sync.Cond
	ops    []*write
	closed bool
}

func (h *handover) init(log *slog.Logger) { h.log, h.filled.L = log, &h.mu }

func (h *handover) put(o *write) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
	h.filled.Signal()
}

func (h *handover) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.filled.Signal()
}

// run finishes what is put in until the queue is closed and empty.
func (h *handover) run() {
	for {
		ops := h.take()
		if len(ops) == 0 {
			return
		}
		for _, o := range ops {
			h.finish(o)
		}
	}
}

func (h *handover) finish(o *write) {
	defer func() {
		if v := recover(); v != nil {
			h.log.Error("panic after a commit", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	o.finish()
}

func (h *handover) take() []*write {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.ops) == 0 && !h.closed {
		h.filled.Wait()
	}
	ops := h.ops
	h.ops = nil
	return ops
}
