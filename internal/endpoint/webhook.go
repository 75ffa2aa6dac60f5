package endpoint

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// ClassifyWebhook is Classify for a place that is only told of things. It is
// given time: a status that may pass is Failed, not Final, and 410 is Gone.
func ClassifyWebhook(a Answer, err error) Class {
	if err == nil {
		switch a.Status {
		case http.StatusGone:
			return Gone
		case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
			return Failed
		}
	}
	return Classify(a, err)
}

// longestWait is what an answer may ask for.
const longestWait = 24 * time.Hour

// RetryAfter is how long an answer with the status 429 or 503 asks to be left
// alone, at most a day, and whether it does.
func RetryAfter(a Answer, now time.Time) (wait time.Duration, asked bool) {
	if a.Status != http.StatusTooManyRequests && a.Status != http.StatusServiceUnavailable {
		return 0, false
	}
	text := a.Header.Get("Retry-After")
	if n, err := strconv.ParseUint(text, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(n, uint64(longestWait/time.Second))) * time.Second, true
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), longestWait), true
}
