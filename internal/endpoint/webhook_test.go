package endpoint

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"parley/internal/outbound"
)

func TestClassifyWebhook(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]Class{
		200: OK, 201: OK, 204: OK, 299: OK,
		301: Failed, 302: Failed, 304: Failed, 307: Failed, 308: Failed,
		400: Final, 401: Final, 403: Final, 404: Final, 409: Final, 422: Final, 499: Final,
		408: Failed, 425: Failed, 429: Failed,
		410: Gone,
		500: Failed, 501: Failed, 505: Failed, 599: Failed,
		502: Unreachable, 503: Unreachable, 504: Unreachable,
	} {
		if got := ClassifyWebhook(Answer{Status: status}, nil); got != want {
			t.Errorf("%d is %v, want %v", status, got, want)
		}
	}
	for err, want := range map[error]Class{
		&outbound.UnreachableError{}: Unreachable, &outbound.RefusedError{}: Final, &outbound.TimeoutError{}: TimedOut, errors.New("reset"): Failed,
	} {
		if got := ClassifyWebhook(Answer{}, err); got != want {
			t.Errorf("%T is %v, want %v", err, got, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"0": 0, "1": time.Second, "120": 2 * time.Minute, "86400": longestWait, "86401": longestWait, "99999999999999999999999": longestWait,
		"Fri, 20 Nov 2026 10:05:00 GMT":  5 * time.Minute,
		"Friday, 20-Nov-26 10:05:00 GMT": 5 * time.Minute,
		"Fri Nov 20 10:05:00 2026":       5 * time.Minute,
		"Fri, 20 Nov 2026 09:00:00 GMT":  0,
		"Mon, 20 Nov 2028 10:00:00 GMT":  longestWait,
	} {
		for _, status := range []int{429, 503} {
			got, asked := RetryAfter(Answer{Status: status, Header: http.Header{"Retry-After": {text}}}, now)
			if !asked || got != want {
				t.Errorf("%d %q: %v, %v, want %v", status, text, got, asked, want)
			}
		}
	}
	for _, text := range []string{"", "-1", "1.5", "soon", "1 s", "2026-11-20T10:05:00Z"} {
		if got, asked := RetryAfter(Answer{Status: 429, Header: http.Header{"Retry-After": {text}}}, now); asked {
			t.Errorf("%q asks for %v", text, got)
		}
	}
	if _, asked := RetryAfter(Answer{Status: 500, Header: http.Header{"Retry-After": {"5"}}}, now); asked {
		t.Error("a 500 asks for something")
	}
}
