// Package lease decides which node runs a job that only one may run at a time,
// such as the sweeper.
//
// On one node the job is held as soon as nobody else in the process runs it. In
// a cluster the holder is a row of the table leases:
//
//	wait ──► row is free, or has not changed for a term ──► held ──► fn returns ──► row is freed
//	  ▲                                                      │ every third of a term: change the row
//	  └───────── not changed in time, or changed by another ◄┘ fn's context is cancelled
//
// No clock is compared with another one. Who waits takes the row when it has
// stayed the same for a whole term of the waiting node's own time; the holder
// counts its term from before it began to write. So the context of fn has ended
// before another node starts, as long as both clocks run about equally fast.
// What fn does after its context has ended may overlap with the next holder:
// what must not happen twice is decided in the database, not by a lease.
package lease

import (
	"context"
	"errors"
	"sync"
)

// ErrLost is the cause of the end of fn's context when the lease went to another node.
var ErrLost = errors.New("lease: lost")

// Lease lets one holder at a time run a job of a given name.
type Lease interface {
	// Hold waits until it holds name, runs fn while it does, and returns what fn
	// returns. The context of fn ends with ctx and when the lease is lost; then
	// Hold waits for fn to return and for the lease again. When ctx ends before
	// fn has started, Hold returns its error.
	Hold(ctx context.Context, name string, fn func(ctx context.Context) error) error
}

// local is the lease of a single node.
type local struct {
	mu   sync.Mutex
	held map[string]chan struct{} // full while somebody holds the name
}

// NewLocal makes the lease of a single node. It is never lost.
func NewLocal() Lease { return &local{held: make(map[string]chan struct{})} }

// Hold implements Lease.
func (l *local) Hold(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	turn := l.turn(name)
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
		return fn(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *local) turn(name string) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[name] == nil {
		l.held[name] = make(chan struct{}, 1)
	}
	return l.held[name]
}
