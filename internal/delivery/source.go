package delivery

import (
	"context"
	"time"

	"parley/internal/endpoint"
	"parley/internal/sqldb"
)

// Source is where work comes from and where its outcome goes.
type Source interface {
	// Next returns the oldest pending work of a lane with a sequence greater
	// than after, nil if there is none. It is called outside any transaction.
	Next(ctx context.Context, lane string, after int64) (*Work, error)
	// Done writes the outcome of w. It runs with the row of the lane locked
	// and, like every write closure, possibly more than once. Work that is not
	// pending any more is left alone.
	Done(tx *sqldb.Tx, w *Work, o Outcome) error
}

// Work is one pending entry of a lane.
type Work struct {
	ID   string
	Lane string // key of its lane; the engine fills it in
	Ref  any    // the Source's own: what Done needs besides
	Seq  int64  // as Enqueue returned it
	// Attempt numbers the coming try: one more than Outcome.Attempts, as Done stored it last.
	Attempt int
	// Before is how many of the tries recorded count no more: those that were made
	// before the work was replayed.
	Before    int
	CreatedAt int64 // milliseconds since the epoch
	Operation endpoint.Operation
	// RetryTimeouts treats a try that ran out of time like one that failed.
	// Otherwise it is final, because the first run may still be writing.
	RetryTimeouts bool
	// Webhook says that the endpoint is no bot and no integration but some place
	// outside that is only told: it is given three days. It includes RetryTimeouts.
	Webhook bool
	// Ended, if not nil, is called when a try has ended, before the lane goes on to
	// another entry.
	Ended func(ctx context.Context)
	// Skip, if not nil, is the outcome without any try.
	Skip *Outcome
}

// Status is what becomes of work.
type Status string

// The statuses a Source is given. Pending work is tried again later.
const (
	Pending   Status = "pending"
	Processed Status = "processed"
	Ignored   Status = "ignored"
	Failed    Status = "failed"
)

// Outcome is the result of a try, or of having none.
type Outcome struct {
	Status   Status
	Reason   string // why the last try was no success
	Dead     bool   // failed because the tries or the time ran out: a dead letter
	Gone     bool   // failed because the endpoint of a webhook wants to be told no more
	Attempts int    // tries recorded so far, this one included
}

// Invoker calls endpoints.
type Invoker interface {
	Invoke(ctx context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error)
	// Limit is how long one call may take.
	Limit(ctx context.Context, endpointID string) time.Duration
}
