package main

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"
)

// sample is one measured step.
type sample struct {
	rate     float64 // operations a second
	p50, p99 time.Duration
	all      int  // operations, with those of the warm-up
	cost     cost // of each of them
}

// warm is the part of a step that runs before anything is counted.
func warm(step time.Duration) time.Duration { return min(step/4, 500*time.Millisecond) }

// closedLoop lets workers repeat op for the length of a step, each asking again
// as soon as it is answered. op(w, n) is worker w's n-th operation.
func closedLoop(ctx context.Context, workers int, step time.Duration, op func(w, n int) error) (sample, error) {
	begin := time.Now().Add(warm(step))
	end := begin.Add(step)
	took := make([][]time.Duration, workers)
	all := make([]int, workers)
	errs := make([]error, workers)
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() { took[w], all[w], errs[w] = loop(ctx, begin, end, func(n int) error { return op(w, n) }) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return sample{}, err
	}
	s := summarise(slices.Concat(took...), step)
	for _, n := range all {
		s.all += n
	}
	return s, ctx.Err()
}

// loop repeats op and tells how long each took after begin, and how many there were.
func loop(ctx context.Context, begin, end time.Time, op func(n int) error) (took []time.Duration, n int, err error) {
	took = make([]time.Duration, 0, 1<<14)
	for ; ; n++ {
		start := time.Now()
		if !start.Before(end) || ctx.Err() != nil {
			return took, n, nil
		}
		if err := op(n); err != nil {
			return nil, n, err
		}
		if start.After(begin) {
			took = append(took, time.Since(start))
		}
	}
}

func summarise(took []time.Duration, step time.Duration) sample {
	slices.Sort(took)
	return sample{rate: float64(len(took)) / step.Seconds(), p50: quantile(took, 0.50), p99: quantile(took, 0.99)}
}

// quantile of sorted values, 0 of none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[max(i, 0)]
}

func median[T float64 | time.Duration](values []T) T {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// pool holds one connection for each worker.
func pool(addr string, n int) ([]*conn, func() error, error) { return spread([]string{addr}, n) }

// spread is pool over several servers in turn.
func spread(addrs []string, n int) ([]*conn, func() error, error) {
	conns := make([]*conn, 0, n)
	closeAll := func() error {
		var errs []error
		for _, c := range conns {
			errs = append(errs, c.close())
		}
		return errors.Join(errs...)
	}
	for i := range n {
		c, err := dial(addrs[i%len(addrs)])
		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}
		conns = append(conns, c)
	}
	return conns, closeAll, nil
}

// requests runs a closed loop of requests over n connections; pick gives worker w's n-th request.
func requests(ctx context.Context, addr string, n, status int, step time.Duration, pick func(w, n int) []byte) (sample, error) {
	return requestsTo(ctx, []string{addr}, n, status, step, pick)
}

// requestsTo is requests over connections to several servers in turn.
func requestsTo(ctx context.Context, addrs []string, n, status int, step time.Duration, pick func(w, n int) []byte) (sample, error) {
	conns, closeAll, err := spread(addrs, n)
	if err != nil {
		return sample{}, err
	}
	s, err := closedLoop(ctx, n, step, func(w, n int) error {
		_, err := conns[w].expect(status, pick(w, n))
		return err
	})
	return s, errors.Join(err, closeAll())
}
