package endpoint

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"parley/internal/sqldb"
)

type builtin struct {
	fn func(context.Context, Operation) (Answer, error)
}

// NewBuiltin is an endpoint in this process. fn runs on the caller's goroutine
// and has to return when its context ends; it may fail and panic as it likes.
func NewBuiltin(fn func(context.Context, Operation) (Answer, error)) Endpoint {
	return builtin{fn}
}

// PanicError is the cause of a failed attempt at a built-in that panicked.
type PanicError struct {
	Value any
	Stack []byte // for the log
}

func (e *PanicError) Error() string { return fmt.Sprintf("the handler panicked: %v", e.Value) }

func (b builtin) Invoke(ctx context.Context, op Operation) (Answer, error) {
	if err := ctx.Err(); err != nil {
		// As with a connection that was never made: nothing has run.
		return Answer{}, stopped(err, Unreachable)
	}
	a, err := b.run(ctx, op)
	switch {
	case err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return Answer{}, stopped(ctx.Err(), TimedOut)
	case is[*Error](err):
		return Answer{}, err
	case sqldb.IsOutage(err):
		// It did not get to work: that is no try of the work it was given.
		return Answer{}, &Error{Unreachable, err}
	case err != nil:
		return Answer{}, &Error{Failed, err}
	case len(a.Body) > MaxAnswer:
		return Answer{}, &Error{Final, fmt.Errorf("the answer is larger than %d bytes", MaxAnswer)}
	}
	return a, nil
}

func stopped(err error, late Class) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &Error{late, errors.New("no answer within the time limit")}
}

func (b builtin) run(ctx context.Context, op Operation) (a Answer, err error) {
	defer func() {
		if v := recover(); v != nil {
			a, err = Answer{}, &PanicError{v, debug.Stack()}
		}
	}()
	return b.fn(ctx, op)
}
