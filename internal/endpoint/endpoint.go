package endpoint

import (
	"context"
	"errors"
	"net/http"

	"parley/internal/outbound"
	"parley/internal/signing"
)

// MaxAnswer is how many bytes the body of an answer may have.
const MaxAnswer = 8 << 20

// Operation is one call to a bot or an integration.
type Operation struct {
	Name   string      // what is asked: event_received, action_triggered, …
	Type   string      // of the event or action; Name where there is none
	Header http.Header // in canonical spelling; see BotCall and IntegrationCall
	Body   []byte      // JSON; empty counts as {}
	// Subject is the id of the event or delivery, the same on every attempt:
	// receivers know a repeated one by it. "" gives each attempt an id of its own.
	Subject string
	Signer  *signing.Signer // signs what goes out over HTTP; nil leaves it unsigned
}

// Answer is what came back, whatever its status.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Endpoint is a place where operations are carried out. Invoke is safe for
// concurrent use. Its error is an *Error, or context.Canceled.
type Endpoint interface {
	Invoke(ctx context.Context, op Operation) (Answer, error)
}

// Error says why there is no answer.
type Error struct {
	Class Class
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Class is what an outcome means for a delivery.
type Class uint8

// The zero Class is Failed, so that an outcome nobody classified is tried again.
const (
	Failed Class = iota
	OK
	Final
	Unreachable
	TimedOut
	Canceled
	Ignored
	Gone
)

func (c Class) String() string {
	switch c {
	case OK:
		return "ok"
	case Final:
		return "final"
	case Unreachable:
		return "unreachable"
	case TimedOut:
		return "timed out"
	case Canceled:
		return "canceled"
	case Ignored:
		return "ignored"
	case Gone:
		return "gone"
	}
	return "failed"
}

// Classify says what the two results of Invoke mean. Only the status counts:
// official SDKs write a code into the body that differs from it.
func Classify(a Answer, err error) Class {
	if err != nil {
		return classifyError(err)
	}
	switch {
	case a.Status >= 200 && a.Status <= 299:
		return OK
	case a.Status >= 400 && a.Status <= 499:
		return Final
	case a.Status >= 502 && a.Status <= 504:
		return Unreachable
	}
	return Failed
}

func classifyError(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	switch {
	case is[*outbound.UnreachableError](err):
		return Unreachable
	case is[*outbound.RefusedError](err), is[*outbound.TooLargeError](err):
		return Final
	case is[*outbound.TimeoutError](err), errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Failed
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
