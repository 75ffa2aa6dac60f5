package api

import (
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"parley/internal/auth"
	"parley/internal/fault"
)

// limits counts the requests of each principal. A nil *limits allows any number.
type limits struct {
	perSecond rate.Limit
	burst     int
	numbers   [][]string // header values from 0 to burst

	mu   sync.Mutex
	by   map[string]*rate.Limiter
	full int // size of by at which idle entries are dropped
}

const sweepAt = 4096

func newLimits(perSecond float64) *limits {
	if perSecond <= 0 {
		return nil
	}
	l := &limits{perSecond: rate.Limit(perSecond), burst: max(1, int(math.Ceil(perSecond))), by: map[string]*rate.Limiter{}, full: sweepAt}
	for n := range l.burst + 1 {
		l.numbers = append(l.numbers, []string{strconv.Itoa(n)})
	}
	return l
}

// Without a limit the headers still come, for official clients read them: SDK
// clients sleep RateLimit-Reset seconds before any retry, so it is 1.
var (
	unlimited = []string{"1000000"}
	oneSecond = []string{"1"}
	none      = []string{"0"}
)

// announce sets the headers of an answer whose principal is not known (yet).
func (l *limits) announce(h http.Header) {
	most := unlimited
	if l != nil {
		most = l.numbers[l.burst]
	}
	h["Ratelimit-Limit"], h["Ratelimit-Remaining"], h["Ratelimit-Reset"] = most, most, oneSecond
}

// take counts a request of p, or refuses it. Nobody in particular is not counted:
// strangers would share one allowance.
func (l *limits) take(h http.Header, p auth.Principal, now time.Time) error {
	if l == nil || p.Kind == auth.Anonymous {
		return nil
	}
	one := l.of(p.Scope(), now)
	allowed := one.AllowN(now, 1)
	h["Ratelimit-Remaining"] = l.numbers[max(0, min(int(one.TokensAt(now)), l.burst))]
	if allowed {
		return nil
	}
	wait := math.Ceil((1 - one.TokensAt(now)) / float64(l.perSecond))
	h["Ratelimit-Reset"] = []string{strconv.Itoa(max(1, int(wait)))}
	return fault.RateLimited.New("More than %d requests a second; wait as RateLimit-Reset says, then go on", l.burst)
}

func (l *limits) of(who string, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.by[who]
	if one == nil {
		if len(l.by) >= l.full {
			l.sweepLocked(now)
		}
		one = rate.NewLimiter(l.perSecond, l.burst)
		l.by[who] = one
	}
	return one
}

// sweepLocked drops those whose allowance is whole again: a new entry is the same.
func (l *limits) sweepLocked(now time.Time) {
	for who, one := range l.by {
		if one.TokensAt(now) >= float64(l.burst) {
			delete(l.by, who)
		}
	}
	l.full = max(sweepAt, 2*len(l.by))
}

// tellRetry says on a 429 when to come back.
func tellRetry(h http.Header) {
	h["Ratelimit-Remaining"] = none
	if h["Retry-After"] == nil {
		h["Retry-After"] = h["Ratelimit-Reset"]
	}
}
