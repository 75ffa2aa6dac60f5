package outbound

import (
	"fmt"
	"net/netip"
	"time"
)

// RefusedError says that a URL, or an address behind it, may not be called.
type RefusedError struct {
	Addr   netip.Addr // set when an address was the reason
	Reason string
}

func (e *RefusedError) Error() string { return e.Reason }

func refuse(format string, args ...any) *RefusedError {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}

func refuseAddr(a netip.Addr) *RefusedError {
	return &RefusedError{Addr: a, Reason: fmt.Sprintf("calls to the address %s are not allowed", a)}
}

// UnreachableError says that no connection came about, so the peer has seen nothing of the request.
type UnreachableError struct {
	Host string
	Err  error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("%s is unreachable: %v", e.Host, e.Err) }
func (e *UnreachableError) Unwrap() error { return e.Err }

// BrokenError says that the request was sent and no whole HTTP answer came back. The peer may have acted on it.
type BrokenError struct {
	Host string
	Err  error
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("%s gave no valid answer: %v", e.Host, e.Err)
}
func (e *BrokenError) Unwrap() error { return e.Err }

// TimeoutError says that the request was sent and the time was up before the answer was whole.
type TimeoutError struct {
	Host  string
	Limit time.Duration // 0 if the limit was the caller's deadline
}

func (e *TimeoutError) Error() string {
	if e.Limit == 0 {
		return fmt.Sprintf("%s gave no answer within the time limit", e.Host)
	}
	return fmt.Sprintf("%s gave no answer within %v", e.Host, e.Limit)
}

// Timeout marks the error as a timeout for code that asks by interface.
func (e *TimeoutError) Timeout() bool { return true }

// TooLargeError says that the answer's body exceeds the limit.
type TooLargeError struct {
	Host  string
	Limit int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the answer of %s is larger than %d bytes", e.Host, e.Limit)
}
