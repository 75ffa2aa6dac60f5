package sqldb

import (
	"errors"
	"sync/atomic"
	"time"
)

const (
	maxWaiting = 4096                 // writes that may wait
	soonDelay  = 5 * time.Millisecond // how long a WriteSoon waits for company
)

// within reports rows that nobody closes, for which fn would wait for ever.
func within(d time.Duration, fn func()) error {
	done := make(chan struct{})
	time.AfterFunc(0, func() {
		fn()
		close(done)
	})
	select {
	case <-done:
		return nil
	case <-time.After(d):
		return errors.New("sqldb: closed while the rows of a query were open")
	}
}

// write is one closure on its way.
type write struct {
	fn    func(tx *Tx) error
	state atomic.Int32
	err   error
	after []func()
	done  chan struct{} // closed when err is final; nil for a WriteSoon
	tell  func(error)   // of a WriteSoon, may be nil
	rank  string        // of a WriteSoon
}

// The states of a write.
const (
	queued  = iota
	claimed // by the writer: the caller waits for the outcome
	given   // up by the caller: the writer passes it over
)

// finish runs what follows the end of a WriteSoon.
func (o *write) finish() {
	if o.err == nil {
		for _, f := range o.after {
			f()
		}
	}
	if o.tell != nil {
		o.tell(o.err)
	}
}

// drop removes the first n, which the rest does not keep alive.
func drop(s []*write, n int) []*write {
	m := copy(s, s[n:])
	clear(s[m:])
	return s[:m]
}

// counters are the parts of Stats that both engines count.
type counters struct {
	writes, soon, batches, replays, reruns, busy, commitNanos atomic.Int64
}

func (c *counters) stats() Stats {
	return Stats{
		Writes: c.writes.Load(), Soon: c.soon.Load(), Batches: c.batches.Load(), Replays: c.replays.Load(),
		Reruns: c.reruns.Load(), Busy: c.busy.Load(), CommitTime: time.Duration(c.commitNanos.Load()),
	}
}
