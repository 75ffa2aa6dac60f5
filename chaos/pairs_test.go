package chaos

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"
)

// visitors are ordinary clients at an even pace. What they wait for an answer
// shows what others do to them.
type visitors struct {
	talks []*talk
	n     int // requests so far; texts are numbered by it
}

// visitorsPace is how many requests they make a second, half of them writes.
const visitorsPace = 100

// newVisitors brings some people with a conversation each.
func newVisitors(t *testing.T, door string) *visitors {
	t.Helper()
	v := &visitors{}
	for n := range 8 {
		v.talks = append(v.talks, newTalk(t, door, n))
	}
	return v
}

// visit makes requests for so long and returns how long each took, counted from
// when it was due: a server that makes clients late does not get off cheaper.
// Every request must be answered well.
func (v *visitors) visit(t *testing.T, d time.Duration) (took []time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d+time.Minute)
	defer cancel()
	var (
		all sync.WaitGroup
		mu  sync.Mutex
	)
	pace := time.NewTicker(time.Second / visitorsPace)
	defer pace.Stop()
	for range int(d.Seconds() * visitorsPace) {
		due := <-pace.C
		v.n++
		c, n := v.talks[v.n%len(v.talks)], v.n
		all.Go(func() {
			err := c.ask(ctx, n)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(due))
			if err != nil {
				t.Errorf("a request of an ordinary client: %v", err)
			}
		})
	}
	all.Wait()
	return took
}

// ask writes a message, or reads the conversation, in turn.
func (c *talk) ask(ctx context.Context, n int) error {
	if n/8%2 == 0 {
		text := fmt.Sprintf("%s-v%06d.", c.name, n)
		in := map[string]any{"conversationId": c.id, "payload": payload{"text", text}}
		_, err := c.call(ctx, "POST", "/messages", "key-"+text, in, &struct{}{})
		return err
	}
	_, err := c.call(ctx, "GET", "/conversations/"+url.PathEscape(c.id)+"/messages", "", struct{}{}, &struct{}{})
	return err
}

// percentile of some times; they are sorted by it.
func percentile(took []time.Duration, percent int) time.Duration {
	slices.Sort(took)
	return took[(len(took)*percent+99)/100-1]
}

// pairs compares the visitors' p99 with and without a nuisance, in turns: a
// machine that becomes slower does so for both. It returns the median of the
// ratios, and the p99 of each side over all rounds.
func (v *visitors) pairs(t *testing.T, nuisance func(during func())) (ratio float64, calm, beside time.Duration) {
	t.Helper()
	turns, each := 1, time.Second
	if long() {
		turns, each = 7, 15*time.Second
	}
	var ratios []float64
	var without, with []time.Duration
	v.visit(t, each) // connections are made
	for range turns {
		a := v.visit(t, each)
		var b []time.Duration
		nuisance(func() { b = v.visit(t, each) })
		ratios = append(ratios, float64(percentile(b, 99))/float64(percentile(a, 99)))
		without, with = append(without, a...), append(with, b...)
	}
	slices.Sort(ratios)
	t.Logf("p99 with the nuisance, of that without, in turns: %.2f", ratios)
	return ratios[len(ratios)/2], percentile(without, 99).Round(10 * time.Microsecond), percentile(with, 99).Round(10 * time.Microsecond)
}

// bearable holds the ratio of a long run against the promise.
func bearable(t *testing.T, ratio float64) {
	t.Helper()
	if long() && ratio > 1.5 {
		t.Errorf("p99 of ordinary clients is %.2f times that without the nuisance (median of the pairs), want 1.5 at most", ratio)
	}
}
