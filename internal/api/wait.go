package api

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
)

// MaxWait is the longest that a client may wait for what comes of its request.
const MaxWait = time.Minute

// waitName is the query parameter that says how long.
const waitName = "wait"

// Wait is the part of an input that lets a client wait for what comes of its
// request. It is not part of what is asked: a request repeated under its
// idempotency key may wait for another time, or not at all.
type Wait struct {
	Seconds *string `query:"wait" doc:"Seconds to wait for what comes of it, above 0 and at most 60, such as 10 or 2.5."`
}

// Waits reports whether the client waits.
func (w Wait) Waits() bool { return w.Seconds != nil }

// duration is 0 if the client does not wait.
func (w Wait) duration() (time.Duration, error) {
	if w.Seconds == nil {
		return 0, nil
	}
	n, err := strconv.ParseFloat(*w.Seconds, 64)
	if err != nil || !isJSONNumber(*w.Seconds) || n <= 0 || n > MaxWait.Seconds() {
		return 0, fault.InvalidPayload.New("wait must be a number of seconds above 0 and at most %.0f, such as 10 or 2.5", MaxWait.Seconds())
	}
	return max(time.Duration(n*float64(time.Second)), 1), nil
}

// waiter is an input that embeds Wait.
type waiter interface {
	Waits() bool
	duration() (time.Duration, error)
}

// HandleWait is Handle for an operation whose client may wait for what comes of
// its request. In embeds Wait. The answer of fn is the one that is kept under an
// idempotency key. If the client waits, wait goes on from it, or from the answer
// that was kept the first time, and adds what has come. It cannot fail: what was
// asked for has been done. A limit of the operation's time bounds it too.
func HandleWait[In waiter, Out any](operationID, route string, access auth.Class, fn func(context.Context, In) (Out, error), wait func(ctx context.Context, out *Out, d time.Duration), opts ...Option) Op {
	o := Handle(operationID, route, access, fn, opts...)
	answer := o.call
	o.call = func(ctx context.Context, c *call) (any, error) {
		d, err := c.waits()
		if err != nil {
			return nil, err
		}
		out, err := answer(ctx, c)
		if d == 0 {
			return out, err
		}
		if err == nil {
			err = c.keepAsItIs(ctx, out)
		}
		if r, ok := errors.AsType[*once.Replay](err); ok {
			first := new(Out)
			if json.Unmarshal(r.Answer, first, decodeOpts) != nil {
				return nil, err // another version of the server has kept it: it goes out as it is
			}
			c.w.Header()["Idempotency-Replayed"] = isTrue
			out, err = first, nil
		}
		if err != nil {
			return nil, err
		}
		c.letTwinsIn()
		begun := c.api.Now()
		wait(ctx, out.(*Out), d)
		c.waited = c.api.Now().Sub(begun)
		return out, nil
	}
	return o
}

// waits is how long the client waits, 0 if it does not. A query that is not well
// formed is left to those who read all of it.
func (c *call) waits() (time.Duration, error) {
	if c.r.URL.RawQuery == "" {
		return 0, nil
	}
	query, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil || !query.Has(waitName) {
		return 0, nil
	}
	text := query.Get(waitName)
	return Wait{&text}.duration()
}

// keepAsItIs keeps an answer that will be added to before it goes out.
func (c *call) keepAsItIs(ctx context.Context, out any) error {
	if c.key == nil || c.key.Written() {
		return nil
	}
	defer c.out.Reset()
	if err := json.MarshalWrite(&c.out, out, encodeOpts); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	return c.keep(ctx)
}

// letTwinsIn ends what an idempotency key has to do with the rest of a request:
// its answer is kept, and who repeats it gets that and may wait too.
func (c *call) letTwinsIn() {
	if c.flight != "" {
		c.api.flights.land(c.flight)
	}
	c.flight, c.key = "", nil
}

// asked is a query without the parameter wait, if that is one of in.
func (in *input) asked(query string) string {
	if query == "" || !slices.ContainsFunc(in.query, func(p param) bool { return p.name == waitName }) {
		return query
	}
	pairs := slices.DeleteFunc(strings.Split(query, "&"), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		return err == nil && name == waitName
	})
	return strings.Join(pairs, "&")
}
